"""Records that a writer numbered and has no more: the mark passes them, and each is counted once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from frames import CALLER, Sender, hello, logs, make_run, plain_sql, told, working

from penstock_server.model.changes import Change, RunChange, RunRef
from penstock_server.model.errors import PenstockError, Unavailable
from penstock_server.model.streams import Ack, Batch, Reject, Update, WriterId
from penstock_server.postgres import runs
from penstock_server.postgres.changes import listener
from penstock_server.postgres.database import Database


def lost(first_seq: int, count: int) -> Batch:
    return Batch(first_seq, count, [], b"", b"", b"", b"", [], lost=True)


async def counted(db: Database, run: RunRef) -> tuple[int, int]:
    """What the run says that it lost, and the sum of what its writers say."""
    async with db.connection() as conn:
        found = await runs.load_one(conn, CALLER.workspace_id, run.run_id)
        of_writers = await conn.fetchval("SELECT sum(lost) FROM writers WHERE run_id = $1", run.run_id)
    return found.lost_records, int(of_writers or 0)


async def test_the_mark_passes_what_is_lost_and_it_is_counted(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        writer = await ingest.open(CALLER, run, hello(run))
        sender = Sender()
        await writer.put(sender.batch(logs(0, 3)))
        await writer.put(lost(4, 1_000_000_000))
        sender.seq += 1_000_000_000
        await writer.put(sender.batch(logs(3, 2)))
        await writer.reached(1_000_000_005)
        assert await told(writer) == [Ack(1_000_000_005)]
        other = await ingest.open(CALLER, run, hello(run))
        await other.put(lost(1, 7))
        await other.reached(7)
    assert await counted(db, run) == (1_000_000_007, 1_000_000_007)
    assert [step for step, _, _ in sorted((await plain_sql(db, run.run_id))["loss"])] == [0, 1, 2, 3, 4]


async def test_what_is_lost_and_told_again_is_counted_once(db: Database) -> None:
    run = await make_run(db)
    opening = hello(run)
    async with working(db) as one, working(db) as two:
        first = await one.open(CALLER, run, opening)
        await first.put(lost(1, 5))
        await first.reached(5)
        await first.put(lost(1, 5))
        await first.put(lost(3, 6))  # three of them are new
        await first.reached(8)
        second = await two.open(CALLER, run, opening)
        # Both replicas have it, as after a break: one of them wins.
        await first.put(lost(9, 4))
        await second.put(lost(9, 4))
        await asyncio.gather(first.reached(12), second.reached(12), return_exceptions=True)
        with pytest.raises(Unavailable):
            await asyncio.gather(first.reached(12), second.reached(12))
    assert await counted(db, run) == (12, 12)


async def test_nothing_is_counted_by_a_flush_that_fails(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        writer = await ingest.open(CALLER, run, hello(run))
        async with db.transaction() as conn:
            # The flush has its mark moved and stands before the run; then its connection breaks.
            await conn.execute("SELECT FROM runs WHERE id = $1 FOR UPDATE", run.run_id)
            await writer.put(lost(1, 5))
            await cut_waiting(db)
        await writer.reached(5)
    assert await counted(db, run) == (5, 5)


async def cut_waiting(db: Database) -> None:
    """Cuts the connection that waits for a lock, once there is one."""
    async with asyncio.timeout(30):
        async with db.connection() as conn:
            while not await conn.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ):
                await asyncio.sleep(0.01)


CONTENTS = {
    "frames": replace(Sender().batch(logs(0, 2)), lost=True),
    "a shape": replace(lost(1, 2), new_shapes=[("loss",)]),
    "half a frame": replace(lost(1, 2), times_ms=bytes(8)),
    "updates": replace(lost(1, 2), updates=[Update(True, "lr", "1")] * 2),
}


@pytest.mark.parametrize("case", CONTENTS)
async def test_what_is_lost_has_no_contents(db: Database, case: str) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        writer = await ingest.open(CALLER, run, hello(run))
        await writer.put(CONTENTS[case])
        await writer.put(lost(3, 1))
        await writer.reached(3)
        reject, *_, ack = await told(writer)
    assert isinstance(reject, Reject)
    assert (reject.first_seq, reject.last_seq, ack) == (1, 2, Ack(3))
    assert "the batch has contents" in str(reject.error)
    assert await counted(db, run) == (1, 1)
    assert await plain_sql(db, run.run_id) == {}


async def test_who_watches_is_told_of_what_is_lost(db: Database) -> None:
    run = await make_run(db)
    heard: asyncio.Queue[Change] = asyncio.Queue()
    connected = asyncio.Event()
    listening = asyncio.create_task(listener(db, heard.put_nowait, connected.set).run())
    async with working(db) as ingest:
        await connected.wait()
        writer = await ingest.open(CALLER, run, hello(run))
        await writer.put(lost(1, 5))
        change = await heard.get()
        assert (change.run_id, change.kind) == (run.run_id, RunChange.RUN)
    assert await counted(db, run) == (5, 5)
    listening.cancel()


async def test_many_writers_of_many_runs_lose_at_once(db: Database) -> None:
    """Through two replicas, whose transactions lock the same runs."""
    parts = [await make_run(db) for _ in range(4)]
    async with working(db) as one, working(db) as two:

        async def lose(number: int) -> None:
            run, ingest = parts[number % 4], (one, two)[number // 4 % 2]
            opening = hello(run, WriterId(run.run_id.__class__(int=number + 1)))
            mark = 0
            while mark < 30:
                with suppress(PenstockError):
                    writer = await ingest.open(CALLER, run, opening)
                    for seq in range(writer.hwm + 1, 31, 3):
                        await writer.put(lost(seq, 3))
                    await writer.reached(30)
                    mark = writer.hwm

        await asyncio.gather(*map(lose, range(24)))
    for run in parts:
        assert await counted(db, run) == (180, 180)
