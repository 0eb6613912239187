"""Tells the other replicas which runs have new points, a few times a second and after their commit."""

from __future__ import annotations

import asyncio

import structlog

from penstock_server.model.changes import RunRef
from penstock_server.model.errors import Retryable
from penstock_server.postgres.changes import notify_points
from penstock_server.postgres.database import Database

# NOTIFY serialises commits, so it stays out of the flushes and is gathered.
_GATHER = 0.1

log = structlog.get_logger(__name__)


class Announcer:
    """Gathers runs and announces them. One that is lost to a crash is announced with the run's next points."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._runs: set[RunRef] = set()
        self._some = asyncio.Event()

    def changed(self, run: RunRef) -> None:
        """The run has new points, committed."""
        self._runs.add(run)
        self._some.set()

    async def run(self) -> None:
        """Announces what is gathered, for ever."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_GATHER)
            try:
                await self.flush()
            except Retryable as error:
                log.debug("announcing failed and is tried again", error=str(error))
                await asyncio.sleep(1)

    async def flush(self) -> None:
        """Announces what is gathered now. Raises Unavailable, and then keeps it."""
        gathered, self._runs = self._runs, set()
        self._some.clear()
        if not gathered:
            return
        try:
            async with self._db.connection() as conn:
                await notify_points(conn, gathered)
        except Retryable:
            self._runs |= gathered
            self._some.set()
            raise
