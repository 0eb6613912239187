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


_FIELDS = "id, kind, name, version, key, before, after, made_by, at_ms, request_id, bytes"
_NEWEST = "SELECT coalesce(max(id), 0) FROM registry_events WHERE workspace_id = $1"


async def newest(conn: Connection, workspace_id: WorkspaceId) -> int:
    """The id of the workspace's last event; 0 when it has none. No event gets a lower one from here on."""
    found: int = await conn.fetchval(_NEWEST, workspace_id)
    return found


# What is read at once. An event of a tag may tell of 250 kB.
_PAGE_BYTES = 1 << 20
# Of what a statement finds, in its order, as many as there is room for, and the first anyhow; how many it has found.
_WITHIN = f"""
SELECT * FROM (
    SELECT e.*, count(*) OVER () AS found, sum(bytes) OVER (ORDER BY id {{order}}) - bytes AS before_it
      FROM ({{which}}) e) e
 WHERE before_it < {_PAGE_BYTES} ORDER BY id {{order}}
"""  # noqa: S608  # only constants are put together


def _page(rows: Sequence[Row], limit: int) -> tuple[list[Event], bool]:
    """The events, and whether there are more."""
    events = [_event(row) for row in rows[:limit]]
    return events, bool(rows) and rows[0]["found"] > len(events)


def _of_kinds(kinds: Collection[EventKind]) -> str:
    """The condition, as text: so that an index of some kinds is seen to have them."""
    return f"kind IN ({', '.join(str(kind.value) for kind in sorted(set(kinds)))})" if kinds else "true"


# The name is that at the time; a renaming has two.
_BETWEEN = f"""
SELECT {_FIELDS} FROM registry_events
 WHERE workspace_id = $1 AND id > $2 AND id <= $3 AND {{kinds}}
   AND ($4::text[] IS NULL OR name = ANY($4) OR kind = {EventKind.MODEL_RENAMED} AND after->>'name' = ANY($4))
   AND ($5::text[] IS NULL OR key = ANY($5))
 ORDER BY id LIMIT $6
"""  # noqa: S608  # only constants are put together


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
) -> tuple[list[Event], bool]:
    """The oldest of those with ids from behind `after` to `last`, with one of each of these (none: any).

    As many as are read at once, and whether there are more.
    """
    query = _WITHIN.format(order="ASC", which=_BETWEEN.format(kinds=_of_kinds(kinds)))
    rows = await conn.fetch(query, workspace_id, after, last, list(names) or None, list(keys) or None, limit + 1)
    return _page(rows, limit)


# All models that were ever called so; which of them is now.
_CALLED = f"""
SELECT e.model_id, EXISTS (SELECT FROM registered_models m WHERE m.id = e.model_id AND m.name = $2)
  FROM (SELECT DISTINCT model_id FROM registry_events
         WHERE workspace_id = $1 AND after->>'name' = $2
           AND kind IN ({EventKind.MODEL_CREATED}, {EventKind.MODEL_RENAMED})) e
"""  # noqa: S608  # only constants are put together
# The id goes up or down from the last page's end. $2 to $4 are the models and the name, where it is not all.
_SOME = f"""
SELECT {_FIELDS} FROM registry_events
 WHERE workspace_id = $1 AND {{of}} AND {{kinds}} AND {{version}} AND {{key}} AND id {{behind}} $7
 ORDER BY id {{order}} LIMIT $8
"""  # noqa: S608  # only constants are put together
_ANY = "coalesce($2::bigint[], $3::bigint[]) IS NULL AND $4 = ''"
_ITS = "model_id = m.id AND (m.id = ANY($3::bigint[]) OR name = $4)"
_OF_EACH = """
SELECT e.* FROM unnest($2::bigint[]) m (id) CROSS JOIN LATERAL ({some}) e ORDER BY e.id {order} LIMIT $8
"""


async def listed(
    conn: Connection,
    workspace_id: WorkspaceId,
    name: str,
    limit: int,
    *,
    version: int = 0,
    kinds: Collection[EventKind] = (),
    key: str = "",
    oldest_first: bool = False,
    behind: int | None = None,
) -> tuple[list[Event], bool]:
    """Events of the model of that name, and of others while they were called so ("": of all), behind an id.

    As many as are read at once, and whether there are more.
    """
    if behind is None:
        behind = 0 if oldest_first else INT64_MAX
    order, sign = ("ASC", ">") if oldest_first else ("DESC", "<")
    which = _SOME.format(
        of=_ITS if name else _ANY,
        kinds=_of_kinds(kinds),
        version="version = $5" if version else "$5 = 0",
        key="key = $6" if key else "$6 = ''",
        behind=sign,
        order=order,
    )
    ever: list[int] | None = None
    now: list[int] | None = None
    if name:
        called = await conn.fetch(_CALLED, workspace_id, name)
        ever, now = [row[0] for row in called], [row[0] for row in called if row[1]]
        which = _OF_EACH.format(some=which, order=order)
    rows = await conn.fetch(
        _WITHIN.format(which=which, order=order), workspace_id, ever, now, name, version, key, behind, limit + 1
    )
    return _page(rows, limit)


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
