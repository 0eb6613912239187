"""Removal of deleted runs and experiments for good, in PostgreSQL, a bounded piece at a time.

A run's row is the last to go, so that whatever ends the work in between, what is left is found again. Before anything
else it is marked, and from then on it cannot be restored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_server.model.experiments import DEFAULT_EXPERIMENT, ExperimentId
from penstock_server.model.logged_models import LoggedModelId
from penstock_server.model.runs import RunId
from penstock_server.postgres import segments, sweep, traces
from penstock_server.postgres.clock import NOW_MS
from penstock_server.postgres.database import Connection

_BEFORE = f"SELECT {NOW_MS} - $1::bigint"


async def before_ms(conn: Connection, age_ms: int) -> int:
    """The time, by the database's clock, of what is so old."""
    time_ms: int = await conn.fetchval(_BEFORE, age_ms)
    return time_ms


_RUNS = """
SELECT id FROM runs
 WHERE ($2::uuid IS NULL OR id > $2) AND lifecycle = 2 AND (removing OR deleted_ms < $1) ORDER BY id LIMIT $3
"""


async def runs(conn: Connection, before_ms: int, after: RunId | None, limit: int) -> list[RunId]:
    """Runs that were deleted before that time, or whose removal has begun; in turn, behind `after`."""
    return [row[0] for row in await conn.fetch(_RUNS, before_ms, after, limit)]


# A deleted experiment changes no more: its last change was its deletion. Nothing is made in it.
_EXPERIMENTS = """
SELECT e.id FROM experiments e
 WHERE e.lifecycle = 2 AND e.updated_ms < $1 AND e.id <> $2
   AND NOT EXISTS (SELECT FROM runs r WHERE r.workspace_id = e.workspace_id AND r.experiment_id = e.id
                      AND NOT (r.lifecycle = 2 AND (r.removing OR r.deleted_ms < $1)))
 ORDER BY e.id
"""


async def experiments(conn: Connection, before_ms: int) -> list[ExperimentId]:
    """Experiments that were deleted before that time, and so were all runs in them."""
    return [row[0] for row in await conn.fetch(_EXPERIMENTS, before_ms, DEFAULT_EXPERIMENT)]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is in runs: points, files, and the files' bytes."""

    points: int
    files: int
    bytes: int


_EXTENT = """
SELECT (SELECT coalesce(sum(count), 0)::bigint FROM run_metrics WHERE run_id = ANY($1)), count(*),
       coalesce(sum(size), 0)::bigint
  FROM artifacts WHERE owner_id = ANY($1)
"""


async def extent(conn: Connection, run_ids: Sequence[RunId]) -> Extent:
    """Of these runs."""
    return Extent(*await conn.fetchrow(_EXTENT, run_ids))


_STANDING = """
SELECT m.name, v.version, ARRAY(SELECT a.alias FROM model_aliases a WHERE a.version_id = v.id ORDER BY a.alias)
  FROM runs r JOIN model_versions v USING (workspace_id) JOIN registered_models m ON m.id = v.model_id
 WHERE r.id = ANY($1) AND v.run_id = r.id AND starts_with(v.source, 'runs:/') ORDER BY m.name, v.version
"""


async def versions(conn: Connection, run_ids: Sequence[RunId]) -> list[str]:
    """The versions of models whose files are those of these runs, as people name them, with their aliases."""
    return [
        " ".join([f"{name}/{version}", *(f"@{alias}" for alias in aliases)])
        for name, version, aliases in await conn.fetch(_STANDING, run_ids)
    ]


_MARK = f"""
WITH run AS (
    UPDATE runs SET removing = true WHERE id = $1 AND lifecycle = 2 AND (removing OR deleted_ms < $2) RETURNING id),
removed AS (INSERT INTO removed_runs SELECT id, {NOW_MS} FROM run ON CONFLICT DO NOTHING)
SELECT id FROM run
"""  # noqa: S608  # only constants are put together


async def mark(conn: Connection, run_id: RunId, before_ms: int) -> bool:
    """Makes a run's deletion final: none is made anew with its id. False when it was restored meanwhile, or is gone."""
    return await conn.fetchval(_MARK, run_id, before_ms) is not None


# The tables with many rows of a run, and how many rows a statement takes: a row of metric_chunks may have 100 KB, one
# of metric_segments some MB. Who is still about to commit points holds its writer, so those go first.
_BULKS = {
    "writers": 5_000,
    "logged_model_metrics": 5_000,
    "run_datasets": 5_000,
    "run_models": 5_000,
    "metric_segments": 100,
    "metric_chunks": 500,
    "run_metrics": 5_000,
    "run_params": 5_000,
    "run_tags": 5_000,
}
_TAKE = "DELETE FROM {} WHERE ctid = ANY (ARRAY (SELECT ctid FROM {} WHERE run_id = $1 LIMIT {}))"
_DELETES = [(_TAKE.format(table, table, rows), rows) for table, rows in _BULKS.items()]


async def empty(conn: Connection, run_id: RunId) -> None:
    """Removes what a marked run has, each statement a transaction, and leaves its files to the sweeper."""
    for statement, rows in _DELETES:
        while _count(await conn.execute(statement, run_id)) == rows:
            pass
    await sweep.release(conn, [run_id])


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])


_DROP_SEGMENTS = "DELETE FROM metric_segments WHERE run_id = $1"
_DROP_CHUNKS = "DELETE FROM metric_chunks WHERE run_id = $1"
_DROP = "DELETE FROM runs WHERE id = $1 RETURNING id"


async def drop(conn: Connection, run_id: RunId) -> bool:
    """Removes an emptied run, in the caller's transaction, with what a compaction made of it meanwhile.

    False when it is gone.
    """
    await segments.hold(conn, run_id)
    await conn.execute(_DROP_SEGMENTS, run_id)
    await conn.execute(_DROP_CHUNKS, run_id)
    return await conn.fetchval(_DROP, run_id) is not None


# Those of a deleted experiment are as good as deleted. They are not restored, but with it.
_MODEL_IS_OLD = """
    (m.lifecycle = 2 AND m.deleted_ms < $1
     OR EXISTS (SELECT FROM experiments e WHERE e.id = m.experiment_id AND e.lifecycle = 2 AND e.updated_ms < $1))
"""
_MODELS = f"""
SELECT m.id FROM logged_models m WHERE ($2::uuid IS NULL OR m.id > $2) AND {_MODEL_IS_OLD} ORDER BY m.id LIMIT $3
"""  # noqa: S608  # only constants are put together
_MARK_MODEL = f"""
UPDATE logged_models m SET lifecycle = 2, deleted_ms = least(m.deleted_ms, $1 - 1) WHERE m.id = $2 AND {_MODEL_IS_OLD}
RETURNING m.id
"""  # noqa: S608
_EXTENT_OF_MODEL = """
SELECT (SELECT count(*) FROM logged_model_metrics WHERE model_id = $1), count(*), coalesce(sum(size), 0)::bigint
  FROM artifacts WHERE owner_id = $1
"""
_METRICS_OF_MODEL = """
DELETE FROM logged_model_metrics
 WHERE ctid = ANY (ARRAY (SELECT ctid FROM logged_model_metrics WHERE model_id = $1 LIMIT $2))
"""
_DROP_MODEL = "DELETE FROM logged_models WHERE id = $1 RETURNING id"


async def models(conn: Connection, before_ms: int, after: LoggedModelId | None, limit: int) -> list[LoggedModelId]:
    """Logged models that were deleted before that time, by themselves or with their experiment; behind `after`."""
    return [row[0] for row in await conn.fetch(_MODELS, before_ms, after, limit)]


async def extent_of_model(conn: Connection, model_id: LoggedModelId) -> Extent:
    """Of a logged model."""
    return Extent(*await conn.fetchrow(_EXTENT_OF_MODEL, model_id))


async def remove_model(conn: Connection, model_id: LoggedModelId, before_ms: int) -> bool:
    """Removes such a model, each statement a transaction, and leaves its files to the sweeper.

    False when its experiment was restored meanwhile, or it is gone.
    """
    if await conn.fetchval(_MARK_MODEL, before_ms, model_id) is None:
        return False
    while _count(await conn.execute(_METRICS_OF_MODEL, model_id, _METRICS_AT_ONCE)) == _METRICS_AT_ONCE:
        pass
    await sweep.release(conn, [model_id])
    async with conn.transaction():
        dropped = await conn.fetchval(_DROP_MODEL, model_id) is not None
        await sweep.release(conn, [model_id])  # of what was being entered
    return dropped


_METRICS_AT_ONCE = 5_000

_EXTENT_OF_TRACES = """
SELECT count(DISTINCT t.id), 0::bigint, count(a.path), coalesce(sum(a.size), 0)::bigint
  FROM experiments e JOIN traces t ON t.workspace_id = e.workspace_id AND t.experiment_id = e.id
  LEFT JOIN artifacts a ON a.owner_id = t.id
 WHERE e.id = $1
"""


async def extent_of_traces(conn: Connection, experiment_id: ExperimentId) -> tuple[int, Extent]:
    """How many traces an experiment has, and what there is in them."""
    traces, *extent = await conn.fetchrow(_EXTENT_OF_TRACES, experiment_id)
    return traces, Extent(*extent)


async def remove_traces(conn: Connection, experiment_id: ExperimentId, before_ms: int, limit: int) -> int:
    """Removes traces of an experiment that was deleted before that time, and leaves their files to the sweeper."""
    async with conn.transaction():
        gone = await traces.drop_of_deleted(conn, experiment_id, before_ms, limit)
        if gone:
            await sweep.release(conn, gone)
    return len(gone)


_DROP_EXPERIMENT = """
DELETE FROM experiments e
 WHERE id = $1 AND lifecycle = 2 AND updated_ms < $2
   AND NOT EXISTS (SELECT FROM runs r WHERE r.workspace_id = e.workspace_id AND r.experiment_id = e.id)
   AND NOT EXISTS (SELECT FROM logged_models m WHERE m.workspace_id = e.workspace_id AND m.experiment_id = e.id)
   AND NOT EXISTS (SELECT FROM traces t WHERE t.workspace_id = e.workspace_id AND t.experiment_id = e.id)
RETURNING id
"""


async def drop_experiment(conn: Connection, experiment_id: ExperimentId, before_ms: int) -> bool:
    """Removes an experiment that has neither runs nor logged models nor traces.

    False when it has some, was restored meanwhile, or is gone.
    """
    return await conn.fetchval(_DROP_EXPERIMENT, experiment_id, before_ms) is not None
