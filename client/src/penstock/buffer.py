"""What has been logged and is not committed yet: the one place between `run.log` and the sender.

The thread that logs does one thing here, `deque.append`: it takes no lock, so no other thread, no fork
and no signal handler can catch it halfway. The sender's threads gather what has come in, in its order,
into numbered batches, and keep those until they are acknowledged. Whatever keeps these promises can
stand here; nothing else is shared between the two sides.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable

from penstock.batches import ENVELOPE_BYTES, FRAME_BYTES, VALUE_BYTES, Batch, Names, Update, names_bytes, update_bytes

# What a frame takes as Python objects, until it is gathered.
_LOOSE_BYTES = 256

# With more than these, those that are known are forgotten: names that change all the time are no cache.
_MANY_SHAPES = 10_000
_MANY_NAMES_BYTES = 16 << 20


class Shape:
    """The names of a frame's values, and their place in the table of the batch that is being filled."""

    __slots__ = ("batch", "index", "names", "weight")

    def __init__(self, names: Names) -> None:
        self.names = names
        self.weight = names_bytes(names)
        self.batch = 0  # the first_seq of that batch
        self.index = 0


class _Open:
    """The batch that is being filled."""

    __slots__ = ("first_seq", "names", "shapes", "since", "steps", "times_ms", "updates", "values", "weight")

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.names: list[Names] = []
        self.shapes = array("I")
        self.steps = array("q")
        self.times_ms = array("q")
        self.values = array("d")
        self.updates: list[Update] = []
        self.weight = ENVELOPE_BYTES
        self.since = 0.0

    @property
    def count(self) -> int:
        return len(self.shapes) or len(self.updates)


class Buffer:
    """Records of one writer, about `limit` bytes of them at most.

    `wake` is called, by the thread that logs, for the first record after `due` has said that there is none.
    """

    def __init__(self, limit: int, wake: Callable[[], None], batch_bytes: int = 1 << 20, first_step: int = 0) -> None:
        self.shapes: dict[Names, Shape] = {}  # those whose names are known to be good
        self._shapes_bytes = 0
        self.acked = 0
        self.next_step = first_step
        self._limit = limit
        self._wake = wake
        self._wanted = True
        self._closed = False
        self._loose: deque[tuple[Shape, array[float], int | None, int] | Update] = deque()
        self._loose_bytes = 0  # by several threads without a lock, so about; right again when all is gathered
        # The sender's side.
        self._batch_bytes = min(batch_bytes, max(limit // 4, 1))
        self._lock = threading.RLock()
        self._open = _Open(1)
        self._sealed: OrderedDict[int, Batch] = OrderedDict()
        self._sealed_bytes = 0
        self._kept_bytes = 0

    # The side of the threads that log.

    def append(self, shape: Shape, values: array[float], step: int | None, time_ms: int) -> bool:
        """Take a frame; step None is one more than the last. False: there is no room, or it is closed."""
        need = _LOOSE_BYTES + VALUE_BYTES * len(values)
        if self._closed or self._kept_bytes + self._loose_bytes + need > self._limit:
            return False
        self._loose_bytes += need
        self._loose.append((shape, values, step, time_ms))
        if self._wanted:
            self._wanted = False
            self._wake()
        return True

    def update(self, update: Update) -> bool:
        """Take a param or a tag. False: there is no room, or it is closed."""
        need = _LOOSE_BYTES + update_bytes(update)
        if self._closed or self._kept_bytes + self._loose_bytes + need > self._limit:
            return False
        self._loose_bytes += need
        self._loose.append(update)
        if self._wanted:
            self._wanted = False
            self._wake()
        return True

    def learn(self, names: Names) -> Shape:
        """The shape of `names`, which can be stored."""
        shape = Shape(names)
        if len(self.shapes) >= _MANY_SHAPES or self._shapes_bytes + shape.weight > _MANY_NAMES_BYTES:
            self.shapes = {}
            self._shapes_bytes = 0
        self._shapes_bytes += shape.weight
        return self.shapes.setdefault(names, shape)

    def call_again(self) -> None:
        """Call `wake` for the next record: the last call was in vain."""
        self._wanted = True

    def close(self) -> None:
        """Take no more records."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether no more records are taken."""
        return self._closed

    # The sender's side.

    def gather(self) -> int:
        """Put what has come in into the open batch. Returns the number of the last record."""
        with self._lock:
            loose = self._loose
            while loose:
                for _ in range(len(loose)):
                    record = loose.popleft()
                    if isinstance(record, Update):
                        self._place_update(record)
                    else:
                        self._place(*record)
                self._loose_bytes = 0
            self._kept_bytes = self._sealed_bytes + self._open.weight
            return self.last_seq

    def due(self, after: int) -> float | None:
        """Since when (`time.monotonic()`) the next batch after record `after` waits; 0 when it is complete.

        None when there is none: then the next record calls `wake`.
        """
        with self._lock:
            after = max(after, self.acked)
            if after >= self.gather():
                self._wanted = True
                if not self._loose:  # it may have come in before it could see that it is wanted
                    return None
                self._wanted = False
                self.gather()
            return self._open.since if after + 1 >= self._open.first_seq else 0.0

    def take(self, after: int) -> Batch:
        """The batch with the first record after `after`, which must be there. It stays until it is acknowledged."""
        with self._lock:
            first = max(after, self.acked) + 1
            if first >= self._open.first_seq:
                self._seal()
            if batch := self._sealed.get(first):
                return batch
            return next(batch for batch in self._sealed.values() if batch.last_seq >= first)

    def acknowledge(self, hwm: int) -> None:
        """Let go of the records to `hwm`: they are committed. A mark that was told before is nothing new."""
        with self._lock:
            self.acked = max(self.acked, min(hwm, self.last_seq))
            while self._sealed:
                first = next(iter(self._sealed))
                if self._sealed[first].last_seq > self.acked:
                    break
                self._sealed_bytes -= self._sealed.pop(first).weight
            self._kept_bytes = self._sealed_bytes + self._open.weight

    def begin_anew(self) -> int:
        """Make a batch of acknowledged and other records one of the others only. Returns the last acknowledged."""
        with self._lock:
            for batch in list(self._sealed.values()):
                if batch.first_seq <= self.acked:
                    del self._sealed[batch.first_seq]
                    rest = batch.since_record(self.acked + 1)
                    self._sealed[rest.first_seq] = rest
                    self._sealed.move_to_end(rest.first_seq, last=False)
                    self._sealed_bytes += rest.weight - batch.weight
            return self.acked

    # For whoever asks.

    @property
    def last_seq(self) -> int:
        """The number of the last record that is in a batch."""
        with self._lock:
            return self._open.first_seq + self._open.count - 1

    @property
    def unacked(self) -> int:
        """How many records are not acknowledged."""
        with self._lock:  # or else a record that is being put into a batch might be seen in neither place
            return self.last_seq + len(self._loose) - self.acked

    @property
    def unacked_points(self) -> int:
        """How many values are in batches that are not wholly acknowledged, or come after them."""
        with self._lock:
            loose = sum(0 if isinstance(record, Update) else len(record[1]) for record in list(self._loose))
            return loose + len(self._open.values) + sum(len(batch.values) for batch in self._sealed.values())

    @property
    def unacked_since(self) -> float | None:
        """`time.monotonic()` of the oldest record that is not acknowledged, once it is in a batch."""
        with self._lock:
            for batch in self._sealed.values():
                return batch.since
            return self._open.since if self._open.count else None

    def _place(self, shape: Shape, values: array[float], step: int | None, time_ms: int) -> None:
        need = FRAME_BYTES + VALUE_BYTES * len(values)
        batch = self._open
        if batch.updates or (batch.shapes and batch.weight + need + shape.weight > self._batch_bytes):
            self._seal()
            batch = self._open
        if shape.batch != batch.first_seq:
            shape.batch = batch.first_seq
            shape.index = len(batch.names)
            batch.names.append(shape.names)
            batch.weight += shape.weight
        if not batch.shapes:
            batch.since = time.monotonic()
        if step is None:
            step = self.next_step
        self.next_step = min(step + 1, 2**63 - 1)
        batch.shapes.append(shape.index)
        batch.steps.append(step)
        batch.times_ms.append(time_ms)
        batch.values.extend(values)
        batch.weight += need

    def _place_update(self, update: Update) -> None:
        need = update_bytes(update)
        if self._open.shapes or (self._open.updates and self._open.weight + need > self._batch_bytes):
            self._seal()
        if not self._open.updates:
            self._open.since = time.monotonic()
        self._open.updates.append(update)
        self._open.weight += need

    def _seal(self) -> None:
        done = self._open
        self._sealed[done.first_seq] = Batch(
            first_seq=done.first_seq,
            names=done.names,
            shapes=done.shapes,
            steps=done.steps,
            times_ms=done.times_ms,
            values=done.values,
            updates=done.updates,
            weight=done.weight,
            since=done.since,
        )
        self._sealed_bytes += done.weight
        self._open = _Open(done.first_seq + done.count)
