"""The hot statements of runs go by index, however many runs there are."""

from __future__ import annotations

import pytest

from penstock_server.model.runs import new_run_id
from penstock_server.postgres import metrics, runs
from penstock_server.postgres.database import Database

FILL = """
WITH made AS (
    INSERT INTO runs (id, workspace_id, experiment_id, name, status, start_ms, created_ms, updated_ms, request_id)
    SELECT gen_random_uuid(), 1, 0, 'r', 1, n, n, n, CASE WHEN n % 2 = 0 THEN 'request ' || n END
      FROM generate_series(1, 5000) n
    RETURNING id),
params AS (INSERT INTO run_params SELECT id, 1, 0, 'p' || n, '' FROM made, generate_series(1, 3) n),
metrics AS (INSERT INTO run_metrics SELECT id, 1, 0, n, 'm' || n, 1 FROM made, generate_series(1, 3) n)
INSERT INTO run_tags SELECT id, 1, 0, 't' || n, '' FROM made, generate_series(1, 3) n
"""


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (runs._MADE, (1, new_run_id(), "request 17")),
        (runs._MADE, (1, new_run_id(), None)),
        (runs._LOAD, (1, [new_run_id()])),
        (runs._LOAD_PARAMS, ([new_run_id()], 1)),
        (runs._LOAD_TAGS, ([new_run_id()], 1)),
        (metrics._LAST_POINTS, ([new_run_id()], 1)),
        (runs._LOCK, (1, new_run_id())),
        (runs._ACTIVE, ([new_run_id()],)),
    ],
)
async def test_goes_by_index(db: Database, statement: str, arguments: tuple[object, ...]) -> None:
    async with db.connection() as conn:
        await conn.execute(FILL)
        await conn.execute("ANALYZE")
        plan = "\n".join(row[0] for row in await conn.fetch("EXPLAIN " + statement, *arguments))
    assert "Seq Scan" not in plan, plan
    assert "Index" in plan, plan
