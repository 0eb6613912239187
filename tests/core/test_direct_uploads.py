"""Files that clients bring to the store themselves."""

from __future__ import annotations

import asyncio
import http.client
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from uploading import CALLER, PART, Place, content, place, sha256

from penstock_server.blobs import Store
from penstock_server.model.artifacts import Artifact, UploadId
from penstock_server.model.errors import (
    ContentMismatch,
    FailedPrecondition,
    InvalidArgument,
    UploadGone,
)
from penstock_server.model.runs import new_run_id
from penstock_server.model.uploads import Plan, Route, Upload
from penstock_server.postgres.database import Database

pytestmark = pytest.mark.usefixtures("small_parts")


@pytest.fixture
def files(db: Database, local: Store, run: Any) -> Place:
    """On a directory that clients share."""
    made: Place = run(place(db, local, direct=True))
    return made


@pytest.fixture
def signed(db: Database, bucket: Store, run: Any) -> Place:
    """On a bucket."""
    made: Place = run(place(db, bucket, direct=True))
    return made


def put(url: str, data: bytes) -> str:
    """As a client does, without credentials. Returns the part's ETag."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    try:
        connection.request("PUT", f"{parts.path}?{parts.query}", body=data)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said
        return answer.headers["ETag"]
    finally:
        connection.close()


def opened(plan: Plan) -> Upload:
    assert plan.upload is not None
    return plan.upload


async def complete(
    here: Place, upload_id: UploadId, data: bytes, etags: list[tuple[int, str]] | None = None
) -> Artifact:
    return await here.uploads.direct.complete(CALLER, here.owner, upload_id, sha256(data), etags or [])


async def sign_and_put(here: Place, upload: Upload, data: bytes) -> list[tuple[int, str]]:
    count = max(1, -(-len(data) // PART))
    urls = await here.uploads.direct.sign(CALLER, here.owner, upload.id, 1, count)
    return [(n + 1, put(url, data[n * PART : (n + 1) * PART])) for n, url in enumerate(urls)]


@pytest.mark.parametrize("size", [0, 1, 5 * PART + 3])
async def test_a_file_that_the_client_writes(files: Place, size: int) -> None:
    data = content(size)
    plan = await files.begin("a b/c", size)
    assert plan.route is Route.FILE
    Path(unquote(urlsplit(plan.file_uri).path)).write_bytes(data)
    assert await files.read("a b/c") is None
    made = await complete(files, opened(plan).id, data)
    assert (made.size, made.sha256) == (size, sha256(data))
    assert await files.read("a b/c") == data
    assert await complete(files, opened(plan).id, data) == made
    assert (await files.begin("a b/c", size, sha256=sha256(data))).upload is None


async def test_ended_twice_at_once(files: Place) -> None:
    data = content(3 * PART)
    plan = await files.begin("a", len(data))
    Path(urlsplit(plan.file_uri).path).write_bytes(data)
    made, again = await asyncio.gather(*(complete(files, opened(plan).id, data) for _ in range(2)))
    assert made == again
    assert await files.read("a") == data
    assert await files.states() == [("a", 2)]


async def test_of_a_file_the_server_knows_the_digest_itself(files: Place) -> None:
    data = content(PART)
    plan = await files.begin("a", len(data))
    Path(urlsplit(plan.file_uri).path).write_bytes(data)
    made = await files.uploads.direct.complete(CALLER, files.owner, opened(plan).id, b"", [])
    assert made.sha256 == sha256(data)


async def test_a_file_that_is_not_what_was_told(files: Place) -> None:
    data = content(PART)
    for wrong in (data[:-1] + bytes([data[-1] ^ 1]), data[:-1], data + b"x", b""):
        plan = await files.begin("a", len(data))
        Path(urlsplit(plan.file_uri).path).write_bytes(wrong)
        with pytest.raises(ContentMismatch):
            await complete(files, opened(plan).id, data)
        with pytest.raises(UploadGone):
            await complete(files, opened(plan).id, data)
    assert await files.read("a") is None
    assert await files.states() == [("a", 3)] * 4


@pytest.mark.parametrize("size", [0, 1, PART, 3 * PART + 5])
async def test_parts_that_the_client_puts(signed: Place, size: int) -> None:
    data = content(size)
    plan = await signed.begin("a b/c", size)
    assert (plan.route, plan.file_uri, opened(plan).part_bytes) == (Route.SIGNED, "", PART)
    etags = await sign_and_put(signed, opened(plan), data)
    with pytest.raises(InvalidArgument, match="sha256: must be told"):
        await signed.uploads.direct.complete(CALLER, signed.owner, opened(plan).id, b"", etags)
    assert await signed.read("a b/c") is None
    made = await complete(signed, opened(plan).id, data, etags)
    assert await signed.read("a b/c") == data
    assert await complete(signed, opened(plan).id, data, etags) == made


async def test_parts_that_are_not_all_of_it(signed: Place) -> None:
    data = content(3 * PART)
    upload = opened(await signed.begin("a", len(data)))
    etags = await sign_and_put(signed, upload, data)
    for wrong in ([], etags[:2], etags[::-1], [*etags, (4, "x")], [(1, "x" * 201), *etags[1:]]):
        with pytest.raises(InvalidArgument):
            await complete(signed, upload.id, data, wrong)
    for first, count in ((0, 1), (1, 4), (4, 1), (1, 0), (1, 101)):
        with pytest.raises(InvalidArgument):
            await signed.uploads.direct.sign(CALLER, signed.owner, upload.id, first, count)
    await complete(signed, upload.id, data, etags)
    short = opened(await signed.begin("b", len(data)))
    etags = await sign_and_put(signed, short, data[:-1])
    with pytest.raises(ContentMismatch, match=f"size: {len(data)} bytes were told of 'b'; there are {len(data) - 1}"):
        await complete(signed, short.id, data, etags)
    assert await signed.states() == [("a", 2), ("b", 3)]


async def test_parts_of_another(signed: Place) -> None:
    data = content(3 * PART)
    upload = opened(await signed.begin("a", len(data)))
    etags = await sign_and_put(signed, upload, data)
    with pytest.raises(UploadGone):
        await complete(signed, upload.id, data, [(number, f'"{number:032x}"') for number, _ in etags])
    assert await signed.read("a") is None
    assert await signed.states() == [("a", 3)]


async def test_every_client_has_an_upload_of_its_own(files: Place) -> None:
    first, second = await files.begin("a", 5), await files.begin("a", 5)
    assert opened(first).id != opened(second).id
    for plan, data in ((first, b"first"), (second, b"other")):
        Path(urlsplit(plan.file_uri).path).write_bytes(data)
    await complete(files, opened(second).id, b"other")
    await complete(files, opened(first).id, b"first")
    assert await files.read("a") == b"first"


async def test_streams_are_taken_too(signed: Place) -> None:
    data = content(3 * PART)
    await signed.upload("a", data)
    await signed.upload("b", data, upload_id=opened(await signed.begin("b", len(data))).id)
    assert await signed.read("a") == await signed.read("b") == data
    assert [begun async for begun in signed.store.begun()] == []


async def test_an_upload_that_is_not_there(signed: Place) -> None:
    with pytest.raises(UploadGone):
        await complete(signed, UploadId(new_run_id()), b"")
    with pytest.raises(UploadGone):
        await signed.uploads.direct.sign(CALLER, signed.owner, UploadId(new_run_id()), 1, 1)
    upload = opened(await signed.begin("a", 1))
    await signed.uploads.abort(CALLER, signed.owner, upload.id)
    with pytest.raises(UploadGone):
        await signed.uploads.direct.sign(CALLER, signed.owner, upload.id, 1, 1)
    with pytest.raises(InvalidArgument, match="sha256: has 1 bytes"):
        await signed.uploads.direct.complete(CALLER, signed.owner, upload.id, b"x", [])


async def test_a_server_that_takes_them_itself(db: Database, local: Store) -> None:
    here = await place(db, local)
    plan = await here.begin("a", 1)
    assert (plan.route, plan.file_uri) == (Route.SERVER, "")
    with pytest.raises(FailedPrecondition, match="send them by UploadArtifact"):
        await complete(here, opened(plan).id, b"1")
    with pytest.raises(FailedPrecondition, match="send them by UploadArtifact"):
        await here.uploads.direct.sign(CALLER, here.owner, opened(plan).id, 1, 1)
