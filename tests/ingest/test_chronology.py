"""Histories by time, and points that are picked out of them: whatever is logged, in whatever order, at either level."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from typing import Any

import pytest
from frames import CALLER, expected, make_run, working
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_roundtrip import small_chunks, stories, tell

from penstock_server.core.metrics import Columns, Metrics
from penstock_server.ingest.compaction import compact
from penstock_server.ingest.ingest import Ingest
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import InvalidPageToken, NotActive, NotFound
from penstock_server.model.metrics import Point
from penstock_server.postgres import sample
from penstock_server.postgres.database import Database

__all__ = ["small_chunks"]

# By a number that is 0 for NaN; whether it is NaN comes last. -0.0 is 0.0 here.
Key = tuple[int, int, float, bool]


def by_time(points: list[tuple[int, int, float]]) -> list[Key]:
    """(step, time, value) as (time, step, value, NaN), sorted, each once."""
    return sorted({(time, step, *_value(value)) for step, time, value in points})


def by_step(points: list[tuple[int, int, float]]) -> list[Key]:
    """(step, time, value) as (step, time, value, NaN), sorted, each once."""
    return sorted({(step, time, *_value(value)) for step, time, value in points})


def _value(value: float) -> tuple[float, bool]:
    return (0.0, True) if math.isnan(value) else (value, False)


def rows(points: Columns) -> list[tuple[int, int, float]]:
    return list(zip(points.steps.tolist(), points.times_ms.tolist(), points.values.tolist(), strict=True))


def keys(points: Columns) -> list[Key]:
    return [(time, step, *_value(value)) for step, time, value in rows(points)]


async def all_pages(metrics: Metrics, run: RunRef, name: str, page_size: int) -> list[Key]:
    found: list[Key] = []
    token = ""
    while True:
        page, token = await metrics.chronology(CALLER, run.run_id, name, page_size, token)
        assert len(page) <= page_size
        assert len(page) or not token
        found += keys(page)
        if not token:
            return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=stories, page_size=st.integers(1, 20))
# Of one step and time more than a page, in chunks and in segments; then the times go back.
@example(
    story=[
        [({"loss": value}, 1, 5) for value in (3.0, math.nan, 1.0, 3.0, 0.0, 1.0, 2.0, math.inf, 3.0, 3.0)],
        "compact",
        [({"loss": value}, 1, 5) for value in (3.0, -1.0)] + [({"loss": 9.0}, 2, 4)],
    ],
    page_size=2,
)
@example(story=[[({"loss": 3.0}, 1, 5)] * 20, "compact"], page_size=1)
def test_pages_by_time(db: Database, run: Any, small_chunks: None, story: list[Any], page_size: int) -> None:
    async def check() -> None:
        ref, logged = await tell(db, story)
        metrics = Metrics(db, Ingest(db, 1))
        for name, points in expected(logged).items():
            assert await all_pages(metrics, ref, name, page_size) == by_time(points)

    run(check())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    story=stories,
    width=st.integers(1, 12),
    bounds=st.one_of(st.none(), st.tuples(st.integers(-3, 12), st.integers(-3, 12)).map(sorted)),
)
def test_points_picked_evenly(
    db: Database, run: Any, small_chunks: None, story: list[Any], width: int, bounds: list[int] | None
) -> None:
    async def check() -> None:
        ref, logged = await tell(db, story)
        metrics = Metrics(db, Ingest(db, 1))
        low, high = bounds or (None, None)
        for name, points in expected(logged).items():
            inside = [point for point in points if bounds is None or bounds[0] <= point[0] <= bounds[1]]
            found = [each async for each in metrics.sampled(CALLER, [ref.run_id], name, low, high, width)]
            picked = [(step, time, *_value(value)) for _, columns in found for step, time, value in rows(columns)]
            assert picked == ntile(by_step(inside), width)

    run(check())


def ntile(points: list[Key], width: int) -> list[Key]:
    """The first of each of PostgreSQL's NTILE(width), the last of them the last of all."""
    if len(points) <= width:
        return points
    each, longer = divmod(len(points), width)
    sizes = [each + 1] * longer + [each] * (width - longer)
    firsts = [points[sum(sizes[:position])] for position in range(width)]
    return [*firsts[:-1], points[-1]]


async def test_of_very_many_points_some_are_passed_over(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "_PAGE", 50)
    monkeypatch.setattr(sample, "_KEPT", 100)
    run = await make_run(db)
    async with working(db, budget=1 << 24) as ingest:
        metrics = Metrics(db, ingest)
        await metrics.log_batch(CALLER, run.run_id, [Point("loss", 0.0, step, 5) for step in range(997)], {}, {})
        ((_, found),) = [each async for each in metrics.sampled(CALLER, [run.run_id], "loss", None, None, 50)]
    steps = found.steps.tolist()
    assert (len(steps), steps[0], steps[-1]) == (50, 0, 996)
    assert max(after - before for before, after in pairwise(steps)) <= 3 * 997 / 50


async def test_chunks_of_an_earlier_release(db: Database) -> None:
    run = await make_run(db)
    async with working(db, budget=1 << 24) as ingest:
        metrics = Metrics(db, ingest)
        points = [Point("loss", float(number), number, 10_000 - number) for number in range(9_000)]
        await metrics.log_batch(CALLER, run.run_id, points, {}, {})
        await compact(db, run.run_id)
        async with db.connection() as conn:
            await conn.execute("UPDATE metric_chunks SET least_time = NULL WHERE id % 2 = 0")
            await conn.execute("UPDATE metric_chunks SET greatest_time = NULL")
        found = await all_pages(metrics, run, "loss", 4_000)
    assert [value for _, _, value, _ in found] == [float(number) for number in reversed(range(9_000))]


async def test_no_such_run_or_metric_and_a_token_of_another(db: Database) -> None:
    run, other = await make_run(db), await make_run(db)
    async with working(db) as ingest:
        metrics = Metrics(db, ingest)
        for each in (run, other):
            await metrics.log_batch(CALLER, each.run_id, [Point("loss", 0.0, 1, 5), Point("loss", 0.0, 2, 5)], {}, {})
        assert not len((await metrics.chronology(CALLER, run.run_id, "acc", 5))[0])
        page, token = await metrics.chronology(CALLER, run.run_id, "loss", 1)
        assert (len(page), bool(token)) == (1, True)
        with pytest.raises(InvalidPageToken):
            await metrics.chronology(CALLER, other.run_id, "loss", 1, token)


async def test_a_run_that_is_known_may_be_deleted_and_removed(db: Database) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        metrics = Metrics(db, ingest)
        await metrics.log_batch(CALLER, run.run_id, [Point("loss", 0.0, 1, 5)], {}, {})
        async with db.connection() as conn:
            await conn.execute("UPDATE runs SET lifecycle = 2 WHERE id = $1", run.run_id)
        with pytest.raises(NotActive):
            await metrics.log_batch(CALLER, run.run_id, [Point("loss", 0.0, 2, 5)], {}, {})
        async with db.connection() as conn:
            await conn.execute("DELETE FROM runs WHERE id = $1", run.run_id)
        with pytest.raises(NotFound):
            await metrics.log_batch(CALLER, run.run_id, [Point("loss", 0.0, 2, 5)], {}, {})


async def test_points_of_one_batch_in_any_order(db: Database) -> None:
    """Frames of one shape and of many, names that come twice at one step and time."""
    run = await make_run(db)
    batches = [
        [Point(f"m{number % 10}", number, number // 10, 5) for number in range(100)],
        [Point(f"m{number // 10}", -number, number % 10, 6) for number in range(100)],
        [Point("m1", number, 50, 7) for number in (1, 2, 2)] + [Point("m2", 3, 50, 7), Point("m1", 0, 50, 7)],
    ]
    async with asyncio.timeout(20), working(db, budget=1 << 24) as ingest:
        metrics = Metrics(db, ingest)
        for batch in batches:
            await metrics.log_batch(CALLER, run.run_id, batch, {}, {})
        for name in [f"m{number}" for number in range(10)]:
            own = [
                (point.step, point.time_ms, point.value) for batch in batches for point in batch if point.name == name
            ]
            assert rows((await metrics.history(CALLER, run.run_id, name))[0]) == sorted(own, key=lambda each: each[:2])
        ((_, summaries),) = await metrics.summaries(CALLER, [run.run_id], ["m1"])
        assert (summaries[0].count, summaries[0].last_step, summaries[0].last_value) == (24, 50, 2.0)
