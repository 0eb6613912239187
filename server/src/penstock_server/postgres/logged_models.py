"""Logged models in PostgreSQL. Every function works in the caller's transaction."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from penstock_server.model.access import WorkspaceId
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.logged_models import (
    LoggedModel,
    LoggedModelId,
    LoggedModelStatus,
    ModelMetric,
    ModelPoint,
    NewLoggedModel,
)
from penstock_server.model.runs import RunId
from penstock_server.postgres.clock import NOW_MS
from penstock_server.postgres.database import Connection, Row

_ADD = f"""
WITH model AS (
    INSERT INTO logged_models (id, workspace_id, experiment_id, name, model_type, source_run_id, created_ms, updated_ms)
    SELECT $1, $2, $3, $4, $5, $6, t.ms, t.ms FROM (SELECT {NOW_MS} AS ms) t),
params AS (
    INSERT INTO logged_model_params (model_id, workspace_id, experiment_id, key, value)
    SELECT $1, $2, $3, p.* FROM unnest($7::text[], $8::text[]) AS p (key, value))
INSERT INTO logged_model_tags (model_id, workspace_id, experiment_id, key, value)
SELECT $1, $2, $3, t.* FROM unnest($9::text[], $10::text[]) AS t (key, value)
"""  # noqa: S608  # only constants are put together


async def add(conn: Connection, workspace_id: WorkspaceId, new: NewLoggedModel) -> LoggedModelId:
    """Makes a model with its params and tags."""
    model_id = LoggedModelId(uuid.uuid4())
    await conn.execute(
        _ADD,
        model_id,
        workspace_id,
        new.experiment_id,
        new.name,
        new.model_type,
        new.source_run_id,
        list(new.params),
        list(new.params.values()),
        list(new.tags),
        list(new.tags.values()),
    )
    return model_id


# All there is of a model in one statement: it is asked for again and again. Keys and values in the order of the keys.
_PAIRS = (
    "SELECT array_agg(key ORDER BY key) AS keys, array_agg(value ORDER BY key) AS values FROM {} WHERE model_id = m.id"
)
_METRICS = """
SELECT array_agg(run_id) AS run_ids, array_agg(key) AS keys, array_agg(value) AS values, array_agg(time_ms) AS times_ms,
       array_agg(step) AS steps, array_agg(dataset_name) AS names, array_agg(dataset_digest) AS digests
  FROM (SELECT * FROM (SELECT * FROM logged_model_metrics WHERE model_id = m.id
                        ORDER BY time_ms DESC, step DESC LIMIT 10000) newest
         ORDER BY time_ms, step, key, dataset_name, dataset_digest, value) shown
"""
# The order of the ids; ids of other workspaces give nothing.
_LOAD = f"""
SELECT m.id, m.experiment_id, m.name, m.model_type, m.status, m.source_run_id, m.created_ms, m.updated_ms,
       e.artifact_location, p.keys AS param_keys, p.values AS param_values, t.keys AS tag_keys,
       t.values AS tag_values, x.*
  FROM unnest($2::uuid[]) WITH ORDINALITY AS wanted (id, position)
  JOIN logged_models m USING (id) JOIN experiments e ON e.id = m.experiment_id
 CROSS JOIN LATERAL ({_PAIRS.format("logged_model_params")}) p
 CROSS JOIN LATERAL ({_PAIRS.format("logged_model_tags")}) t
 CROSS JOIN LATERAL ({_METRICS}) x
 WHERE m.workspace_id = $1 AND (m.lifecycle = 1 OR $3) ORDER BY wanted.position
"""  # noqa: S608  # only constants are put together


async def load(
    conn: Connection, workspace_id: WorkspaceId, ids: Sequence[LoggedModelId], *, deleted: bool = False
) -> list[LoggedModel]:
    """These models with all there is of them, in this order, without those that do not exist; deleted ones if so."""
    return [_model(row) for row in await conn.fetch(_LOAD, workspace_id, ids, deleted)]


def _model(row: Row) -> LoggedModel:
    id_, experiment_id, name, model_type, status, source_run_id, created_ms, updated_ms, location = row[:9]
    param_keys, param_values, tag_keys, tag_values, *metrics = (each or [] for each in row[9:])
    return LoggedModel(
        id_,
        experiment_id,
        name,
        model_type,
        LoggedModelStatus(status),
        source_run_id,
        created_ms,
        updated_ms,
        location,
        dict(zip(param_keys, param_values, strict=True)),
        dict(zip(tag_keys, tag_values, strict=True)),
        [ModelMetric(*each) for each in zip(*metrics, strict=True)],
    )


_LOCK = "SELECT id FROM logged_models WHERE workspace_id = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE"


async def lock(conn: Connection, workspace_id: WorkspaceId, ids: Sequence[LoggedModelId]) -> set[LoggedModelId]:
    """Keeps others from changing these models until the transaction ends. Those that are there."""
    return {LoggedModelId(row[0]) for row in await conn.fetch(_LOCK, workspace_id, ids)}


_SET_STATUS = f"""
UPDATE logged_models SET status = $3, updated_ms = greatest(updated_ms, {NOW_MS})
 WHERE workspace_id = $1 AND id = $2 RETURNING id
"""  # noqa: S608


async def set_status(
    conn: Connection, workspace_id: WorkspaceId, model_id: LoggedModelId, status: LoggedModelStatus
) -> bool:
    """False when there is no such model."""
    return await conn.fetchval(_SET_STATUS, workspace_id, model_id, status) is not None


_DELETE = f"""
WITH old AS (SELECT id, lifecycle FROM logged_models WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE)
UPDATE logged_models m
   SET lifecycle = 2, deleted_ms = coalesce(m.deleted_ms, t.ms),
       updated_ms = CASE WHEN m.lifecycle = 1 THEN greatest(m.updated_ms, t.ms) ELSE m.updated_ms END
  FROM old, (SELECT {NOW_MS} AS ms) t WHERE m.id = old.id RETURNING old.lifecycle
"""  # noqa: S608


async def delete(conn: Connection, workspace_id: WorkspaceId, model_id: LoggedModelId) -> bool | None:
    """Marks a model deleted: whether it was active. None when there is no such model."""
    was: int | None = await conn.fetchval(_DELETE, workspace_id, model_id)
    return None if was is None else was == Lifecycle.ACTIVE


_PUT_TAGS = """
INSERT INTO logged_model_tags AS old (model_id, workspace_id, experiment_id, key, value)
SELECT m.id, m.workspace_id, m.experiment_id, t.key, t.value
  FROM logged_models m, unnest($2::text[], $3::text[]) AS t (key, value) WHERE m.id = $1
ON CONFLICT (model_id, key) DO UPDATE SET value = excluded.value WHERE old.value <> excluded.value
"""
_DROP_TAG = "DELETE FROM logged_model_tags WHERE model_id = $1 AND key = $2 RETURNING key"


async def put_tags(conn: Connection, model_id: LoggedModelId, tags: Mapping[str, str]) -> None:
    """Sets tags of a locked model, replacing those of the same key."""
    await conn.execute(_PUT_TAGS, model_id, list(tags), list(tags.values()))


async def drop_tag(conn: Connection, model_id: LoggedModelId, key: str) -> bool:
    """Removes a tag of a locked model. False when there is none."""
    return await conn.fetchval(_DROP_TAG, model_id, key) is not None


# The first value of a param stays.
_ADD_PARAMS = """
INSERT INTO logged_model_params (model_id, workspace_id, experiment_id, key, value)
SELECT m.id, m.workspace_id, m.experiment_id, p.key, p.value
  FROM logged_models m, unnest($2::text[], $3::text[]) AS p (key, value) WHERE m.id = $1
ON CONFLICT DO NOTHING
"""
_PARAMS = "SELECT key, value FROM logged_model_params WHERE model_id = $1 AND key = ANY($2)"


async def add_params(conn: Connection, model_id: LoggedModelId, params: Mapping[str, str]) -> dict[str, str]:
    """Records the params that a locked model does not have; what is recorded now under all these keys."""
    keys = list(params)
    await conn.execute(_ADD_PARAMS, model_id, keys, list(params.values()))
    return {row[0]: row[1] for row in await conn.fetch(_PARAMS, model_id, keys)}


# A point that is there already, whole, is one that is sent again. (In PostgreSQL NaN equals NaN.)
_ADD_METRICS = """
INSERT INTO logged_model_metrics
       (model_id, workspace_id, experiment_id, run_id, key, value, time_ms, step, dataset_name, dataset_digest)
SELECT m.id, m.workspace_id, m.experiment_id, $2, p.*
  FROM logged_models m,
       unnest($3::text[], $4::float8[], $5::bigint[], $6::bigint[], $7::text[], $8::text[]) AS p
 WHERE m.id = $1
ON CONFLICT DO NOTHING
"""


async def add_metrics(conn: Connection, model_id: LoggedModelId, run_id: RunId, points: Sequence[ModelPoint]) -> None:
    """Records points of a locked model's metrics, but for those that are recorded."""
    _, keys, values, times_ms, steps, names, digests = zip(*points, strict=True)
    await conn.execute(_ADD_METRICS, model_id, run_id, keys, values, times_ms, steps, names, digests)
