"""Removes from the artifacts' store what nobody needs: what was replaced or deleted, and what broken uploads left.

Any number of replicas may do so at once. A row of what is to be removed is taken, the store removes it, the row goes:
whoever falls in between leaves the row, and what is done twice does no harm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from penstock_server import telemetry
from penstock_server.blobs.store import Store
from penstock_server.model.errors import PenstockError, Retryable, Unavailable
from penstock_server.postgres import sweep
from penstock_server.postgres.database import Database
from penstock_server.postgres.sweep import Due

_LOOK_SECONDS = 60.0
_LOOK_STRAYS_SECONDS = 3600.0
_LONGEST_PAUSE = 600.0

_BATCH = 200
# Once a row is gone its key can be used again, so nobody may go on removing then who took it long ago: the store gets
# much less time than the lease.
_LEASE_MS = 900_000
_STORE_SECONDS = 120.0
_PUT_BACK_MS = 60_000

log = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps at its start, every minute, and when it is told that there is something."""

    def __init__(self, db: Database, store: Store, resume_ms: int) -> None:
        """`resume_ms`: how long an upload that broke off is kept."""
        self._db = db
        self._store = store
        self._resume_ms = resume_ms
        self._wake = asyncio.Event()

    def nudge(self) -> None:
        """There is something to remove."""
        self._wake.set()

    async def run(self) -> None:
        """Sweeps, for ever. With the store or the database away it tries again, ever more seldom."""
        pause, looked = _LOOK_SECONDS, -_LOOK_STRAYS_SECONDS
        while True:
            self._wake.clear()
            try:
                await self.sweep()
                if time.monotonic() - looked >= _LOOK_STRAYS_SECONDS:
                    await self.sweep_strays()
                    looked = time.monotonic()
            except PenstockError as error:
                if pause == _LOOK_SECONDS:
                    log.warning("what is to be removed from the artifacts' store stays for now", error=str(error))
                pause = min(2 * pause, _LONGEST_PAUSE)
                await asyncio.sleep(pause)
                continue
            if pause != _LOOK_SECONDS:
                log.info("the artifacts' store is swept again")
                pause = _LOOK_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def sweep(self) -> int:
        """Removes all that is due; how many that were. Raises what the store raises, after what could be removed."""
        removed, trouble = 0, None
        while True:
            async with self._db.connection() as conn:
                due = await sweep.take(conn, self._resume_ms, _LEASE_MS, _BATCH)
            if not due:
                break
            gone, error = await self._remove(due)
            left = [each.id for each in due if each not in gone]
            async with self._db.transaction() as conn:
                await sweep.forget(conn, [each.id for each in gone])
                await sweep.put_back(conn, left, _PUT_BACK_MS)
            removed += len(gone)
            telemetry.artifact_removals.labels("known").inc(len(gone))
            trouble = trouble or error
            if isinstance(error, Retryable) or not gone:
                break
        if trouble is not None:
            raise trouble
        return removed

    async def _remove(self, due: Sequence[Due]) -> tuple[list[Due], PenstockError | None]:
        """Those that the store has no more of, and why it has the others."""
        gone: list[Due] = []
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                error = await self._try(due, gone)
                if error is not None and not isinstance(error, Retryable):  # it refuses all, or one of them
                    error = None
                    for each in due:
                        error = await self._try([each], gone) or error
                        if isinstance(error, Retryable):
                            break
        except TimeoutError:
            error = Unavailable("the artifacts' store takes too long to remove what is not needed", 1.0)
        return gone, error

    async def _try(self, due: Sequence[Due], gone: list[Due]) -> PenstockError | None:
        try:
            for each in due:
                if each.token is not None:
                    await self._store.abort(each.key, each.token)
            # Also of an upload: it may have been completed, and nobody was left to note that.
            await self._store.delete([each.key for each in due])
        except PenstockError as error:
            return error
        gone += due
        return None

    async def sweep_strays(self) -> int:
        """Removes old uploads that only the store knows; how many that were. Raises what the store raises."""
        before_ms = time.time() * 1000 - self._resume_ms
        old = [begun async for begun in self._store.begun() if begun.begun_ms < before_ms]
        if not old:
            return 0
        async with self._db.connection() as conn:
            known = await sweep.known(conn, {begun.token for begun in old})
        strays = [begun for begun in old if begun.token not in known]
        for stray in strays:
            await self._store.abort(stray.key, stray.token)
            telemetry.artifact_removals.labels("stray").inc()
        return len(strays)
