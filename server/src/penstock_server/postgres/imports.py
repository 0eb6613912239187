"""What is imported, in PostgreSQL: rows with ids and times as they were elsewhere, and the marks of what is here.

Every function works in the caller's transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np

from penstock_server.model.access import WorkspaceId
from penstock_server.model.changes import RunRef
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.imports import (
    Arrival,
    ImportedExperiment,
    ImportedModel,
    ImportedRun,
    ImportedVersion,
)
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.registry import ModelRef
from penstock_server.postgres import chunks
from penstock_server.postgres.clock import NOW_MS
from penstock_server.postgres.database import Connection
from penstock_server.postgres.points import Columns

_ADD_EXPERIMENT = """
WITH experiment AS (
    INSERT INTO experiments (workspace_id, name, lifecycle, artifact_location, created_ms, updated_ms)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING id, workspace_id),
tags AS (
    INSERT INTO experiment_tags (experiment_id, workspace_id, key, value)
    SELECT experiment.*, t.key, t.value FROM experiment, unnest($7::text[], $8::text[]) AS t (key, value))
SELECT id FROM experiment
"""
_ADD_EXPERIMENT_TAGS = """
INSERT INTO experiment_tags (experiment_id, workspace_id, key, value)
SELECT $1, $2, t.key, t.value FROM unnest($3::text[], $4::text[]) AS t (key, value) ON CONFLICT DO NOTHING
"""
_EXPERIMENT = "SELECT id, artifact_location FROM experiments WHERE workspace_id = $1 AND name = $2"


async def experiment(conn: Connection, workspace_id: WorkspaceId, new: ImportedExperiment) -> tuple[ExperimentId, str]:
    """The experiment of that name and its artifact_location; made as it was where there is none.

    One that is there keeps what it has, and gets the tags whose keys it does not have.
    """
    keys, values = list(new.tags), list(new.tags.values())
    await conn.execute(
        _ADD_EXPERIMENT,
        workspace_id,
        new.name,
        new.lifecycle,
        new.artifact_location,
        new.created_ms,
        new.updated_ms,
        keys,
        values,
    )
    row = await conn.fetchrow(_EXPERIMENT, workspace_id, new.name)
    await conn.execute(_ADD_EXPERIMENT_TAGS, row["id"], workspace_id, keys, values)
    return ExperimentId(row["id"]), row["artifact_location"]


# What has files has an id that nothing else has, nor had.
_ARRIVALS = """
SELECT w.id, CASE WHEN i.id IS NOT NULL AND x.there THEN CASE WHEN i.whole THEN 2 ELSE 1 END
                  WHEN x.there OR EXISTS (SELECT FROM removed_runs WHERE id = w.id)
                    OR EXISTS (SELECT FROM traces WHERE id = w.id) THEN 3 ELSE 0 END AS arrival,
       coalesce(i.points, 0) AS points, coalesce(i.files, 0) AS files
  FROM unnest($1::uuid[]) AS w (id) LEFT JOIN imported i ON i.id = w.id AND i.workspace_id = $2
 CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM runs WHERE id = w.id)
                         OR EXISTS (SELECT FROM logged_models WHERE id = w.id) AS there) x
"""


async def arrivals(
    conn: Connection, workspace_id: WorkspaceId, ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, tuple[Arrival, int, int]]:
    """How much of each of these is here, and how many points and files the source had when it was imported."""
    rows = await conn.fetch(_ARRIVALS, ids, workspace_id)
    return {row["id"]: (Arrival(row["arrival"]), row["points"], row["files"]) for row in rows}


_ADD_MARK = """
INSERT INTO imported (id, workspace_id, source, points) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET source = excluded.source, points = excluded.points, whole = false, files = 0
"""
_ADD_RUN = """
INSERT INTO runs (id, workspace_id, experiment_id, name, status, user_name, source_name, git_commit, parent_run_id,
                  start_ms, end_ms, created_ms, updated_ms, metric_count)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, t.start_ms, t.end_ms, t.start_ms, coalesce(t.end_ms, t.start_ms), $12
  FROM (VALUES ($10::bigint, $11::bigint)) AS t (start_ms, end_ms)
"""
_ADD_PAIRS = """
INSERT INTO {} ({}, workspace_id, experiment_id, key, value)
SELECT $1, $2, $3, p.key, p.value FROM unnest($4::text[], $5::text[]) AS p (key, value)
"""


async def add_run(conn: Connection, ref: RunRef, run: ImportedRun, source: str, points: int) -> None:
    """Makes a run, active until `done`, whose metrics have the ids of their positions; with the mark of `points`."""
    await conn.execute(
        _ADD_RUN,
        ref.run_id,
        ref.workspace_id,
        ref.experiment_id,
        run.name,
        run.status,
        run.user,
        run.source_name,
        run.git_commit,
        run.parent_run_id,
        run.start_ms,
        run.end_ms,
        len(run.metrics),
    )
    place = ref.run_id, ref.workspace_id, ref.experiment_id
    for table, pairs in (("run_params", run.params), ("run_tags", run.tags)):
        if pairs:
            await conn.execute(_ADD_PAIRS.format(table, "run_id"), *place, list(pairs), list(pairs.values()))
    await conn.execute(_ADD_MARK, ref.run_id, ref.workspace_id, source, points)


_ADD_METRIC = """
INSERT INTO run_metrics (run_id, workspace_id, experiment_id, metric_id, name, count, last_step, last_time_ms,
                         last_value, min_value, max_value)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
# Rows of a COPY; a chunk is 100 KB at most.
_ROWS = 500


async def add_metrics(conn: Connection, ref: RunRef, metrics: Sequence[tuple[str, Columns]]) -> None:
    """Writes all the points of these metrics of a run that has none, none of them without points."""
    summaries, rows = [], []
    for metric_id, (name, given) in enumerate(metrics):
        points = given.in_order()
        last = _last(points)
        summaries.append(
            (
                ref.run_id,
                ref.workspace_id,
                ref.experiment_id,
                metric_id,
                name,
                len(points),
                int(points.steps[last]),
                int(points.times_ms[last]),
                float(points.values[last]),
                float(np.fmin.reduce(points.values)),
                float(np.fmax.reduce(points.values)),
            )
        )
        for piece in chunks.split(points):
            rows.append(chunks.row(ref.workspace_id, ref.run_id, metric_id, piece))
            if len(rows) == _ROWS:
                await chunks.append(conn, rows)
                rows = []
    await conn.executemany(_ADD_METRIC, summaries)
    if rows:
        await chunks.append(conn, rows)


def _last(points: Columns) -> int:
    """The position of the greatest by (step, time, value), where NaN counts as 0 and gives way to another 0."""
    missing = np.isnan(points.values)
    values = np.where(missing, 0.0, points.values)
    return int(np.lexsort((~missing, values, points.times_ms, points.steps))[-1])


_ADD_MODEL = """
INSERT INTO logged_models (id, workspace_id, experiment_id, name, model_type, status, source_run_id, created_ms,
                           updated_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_ADD_MODEL_METRICS = """
INSERT INTO logged_model_metrics
       (model_id, workspace_id, experiment_id, run_id, key, value, time_ms, step, dataset_name, dataset_digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING
"""


async def add_model(
    conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId, model: ImportedModel, source: str
) -> None:
    """Makes a logged model, with its mark."""
    place = model.id, workspace_id, experiment_id
    of_it = model.name, model.model_type, model.status, model.source_run_id, model.created_ms, model.updated_ms
    await conn.execute(_ADD_MODEL, *place, *of_it)
    for table, pairs in (("logged_model_params", model.params), ("logged_model_tags", model.tags)):
        if pairs:
            await conn.execute(_ADD_PAIRS.format(table, "model_id"), *place, list(pairs), list(pairs.values()))
    await conn.executemany(_ADD_MODEL_METRICS, [(*place, *point) for point in model.metrics])
    await conn.execute(_ADD_MARK, model.id, workspace_id, source, 0)


_DONE = "UPDATE imported SET whole = $3, files = $2 WHERE id = $1"
_DELETED = f"UPDATE runs SET lifecycle = 2, deleted_ms = {NOW_MS} WHERE id = $1 AND lifecycle = 1"  # noqa: S608
_REOPEN = "UPDATE runs SET lifecycle = 1, deleted_ms = NULL WHERE id = $1 AND NOT removing"


async def done(conn: Connection, id_: uuid.UUID, files: int, lifecycle: Lifecycle, *, whole: bool) -> None:
    """It has that many files here; all of it is here if `whole`. A run that was deleted is so from now on."""
    if lifecycle is Lifecycle.DELETED:
        await conn.execute(_DELETED, id_)
    await conn.execute(_DONE, id_, files, whole)


async def reopen(conn: Connection, run_id: uuid.UUID) -> None:
    """Makes a run active until `done`, so that it can be given files."""
    await conn.execute(_REOPEN, run_id)


_FILES = "SELECT path, size FROM artifacts WHERE owner_id = $1"


async def files(conn: Connection, owner_id: uuid.UUID) -> dict[str, int]:
    """The sizes of the files that are here, by path."""
    return dict(await conn.fetch(_FILES, owner_id))


_COUNTS = """
SELECT (SELECT count(*) FROM runs WHERE id = ANY($1)) AS runs,
       (SELECT count(*) FROM run_params WHERE run_id = ANY($1)) AS params,
       (SELECT count(*) FROM run_tags WHERE run_id = ANY($1)) AS tags,
       (SELECT count(*) FROM run_metrics WHERE run_id = ANY($1) AND count > 0) AS metrics,
       (SELECT coalesce(sum(count), 0)::bigint FROM run_metrics WHERE run_id = ANY($1)) AS points,
       (SELECT count(*) FROM run_datasets WHERE run_id = ANY($1)) AS inputs,
       (SELECT count(*) FROM artifacts WHERE owner_id = ANY($1)) AS files,
       (SELECT count(*) FROM logged_models WHERE id = ANY($1)) AS models
"""


async def counts(conn: Connection, ids: Sequence[uuid.UUID]) -> dict[str, int]:
    """How many there are here of each kind, of these runs and logged models."""
    return dict(await conn.fetchrow(_COUNTS, ids))


_ADD_VERSION = """
INSERT INTO model_versions (model_id, workspace_id, version, run_id, path, source, status, status_message, description,
                            created_by, created_ms, updated_ms, logged_model_id, run_link)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""


async def add_version(conn: Connection, model: ModelRef, version: ImportedVersion) -> None:
    """Makes a version of a locked model with the number that it had, without its tags, stage and aliases."""
    await conn.execute(
        _ADD_VERSION,
        model.model_id,
        model.workspace_id,
        version.version,
        version.run_id,
        version.path,
        version.source,
        version.status,
        version.status_message,
        version.description,
        version.created_by,
        version.created_ms,
        version.updated_ms,
        version.logged_model_id,
        version.run_link,
    )


_VERSIONS = "SELECT version, created_ms FROM model_versions WHERE model_id = $1"


async def versions(conn: Connection, model: ModelRef) -> dict[int, int]:
    """When the versions that a model has were made, in ms since 1970 UTC, by number."""
    return dict(await conn.fetch(_VERSIONS, model.model_id))


_KEEP_MODEL_TIMES = """
UPDATE registered_models SET created_ms = $2, updated_ms = $3 WHERE id = $1
"""
_KEEP_VERSION_TIMES = "UPDATE model_versions SET updated_ms = $3 WHERE model_id = $1 AND version = $2"
_KEEP_NUMBERS = "UPDATE registered_models SET last_version = greatest(last_version, $2) WHERE id = $1"


async def keep_model_times(conn: Connection, model: ModelRef, created_ms: int, updated_ms: int) -> None:
    """Gives a model the times that it had."""
    await conn.execute(_KEEP_MODEL_TIMES, model.model_id, created_ms, updated_ms)


async def keep_version_times(conn: Connection, model: ModelRef, added: Sequence[ImportedVersion]) -> None:
    """Gives versions the times that they had, and keeps their numbers from being given again."""
    rows = [(model.model_id, each.version, each.updated_ms) for each in added]
    await conn.executemany(_KEEP_VERSION_TIMES, rows)
    await conn.execute(_KEEP_NUMBERS, model.model_id, max((each.version for each in added), default=0))
