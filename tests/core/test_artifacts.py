"""Artifacts are found, read and deleted."""

from __future__ import annotations

from typing import Any

import pytest
from uploading import CALLER, PART, Place, content, execute, place, sha256

from penstock_server.blobs import Store
from penstock_server.core.runs import Runs
from penstock_server.model.artifacts import Artifact
from penstock_server.model.errors import Changed, InvalidArgument, InvalidPageToken, NotFound, StoreRefused
from penstock_server.model.uploads import Route
from penstock_server.postgres import artifacts
from penstock_server.postgres.database import Database

FILL = """
WITH files AS (SELECT path, gen_random_uuid() AS id FROM unnest($2::text[]) path),
blobs AS (
    INSERT INTO artifact_blobs (id, workspace_id, experiment_id, owner_id, path, key, state, size, sha256, media_type,
                                part_bytes, touched_ms, created_ms)
    SELECT id, 1, 0, $1, path, path, 2, 1, '', '', 1, 1, 1 FROM files)
INSERT INTO artifacts SELECT $1, path, 1, 0, id, 1, '', '', 1 FROM files
"""


@pytest.fixture
def here(db: Database, local: Store, run: Any) -> Place:
    made: Place = run(place(db, local))
    return made


async def fill(here: Place, paths: list[str]) -> None:
    """Artifacts without bytes."""
    await execute(here.db, FILL, here.run_id, paths)


async def listed(here: Place, directory: str = "", page_size: int = 0, **options: Any) -> list[str]:
    """All pages; directories end in a `/`."""
    found: list[Artifact] = []
    token = ""
    while True:
        page, token = await here.artifacts.list(
            CALLER, here.owner, directory, page_size=page_size, page_token=token, **options
        )
        assert len(page) == page_size or not token
        found += page
        if not token:
            return [each.path + "/" * each.is_directory for each in found]


PATHS = ["a", "b/x", "b/y/1", "b/y/2", "b-c", "b.d", "b0", "b/y.z", "c/d/e/f", "é/è", "b/y0", "b/\U0010ffff", "z"]


@pytest.mark.parametrize("page_size", [1, 2, 3, 0])
async def test_a_directory_has_files_and_directories(here: Place, page_size: int) -> None:
    await fill(here, PATHS)
    assert await listed(here, page_size=page_size) == ["a", "b-c", "b.d", "b/", "b0", "c/", "z", "é/"]
    assert await listed(here, "b", page_size) == ["b/x", "b/y.z", "b/y/", "b/y0", "b/\U0010ffff"]
    assert await listed(here, "b/y/", page_size) == ["b/y/1", "b/y/2"]
    assert await listed(here, "c", page_size) == ["c/d/"]
    for empty in ("a", "b/x", "nothing", "b/y.", "é/è/x"):
        assert await listed(here, empty, page_size) == []


@pytest.mark.parametrize("taken", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("page_size", [7, 30, 0])
async def test_however_it_is_read_a_directory_has_the_same(
    here: Place, monkeypatch: pytest.MonkeyPatch, taken: int, page_size: int
) -> None:
    monkeypatch.setattr(artifacts, "_TAKEN", taken)
    paths = [
        *PATHS,
        *(f"many/{number}" for number in range(25)),
        *(f"n{number}" for number in range(25)),
        *(f"o{number}/{file}" for number in range(5) for file in range(number * 4)),
        "p",
    ]
    await fill(here, paths)
    expected = {path[: path.find("/") + 1] or path for path in paths}
    assert await listed(here, page_size=page_size) == sorted(expected)


@pytest.mark.parametrize("page_size", [1, 3, 0])
async def test_recursively_it_has_files_only(here: Place, page_size: int) -> None:
    await fill(here, PATHS)
    assert await listed(here, page_size=page_size, recursive=True) == sorted(PATHS)
    below = sorted(path for path in PATHS if path.startswith("b/"))
    assert await listed(here, "b", page_size, recursive=True) == below
    assert await listed(here, "a", page_size, recursive=True) == []


async def test_a_run_without_artifacts(here: Place) -> None:
    await fill(await place(here.db, here.store), PATHS)
    assert await listed(here) == await listed(here, recursive=True) == await listed(here, "b") == []


async def test_a_token_is_of_one_listing(here: Place) -> None:
    await fill(here, PATHS)
    _, token = await here.artifacts.list(CALLER, here.owner, page_size=1)
    for options in ({"directory": "b"}, {"recursive": True}):
        with pytest.raises(InvalidPageToken):
            await here.artifacts.list(CALLER, here.owner, page_token=token, **options)  # type: ignore[arg-type]


async def test_one_by_its_path(here: Place) -> None:
    made = await here.upload("b/x.txt", b"12", media_type="text/x-mine")
    assert await here.artifacts.stat(CALLER, here.owner, "b/x.txt") == made
    assert (made.size, made.sha256, made.media_type) == (2, sha256(b"12"), "text/x-mine")
    assert await here.artifacts.stat(CALLER, here.owner, "b") == Artifact("b", is_directory=True)
    for path in ("b/x", "b/x.txt/y", "a", "b/x.tx"):
        with pytest.raises(NotFound):
            await here.artifacts.stat(CALLER, here.owner, path)
    with pytest.raises(InvalidArgument, match="has an empty name"):
        await here.artifacts.stat(CALLER, here.owner, "b/")


async def test_a_file_is_deleted(here: Place) -> None:
    await here.upload("a", b"1")
    assert await here.artifacts.delete(CALLER, here.owner, "a") == 1
    assert (await listed(here), await here.states(), here.nudged) == ([], [("a", 3)], 1)
    with pytest.raises(NotFound):
        await here.artifacts.delete(CALLER, here.owner, "a")
    # It may be a directory now, and a file again.
    await here.upload("a/b", b"2")
    await here.artifacts.delete(CALLER, here.owner, "a/b")
    await here.upload("a", b"3")
    assert await here.read("a") == b"3"


async def test_a_directory_is_deleted(here: Place) -> None:
    await fill(here, PATHS)
    other = await place(here.db, here.store)
    await fill(other, [])
    assert await here.artifacts.delete(CALLER, here.owner, "b") == 6
    assert await listed(here) == ["a", "b-c", "b.d", "b0", "c/", "z", "é/"]


async def test_who_was_told_of_it_can_still_read_it(here: Place) -> None:
    data = content(3 << 20)
    await here.upload("a", data)
    reading = here.artifacts.download(CALLER, here.owner, "a")
    await anext(reading)
    await here.artifacts.delete(CALLER, here.owner, "a")
    assert b"".join([chunk async for chunk in reading if isinstance(chunk, bytes)]) == data


@pytest.mark.usefixtures("small_parts")
async def test_a_range(here: Place, store: Store) -> None:
    data = content(3 * PART)
    here = await place(here.db, store)
    await here.upload("a", data)
    for offset, length in ((0, 1), (PART - 1, 2), (5, 2 * PART), (3 * PART - 1, 0), (3 * PART, 0), (7, 1 << 40)):
        end = offset + length if length else len(data)
        assert await here.read("a", offset=offset, length=length) == data[offset:end]
    for offset, length in ((-1, 0), (3 * PART + 1, 0), (0, -1)):
        with pytest.raises(InvalidArgument):
            await here.read("a", offset=offset, length=length)


async def test_ranges_are_of_one_file(here: Place) -> None:
    await here.upload("a", b"12")
    assert await here.read("a", offset=1, sha256=sha256(b"12")) == b"2"
    await here.upload("a", b"34")
    with pytest.raises(Changed):
        await here.read("a", offset=1, sha256=sha256(b"12"))


async def test_what_the_store_has_lost(here: Place) -> None:
    await here.upload("a", b"12")
    (key,) = (await execute(here.db, "SELECT key FROM artifact_blobs"))[0]
    await here.store.delete([key])
    with pytest.raises(StoreRefused, match=f"{key} is missing"):
        await here.read("a")
    # Another has come in between: then it is that.
    reading = here.artifacts.download(CALLER, here.owner, "a")
    await anext(reading)
    await here.upload("a", b"34")
    with pytest.raises(Changed):
        await anext(reading)


async def test_of_a_deleted_run_they_can_be_read(here: Place) -> None:
    await here.upload("b/a", b"12")
    await Runs(here.db, lambda _: None).delete(CALLER, here.run_id)
    assert await here.read("b/a") == b"12"
    assert await listed(here) == ["b/"]
    assert (await here.artifacts.stat(CALLER, here.owner, "b/a")).size == 2


async def test_where_it_is(here: Place, store: Store) -> None:
    here = await place(here.db, store)
    made = await here.upload("b/a c", b"12")
    proxied = await here.artifacts.locate(CALLER, here.owner, "b/a c")
    assert (proxied.artifact, proxied.route, proxied.url, proxied.uri) == (made, Route.SERVER, "", "")
    direct = await here.another(direct=True).artifacts.locate(CALLER, here.owner, "b/a c")
    (key,) = (await execute(here.db, "SELECT key FROM artifact_blobs"))[0]
    assert direct.uri == store.uri(key)
    assert direct.route is (Route.FILE if direct.url.startswith("file:") else Route.SIGNED)
    with pytest.raises(NotFound):
        await here.another(direct=True).artifacts.locate(CALLER, here.owner, "b")
