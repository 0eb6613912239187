"""Whatever is logged, in whatever order, and whenever it is compacted: it is read back exactly."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from frames import CALLER, Log, Sender, expected, hello, make_run, plain_sql, same_points
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock_server.core.metrics import Metrics
from penstock_server.ingest.compaction import compact
from penstock_server.ingest.ingest import Ingest
from penstock_server.model.limits import INT64_MAX, INT64_MIN
from penstock_server.postgres import chunks, series
from penstock_server.postgres.database import Database

NAMES = ["loss", "acc", "train/loss", "lr", "a b.c-d:e"]

steps = st.one_of(st.integers(-3, 12), st.integers(INT64_MIN, INT64_MAX))
values = st.one_of(
    st.floats(width=64), st.floats(width=32), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324])
)
frame = st.tuples(
    st.dictionaries(st.sampled_from(NAMES), values, min_size=1, max_size=4),
    steps,
    st.integers(0, 3) | st.integers(0, 10**13),
)
# A story: batches of frames, with compactions in between.
stories = st.lists(st.one_of(st.just("compact"), st.lists(frame, min_size=1, max_size=12)), min_size=1, max_size=8)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 points and blocks of 3, so that a few frames meet every boundary."""
    monkeypatch.setattr(chunks, "CHUNK_POINTS", 8)
    monkeypatch.setattr("penstock_server.ingest.compaction.CHUNK_POINTS", 8)
    monkeypatch.setattr(chunks, "BLOCK_POINTS", 3)
    monkeypatch.setattr("penstock_server.postgres.series.BLOCK_POINTS", 3)
    monkeypatch.setattr("penstock_server.postgres.series._GROUP_POINTS", 20)
    monkeypatch.setattr("penstock_server.ingest.compaction._TAKE_BYTES", 300)
    monkeypatch.setattr("penstock_server.ingest.parcels._SEGMENT_BYTES", 100)


async def tell(db: Database, story: list[Any]) -> tuple[Any, list[Log]]:
    """Streams the batches, compacting where the story says so; returns the run and all that was logged."""
    run = await make_run(db)
    sender, logged = Sender(), []
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        ingest = Ingest(db, 1 << 20)
        working = group.create_task(ingest.run())
        writer = await ingest.open(CALLER, run, hello(run))
        for part in story:
            if part == "compact":
                await writer.settled()
                while (moved := await compact(db, run.run_id)) is not None and moved.more:
                    pass
            else:
                await writer.put(sender.batch(part))
                logged.extend(part)
        await writer.reached(sender.seq - 1)
        ingest.close(writer)
        working.cancel()
    return run, logged


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=stories, page_size=st.integers(1, 20))
# One metric in two shapes, by turns, at one step and time.
@example(
    story=[[({"acc": 1.0, "loss": 0.0}, 0, 0), ({"loss": 5.0}, 0, 0), ({"acc": 1.0, "loss": 1.0}, 0, 0)]], page_size=9
)
def test_reads_back_what_was_logged(
    db: Database, run: Any, small_chunks: None, story: list[Any], page_size: int
) -> None:
    async def check() -> None:
        ref, logged = await tell(db, story)
        wanted = expected(logged)
        metrics = Metrics(db, Ingest(db, 1))
        for name, points in wanted.items():
            found, token = [], ""
            while True:
                page, token = await metrics.history(CALLER, ref.run_id, name, page_size=page_size, page_token=token)
                assert len(page) <= page_size
                found += list(zip(page.steps.tolist(), page.times_ms.tolist(), page.values.tolist(), strict=True))
                if not token:
                    break
            assert same_points(found, points)
        streamed: dict[str, int] = {}
        async for name, page in metrics.stream_history(CALLER, ref.run_id):
            streamed[name] = streamed.get(name, 0) + len(page)
        assert streamed == {name: len(points) for name, points in wanted.items()}

    run(check())


def latest(point: tuple[int, int, float]) -> tuple[int, int, float, bool]:
    """The last point is the greatest by this: NaN is 0, and less than another 0."""
    step, time, value = point
    return step, time, 0.0 if math.isnan(value) else value, not math.isnan(value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=stories)
# At one step and time: in one frame's shape, in two shapes, in two batches, the greater first or last, NaN and 0.
@example(story=[[({"acc": 3.0}, 1, 1), ({"acc": 5.0}, 1, 1), ({"acc": 4.0}, 1, 1)]])
@example(story=[[({"acc": 5.0}, 1, 1), ({"acc": 4.0, "loss": math.nan}, 1, 1)], [({"loss": -1.0}, 1, 1)]])
@example(story=[[({"acc": math.nan, "loss": 2.0}, 1, 1)], [({"acc": 0.0, "loss": 1.0}, 1, 1)]])
@example(story=[[({"acc": 0.0, "loss": -2.0}, 1, 1)], [({"acc": math.nan, "loss": math.nan}, 1, 1)]])
def test_plain_sql_and_summaries_agree(db: Database, run: Any, small_chunks: None, story: list[Any]) -> None:
    async def check() -> None:
        ref, logged = await tell(db, story)
        wanted = expected(logged)
        key = lambda point: (point[0], point[1], repr(point[2]))  # noqa: E731
        shown = await plain_sql(db, ref.run_id)
        assert shown.keys() == wanted.keys()
        for name, points in wanted.items():
            assert same_points(sorted(shown[name], key=key), sorted(points, key=key))
        metrics = Metrics(db, Ingest(db, 1))
        ((_, summaries),) = await metrics.summaries(CALLER, [ref.run_id])
        assert [summary.name for summary in summaries] == sorted(wanted)
        for summary in summaries:
            points = wanted[summary.name]
            numbers = [value for _, _, value in points if not math.isnan(value)]
            assert summary.count == len(points)
            step, time, value = max(points, key=latest)
            assert (summary.last_step, summary.last_time_ms) == (step, time)
            assert summary.last_value == value or (math.isnan(summary.last_value) and math.isnan(value))
            assert summary.min_value == min(numbers) if numbers else math.isnan(summary.min_value)
            assert summary.max_value == max(numbers) if numbers else math.isnan(summary.max_value)

    run(check())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    story=stories,
    width=st.integers(1, 12),
    bounds=st.one_of(st.none(), st.tuples(st.integers(-3, 12), st.integers(-3, 12)).map(sorted)),
)
def test_series_counts_every_point_and_keeps_every_spike(
    db: Database, run: Any, small_chunks: None, story: list[Any], width: int, bounds: list[int] | None
) -> None:
    async def check() -> None:
        ref, logged = await tell(db, story)
        low, high = bounds or (INT64_MIN, INT64_MAX)
        wanted = {
            name: inside
            for name, points in expected(logged).items()
            if (inside := [point for point in points if low <= point[0] <= high])
        }
        found = await series.read(
            db,
            CALLER.workspace_id,
            [ref.run_id],
            NAMES,
            *(bounds or (None, None)),
            width,  # type: ignore[arg-type]
        )
        assert [one.name for one in found] == [name for name in NAMES if name in wanted]
        for one in found:
            points = wanted[one.name]
            assert 0 < len(one.counts) <= width
            assert int(one.counts.sum()) == len(points)
            assert int(one.first_steps[0]) == points[0][0]
            assert int(one.last_steps.max()) >= points[-1][0]
            assert bool((one.first_steps[1:] > one.first_steps[:-1]).all())
            numbers = [value for _, _, value in points if not math.isnan(value)]
            if numbers:
                assert min(v for v in one.mins.tolist() if not math.isnan(v)) == min(numbers)
                assert max(v for v in one.maxs.tolist() if not math.isnan(v)) == max(numbers)
            # A bucket that says how far it reaches holds the points from its first step on.
            for first, last, count, least, greatest in zip(
                one.first_steps.tolist(), one.last_steps.tolist(), one.counts.tolist(), one.mins, one.maxs, strict=True
            ):
                reach = [value for step, _, value in points if first <= step <= last]
                assert count <= len(reach)
                inside = [value for value in reach if not math.isnan(value)]
                assert math.isnan(least) or min(inside) <= least <= greatest <= max(inside)

    run(check())
