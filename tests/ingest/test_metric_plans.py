"""The hot statements of the metric store go by index, however many points there are."""

from __future__ import annotations

import uuid

import pytest

from penstock_server.postgres import chunks, metrics, segments, writers
from penstock_server.postgres.database import Database

RUN = uuid.uuid4()
FILL = """
WITH made AS (
    INSERT INTO runs (id, workspace_id, experiment_id, name, status, start_ms, created_ms, updated_ms)
    SELECT gen_random_uuid(), 1, 0, 'r', 1, n, n, n FROM generate_series(1, 1000) n
    RETURNING id),
writing AS (
    INSERT INTO writers (id, run_id, workspace_id, principal, epoch, created_ms)
    SELECT gen_random_uuid(), id, 1, '', 1, 0 FROM made),
named AS (
    INSERT INTO run_metrics (run_id, workspace_id, experiment_id, metric_id, name, count)
    SELECT id, 1, 0, n, 'm' || n, 1 FROM made, generate_series(0, 9) n),
level0 AS (
    INSERT INTO metric_segments (run_id, workspace_id, frames, min_step, max_step, shape_sizes, metric_ids, steps,
                                 times_ms, metric_values)
    SELECT id, 1, 1, n, n, '{1}', '{1}', '', '', '' FROM made, generate_series(1, 10) n)
INSERT INTO metric_chunks (run_id, metric_id, workspace_id, points, min_step, max_step, first_time, last_time,
    min_value, max_value, sum_value, nans, block_steps, block_mins, block_maxs, block_sums, step_deltas, time_deltas)
SELECT id, n, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0, '{1}', '{1}', '{1}', '{1}', '{1}', '{1}' FROM made, generate_series(0, 9) n
"""


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (writers._ADVANCE, ([RUN], [0], [1], [1])),
        (writers._LOOK, (RUN,)),
        (metrics._KNOWN, (RUN, ["loss"])),
        (metrics._NAME, (RUN, ["loss"])),
        (metrics._GROW, ([RUN], [0], [1], [0], [0], [0.0], [0.0], [0.0])),
        (metrics._SUMMARIES, ([RUN], 1, None)),
        (metrics._FIND, ([RUN], 1, ["loss"])),
        (segments._OVERLAPPING, ([RUN], 0, 9, [1])),
        (segments._OLDEST, (RUN, 1000)),
        (segments._ANY, (RUN,)),
        (segments._DELETE, (RUN, [1])),
        (chunks._OUTLINES, ([RUN], [1], [0], [9])),
        (chunks._TAILS, (RUN, [1, 2], 8)),
        (chunks._BLOCKS, ([RUN], [1], [1])),
        (chunks._POINTS, ([RUN], [1], [1])),
        (chunks._DELETE, (RUN, [1], [1])),
    ],
)
async def test_goes_by_index(db: Database, statement: str, arguments: tuple[object, ...]) -> None:
    async with db.connection() as conn:
        await conn.execute(FILL)
        await conn.execute("ANALYZE")
        plan = "\n".join(row[0] for row in await conn.fetch("EXPLAIN " + statement, *arguments))
    assert "Seq Scan" not in plan, plan
    assert "Index" in plan, plan
