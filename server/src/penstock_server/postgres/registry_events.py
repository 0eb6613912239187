"""The registry's history in PostgreSQL: events are added in the transaction of what they tell, and read in order."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.limits import INT64_MAX
from penstock_server.model.registry import Event, EventKind, Happening, ModelId
from penstock_server.postgres.clock import NOW_MS
from penstock_server.postgres.database import Connection, Row

CHANNEL = "penstock_registry"

# Held from the first event of a transaction to its end. So ids are in the order of commits in a workspace, and who has
# read up to one has missed none. The number is any, the same for ever.
_HOLD = "SELECT pg_advisory_xact_lock(736462731, $1)"

_ADD = f"""
WITH added AS (
    INSERT INTO registry_events (workspace_id, model_id, kind, name, version, key, before, after, made_by, at_ms,
                                 request_id)
    SELECT $1, $2, h.kind, $3, h.version, h.key, h.before::jsonb, h.after::jsonb, $4,
           {NOW_MS}, $5
      FROM unnest($6::smallint[], $7::integer[], $8::text[], $9::text[], $10::text[])
           WITH ORDINALITY AS h (kind, version, key, before, after, position)
     ORDER BY h.position
    RETURNING id)
SELECT pg_notify($11, $1::text || ' ' || max(id)::text) FROM added
"""  # noqa: S608  # only constants are put together

# Two replicas' clocks may differ; the time of the last change never goes back.
_TOUCH_MODEL = f"""
UPDATE registered_models
   SET updated_ms = greatest(updated_ms, {NOW_MS})
 WHERE id = $1
"""  # noqa: S608  # only constants are put together
_TOUCH_VERSIONS = f"""
UPDATE model_versions
   SET updated_ms = greatest(updated_ms, {NOW_MS})
 WHERE model_id = $1 AND version = ANY($2)
"""  # noqa: S608  # only constants are put together

_OF_MODEL = frozenset(
    {EventKind.MODEL_RENAMED, EventKind.MODEL_UPDATED, EventKind.MODEL_TAG_SET, EventKind.MODEL_TAG_DELETED}
)
_OF_VERSION = frozenset(
    {
        EventKind.VERSION_UPDATED,
        EventKind.VERSION_TAG_SET,
        EventKind.VERSION_TAG_DELETED,
        EventKind.STAGE_CHANGED,
        EventKind.ALIAS_SET,
        EventKind.ALIAS_DELETED,
    }
)
_OF_VERSIONS = _OF_VERSION | {EventKind.VERSION_CREATED, EventKind.VERSION_DELETED}


async def add(conn: Connection, caller: Caller, model_id: ModelId, name: str, happenings: Sequence[Happening]) -> None:
    """Writes what a transaction has done to a locked model, in this order, and tells of it at the commit.

    What has changed gets a new time of change. Lock all models that the transaction changes before the first call:
    from there on all other changes of the workspace's registry wait.
    """
    if not happenings:
        return
    if any(what.kind in _OF_MODEL | _OF_VERSIONS for what in happenings):
        await conn.execute(_TOUCH_MODEL, model_id)
    if versions := _touched(happenings):
        await conn.execute(_TOUCH_VERSIONS, model_id, versions)
    await conn.execute(_HOLD, caller.workspace_id)
    await conn.execute(
        _ADD,
        caller.workspace_id,
        model_id,
        name,
        caller.user,
        caller.request_id,
        [what.kind for what in happenings],
        [what.version for what in happenings],
        [what.key for what in happenings],
        [json.dumps(dict(what.before)) for what in happenings],
        [json.dumps(dict(what.after)) for what in happenings],
        CHANNEL,
    )


def _touched(happenings: Sequence[Happening]) -> list[int]:
    """The versions that have changed: those of the events, and whom an alias has left."""
    changes = [what for what in happenings if what.kind in _OF_VERSION]
    left = {int(what.before.get("version", 0)) for what in changes if what.kind is EventKind.ALIAS_SET}
    return sorted({what.version for what in changes} | left - {0})


_FIELDS = "id, kind, name, version, key, before, after, made_by, at_ms, request_id"
_NEWEST = "SELECT coalesce(max(id), 0) FROM registry_events WHERE workspace_id = $1"
_BETWEEN = f"""
SELECT {_FIELDS} FROM registry_events
 WHERE workspace_id = $1 AND id > $2 AND id <= $3
   AND ($4::text[] IS NULL OR name = ANY($4))
   AND ($5::smallint[] IS NULL OR kind = ANY($5))
   AND ($6::text[] IS NULL OR key = ANY($6))
 ORDER BY id LIMIT $7
"""  # noqa: S608  # only constants are put together


async def newest(conn: Connection, workspace_id: WorkspaceId) -> int:
    """The id of the workspace's last event; 0 when it has none. No event gets a lower one from here on."""
    found: int = await conn.fetchval(_NEWEST, workspace_id)
    return found


async def between(
    conn: Connection,
    workspace_id: WorkspaceId,
    after: int,
    last: int,
    limit: int,
    *,
    names: Collection[str] = (),
    kinds: Collection[EventKind] = (),
    keys: Collection[str] = (),
) -> list[Event]:
    """The oldest of those with ids from behind `after` to `last`, with one of each of these (none: any)."""
    rows = await conn.fetch(
        _BETWEEN, workspace_id, after, last, list(names) or None, list(kinds) or None, list(keys) or None, limit
    )
    return [_event(row) for row in rows]


# Of a model by its id, or of those that were called so; the id goes up or down from the last page's end.
_LIST = """
SELECT {fields} FROM registry_events
 WHERE workspace_id = $1 AND {of}
   AND ($3 = 0 OR version = $3)
   AND ($4::smallint[] IS NULL OR kind = ANY($4))
   AND ($5 = '' OR key = $5)
   AND id {behind} $6
 ORDER BY id {order} LIMIT $7
"""
_OF_ALL = "$2::text IS NULL"
_OF_THE_MODEL = "model_id = $2"
_OF_THE_NAME = "name = $2"


async def listed(
    conn: Connection,
    workspace_id: WorkspaceId,
    model: ModelId | str | None,
    limit: int,
    *,
    version: int = 0,
    kinds: Collection[EventKind] = (),
    key: str = "",
    oldest_first: bool = False,
    behind: int | None = None,
) -> list[Event]:
    """Events of a model, of all models that were called so (text), or of all (None), behind an id in that order."""
    if behind is None:
        behind = 0 if oldest_first else INT64_MAX
    of = _OF_ALL if model is None else _OF_THE_NAME if isinstance(model, str) else _OF_THE_MODEL
    query = _LIST.format(
        fields=_FIELDS, of=of, behind=">" if oldest_first else "<", order="ASC" if oldest_first else "DESC"
    )
    rows = await conn.fetch(query, workspace_id, model, version, list(kinds) or None, key, behind, limit)
    return [_event(row) for row in rows]


_LAST_MOVE = f"""
SELECT {_FIELDS} FROM registry_events
 WHERE model_id = $1 AND key = $2 AND kind IN ({EventKind.ALIAS_SET}, {EventKind.ALIAS_DELETED})
 ORDER BY id DESC LIMIT 1
"""  # noqa: S608  # only constants are put together


async def last_move(conn: Connection, model_id: ModelId, alias: str) -> Event | None:
    """The last event of an alias; None when it never named a version."""
    row = await conn.fetchrow(_LAST_MOVE, model_id, alias)
    return None if row is None else _event(row)


_KINDS = {kind.value: kind for kind in EventKind}


def _event(row: Row) -> Event:
    what = Happening(
        _KINDS.get(row["kind"], EventKind.UNSPECIFIED),
        row["version"],
        row["key"],
        json.loads(row["before"]),
        json.loads(row["after"]),
    )
    return Event(row["id"], row["name"], what, row["made_by"], row["at_ms"], row["request_id"])
