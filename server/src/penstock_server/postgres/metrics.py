"""The metrics of a run: their ids, and the summary of each, kept in the same transaction as the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import NotFound
from penstock_server.model.metrics import MetricSummary
from penstock_server.model.runs import RunId, format_run_id
from penstock_server.postgres.database import Connection, Database

_KNOWN = "SELECT name, metric_id FROM run_metrics WHERE run_id = $1 AND name = ANY($2)"
# Ids are given out under the run's lock, one writer after another. A name that another writer added meanwhile is left
# to it, with a gap in the ids, and looked up by the caller. The row is locked by its change and by nothing before: who
# locks it and then changes it waits in a circle with two others whose new params or tags look at it (a deadlock).
_NAME = """
WITH run AS (
    UPDATE runs SET metric_count = metric_count + cardinality($2::text[]) WHERE id = $1
    RETURNING id, workspace_id, experiment_id, metric_count - cardinality($2::text[]) AS first)
INSERT INTO run_metrics (run_id, workspace_id, experiment_id, metric_id, name)
SELECT run.id, run.workspace_id, run.experiment_id, run.first + n.position - 1, n.name
  FROM run, unnest($2::text[]) WITH ORDINALITY AS n (name, position)
    ON CONFLICT (run_id, name) DO NOTHING RETURNING name, metric_id
"""


async def metric_ids(db: Database, run_id: RunId, names: Sequence[str]) -> dict[str, int]:
    """The ids of these metrics of a run, giving new ones to names it did not have. Raises NotFound."""
    async with db.connection() as conn:
        known: dict[str, int] = dict(await conn.fetch(_KNOWN, run_id, names))
    if len(known) < len(names):
        async with db.waiting() as conn:
            known |= dict(await conn.fetch(_NAME, run_id, [name for name in names if name not in known]))
            if len(known) < len(names):
                known = dict(await conn.fetch(_KNOWN, run_id, names))
    if len(known) < len(names):
        raise NotFound("run", format_run_id(run_id))
    return known


@dataclass(frozen=True, slots=True)
class Growth:
    """What one flush adds to the summaries: columns of equal length, one row per run and metric."""

    run_ids: Sequence[RunId]
    metric_ids: NDArray[np.int32]
    counts: NDArray[np.int64]
    last_steps: NDArray[np.int64]
    last_times_ms: NDArray[np.int64]
    last_values: NDArray[np.float64]
    mins: NDArray[np.float64]  # of the values that are not NaN; NaN when all are
    maxs: NDArray[np.float64]


# PostgreSQL takes NaN for greater than every number: least() passes over it by itself, greatest() must be told to.
# The last point is the greatest by (step, time, value), where NaN counts as 0 and gives way to another 0: so it is the
# same in whatever order writers' points arrive, and the one that MLflow takes.
_LATER = """m.count = 0
    OR (v.last_step, v.last_time_ms, coalesce(nullif(v.last_value, 'NaN'), 0), v.last_value <> 'NaN')
    >= (m.last_step, m.last_time_ms, coalesce(nullif(m.last_value, 'NaN'), 0), m.last_value <> 'NaN')"""
_GROW = f"""
UPDATE run_metrics m SET
    count        = m.count + v.count,
    last_step    = CASE WHEN {_LATER} THEN v.last_step ELSE m.last_step END,
    last_time_ms = CASE WHEN {_LATER} THEN v.last_time_ms ELSE m.last_time_ms END,
    last_value   = CASE WHEN {_LATER} THEN v.last_value ELSE m.last_value END,
    min_value    = least(m.min_value, v.min_value),
    max_value    = coalesce(greatest(nullif(m.max_value, 'NaN'), nullif(v.max_value, 'NaN')), 'NaN')
  FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[],
              $6::float8[], $7::float8[], $8::float8[])
       AS v (run_id, metric_id, count, last_step, last_time_ms, last_value, min_value, max_value)
 WHERE m.run_id = v.run_id AND m.metric_id = v.metric_id
"""  # noqa: S608  # only constants are put together


async def grow(conn: Connection, growth: Growth) -> None:
    """Adds what a flush brought to the summaries."""
    await conn.execute(
        _GROW,
        growth.run_ids,
        growth.metric_ids.tolist(),
        growth.counts.tolist(),
        growth.last_steps.tolist(),
        growth.last_times_ms.tolist(),
        growth.last_values.tolist(),
        growth.mins.tolist(),
        growth.maxs.tolist(),
    )


# A row a run, with its metrics as arrays: half the time of a row a metric.
_SUMMARIES = """
SELECT run_id, array_agg(name ORDER BY name COLLATE "C"), array_agg(count ORDER BY name COLLATE "C"),
       array_agg(last_step ORDER BY name COLLATE "C"), array_agg(last_time_ms ORDER BY name COLLATE "C"),
       array_agg(last_value ORDER BY name COLLATE "C"), array_agg(min_value ORDER BY name COLLATE "C"),
       array_agg(max_value ORDER BY name COLLATE "C")
  FROM run_metrics
 WHERE run_id = ANY($1) AND workspace_id = $2 AND count > 0 AND ($3::text[] IS NULL OR name = ANY($3))
 GROUP BY run_id
"""
_FIND = """
SELECT run_id, name, metric_id FROM run_metrics
 WHERE run_id = ANY($1) AND workspace_id = $2 AND count > 0 AND ($3::text[] IS NULL OR name = ANY($3))
"""


async def summaries(
    conn: Connection, workspace_id: WorkspaceId, run_ids: Sequence[RunId], names: Sequence[str] | None
) -> dict[RunId, list[MetricSummary]]:
    """The summaries of these metrics (None: all) of these runs, sorted by name; runs without any are not there."""
    rows = await conn.fetch(_SUMMARIES, run_ids, workspace_id, names)
    return {row[0]: list(map(MetricSummary, *row[1:])) for row in rows}


# Put together where the values are: a page of runs may have 100,000 of them, and each would be several objects here.
# In JSON there is neither NaN nor infinity.
_LAST_POINTS = """
SELECT run_id, '[' || string_agg(
           '{"key":' || to_json(name)
           || ',"value":' || CASE WHEN last_value < 'NaN' THEN
                  greatest(least(last_value, 1.7976931348623157e308), -1.7976931348623157e308)::text ELSE '"NaN"' END
           || ',"timestamp":' || last_time_ms || ',"step":' || last_step || '}', ',' ORDER BY metric_id) || ']'
  FROM run_metrics
 WHERE run_id = ANY($1) AND workspace_id = $2 AND count > 0
 GROUP BY run_id
"""


async def last_points(conn: Connection, workspace_id: WorkspaceId, run_ids: Sequence[RunId]) -> dict[RunId, str]:
    """The last point of each metric of these runs, as a JSON list of objects with key, value, timestamp and step.

    NaN is the text "NaN", infinities are the greatest numbers that there are. Runs without any are not there.
    """
    return dict(await conn.fetch(_LAST_POINTS, run_ids, workspace_id))


async def find(
    conn: Connection, workspace_id: WorkspaceId, run_ids: Sequence[RunId], names: Sequence[str] | None
) -> dict[tuple[RunId, str], int]:
    """The ids of these metrics (None: all) of these runs, of those that have points."""
    rows = await conn.fetch(_FIND, run_ids, workspace_id, names)
    return {(row[0], row[1]): row[2] for row in rows}
