"""Answers searches of registered models and of their versions: one statement each.

Of these there are at most some hundred thousand, whose statistics the planner has, so that it is left to the planner
which index finds them. What is sorted by is a plain column wherever all have it: an index gives the order then.
"""

# ruff: noqa: S608 — statements are put together from constants; values are parameters.

from __future__ import annotations

from collections.abc import Sequence

from penstock_server.model.access import WorkspaceId
from penstock_server.model.registry import ModelId
from penstock_server.model.search_tree import Entity, Field, Order, Query, Type
from penstock_server.postgres.database import Connection
from penstock_server.postgres.search import fetch, token_after
from penstock_server.postgres.search_conditions import MODEL_VERSIONS, MODELS, Conditions, Noun, Parameters
from penstock_server.postgres.search_order import Column, columns, decode, entered_after

_BY_NAME = Order(Field(Entity.ATTRIBUTE, "name", Type.TEXT))
_LAST_CHANGED = Order(Field(Entity.ATTRIBUTE, "last_update_time", Type.TIME), descending=True)

_OF_MODELS = " JOIN registered_models m ON m.id = v.model_id AND m.workspace_id = v.workspace_id"


# What a page of entries may take in memory, about; what one takes at most decides how many surely fit.
_PAGE_BYTES = 8 << 20
_SURELY = {MODELS.table: 8, MODEL_VERSIONS.table: 32}
_TAGS_OF_VERSION = "SELECT sum(octet_length(t.value)) FROM model_version_tags t WHERE t.version_id = "
_SIZES = {
    MODEL_VERSIONS.table: f"({_TAGS_OF_VERSION} w.id)",
    MODELS.table: f"""coalesce((SELECT sum(octet_length(t.value)) FROM registered_model_tags t
                               WHERE t.model_id = w.id), 0)
       + coalesce((SELECT sum(octet_length(array_to_string(p.gates, ''))) FROM promotion_policies p
                    WHERE p.model_id = w.id), 0)
       + coalesce((SELECT sum(({_TAGS_OF_VERSION} v.id)) FROM generate_series(1, 4) s (stage)
                    CROSS JOIN LATERAL (SELECT id FROM model_versions
                                         WHERE model_id = w.id AND stage = s.stage ORDER BY version DESC LIMIT 1) v), 0)
    """,
}
_FITTING = """
SELECT count(*) FROM (
    SELECT sum(coalesce(size, 0)) OVER (ORDER BY position) - coalesce(size, 0) AS before_it
      FROM (SELECT w.position, {size} AS size FROM unnest($1::bigint[]) WITH ORDINALITY AS w (id, position)) s) s
 WHERE before_it < $2
"""


async def _how_many(conn: Connection, noun: Noun, ids: Sequence[int]) -> int:
    """How many of these, from the first on, can be loaded at once; one anyhow."""
    if len(ids) <= _SURELY[noun.table]:
        return len(ids)
    found: int = await conn.fetchval(_FITTING.format(size=_SIZES[noun.table]), ids, _PAGE_BYTES)
    return found


async def search_models(
    conn: Connection, workspace_id: WorkspaceId, query: Query, limit: int, page_token: str
) -> tuple[list[ModelId], str]:
    """The models that `query` selects, and the token of the next page.

    There are `limit` at most, fewer where they are long, and the token is "" after the last. Raises InvalidPageToken.
    """
    ids, token = await _search(conn, MODELS, workspace_id, query, _BY_NAME, limit, page_token)
    return [ModelId(each) for each in ids], token


async def search_versions(
    conn: Connection, workspace_id: WorkspaceId, query: Query, limit: int, page_token: str
) -> tuple[list[int], str]:
    """The ids of the versions that `query` selects, and the token of the next page.

    There are `limit` at most, fewer where they are long, and the token is "" after the last. Raises InvalidPageToken.
    """
    return await _search(conn, MODEL_VERSIONS, workspace_id, query, _LAST_CHANGED, limit, page_token)


async def _search(
    conn: Connection,
    noun: Noun,
    workspace_id: WorkspaceId,
    query: Query,
    order: Order,
    limit: int,
    page_token: str,
) -> tuple[list[int], str]:
    asked = (noun.table, workspace_id, repr(query))
    parameters = Parameters()
    workspace = parameters.add(workspace_id)
    conditions = Conditions(noun, parameters, scope=f" AND {{x}}.workspace_id = {workspace}")
    keys, joins = columns(query.order or (order,), conditions)
    sorted_by = [*keys, Column(f"{noun.row}.id", "int8", descending=True)]
    where = [f"{noun.row}.workspace_id = {workspace}"]
    if query.where is not None:
        where.append(conditions.sql(query.where))
    if page_token:
        key = decode(asked, sorted_by, page_token)
        where.append(entered_after(sorted_by, key, parameters))
    what = ", ".join([f"{noun.row}.id", *(column.sql for column in sorted_by)])
    which = " AND ".join(where)
    # Not joined where it is not asked for: a LIMIT does not reach the sort under a join.
    if noun is MODEL_VERSIONS and noun.attributes["name"] in what + which:
        joins = _OF_MODELS + joins
    rows = await fetch(
        conn,
        f"SELECT {what} FROM {noun.table} {noun.row}{joins} WHERE {which}"
        f" ORDER BY {', '.join(f'{column.sql} {column.direction}' for column in sorted_by)}"
        f" LIMIT {parameters.add(limit + 1)}",
        parameters,
    )
    limit = await _how_many(conn, noun, [row[0] for row in rows[:limit]])
    return [row[0] for row in rows[:limit]], token_after(asked, rows, limit)
