"""What the artifacts' store of this database is to be known by, in PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Mark:
    """`placed`: the store has it."""

    text: str
    placed: bool


_FIND = "SELECT mark, placed FROM artifact_store"


async def find(conn: Connection) -> Mark:
    """The one that there is."""
    return Mark(*await conn.fetchrow(_FIND))


_PLACED = "UPDATE artifact_store SET mark = $1, placed = true WHERE NOT placed"


async def placed(conn: Connection, text: str) -> None:
    """The store has this one."""
    await conn.execute(_PLACED, text)
