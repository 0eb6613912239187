"""Uploads, sweepers and slow stores that cross each other's way: what is there to be seen is what its digest says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uploading import CALLER, PART, Place, content, execute, place, sha256

from penstock_server.blobs import Store
from penstock_server.core import beating, ledger
from penstock_server.core.retention import Retention
from penstock_server.core.runs import Runs
from penstock_server.core.sweep import Sweeper
from penstock_server.model.artifacts import UploadId
from penstock_server.model.errors import NotFound, UploadGone
from penstock_server.model.uploads import Plan, Trailer
from penstock_server.postgres import sweep, uploads
from penstock_server.postgres.database import Database
from penstock_server.postgres.uploads import DEAD_AFTER_MS, LATE_MS

pytestmark = pytest.mark.usefixtures("small_parts")

DAY = 86_400_000
SMALL = PART - 7


class Tardy:
    """A store that takes its time for one call, until it is let go on. Who has left hears nothing of what it did."""

    def __init__(self, store: Store, call: str, number: int = 0) -> None:
        self._store = store
        self._call = call
        self._number = number
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self.done: asyncio.Future[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return method if name != self._call else lambda *args: self._late(method, *args)

    async def _late(self, method: Any, *args: Any) -> Any:
        if self._number and args[2] != self._number:
            return await method(*args)
        args = tuple(bytes(each) if isinstance(each, memoryview) else each for each in args)

        async def later() -> Any:
            self.reached.set()
            await self.go.wait()
            return await method(*args)

        self.done = asyncio.ensure_future(later())
        return await asyncio.shield(self.done)


async def age(db: Database, ms: int) -> None:
    """So much time passes."""
    await execute(db, "UPDATE artifact_blobs SET touched_ms = touched_ms - $1", ms)


def upload_of(plan: Plan) -> UploadId:
    assert plan.upload is not None
    return plan.upload.id


async def swept(spot: Place, store: Store) -> int:
    return await Sweeper(spot.db, store, DAY).sweep()


# Who seems dead.


async def test_what_has_no_part_is_offered_to_nobody(db: Database, store: Store) -> None:
    """It could only come to the same key."""
    a = await place(db, store)
    b = a.another()
    one, two = content(SMALL), content(SMALL)
    upload_id = upload_of(await a.begin("m", SMALL))
    stream, task = a.open("m", one, upload_id=upload_id)
    await stream.put(one[:100], b"")
    await age(db, DEAD_AFTER_MS + 1)
    for own in (None, upload_id):
        assert upload_of(await b.begin("m", SMALL, upload_id=own)) != upload_id
    with pytest.raises(UploadGone):
        await b.upload("m", two, upload_id=upload_id)
    await b.upload("m", two, upload_id=upload_of(await b.begin("m", SMALL)))
    await stream.put(one[100:], Trailer(sha256(one)), None)
    await task
    assert await a.read("m") == one


@pytest.mark.parametrize("size", [SMALL, 4 * PART])
async def test_who_writes_does_not_seem_dead(db: Database, local: Store, size: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(beating, "SECONDS", 0.01)
    data = content(size)
    tardy = Tardy(local, "put" if size == SMALL else "complete")
    a = await place(db, tardy)  # type: ignore[arg-type]
    uploading = asyncio.create_task(a.upload("m", data))
    await tardy.reached.wait()  # all has come
    await age(db, 10 * DEAD_AFTER_MS)
    alive = f"SELECT FROM artifact_blobs WHERE touched_ms > extract(epoch FROM now()) * 1000 - {DEAD_AFTER_MS}"
    async with asyncio.timeout(20):
        while not await execute(db, alive):
            await asyncio.sleep(0.01)
    tardy.go.set()
    await uploading


async def test_who_was_given_up_hears_of_it(db: Database, local: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr(beating, "SECONDS", 0.01)
    a = await place(db, local)
    stream, task = a.open("m", content(SMALL))
    await stream.put(b"1", b"")
    await execute(db, "UPDATE artifact_blobs SET state = 3")
    with pytest.raises(UploadGone):
        await asyncio.wait_for(task, 20)
    assert a.held == 0


async def test_whom_a_sweeper_has_is_not_offered(db: Database, local: Store) -> None:
    a = await place(db, local)
    upload_id = await a.broken("m", content(4 * PART), 2, PART)
    await age(db, DAY)
    async with db.connection() as conn:
        async with conn.transaction():
            assert len(await sweep.take(conn, DAY, 900_000, 10)) == 1
            beginning = asyncio.create_task(a.begin("m", 4 * PART))
            async with asyncio.timeout(20):  # it waits for the row
                while not await execute(db, "SELECT FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.01)
        assert upload_of(await beginning) != upload_id
        assert await sweep.take(conn, DAY, 900_000, 10) == []


# What comes late.


async def test_a_late_object_comes_to_a_key_that_nobody_else_has(db: Database, store: Store) -> None:
    """Its client left long ago."""
    a = await place(db, store)
    tardy = Tardy(store, "put")
    late = Place(db, tardy, a.run_id)  # type: ignore[arg-type]
    one, two = content(SMALL), content(SMALL)
    task = asyncio.create_task(late.upload("m", one))
    await tardy.reached.wait()
    task.cancel()
    await asyncio.wait([task])
    await age(db, LATE_MS - 60_000)
    assert await swept(a, store) == 0
    await a.upload("m", two)
    tardy.go.set()
    assert tardy.done is not None
    await tardy.done
    assert await a.read("m") == two
    await age(db, 60_000)
    assert await swept(a, store) == 1
    assert await a.states() == [("m", 2)]


async def test_what_gc_gives_up_is_removed_when_it_has_come(db: Database, store: Store) -> None:
    tardy = Tardy(store, "put")
    a = await place(db, tardy)  # type: ignore[arg-type]
    task = asyncio.create_task(a.upload("m", content(SMALL)))
    await tardy.reached.wait()
    (key,) = (await execute(db, "SELECT key FROM artifact_blobs"))[0]
    await Runs(db, lambda _: None).delete(CALLER, a.run_id)
    await execute(db, "UPDATE runs SET deleted_ms = 0")
    await age(db, DEAD_AFTER_MS + 1)
    await Retention(db, 0).remove(store, DAY)
    assert await a.states() == [("m", 3)]
    tardy.go.set()
    with pytest.raises(NotFound):
        await task
    assert await store.size(key) == SMALL
    await age(db, LATE_MS)
    assert await swept(a, store) == 1
    assert await store.size(key) is None


async def test_who_slept_through_its_removal_puts_nothing(db: Database, local: Store, monkeypatch: Any) -> None:
    a = await place(db, local)
    await a.upload("other", b"1")
    data = content(SMALL)
    stream, task = a.open("m", data)
    await stream.put(data, b"")
    ((key,),) = await execute(db, "DELETE FROM artifact_blobs WHERE state = 1 RETURNING key")
    monkeypatch.setattr(beating, "SECONDS", 0.0)
    await stream.put(Trailer(sha256(data)), None)
    with pytest.raises(UploadGone):
        await task
    assert await local.size(key) is None


@pytest.mark.parametrize("known", [True, False])
async def test_a_late_part_of_the_stream_before_is_no_mixture(db: Database, store: Store, known: bool) -> None:
    """A worker has sent a part; its client has gone to another, with the file changed behind what was stored."""
    here = await place(db, store)
    tardy = Tardy(store, "put_part", 3)
    a, b = Place(db, tardy, here.run_id), here.another()  # type: ignore[arg-type]
    right = content(5 * PART)
    wrong = right[: 2 * PART] + content(3 * PART)
    upload_id = await (b if known else here).broken("m", right, 2, PART)
    stream, task = a.open("m", wrong, upload_id=upload_id, offset=2 * PART)
    await stream.put(wrong[2 * PART : 3 * PART], b"1")
    await tardy.reached.wait()
    new_stream, new_task = b.open("m", right, upload_id=upload_id, offset=2 * PART)
    await new_stream.put(right[2 * PART : 4 * PART], right[4 * PART :][:1])
    await b.stored(upload_id, 4)
    tardy.go.set()
    with pytest.raises(UploadGone):
        await task
    await new_stream.put(right[4 * PART + 1 :], Trailer(sha256(right)), None)
    try:
        await new_task
    except UploadGone:
        await b.upload("m", right)
    assert await b.read("m") == right


async def test_what_is_known_of_parts_that_another_has_replaced_is_not_used(db: Database, store: Store) -> None:
    a = await place(db, store)
    b = a.another()
    one, two = content(8 * PART), content(8 * PART)
    upload_id = await a.broken("m", one, 5, PART)
    assert len((await a.begin("m", 8 * PART)).parts) == 5
    # Its client takes long to compare them, and another comes.
    stream, task = b.open("m", two, upload_id=upload_id)
    await stream.put(two[: 5 * PART], two[5 * PART :][:1])
    await b.stored(upload_id, 5)
    with pytest.raises(UploadGone):
        await a.upload("m", one, upload_id=upload_id, offset=5 * PART)
    task.cancel()
    await asyncio.wait([task])
    assert await a.read("m") is None


# Who is told to be gone twice: by the end of the stream, and by a cancellation while that is written down.


class Slowly:
    """A function whose call is reached, and then takes a round trip more."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self.reached = asyncio.Event()

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.reached.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return await self._function(*args, **kwargs)


async def left_twice(task: asyncio.Task[Any], slowly: Slowly) -> None:
    async with asyncio.timeout(20):
        await slowly.reached.wait()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
    assert task.cancelled()


async def test_that_nobody_writes_it_any_more_is_told(db: Database, local: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr(uploads, "touch", slowly := Slowly(uploads.touch))
    a = await place(db, local)
    upload_id = upload_of(await a.begin("m", 6 * PART))
    stream, task = a.open("m", bytes(6 * PART), upload_id=upload_id)
    await stream.put(bytes(3 * PART), b"1")
    await a.stored(upload_id, 3)
    await stream.put(None)
    await left_twice(task, slowly)
    assert upload_of(await a.begin("m", 6 * PART)) == upload_id


async def test_that_nothing_is_to_stay_is_told(db: Database, local: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr(uploads, "drop", slowly := Slowly(uploads.drop))
    a = await place(db, local)
    stream, task = a.open("m", bytes(6 * PART))
    await stream.put(b"1", None)
    await left_twice(task, slowly)
    assert await a.states() == [("m", 3)]


async def test_what_was_begun_in_the_store_is_given_up(db: Database, local: Store, monkeypatch: Any) -> None:
    async def gone(*_: Any) -> None:
        raise UploadGone("m")

    abort = Slowly(local.abort)
    monkeypatch.setattr(uploads, "set_token", gone)
    monkeypatch.setattr(local, "abort", abort)
    a = await place(db, local)
    stream, task = a.open("m", bytes(6 * PART))
    await stream.put(bytes(2 * PART), b"1")
    await left_twice(task, abort)
    assert [each async for each in local.begun()] == []


async def test_whose_claim_is_told_in_the_moment_it_leaves(db: Database, local: Store, monkeypatch: Any) -> None:
    tell = ledger._Entry.tell
    task: asyncio.Task[Any]

    def both(self: Any, outcome: Any) -> None:
        tell(self, outcome)
        task.cancel()

    monkeypatch.setattr(ledger._Entry, "tell", both)
    monkeypatch.setattr(uploads, "drop", slowly := Slowly(uploads.drop))
    a = await place(db, local)
    _, task = a.open("m", b"1")
    await left_twice(task, slowly)
    assert await a.states() == [("m", 3)]
