"""Points of a flush at which a server can be made to fail, and what then happens there.

A strike is told beforehand: at which point, what happens, and the how-manieth time the point is reached. It is written
down just before it happens, with whether any writer had something unacknowledged then.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
from asyncpg.transaction import Transaction

from penstock_server.ingest.ingest import Ingest
from penstock_server.postgres import segments
from penstock_server.rpc import streams

POINTS = ("before COPY", "after COPY", "before COMMIT", "after COMMIT", "after Ack")
# The process dies; or PostgreSQL's end of the connection does, and what it has just answered does not arrive.
KILL, CUT = "kill", "cut"
ACTIONS = (KILL, CUT)

_END_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Strike:
    """What happens at `point` when it is reached for the `hit`-th time since the strike before."""

    point: str
    action: str
    hit: int = 1


@dataclass(frozen=True, slots=True)
class Struck:
    """A strike that has happened. `unacknowledged`: a writer had sent what it had no Ack for."""

    point: str
    action: str
    unacknowledged: bool


def write(path: Path, strikes: Sequence[Strike]) -> None:
    """Into a file, for `read`."""
    path.write_text(json.dumps([asdict(strike) for strike in strikes]))


def read(path: Path) -> list[Strike]:
    """What `write` has written."""
    return [Strike(**fields) for fields in json.loads(path.read_text())]


def suffered(path: Path) -> list[Struck]:
    """What a server has written down."""
    return [Struck(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def install(strikes: Sequence[Strike], struck: Path) -> None:
    """Makes this process suffer the strikes, one after the other."""
    if strikes:
        _Failpoints(strikes, struck).install()


class _Failpoints:
    def __init__(self, strikes: Sequence[Strike], struck: Path) -> None:
        self._coming = list(strikes)
        self._hits = 0
        self._struck = struck
        self._ingest: Ingest | None = None
        self._connections: dict[int, Any] = {}  # PostgreSQL's process ids and our ends

    def install(self) -> None:
        """Wraps the product's functions."""
        self._wrap_ingest()
        self._wrap_copy()
        self._wrap_commit()
        self._wrap_acks()

    async def _reach(self, point: str, connection: Any = None) -> None:
        if connection is not None:
            self._connections[connection.get_server_pid()] = connection
        if not self._coming or self._coming[0].point != point or not self._unacknowledged():
            return  # a fault while nothing is under way can do no harm, and proves nothing
        self._hits += 1
        if self._hits < self._coming[0].hit:
            return
        strike = self._coming.pop(0)
        self._hits = 0
        told = Struck(strike.point, strike.action, self._unacknowledged())
        with self._struck.open("a") as file:
            file.write(json.dumps(asdict(told)) + "\n")
        if strike.action == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        await self._cut([connection] if connection is not None else list(self._connections.values()))
        if point.startswith("after CO"):
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    def _unacknowledged(self) -> bool:
        writers = self._ingest._writers.values() if self._ingest is not None else ()
        return any(writer._next - 1 > writer._told_hwm for writer in writers)

    async def _cut(self, connections: Sequence[Any]) -> None:
        """Ends PostgreSQL's processes as pg_terminate_backend does, and waits for their end."""
        for connection in connections:
            if connection.is_closed():
                continue
            pid = connection.get_server_pid()
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + _END_SECONDS
            while Path(f"/proc/{pid}").exists():
                assert time.monotonic() < deadline, f"process {pid} of PostgreSQL does not end"
                await asyncio.sleep(0.005)

    def _wrap_ingest(self) -> None:
        opened = Ingest.open

        async def open_(ingest: Ingest, *given: Any) -> Any:
            self._ingest = ingest
            return await opened(ingest, *given)

        Ingest.open = open_

    def _wrap_copy(self) -> None:
        append = segments.append

        async def append_(connection: Any, rows: Any) -> None:
            await self._reach("before COPY", connection)
            await append(connection, rows)
            await self._reach("after COPY", connection)

        segments.append = append_

    def _wrap_commit(self) -> None:
        commit = Transaction.commit  # called by a flush and by nothing else: other transactions are `with` blocks

        async def commit_(transaction: Transaction) -> None:
            await self._reach("before COMMIT", transaction._connection)
            await commit(transaction)
            await self._reach("after COMMIT", transaction._connection)

        Transaction.commit = commit_

    def _wrap_acks(self) -> None:
        converse = streams.converse

        async def converse_(stream: Any, messages: AsyncIterator[Any], send: Any, limit: int) -> None:
            async def send_(message: Any) -> None:
                await send(message)
                if message.HasField("ack"):
                    await self._reach("after Ack")

            await converse(stream, messages, send_, limit)

        streams.converse = converse_
