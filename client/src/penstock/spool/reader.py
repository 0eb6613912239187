"""From the bytes of segments to batches: consecutive records, in the order of their numbers, whole ones only.

What is damaged is passed over to the next whole record, whose number tells how many are lost. Those travel as a
batch, too: the writer's mark has to move past them, and somebody should know. Where files overlap, because one was
copied twice, each record is taken once.
"""

from __future__ import annotations

import sys
import time
import zlib
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

from penstock.batches import ENVELOPE_BYTES, FRAME_BYTES, Batch, Names, Update, names_bytes, update_bytes
from penstock.spool import records
from penstock.spool.records import CHECK, FRAME, FRAME_PREFIX, LEAST, MAGIC, MOST, NUMBERED, PREFIX, VERSION, Head
from penstock.spool.segments import Segment
from penstock.v1 import metrics_pb2

_READ_BYTES = 256 << 10
# After so many records the reader lets others have the interpreter for a moment: who logs does not wait for it.
_TURN = 200
_MOMENT = 50e-6
_MANY_SHAPES = 10_000
# A checksum that does not fit may be of a record that is being written; but not for so long, in seconds.
_PATIENCE = 1.0

_crc32 = zlib.crc32
_unpack_prefix = PREFIX.unpack_from
_unpack_frame = FRAME_PREFIX.unpack_from
_unpack_check = CHECK.unpack_from
_FRAME_AT = FRAME_PREFIX.size


class _Stop(Enum):
    """Why `_parse` came back."""

    FULL = auto()  # the batch is complete
    MORE = auto()  # the next record is not all there
    BAD = auto()  # what is there is no record
    LOST = auto()  # records are lost before the next, or with it
    TURN = auto()  # let others have a turn


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a batch begins: after record `before`, and after so many values."""

    segment: Segment
    at: int
    before: int
    values: int
    since: float


class _Filling:
    """The batch that is being read."""

    __slots__ = ("names", "place", "shapes", "steps", "table", "times_ms", "updates", "values", "weight")

    def __init__(self) -> None:
        self.place: _Place | None = None
        self.names: list[Names] = []
        self.table: dict[int, int] = {}  # of a shape's number: its index here
        self.shapes = array("I")
        self.steps = array("q")
        self.times_ms = array("q")
        self.values = array("d")
        self.updates: list[Update] = []
        self.weight = ENVELOPE_BYTES


class Reader:
    """Reads what `segments` gives, and goes on as it grows."""

    def __init__(self, segments: Callable[[], tuple[Segment, ...]], batch_bytes: int) -> None:
        self.position = 0  # the number of the last record that has been read, or is lost
        self.values = 0  # in the records to there
        self.full = False  # the last batch ended because it was long enough
        self.torn = 0  # records at the very end that are all there, but not sound
        self.head: Head | None = None
        self.finish: metrics_pb2.Finish | None = None
        self._segments = segments
        self._batch_bytes = batch_bytes
        self._segment: Segment | None = None
        self._at = 0
        self._data = b""
        self._data_at = 0
        self._wanted_after = 0  # what comes before has been read once
        self._owed = 0  # so many are lost next
        self._doubted: tuple[int, float] | None = None
        self._places: deque[_Place] = deque()

    # What has been read.

    def forget(self, acked: int) -> None:
        """Nobody goes back to before record `acked`, most probably."""
        while len(self._places) > 1 and self._places[1].before <= acked:
            gone = self._places.popleft().segment
            if gone is not self._places[0].segment:
                gone.shapes.clear()

    def values_to(self, acked: int) -> int:
        """How many values are in batches that are wholly within the records to `acked`; as far as it is remembered."""
        if acked >= self.position:
            return self.values
        at = self._place_of(acked)
        if at >= 0:
            return self._places[at].values
        return next((each.values_before for each in reversed(self._segments()) if each.first_seq <= acked + 1), 0)

    def since(self, acked: int) -> float | None:
        """When (`time.monotonic()`) the first batch after `acked` was read; None when none was."""
        for place in reversed(self._places):
            if place.before <= acked < self.position:
                return place.since
        return None

    def seek(self, after: int) -> None:
        """Go on with the record after number `after`."""
        self._wanted_after = after
        self._owed = 0
        self._doubted = None
        segments = self._segments()
        at = self._place_of(after)
        place = self._places[at] if at >= 0 else None
        if place is not None and place.segment in segments and (place.segment.shapes or not place.at):
            while len(self._places) > at:
                self._places.pop()
            self._go(place.segment, place.at, place.before, place.values)
            return
        self._places.clear()
        begin = max((segment.first_seq for segment in segments if segment.first_seq <= after + 1), default=0)
        if begin:  # of several the first: it may be the whole one
            segment = next(segment for segment in segments if segment.first_seq == begin)
            self._go(segment, 0, begin - 1, segment.values_before)
        elif segments:
            self._go(segments[0], 0, after, segments[0].values_before)
            self._owed = segments[0].first_seq - 1 - after
        else:
            self._segment = None
            self.position = after

    def _place_of(self, after: int) -> int:
        """Which of the remembered batches has record `after` before it, or in it; -1: none."""
        return bisect_right(self._places, after, key=lambda place: place.before) - 1

    def _go(self, segment: Segment, at: int, position: int, values: int) -> None:
        self._segment, self._at, self.position, self.values = segment, at, position, values
        self._data = b""

    # Reading on.

    def read(self) -> Batch | None:
        """The next batch; None when there is nothing more yet, or at all. Raises OSError."""
        self.full = False
        filling = _Filling()
        while True:
            if self._owed:
                if lost := self._take_lost():
                    return lost
            elif self._segment is None:
                if not self._follow():
                    return None
            elif self._go_on(filling):
                continue
            elif filling.place is not None:
                return self._batch(filling, filling.place)
            elif not self._owed:
                return None

    def _go_on(self, filling: _Filling) -> bool:
        """Read on. False: that is the batch, or what comes next is lost, or there is nothing."""
        match self._parse(filling):
            case _Stop.FULL:
                self.full = True
                return False
            case _Stop.LOST:
                return False
            case _Stop.TURN:
                time.sleep(_MOMENT)
                return True
            case _Stop.MORE:
                return self._load() or (filling.place is None and self._end() and not self._owed)
            case _Stop.BAD:
                return filling.place is None and self._pass_over() and not self._owed

    def _batch(self, filling: _Filling, place: _Place) -> Batch:
        self._places.append(place)
        if sys.byteorder == "big":
            filling.values.byteswap()
        return Batch(
            first_seq=place.before + 1,
            names=filling.names,
            shapes=filling.shapes,
            steps=filling.steps,
            times_ms=filling.times_ms,
            values=filling.values,
            updates=filling.updates,
            weight=filling.weight,
        )

    def _take_lost(self) -> Batch | None:
        first = self.position + 1
        self.position += self._owed
        self._owed = 0
        first = max(first, self._wanted_after + 1)
        return Batch.of_lost(first, self.position - first + 1) if first <= self.position else None

    def _parse(self, filling: _Filling) -> _Stop:
        """From the bytes at hand into the batch, until there is a reason to stop. This is where the time goes."""
        segment = self._segment
        assert segment is not None
        data = self._data
        view = memoryview(data)
        end = len(data)
        at = self._at - self._data_at if data else 0
        table = filling.table
        wanted_after = self._wanted_after
        turn = 0
        try:
            while end - at >= LEAST:
                magic, kind, version, length, seq = _unpack_prefix(data, at)
                if magic != MAGIC or version != VERSION or not LEAST <= length <= MOST:
                    return _Stop.BAD
                stop = at + length
                if stop > end:
                    return _Stop.MORE
                if _unpack_check(data, stop - 4)[0] != _crc32(view[at : stop - 4]):
                    return _Stop.BAD
                if kind in NUMBERED:
                    position = self.position
                    # It may be less: a signal handler that logged while the record was made came first.
                    if seq > position + 1:
                        self._owed = seq - 1 - position
                        return _Stop.LOST
                    if position < wanted_after:
                        if kind == FRAME:
                            self.values += (length - records.FRAME_BYTES) >> 3
                    elif kind == FRAME:
                        *_, number, step, time_ms = _unpack_frame(data, at)
                        known = table.get(number)
                        if known is None:
                            names = segment.shapes.get(number)
                            if names is None:  # they are lost, and so is it
                                if filling.place is None:
                                    self._owed = 1
                                    at = stop
                                return _Stop.LOST
                            known = table[number] = len(filling.names)
                            filling.names.append(names)
                            filling.weight += names_bytes(names)
                        if filling.place is None:
                            filling.place = self._place(at)
                        elif filling.updates or filling.weight > self._batch_bytes:
                            return _Stop.FULL
                        filling.shapes.append(known)
                        filling.steps.append(step)
                        filling.times_ms.append(time_ms)
                        filling.values.frombytes(view[at + _FRAME_AT : stop - 4])
                        filling.weight += FRAME_BYTES - records.FRAME_BYTES + length
                        self.values += (length - records.FRAME_BYTES) >> 3
                    else:
                        if filling.place is None:
                            filling.place = self._place(at)
                        elif filling.shapes or filling.weight > self._batch_bytes:
                            return _Stop.FULL
                        update = records.unpack_update(kind, data[at + PREFIX.size : stop - 4])
                        filling.updates.append(update)
                        filling.weight += update_bytes(update)
                    self.position = position + 1
                else:
                    self._take_note(segment, kind, data[at + PREFIX.size : stop - 4])
                at = stop
                turn += 1
                if turn == _TURN:
                    return _Stop.TURN
            return _Stop.MORE
        finally:
            view.release()
            self._at = self._data_at + at if data else self._at

    def _place(self, at: int) -> _Place:
        assert self._segment is not None
        return _Place(self._segment, self._data_at + at, self.position, self.values, time.monotonic())

    def _take_note(self, segment: Segment, kind: int, payload: bytes) -> None:
        """Of a record that has no number. One that cannot be understood is as one that is damaged."""
        with suppress(ValueError):
            if kind == records.SHAPE:
                number, names = records.unpack_shape(payload)
                segment.shapes[number] = names
            elif kind == records.HEAD:
                self.head = Head.unpack(payload)
            elif kind == records.FINISH:
                self.finish = records.unpack_finish(payload)

    def _load(self) -> bool:
        """More of the segment's bytes. False: there are none now."""
        segment = self._segment
        assert segment is not None
        have = self._data_at + len(self._data) - self._at if self._data else 0
        need = max(_READ_BYTES, 2 * have)
        data = segment.read(self._at, need)
        if len(data) <= have:
            return False
        self._data, self._data_at = data, self._at
        return True

    def _end(self) -> bool:
        """There is no whole record more. True: there is after all, or in the next segment."""
        segment = self._segment
        assert segment is not None
        if segment.ended and self._load():
            return True  # it was appended to between the last look and its end
        return self._pass_over() if self._at < self._data_at + len(self._data) else self._follow()

    def _pass_over(self) -> bool:
        """What is damaged. False: to be looked at again later."""
        segment = self._segment
        assert segment is not None
        ended = segment.ended
        if not ended:
            now = time.monotonic()
            if self._doubted is None or self._doubted[0] != self._at:
                self._doubted = self._at, now
            if now - self._doubted[1] < _PATIENCE:
                self._data = b""
                return False
        self._data = b""
        length = _READ_BYTES
        rest = segment.read(self._at, length)
        while (found := records.next_whole(rest, 0)) < 0 and len(rest) == length:
            length *= 4
            rest = segment.read(self._at, length)
        if found < 0:
            self.torn = _claimed(rest)
            return ended and self._follow()
        self._at += found
        return True

    def _follow(self) -> bool:
        """Go on with the next segment, if this one has ended. False: there is none."""
        segments = self._segments()
        segment = self._segment
        if segment is None:
            candidates = segments[:1]
        elif not segment.ended:
            return False
        elif segment in segments:
            at = segments.index(segment) + 1
            candidates = segments[at : at + 1]
        else:
            candidates = tuple(each for each in segments if each.first_seq > self.position)[:1]
        self.position = max(self.position, self._wanted_after)  # a copy of less than has been read ends early
        if not candidates:
            return False
        if segment is not None and len(segment.shapes) > _MANY_SHAPES:
            segment.shapes.clear()  # who comes back reads it from its beginning
        self.torn = 0
        following, before = candidates[0], candidates[0].first_seq - 1
        if not following.values_before:
            overlapped = segment if before < self.position else None
            following.values_before = overlapped.values_before if overlapped else self.values
        self._owed = max(0, before - self.position)
        self._wanted_after = max(self._wanted_after, self.position)
        self._go(following, 0, min(self.position, before), following.values_before)
        return True


def _claimed(data: bytes) -> int:
    """How many records, one after the other, say that they are there and are not sound."""
    at = count = 0
    while (length := records.claimed(data, at)) and at + length <= len(data):
        count += records.kind(data, at) in NUMBERED
        at += length
    return count
