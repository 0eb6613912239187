"""The acknowledged stream: a writer comes, logs into its run, and says that it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import structlog

from penstock_server.core.runs import Runs
from penstock_server.ingest.ingest import Ingest
from penstock_server.ingest.writer import WINDOW_BYTES, Writer
from penstock_server.model.access import Caller
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.limits import INT64_MAX, check_text, check_time_ms
from penstock_server.model.runs import format_run_id
from penstock_server.model.streams import HOST_LIMIT, PROTOCOL, Batch, Event, Finish, FinishAck, Hello
from penstock_server.postgres import changes, runs, writers
from penstock_server.postgres.database import Database

log = structlog.get_logger(__name__)


class WriterStream:
    """A writer's open stream: the mark `hwm` from which it resends, and the `window_bytes` it may have on their way."""

    window_bytes = WINDOW_BYTES

    def __init__(self, db: Database, writer: Writer, ingest: Ingest) -> None:
        self._db = db
        self._writer = writer
        self._ingest = ingest
        self.hwm = writer.hwm

    async def put(self, batch: Batch) -> None:
        """Accepts a batch, waiting for room. Raises SequenceGap, InvalidArgument, or what ended the stream."""
        await self._writer.put(batch)

    def events(self) -> AsyncIterator[Event]:
        """What the writer is to be told, until the stream ends: then it raises why."""
        return self._writer.events()

    async def finish(self, finish: Finish) -> FinishAck:
        """Waits until everything is committed, then gives the run its status. Doing it again changes nothing.

        Raises Fenced, NotActive, SequenceGap, or what ended the stream.
        """
        if finish.end_ms is not None:
            check_time_ms("finish.end_time_ms", finish.end_ms)
        _check_refused("finish.refused", finish.refused)
        await self._writer.reached(finish.last_seq)
        run = self._writer.run
        async with self._db.waiting() as conn:
            # Not for one that was stopped for a while and taken over: it would end the run under the other's hands.
            await writers.hold(conn, self._writer.writer_id, self._writer.epoch)
            changed = await writers.count_refused(conn, self._writer.writer_id, finish.refused)
            status = finish.status
            if status is not None:
                await runs.lock_active(conn, run.workspace_id, run.run_id)
                if finish.end_ms is not None and await runs.went_on(conn, run, self._writer.writer_id, finish.end_ms):
                    # It comes late, out of the spool of a process that another has followed.
                    log.info(
                        "a late end is passed over: another writer has gone on with the run",
                        run_id=format_run_id(run.run_id),
                        status=status.name,
                    )
                    status = None
                else:
                    await runs.update(conn, run, None, status, finish.end_ms)
            if changed or status is not None:
                await changes.notify_run(conn, run)
        if status is not None and status.ended:
            self._ingest.run_ended(run.run_id)
        return FinishAck(self._writer.hwm)

    def close(self) -> None:
        """The connection is gone; what was accepted is still committed."""
        self._ingest.close(self._writer)


class Streams:
    """The use case of StreamMetrics."""

    def __init__(self, db: Database, ingest: Ingest, runs: Runs) -> None:
        self._db = db
        self._ingest = ingest
        self._runs = runs

    async def open(self, caller: Caller, hello: Hello) -> WriterStream:
        """Opens a writer's stream, making its run when Hello says how.

        Raises NotFound, NotActive, Fenced, InvalidArgument, Unavailable.
        """
        _check(hello)
        if hello.create_run is not None:
            await self._runs.create(caller, replace(hello.create_run, run_id=hello.run_id))
        async with self._db.connection() as conn:
            run = await runs.locate_active(conn, caller.workspace_id, hello.run_id)
        writer = await self._ingest.open(caller, run, hello)
        if writer.hwm < hello.last_acked:
            log.warning(
                "a writer's mark is behind what was acknowledged: was the database restored from a backup?",
                run_id=format_run_id(hello.run_id),
                writer_id=hello.writer_id.hex,
                mark=writer.hwm,
                acknowledged=hello.last_acked,
            )
        return WriterStream(self._db, writer, self._ingest)


def _check(hello: Hello) -> None:
    if hello.protocol != PROTOCOL:
        raise InvalidArgument(
            "hello.protocol", f"{hello.protocol} is not spoken here, only {PROTOCOL}; update the older side"
        )
    if hello.create_run is not None and hello.create_run.run_id not in (None, hello.run_id):
        raise InvalidArgument("hello.create_run.run_id", "is another run than hello.run_id")
    if not 0 < hello.epoch < 2**31:
        raise InvalidArgument("hello.epoch", f"{hello.epoch} is not within 1 to 2147483647")
    check_text("hello.attributes.host", hello.host, HOST_LIMIT)
    _check_refused("hello.refused", hello.refused)


def _check_refused(field: str, refused: int) -> None:
    if refused > INT64_MAX:
        raise InvalidArgument(field, f"{refused} is more than anybody can have refused")
