"""Workspaces: what names and searches are scoped by."""

from __future__ import annotations

from penstock_server.model.access import WorkspaceId
from penstock_server.postgres.database import Connection

_WORKSPACE = "SELECT id FROM workspaces WHERE name = $1"


async def workspace_named(conn: Connection, name: str) -> WorkspaceId | None:
    """The workspace of that name, None when there is none."""
    found: int | None = await conn.fetchval(_WORKSPACE, name)
    return None if found is None else WorkspaceId(found)
