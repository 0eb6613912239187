"""One writer's open stream: its cursor, and what it is to be told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from penstock_server import telemetry
from penstock_server.ingest import frames
from penstock_server.ingest.budget import Budget
from penstock_server.ingest.frames import BadShape, Refusal
from penstock_server.ingest.parcels import Clash, Mark, Parcel
from penstock_server.ingest.shapes import Shape, Shapes
from penstock_server.model import runs
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import InvalidArgument, SequenceGap
from penstock_server.model.streams import Ack, Batch, Event, GoAway, Reject, Throttle, Update, WriterId

# What one writer may have unacknowledged, so that no stream fills the buffer alone.
WINDOW_BYTES = 8 << 20
# Names in the shapes of one stream, and what it can leave unread.
_NAMES_LIMIT = 1_000_000
_NOTES_LIMIT = 10_000
_THROTTLE = Throttle(retry_after_ms=1000)


class Writer:
    """The server's end of a writer's stream.

    `next` is the number of the record that comes next: the mark, plus what is queued, plus one. What is
    below is a duplicate and dropped; what is above is a gap and ends the stream.
    """

    def __init__(
        self,
        run: RunRef,
        writer_id: WriterId,
        epoch: int,
        hwm: int,
        shapes: Shapes,
        budget: Budget,
        queue: Callable[[Parcel], None],
    ) -> None:
        self.run = run
        self.writer_id = writer_id
        self.epoch = epoch
        self.hwm = hwm
        self.closed = False
        self.unsettled = 0  # how many batches are queued or under way
        self._next = hwm + 1
        self._known = shapes
        self._shapes: list[Shape | BadShape] = []
        self._names = 0
        self._budget = budget
        self._queue = queue
        self._unsettled_bytes = 0
        self._told_hwm = hwm
        self._notes: deque[Reject | Throttle | GoAway] = deque()
        self._error: Exception | None = None
        self._accepting = True
        self._waiting: list[asyncio.Future[None]] = []

    # From the door.

    async def put(self, batch: Batch) -> None:
        """Accepts a batch, waiting for room. Raises SequenceGap, and what ended the stream if something did."""
        await self._define(batch)
        if batch.count == 0:
            raise InvalidArgument("batch.count", "is 0; a batch has at least one record")
        if batch.last_seq < self._next:
            telemetry.ingest_batches.labels("duplicate").inc()
            return
        if batch.first_seq > self._next:
            raise SequenceGap(self._next, batch.first_seq)
        if batch.first_seq < self._next:
            batch = frames.without_first(batch, self._next - batch.first_seq, self._shapes)
        await self._make_room(batch.size)
        parcel = self._parcel(batch)
        self._next = batch.last_seq + 1
        self.unsettled += 1
        self._unsettled_bytes += parcel.size
        self._queue(parcel)

    async def settled(self) -> None:
        """Waits until nothing of this stream is queued or under way."""
        while self.unsettled:
            await self._wait()

    async def reached(self, seq: int) -> None:
        """Waits until the record `seq` is committed. Raises what ended the stream, SequenceGap when it never came."""
        if seq >= self._next:
            raise SequenceGap(self._next, seq + 1)
        while self.hwm < seq:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def events(self) -> AsyncIterator[Event]:
        """What the writer is to be told, as it happens; of acknowledgements the newest. Raises what ends the stream."""
        while True:
            while self._notes:
                yield self._notes.popleft()
                if len(self._notes) == _NOTES_LIMIT - 1:
                    self._wake()
            if self.hwm > self._told_hwm:
                self._told_hwm = self.hwm
                yield Ack(self.hwm)
                continue
            if self._error is not None and not self.unsettled:
                raise self._error
            await self._wait()

    def note(self, event: Throttle | GoAway) -> None:
        """Tells the writer something."""
        self._notes.append(event)
        self._wake()

    def stop_accepting(self) -> None:
        """Takes no more batches; what is accepted is still committed and acknowledged."""
        self._accepting = False

    def end(self, error: Exception) -> None:
        """Ends the stream: what is queued and not under way is dropped, and the door gets `error`."""
        self._error = self._error or error
        self._wake()

    # From ingest.

    @property
    def gone(self) -> bool:
        """Whether the stream has ended; what it has queued is then the next stream's to send."""
        return self._error is not None

    def committed(self, parcel: Parcel, clashes: Sequence[Clash]) -> None:
        """A batch is durable; of its updates those that clash are refused, each alone."""
        assert parcel.mark is not None
        self.hwm = parcel.mark.hi
        self._notes.extend(parcel.refused)
        for clash in clashes:
            seq = parcel.mark.lo + 1 + clash.position
            self._notes.append(Reject(seq, seq, clash.error))

    def failed(self, parcel: Parcel, error: Exception) -> None:  # the whole stream has failed
        """A batch is not durable, and none after it can be."""
        self.end(error)

    def settle(self, parcel: Parcel) -> None:
        """A batch has left the pipeline, one way or the other."""
        self.unsettled -= 1
        self._unsettled_bytes -= parcel.size
        self._wake()

    # Within.

    async def _define(self, batch: Batch) -> None:
        self._names += sum(map(len, batch.new_shapes))
        if self._names > _NAMES_LIMIT:
            raise InvalidArgument(
                "new_shapes", f"this stream has defined shapes of more than {_NAMES_LIMIT} names; open another"
            )
        self._shapes.extend([await self._resolve(names) for names in batch.new_shapes])

    async def _resolve(self, names: tuple[str, ...]) -> Shape | BadShape:
        try:
            return await self._known.resolve(self.run.run_id, names)
        except InvalidArgument as error:
            return BadShape(len(names), error)

    async def _make_room(self, size: int) -> None:
        while self._error is None and (
            not self._accepting
            or len(self._notes) >= _NOTES_LIMIT
            or (self.unsettled and self._unsettled_bytes + size > WINDOW_BYTES)
        ):
            await self._wait()
        if not self._budget.fits(size) and _THROTTLE not in self._notes:
            self.note(_THROTTLE)
        await self._budget.take(size)
        if self._error is not None:
            self._budget.give(size)
            raise self._error

    def _parcel(self, batch: Batch) -> Parcel:
        mark = Mark(self.writer_id, self.epoch, self._next - 1, batch.last_seq)
        updates: list[tuple[int, Update]] = []
        found: tuple[frames.Frames, ...] = ()
        refusals: list[Refusal] = []
        lost = 0
        try:
            if batch.lost:
                lost = _count_lost(batch)
            elif batch.updates:
                updates, refusals = _read_updates(batch)
            else:
                sound, refusals = frames.read(batch, self._shapes)
                found = () if sound is None else (sound,)
        except InvalidArgument as error:
            refusals = [Refusal(0, batch.count - 1, error)]
        first = batch.first_seq
        refused = [Reject(first + each.first, first + each.last, each.error) for each in refusals]
        return Parcel(self.run, self, batch.size, mark, frames=found, updates=updates, refused=refused, lost=lost)

    async def _wait(self) -> None:
        """Until anything of this stream changes."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        await change

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)


def _count_lost(batch: Batch) -> int:
    """How many records a batch says are lost. Raises InvalidArgument."""
    if batch.new_shapes or batch.shapes or batch.steps or batch.times_ms or batch.values or batch.updates:
        raise InvalidArgument("batch.lost", "but the batch has contents; send what is there as a batch of its own")
    return batch.count


def _read_updates(batch: Batch) -> tuple[list[tuple[int, Update]], list[Refusal]]:
    """The updates of a batch by position, and those that are refused. Raises InvalidArgument."""
    if batch.values or batch.steps:
        raise InvalidArgument("batch", "has frames and updates; send them as two batches")
    if len(batch.updates) != batch.count:
        raise InvalidArgument("count", f"is {batch.count} for {len(batch.updates)} updates; each is one record")
    good: list[tuple[int, Update]] = []
    refusals: list[Refusal] = []
    for position, update in enumerate(batch.updates):
        check = runs.check_params if update.is_param else runs.check_tags
        try:
            check({update.key: update.value})
        except InvalidArgument as error:
            refusals.append(Refusal(position, position, error))
        else:
            good.append((position, update))
    return good, refusals
