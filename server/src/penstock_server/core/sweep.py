"""Removes from the artifacts' store what nobody needs: what was replaced or deleted, and what broken uploads left.

Any number of replicas may do so at once. A row of what is to be removed is taken, the store removes it, the row goes:
whoever falls in between leaves the row, and what is done twice does no harm.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import structlog

from penstock_server import telemetry
from penstock_server.blobs.store import Store
from penstock_server.core import mark
from penstock_server.model.errors import PenstockError, Retryable, Unavailable
from penstock_server.postgres import sweep
from penstock_server.postgres.database import Database
from penstock_server.postgres.sweep import Due

_LOOK_SECONDS = 60.0
_LOOK_STRAYS_SECONDS = 3600.0
_LONGEST_PAUSE = 600.0

_BATCH = 200
_SLICE = 20  # that the store is asked for at once: what takes long is noted so often
# Once a row is gone its key can be used again, and what a store was told and did not answer it may still do. So those
# rows stay taken until it has, and the store gets much less time than that.
_LEASE_MS = 900_000
_STORE_SECONDS = 120.0
_PUT_BACK_MS = 60_000  # what it refused, or was not told yet

# Younger uploads that no row names may be about to get theirs.
_STRAY_MS = 600_000

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
                await mark.place(self._db, self._store)
                if time.monotonic() - looked >= _LOOK_STRAYS_SECONDS:
                    await self._sweep_strays_if_possible()
                    looked = time.monotonic()
                await self.sweep()
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

    async def _sweep_strays_if_possible(self) -> None:
        # Apart from the others: there are few, and there are stores that do not tell of them.
        try:
            await self.sweep_strays()
        except PenstockError as error:
            log.warning("uploads that only the artifacts' store knows stay for now", error=str(error))

    async def sweep(self) -> int:
        """Removes all that is due; how many that were. Raises what the store raises, after what could be removed."""
        removed, trouble = 0, None
        while True:
            async with self._db.connection() as conn:
                due = await sweep.take(conn, self._resume_ms, _LEASE_MS, _BATCH)
            if not due:
                break
            gone, left, error = await self._remove(due)
            async with self._db.transaction() as conn:
                await sweep.forget(conn, [each.id for each in gone])
                await sweep.put_back(conn, [each.id for each in left], _PUT_BACK_MS)
            removed += len(gone)
            telemetry.artifact_removals.labels("known").inc(len(gone))
            trouble = trouble or error
            if isinstance(error, Retryable) or not gone:
                break
        if trouble is not None:
            raise trouble
        return removed

    async def _remove(self, due: Sequence[Due]) -> tuple[list[Due], list[Due], PenstockError | None]:
        """Those that the store has no more of; those that it keeps, refused or not asked for yet; and why.

        What it was told and did not answer is in neither: it may still come to that.
        """
        gone: list[Due] = []
        refused: list[Due] = []
        trouble: PenstockError | None = None
        waiting = deque(due[start : start + _SLICE] for start in range(0, len(due), _SLICE))
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await mark.check(self._db, self._store)
                while waiting:
                    asked = waiting.popleft()
                    error = await self._try(asked)
                    if error is None:
                        gone += asked
                    elif isinstance(error, Retryable):
                        trouble = error
                        break
                    elif len(asked) > 1:  # it refuses all, or one of them
                        waiting.extendleft([each] for each in reversed(asked))
                    else:
                        refused += asked
                        trouble = error
        except PenstockError as error:  # of the check: nothing is removed
            trouble = error
        except TimeoutError:
            if not gone:
                trouble = Unavailable("the artifacts' store takes too long to remove what is not needed", 1.0)
        return gone, refused + [each for asked in waiting for each in asked], trouble

    async def _try(self, due: Sequence[Due]) -> PenstockError | None:
        try:
            for each in due:
                if each.token is not None:
                    await self._store.abort(each.key, each.token)
            # Also of an upload: it may have been completed, and nobody was left to note that.
            await self._store.delete([each.key for each in due])
        except PenstockError as error:
            return error
        return None

    async def sweep_strays(self, shortest_ms: int = _STRAY_MS) -> int:
        """Removes old uploads that only the store knows; how many that were. Raises what the store raises.

        `shortest_ms`: younger ones stay in any case.
        """
        await mark.check(self._db, self._store)
        before_ms = time.time() * 1000 - max(self._resume_ms, shortest_ms)
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
