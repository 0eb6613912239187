"""Artifacts straight to and from the store, `artifacts_mode = direct`: signed parts of a real S3, and shared files."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from test_artifact_transfers import content, file, names

import penstock
from penstock import direct, errors
from s3 import S3Server
from s3_front import Front, Reply, front, refusal
from servers import ServerProcess

MIB = 1 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "buckets") as store:
        yield store


@pytest.fixture(scope="module")
def before(store: S3Server) -> Iterator[Front]:
    """What the server and its clients take for the store."""
    with front(store.endpoint) as it:
        yield it


@pytest.fixture(scope="module")
def signing(postgres, store: S3Server, before: Front, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose clients write to S3 themselves. Its address."""
    dsn = postgres.create(template="penstock_template")
    environment = store.environment | {"PENSTOCK_S3_ENDPOINT": before.endpoint, "PENSTOCK_ARTIFACTS_MODE": "direct"}
    with ServerProcess(tmp_path_factory.mktemp("signing") / "data", dsn=dsn, env=environment) as server:
        yield server.start().wait_ready().grpc_address
    postgres.drop(dsn)


@pytest.fixture
def client(signing: str) -> Iterator[penstock.Client]:
    with penstock.Client(signing) as client:
        yield client


@pytest.fixture
def run_id(client: penstock.Client) -> str:
    return client.create_run("artifacts").id


@pytest.fixture
def asked(before: Front) -> Callable[[str], list[int]]:
    """The parts that were sent, or the ranges that were fetched, by signed addresses since the test began."""
    begun = len(before.asked)

    def asked(method: str) -> list[int]:
        found = [each for each in before.asked[begun:] if each.method == method and "X-Amz-Signature" in each.path]
        return [int(parse_qs(urlsplit(each.path).query).get("partNumber", ["0"])[0]) for each in found]

    return asked


def first(act: Callable[[], None]) -> Callable[[int], None]:
    """Does it when the first bytes are told."""
    done: list[int] = []

    def progress(_: int) -> None:
        if not done:
            done.append(1)
            act()

    return progress


def test_large_files_go_straight_to_the_store_and_back(
    client: penstock.Client, run_id: str, asked: Callable[[str], list[int]], tmp_path: Path
) -> None:
    source = file(tmp_path / "a.bin", 26 * MIB)
    moved: list[int] = []
    artifact = client.upload_artifact(run_id, source, "deep/Modèle 1.bin", progress=moved.append)
    assert sorted(asked("PUT")) == [1, 2, 3, 4]
    assert sum(moved) == 26 * MIB
    assert client.stat_artifact(run_id, artifact.path) == artifact
    found = client.download_artifacts(run_id, artifact.path, tmp_path / "b.bin")
    assert found.read_bytes() == source.read_bytes()
    assert len(asked("GET")) == 4
    assert names(tmp_path) == ["a.bin", "b.bin"]
    assert client.upload_artifact(run_id, source, artifact.path) == artifact  # and is not sent again
    assert len(asked("PUT")) == 4
    assert client.upload_artifact(run_id, b"small", "small").size == 5
    assert client.read_artifact(run_id, "small") == b"small"


@pytest.mark.parametrize(
    "reply",
    [
        refusal(503, "SlowDown"),
        refusal(500, "InternalError"),
        refusal(400, "BadDigest"),
        refusal(403, "AccessDenied", "Request has expired"),
        Reply(0),
        Reply(cut=0),
    ],
    ids=["503", "500", "digest", "expired", "none", "cut"],
)
def test_what_the_store_can_get_over_is_tried_again(
    client: penstock.Client, run_id: str, before: Front, tmp_path: Path, reply: Reply
) -> None:
    source = file(tmp_path / "a.bin", 42 * MIB)
    artifact = client.upload_artifact(run_id, source, progress=first(lambda: before.replies.append(reply)))
    assert not before.replies
    before.replies.append(reply)
    got = client.download_artifacts(run_id, "a.bin", tmp_path / "b.bin")
    assert not before.replies
    assert got.read_bytes() == source.read_bytes()
    assert artifact.size == 42 * MIB


def test_an_answer_that_ends_early_is_gone_on_with(
    client: penstock.Client, run_id: str, before: Front, tmp_path: Path
) -> None:
    client.upload_artifact(run_id, content(20 * MIB), "a.bin")
    before.replies.extend([Reply(cut=3 * MIB), Reply(cut=10)])
    found = client.download_artifacts(run_id, "a.bin", tmp_path / "a.bin")
    assert not before.replies
    assert found.read_bytes() == content(20 * MIB)


def test_what_the_store_refuses_is_told_without_its_secrets(
    client: penstock.Client, run_id: str, before: Front, store: S3Server, tmp_path: Path
) -> None:
    source = file(tmp_path / "a.bin", 60 * MIB)

    def refuse() -> None:
        before.replies.extend([refusal(403, "AccessDenied", "not with this key")] * 30)

    with pytest.raises(errors.FailedPrecondition, match="403 AccessDenied not with this key") as raised:
        client.upload_artifact(run_id, source, progress=first(refuse))
    before.replies.clear()
    assert "Signature" not in str(raised.value)
    assert before.endpoint.removeprefix("http://") in str(raised.value)
    with pytest.raises(errors.NotFound):
        client.stat_artifact(run_id, "a.bin")
    client.upload_artifact(run_id, source)


def test_a_store_that_is_away_is_waited_for(
    client: penstock.Client, run_id: str, store: S3Server, tmp_path: Path
) -> None:
    source = file(tmp_path / "a.bin", 42 * MIB)
    client.upload_artifact(run_id, source)
    store.kill()
    try:
        with pytest.raises(errors.Unavailable):
            client.download_artifacts(run_id, "a.bin", tmp_path / "b.bin", patience=0.5)
        waking = threading.Timer(1.0, store.start)
        waking.start()
        assert client.download_artifacts(run_id, "a.bin", tmp_path / "b.bin").read_bytes() == source.read_bytes()
        waking.join()
    finally:
        if store._process is None:
            store.start()


def test_an_upload_that_is_given_up_leaves_nothing(
    client: penstock.Client, run_id: str, before: Front, tmp_path: Path
) -> None:
    source = file(tmp_path / "a.bin", 60 * MIB)
    stop = threading.Event()
    begun = len(before.asked)
    with pytest.raises(errors.Stopped):
        client.upload_artifact(run_id, source, progress=first(stop.set), stop=stop)
    with pytest.raises(errors.NotFound):
        client.stat_artifact(run_id, "a.bin")
    with pytest.raises(errors.SourceChanged):
        client.upload_artifact(run_id, source, progress=first(lambda: os.utime(source, ns=(0, 0))))
    with pytest.raises(errors.NotFound):
        client.stat_artifact(run_id, "a.bin")
    assert direct._room._value == direct._ROOM  # what was in memory has gone
    assert len(before.asked) > begun


# A directory that client and server share.


@pytest.fixture(scope="module")
def sharing(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    dsn = postgres.create(template="penstock_template")
    environment = {"PENSTOCK_ARTIFACTS_MODE": "direct"}
    with ServerProcess(tmp_path_factory.mktemp("sharing") / "d a t a", dsn=dsn, env=environment) as server:
        yield server.start().wait_ready()
    postgres.drop(dsn)


@pytest.fixture
def beside(sharing: ServerProcess) -> Iterator[penstock.Client]:
    with penstock.Client(sharing.grpc_address) as client:
        yield client


def test_files_are_written_where_the_server_has_them(beside: penstock.Client, tmp_path: Path) -> None:
    run_id = beside.create_run("artifacts").id
    source = file(tmp_path / "a.bin", 20 * MIB)
    moved: list[int] = []
    artifact = beside.upload_artifact(run_id, source, "Modèle 100%.bin", progress=moved.append)
    assert sum(moved) == 20 * MIB
    found = beside.download_artifacts(run_id, artifact.path, tmp_path / "b.bin")
    assert found.read_bytes() == source.read_bytes()
    with pytest.raises(errors.SourceChanged):
        beside.upload_artifact(run_id, source, progress=first(lambda: os.truncate(source, 5)))
    assert beside.stat_artifact(run_id, artifact.path) == artifact


@pytest.mark.parametrize("without", [["copy_file_range"], ["copy_file_range", "sendfile"]])
def test_where_the_kernel_does_not_copy_bytes_are_read_and_written(
    beside: penstock.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: list[str]
) -> None:
    for way in without:
        monkeypatch.delattr(os, way, raising=False)
    run_id = beside.create_run("artifacts").id
    source = file(tmp_path / "a.bin", 20 * MIB + 3)
    beside.upload_artifact(run_id, source)
    assert beside.download_artifacts(run_id, "a.bin", tmp_path / "b.bin").read_bytes() == source.read_bytes()


def test_bytes_are_written_where_the_server_has_them(beside: penstock.Client) -> None:
    run_id = beside.create_run("artifacts").id
    data = content(20 * MIB + 3)
    beside.upload_artifact(run_id, data, "a.bin")
    assert beside.read_artifact(run_id, "a.bin") == data


def test_a_directory_that_is_not_shared_is_told(
    beside: penstock.Client, sharing: ServerProcess, tmp_path: Path
) -> None:
    run_id = beside.create_run("artifacts").id
    source = file(tmp_path / "a.bin", 9 * MIB)
    beside.upload_artifact(run_id, source)
    there = sharing.data_dir / "artifacts"
    elsewhere = there.with_name("elsewhere")

    def hide() -> None:
        there.rename(elsewhere)

    hidden = threading.Event()
    asked = direct.write_file

    def unshared(*args: object) -> None:
        if not hidden.is_set():
            hide()
            hidden.set()
        asked(*args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "write_file", unshared)
        with pytest.raises(errors.FailedPrecondition, match="mount that directory on this machine"):
            beside.upload_artifact(run_id, content(9 * MIB, 1), "b.bin")
    elsewhere.rename(there)
    assert beside.download_artifacts(run_id, "a.bin", tmp_path / "b.bin").read_bytes() == source.read_bytes()
