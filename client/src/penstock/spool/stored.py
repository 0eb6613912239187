"""A spool that another process has left: read through once, to know what is in it, then sent like any other."""

from __future__ import annotations

from pathlib import Path

from penstock.address import parse_address
from penstock.batches import Batch
from penstock.spool import places, records
from penstock.spool.reader import Reader
from penstock.spool.records import PREFIX, Head
from penstock.spool.segments import Segment, stored
from penstock.v1 import metrics_pb2, runs_pb2

_LOOK_BYTES = 1 << 20


class Stored:
    """What is left of a writer. Nothing is changed on the disk."""

    live = False

    def __init__(self, directory: Path, segments: tuple[Segment, ...], head: Head) -> None:
        self.place = directory
        self.segments = segments
        self.head = head
        self.finish: metrics_pb2.Finish | None = None
        self.count = 0  # the number of the last record
        self.values = 0
        self.lost = 0  # of the records from the first that is here on; before that, the server's mark tells
        self.closed = True
        self.wanted = False
        self.since = 0.0

    @classmethod
    def open(cls, directory: Path) -> Stored:
        """Read what is in a spool's directory. Raises OSError; ValueError when nothing tells what run it is of.

        And when it is of another version, which must not be taken for a spool with nothing in it.
        """
        found = [segment for path in stored(directory) if (segment := _segment(path)) is not None]
        segments = tuple(sorted(found, key=lambda each: each.first_seq))
        reader = Reader(lambda: segments, 1 << 20)
        if not segments:
            raise ValueError("there are no records in it")
        lost = 0
        reader.seek(segments[0].first_seq - 1)
        while (batch := reader.read()) is not None:
            lost += batch.lost
            reader.forget(batch.last_seq)
        self = cls(directory, segments, reader.head or _head_of(directory))
        self.finish = reader.finish
        self.count = max(reader.position + reader.torn, reader.finish.last_seq if reader.finish else 0)
        self.values = reader.values
        self.lost = lost + self.count - reader.position
        return self

    def grown(self) -> bool:
        """Whether its process was alive after all, and has written more. Raises OSError."""
        read = {segment.path: segment.size for segment in self.segments}
        return any(path.stat().st_size != read.get(path, 0) for path in stored(self.place))

    def close(self, finish: metrics_pb2.Finish | None = None) -> None:
        """Nobody writes to it."""

    def begin_anew(self, writer_id: bytes, base: int) -> None:
        """A server that has more of this writer than is here has all of it."""

    def rest(self, position: int) -> Batch | None:
        """What cannot be read after record `position`, and was there."""
        return Batch.of_lost(position + 1, self.count - position) if position < self.count else None

    def acknowledged(self, acked: int) -> None:
        """The sweep removes it, when the whole spool is sent and its grace is over."""

    def release(self) -> None:
        """Let go of the files."""
        for segment in self.segments:
            segment.close()


def _segment(path: Path) -> Segment | None:
    """A file, whose first sound record tells the number of its first numbered one. None: no sound record is in it."""
    segment = Segment(1, path)
    segment.ended = True
    segment.size = segment.look()
    length = _LOOK_BYTES
    data = segment.read(0, length)
    if (version := records.version(data, 0)) != records.VERSION and records.whole(data, 0, version):
        segment.close()
        raise ValueError(f"{path} is written by another version of penstock")
    while (at := records.next_whole(data, 0)) < 0:
        if len(data) < length:
            segment.close()
            return None
        length *= 4
        data = segment.read(0, length)
    *_, segment.first_seq = PREFIX.unpack_from(data, at)
    return segment


def _head_of(directory: Path) -> Head:
    """What the directory's name tells, where no head can be read."""
    try:
        run_id, writer_id = places.ids_of(directory)
        if len(writer_id) != 16 or len(bytes.fromhex(run_id)) != 16:
            raise ValueError("too short")
    except ValueError:
        raise ValueError(f"{directory}: nothing tells what run these records are of") from None
    nothing = metrics_pb2.WriterAttributes()
    return Head(run_id, writer_id, parse_address(), runs_pb2.CreateRunRequest(), nothing)
