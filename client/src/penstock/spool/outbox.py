"""What the sender sees of a spool: what comes next, what is acknowledged, what is not."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from penstock.batches import Batch
from penstock.spool.reader import Reader
from penstock.spool.segments import Segment


class Source(Protocol):
    """A spool that is being written, or that is left."""

    segments: tuple[Segment, ...]
    live: bool
    count: int
    values: int
    wanted: bool
    since: float

    def rest(self, position: int) -> Batch | None:
        """Records after `position` that were there and cannot be read."""

    def acknowledged(self, acked: int) -> None:
        """The records to `acked` are committed; fewer than before where the server has forgotten some."""


class Outbox:
    """The records of `source`, to be sent in batches of about `batch_bytes`."""

    def __init__(self, source: Source, batch_bytes: int = 1 << 20, acked: int = 0) -> None:
        self.acked = acked
        self._source = source
        self._reader = Reader(lambda: source.segments, batch_bytes)
        self._taken = 0.0
        self._oldest: float | None = None  # when the first batch that is not acknowledged was read
        self._acked_values = 0
        self._lost: dict[int, int] = {}  # from which record on, how many
        # An old stream may still be looking for its next message when a new one begins.
        self._lock = threading.RLock()

    def due(self, after: int) -> float | None:
        """Since when (`time.monotonic()`) the next batch after record `after` waits; 0 when it is complete.

        None when there is none: then the next record wakes the sender.
        """
        source = self._source
        after = max(after, self.acked)
        if source.count <= after:
            source.wanted = True
            if source.count <= after:  # it may have come in before it could see that it is wanted
                return None
        if not source.live or self._reader.full:
            return 0.0
        return max(source.since, self._taken)

    def take(self, after: int) -> Batch | None:
        """The batch that begins with the record after `after`. None: it cannot be read yet. Raises OSError."""
        with self._lock:
            after = max(after, self.acked)
            if self._reader.position != after:
                self._reader.seek(after)
            batch = self._reader.read()
            self._taken = time.monotonic()
            batch = batch or self._source.rest(after)
            if batch is not None and batch.lost:
                self._lost[batch.first_seq] = batch.lost
            self._oldest = self._reader.since(self.acked)
            return batch

    def acknowledge(self, hwm: int) -> None:
        """The records to `hwm` are committed. A mark that was told before is nothing new."""
        with self._lock:
            acked = min(hwm, self.last_seq)
            if acked <= self.acked:
                return
            self.acked = acked
            self._acked_values = self._reader.values_to(acked)
            self._reader.forget(acked)
            self._oldest = self._reader.since(acked)
            self._source.acknowledged(acked)

    def go_back(self, hwm: int) -> None:
        """The server has forgotten what it acknowledged after `hwm`."""
        with self._lock:
            self.acked = hwm
            self._acked_values = self._reader.values_to(hwm)
            self._source.acknowledged(hwm)

    # For whoever asks.

    @property
    def live(self) -> bool:
        """Whether somebody still writes to it."""
        return self._source.live

    @property
    def last_seq(self) -> int:
        """The number of the last record. One may have been read before whoever wrote it could count it."""
        return max(self._source.count, self._reader.position)

    @property
    def lost(self) -> int:
        """How many records could not be sent, because nothing is left of them."""
        return sum(self._lost.values())

    @property
    def unacked(self) -> int:
        """How many records are not acknowledged."""
        return max(0, self._source.count - self.acked)

    @property
    def unacked_points(self) -> int:
        """How many values are in batches that are not wholly acknowledged, or come after them."""
        return max(0, self._source.values - self._acked_values) if self.unacked else 0

    @property
    def unacked_since(self) -> float | None:
        """`time.monotonic()` of about the oldest record that is not acknowledged."""
        if not self.unacked:
            return None
        return self._oldest or max(self._source.since, self._taken)
