"""Exactly once: whatever happens to a stream, what was put and resent is committed, each record once."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from frames import CALLER, Log, Sender, expected, hello, logs, make_run, plain_sql, told, working

from penstock_server.core.metrics import Metrics
from penstock_server.ingest import ingest as ingest_module
from penstock_server.ingest.ingest import Ingest
from penstock_server.ingest.writer import Writer
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import (
    Busy,
    Fenced,
    InvalidArgument,
    NotActive,
    ParamChanged,
    PenstockError,
    SequenceGap,
    Unavailable,
)
from penstock_server.model.metrics import Point
from penstock_server.model.streams import Ack, Batch, Event, GoAway, Reject, Update, WriterId
from penstock_server.postgres.database import Database


async def holds(db: Database, run: RunRef, logged: list[Log]) -> None:
    """The database has exactly these points."""
    shown = await plain_sql(db, run.run_id)
    assert {name: sorted(points) for name, points in shown.items()} == expected(logged)


async def test_what_is_sent_again_is_dropped_and_what_is_new_is_kept(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        opening = hello(run)
        writer = await ingest.open(CALLER, run, opening)
        await writer.put(Sender().batch(logs(0, 10)))
        await writer.reached(10)
        await writer.put(Sender().batch(logs(0, 7)))  # all of it is there
        await writer.put(Sender().batch(logs(0, 15)))  # five are new
        await writer.reached(15)
        assert (await told(writer))[-1] == Ack(15)
        again = await ingest.open(CALLER, run, opening)
        assert again.hwm == 15
        sender = Sender(seq=16)
        await again.put(sender.batch(logs(15, 5)))
        await again.reached(20)
    await holds(db, run, logs(0, 20))


async def test_a_gap_ends_the_stream_and_says_what_was_expected(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        writer = await ingest.open(CALLER, run, hello(run))
        await writer.put(Sender().batch(logs(0, 3)))
        with pytest.raises(SequenceGap, match="expected record 4, got 9"):
            await writer.put(Sender(seq=9).batch(logs(3, 1)))
        await writer.reached(3)
    await holds(db, run, logs(0, 3))


async def test_a_writer_that_hops_between_replicas_with_batches_queued_on_both(db: Database) -> None:
    run = await make_run(db)
    logged = logs(0, 400)
    opening = hello(run)
    rng = random.Random(7)
    async with working(db) as one, working(db) as two:
        mark = 0
        streams: list[Writer] = []
        while mark < len(logged):
            replica = rng.choice((one, two))
            writer = await replica.open(CALLER, run, opening)
            mark = writer.hwm
            streams.append(writer)
            sender = Sender(seq=mark + 1)
            at = mark
            for _ in range(rng.randrange(1, 6)):
                part = logged[at : at + rng.randrange(1, 12)]
                if not part:
                    break
                with suppress(PenstockError):
                    await writer.put(sender.batch(part))
                at += len(part)
            if rng.random() < 0.5:
                await asyncio.sleep(rng.random() * 0.02)  # else it leaves at once, with everything queued
        for writer in streams:
            await writer.settled()
    await holds(db, run, logged)


async def test_the_higher_epoch_fences_the_lower(db: Database) -> None:
    run = await make_run(db)
    writer_id = WriterId(uuid.uuid4())
    async with working(db) as one, working(db) as two:
        zombie = await one.open(CALLER, run, hello(run, writer_id, epoch=1))
        heir = await two.open(CALLER, run, hello(run, writer_id, epoch=2))
        await zombie.put(Sender().batch(logs(0, 5)))
        with pytest.raises(Unavailable):
            await zombie.reached(5)
        with pytest.raises(Fenced, match="epoch 2"):
            await one.open(CALLER, run, hello(run, writer_id, epoch=1))
        await heir.put(Sender().batch(logs(0, 5)))
        await heir.reached(5)
    await holds(db, run, logs(0, 5))


async def test_a_writer_belongs_to_its_run(db: Database) -> None:
    run, other = await make_run(db), await make_run(db)
    writer_id = WriterId(uuid.uuid4())
    async with working(db) as ingest:
        await ingest.open(CALLER, run, hello(run, writer_id))
        with pytest.raises(InvalidArgument, match="another run"):
            await ingest.open(CALLER, other, hello(other, writer_id))


GOOD = Sender().batch(logs(0, 3))
BAD = {
    "a name with NUL": (replace(GOOD, new_shapes=[("lo\0ss", "acc")]), "NUL"),
    "a name over the limit": (replace(GOOD, new_shapes=[("x" * 251, "acc")]), "251 characters"),
    "a name that leaves the run": (replace(GOOD, new_shapes=[("../loss", "acc")]), "relative path"),
    "a name twice": (replace(GOOD, new_shapes=[("loss", "loss")]), "stands twice"),
    "a shape without names": (replace(GOOD, new_shapes=[()]), "1 to 10000 names"),
    "a shape index out of range": (replace(GOOD, shapes=b"\x01\0\0\0" * 3), "shape 1 is not defined"),
    "steps of another length": (replace(GOOD, steps=GOOD.steps[8:]), "2 entries for 3 frames"),
    "times of another length": (replace(GOOD, times_ms=GOOD.times_ms + bytes(8)), "4 entries for 3 frames"),
    "shapes of another length": (replace(GOOD, shapes=GOOD.shapes[:-1]), "entries for 3 frames"),
    "values too few": (replace(GOOD, values=GOOD.values[8:]), "5 values for frames that have 6"),
    "half a value": (replace(GOOD, values=GOOD.values + b"\0"), "whole number of doubles"),
    "a time before 1970": (replace(GOOD, times_ms=b"\xff" * 24), "not in ms since 1970"),
    "frames and updates": (replace(GOOD, updates=[Update(True, "lr", "1")] * 3), "frames and updates"),
    "a param key with NUL": (Batch(1, 1, [], b"", b"", b"", b"", [Update(True, "l\0r", "1")]), "NUL"),
    "a tag value over the limit": (Batch(1, 1, [], b"", b"", b"", b"", [Update(False, "t", "x" * 8001)]), "8001"),
    "a count that is not": (Batch(1, 3, [], b"", b"", b"", b"", [Update(False, "t", "x")]), "3 for 1 updates"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_batch_is_refused_alone(db: Database, case: str) -> None:
    batch, reason = BAD[case]
    run, other = await make_run(db), await make_run(db)
    async with working(db) as ingest:
        writer = await ingest.open(CALLER, run, hello(run))
        bystander = await ingest.open(CALLER, other, hello(other))
        await writer.put(batch)
        await bystander.put(Sender().batch(logs(0, 5)))
        sender = Sender(shapes={("unused",): 0} if batch.new_shapes else {}, seq=batch.count + 1)
        await writer.put(sender.batch(logs(10, 4)))
        await writer.reached(sender.seq - 1)
        await bystander.reached(5)
        events = await told(writer)
    reject = events[0]
    assert isinstance(reject, Reject)
    assert (reject.first_seq, reject.last_seq) == (1, batch.count)
    assert isinstance(reject.error, InvalidArgument)
    assert reason in str(reject.error)
    assert events[-1] == Ack(sender.seq - 1)
    await holds(db, run, logs(10, 4))
    await holds(db, other, logs(0, 5))


async def test_good_records_beside_bad_ones_are_kept(db: Database) -> None:
    run = await make_run(db)
    mixed: list[Log] = [
        ({"loss": 0.0}, 0, 0),
        ({"lo\0ss": 1.0, "acc": 1.0}, 1, 1),
        ({"../x": 2.0}, 2, 2),
        ({"acc": 3.0, "loss": 3.5}, 3, 3),
        ({"loss": 4.0}, 4, -1),
        ({"loss": 5.0}, 5, 5),
    ]
    updates = [
        Update(True, "lr", "0.1"),
        Update(True, "l\0r", "1"),
        Update(False, "t", "x" * 8001),
        Update(False, "t", "y"),
    ]
    async with working(db) as ingest:
        writer = await ingest.open(CALLER, run, hello(run))
        sender = Sender()
        await writer.put(sender.batch(mixed))
        await writer.put(Batch(7, 4, [], b"", b"", b"", b"", updates))
        sender.seq = 11
        await writer.put(sender.batch(logs(10, 1)))
        await writer.reached(11)
        rejects = [event for event in await told(writer) if isinstance(event, Reject)]
    assert [(each.first_seq, each.last_seq) for each in rejects] == [(2, 2), (3, 3), (5, 5), (8, 8), (9, 9)]
    assert "relative path" in str(rejects[1].error)
    async with db.connection() as conn:
        assert await conn.fetchval("SELECT value FROM run_params WHERE run_id = $1", run.run_id) == "0.1"
        assert await conn.fetchval("SELECT value FROM run_tags WHERE run_id = $1", run.run_id) == "y"
        shown = await conn.fetch("SELECT DISTINCT step FROM metric_points WHERE run_id = $1", run.run_id)
    assert sorted(int(row[0]) for row in shown) == [0, 3, 5, 10]


async def test_an_empty_batch_ends_the_stream(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        writer = await ingest.open(CALLER, run, hello(run))
        with pytest.raises(InvalidArgument, match="at least one record"):
            await writer.put(Batch(1, 0, [], b"", b"", b"", b"", []))


async def test_what_postgresql_refuses_is_refused_alone(db: Database) -> None:
    run, other = await make_run(db), await make_run(db)
    async with db.connection() as conn:
        await conn.execute(
            f"""
            CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF NEW.run_id = '{run.run_id}' AND NEW.min_step <= 5 AND NEW.max_step >= 5 THEN
                    RAISE EXCEPTION 'poison' USING ERRCODE = '22000';
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER poison BEFORE INSERT ON metric_segments FOR EACH ROW EXECUTE FUNCTION poison();
            """
        )
    async with working(db) as ingest:
        writer, bystander = await ingest.open(CALLER, run, hello(run)), await ingest.open(CALLER, other, hello(other))
        sender, other_sender = Sender(), Sender()
        for step in range(10):
            await writer.put(sender.batch(logs(step, 1)))
            await bystander.put(other_sender.batch(logs(step, 1)))
        await writer.reached(10)
        await bystander.reached(10)
        rejects = [event for event in await told(writer) if isinstance(event, Reject)]
    assert [(reject.first_seq, reject.last_seq) for reject in rejects] == [(6, 6)]
    await holds(db, run, logs(0, 5) + logs(6, 4))
    await holds(db, other, logs(0, 10))


async def test_params_and_tags_of_a_stream(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        writer = await ingest.open(CALLER, run, hello(run))
        first = [Update(True, "lr", "0.1"), Update(False, "note", "a"), Update(False, "note", "b")]
        await writer.put(Batch(1, 3, [], b"", b"", b"", b"", first))
        await writer.put(Batch(4, 1, [], b"", b"", b"", b"", [Update(True, "lr", "0.1")]))
        second = [Update(True, "depth", "3"), Update(True, "lr", "0.2"), Update(True, "width", "4")]
        await writer.put(Batch(5, 3, [], b"", b"", b"", b"", second))
        await writer.reached(7)
        (reject,) = [event for event in await told(writer) if isinstance(event, Reject)]
    assert isinstance(reject.error, ParamChanged)
    assert (reject.first_seq, reject.last_seq) == (6, 6)
    async with db.connection() as conn:
        params = dict(await conn.fetch("SELECT key, value FROM run_params WHERE run_id = $1", run.run_id))
        tags = dict(await conn.fetch("SELECT key, value FROM run_tags WHERE run_id = $1", run.run_id))
    assert params == {"lr": "0.1", "depth": "3", "width": "4"}
    assert tags == {"note": "b"}


async def test_a_run_deleted_in_mid_stream_takes_no_more_and_holds_nobody_up(db: Database) -> None:
    run, other = await make_run(db), await make_run(db)
    async with working(db) as ingest:
        writer, bystander = await ingest.open(CALLER, run, hello(run)), await ingest.open(CALLER, other, hello(other))
        sender = Sender()
        await writer.put(sender.batch(logs(0, 3)))
        await writer.reached(3)
        async with db.connection() as conn:
            await conn.execute("UPDATE runs SET lifecycle = 2 WHERE id = $1", run.run_id)
        await writer.put(sender.batch(logs(3, 3)))
        await bystander.put(Sender().batch(logs(0, 5)))
        with pytest.raises(Unavailable):
            await writer.reached(6)
        await bystander.reached(5)
    await holds(db, run, logs(0, 3))
    await holds(db, other, logs(0, 5))


async def test_connections_that_break_in_mid_transaction(db: Database) -> None:
    """Backends are killed again and again under six writers, who open again and resend from their marks."""
    runs = [await make_run(db) for _ in range(3)]
    writers = [hello(run) for run in runs for _ in range(2)]
    done = asyncio.Event()
    kills = 0

    async def kill() -> None:
        nonlocal kills
        while not done.is_set():
            await asyncio.sleep(random.uniform(0.05, 0.3))
            with suppress(PenstockError):
                async with db.connection() as conn:
                    kills += len(
                        await conn.fetch(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                        )
                    )

    async def write(ingest: Ingest, run: RunRef, number: int) -> None:
        opening, logged = writers[number], logs(1000 * number, 600)
        mark = 0
        while mark < len(logged):
            with suppress(PenstockError):
                writer = await ingest.open(CALLER, run, opening)
                sender, at = Sender(seq=writer.hwm + 1), writer.hwm
                while at < len(logged):
                    part = logged[at : at + 5]
                    await writer.put(sender.batch(part))
                    at += len(part)
                    await asyncio.sleep(0.002 if kills >= 10 else 0.02)
                await writer.reached(len(logged))
                mark = writer.hwm

    async with working(db) as ingest:
        killing = asyncio.create_task(kill())
        await asyncio.gather(*(write(ingest, runs[number // 2], number) for number in range(6)))
        done.set()
        await killing
    assert kills >= 10
    for number, run in enumerate(runs):
        await holds(db, run, logs(2000 * number, 600) + logs(2000 * number + 1000, 600))
        async with db.connection() as conn:
            counts = await conn.fetch("SELECT count FROM run_metrics WHERE run_id = $1", run.run_id)
        assert [row[0] for row in counts] == [1200, 1200]


async def test_draining_commits_and_acknowledges_everything_accepted(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        writer = await ingest.open(CALLER, run, hello(run))
        sender = Sender()
        for step in range(50):
            await writer.put(sender.batch(logs(step, 1)))
        await ingest.drain(10)
        events: list[Event] = []
        with pytest.raises(Unavailable, match="stopping"):  # noqa: PT012
            async for event in writer.events():
                events.append(event)  # noqa: PERF401
        assert any(isinstance(event, GoAway) for event in events)
        assert events[-1] == Ack(50)
        with pytest.raises(Unavailable):
            await ingest.open(CALLER, run, hello(run))
    await holds(db, run, logs(0, 50))


async def test_a_small_buffer_is_shared_by_many(db: Database) -> None:
    runs = [await make_run(db) for _ in range(20)]
    async with working(db, budget=2000) as ingest:

        async def write(run: RunRef) -> None:
            writer, sender = await ingest.open(CALLER, run, hello(run)), Sender()
            for step in range(0, 100, 10):
                await writer.put(sender.batch(logs(step, 10)))
            await writer.reached(100)

        await asyncio.gather(*map(write, runs))
    for run in runs:
        await holds(db, run, logs(0, 100))


async def test_a_single_batch_is_all_or_nothing_and_holds_nobody_up(db: Database) -> None:
    run, other = await make_run(db), await make_run(db)
    async with working(db) as ingest:
        metrics = Metrics(db, ingest)
        await metrics.log_batch(CALLER, run.run_id, [Point("loss", 1.0, 0, 5)], {"lr": "0.1"}, {"note": "a"})
        clash, fine = await asyncio.gather(
            metrics.log_batch(CALLER, run.run_id, [Point("loss", 2.0, 1, 5)], {"lr": "0.2"}, {"note": "b"}),
            metrics.log_batch(CALLER, other.run_id, [Point("loss", 3.0, 0, 5)], {}, {}),
            return_exceptions=True,
        )
        assert isinstance(clash, ParamChanged)
        assert fine is None
        with pytest.raises(InvalidArgument, match="is empty"):
            await metrics.log_batch(CALLER, run.run_id, [], {}, {})
        async with db.connection() as conn:
            await conn.execute("UPDATE runs SET lifecycle = 2 WHERE id = $1", other.run_id)
        with pytest.raises(NotActive):
            await metrics.log_batch(CALLER, other.run_id, [Point("loss", 4.0, 0, 5)], {}, {})
    await holds(db, run, [({"loss": 1.0}, 0, 5)])
    await holds(db, other, [({"loss": 3.0}, 0, 5)])


async def test_a_single_batch_with_a_request_id_is_recorded_once(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        metrics = Metrics(db, ingest)
        again = [metrics.log_batch(CALLER, run.run_id, [Point("loss", 1.0, 0, 5)], {}, {}, "r1") for _ in range(20)]
        await asyncio.gather(*again)
        await metrics.log_batch(CALLER, run.run_id, [Point("loss", 2.0, 1, 5)], {}, {}, "r2")
    await holds(db, run, [({"loss": 1.0}, 0, 5), ({"loss": 2.0}, 1, 5)])


async def test_points_of_a_single_batch_keep_their_order(db: Database) -> None:
    run = await make_run(db)
    points = [("a", 1.0), ("a", 2.0), ("b", 3.0), ("a", 4.0), ("b", 5.0)]
    async with working(db) as ingest:
        metrics = Metrics(db, ingest)
        await metrics.log_batch(CALLER, run.run_id, [Point(name, value, 0, 5) for name, value in points], {}, {})
        for name in "ab":
            found, _ = await metrics.history(CALLER, run.run_id, name)
            assert found.values.tolist() == [value for other, value in points if other == name]


@asynccontextmanager
async def held_up(db: Database, ingest: Ingest, like: RunRef) -> AsyncIterator[None]:
    """The pipeline of a run waits for a lock; when this ends it goes on."""
    other = await make_run(db)
    while (other.run_id.int - like.run_id.int) % 2:
        other = await make_run(db)
    opening = hello(other)
    writer = await ingest.open(CALLER, other, opening)
    async with db.transaction() as conn:
        await conn.execute("UPDATE writers SET host = 'x' WHERE id = $1", opening.writer_id)
        await writer.put(Sender().batch(logs(0, 1)))
        await asyncio.sleep(0.1)  # it has taken that and stands
        yield
    await writer.reached(1)


async def test_a_writer_that_comes_back_before_its_old_stream_is_settled(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        opening = hello(run)
        async with held_up(db, ingest, run):
            first = await ingest.open(CALLER, run, opening)
            await first.put(Sender().batch(logs(0, 5)))
            ingest.close(first)  # the connection is gone, the batch is queued
            again = asyncio.create_task(ingest.open(CALLER, run, opening))
            await asyncio.sleep(0.1)
        second = await again
        await second.put(Sender(seq=second.hwm + 1).batch(logs(second.hwm, 8 - second.hwm)))
        await second.reached(8)
    await holds(db, run, logs(0, 8))


async def test_two_streams_of_one_writer_in_one_flush(db: Database) -> None:
    """Replicas do not know of each other's streams; nor do these two."""
    run = await make_run(db)
    async with working(db) as ingest:
        opening = hello(run)
        async with held_up(db, ingest, run):
            first = await ingest.open(CALLER, run, opening)
            ingest._writers.clear()
            second = await ingest.open(CALLER, run, opening)
            await first.put(Sender().batch(logs(0, 5)))
            await second.put(Sender().batch(logs(0, 5)))
        await asyncio.gather(first.reached(5), second.reached(5), return_exceptions=True)
    await holds(db, run, logs(0, 5))


async def test_many_opens_of_one_writer_at_once(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        opening = hello(run)
        before = await ingest.open(CALLER, run, opening)
        await before.put(Sender().batch(logs(0, 3)))
        streams = await asyncio.gather(*(ingest.open(CALLER, run, opening) for _ in range(6)))
        assert sum(not stream.gone for stream in streams) == 1
        for stream in streams:
            with suppress(PenstockError):
                await stream.put(Sender(seq=stream.hwm + 1).batch(logs(stream.hwm, 9 - stream.hwm)))
                await stream.reached(9)
    await holds(db, run, logs(0, 9))


async def test_streams_are_bounded(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "_STREAMS_LIMIT", 3)
    run = await make_run(db)
    async with working(db) as ingest:
        at_once = [hello(run) for _ in range(8)]
        opened = await asyncio.gather(
            *(ingest.open(CALLER, run, opening) for opening in at_once), return_exceptions=True
        )
        streams = [stream for stream in opened if isinstance(stream, Writer)]
        assert len(streams) == 3
        assert sum(isinstance(error, Busy) for error in opened) == 5
        # One that comes back takes the place of its old stream.
        back = next(opening for opening in at_once if opening.writer_id == streams[0].writer_id)
        streams[0] = await ingest.open(CALLER, run, back)
        with pytest.raises(Busy, match="3 streams open"):
            await ingest.open(CALLER, run, hello(run))
        ingest.close(streams[0])
        await ingest.open(CALLER, run, hello(run))
