"""Access: which workspace a caller means."""

from __future__ import annotations

import pytest

from penstock_server.core.access import Access
from penstock_server.model.access import Caller, Need, Permission, Resource, WorkspaceId
from penstock_server.model.errors import NotFound
from penstock_server.postgres.database import Database

NEED = Need(Permission.WRITE, Resource.WORKSPACE)


async def test_a_caller_is_of_the_workspace_it_names(db: Database) -> None:
    access = Access(db)
    assert await access.authorise("ada", "default", NEED) == Caller("ada", WorkspaceId(1))
    for unknown in ("other", "", "a\0b", "x" * 1000):
        with pytest.raises(NotFound, match="workspace"):
            await access.authorise("ada", unknown, NEED)
    async with db.connection() as conn:
        await conn.execute("INSERT INTO workspaces (name) VALUES ('other')")
    assert await access.authorise("ada", "other", NEED) == Caller("ada", WorkspaceId(2))


async def test_a_known_workspace_needs_no_database(db: Database) -> None:
    access = Access(db)
    await access.authorise("ada", "default", NEED)
    await db.close()
    assert await access.authorise("bob", "default", NEED) == Caller("bob", WorkspaceId(1))
