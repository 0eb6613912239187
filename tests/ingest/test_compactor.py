"""Which runs are compacted, and that readers and other replicas never notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from frames import CALLER, Log, Sender, expected, hello, make_run, plain_sql

from penstock_server.core.metrics import Metrics
from penstock_server.ingest import compactor
from penstock_server.ingest.compaction import compact
from penstock_server.ingest.compactor import Compactor
from penstock_server.ingest.ingest import Ingest
from penstock_server.model.changes import RunRef
from penstock_server.postgres.database import Database


@asynccontextmanager
async def working(db: Database) -> AsyncIterator[Ingest]:
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        ingest = Ingest(db, 1 << 24)
        task = group.create_task(ingest.run())
        yield ingest
        task.cancel()


def logs(count: int) -> list[Log]:
    return [({"loss": 1 / (step + 1), "acc": step / 10}, step, step) for step in range(count)]


async def fill(ingest: Ingest, run: RunRef, logged: list[Log], each: int) -> None:
    writer, sender = await ingest.open(CALLER, run, hello(run)), Sender()
    for first in range(0, len(logged), each):
        await writer.put(sender.batch(logged[first : first + each]))
    await writer.reached(len(logged))
    ingest.close(writer)


async def segments(db: Database, run: RunRef) -> int:
    async with db.connection() as conn:
        return int(await conn.fetchval("SELECT count(*) FROM metric_segments WHERE run_id = $1", run.run_id))


async def until_compacted(db: Database, run: RunRef) -> None:
    async with asyncio.timeout(20):
        while await segments(db, run):
            await asyncio.sleep(0.02)


async def test_a_run_that_ends_is_compacted_at_once(db: Database) -> None:
    run, going = await make_run(db), await make_run(db)
    async with working(db) as ingest:
        await fill(ingest, run, logs(50), 10)
        await fill(ingest, going, logs(50), 10)
        ingest.run_ended(run.run_id)
        await until_compacted(db, run)
        assert await segments(db, going) > 0
    assert await plain_sql(db, run.run_id) == expected(logs(50))


async def test_a_run_is_compacted_when_enough_has_gathered(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        await fill(ingest, run, logs(5000), 500)
        await until_compacted(db, run)
    async with db.connection() as conn:
        chunks = await conn.fetch("SELECT points FROM metric_chunks WHERE run_id = $1", run.run_id)
    assert sum(row[0] for row in chunks) == 10_000


async def test_what_a_dead_replica_left_is_found(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        await fill(ingest, run, logs(50), 10)
    assert await segments(db, run)
    async with db.connection() as conn:
        await conn.execute("UPDATE runs SET status = 3 WHERE id = $1", run.run_id)
    finder = asyncio.create_task(Compactor(db).run())
    await until_compacted(db, run)
    finder.cancel()
    assert compactor._LOOK <= 60
    assert await plain_sql(db, run.run_id) == expected(logs(50))


async def test_two_replicas_compact_one_run_while_it_is_read(db: Database) -> None:
    run, logged = await make_run(db), logs(3000)
    wanted = expected(logged)["loss"]
    reads = 0
    async with working(db) as ingest:
        await fill(ingest, run, logged, 100)
        metrics = Metrics(db, ingest)
        compacting = asyncio.gather(*(compact(db, run.run_id) for _ in range(6)), return_exceptions=True)
        while not compacting.done() or reads < 3:
            found, _ = await metrics.history(CALLER, run.run_id, "loss")
            assert found.steps.tolist() == [step for step, _, _ in wanted]
            assert found.values.tolist() == [value for _, _, value in wanted]
            (series,) = await metrics.series(CALLER, [run.run_id], ["loss"], width=50)
            assert int(series.counts.sum()) == len(wanted)
            reads += 1
        outcomes = await compacting
    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert await segments(db, run) == 0
    assert (await plain_sql(db, run.run_id))["loss"] == wanted
