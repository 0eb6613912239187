"""Batches: consecutive records of one writer, as columns, and their bytes on the wire.

Records that were lost are a batch, too, of which there is but their number.

A batch knows its shapes by a table of its own. A stream numbers shapes as it meets them, so the same
batch can be sent on any stream, and again on the next.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from penstock.columns import by_bytes
from penstock.v1 import metrics_pb2

# A frame costs its shape's number, step and time, then 8 bytes a value; an update its texts and their framing.
FRAME_BYTES = 20
VALUE_BYTES = 8
UPDATE_BYTES = 16
ENVELOPE_BYTES = 64

_Request: Any = by_bytes(metrics_pb2.StreamMetricsRequest)

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Update:
    """One param or tag."""

    is_param: bool
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames, updates or `lost` records, numbered from `first_seq` on. `weight` is at least its bytes on the wire."""

    first_seq: int
    names: list[Names]
    shapes: array[int]  # uint32 per frame: which of `names`
    steps: array[int]
    times_ms: array[int]
    values: array[float]
    updates: list[Update]
    weight: int
    lost: int = 0

    @classmethod
    def of_lost(cls, first_seq: int, count: int) -> Batch:
        """Records of which nothing is left."""
        return cls(first_seq, [], array("I"), array("q"), array("q"), array("d"), [], ENVELOPE_BYTES, count)

    @property
    def count(self) -> int:
        """How many records."""
        return self.lost or len(self.shapes) or len(self.updates)

    @property
    def last_seq(self) -> int:
        """The number of the last record."""
        return self.first_seq + self.count - 1

    def cut(self, limit: int) -> Iterator[Batch]:
        """The batch in parts of at most `limit` bytes each, or of one record where that alone is more."""
        if self.weight <= limit:
            yield self
            return
        begin = point = 0
        while begin < self.count:
            end, points, weight = self._reach(begin, limit)
            yield self._part(begin, end, point, point + points, weight)
            begin, point = end, point + points

    def _part(self, begin: int, end: int, first_point: int, end_point: int, weight: int) -> Batch:
        return Batch(
            first_seq=self.first_seq + begin,
            names=self.names,
            shapes=self.shapes[begin:end],
            steps=self.steps[begin:end],
            times_ms=self.times_ms[begin:end],
            values=self.values[first_point:end_point],
            updates=self.updates[begin:end],
            weight=weight,
        )

    def _reach(self, begin: int, limit: int) -> tuple[int, int, int]:
        """Where a part ends that begins at record `begin`: there, its points, its weight."""
        end, points, weight = begin, 0, ENVELOPE_BYTES
        seen: set[int] = set()
        while end < self.count:
            if self.updates:
                more, width = update_bytes(self.updates[end]), 0
            else:
                shape = self.shapes[end]
                width = len(self.names[shape])
                more = FRAME_BYTES + VALUE_BYTES * width
                if shape not in seen:
                    seen.add(shape)
                    more += names_bytes(self.names[shape])
            if end > begin and weight + more > limit:
                break
            end, points, weight = end + 1, points + width, weight + more
        return end, points, weight


def names_bytes(names: Names) -> int:
    """At least what a shape takes in a message."""
    return 8 + sum(len(name.encode()) + 4 for name in names)


def update_bytes(update: Update) -> int:
    """At least what an update takes in a message."""
    return UPDATE_BYTES + len(update.key.encode()) + len(update.value.encode())


def encode(batch: Batch, numbers: dict[Names, int], base: int = 0) -> bytes:
    """The message of `batch` on a stream that has numbered the shapes in `numbers`; new ones are added there.

    Records go out under their number less `base`. No point is touched: columns travel as the bytes they are.
    """
    message = _Request()
    out = message.batch
    out.first_seq = batch.first_seq - base
    out.count = batch.count
    if batch.lost:
        out.lost = True
    elif batch.updates:
        for update in batch.updates:
            pair = out.updates.add()
            told = pair.param if update.is_param else pair.tag
            told.key, told.value = update.key, update.value
    else:
        table = array("I", bytes(4 * len(batch.names)))
        for index in sorted(set(batch.shapes)):
            names = batch.names[index]
            if names not in numbers:
                numbers[names] = len(numbers)
                out.new_shapes.add().names.extend(names)
            table[index] = numbers[names]
        as_they_are = all(index == number for index, number in enumerate(table))
        shapes = batch.shapes if as_they_are else array("I", map(table.__getitem__, batch.shapes))
        out.shapes.append(_little(shapes))
        out.steps.append(_little(batch.steps))
        out.times_ms.append(_little(batch.times_ms))
        out.values.append(_little(batch.values))
    serialized: bytes = message.SerializeToString()
    return serialized


def _little(column: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()
