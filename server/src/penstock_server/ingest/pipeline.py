"""A pipeline: a queue of parcels and the connection that commits them, everything that has gathered at a time.

Group commit is adaptive. An idle pipeline commits a lone parcel at once; a busy one finds more in
the queue each time it comes back, and waits a moment between flushes so that small batches of
many writers share one transaction. A run of which somebody else holds a row is put aside, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog

from penstock_server import telemetry
from penstock_server.ingest.aside import LEAST_PATIENCE, Aside
from penstock_server.ingest.commit import Outcome, OutcomeUnknown, Refused, commit
from penstock_server.ingest.parcels import Clash, Parcel
from penstock_server.ingest.precedence import Precedence
from penstock_server.model.errors import InvalidArgument, Unavailable
from penstock_server.model.runs import format_run_id
from penstock_server.model.streams import Reject
from penstock_server.postgres import sqlstate
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.sqlstate import Verdict

_FLUSH_BYTES = 24 << 20
_LINGER_MAX = 0.02
_BACKOFF_MAX = 2.0
# How long a flush waits for a row that another holds. A sound flush holds its own for some milliseconds.
_PATIENCE = 1.0

log = structlog.get_logger(__name__)


class Pipeline:
    """Commits parcels in the order in which they are put, until it is cancelled."""

    def __init__(
        self,
        db: Database,
        precedence: Precedence,
        done: Callable[[Parcel], None],
        committed: Callable[[Parcel], None],
        aside_bytes: int,
    ) -> None:
        """`done` is told of each parcel that has left, one way or the other; before it `committed`, of the durable.

        Of the runs that wait for somebody's rows it keeps `aside_bytes` at most.
        """
        self._db = db
        self._precedence = precedence
        self._done = done
        self._committed = committed
        self._queue: deque[Parcel] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._aside = Aside(aside_bytes)
        self._hopeful = asyncio.Event()
        self._conn: Connection | None = None
        self.failing_since: float | None = None

    def put(self, parcel: Parcel) -> None:
        """Queues a parcel. The caller has made room for it in the budget."""
        self._queue.append(parcel)
        self._idle.clear()
        self._arrived.set()

    def try_again(self) -> None:
        """If commits have failed, the next try is now."""
        self._hopeful.set()

    async def empty(self) -> None:
        """Waits until everything that was put is committed or has failed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Commits what is put, for ever."""
        flushed_many, took, flushed = False, 0.0, 0.0
        try:
            while True:
                if not self._queue:
                    self._arrived.clear()
                    if not self._aside:
                        self._idle.set()
                    await _set_within(self._arrived, self._aside.wait())
                    if flushed_many and time.perf_counter() - flushed < _LINGER_MAX:
                        # Others will follow: let them come along, but not for longer than it pays.
                        await asyncio.sleep(min(_LINGER_MAX, 4 * took))
                await self._flush_aside()
                started = time.perf_counter()
                taken = self._take(self._queue)
                await self._flush(taken, self._aside.patience)
                flushed = time.perf_counter()
                flushed_many, took = len(taken) > 1, flushed - started
        finally:
            if self._conn is not None:
                self._conn.terminate()

    def _take(self, queue: deque[Parcel]) -> list[Parcel]:
        """What goes into the next transaction. A unary batch with more than points goes alone: it may be refused."""
        taken: list[Parcel] = []
        size = 0
        while queue and (not taken or size + queue[0].size <= _FLUSH_BYTES):
            alone = queue[0].unary and (queue[0].updates or queue[0].request is not None)
            if alone and taken:
                break
            parcel = queue.popleft()
            if not self._still_wanted([parcel]):
                continue
            taken.append(parcel)
            size += parcel.size
            if alone:
                break
        return taken

    async def _flush_aside(self) -> None:
        """Tries one of the runs that were put aside, if it is time."""
        held = self._aside.take()
        if held is not None:
            await self._flush(self._take(held.parcels), held.patience)
            self._follow(held.parcels)

    async def _flush(self, taken: Sequence[Parcel], patience: float | None = None) -> None:
        """Commits the parcels, whatever it takes; with `patience`, waits no longer than that for a row."""
        backoff = 0.05
        while taken:
            started = time.perf_counter()
            try:
                if self._conn is None:
                    self._conn = await self._db.connect(lock_seconds=_PATIENCE)
                with self._precedence.flushing(sum(parcel.size for parcel in taken)):
                    outcome = await commit(self._conn, taken, patience)
            except Refused as refusal:
                self.failing_since = None
                await self._refuse(taken, refusal.error)
                return
            except OutcomeUnknown as unknown:
                # Those who sent it find out. Until they do there may be nothing to find it out with.
                self.failing_since = None
                await self._disconnect()
                log.warning(
                    "the connection broke during a commit; its streams will ask for their marks",
                    error=str(unknown.__cause__),
                )
                self._fail(
                    taken, Unavailable("the database broke off during the commit; whether it holds is not known", 1.0)
                )
                return
            except Exception as error:  # sqlstate.verdict raises it again when it is not PostgreSQL's
                verdict = sqlstate.verdict(error)
                telemetry.ingest_flushes.labels("held" if verdict is Verdict.HELD else "retried").inc()
                match verdict:
                    case Verdict.HELD:
                        self.failing_since = None
                        await self._put_aside(taken, patience)
                        return
                    case Verdict.RETRY:
                        await self._disconnect()
                        self._report_failing(error, taken)
                        self._hopeful.clear()
                        await _set_within(self._hopeful, backoff * random.uniform(0.5, 1))
                        backoff = min(_BACKOFF_MAX, 2 * backoff)
                        taken = self._still_wanted(taken)
                    case Verdict.REFUSE:
                        self.failing_since = None
                        await self._refuse(taken, InvalidArgument("batch", "PostgreSQL cannot store it"))
                        log.warning("a batch was refused by PostgreSQL", error=str(error), parcels=len(taken))
                        return
                    case Verdict.FATAL:
                        raise
            else:
                self.failing_since = None
                telemetry.ingest_flushes.labels("committed").inc()
                telemetry.ingest_flush_seconds.observe(time.perf_counter() - started)
                telemetry.ingest_flush_bytes.observe(sum(parcel.size for parcel in taken))
                await self._tell(taken, outcome)
                return
        # Nobody waits any more, so nothing is known to fail: who is not ready is sent nothing to find out with.
        self.failing_since = None

    async def _put_aside(self, taken: Sequence[Parcel], patience: float | None) -> None:
        """Finds by halves the runs of which another holds a row; the others are committed."""
        run_ids = sorted({parcel.run.run_id for parcel in taken})
        if len(run_ids) > 1:
            first = set(run_ids[: len(run_ids) // 2])
            for half in (True, False):
                part = [parcel for parcel in taken if (parcel.run.run_id in first) is half]
                await self._flush(self._still_wanted(part), LEAST_PATIENCE)
            return
        if patience is None or patience <= LEAST_PATIENCE:
            log.warning("another holds a row of a run; its batches wait", run_id=format_run_id(run_ids[0]))
        self._give_up(self._aside.put(taken, patience or 0.0))

    def _follow(self, parcels: Iterable[Parcel]) -> None:
        self._give_up(self._aside.follow(parcels))

    def _give_up(self, parcels: Sequence[Parcel]) -> None:
        """What would take the room of everybody else is with those who sent it."""
        self._fail(parcels, Unavailable("another holds a row of the run, and no more of it is kept meanwhile", 1.0))

    async def _refuse(self, taken: Sequence[Parcel], error: Exception) -> None:
        """Finds the offender by halves; the others are committed without it."""
        if len(taken) > 1:
            middle = len(taken) // 2
            await self._flush(taken[:middle])
            await self._flush(self._still_wanted(taken[middle:]))
            return
        parcel = taken[0]
        if parcel.mark is None:
            telemetry.ingest_batches.labels("rejected").inc()
            self._fail(taken, error)
        elif parcel.frames or parcel.updates:
            # Without its contents the batch still moves the mark, and the writer is told that it is refused.
            reject = Reject(parcel.mark.lo + 1, parcel.mark.hi, error)
            await self._flush([replace(parcel, frames=(), updates=(), refused=[reject])])
        else:
            raise error

    def _still_wanted(self, taken: Sequence[Parcel]) -> list[Parcel]:
        """Without those whom nobody waits for any more, and those whose run is aside: they go there too."""
        wanted: list[Parcel] = []
        for parcel in taken:
            if parcel.origin.gone:
                self._done(parcel)
            elif parcel.run.run_id in self._aside:
                self._follow([parcel])
            else:
                wanted.append(parcel)
        return wanted

    async def _tell(self, taken: Sequence[Parcel], outcome: Outcome) -> None:
        clashes: dict[Parcel, list[Clash]] = {}
        for clash in outcome.clashes:
            clashes.setdefault(clash.parcel, []).append(clash)
        for parcel in taken:
            if parcel in outcome.lost:
                telemetry.ingest_batches.labels("lost_race").inc()
                lost = "another stream of this writer committed first, or its run was deleted; open the stream again"
                self._fail([parcel], Unavailable(lost, 0.1))
                continue
            telemetry.ingest_batches.labels("rejected" if parcel.refused else "committed").inc()
            telemetry.ingest_points.inc(parcel.points)
            if parcel.lost:
                telemetry.ingest_lost_records.inc(parcel.lost)
                log.warning("a writer has lost records", records=parcel.lost, run_id=format_run_id(parcel.run.run_id))
            self._committed(parcel)
            parcel.origin.committed(parcel, clashes.get(parcel, ()))
            self._done(parcel)

    def _fail(self, taken: Sequence[Parcel], error: Exception) -> None:
        for parcel in taken:
            parcel.origin.failed(parcel, error)
            self._done(parcel)

    async def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None

    def _report_failing(self, error: Exception, taken: Sequence[Parcel]) -> None:
        if self.failing_since is None:
            self.failing_since = time.monotonic()
            log.warning(
                "commits fail; accepted batches wait and are tried again",
                error=str(error),
                batches=len(taken),
                run_id=format_run_id(taken[0].run.run_id),
            )


async def _set_within(event: asyncio.Event, seconds: float | None) -> None:
    """Waits for the event, but not longer than that."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
