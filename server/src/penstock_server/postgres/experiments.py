"""Experiments in PostgreSQL. Every function works in the caller's transaction; lock order: experiment, then run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import asyncpg

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import AlreadyExists, NotActive, NotFound
from penstock_server.model.experiments import Experiment, ExperimentId
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.postgres.database import Connection

# A taken name or request id inserts nothing; while another inserts the same, this waits for how that ends.
_ADD = """
WITH experiment AS (
    INSERT INTO experiments (workspace_id, name, artifact_location, created_ms, updated_ms, request_id)
    SELECT $1, $2, $6, t.ms, t.ms, $3 FROM (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms) t
    ON CONFLICT DO NOTHING RETURNING id, workspace_id),
tags AS (
    INSERT INTO experiment_tags (experiment_id, workspace_id, key, value)
    SELECT experiment.*, t.key, t.value FROM experiment, unnest($4::text[], $5::text[]) AS t (key, value))
SELECT id FROM experiment
"""
_NO_TAGS: Mapping[str, str] = MappingProxyType({})


async def add(
    conn: Connection,
    workspace_id: WorkspaceId,
    name: str,
    tags: Mapping[str, str] = _NO_TAGS,
    request_id: str = "",
    artifact_location: str = "",
) -> ExperimentId | None:
    """Makes an experiment. None when its name or the request id is taken."""
    made: int | None = await conn.fetchval(
        _ADD, workspace_id, name, request_id or None, list(tags), list(tags.values()), artifact_location
    )
    return None if made is None else ExperimentId(made)


_REQUESTED = "SELECT id FROM experiments WHERE workspace_id = $1 AND request_id = $2"


async def requested(conn: Connection, workspace_id: WorkspaceId, request_id: str) -> ExperimentId | None:
    """The experiment that this request made, None when it made none."""
    found: int | None = await conn.fetchval(_REQUESTED, workspace_id, request_id)
    return None if found is None else ExperimentId(found)


_NAMED = "SELECT id FROM experiments WHERE workspace_id = $1 AND name = ANY($2)"


async def named(conn: Connection, workspace_id: WorkspaceId, names: Sequence[str]) -> list[ExperimentId]:
    """The experiments of these names, whatever their stage; unknown names give nothing."""
    return [ExperimentId(row[0]) for row in await conn.fetch(_NAMED, workspace_id, names)]


# The order of the ids; ids of other workspaces give nothing.
_LOAD = """
SELECT e.id, e.name, e.lifecycle, e.created_ms, e.updated_ms, e.artifact_location
  FROM unnest($2::bigint[]) WITH ORDINALITY AS wanted (id, position) JOIN experiments e USING (id)
 WHERE e.workspace_id = $1 ORDER BY wanted.position
"""
_LOAD_TAGS = "SELECT experiment_id, key, value FROM experiment_tags WHERE experiment_id = ANY($1) AND workspace_id = $2"


async def load(conn: Connection, workspace_id: WorkspaceId, ids: Sequence[ExperimentId]) -> list[Experiment]:
    """These experiments, in this order, without those that do not exist."""
    tags: dict[int, dict[str, str]] = {}
    for experiment_id, key, value in await conn.fetch(_LOAD_TAGS, ids, workspace_id):
        tags.setdefault(experiment_id, {})[key] = value
    return [
        Experiment(row[0], row[1], Lifecycle(row[2]), row[3], row[4], tags.get(row[0], {}), row[5])
        for row in await conn.fetch(_LOAD, workspace_id, ids)
    ]


async def load_one(conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId) -> Experiment:
    """One experiment, whatever its stage. Raises NotFound."""
    found = await load(conn, workspace_id, [experiment_id])
    if not found:
        raise NotFound("experiment", str(experiment_id))
    return found[0]


# SHARE: any number of runs may be made at once, and none while the experiment is being deleted.
_HOLD = "SELECT lifecycle FROM experiments WHERE workspace_id = $1 AND id = $2 FOR SHARE"
_LOCK = "SELECT lifecycle FROM experiments WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE"


async def hold_active(conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId) -> None:
    """Keeps an active experiment from being deleted until the transaction ends. Raises NotFound, NotActive."""
    _require_active(await conn.fetchval(_HOLD, workspace_id, experiment_id), experiment_id)


async def lock_active(conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId) -> None:
    """Keeps others from changing an active experiment until the transaction ends. Raises NotFound, NotActive."""
    _require_active(await conn.fetchval(_LOCK, workspace_id, experiment_id), experiment_id)


def _require_active(lifecycle: int | None, experiment_id: ExperimentId) -> None:
    if lifecycle is None:
        raise NotFound("experiment", str(experiment_id))
    if lifecycle != Lifecycle.ACTIVE:
        raise NotActive("experiment", experiment_id)


_RENAME = "UPDATE experiments SET name = $3 WHERE workspace_id = $1 AND id = $2"
_NAME_TAKEN = "experiments_workspace_id_name_key"


async def rename(conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId, name: str) -> None:
    """Gives a locked experiment another name. Raises AlreadyExists, after which the transaction is over."""
    try:
        await conn.execute(_RENAME, workspace_id, experiment_id, name)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != _NAME_TAKEN:
            raise
        raise AlreadyExists("experiment", name) from error
    await _touch(conn, workspace_id, experiment_id)


_PUT_TAGS = """
INSERT INTO experiment_tags (experiment_id, workspace_id, key, value)
SELECT $1, $2, t.key, t.value FROM unnest($3::text[], $4::text[]) AS t (key, value)
ON CONFLICT (experiment_id, key) DO UPDATE SET value = excluded.value
"""


async def put_tags(
    conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId, tags: Mapping[str, str]
) -> None:
    """Sets tags of a locked experiment."""
    await conn.execute(_PUT_TAGS, experiment_id, workspace_id, list(tags), list(tags.values()))
    await _touch(conn, workspace_id, experiment_id)


_DROP_TAGS = """
DELETE FROM experiment_tags WHERE experiment_id = $1 AND workspace_id = $2 AND key = ANY($3) RETURNING key
"""


async def drop_tags(
    conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId, keys: Collection[str]
) -> None:
    """Removes tags of a locked experiment. Raises NotFound; roll back then, since the others are removed."""
    dropped = {row[0] for row in await conn.fetch(_DROP_TAGS, experiment_id, workspace_id, keys)}
    for key in keys:
        if key not in dropped:
            raise NotFound("tag", key)
    await _touch(conn, workspace_id, experiment_id)


# Two replicas' clocks may differ; the time of the last change never goes back.
_TOUCH = """
UPDATE experiments SET updated_ms = greatest(updated_ms, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
 WHERE workspace_id = $1 AND id = $2
"""


async def _touch(conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId) -> None:
    await conn.execute(_TOUCH, workspace_id, experiment_id)


_SET_LIFECYCLE = "UPDATE experiments SET lifecycle = $3 WHERE workspace_id = $1 AND id = $2 AND lifecycle <> $3"
_SET_LIFECYCLE_OF_RUNS = """
UPDATE runs SET lifecycle = $3, deleted_ms = CASE WHEN $3 = 2 THEN t.ms END, updated_ms = greatest(updated_ms, t.ms)
  FROM (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms) t
 WHERE workspace_id = $1 AND experiment_id = $2 AND lifecycle <> $3 AND NOT removing
"""


async def set_lifecycle(
    conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId, lifecycle: Lifecycle
) -> bool:
    """Deletes or restores an experiment and all its runs. Whether it was in the other stage before. Raises NotFound."""
    before = await conn.fetchval(_LOCK, workspace_id, experiment_id)
    if before is None:
        raise NotFound("experiment", str(experiment_id))
    if before == lifecycle:
        return False
    await conn.execute(_SET_LIFECYCLE, workspace_id, experiment_id, lifecycle)
    await conn.execute(_SET_LIFECYCLE_OF_RUNS, workspace_id, experiment_id, lifecycle)
    await _touch(conn, workspace_id, experiment_id)
    return True
