"""Files that clients write into the store, and that are hashed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from uploading import CALLER, Place, content, place, sha256

from penstock_server.blobs.local import LocalStore
from penstock_server.blobs.store import Digest
from penstock_server.core import following
from penstock_server.model.artifacts import Artifact, LocalRoot
from penstock_server.model.errors import ContentMismatch, UploadGone
from penstock_server.model.uploads import Plan, Upload
from penstock_server.postgres.database import Database

SIZE = 300_000


class Told(LocalStore):
    """Tells what was hashed: while it was written, up to where; and at the end, from where on."""

    def __init__(self, root: LocalRoot) -> None:
        super().__init__(root)
        self.followed = 0
        self.at_end: list[int] = []

    async def hash(self, key: str, digest: Digest, start: int, end: int, token: str | None = None) -> int:
        if token is None:
            self.at_end.append(start)
        found = await super().hash(key, digest, start, end, token)
        if token is not None:
            self.followed = found
        return found


@pytest.fixture
def store(run: Any, tmp_path: Path) -> Iterator[Told]:
    store = Told(LocalRoot(str(tmp_path / "artifacts")))
    yield store
    run(store.close())


@pytest.fixture
def here(db: Database, store: Told, run: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(following, "_SMALL", 1)
    made: Place = run(place(db, store, direct=True))
    yield made
    run(made.uploads.aclose())


def opened(plan: Plan) -> Upload:
    assert plan.upload is not None
    return plan.upload


def file(plan: Plan) -> Path:
    return Path(urlsplit(plan.file_uri).path)


async def complete(here: Place, plan: Plan, data: bytes) -> Artifact:
    return await here.uploads.direct.complete(CALLER, here.owner, opened(plan).id, sha256(data), [])


async def followed(store: Told, end: int) -> None:
    async with asyncio.timeout(20):
        while store.followed != end:
            await asyncio.sleep(0.005)


def known(here: Place) -> set[str]:
    return set(here.uploads.direct._following._of)


async def test_what_was_hashed_is_not_read_again(here: Place, store: Told) -> None:
    data = content(SIZE)
    plan = await here.begin("a", SIZE)
    with file(plan).open("wb", buffering=0) as writing:
        for start in range(0, SIZE // 2, SIZE // 6):  # a slow writer
            writing.write(data[start : start + SIZE // 6])
            await followed(store, start + SIZE // 6)
        writing.write(data[SIZE // 2 :])
    made = await complete(here, plan, data)
    assert made.sha256 == sha256(data)
    assert store.at_end
    assert min(store.at_end) >= SIZE // 2
    assert await here.read("a") == data
    assert not known(here)


async def test_what_is_written_again_is_read_again(here: Place, store: Told) -> None:
    data = content(SIZE)
    plan = await here.begin("a", SIZE)
    file(plan).write_bytes(content(SIZE // 2))
    await followed(store, SIZE // 2)
    file(plan).write_bytes(data)
    await complete(here, plan, data)
    assert store.at_end[-1] == 0
    assert await here.read("a") == data


async def test_what_is_not_what_was_told_is_refused(here: Place, store: Told) -> None:
    data = content(SIZE)
    plan = await here.begin("a", SIZE)
    file(plan).write_bytes(data)
    await followed(store, SIZE)
    with pytest.raises(ContentMismatch):
        await complete(here, plan, data[::-1])
    assert await here.read("a") is None
    assert await here.states() == [("a", 3)]


async def test_a_file_that_is_cut(here: Place, store: Told) -> None:
    data = content(SIZE)
    plan = await here.begin("a", SIZE)
    file(plan).write_bytes(data)
    await followed(store, SIZE)
    with file(plan).open("r+b") as cut:
        cut.truncate(SIZE - 1)
    with pytest.raises(ContentMismatch, match="size"):
        await complete(here, plan, data)
    assert await here.read("a") is None


async def test_another_process_reads_it_all(here: Place, store: Told) -> None:
    data = content(SIZE)
    plan = await here.begin("a", SIZE)
    file(plan).write_bytes(data[: SIZE // 2])
    await followed(store, SIZE // 2)
    file(plan).write_bytes(data)
    await complete(here.another(direct=True), plan, data)
    assert store.at_end == [0]
    assert await here.read("a") == data


async def test_a_file_that_has_gone(here: Place, store: Told) -> None:
    upload = opened(await here.begin("a", SIZE))
    assert upload.token is not None
    await store.abort(upload.key, upload.token)
    async with asyncio.timeout(20):
        while known(here):
            await asyncio.sleep(0.005)


async def test_an_upload_that_is_given_up(here: Place, store: Told) -> None:
    plan = await here.begin("a", SIZE)
    file(plan).write_bytes(content(SIZE // 2))
    await followed(store, SIZE // 2)
    await here.uploads.abort(CALLER, here.owner, opened(plan).id)
    assert not known(here)
    with pytest.raises(UploadGone):
        await complete(here, plan, b"")


async def test_when_nothing_grows_it_is_not_looked_at_any_more(
    here: Place, store: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_PATIENCE", 0.1)
    data = content(SIZE)
    plan = await here.begin("a", SIZE)
    (found,) = here.uploads.direct._following._of.values()
    file(plan).write_bytes(data[: SIZE // 2])
    async with asyncio.timeout(20):
        while found.task is not None:
            await asyncio.sleep(0.005)
    file(plan).write_bytes(data)
    await complete(here, plan, data)
    assert store.at_end == [store.followed]  # and what was known is of use still
    assert await here.read("a") == data


async def test_only_so_many_are_looked_at(here: Place, store: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_AT_ONCE", 1)
    data = content(SIZE)
    plans = [await here.begin(path, SIZE) for path in "ab"]
    assert known(here) == {opened(plans[0]).token}
    for plan in plans:
        file(plan).write_bytes(data)
        await complete(here, plan, data)
    assert await here.read("a") == await here.read("b") == data


async def test_the_server_ends(here: Place, store: Told) -> None:
    plan = await here.begin("a", SIZE)
    (found,) = here.uploads.direct._following._of.values()
    file(plan).write_bytes(b"a")
    await followed(store, 1)
    await here.uploads.aclose()
    assert found.task is None
    assert not known(here)
