"""Binary COPY into a table, which ends when its connection does.

asyncpg waits for room in its socket's buffer under no timer, and the end of the connection does not end that wait:
whoever copies would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence

from asyncpg import exceptions

from penstock_server.postgres.database import STATEMENT_SECONDS, Connection

# PostgreSQL ends the statement before that, if it can be heard at all.
_SECONDS = STATEMENT_SECONDS + 5
_LEAVE_SECONDS = 5.0  # for a COPY that is broken off to end


async def copy(conn: Connection, table: str, columns: Sequence[str], rows: AsyncIterable[bytes]) -> None:
    """Copies rows, in PostgreSQL's binary form, into a table. Raises what PostgreSQL says, and that it is gone."""
    ended = asyncio.get_running_loop().create_future()

    def end(_: object) -> None:
        if not ended.done():
            ended.set_result(None)

    copying = asyncio.ensure_future(conn.copy_to_table(table, columns=columns, format="binary", source=rows))
    conn.add_termination_listener(end)
    try:
        await asyncio.wait((copying, ended), timeout=_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if copying.done():
            copying.result()
            return
        conn.terminate()
        raise exceptions.ConnectionDoesNotExistError("the connection ended in the middle of a COPY")
    finally:
        conn.remove_termination_listener(end)
        ended.cancel()
        if not copying.done():
            copying.cancel()
            await asyncio.wait((copying,), timeout=_LEAVE_SECONDS)
            if copying.done() and not copying.cancelled():
                copying.exception()  # why it was broken off has been raised already
