"""Many small files in one request: each comes in, or fails, for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from uploading import CALLER, Place, content, execute, place, sha256

from penstock_server.blobs import Store
from penstock_server.blobs.store import Object
from penstock_server.core import batches, beating, ledger
from penstock_server.core.ledger import Ledger
from penstock_server.core.runs import Runs
from penstock_server.model.artifacts import Artifact, UploadId
from penstock_server.model.errors import (
    ContentMismatch,
    FailedPrecondition,
    InvalidArgument,
    NotActive,
    NotFound,
    PenstockError,
    Unavailable,
    UploadGone,
)
from penstock_server.model.owners import of_run
from penstock_server.model.runs import new_run_id
from penstock_server.model.uploads import SmallFile, Upload
from penstock_server.postgres import uploads
from penstock_server.postgres.database import Connection, Database


@pytest.fixture
def here(db: Database, store: Store, run: Any) -> Place:
    made: Place = run(place(db, store))
    return made


@pytest.fixture
def one(db: Database, local: Store, run: Any) -> Place:
    """As `here`, on a directory only: of what does not depend on the store."""
    made: Place = run(place(db, local))
    return made


async def send(at: Place, *files: SmallFile) -> list[Artifact | PenstockError]:
    return await at.uploads.batches.receive(CALLER, at.owner, files)


class Odd:
    """A store of which `put_all` is another."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self.refused: set[str] = set()  # the ends of keys

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def put_all(self, objects: Sequence[Object]) -> list[PenstockError | None]:
        self.reached.set()
        await self.go.wait()
        taken = [each for each in objects if each.key.rpartition("/")[2] not in self.refused]
        errors = dict(zip([each.key for each in taken], await self.store.put_all(taken), strict=True))
        return [errors.get(each.key, Unavailable("away", 1.0)) for each in objects]


@pytest.mark.parametrize("count", [1, 5, batches.MOST])
async def test_what_is_sent_is_what_is_there(here: Place, count: int) -> None:
    files = [SmallFile(f"d{n % 3}/{n}.json", content(n * 7)) for n in range(count)]
    made = await send(here, *(SmallFile(each.path, each.data, sha256(each.data)) for each in files))
    assert [(each.path, each.size, each.sha256, each.media_type) for each in made if isinstance(each, Artifact)] == [
        (each.path, len(each.data), sha256(each.data), "application/json") for each in files
    ]
    for each in files[:: max(1, count // 20)]:
        assert await here.read(each.path) == each.data
    assert {state for _, state in await here.states()} == {2}
    assert here.held == 0


async def test_what_is_there_already_stays(here: Place) -> None:
    (before,) = await send(here, SmallFile("a", b"1"))
    again, other = await send(here, SmallFile("a", b"1"), SmallFile("b", b"2"))
    assert again == before
    assert isinstance(other, Artifact)
    assert await here.states() == [("a", 2), ("b", 2)]
    (replaced,) = await send(here, SmallFile("a", b"3"))
    assert isinstance(replaced, Artifact)
    assert await here.read("a") == b"3"


async def test_each_fails_for_itself(here: Place) -> None:
    await here.upload("file", b"1")
    await here.upload("dir/x", b"1")
    outcomes = await send(
        here,
        SmallFile("good", b"1"),
        SmallFile("a/../b", b"2"),
        SmallFile("wrong", b"3", sha256(b"4")),
        SmallFile("short", b"5", b"5"),
        SmallFile("dir", b"6"),
        SmallFile("file/x", b"7"),
        SmallFile("type", b"8", media_type="ä"),
        SmallFile("fine", b"9"),
    )
    assert [type(outcome) for outcome in outcomes] == [
        Artifact,
        InvalidArgument,
        ContentMismatch,
        InvalidArgument,
        FailedPrecondition,
        FailedPrecondition,
        InvalidArgument,
        Artifact,
    ]
    assert await here.states() == [("dir/x", 2), ("file", 2), ("fine", 2), ("good", 2)]
    assert await here.read("wrong") is None
    assert here.held == 0


async def test_what_is_too_much_for_one_request_is_refused(one: Place) -> None:
    half = bytes(batches.MOST_BYTES // 2)
    with pytest.raises(InvalidArgument, match="send fewer, or what is not small by UploadArtifact"):
        await send(one, SmallFile("a", half), SmallFile("b", half), SmallFile("c", b"1"))
    with pytest.raises(InvalidArgument, match="1 to 256 can be sent"):
        await send(one, *[SmallFile("a", b"1")] * 257)
    assert await one.states() == []
    assert one.held == 0
    assert all(isinstance(each, Artifact) for each in await send(one, SmallFile("a", half), SmallFile("b", half)))


async def test_of_the_same_path_the_later_stays(here: Place) -> None:
    outcomes = await send(here, *(SmallFile("a", bytes([n])) for n in range(4)))
    assert all(isinstance(outcome, Artifact) for outcome in outcomes)
    assert await here.read("a") == b"\3"
    assert sorted(state for _, state in await here.states()) == [2, 3, 3, 3]


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a")])
async def test_a_file_is_no_directory(here: Place, first: str, second: str) -> None:
    made, failed = await send(here, SmallFile(first, b"1"), SmallFile(second, b"2"))
    assert isinstance(made, Artifact)
    assert isinstance(failed, FailedPrecondition)
    assert await here.read(first) == b"1"
    assert sorted(state for _, state in await here.states()) == [2, 3]


async def test_of_a_run_that_is_not_there_nothing_comes(one: Place, db: Database) -> None:
    file = SmallFile("a", b"1")
    assert [type(each) for each in await one.uploads.batches.receive(CALLER, of_run(new_run_id()), [file] * 2)] == [
        NotFound
    ] * 2
    await Runs(db, lambda _: None).delete(CALLER, one.run_id)
    assert [type(each) for each in await send(one, file)] == [NotActive]
    assert await one.states() == []


async def test_of_a_run_that_is_deleted_meanwhile_nothing_stays(local: Store, db: Database) -> None:
    odd = Odd(local)
    at = await place(db, odd)  # type: ignore[arg-type]
    task = asyncio.create_task(send(at, SmallFile("a", b"1"), SmallFile("b", b"2")))
    await odd.reached.wait()
    await Runs(db, lambda _: None).delete(CALLER, at.run_id)
    odd.go.set()
    assert [type(each) for each in await task] == [NotActive] * 2
    assert await at.states() == [("a", 3), ("b", 3)]


async def test_what_the_store_does_not_take(store: Store, db: Database) -> None:
    odd = Odd(store)
    odd.refused = {"a", "c"}
    odd.go.set()
    at = await place(db, odd)  # type: ignore[arg-type]
    files = [SmallFile(path, path.encode()) for path in "abcd"]
    assert [type(each) for each in await send(at, *files)] == [Unavailable, Artifact] * 2
    assert await at.states() == [("a", 3), ("b", 2), ("c", 3), ("d", 2)]
    odd.refused = set()
    assert [type(each) for each in await send(at, *files)] == [Artifact] * 4
    assert [await at.read(path) for path in "abcd"] == [b"a", b"b", b"c", b"d"]


async def test_nothing_is_seen_before_it_is_stored_and_nothing_stays_of_who_has_left(
    db: Database, local: Store
) -> None:
    odd = Odd(local)
    at = await place(db, odd)  # type: ignore[arg-type]
    task = asyncio.create_task(send(at, SmallFile("a", b"1"), SmallFile("b", b"2")))
    await odd.reached.wait()
    assert await at.read("a") is None
    assert at.held == 2
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await at.states() == [("a", 3), ("b", 3)]
    assert at.held == 0


async def test_nothing_stays_of_who_is_told_twice_to_have_left(
    db: Database, local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop, dropping = uploads.drop, asyncio.Event()

    async def slowly(*args: Any) -> None:
        dropping.set()
        await asyncio.sleep(0)
        await drop(*args)

    monkeypatch.setattr(uploads, "drop", slowly)
    odd = Odd(local)
    at = await place(db, odd)  # type: ignore[arg-type]
    task = asyncio.create_task(send(at, SmallFile("a", b"1"), SmallFile("b", b"2")))
    await odd.reached.wait()
    task.cancel()
    await asyncio.wait_for(dropping.wait(), 20)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await at.states() == [("a", 3), ("b", 3)]


async def test_nothing_stays_of_who_has_left_between_two_transactions(one: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(ledger, "_MOST", 2)
    enter, second, go = Ledger._enter, asyncio.Event(), asyncio.Event()
    calls: list[int] = []

    async def slowly(self: Ledger, *args: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            second.set()
            await go.wait()
        await enter(self, *args)

    monkeypatch.setattr(Ledger, "_enter", slowly)
    task = asyncio.create_task(send(one, *(SmallFile(path, b"1") for path in "abcd")))
    await second.wait()
    assert await one.states() == [("a", 1), ("b", 1)]
    task.cancel()
    await asyncio.wait([task])
    assert await one.states() == [("a", 3), ("b", 3)]
    go.set()
    async with asyncio.timeout(20):
        while one.uploads._ledger._tasks:
            await asyncio.sleep(0.005)
    assert await one.states() == [("a", 3), ("b", 3), ("c", 3), ("d", 3)]
    assert one.held == 0


async def test_who_writes_says_so_and_hears_when_it_was_given_up(
    db: Database, local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beating, "SECONDS", 0.01)
    touch, together = uploads.touch, set[int]()

    async def counted(conn: Connection, *written: Upload) -> set[UploadId]:
        together.add(len(written))
        return await touch(conn, *written)

    monkeypatch.setattr(uploads, "touch", counted)
    odd = Odd(local)
    at = await place(db, odd)  # type: ignore[arg-type]
    task = asyncio.create_task(send(at, SmallFile("a", b"1"), SmallFile("b", b"2")))
    await odd.reached.wait()
    await execute(db, "UPDATE artifact_blobs SET touched_ms = 0")
    async with asyncio.timeout(20):
        while await execute(db, "SELECT FROM artifact_blobs WHERE touched_ms = 0"):
            await asyncio.sleep(0.01)
    assert together == {2}  # by one statement
    await execute(db, "UPDATE artifact_blobs SET state = 3 WHERE path = 'a'")
    assert [type(each) for each in await asyncio.wait_for(task, 20)] == [UploadGone] * 2
    assert await at.states() == [("a", 3), ("b", 3)]


async def test_many_at_once_have_the_room_that_there_is(one: Place) -> None:
    one.uploads._small_budget.limit = 10_000
    await asyncio.gather(*(send(one, *(SmallFile(f"{n}/{m}", content(500)) for m in range(10))) for n in range(8)))
    assert {state for _, state in await one.states()} == {2}
    assert len(await one.states()) == 80
    assert one.held == 0
