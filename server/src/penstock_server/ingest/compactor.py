"""Moves a run's points from level 0 to level 1: from frames as they came to sorted chunks of each metric.

Any replica may compact any run; an advisory lock per run keeps two from doing it at once. A run is due
when enough has gathered, when it has waited long enough, or when it has ended. What this process
commits it counts itself; a look at the table from time to time finds what others left behind.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import structlog

from penstock_server import telemetry
from penstock_server.ingest.compaction import compact
from penstock_server.ingest.parcels import Parcel
from penstock_server.model.errors import Retryable
from penstock_server.model.runs import RunId, format_run_id
from penstock_server.postgres import segments
from penstock_server.postgres.chunks import CHUNK_POINTS
from penstock_server.postgres.database import Database

_DUE_FRAMES = CHUNK_POINTS
_DUE_BYTES = 8 << 20
_DUE_SEGMENTS = 1000
_DUE_SECONDS = 600.0
_TICK = 0.25
_LOOK = 60.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Backlog:
    since: float
    segments: int = 0
    frames: int = 0
    bytes: int = 0
    ended: bool = False

    def due(self, now: float) -> bool:
        return (
            self.ended
            or self.frames >= _DUE_FRAMES
            or self.bytes >= _DUE_BYTES
            or self.segments >= _DUE_SEGMENTS
            or now - self.since >= _DUE_SECONDS
        )


class Compactor:
    """Compacts the runs that are due, one at a time, the fullest first."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._runs: dict[RunId, _Backlog] = {}
        self._wake = asyncio.Event()

    def grown(self, parcel: Parcel) -> None:
        """A batch of the run with points was committed."""
        backlog = self._runs.setdefault(parcel.run.run_id, _Backlog(time.monotonic()))
        backlog.segments += 1
        backlog.frames += sum(frames.count for frames in parcel.frames)
        backlog.bytes += 8 * parcel.points

    def run_ended(self, run_id: RunId) -> None:
        """The run logs no more."""
        self._runs.setdefault(run_id, _Backlog(time.monotonic())).ended = True
        self._wake.set()

    async def run(self) -> None:
        """Compacts what is due, for ever."""
        looked = 0.0
        while True:
            try:
                if time.monotonic() - looked >= _LOOK:
                    await self._look()
                    looked = time.monotonic()
                await self._compact_due()
            except Retryable as error:
                telemetry.compactions.labels("failed").inc()
                log.warning("compaction is put off", error=str(error))
                await asyncio.sleep(1)
            try:
                async with asyncio.timeout(_TICK):
                    await self._wake.wait()
                self._wake.clear()
            except TimeoutError:
                pass

    async def _look(self) -> None:
        """Learns of level 0 as it really is. What is noted meanwhile stays noted."""
        async with self._db.connection() as conn:
            found = await segments.backlog(conn)
        for row in found:
            known = self._runs.setdefault(row.run_id, _Backlog(time.monotonic()))
            known.segments = max(known.segments, row.segments)
            known.frames = max(known.frames, row.frames)
            known.bytes = max(known.bytes, row.bytes)
            known.ended |= row.ended
        there = {row.run_id for row in found}
        for run_id in [run_id for run_id, known in self._runs.items() if run_id not in there and not known.bytes]:
            del self._runs[run_id]

    async def _compact_due(self) -> None:
        while True:
            now = time.monotonic()
            due = [(backlog.bytes, run_id) for run_id, backlog in self._runs.items() if backlog.due(now)]
            if not due:
                return
            _, run_id = max(due)
            backlog = self._runs.pop(run_id)
            started = time.perf_counter()
            moved = await compact(self._db, run_id)
            if moved is None:
                continue  # another replica is at it
            telemetry.compactions.labels("done").inc()
            telemetry.compaction_seconds.observe(time.perf_counter() - started)
            telemetry.compaction_points.inc(moved.points)
            log.debug("compacted", run_id=format_run_id(run_id), points=moved.points, chunks=moved.chunks)
            if moved.more:
                again = self._runs.setdefault(run_id, _Backlog(now))
                again.ended |= backlog.ended
                again.bytes += max(0, backlog.bytes - 8 * moved.points)
                again.frames += max(0, backlog.frames - moved.frames)
