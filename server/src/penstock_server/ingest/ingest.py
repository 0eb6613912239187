"""What takes metrics in: streams and unary batches, through one bounded buffer, into the pipelines."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress

import structlog

from penstock_server import telemetry
from penstock_server.ingest.announcer import Announcer
from penstock_server.ingest.budget import Budget
from penstock_server.ingest.compactor import Compactor
from penstock_server.ingest.frames import Frames
from penstock_server.ingest.parcels import Clash, Parcel
from penstock_server.ingest.pipeline import Pipeline
from penstock_server.ingest.precedence import Precedence
from penstock_server.ingest.shapes import Shape, Shapes
from penstock_server.ingest.writer import Writer
from penstock_server.model.access import Caller
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import Busy, PenstockError, Retryable, Unavailable
from penstock_server.model.runs import RunId
from penstock_server.model.streams import GoAway, Hello, Update, WriterId
from penstock_server.postgres import changes, runs, writers
from penstock_server.postgres.database import Database

# While one commits, the next can be written; more would only make each other's flushes smaller.
_PIPELINES = 2
# What part of the buffer a pipeline keeps of runs that wait for somebody's rows. The rest is everybody else's.
_ASIDE = 1 / 4
# A unary batch that finds the buffer full or the database away waits this long before it is turned away.
_PATIENCE = 5.0
# How often it is looked whether those who write still may. In mid-stream a flush tells; this is for idle ones.
_LOOK_SECONDS = 2.0
# Open streams of one process: each takes some 60 KB, and a job has 10,000 ranks at most.
_STREAMS_LIMIT = 20_000
# From GoAway to the end of a stream whose writer does not leave by itself.
_GRACE = 2.0


log = structlog.get_logger(__name__)


class Ingest:
    """Everything between a door that brings points and PostgreSQL that keeps them."""

    def __init__(self, db: Database, budget_bytes: int) -> None:
        self.precedence = Precedence()
        self._db = db
        self._budget = Budget(budget_bytes)
        self._shapes = Shapes(db)
        self._compactor = Compactor(db)
        self._announcer = Announcer(db)
        aside = round(_ASIDE * budget_bytes)
        self._pipelines = [Pipeline(db, self.precedence, self._left, self._committed, aside) for _ in range(_PIPELINES)]
        self._writers: dict[WriterId, Writer] = {}
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._draining = False

    async def run(self) -> None:
        """Does the work, until it is cancelled. Whatever ends it is a reason to stop the process."""
        async with asyncio.TaskGroup() as group:
            for pipeline in self._pipelines:
                group.create_task(pipeline.run(), name="ingest-pipeline")
            group.create_task(self._compactor.run(), name="compactor")
            group.create_task(self._announcer.run(), name="announcer")
            group.create_task(self._end_outlived(), name="outlived-streams")

    @property
    def problem(self) -> str | None:
        """Why points are not being committed at the moment; None when all is well."""
        if self._draining:
            return "the server is stopping"
        since = [pipeline.failing_since for pipeline in self._pipelines if pipeline.failing_since is not None]
        return f"commits have been failing for {time.monotonic() - min(since):.0f} s" if since else None

    def database_answers(self) -> None:
        """The database was heard of: commits that wait to be tried again are tried at once."""
        for pipeline in self._pipelines:
            pipeline.try_again()

    async def drain(self, deadline: float) -> None:
        """Sends the writers away, then commits and acknowledges everything accepted, within `deadline` seconds."""
        started = time.monotonic()
        for writer in self._writers.values():
            writer.note(GoAway("the server is stopping"))
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_GRACE, deadline / 2)):
                await self._all_closed.wait()
        for writer in list(self._writers.values()):
            writer.stop_accepting()
        try:
            async with asyncio.timeout(max(0.0, deadline - (time.monotonic() - started))):
                for pipeline in self._pipelines:
                    await pipeline.empty()
            # Who watches on another replica is told if it can be; what was accepted is committed either way.
            with suppress(TimeoutError, Retryable):
                async with asyncio.timeout(_GRACE):
                    await self._announcer.flush()
        finally:
            for writer in list(self._writers.values()):
                writer.end(_stopping())

    def run_ended(self, run_id: RunId) -> None:
        """A run logs no more: its points are compacted at once."""
        self._compactor.run_ended(run_id)

    async def open(self, caller: Caller, run: RunRef, hello: Hello) -> Writer:
        """Opens a writer's stream at its committed mark. Raises Busy, Fenced, InvalidArgument, Unavailable."""
        if self._draining:
            raise _stopping()
        # A writer that comes back takes the place of its old stream.
        known = hello.writer_id in self._writers
        if not known:
            self._check_room()
        hwm = await self._mark(caller, run, hello)
        while (before := self._writers.get(hello.writer_id)) is not None:
            # The writer has come back before its old stream was settled: what that has under way is let finish,
            # what it has queued is dropped, and the mark is read after that.
            before.end(Unavailable("the writer opened another stream", 0.1))
            try:
                async with asyncio.timeout(_PATIENCE):
                    await before.settled()
            except TimeoutError:
                raise Unavailable("the writer's last batches wait for the database", 1.0) from None
            self.close(before)
            hwm = await self._mark(caller, run, hello)
        # From the last look to here nobody else had a turn.
        if self._draining:
            raise _stopping()
        if not known:
            self._check_room()
        pipeline = self._pipeline(run.run_id)
        writer = Writer(run, hello.writer_id, hello.epoch, hwm, self._shapes, self._budget, pipeline.put)
        self._writers[hello.writer_id] = writer
        self._count_streams()
        return writer

    def _check_room(self) -> None:
        if len(self._writers) >= _STREAMS_LIMIT:
            raise Busy(f"this server has {_STREAMS_LIMIT} streams open and takes no more at the moment", 5.0)

    async def _mark(self, caller: Caller, run: RunRef, hello: Hello) -> int:
        """The writer's mark, if it may log here: before that no other stream is touched."""
        # The writer's old stream may have a batch under way, on another replica.
        async with self._db.waiting() as conn:
            hwm = await writers.open_writer(conn, caller.workspace_id, caller.principal, hello)
            changed = await writers.count_refused(conn, hello.writer_id, hello.refused)
            if hello.resume:
                begun = hello.create_run.start_ms if hello.create_run is not None else 0
                now_ms = begun or time.time_ns() // 1_000_000
                changed |= await runs.resume(conn, run, hello.writer_id, now_ms)
            if changed:
                await changes.notify_run(conn, run)
            return hwm

    async def _end_outlived(self) -> None:
        """Ends, for ever, the streams whose run is deleted or whose writer another process has taken over."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            streams = {id_: writer for id_, writer in self._writers.items() if not writer.gone}
            if not streams:
                continue
            try:
                async with self._db.connection() as conn:
                    outlived = await writers.outlived(conn, {id_: each.epoch for id_, each in streams.items()})
            except Retryable as error:
                log.debug("looking for streams that are outlived failed and is tried again", error=str(error))
                continue
            for writer_id, reason in outlived.items():
                streams[writer_id].end(reason)

    def close(self, writer: Writer) -> None:
        """The stream is over: what it has queued is still committed, and until it is, the writer is known."""
        writer.closed = True
        self._forget(writer)

    def _forget(self, writer: Writer) -> None:
        if writer.closed and not writer.unsettled and self._writers.get(writer.writer_id) is writer:
            del self._writers[writer.writer_id]
            self._count_streams()

    async def shapes(self, run_id: RunId, groups: Sequence[tuple[str, ...]]) -> list[Shape]:
        """The shapes of these groups of names in this run. Raises InvalidArgument, NotFound."""
        return await self._shapes.resolve_all(run_id, groups)

    async def log(
        self,
        caller: Caller,
        run: RunRef,
        frames: Sequence[Frames],
        updates: Sequence[Update],
        request: uuid.UUID | None,
    ) -> None:
        """Commits a unary batch: all of it when this returns, nothing when it raises, unless the error says so."""
        if self._draining:
            raise _stopping()
        single = _Single()
        size = 256 + sum(part.values.nbytes + 20 * part.count for part in frames)
        size += sum(128 + len(update.key) + len(update.value) for update in updates)
        parcel = Parcel(
            run,
            single,
            size,
            None,
            frames,
            list(enumerate(updates)),
            unary=True,
            principal=caller.principal,
            request=request,
        )
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._budget.take(size)
        except TimeoutError:
            raise Busy("the server has no room for more at the moment", 1.0) from None
        self._pipeline(run.run_id).put(parcel)
        await single.wait(_PATIENCE)

    def _count_streams(self) -> None:
        telemetry.ingest_streams.set(len(self._writers))
        if self._writers:
            self._all_closed.clear()
        else:
            self._all_closed.set()

    def _pipeline(self, run_id: RunId) -> Pipeline:
        # By run: a writer's parcels stay in order, and no two flushes of this process touch one run's summaries.
        return self._pipelines[run_id.int % len(self._pipelines)]

    def _committed(self, parcel: Parcel) -> None:
        if parcel.frames:
            self._announcer.changed(parcel.run)
            self._compactor.grown(parcel)

    def _left(self, parcel: Parcel) -> None:
        self._budget.give(parcel.size)
        parcel.origin.settle(parcel)
        if isinstance(parcel.origin, Writer):
            self._forget(parcel.origin)


class _Single:
    """The origin of a unary batch: somebody who waits for it."""

    def __init__(self) -> None:
        self._result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._result.add_done_callback(asyncio.Future.exception)  # who waited may have left before it failed
        self.gone = False

    async def wait(self, patience: float) -> None:
        """Waits for the commit, not longer than `patience`. After that nobody tries it any more."""
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(self._result)
        except TimeoutError:
            self.gone = True
            raise Unavailable(
                "the database did not answer in time; whether it holds the batch is not known; "
                "with a request_id it can be repeated safely",
                1.0,
            ) from None

    def committed(self, parcel: Parcel, clashes: Sequence[Clash]) -> None:
        self._settle(None)  # a unary batch that clashes is refused as a whole, and not committed

    def failed(self, parcel: Parcel, error: Exception) -> None:
        self._settle(error)

    def settle(self, parcel: Parcel) -> None: ...

    def _settle(self, error: Exception | None) -> None:
        if self._result.done():
            return
        if error is None:
            self._result.set_result(None)
        else:
            self._result.set_exception(error)


def _stopping() -> PenstockError:
    return Unavailable("the server is stopping; another will answer", 0.5)
