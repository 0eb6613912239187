"""Registered models in PostgreSQL. Every function works in the caller's transaction.

Lock order: model, experiment, the files of a run, run, and the workspace's history (registry_events.add) last. So
whoever waits for a model keeps nobody from a run; what is deleted by force is so after the models that stand on it are
locked (core/model_sources.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

import asyncpg

from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.errors import AlreadyExists, Guarded, NotFound
from penstock_server.model.registry import EventKind, Happening, ModelId, ModelRef, Policy, RegisteredModel
from penstock_server.postgres import model_versions
from penstock_server.postgres.clock import NOW_MS
from penstock_server.postgres.database import Connection

# A taken name or request id inserts nothing; while another inserts the same, this waits for how that ends.
_ADD = f"""
INSERT INTO registered_models (workspace_id, name, description, created_by, created_ms, updated_ms, request_id)
SELECT $1, $2, $3, $4, t.ms, t.ms, $5
  FROM (SELECT {NOW_MS} AS ms) t
ON CONFLICT DO NOTHING RETURNING id
"""  # noqa: S608  # only constants are put together


async def add(
    conn: Connection, caller: Caller, name: str, description: str = "", request_id: str = ""
) -> tuple[ModelRef, list[Happening]] | None:
    """Makes a model, which is locked then. None when its name or the request id is taken."""
    made = await conn.fetchval(_ADD, caller.workspace_id, name, description, caller.user, request_id or None)
    if made is None:
        return None
    created = Happening(EventKind.MODEL_CREATED, after={"name": name, "description": description})
    return ModelRef(caller.workspace_id, ModelId(made), name), [created]


_REQUESTED = "SELECT id FROM registered_models WHERE workspace_id = $1 AND request_id = $2"


async def requested(conn: Connection, workspace_id: WorkspaceId, request_id: str) -> ModelId | None:
    """The model that this request made, None when it made none."""
    found: int | None = await conn.fetchval(_REQUESTED, workspace_id, request_id)
    return None if found is None else ModelId(found)


_FIND = "SELECT id FROM registered_models WHERE workspace_id = $1 AND name = $2"
_LOCK = _FIND + " FOR NO KEY UPDATE"


async def find(conn: Connection, workspace_id: WorkspaceId, name: str) -> ModelRef | None:
    """The model of that name, which may change the next moment; None when there is none."""
    return await _found(conn, _FIND, workspace_id, name)


async def locate(conn: Connection, workspace_id: WorkspaceId, name: str) -> ModelRef:
    """The model of that name, which may change the next moment. Raises NotFound."""
    return _require(await find(conn, workspace_id, name), name)


async def lock(conn: Connection, workspace_id: WorkspaceId, name: str) -> ModelRef:
    """Keeps others from changing a model and all it has until the transaction ends. Raises NotFound."""
    return _require(await _found(conn, _LOCK, workspace_id, name), name)


async def _found(conn: Connection, sql: str, workspace_id: WorkspaceId, name: str) -> ModelRef | None:
    found: int | None = await conn.fetchval(sql, workspace_id, name)
    return None if found is None else ModelRef(workspace_id, ModelId(found), name)


_LOCK_NAMES = """
SELECT id, name FROM registered_models WHERE workspace_id = $1 AND name = ANY($2) ORDER BY name FOR NO KEY UPDATE
"""


async def lock_for_renaming(conn: Connection, workspace_id: WorkspaceId, name: str, new_name: str) -> ModelRef:
    """As `lock`, and whichever is called as it is to be, in an order that is the same for all. Raises NotFound."""
    rows = await conn.fetch(_LOCK_NAMES, workspace_id, [name, new_name])
    found = next((ModelRef(workspace_id, ModelId(row[0]), name) for row in rows if row[1] == name), None)
    return _require(found, name)


def _require(model: ModelRef | None, name: str) -> ModelRef:
    if model is None:
        raise NotFound("registered model", name)
    return model


_LOCK_ALL = """
SELECT id, name FROM registered_models WHERE workspace_id = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE
"""


async def lock_all(conn: Connection, workspace_id: WorkspaceId, ids: Sequence[ModelId]) -> list[ModelRef]:
    """Locks those of these models that are there still."""
    rows = await conn.fetch(_LOCK_ALL, workspace_id, ids)
    return [ModelRef(workspace_id, ModelId(row[0]), row[1]) for row in rows]


# The order of the ids; ids of other workspaces give nothing.
_LOAD = """
SELECT m.id, m.name, m.description, m.last_version, m.created_by, m.created_ms, m.updated_ms
  FROM unnest($2::bigint[]) WITH ORDINALITY AS wanted (id, position) JOIN registered_models m USING (id)
 WHERE m.workspace_id = $1 ORDER BY wanted.position
"""
_LOAD_TAGS = "SELECT model_id, key, value FROM registered_model_tags WHERE model_id = ANY($1) ORDER BY key"
_LOAD_ALIASES = """
SELECT a.model_id, a.alias, v.version FROM model_aliases a JOIN model_versions v ON v.id = a.version_id
 WHERE a.model_id = ANY($1) ORDER BY a.alias
"""
_LOAD_POLICIES = """
SELECT model_id, target, gates, approvals FROM promotion_policies WHERE model_id = ANY($1) ORDER BY target
"""


async def load(conn: Connection, workspace_id: WorkspaceId, ids: Sequence[ModelId]) -> list[RegisteredModel]:
    """These models with all there is of them, in this order, without those that do not exist."""
    rows = await conn.fetch(_LOAD, workspace_id, ids)
    models = {row["id"]: RegisteredModel(**dict(row)) for row in rows}
    found = list(models)
    for model_id, key, value in await conn.fetch(_LOAD_TAGS, found):
        models[model_id].tags[key] = value
    for model_id, alias, version in await conn.fetch(_LOAD_ALIASES, found):
        models[model_id].aliases[alias] = version
    for model_id, target, gates, approvals in await conn.fetch(_LOAD_POLICIES, found):
        models[model_id].policies.append(Policy(target, tuple(gates), approvals))
    for version in await model_versions.latest(conn, workspace_id, found):
        models[version.model_id].latest.append(version)
    return list(models.values())


# A row for each of its newest versions, and one where it has none. Clients of MLflow ask before each change.
_ONE = f"""
SELECT m.id AS m_id, m.description AS m_description, m.last_version, m.created_by AS m_created_by,
       m.created_ms AS m_created_ms, m.updated_ms AS m_updated_ms,
       ARRAY(SELECT t.key FROM registered_model_tags t WHERE t.model_id = m.id ORDER BY t.key) AS m_tag_keys,
       ARRAY(SELECT t.value FROM registered_model_tags t WHERE t.model_id = m.id ORDER BY t.key) AS m_tag_values,
       ARRAY(SELECT a.alias FROM model_aliases a WHERE a.model_id = m.id ORDER BY a.alias) AS m_aliases,
       ARRAY(SELECT w.version FROM model_aliases a JOIN model_versions w ON w.id = a.version_id
              WHERE a.model_id = m.id ORDER BY a.alias) AS m_aliased,
       ARRAY(SELECT p.target FROM promotion_policies p WHERE p.model_id = m.id ORDER BY p.target) AS m_targets,
       ARRAY(SELECT p.approvals FROM promotion_policies p WHERE p.model_id = m.id ORDER BY p.target) AS m_approvals,
       ARRAY(SELECT array_to_json(p.gates)::text FROM promotion_policies p
              WHERE p.model_id = m.id ORDER BY p.target) AS m_gates,
       {model_versions.FIELDS}
  FROM registered_models m
  LEFT JOIN LATERAL (
       SELECT l.* FROM generate_series(1, 4) AS s (stage)
        CROSS JOIN LATERAL (SELECT * FROM model_versions
                             WHERE model_id = m.id AND stage = s.stage ORDER BY version DESC LIMIT 1) l) v ON true
 WHERE m.workspace_id = $1 AND m.name = $2 ORDER BY v.stage
"""  # noqa: S608  # only constants are put together


async def load_one(conn: Connection, workspace_id: WorkspaceId, name: str) -> RegisteredModel:
    """The model of that name with all there is of it, in one statement. Raises NotFound."""
    rows = await conn.fetch(_ONE, workspace_id, name)
    if not rows:
        raise NotFound("registered model", name)
    row = rows[0]
    return RegisteredModel(
        id=row["m_id"],
        name=name,
        description=row["m_description"],
        last_version=row["last_version"],
        created_by=row["m_created_by"],
        created_ms=row["m_created_ms"],
        updated_ms=row["m_updated_ms"],
        tags=dict(zip(row["m_tag_keys"], row["m_tag_values"], strict=True)),
        aliases=dict(zip(row["m_aliases"], row["m_aliased"], strict=True)),
        latest=[model_versions.read(each) for each in rows if each["id"] is not None],
        policies=[
            Policy(target, tuple(json.loads(gates)), approvals)
            for target, gates, approvals in zip(row["m_targets"], row["m_gates"], row["m_approvals"], strict=True)
        ],
    )


_UPDATE = """
WITH old AS (SELECT name, description FROM registered_models WHERE id = $1)
UPDATE registered_models m SET name = coalesce($2, m.name), description = coalesce($3, m.description)
  FROM old WHERE m.id = $1 RETURNING old.name, old.description
"""
_NAME_TAKEN = "registered_models_workspace_id_name_key"


async def update(conn: Connection, model: ModelRef, new_name: str | None, description: str | None) -> list[Happening]:
    """Changes what is not None of a locked model. Raises AlreadyExists, after which the transaction is over."""
    try:
        row = await conn.fetchrow(_UPDATE, model.model_id, new_name, description)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != _NAME_TAKEN:
            raise
        raise AlreadyExists("registered model", new_name or "") from error
    happened = []
    # Before the renaming: both events have the old name, and who follows the names would not find it any more.
    if description not in (None, row["description"]):
        happened.append(
            Happening(
                EventKind.MODEL_UPDATED, 0, "", {"description": row["description"]}, {"description": description or ""}
            )
        )
    if new_name not in (None, row["name"]):
        happened.append(Happening(EventKind.MODEL_RENAMED, 0, "", {"name": row["name"]}, {"name": new_name or ""}))
    return happened


_DELETE = "DELETE FROM registered_models WHERE id = $1"


async def delete(conn: Connection, model: ModelRef) -> list[Happening]:
    """Removes a locked model with all it has."""
    happened = await model_versions.delete(conn, model, None)
    await conn.execute(_DELETE, model.model_id)
    return [*happened, Happening(EventKind.MODEL_DELETED, before={"name": model.name})]


_TAGS = "SELECT key, value FROM registered_model_tags WHERE model_id = $1 AND key = ANY($2)"
_PUT_TAGS = """
INSERT INTO registered_model_tags (model_id, workspace_id, key, value)
SELECT $1, $2, t.key, t.value FROM unnest($3::text[], $4::text[]) AS t (key, value)
ON CONFLICT (model_id, key) DO UPDATE SET value = excluded.value
"""
_DROP_TAGS = "DELETE FROM registered_model_tags WHERE model_id = $1 AND key = ANY($2)"


_TAGS_BESIDE = """
SELECT count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0) FROM registered_model_tags
 WHERE model_id = $1 AND key <> ALL($2)
"""


async def tags_beside(conn: Connection, model: ModelRef, keys: Collection[str]) -> tuple[int, int]:
    """How many tags a locked model has beside these, and their bytes."""
    count, size = await conn.fetchrow(_TAGS_BESIDE, model.model_id, list(keys))
    return count, size


async def put_tags(conn: Connection, model: ModelRef, tags: Mapping[str, str]) -> list[Happening]:
    """Sets tags of a locked model, replacing those of the same key."""
    old = dict(await conn.fetch(_TAGS, model.model_id, list(tags)))
    new = {key: value for key, value in tags.items() if old.get(key) != value}
    if new:
        await conn.execute(_PUT_TAGS, model.model_id, model.workspace_id, list(new), list(new.values()))
    return model_versions.tags_set(EventKind.MODEL_TAG_SET, 0, old, new)


async def drop_tags(conn: Connection, model: ModelRef, keys: Sequence[str]) -> list[Happening]:
    """Removes tags of a locked model; none when one of them is not there. Raises NotFound."""
    old = dict(await conn.fetch(_TAGS, model.model_id, keys))
    happened = model_versions.tags_dropped(EventKind.MODEL_TAG_DELETED, 0, old, keys)
    await conn.execute(_DROP_TAGS, model.model_id, keys)
    return happened


_GUARDED = "SELECT approvals FROM promotion_policies WHERE model_id = $1 AND target = $2"


async def check_unguarded(conn: Connection, model: ModelRef, target: str) -> None:
    """Raises Guarded when a policy guards an alias (@alias) or a stage (its label)."""
    approvals: int | None = await conn.fetchval(_GUARDED, model.model_id, target)
    if approvals is not None:
        raise Guarded(model.name, target, approvals)


_TARGETS = "SELECT target FROM promotion_policies WHERE model_id = $1 ORDER BY target"


async def guarded(conn: Connection, model: ModelRef) -> list[str]:
    """What policies guard of a model: aliases (@alias) and stages (their labels)."""
    return [row["target"] for row in await conn.fetch(_TARGETS, model.model_id)]
