"""Of a model with a long history, the few events that are asked for are found by an index."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from penstock_server.model.access import WorkspaceId
from penstock_server.model.registry import EventKind, ModelId
from penstock_server.postgres import gates, registry_events
from penstock_server.postgres.database import Connection, Database

# Two models, each of which has had a tag set 30,000 times since anything else has happened.
FILL = """
INSERT INTO registry_events (workspace_id, model_id, kind, name, version, key, before, after, made_by, at_ms,
                             request_id)
SELECT 1, m, CASE WHEN i > 20 THEN 10 ELSE (ARRAY[1, 7, 13, 12])[1 + i % 4] END, 'model-' || m, 1,
       CASE WHEN i > 20 THEN 'heartbeat' WHEN i % 4 = 2 THEN 'champion' ELSE '' END,
       CASE WHEN i % 4 = 3 THEN '{"stage": "Staging"}' ELSE '{"value": "a"}' END::jsonb,
       CASE WHEN i % 4 = 0 THEN jsonb_build_object('name', 'model-' || m) ELSE '{"value": "b"}' END, 'ann', i, ''
  FROM generate_series(0, 30020) i, generate_series(1, 2) m;
VACUUM ANALYZE registry_events;
"""


async def blocks(conn: Connection, logged: list[Any]) -> int:
    """What the last statement reads."""
    answer = await conn.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {logged[-1].query}", *logged[-1].args)
    plan = json.loads(answer)[0]["Plan"]
    logged.clear()
    read: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return read


async def test_few_events_among_many_are_found_by_index(db: Database) -> None:
    async with db.connection() as conn:
        for statement in filter(str.strip, FILL.split(";")):
            await conn.execute(statement)
        await check(conn)


async def check(conn: Connection) -> None:
    logged: list[Any] = []
    one = ModelId(1)

    async def reads(asked: Any) -> int:
        with conn.query_logger(logged.append):
            assert await asked
            await asyncio.sleep(0)  # asyncpg logs a little later
        return await blocks(conn, logged)

    workspace = WorkspaceId(1)
    for of, kinds, key in (
        ("model-1", [EventKind.ALIAS_SET], ""),
        ("model-1", [], "champion"),
        ("model-1", [EventKind.STAGE_CHANGED, EventKind.VERSION_CREATED], ""),
    ):
        for oldest_first in (False, True):
            asked = registry_events.listed(conn, workspace, of, 100, kinds=kinds, key=key, oldest_first=oldest_first)
            assert await reads(asked) < 50, (of, kinds, key)
    assert await reads(registry_events.last_move(conn, one, "champion")) < 10
    assert await reads(conn.fetchval(gates._LAST_IN_STAGE, one, "Staging")) < 10
