"""A COPY ends when its connection does, also while it waits for room to write."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import asyncpg
import pytest

from penstock_server.postgres.copying import copy
from penstock_server.postgres.database import Database
from penstock_server.postgres.sqlstate import Verdict, verdict

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_ROW = b"\0\x01" + (60_000).to_bytes(4, "big") + b"x" * 60_000


async def rows(sent: list[int], count: int = 1_000) -> AsyncIterator[bytes]:
    yield _HEADER
    for _ in range(count):
        sent[0] += 1
        yield _ROW
    yield b"\xff\xff"


async def test_a_connection_that_ends_while_nothing_can_be_written(dsn: str) -> None:
    admin = await asyncpg.connect(dsn)
    conn = await asyncpg.connect(dsn)
    await conn.execute("CREATE TABLE copied (text text)")
    backend = conn.get_server_pid()
    sent = [0]
    os.kill(backend, signal.SIGSTOP)
    try:
        copying = asyncio.create_task(copy(conn, "copied", ("text",), rows(sent)))
        before = -1
        while sent[0] > before:  # until there is no room any more
            before = sent[0]
            await asyncio.sleep(0.2)
        assert not copying.done()
        await admin.execute("SELECT pg_terminate_backend($1)", backend)
    finally:
        os.kill(backend, signal.SIGCONT)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)) as raised:
        async with asyncio.timeout(30):
            await copying
    assert not isinstance(raised.value, TimeoutError)
    assert verdict(raised.value) is Verdict.RETRY
    assert conn.is_closed()
    await admin.close()


async def test_what_is_copied_is_there_and_nothing_is_left_behind(dsn: str, db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute("CREATE TABLE copied (text text)")
        await copy(conn, "copied", ("text",), rows([0], 3))
        assert await conn.fetchval("SELECT sum(length(text)) FROM copied") == 180_000
        with pytest.raises(asyncpg.UndefinedTableError):
            await copy(conn, "nowhere", ("text",), rows([0], 3))
        assert await conn.fetchval("SELECT 1") == 1
