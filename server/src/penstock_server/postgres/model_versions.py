"""Versions of registered models in PostgreSQL, and the stages and aliases that say which is which.

Every function works in the caller's transaction. Those that change something need the model's lock (registry.lock),
and return what has happened for registry_events.add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg

from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.errors import AliasMoved, NotFound, Unavailable
from penstock_server.model.logged_models import format_model_id
from penstock_server.model.registry import (
    EventKind,
    Happening,
    ModelId,
    ModelRef,
    ModelVersion,
    NewVersion,
    Ref,
    Stage,
    VersionStatus,
    check_all_aliases,
)
from penstock_server.model.runs import RunId, format_run_id
from penstock_server.postgres import promotions, registry_events
from penstock_server.postgres.clock import NOW_MS
from penstock_server.postgres.database import Connection, Row

_NUMBER = "UPDATE registered_models SET last_version = last_version + 1 WHERE id = $1 RETURNING last_version"
_ADD = f"""
INSERT INTO model_versions (model_id, workspace_id, version, run_id, path, source, status, description, created_by,
                            created_ms, updated_ms, request_id, given_source, logged_model_id, run_link)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, t.ms, t.ms, $10, nullif(nullif($11, $6), ''), $12, $13
  FROM (SELECT {NOW_MS} AS ms) t
RETURNING id
"""  # noqa: S608  # only constants are put together


async def add(conn: Connection, caller: Caller, model: ModelRef, new: NewVersion) -> tuple[int, list[Happening]]:
    """Makes the next version of a locked model, without its tags: its number.

    Raises Unavailable when the same request has just made one of another model, after which the transaction is over.
    """
    version: int = await conn.fetchval(_NUMBER, model.model_id)
    try:
        await conn.execute(
            _ADD,
            model.model_id,
            model.workspace_id,
            version,
            new.run_id,
            new.path,
            new.source,
            new.status,
            new.description,
            caller.user,
            new.request_id or None,
            new.given_source,
            new.logged_model_id,
            new.run_link,
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "model_versions_request":
            raise
        raise Unavailable("this request is being answered already; nothing was changed", 0.1) from error
    after = {
        "source": new.source,
        "run_id": format_run_id(new.run_id) if new.run_id else "",
        "path": new.path,
        "status": new.status.label,
        "description": new.description,
    }
    if new.given_source not in ("", new.source):
        after["given_source"] = new.given_source
    if new.logged_model_id is not None:
        after["logged_model_id"] = format_model_id(new.logged_model_id)
    return version, [Happening(EventKind.VERSION_CREATED, version, after=after)]


_REQUESTED = "SELECT id FROM model_versions WHERE workspace_id = $1 AND request_id = $2"


async def requested(conn: Connection, workspace_id: WorkspaceId, request_id: str) -> int | None:
    """The id of the version that this request made, None when it made none."""
    found: int | None = await conn.fetchval(_REQUESTED, workspace_id, request_id)
    return found


# What `read` reads, of a version `v` of a model `m`.
FIELDS = """v.id, v.model_id, m.name, v.version, v.run_id, v.path, v.source, v.status, v.status_message, v.stage,
       v.description, v.created_by, v.created_ms, v.updated_ms, v.given_source, v.logged_model_id, v.run_link,
       ARRAY(SELECT t.key FROM model_version_tags t WHERE t.version_id = v.id ORDER BY t.key) AS tag_keys,
       ARRAY(SELECT t.value FROM model_version_tags t WHERE t.version_id = v.id ORDER BY t.key) AS tag_values,
       ARRAY(SELECT a.alias FROM model_aliases a WHERE a.version_id = v.id ORDER BY a.alias) AS aliases,
       CASE WHEN starts_with(v.source, 'models:/m-')
       THEN coalesce((SELECT CASE WHEN l.lifecycle <> 1 THEN 'its logged model is deleted' ELSE '' END
                        FROM logged_models l WHERE l.id = v.logged_model_id), 'its logged model was removed for good')
       WHEN v.run_id IS NULL OR NOT starts_with(v.source, 'runs:/') THEN ''
       ELSE coalesce((
            SELECT CASE WHEN r.lifecycle <> 1 THEN CASE WHEN r.removing THEN 'its run is being removed for good'
                                                        ELSE 'its run is deleted' END
                   WHEN v.status = 2 AND v.path <> '' AND NOT EXISTS (
                        SELECT FROM artifacts a WHERE a.owner_id = r.id AND a.path = v.path) AND NOT EXISTS (
                        SELECT FROM artifacts a
                         WHERE a.owner_id = r.id AND a.path >= v.path || '/' AND a.path < v.path || '0')
                    AND NOT EXISTS (
                        SELECT FROM experiments e WHERE e.id = r.experiment_id AND e.artifact_location <> '')
                   THEN 'its artifacts are deleted' ELSE '' END
              FROM runs r WHERE r.id = v.run_id), 'its run was removed for good') END AS source_problem"""
_SELECT = f"SELECT {FIELDS} FROM registered_models m JOIN model_versions v ON v.model_id = m.id"  # noqa: S608
_LOAD = f"""
SELECT {FIELDS}
  FROM unnest($2::bigint[]) WITH ORDINALITY AS wanted (id, position)
  JOIN model_versions v USING (id) JOIN registered_models m ON m.id = v.model_id
 WHERE v.workspace_id = $1 ORDER BY wanted.position
"""  # noqa: S608  # only constants are put together


async def load(conn: Connection, workspace_id: WorkspaceId, ids: Sequence[int]) -> list[ModelVersion]:
    """Versions by their own ids (not numbers), in this order, without those that do not exist."""
    return [read(row) for row in await conn.fetch(_LOAD, workspace_id, ids)]


_ONE = f"{_SELECT} WHERE m.id = $1 AND v.version = $2"


async def load_one(conn: Connection, model: ModelRef, version: int) -> ModelVersion:
    """A model's version by its number. Raises NotFound."""
    row = await conn.fetchrow(_ONE, model.model_id, version)
    if row is None:
        raise NotFound("model version", f"{model.name}/{version}")
    return read(row)


_NAMED = f"{_SELECT} WHERE m.workspace_id = $1 AND m.name = $2"
_BY_VERSION = f"{_NAMED} AND v.version = $3"
_BY_ALIAS = f"{_NAMED} AND v.id = (SELECT version_id FROM model_aliases WHERE model_id = m.id AND alias = $3)"  # noqa: S608
_BY_STAGE = f"{_NAMED} AND v.stage = $3 ORDER BY v.version DESC LIMIT 1"
_NEWEST = f"{_NAMED} ORDER BY v.version DESC LIMIT 1"


async def resolve(conn: Connection, workspace_id: WorkspaceId, ref: Ref) -> ModelVersion | None:
    """The version that is meant, in one statement; None when there is none, or no such model."""
    if ref.version is not None:
        row = await conn.fetchrow(_BY_VERSION, workspace_id, ref.name, ref.version)
    elif ref.alias is not None:
        row = await conn.fetchrow(_BY_ALIAS, workspace_id, ref.name, ref.alias)
    elif ref.stage is not None:
        row = await conn.fetchrow(_BY_STAGE, workspace_id, ref.name, ref.stage)
    else:
        row = await conn.fetchrow(_NEWEST, workspace_id, ref.name)
    return None if row is None else read(row)


# By the index of stages, however many versions a model has.
_LATEST = f"""
SELECT {FIELDS}
  FROM unnest($2::bigint[]) AS wanted (id) JOIN registered_models m USING (id)
 CROSS JOIN generate_series(1, 4) AS s (stage)
 CROSS JOIN LATERAL (SELECT * FROM model_versions
                      WHERE model_id = m.id AND stage = s.stage ORDER BY version DESC LIMIT 1) v
 WHERE m.workspace_id = $1 ORDER BY m.id, v.stage
"""  # noqa: S608  # only constants are put together


async def latest(conn: Connection, workspace_id: WorkspaceId, model_ids: Sequence[ModelId]) -> list[ModelVersion]:
    """The newest version in each stage of each of these models, sorted by model and stage."""
    return [read(row) for row in await conn.fetch(_LATEST, workspace_id, model_ids)]


_UPDATE = "UPDATE model_versions SET description = $2, status = $3, status_message = $4 WHERE id = $1"


async def update(
    conn: Connection, old: ModelVersion, description: str, status: VersionStatus, status_message: str
) -> list[Happening]:
    """Gives a version these instead of its own."""
    was = {"description": old.description, "status": old.status.label, "status_message": old.status_message}
    now = {"description": description, "status": status.label, "status_message": status_message}
    changed = [key for key, value in now.items() if was[key] != value]
    if not changed:
        return []
    await conn.execute(_UPDATE, old.id, description, status, status_message)
    before, after = ({key: texts[key] for key in changed} for texts in (was, now))
    return [Happening(EventKind.VERSION_UPDATED, old.version, "", before, after)]


_ALIASES_OF = """
SELECT a.alias, v.version, v.run_id FROM model_aliases a JOIN model_versions v ON v.id = a.version_id
 WHERE a.model_id = $1 AND ($2::integer IS NULL OR v.version = $2) ORDER BY a.alias
"""
_DELETE = """
DELETE FROM model_versions WHERE model_id = $1 AND ($2::integer IS NULL OR version = $2)
RETURNING version, source, run_id, path, stage
"""


async def delete(conn: Connection, model: ModelRef, version: int | None) -> list[Happening]:
    """Removes a version, or all (None), with tags and aliases; pending promotions become void. Raises NotFound."""
    happened = [
        Happening(EventKind.ALIAS_DELETED, row["version"], row["alias"], before=_at(row["version"], row["run_id"]))
        for row in await conn.fetch(_ALIASES_OF, model.model_id, version)
    ]
    await promotions.void(conn, model, version)
    deleted = await conn.fetch(_DELETE, model.model_id, version)
    if version is not None and not deleted:
        raise NotFound("model version", f"{model.name}/{version}")
    for row in sorted(deleted, key=lambda row: row["version"]):
        before = {
            "source": row["source"],
            "run_id": format_run_id(row["run_id"]) if row["run_id"] else "",
            "path": row["path"],
            "stage": Stage(row["stage"]).label,
        }
        happened.append(Happening(EventKind.VERSION_DELETED, row["version"], before=before))
    return happened


_PUT_TAGS = """
INSERT INTO model_version_tags (version_id, workspace_id, key, value)
SELECT $1, $2, t.key, t.value FROM unnest($3::text[], $4::text[]) AS t (key, value)
ON CONFLICT (version_id, key) DO UPDATE SET value = excluded.value
"""
_DROP_TAGS = "DELETE FROM model_version_tags WHERE version_id = $1 AND key = ANY($2)"


async def put_tags(
    conn: Connection, workspace_id: WorkspaceId, version: ModelVersion, tags: Mapping[str, str]
) -> list[Happening]:
    """Sets tags of a version, replacing those of the same key."""
    new = {key: value for key, value in tags.items() if version.tags.get(key) != value}
    if new:
        await conn.execute(_PUT_TAGS, version.id, workspace_id, list(new), list(new.values()))
    return tags_set(EventKind.VERSION_TAG_SET, version.version, version.tags, new)


async def drop_tags(conn: Connection, version: ModelVersion, keys: Sequence[str]) -> list[Happening]:
    """Removes tags of a version; none when one of them is not there. Raises NotFound."""
    happened = tags_dropped(EventKind.VERSION_TAG_DELETED, version.version, version.tags, keys)
    await conn.execute(_DROP_TAGS, version.id, keys)
    return happened


def tags_set(kind: EventKind, version: int, old: Mapping[str, str], new: Mapping[str, str]) -> list[Happening]:
    """What setting tags is in the history."""
    return [
        Happening(kind, version, key, {"value": old[key]} if key in old else {}, {"value": value})
        for key, value in new.items()
    ]


def tags_dropped(kind: EventKind, version: int, old: Mapping[str, str], keys: Sequence[str]) -> list[Happening]:
    """What removing tags is in the history. Raises NotFound."""
    for key in keys:
        if key not in old:
            raise NotFound("tag", key)
    return [Happening(kind, version, key, before={"value": old[key]}) for key in dict.fromkeys(keys)]


_HOLDER = """
SELECT v.version, v.run_id, a.moved_by, a.moved_ms
  FROM model_aliases a JOIN model_versions v ON v.id = a.version_id WHERE a.model_id = $1 AND a.alias = $2
"""
# With one more.
_ALIASES_THEN = """
SELECT count(*) + 1, coalesce(sum(octet_length(alias)), 0) + octet_length($2::text) FROM model_aliases
 WHERE model_id = $1
"""
_MOVE_ALIAS = f"""
INSERT INTO model_aliases (model_id, workspace_id, alias, version_id, moved_by, moved_ms)
SELECT $1, $2, $3, $4, $5, {NOW_MS}
ON CONFLICT (model_id, alias) DO UPDATE
   SET version_id = excluded.version_id, moved_by = excluded.moved_by, moved_ms = excluded.moved_ms
"""  # noqa: S608  # only constants are put together
_DROP_ALIAS = "DELETE FROM model_aliases WHERE model_id = $1 AND alias = $2"


async def move_alias(
    conn: Connection, caller: Caller, model: ModelRef, alias: str, version: ModelVersion, expected: int | None = None
) -> tuple[int, list[Happening]]:
    """Has an alias of a locked model name a version: the one that it named before (0: none), and the events.

    Raises AliasMoved when it is not where `expected` says (0: nowhere; None: whatever it names); InvalidArgument when
    the model has too many.
    """
    row = await _holder(conn, model, alias, expected)
    previous = row["version"] if row is not None else 0
    if previous == version.version:
        return previous, []
    if row is None:
        check_all_aliases(*await conn.fetchrow(_ALIASES_THEN, model.model_id, alias))
    await conn.execute(_MOVE_ALIAS, model.model_id, model.workspace_id, alias, version.id, caller.user)
    before = _at(row["version"], row["run_id"]) if row is not None else {}
    after = _at(version.version, version.run_id)
    return previous, [Happening(EventKind.ALIAS_SET, version.version, alias, before, after)]


async def drop_alias(
    conn: Connection, model: ModelRef, alias: str, expected: int | None = None
) -> tuple[int, list[Happening]]:
    """Has an alias of a locked model name nothing: the version that it named, and the events.

    Raises NotFound, and AliasMoved as `move_alias` does.
    """
    row = await _holder(conn, model, alias, expected)
    if row is None:
        raise NotFound("alias", f"{model.name}@{alias}")
    await conn.execute(_DROP_ALIAS, model.model_id, alias)
    before = _at(row["version"], row["run_id"])
    return row["version"], [Happening(EventKind.ALIAS_DELETED, row["version"], alias, before=before)]


async def named(conn: Connection, model: ModelRef, alias: str, expected: int | None = None) -> int:
    """The version that an alias of a locked model names (0: none). Raises AliasMoved as `move_alias` does."""
    row = await _holder(conn, model, alias, expected)
    return row["version"] if row is not None else 0


async def _holder(conn: Connection, model: ModelRef, alias: str, expected: int | None) -> Row | None:
    """The version that an alias names, and who had it do so. Raises AliasMoved."""
    row = await conn.fetchrow(_HOLDER, model.model_id, alias)
    version = row["version"] if row is not None else 0
    if expected in (None, version):
        return row
    if row is not None:
        raise AliasMoved(model.name, alias, version, expected or 0, row["moved_by"], row["moved_ms"])
    last = await registry_events.last_move(conn, model.model_id, alias)
    raise AliasMoved(model.name, alias, 0, expected or 0, last.by if last else "", last.at_ms if last else 0)


_MOVE_STAGE = "UPDATE model_versions SET stage = $2 WHERE id = $1"
_ARCHIVE = """
UPDATE model_versions SET stage = 4 WHERE model_id = $1 AND stage = $2 AND version <> $3 RETURNING version
"""


async def move_stage(
    conn: Connection,
    model: ModelRef,
    version: ModelVersion,
    stage: Stage,
    *,
    archive_others: bool = False,
    key: str = "",
) -> list[Happening]:
    """Brings a version of a locked model into a stage, and archives the others there if asked to: the events.

    `key` is that of the version's own event.
    """
    happened = []
    if archive_others and stage is not Stage.ARCHIVED:
        archived = sorted(row[0] for row in await conn.fetch(_ARCHIVE, model.model_id, stage, version.version))
        happened = [_staged(number, "archived", stage, Stage.ARCHIVED) for number in archived]
    if version.stage is not stage:
        await conn.execute(_MOVE_STAGE, version.id, stage)
        happened.append(_staged(version.version, key, version.stage, stage))
    return happened


def _staged(version: int, key: str, before: Stage, after: Stage) -> Happening:
    return Happening(EventKind.STAGE_CHANGED, version, key, {"stage": before.label}, {"stage": after.label})


def _at(version: int, run_id: RunId | None) -> dict[str, str]:
    """What an alias names, in the history."""
    return {"version": str(version), "run_id": format_run_id(run_id) if run_id else ""}


def read(row: Row) -> ModelVersion:
    """The version of a row with FIELDS."""
    return ModelVersion(
        id=row["id"],
        model_id=row["model_id"],
        name=row["name"],
        version=row["version"],
        run_id=row["run_id"],
        path=row["path"],
        source=row["source"],
        status=VersionStatus(row["status"]),
        status_message=row["status_message"],
        stage=Stage(row["stage"]),
        description=row["description"],
        created_by=row["created_by"],
        created_ms=row["created_ms"],
        updated_ms=row["updated_ms"],
        tags=dict(zip(row["tag_keys"], row["tag_values"], strict=True)),
        aliases=row["aliases"],
        source_problem=row["source_problem"],
        given_source=row["given_source"] or "",
        logged_model_id=row["logged_model_id"],
        run_link=row["run_link"],
    )
