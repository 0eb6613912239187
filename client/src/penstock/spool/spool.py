"""The spool of a living writer, as the threads that log see it: each record is one `write`, and is in a file after it.

What `log` writes survives the death of the process, because the page cache does; the keeper makes it survive
a loss of power, too, a second later. No call waits for a network here, and none raises because of the disk: where
that fails, records go on in memory, as the same bytes, until the disk takes them or memory has no room.

A lock lets a segment end while nobody writes to it. Records are numbered by their place. A signal handler may
log, or raise, anywhere in here: the lock is reentrant, and who is thrown out looks what had been written. Python
runs handlers after calls, so what belongs together is done without a call between: a look at what is the last
segment and the writing to it; the counting of what was written; the adding of a segment.
"""

from __future__ import annotations

import itertools
import threading
import time
import zlib
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from penstock.batches import Batch, Names, Update, names_bytes
from penstock.spool import owner, places, records
from penstock.spool.records import CHECK, FRAME_BYTES, FRAME_MARK, FRAME_PREFIX, NUMBERED, Head, little
from penstock.spool.retention import Limits, goners
from penstock.spool.segments import Segment, create, write, write_error
from penstock.v1 import metrics_pb2

# With more than these, those that are known are forgotten: names that change all the time are no cache.
_MANY_SHAPES = 10_000
_MANY_NAMES_BYTES = 16 << 20

# How long what has been written may be unreadable, in seconds.
_PATIENCE = 2.0

_INT64_MAX = 2**63 - 1

_crc32 = zlib.crc32
_pack_frame = FRAME_PREFIX.pack
_pack_check = CHECK.pack


class Shape:
    """The names of a frame's values, the number that stands for them, and the last segment that defines it."""

    __slots__ = ("names", "number", "segment", "weight")

    def __init__(self, names: Names, number: int) -> None:
        self.names = names
        self.number = number
        self.weight = names_bytes(names)
        self.segment: Segment | None = None


def _nobody() -> None:
    """Nobody sends what is logged."""


class Spool:
    """Takes records. `wake` is called, by the thread that logs, for the first record after one was `wanted`.

    `make_place` makes and names the directory for the segments; where that fails, it is asked again when the disk
    is tried again. None: there is none, and records are kept in memory.
    """

    live = True

    def __init__(
        self,
        head: Head,
        make_place: Callable[[], Path] | None,
        limits: Limits | None = None,
        first_step: int = 0,
        *,
        durable: bool = False,
    ) -> None:
        self.head = head
        self.limits = limits or Limits()
        self.shapes: dict[Names, Shape] = {}  # those whose names are known to be good
        self.next_step = first_step
        self.acked = 0
        self.count = 0  # records that are numbered: the number of the last
        self.values = 0
        self.disk_bytes = 0
        self.memory_bytes = 0
        self.since = 0.0  # time.monotonic() when the record came that was wanted
        self.wanted = True
        self.closed = False
        self.trouble = ""  # why the disk does not take records, while it does not
        self.place: Path | None = None
        self.segments: tuple[Segment, ...] = ()  # replaced, never changed
        self._most = self.limits.disk
        self._lock = threading.RLock()
        self._keeping = threading.RLock()  # taken before the other; a handler may end the run meanwhile
        self._make_place = make_place
        self.wake: Callable[[], None] = _nobody
        self._durable = durable
        self._numbers = itertools.count()
        self._ordinals = itertools.count(1)
        self._shapes_bytes = 0
        self._last: Segment | None = None
        self._plain: Segment | None = None  # the same, where appending to it takes but a `write`
        self._uncounted = False  # what was written last may be
        self._missed: tuple[int, float] | None = None  # after which record nothing can be read, and since when
        self._finished = False
        self._starved = False  # the disk is full
        self._recounted = 0  # records that were counted for those that wrote them

    # For the threads that log.

    def append(self, shape: Shape, values: array[float], step: int | None, time_ms: int) -> bool:
        """Take a frame; step None is one more than the last. False: there is no room, or it is closed."""
        with self._lock:
            if step is None:
                step = self.next_step
            width = len(values)
            length = FRAME_BYTES + 8 * width
            body = _pack_frame(FRAME_MARK, length, self.count + 1, shape.number, step, time_ms) + little(values)
            record = body + _pack_check(_crc32(body))
            segment = shape.segment
            # This is nearly always so, and all of it is here, because a call costs more than what it does.
            if (
                segment is self._plain
                and segment is not None
                and not self._uncounted
                and self.disk_bytes + length <= self._most
            ):
                counted = self._recounted
                self._uncounted = True
                try:
                    whole = write(segment.fd, record, length) == length
                except BaseException:
                    self._recount()
                    raise
                if whole:
                    if counted == self._recounted:
                        segment.size += length
                        self.disk_bytes += length
                        self.count += 1
                    self._uncounted = False
                else:
                    self._go_to_memory(write_error())
                    whole = self._put(record, shape)
            else:
                whole = self._put(record, shape)
            if not whole:
                return False
            self.values += width
            self.next_step = step + 1 if step < _INT64_MAX else step
        if self.wanted:
            self._tell()
        return True

    def update(self, update: Update) -> bool:
        """Take a param or a tag. False: there is no room, or it is closed."""
        with self._lock:
            if not self._put(records.pack_update(self.count + 1, update), None):
                return False
        if self.wanted:
            self._tell()
        return True

    def learn(self, names: Names) -> Shape:
        """The shape of `names`, which can be stored."""
        shape = Shape(names, next(self._numbers))
        if len(self.shapes) >= _MANY_SHAPES or self._shapes_bytes + shape.weight > _MANY_NAMES_BYTES:
            self.shapes = {}
            self._shapes_bytes = 0
        self._shapes_bytes += shape.weight
        return self.shapes.setdefault(names, shape)

    def begin(self) -> None:
        """Make the first segment: what creates the run is on the disk before anything is logged."""
        with self._lock:
            if self._last is None and not self.closed:
                self._begin()

    def close(self, finish: metrics_pb2.Finish | None = None) -> None:
        """Take no more records. `finish` is what the writer has to say at its end: the first counts."""
        with self._lock:
            if finish is not None and not self._finished:  # it may be closed already, because its run is deleted
                self._finished = True
                self._recount()
                finish.last_seq = self.count
                self._last_word(records.pack_finish(self.count + 1, finish))
            self.closed = True
            self._plain = None

    @property
    def in_memory(self) -> bool:
        """Whether something that is not acknowledged may be in no file."""
        return any(segment.memory is not None for segment in self.segments)

    def begin_anew(self, writer_id: bytes, base: int) -> None:
        """What comes after record `base` is another writer's; whoever finds the spool has to know."""
        with self._lock:
            self.head = replace(self.head, writer_id=writer_id, base=base)
            if self._last is not None:
                self._recount()
                self._last_word(self.head.pack(self.count + 1))

    def _tell(self) -> None:
        self.wanted = False
        self.since = time.monotonic()
        self.wake()

    # With the lock.

    def _put(self, record: bytes, shape: Shape | None) -> bool:
        """Into the file, or else into memory. False: there is no room, or it is closed."""
        length = len(record)
        while not self.closed:
            segment = self._last
            if segment is None:
                self._begin()
            elif segment.memory is not None and self._is_long(segment):
                self._begin_memory()
            elif not self._has_room(segment, length):
                return False
            elif shape is not None and shape.segment is not segment:
                # Twice: a flipped bit in the only definition would take all of the segment's frames with it.
                if self._write(segment, records.pack_shape(self.count + 1, shape.number, shape.names) * 2, 0):
                    shape.segment = segment
            elif self._write(segment, record, 1):
                if self._durable:
                    self._sync(segment)
                return True
        return False

    def _is_long(self, segment: Segment) -> bool:
        """Of one in memory. It has one record at least, however long its head is."""
        return segment.size > self.limits.memory_segment_bytes and segment.first_seq <= self.count

    def _has_room(self, segment: Segment, length: int) -> bool:
        if segment.memory is None:
            return self.disk_bytes + length <= self._most
        return self.memory_bytes + length <= self.limits.memory

    def _write(self, segment: Segment, data: bytes, numbered: int) -> bool:
        """Append that, of which so many records are numbered. False: the segment is not, or no longer, the last."""
        length = len(data)
        if self._uncounted:
            self._recount()
        if segment is not self._last:
            return False
        if segment.memory is not None:
            segment.memory += data
            segment.size += length
            self.memory_bytes += length
            self.count += numbered
            return True
        counted = self._recounted
        try:
            whole = write(segment.fd, data, length) == length
        except BaseException:
            self._recount()
            raise
        if not whole:
            self._go_to_memory(write_error())
            return False
        if counted == self._recounted:
            segment.size += length
            self.disk_bytes += length
            self.count += numbered
        return True

    def _recount(self) -> None:
        """Count what is in the last file and not counted: whoever wrote it was thrown out by a signal handler.

        Or its handler is here now: then it finds that it need not count. A handler that throws us out leaves the rest
        to the next that comes.
        """
        segment = self._last
        if segment is None or segment.memory is not None or segment.fd < 0:
            return
        self._plain, self._uncounted = None, True
        with suppress(OSError):
            while True:
                recounted, size = self._recounted, segment.size
                data = segment.read(size, segment.look() - size)
                at = records.next_whole(data, 0)
                if at < 0:
                    break
                gained = at + records.whole(data, at)
                numbered = records.kind(data, at) in NUMBERED
                if recounted != self._recounted or size != segment.size:
                    continue  # a handler has come between, and counted it
                segment.size += gained
                self.disk_bytes += gained
                self.count += numbered
                self._recounted += 1
            self._plain, self._uncounted = segment if not self._durable and not self.closed else None, False

    def _begin(self) -> Segment:
        try:
            return self._begin_file()
        except OSError as error:
            return self._go_to_memory(error)

    def _begin_file(self) -> Segment:
        """A new file, from here on. Raises OSError."""
        while True:
            path, fd = create(self._placed(), next(self._ordinals))
            segment = Segment(0, path, fd)
            try:
                with self._lock:  # the keeper has come without
                    self._number(segment)
                    if not segment.append(self.head.pack(segment.first_seq)):
                        raise write_error()
                    if self._add(segment):
                        return segment
            finally:
                if segment is not self._last and segment not in self.segments:
                    segment.remove()

    def _placed(self) -> Path:
        """The directory, made if it is not there. Raises OSError."""
        if self._make_place is None:
            raise OSError("there is no directory for it")
        if self.place is None or not self.place.is_dir():
            self.place = self._make_place()
        return self.place

    def _go_to_memory(self, error: OSError) -> Segment:
        self.trouble = error.strerror or str(error)
        return self._begin_memory()

    def _begin_memory(self) -> Segment:
        while True:
            segment = Segment(0)
            self._number(segment)
            segment.append(self.head.pack(segment.first_seq))
            if self._add(segment):
                return segment

    def _number(self, segment: Segment) -> None:
        self._recount()
        segment.first_seq = self.count + 1

    def _add(self, segment: Segment) -> bool:
        """Append to this from here on. False: a signal handler has logged since it was numbered."""
        if segment.first_seq != self.count + 1:
            return False
        self.segments = (*self.segments, segment)
        segment.values_before = self.values
        if self._last is not None:
            self._last.ended = True  # its reader looks once more, and then for the next
        self._last = segment
        if segment.memory is None:
            self.disk_bytes += segment.size
        else:
            self.memory_bytes += segment.size
        self._plain = segment if segment.memory is None and not self._durable else None
        return True

    def _last_word(self, record: bytes) -> None:
        while not self._write(self._last or self._begin(), record, 0):
            pass

    def _sync(self, segment: Segment) -> None:
        try:
            segment.sync()
        except OSError as error:
            self.trouble = error.strerror or str(error)

    # For the keeper, in its thread.

    def keep(self) -> None:
        """What takes time, once in a while: back to the disk, into the next file, out of the cache."""
        with self._keeping:
            last = self._last
            if last is None or self._make_place is None:
                return
            try:
                self._rewrite()
                full = last.size > self.limits.segment_bytes
                if not self.closed and (last.memory is not None or last.unlinked or full):
                    self._begin_file()
                self._rewrite()
                self._retire()
                for segment in self.segments:
                    if segment.ended:
                        segment.trim()
                    elif not self.closed:
                        segment.reserve()
                    segment.sync()
                self.trouble = ""
                self._starved = False
            except OSError as error:
                self.trouble = error.strerror or str(error)
                if error.errno in owner.NO_ROOM:
                    self._make_room()

    def _make_room(self) -> None:
        """On a full disk, what is kept for a rainy day goes first: of this run, and of those that are sent."""
        self._starved = True
        self._retire()
        if self.place is not None:
            places.sweep(self.place.parent, grace_seconds=places.GRACE_SECONDS, keep_bytes=0, now=time.time())

    def _rewrite(self) -> None:
        """Segments that end in memory, or in files that somebody has removed, into files. Raises OSError."""
        for segment in self.segments:
            if not (segment.ended or self.closed) or not (segment.memory is not None or segment.unlinked):
                continue
            path, fd = create(self._placed(), next(self._ordinals))
            copy = Segment(segment.first_seq, path, fd)
            try:
                copy.take(segment)
                with self._lock:
                    copy.take(segment)  # a last word, it may be
                    if segment in self.segments and (segment.memory is not None or segment.unlinked):
                        if segment.memory is not None:
                            self.memory_bytes -= segment.size
                            self.disk_bytes += segment.size
                        segment.moved(path, fd)
            finally:
                if segment.path != path:  # it was acknowledged and dropped meanwhile, or the disk is full
                    copy.remove()

    # For the outbox.

    def rest(self, position: int) -> Batch | None:
        """What is not there after record `position` will be in a moment; but when all is written, it is lost."""
        if not self.closed or position >= self.count:
            self._missed = None
            return None
        now = time.monotonic()
        if self._missed is None or self._missed[0] != position:
            self._missed = position, now
        return Batch.of_lost(position + 1, self.count - position) if now - self._missed[1] > _PATIENCE else None

    def acknowledged(self, acked: int) -> None:
        """The records to `acked`, which may be less than before, are committed: what is too much of them goes."""
        self.acked = acked
        self._retire()

    def _retire(self) -> None:
        """Does nothing while somebody writes: a signal handler that came upon a write may be waiting for us."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            gone = goners(self.segments, self.acked, self.limits, self.disk_bytes, starved=self._starved)
            self.segments = tuple(segment for segment in self.segments if segment not in gone)
            for segment in gone:
                if segment.memory is None:
                    self.disk_bytes -= segment.size
                else:
                    self.memory_bytes -= segment.size
        finally:
            self._lock.release()
        for segment in gone:
            segment.remove()

    def abandon(self) -> None:
        """In a forked child: it is the parent's. No lock is taken, which a thread may hold that is not here."""
        for segment in self.segments:
            segment.close()

    def release(self) -> None:
        """Let go of the files. Nothing is appended or read after that."""
        with self._lock:
            self.closed = True
            self._plain = None
            for segment in self.segments:
                segment.trim()
                segment.close()
