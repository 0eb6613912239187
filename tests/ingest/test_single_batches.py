"""Single batches of any size and reads of any name: refused with a reason, or done without holding others up."""

from __future__ import annotations

import pytest
from frames import CALLER, make_run
from test_delivery import working

from penstock_server.core.metrics import BATCH_METRICS, Metrics
from penstock_server.ingest.shapes import Shapes
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.metrics import Point
from penstock_server.postgres import metrics as stored
from penstock_server.postgres.database import Database


async def test_all_names_of_a_batch_are_asked_for_at_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    ask = stored.metric_ids
    monkeypatch.setattr(stored, "metric_ids", lambda *args: asked.append(args) or ask(*args))
    run = await make_run(db)
    points = [Point(f"m{number}", float(number), number, 5) for number in range(2_000)]
    async with working(db, budget=1 << 24) as ingest:
        metrics = Metrics(db, ingest)
        await metrics.log_batch(CALLER, run.run_id, points, {}, {})
        ((_, summaries),) = await metrics.summaries(CALLER, [run.run_id])
    assert len(asked) == 1
    assert {summary.name: summary.last_value for summary in summaries} == {point.name: point.value for point in points}


async def test_too_many_for_one_batch(db: Database) -> None:
    run = await make_run(db)
    points = [Point("loss", 0.0, step, 5) for step in range(BATCH_METRICS + 1)]
    async with working(db) as ingest:
        with pytest.raises(InvalidArgument, match="10001 are too many for one batch"):
            await Metrics(db, ingest).log_batch(CALLER, run.run_id, points, {}, {})


@pytest.mark.parametrize("name", ["lo\0ss", "x" * 251, "../loss"])
async def test_names_that_no_metric_can_have_are_refused_when_read(db: Database, name: str) -> None:
    run = await make_run(db)
    async with working(db) as ingest:
        metrics = Metrics(db, ingest)
        with pytest.raises(InvalidArgument):
            await metrics.history(CALLER, run.run_id, name)
        with pytest.raises(InvalidArgument):
            await anext(metrics.stream_history(CALLER, run.run_id, [name]))
        with pytest.raises(InvalidArgument):
            await metrics.series(CALLER, [run.run_id], [name])
        with pytest.raises(InvalidArgument):
            await metrics.summaries(CALLER, [run.run_id], [name])


async def test_the_cache_of_shapes_is_bounded_by_names(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_server.ingest.shapes._NAMES_KEPT", 100)
    run = await make_run(db)
    shapes = Shapes(db)
    first = await shapes.resolve(run.run_id, ("a", "b"))
    assert await shapes.resolve(run.run_id, ("a", "b")) is first
    for number in range(20):
        await shapes.resolve(run.run_id, tuple(f"m{number}.{i}" for i in range(10)))
    assert shapes._size <= 100
    again = await shapes.resolve(run.run_id, ("a", "b"))
    assert again.ids.tolist() == first.ids.tolist()
