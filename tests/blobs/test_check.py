"""What `penstock-server doctor` finds where artifacts are to be kept."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from penstock_server.blobs import S3Options, check
from penstock_server.blobs.check import Sight
from penstock_server.model.artifacts import LocalRoot, parse_root
from s3 import S3Server
from s3_front import Front, Reply, front, refusal


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "buckets") as server:
        yield server


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.credentials.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def before(server: S3Server) -> Iterator[Front]:
    with front(server.endpoint) as it:
        yield it


async def seen(
    endpoint: str, root: str = "s3://tests/some/prefix", *, direct: bool = False, **options: Any
) -> dict[str, Sight]:
    s3 = S3Options(endpoint=endpoint, attempts=1, **options)
    return {sight.subject: sight async for sight in check.examine(parse_root(root), s3, direct=direct)}


async def test_a_bucket_that_is_well(server: S3Server) -> None:
    found = await seen(server.endpoint, direct=True)
    assert list(found) == ["clock", "artifacts", "multipart", "addresses"]
    assert not [sight for sight in found.values() if sight.remedy]
    assert server.files == []
    assert "addresses" not in await seen(server.endpoint)


@pytest.mark.parametrize(
    ("env", "options", "says", "to_do"),
    [
        ({"AWS_ACCESS_KEY_ID": "somebody"}, {}, "it does not know our access key", "AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "g3heim"}, {}, "our secret is not that of our access key", "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, {}, "no credentials were found", "AWS_SECRET"),
        ({}, {"root": "s3://nowhere/x"}, "there is no bucket 'nowhere'", "create it, or correct artifacts_root"),
        ({}, {"endpoint": "http://127.0.0.1:9"}, "the artifacts' store is not to be reached", "correct s3_endpoint"),
        ({}, {"endpoint": "SERVER/tests"}, "it answers, but not as S3 would", "let s3_endpoint be http(s)://host:port"),
        ({}, {"ca_bundle": Path(os.devnull)}, f"s3_ca_bundle {os.devnull}", "PEM"),
    ],
)
async def test_a_bucket_that_cannot_be_used(
    server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    options: dict[str, Any],
    says: str,
    to_do: str,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    given = {"endpoint": server.endpoint, "root": "s3://tests/x"} | options
    given["endpoint"] = given["endpoint"].replace("SERVER", server.endpoint)
    found = await seen(**given)
    assert list(found) == ["artifacts"]
    assert found["artifacts"].found.startswith(f"{given['root']} at {given['endpoint']}: ")
    assert says in found["artifacts"].found
    assert to_do in found["artifacts"].remedy
    assert found["artifacts"].grave
    assert "g3heim" not in str(found)


@pytest.mark.parametrize(("ahead", "grave"), [(-300, False), (1200, True)])
async def test_clocks_that_differ(before: Front, ahead: int, grave: bool) -> None:
    before.headers["date"] = formatdate(time.time() + ahead, usegmt=True)
    clock = (await seen(before.endpoint))["clock"]
    assert ("ahead of ours" if ahead > 0 else "behind ours") in clock.found
    assert "NTP" in clock.remedy
    assert clock.grave == grave


async def test_what_may_be_written_and_not_read(before: Front, server: S3Server) -> None:
    passed = Reply(cut=1 << 30)  # listed and put; then it may not get
    before.replies.extend([passed, passed, refusal(403, "AccessDenied", "no GetObject")])
    found = await seen(before.endpoint)
    assert found["artifacts"].found.endswith(": we may not do this in bucket 'tests' (AccessDenied: no GetObject)")
    assert found["artifacts"].remedy.startswith("grant")
    assert not found["multipart"].remedy
    assert server.files == []


async def test_uploads_that_may_not_be_listed(before: Front, server: S3Server) -> None:
    # All of the object, and of an upload its beginning and its part.
    before.replies.extend([Reply(cut=1 << 30)] * 8 + [refusal(403, "AccessDenied")])
    found = await seen(before.endpoint)
    assert (before.asked[8].method, "uploads" in before.asked[8].path) == ("GET", True)
    assert "s3:ListBucketMultipartUploads" in found["multipart"].remedy
    assert server.files == []


async def test_an_upload_that_cannot_end_is_given_up(before: Front, server: S3Server) -> None:
    # All of the object, an upload that is given up, and of the next its beginning and its parts.
    before.replies.extend([Reply(cut=1 << 30)] * 13 + [refusal(403, "AccessDenied")])
    found = await seen(before.endpoint)
    assert before.asked[13].method == "POST"
    assert "uploadId=" in before.asked[13].path
    assert found["multipart"].remedy.startswith("grant")
    assert [each.method for each in before.asked[14:]] == ["DELETE", "DELETE"]
    assert server.files == []


async def test_a_directory_that_is_well_is_left_as_it_was(tmp_path: Path) -> None:
    found = await seen("", LocalRoot(str(tmp_path)).uri())
    assert list(found) == ["artifacts", "multipart", "free space"]
    assert not [sight for sight in found.values() if sight.remedy and sight.grave]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".uploads").mkdir()
    await seen("", LocalRoot(str(tmp_path)).uri())
    assert [path.name for path in tmp_path.rglob("*")] == [".uploads"]


async def test_a_directory_that_is_none_yet_is_not_made(tmp_path: Path) -> None:
    found = await seen("", LocalRoot(str(tmp_path / "a" / "b")).uri())
    assert found == {"artifacts": Sight("artifacts", f"{tmp_path}/a/b, will be made")}
    assert list(tmp_path.iterdir()) == []


async def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "artifacts"):
        found = await seen("", LocalRoot(str(root)).uri())
        assert str(tmp_path / "file") in found["artifacts"].found
        assert found["artifacts"].remedy
