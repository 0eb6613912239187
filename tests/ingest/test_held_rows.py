"""Rows that somebody holds: a run's batches wait for them, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from frames import CALLER, Sender, expected, hello, logs, make_run, plain_sql, working

from penstock_server.core.metrics import Metrics
from penstock_server.ingest.ingest import Ingest
from penstock_server.ingest.writer import Writer
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import PenstockError, Unavailable
from penstock_server.model.metrics import Point
from penstock_server.model.streams import Hello
from penstock_server.postgres.database import Database

OTHERS = 10
ROOM = 100_000


@asynccontextmanager
async def held(db: Database, run: RunRef) -> AsyncIterator[None]:
    """The summaries of a run are held, as by a replica that was stopped in the middle of a flush."""
    async with db.transaction() as conn:
        assert await conn.fetch("SELECT FROM run_metrics WHERE run_id = $1 FOR UPDATE", run.run_id)
        yield


async def begin(ingest: Ingest, run: RunRef, opening: Hello | None = None) -> tuple[Writer, Sender]:
    """A writer whose first record is committed, so that the run's metrics are there."""
    writer, sender = await ingest.open(CALLER, run, opening or hello(run)), Sender()
    await writer.put(sender.batch(logs(0, 1)))
    await writer.reached(1)
    return writer, sender


async def exact(db: Database, run: RunRef, count: int) -> None:
    shown = await plain_sql(db, run.run_id)
    assert {name: sorted(points) for name, points in shown.items()} == expected(logs(0, count))
    async with db.connection() as conn:
        rows = await conn.fetch("SELECT count, last_step FROM run_metrics WHERE run_id = $1", run.run_id)
    assert [tuple(row) for row in rows] == [(count, count - 1)] * 2


async def test_a_writer_moves_to_another_replica_while_the_old_one_is_stuck_with_its_batch(db: Database) -> None:
    run = await make_run(db)
    others = [await make_run(db) for _ in range(OTHERS)]
    opening = hello(run)
    async with working(db) as one, working(db) as two:
        old, sender = await begin(one, run, opening)
        bystanders = [await begin(ingest, other) for ingest in (one, two) for other in others]
        async with held(db, run):
            await old.put(sender.batch(logs(1, 5)))
            new = await two.open(CALLER, run, opening)
            resent = Sender(seq=new.hwm + 1)
            await new.put(resent.batch(logs(new.hwm, 9 - new.hwm)))
            await asyncio.sleep(0.5)  # both have taken it and stand
            for writer, other_sender in bystanders:
                await writer.put(other_sender.batch(logs(1, 4)))
            # The others go on while nobody lets go of the row: more than one flush of each.
            await asyncio.gather(*(writer.reached(5) for writer, _ in bystanders))
            for writer, other_sender in bystanders:
                await writer.put(other_sender.batch(logs(5, 4)))
            await asyncio.gather(*(writer.reached(9) for writer, _ in bystanders))
            assert one.problem is two.problem is None  # neither replica is to be taken out of service for that
            assert (old.hwm, new.hwm) == (1, 1)
        results = await asyncio.gather(old.reached(6), new.reached(9), return_exceptions=True)
        assert any(result is None for result in results)
        if isinstance(results[1], PenstockError):  # the old one has won: the writer opens again, as clients do
            again = await two.open(CALLER, run, opening)
            await again.put(Sender(seq=again.hwm + 1).batch(logs(again.hwm, 9 - again.hwm)))
            await again.reached(9)
        await old.settled()
    await exact(db, run, 9)


async def test_of_many_runs_in_one_flush_the_held_ones_are_found(db: Database) -> None:
    runs = [await make_run(db) for _ in range(64)]
    async with working(db) as ingest:
        writers = [await begin(ingest, run) for run in runs]
        async with held(db, runs[5]), held(db, runs[6]), held(db, runs[40]):
            for step in range(1, 4):
                for writer, sender in writers:
                    await writer.put(sender.batch(logs(step, 1)))
            free = [writer for number, (writer, _) in enumerate(writers) if number not in (5, 6, 40)]
            await asyncio.gather(*(writer.reached(4) for writer in free))
            assert [writers[number][0].hwm for number in (5, 6, 40)] == [1, 1, 1]
        await asyncio.gather(*(writer.reached(4) for writer, _ in writers))
    for run in runs:
        await exact(db, run, 4)


async def beside(db: Database, run: RunRef) -> RunRef:
    """A run that goes through the same pipeline as this one."""
    while True:
        other = await make_run(db)
        if (other.run_id.int - run.run_id.int) % 2 == 0:
            return other


async def write(ingest: Ingest, run: RunRef, opening: Hello, count: int) -> None:
    """A client that puts as much as it may, and opens again whenever its stream ends."""
    while True:
        with suppress(PenstockError):
            writer = await ingest.open(CALLER, run, opening)
            sender = Sender(seq=writer.hwm + 1)
            for first in range(writer.hwm, count, 10):
                await writer.put(sender.batch(logs(first, min(10, count - first))))
            await writer.reached(count)
            return
        await asyncio.sleep(0.1)


async def test_the_writers_of_a_held_run_leave_room_for_everybody_else(db: Database) -> None:
    run = await make_run(db)
    async with working(db, ROOM) as ingest:
        await begin(ingest, run)
        bystander, sender = await begin(ingest, await beside(db, run))
        async with held(db, run):
            writing = [asyncio.create_task(write(ingest, run, hello(run), 600)) for _ in range(9)]
            async with asyncio.timeout(30):
                while ingest._budget.used < ROOM // 5:
                    await asyncio.sleep(0.01)
                for step in range(1, 40):
                    await bystander.put(sender.batch(logs(step, 1)))
                    await bystander.reached(step + 1)
                    assert ingest._budget.used <= ROOM
        await asyncio.gather(*writing)
        assert ingest.problem is None
    async with db.connection() as conn:
        counts = await conn.fetch("SELECT count FROM run_metrics WHERE run_id = $1", run.run_id)
    assert [row[0] for row in counts] == [9 * 600 + 1] * 2


async def test_however_many_runs_are_held_the_others_have_half_of_the_time(db: Database) -> None:
    runs = [await make_run(db)]
    runs += [await beside(db, runs[0]) for _ in range(3)]
    async with working(db) as ingest:
        writers = [await begin(ingest, run) for run in runs]
        bystander, other_sender = writers.pop()
        async with held(db, runs[0]), held(db, runs[1]), held(db, runs[2]):
            for writer, sender in writers:
                await writer.put(sender.batch(logs(1, 1)))
            await asyncio.sleep(5)  # until each of them is tried for as long as any
            async with asyncio.timeout(25):
                for step in range(1, 200):
                    await bystander.put(other_sender.batch(logs(step, 1)))
                    await bystander.reached(step + 1)
        await asyncio.gather(*(writer.reached(2) for writer, _ in writers))


async def test_what_comes_meanwhile_waits_behind_what_is_held(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        metrics = Metrics(db, ingest)
        writer, sender = await begin(ingest, run)
        async with held(db, run):
            for step in range(1, 40):
                await writer.put(sender.batch(logs(step, 1)))
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(
                metrics.log_batch(CALLER, run.run_id, [Point("x", 1.0, 0, 5)], {"a": "1"}, {})
            )
            await asyncio.sleep(0.2)
        await waiting
        await writer.reached(40)
        assert not writer.gone
    async with db.connection() as conn:
        assert (
            await conn.fetchval("SELECT count FROM run_metrics WHERE run_id = $1 AND name = 'loss'", run.run_id) == 40
        )
        assert await conn.fetchval("SELECT count FROM run_metrics WHERE run_id = $1 AND name = 'x'", run.run_id) == 1


async def test_a_single_batch_of_a_held_run_is_given_up(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        metrics = Metrics(db, ingest)
        await begin(ingest, run)
        async with held(db, run):
            with pytest.raises(Unavailable, match="did not answer in time"):
                await metrics.log_batch(CALLER, run.run_id, [Point("loss", 1.0, 1, 5)], {}, {})
        await metrics.log_batch(CALLER, run.run_id, [Point("late", 1.0, 0, 5)], {}, {})
        assert ingest.problem is None
    await exact_names(db, run, {"loss": 1, "acc": 1, "late": 1})


async def exact_names(db: Database, run: RunRef, counts: dict[str, int]) -> None:
    async with db.connection() as conn:
        assert dict(await conn.fetch("SELECT name, count FROM run_metrics WHERE run_id = $1", run.run_id)) == counts


async def test_a_drain_does_not_wait_for_ever_for_what_is_held(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        writer, sender = await begin(ingest, run)
        async with held(db, run):
            await writer.put(sender.batch(logs(1, 5)))
            with pytest.raises(TimeoutError):
                await ingest.drain(3)
            with pytest.raises(Unavailable, match="stopping"):
                await writer.reached(6)
    await exact(db, run, 1)
