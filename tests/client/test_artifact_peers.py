"""Artifacts of a peer that says what no good server would, or says it at a bad moment."""

from __future__ import annotations

import gc
import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest

import penstock
from penstock import direct, effort, errors
from penstock.chunks import chunk_in, chunk_message
from penstock.downloads import SMALL
from penstock.v1 import artifacts_pb2 as pb
from penstock.v1.artifacts_pb2_grpc import ArtifactServiceServicer, add_ArtifactServiceServicer_to_server
from penstock.wire import CHUNK
from s3_front import Front, Reply, front, refusal

RUN = 32 * "0"
DATA = b"what is asked for"


class Liar(ArtifactServiceServicer):
    """Gives `data` for everything; `refusals` come first, to any call: code, metadata."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.data = DATA
        self.sha256 = hashlib.sha256(DATA).digest()
        self.size: int | None = None
        self.gives = DATA  # in a download
        self.by_range = False  # only what is asked for of it
        self.ends: list[grpc.StatusCode] = []  # of downloads, after all their bytes
        self.refusals: deque[tuple[grpc.StatusCode, dict[str, str]]] = deque()
        self.calls: Counter[str] = Counter()
        self.headers: list[pb.UploadHeader] = []
        self.route = pb.ARTIFACT_ROUTE_SERVER
        self.store = ""  # where signed parts go
        self.asked: Callable[[], object] = lambda: None  # with each StatArtifact, DownloadArtifact and upload

    def artifact(self, path: str) -> pb.Artifact:
        return pb.Artifact(path=path, size=len(self.data) if self.size is None else self.size, sha256=self.sha256)

    def called(self, name: str, context: grpc.ServicerContext) -> None:
        self.calls[name] += 1
        if self.refusals:
            refuse(context, *self.refusals.popleft())

    def ListArtifacts(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ListArtifactsResponse(artifacts=[self.artifact(path) for path in self.paths])

    def StatArtifact(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked()
        if not self.paths:
            refuse(context, grpc.StatusCode.NOT_FOUND, {"penstock-error": "NotFound"})
        if request.path in self.paths:
            return pb.StatArtifactResponse(artifact=self.artifact(request.path))
        return pb.StatArtifactResponse(artifact=pb.Artifact(path=request.path, is_directory=True))

    def LocateArtifact(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.LocateArtifactResponse(artifact=self.artifact(request.path), route=pb.ARTIFACT_ROUTE_SERVER)

    def DownloadArtifact(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.called("download", context)
        self.asked()
        yield pb.DownloadArtifactResponse(artifact=self.artifact(request.path))
        gives = self.gives[request.offset :][: request.length or None] if self.by_range else self.gives
        for at in range(0, len(gives), CHUNK):
            yield pb.DownloadArtifactResponse(chunk=gives[at : at + CHUNK])
        if self.ends:
            refuse(context, self.ends.pop(), {})

    def BeginUpload(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls["begin"] += 1
        return pb.BeginUploadResponse(upload_id=f"{self.calls['begin']}", part_bytes=8 << 20, route=self.route)

    def SignUploadParts(self, request: Any, context: Any) -> Any:  # noqa: N802
        numbers = range(request.first, request.first + request.count)
        return pb.SignUploadPartsResponse(urls=[f"{self.store}/{request.upload_id}/{number}" for number in numbers])

    def CompleteUpload(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls["complete"] += 1
        assert [part.number for part in request.parts] == [1, 2, 3]
        return pb.CompleteUploadResponse(artifact=pb.Artifact(path=request.upload_id, sha256=request.sha256))

    def AbortUpload(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls["abort"] += 1
        return pb.AbortUploadResponse()

    def UploadArtifact(self, requests: Any, context: Any) -> Any:  # noqa: N802
        header = next(requests).header
        self.headers.append(header)
        self.called("upload", context)
        self.asked()
        digest = hashlib.sha256(header.data)
        for message in requests:
            digest.update(message.chunk)
        return pb.UploadArtifactResponse(artifact=pb.Artifact(path=header.path, sha256=digest.digest()))


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, facts: dict[str, str]) -> NoReturn:
    context.set_trailing_metadata(tuple(facts.items()))
    context.abort(code, "as the test has it")
    raise AssertionError


@pytest.fixture
def liar() -> Liar:
    return Liar()


@pytest.fixture
def client(liar: Liar) -> Iterator[penstock.Client]:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    add_ArtifactServiceServicer_to_server(liar, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with penstock.Client(f"127.0.0.1:{port}") as client:
        yield client
    server.stop(None).wait()


class Newer(Liar):
    """Takes many files at once: of each what `tells` has for its path, in turn; then the artifact."""

    def __init__(self) -> None:
        super().__init__()
        self.tells: dict[str, list[grpc.StatusCode]] = {}
        self.batches: list[list[str]] = []
        self.forgets = 0  # so many outcomes

    def UploadArtifacts(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.called("batch", context)
        self.asked()
        self.batches.append([file.path for file in request.files])
        outcomes = [self._outcome(file) for file in request.files]
        return pb.UploadArtifactsResponse(outcomes=outcomes[self.forgets :])

    def _outcome(self, file: Any) -> Any:
        assert file.sha256 == hashlib.sha256(file.data).digest()
        if codes := self.tells.get(file.path):
            facts = {"penstock-error": "as the test has it", "retry-after-ms": "1"}
            told = pb.UploadArtifactsResponse.Failure(code=codes.pop(0).value[0], reason="no", facts=facts)
            return pb.UploadArtifactsResponse.Outcome(failure=told)
        return pb.UploadArtifactsResponse.Outcome(artifact=pb.Artifact(path=file.path, size=len(file.data)))


def many(directory: Path, count: int) -> list[str]:
    for number in range(count):
        (directory / f"{number:03}").write_bytes(b"%d" % number)
    return [f"{number:03}" for number in range(count)]


def test_an_older_server_takes_small_files_one_by_one(client: penstock.Client, liar: Liar, tmp_path: Path) -> None:
    paths = many(tmp_path, 300)
    moved: list[int] = []
    assert [each.path for each in client.upload_artifacts(RUN, tmp_path, progress=moved.append)] == paths
    assert sorted(header.path for header in liar.headers) == paths
    assert sum(moved) == 10 + 90 * 2 + 200 * 3


@pytest.mark.parametrize("liar", [Newer()])
def test_of_many_only_those_are_sent_again_that_may_succeed(
    client: penstock.Client, liar: Newer, tmp_path: Path
) -> None:
    paths = many(tmp_path, 100)
    status = grpc.StatusCode
    liar.tells = {"007": [status.UNAVAILABLE, status.RESOURCE_EXHAUSTED], "008": [status.INVALID_ARGUMENT]}
    liar.refusals.append((status.UNAVAILABLE, {"penstock-error": "Unavailable", "retry-after-ms": "1"}))
    moved: list[int] = []
    with pytest.raises(errors.TransferFailed, match="1 of 100 files failed: 008: no") as raised:
        client.upload_artifacts(RUN, tmp_path, progress=moved.append)
    assert isinstance(raised.value.failures["008"], errors.InvalidArgument)
    assert liar.batches == [paths, ["007"], ["007"]]
    assert liar.calls["batch"] == 4
    assert sum(moved) == 9 + 90 * 2
    assert not liar.headers


@pytest.mark.parametrize("liar", [Newer()])
def test_what_many_cannot_do_is_told_of_each(client: penstock.Client, liar: Newer, tmp_path: Path) -> None:
    paths = many(tmp_path, 3)
    liar.tells = {"001": [grpc.StatusCode.UNAVAILABLE]}
    with pytest.raises(errors.TransferFailed) as raised:
        client.upload_artifacts(RUN, tmp_path, patience=0)
    assert {path: type(error) for path, error in raised.value.failures.items()} == {"001": errors.Unavailable}
    liar.refusals.append((grpc.StatusCode.PERMISSION_DENIED, {"penstock-error": "PermissionDenied"}))
    with pytest.raises(errors.TransferFailed) as raised:
        client.upload_artifacts(RUN, tmp_path)
    assert {type(error) for error in raised.value.failures.values()} == {errors.PermissionDenied}
    assert sorted(raised.value.failures) == paths
    liar.forgets = 1
    with pytest.raises(errors.TransferFailed, match="tells of 2 files, and was sent 3"):
        client.upload_artifacts(RUN, tmp_path)


@pytest.mark.parametrize("liar", [Newer()])
def test_what_is_not_small_goes_alone(client: penstock.Client, liar: Newer, tmp_path: Path) -> None:
    sizes = {"a": 64 << 10, "b": (64 << 10) + 1, "c": 0} | {f"d{number}": 60_000 for number in range(20)}
    for path, size in sizes.items():
        (tmp_path / path).write_bytes(bytes(size))
    assert [each.path for each in client.upload_artifacts(RUN, tmp_path)] == sorted(sizes)
    assert [header.path for header in liar.headers] == ["b"]
    assert max(sum(sizes[path] for path in batch) for batch in liar.batches) <= 512 << 10
    assert sorted(path for batch in liar.batches for path in batch) == sorted({*sizes} - {"b"})


def test_names_that_lead_elsewhere_are_not_written(client: penstock.Client, liar: Liar, tmp_path: Path) -> None:
    bad = ["../up", "/abs", "a/../../up", "a\\..\\up", "", "a//b", "./a", "C:/a", "a\0b"]
    liar.paths = [*bad, "good/file"]
    with pytest.raises(errors.TransferFailed, match="9 of 10 files failed") as raised:
        client.download_artifacts(RUN, "", tmp_path / "in" / "here")
    assert sorted(raised.value.failures) == sorted(bad)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "in/here/good/file"]
    assert (tmp_path / "in/here/good/file").read_bytes() == DATA


def test_what_is_not_below_the_directory_is_not_taken(client: penstock.Client, liar: Liar, tmp_path: Path) -> None:
    liar.paths = ["models2/a", "other", "models/a"]
    with pytest.raises(errors.TransferFailed, match="2 of 3 files failed"):
        client.download_artifacts(RUN, "models", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_of_two_names_that_are_one_here_only_one_is_written(
    client: penstock.Client, liar: Liar, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "Models").symlink_to("models")  # as on a disk that takes either for the other
    liar.paths = ["Models/a", "models/a", "x", "X", "é", "e\u0301"]
    with pytest.raises(errors.TransferFailed, match=r"1 of 6 files failed: models/a: .* for that of 'Models/a'"):
        client.download_artifacts(RUN, "", tmp_path)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == sorted(["Models", "models", "x", "X", "é", "e\u0301"])


def test_what_came_of_a_download_is_no_file_of_its_own(client: penstock.Client, liar: Liar, tmp_path: Path) -> None:
    liar.paths = [".a.penstock-part", "a"]
    with pytest.raises(errors.TransferFailed, match="1 of 2 files failed"):
        client.download_artifacts(RUN, "", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_errors_of_many_files_hold_nothing_of_them(client: penstock.Client, liar: Liar, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    for name in "ab":
        (tmp_path / "up" / name).write_bytes(bytes(1000))
    refused = (grpc.StatusCode.NOT_FOUND, {"x-request-id": "1"})
    liar.refusals.extend([refused] * 2)
    with pytest.raises(errors.TransferFailed, match="2 of 2") as up:
        client.upload_artifacts(RUN, tmp_path / "up")
    liar.paths = ["a", "b"]
    liar.refusals.extend([refused] * 2)
    with pytest.raises(errors.TransferFailed, match="2 of 2") as down:
        client.download_artifacts(RUN, "", tmp_path / "down")
    for error in (*up.value.failures.values(), *down.value.failures.values()):
        assert isinstance(error, errors.NotFound)
        assert error.__traceback__ is error.__context__ is error.__cause__ is None


def test_hashing_can_be_stopped(client: penstock.Client, liar: Liar) -> None:
    stop = threading.Event()
    liar.paths, liar.size, liar.asked = ["a"], 4 << 20, stop.set
    with pytest.raises(errors.Stopped):
        client.upload_artifact(RUN, bytes(4 << 20), "a", stop=stop)
    assert liar.calls["begin"] == 0


def test_a_small_download_that_hangs_can_be_stopped(client: penstock.Client, liar: Liar, tmp_path: Path) -> None:
    stop, go = threading.Event(), threading.Event()

    def hang() -> None:
        stop.set()
        assert go.wait(60)

    liar.paths = ["a"]
    for fetch in (
        lambda: client.download_artifacts(RUN, "", tmp_path, stop=stop),
        lambda: client.read_artifact(RUN, "a", stop=stop),
    ):
        stop.clear()
        liar.asked = hang
        with pytest.raises(errors.Stopped):
            fetch()
    go.set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("liar", [Newer()])
def test_small_uploads_that_hang_can_be_stopped(client: penstock.Client, liar: Newer, tmp_path: Path) -> None:
    stop, go = threading.Event(), threading.Event()

    def hang() -> None:
        stop.set()
        assert go.wait(60)

    many(tmp_path, 3)
    liar.asked = hang
    for send in (
        lambda: client.upload_artifacts(RUN, tmp_path, stop=stop),
        lambda: client.upload_artifact(RUN, b"1", "a", stop=stop),
    ):
        stop.clear()
        with pytest.raises(errors.Stopped):
            send()
    go.set()
    assert liar.calls == {"batch": 1, "upload": 1}


@pytest.mark.parametrize("gives", [b"something else    ", b"", DATA + b"more"])
def test_other_bytes_than_were_stored_are_never_there(
    client: penstock.Client, liar: Liar, tmp_path: Path, gives: bytes
) -> None:
    liar.paths, liar.gives = ["a"], gives
    with pytest.raises(errors.TransferFailed, match="arrived damaged"):
        client.download_artifacts(RUN, "", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert liar.calls["download"] == 3
    with pytest.raises(errors.Unavailable, match="arrived damaged"):
        client.read_artifact(RUN, "a", patience=0)


@pytest.mark.parametrize("gives", [bytes(2 * SMALL), b""])
def test_other_bytes_of_ranges_are_never_there(
    client: penstock.Client, liar: Liar, tmp_path: Path, gives: bytes
) -> None:
    liar.paths, liar.size, liar.gives = ["a"], 3 * SMALL, gives
    with pytest.raises(errors.TransferFailed, match="ended before its end" if not gives else "more came"):
        client.download_artifacts(RUN, "", tmp_path, patience=0)
    assert not (tmp_path / "a").exists()


def test_a_stream_that_fails_after_its_last_byte_has_brought_all(
    client: penstock.Client, liar: Liar, tmp_path: Path
) -> None:
    liar.paths, liar.by_range = ["a"], True
    liar.data = liar.gives = bytes(range(256)) * (3 * SMALL // 256)
    liar.sha256 = hashlib.sha256(liar.data).digest()
    liar.ends = [grpc.StatusCode.UNAVAILABLE] * 3
    client.download_artifacts(RUN, "", tmp_path)
    assert (tmp_path / "a").read_bytes() == liar.data
    assert liar.calls["download"] == 3  # as many as there are ranges


@pytest.mark.parametrize(
    ("code", "facts"),
    [
        (grpc.StatusCode.UNAVAILABLE, {"penstock-error": "Unavailable", "retry-after-ms": "10"}),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, {"penstock-error": "StoreFull", "retry-after-ms": "10"}),
        (grpc.StatusCode.ABORTED, {"penstock-error": "UploadGone"}),
        (grpc.StatusCode.INTERNAL, {}),  # of a proxy, say
        (grpc.StatusCode.UNKNOWN, {}),
        (grpc.StatusCode.CANCELLED, {}),
        (grpc.StatusCode.DEADLINE_EXCEEDED, {}),
    ],
)
@pytest.mark.parametrize("size", [10, 3 << 20])
def test_what_passes_is_tried_again(
    client: penstock.Client, liar: Liar, code: grpc.StatusCode, facts: dict[str, str], size: int
) -> None:
    liar.refusals.extend([(code, facts)] * 2)
    data = bytes(size)
    assert client.upload_artifact(RUN, data, "a").sha256 == hashlib.sha256(data).hexdigest()
    assert liar.calls["upload"] == 3
    if size > CHUNK:
        # What is gone on with is one's own, and all that is known of the bytes is told.
        assert [header.upload_id for header in liar.headers] == ["1", "2", "3"]


@pytest.fixture
def store(liar: Liar) -> Iterator[Front]:
    """Takes parts, of an upload in three."""
    with front() as store:
        liar.route, liar.store = pb.ARTIFACT_ROUTE_SIGNED, store.endpoint
        yield store


TAKEN = Reply(200, headers={"ETag": "its tag"})


def test_parts_are_waited_for_whatever_the_patience_is(client: penstock.Client, liar: Liar, store: Front) -> None:
    data = bytes(20 << 20)
    store.replies.extend([TAKEN, refusal(503, "SlowDown"), refusal(503, "SlowDown"), TAKEN, TAKEN])
    assert client.upload_artifact(RUN, data, "a", patience=0).sha256 == hashlib.sha256(data).hexdigest()
    assert len(store.asked) == 5
    assert liar.calls == {"begin": 1, "complete": 1}


@pytest.mark.parametrize("changed", [False, True])
def test_this_process_goes_on_with_parts_that_are_there(
    client: penstock.Client, liar: Liar, store: Front, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    monkeypatch.setattr(direct, "_PARTS", 1)
    stop = threading.Event()
    store.replies.extend([TAKEN] * 4)
    with pytest.raises(errors.Stopped):
        client.upload_artifact(RUN, bytes(20 << 20), "a", stop=stop, progress=lambda _: stop.set())
    data = (b"x" if changed else b"\0") + bytes((20 << 20) - 1)
    moved: list[int] = []
    artifact = client.upload_artifact(RUN, data, "a", progress=moved.append)
    assert (artifact.path, artifact.sha256) == ("1", hashlib.sha256(data).hexdigest())
    assert sum(moved) == 20 << 20
    assert [asked.path for asked in store.asked] == ["/1/1?", "/1/1?", "/1/2?", "/1/3?"][0 if changed else 1 :]
    assert liar.calls == {"begin": 1, "complete": 1}


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_a_fault_of_the_server_is_told_at_once(client: penstock.Client, liar: Liar, size: int) -> None:
    for code, cls in (
        (grpc.StatusCode.INTERNAL, errors.ServerError),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgument),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.FailedPrecondition),
    ):
        liar.calls.clear()
        liar.refusals.append((code, {"x-request-id": "1"}))
        with pytest.raises(cls):
            client.upload_artifact(RUN, bytes(size), "a")
        assert liar.calls["upload"] == 1


def test_patience_ends(client: penstock.Client, liar: Liar) -> None:
    busy = (grpc.StatusCode.RESOURCE_EXHAUSTED, {"penstock-error": "Busy", "retry-after-ms": "60000"})
    liar.refusals.append(busy)
    begun = time.monotonic()
    with pytest.raises(errors.Busy) as raised:
        client.upload_artifact(RUN, b"x", "a", patience=5)
    assert time.monotonic() - begun < 5  # it was told not to come again before that
    assert raised.value.facts["penstock-error"] == "Busy"
    assert liar.calls["upload"] == 1


def test_patience_ends_with_a_server_that_knows_of_the_file_and_has_none_of_it(
    client: penstock.Client, liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while its store is down."""
    monkeypatch.setattr(effort, "_MOST", 0.1)
    liar.paths, liar.size, liar.gives = ["a"], 3 * SMALL, b""
    liar.ends = [grpc.StatusCode.UNAVAILABLE] * 100
    with pytest.raises(errors.TransferFailed, match="a: "):
        client.download_artifacts(RUN, "", tmp_path, patience=0.5)
    assert liar.ends


def test_without_a_thread_only_that_call_fails(client: penstock.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC waits for the thread that it could not start, where it is let."""

    start, caller = threading.Thread.start, threading.current_thread()

    def none(thread: threading.Thread) -> None:
        if threading.current_thread() is caller:
            raise RuntimeError("can't start new thread")
        start(thread)  # the server is in this process: without its threads it would never stop

    with monkeypatch.context() as poor:
        poor.setattr(threading.Thread, "start", none)
        with pytest.raises(RuntimeError):
            client.read_artifact(RUN, "a")
    assert client.read_artifact(RUN, "a") == DATA
    client.close()
    gc.collect()


def test_aborted_calls_are_told_apart() -> None:
    def error(name: str) -> type:
        return type(errors.from_status(grpc.StatusCode.ABORTED, "x", (("penstock-error", name),), "t"))

    assert error("Changed") is errors.Changed
    assert error("UploadGone") is errors.UploadGone
    assert error("Fenced") is error("") is errors.Retryable


def test_a_way_that_is_not_known_is_told(client: penstock.Client, liar: Liar) -> None:
    liar.route = 77
    with pytest.raises(errors.ServerError, match="route 77"):
        client.upload_artifact(RUN, bytes(3 << 20), "a")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, CHUNK])
def test_chunks_are_written_and_read_as_protobuf_does(size: int) -> None:
    data = bytes(size)
    assert chunk_message(data) == pb.UploadArtifactRequest(chunk=data).SerializeToString()
    raw = pb.DownloadArtifactResponse(chunk=data).SerializeToString()
    found = chunk_in(raw)
    assert found is not None
    assert bytes(found) == data
    assert chunk_in(raw + b"\x18\x01") is None  # with a field of a later day, it is protobuf's
    assert chunk_in(pb.DownloadArtifactResponse(artifact=pb.Artifact(path="a")).SerializeToString()) is None
