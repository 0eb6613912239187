"""Whether a PostgreSQL server and our user there are fit for Penstock: the facts, for `penstock-server doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.postgres import database

_FACTS = """
SELECT current_setting('server_version') AS version,
       current_setting('fsync')::bool AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('max_connections')::int AS max_connections,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool AS read_only,
       current_user::text AS username,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
       ARRAY(SELECT c.relname::text FROM pg_class c
              WHERE c.relnamespace = to_regnamespace(current_schema()) AND c.relkind IN ('r', 'p')
                AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                     AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
              ORDER BY c.relname) AS forbidden
"""


@dataclass(frozen=True, slots=True)
class Fitness:
    """What is known of a server and of our user there. `forbidden` are the tables it may not read and change."""

    version: str
    fsync: bool
    synchronous_commit: str
    max_connections: int
    read_only: bool
    username: str
    may_create: bool
    forbidden: list[str]


async def examine(dsn: str) -> Fitness:
    """The facts. Raises Unavailable, and FailedPrecondition where Penstock cannot work."""
    conn = await database.connect(dsn)
    try:
        with database.translated():
            return Fitness(**await conn.fetchrow(_FACTS))
    finally:
        await conn.close(timeout=5)
