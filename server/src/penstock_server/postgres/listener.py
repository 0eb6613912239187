"""Hears what any replica tells by NOTIFY, on a connection of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from penstock_server.model.errors import Retryable
from penstock_server.postgres.database import Connection, Database, translated

# A connection that was cut without a word is noticed by this.
_HEARTBEAT_SECONDS = 15.0
_STATEMENT_SECONDS = 5.0
_PAUSE_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Listener:
    """Hears what any replica commits, on a connection of its own that it makes again whenever it is lost."""

    def __init__(self, db: Database, channel: str, heard: Callable[[str], None], connected: Callable[[], None]) -> None:
        """`heard` gets the payload of each notification.

        `connected` is called each time that listening has begun: what was committed before was not heard.
        """
        self._db = db
        self._channel = channel
        self._heard = heard
        self._connected = connected

    async def run(self) -> None:
        """Listens, until it is cancelled."""
        failing = False
        while True:
            try:
                await self._listen()
                failing = False
                log.info("the connection that listens for changes was lost; it is made again", channel=self._channel)
            except Retryable as error:
                if not failing:  # told once, however long it takes
                    problem = str(error.__cause__ or error)
                    log.warning("listening for changes failed and is tried again", channel=self._channel, error=problem)
                failing = True
            await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1))  # only so that replicas take turns

    async def _listen(self) -> None:
        """Listens until the connection is lost. Raises Unavailable."""
        conn = await self._db.connect(statement_seconds=_STATEMENT_SECONDS)
        try:
            with translated():
                lost = asyncio.Event()
                conn.add_termination_listener(lambda _: lost.set())
                await conn.add_listener(self._channel, self._receive)
                self._connected()
                await _until_lost(conn, lost)
        finally:
            conn.terminate()

    def _receive(self, _conn: object, _pid: int, _channel: str, payload: str) -> None:
        self._heard(payload)


async def _until_lost(conn: Connection, lost: asyncio.Event) -> None:
    while True:
        try:
            async with asyncio.timeout(_HEARTBEAT_SECONDS):
                await lost.wait()
                return
        except TimeoutError:
            await conn.execute("SELECT")
