"""A client's process: the product's spool and session. What its sender decides is here in few words."""

from __future__ import annotations

import uuid
from array import array
from pathlib import Path

from grpc import StatusCode

from penstock.address import parse_address
from penstock.session import End, Pace, Session
from penstock.spool.outbox import Outbox
from penstock.spool.records import FRAME_BYTES, Head
from penstock.spool.segments import Segment
from penstock.spool.spool import Spool
from penstock.spool.stored import Stored
from penstock.v1 import metrics_pb2 as pb
from penstock.v1 import runs_pb2
from penstock_server.model.streams import WriterId
from world.database import Broken
from world.network import Connection

TIME_MS = 1_000
_PACE = Pace(linger=0.0)
_NAMES = ("loss",)
_RECORD_BYTES = FRAME_BYTES + 8
# After these a sender opens the stream again; the others would be a bug here.
_AGAIN = {StatusCode.UNAVAILABLE, StatusCode.OUT_OF_RANGE, StatusCode.ABORTED, StatusCode.OK}


class Writer:
    """A numbering and its directory, and what was logged under it: each record's step tells which it is."""

    def __init__(self, directory: Path, run_id: str, number: int) -> None:
        self.writer_id = WriterId(uuid.UUID(int=number))
        self.run_id = run_id
        self.directory = directory / f"{run_id}.{self.writer_id.hex}"
        self.directory.mkdir()
        self.steps: list[int] = []
        self.places: list[tuple[Path, int, int]] = []  # of each record: its file, where it begins and ends
        self.damaged: set[int] = set()  # steps
        self.epoch = 0  # of the newest process
        self.acked = 0  # the highest mark that any process of it was told
        self.logged_to = True  # its first process lives
        self.sent = False  # it says on the disk that all is committed
        self.forgotten = False  # after that a backup was restored

    def next_epoch(self) -> int:
        self.epoch += 1
        return self.epoch

    def damage(self, at: int, offset: int, bits: int) -> None:
        """Changes a byte of a record where it is stored."""
        path, begin, end = self.places[at % len(self.places)]
        with path.open("r+b") as file:
            file.seek(begin + offset % (end - begin))
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ bits]))
        self.damaged.add(self.steps[at % len(self.places)])


class Process:
    """Sends a writer's records. The first one of a writer logs them, too; its heirs find them stored."""

    def __init__(self, writer: Writer, spool: Spool | Stored) -> None:
        self.writer = writer
        self.spool = spool
        self.outbox = Outbox(spool)
        self.epoch = writer.next_epoch()
        self.session: Session | None = None
        self.connection: Connection | None = None
        self.finishing = isinstance(spool, Stored)
        self._saw = len(writer.steps)  # what comes after it, an heir does not know of
        self.over = False
        self.fenced = False
        self.idle = False  # the session had nothing to say, and nothing has happened since

    @classmethod
    def first(cls, writer: Writer) -> Process:
        head = Head(
            writer.run_id,
            writer.writer_id.bytes,
            parse_address("localhost"),
            runs_pb2.CreateRunRequest(),
            pb.WriterAttributes(),
        )
        spool = Spool(head, lambda: writer.directory)
        spool.begin()
        return cls(writer, spool)

    @classmethod
    def heir(cls, writer: Writer) -> Process:
        try:
            return cls(writer, Stored.open(writer.directory))
        except Exception as error:
            raise Broken(f"the spool cannot be read: {error!r}") from error

    @property
    def is_first(self) -> bool:
        return isinstance(self.spool, Spool)

    @property
    def logs(self) -> bool:
        return self.is_first and not self.finishing

    def log(self, step: int) -> None:
        """One record, in the spool when this returns."""
        assert isinstance(self.spool, Spool)
        shape = self.spool.shapes.get(_NAMES) or self.spool.learn(_NAMES)
        assert self.spool.append(shape, array("d", [step]), step, TIME_MS)
        assert self._last.path is not None
        self.writer.places.append((self._last.path, self._last.size - _RECORD_BYTES, self._last.size))
        self.writer.steps.append(step)
        self.idle = False

    def finish(self) -> None:
        """No more is logged."""
        if not self.finishing:
            self.spool.close(pb.Finish(last_seq=self.spool.count))
        self.finishing = True
        self.idle = False

    def die(self, torn: int) -> None:
        """As by SIGKILL; of a record that was being written, `torn` bytes are there."""
        self.disconnect()
        if self.logs and torn and self.writer.places:
            path, begin, end = self.writer.places[-1]
            data = path.read_bytes()
            with path.open("ab") as file:
                file.write(data[begin:end][: torn % (end - begin)])
        self.spool.release()
        if self.is_first:
            self.writer.logged_to = False

    # The stream.

    def connect(self) -> Connection:
        """A new one. What is said on the one before is not heard any more."""
        self.disconnect()
        hello = pb.Hello(
            protocol=1,
            run_id=self.writer.run_id,
            writer_id=self.writer.writer_id.bytes,
            epoch=self.epoch,
            last_acked=self.outbox.acked,
            last_spooled=self.outbox.last_seq,
        )
        self.session = Session(self.outbox, hello, self._closing, self._rejected, _PACE)
        self.connection = Connection()
        self.idle = False
        return self.connection

    def disconnect(self) -> None:
        """It does not listen any more; what it has said is on its way."""
        if self.session is not None:
            self.session.end = self.session.end or End.BROKEN
        self.session = self.connection = None

    @property
    def talks(self) -> bool:
        """Whether it may have something to say."""
        return self.session is not None and not self.idle

    def say(self, now: float) -> None:
        """The next message, if there is one."""
        assert self.session is not None
        assert self.connection is not None
        try:
            message = self.session.next(now)
        except Exception as error:
            raise Broken(f"the client cannot make a message: {error!r}") from error
        if isinstance(message, bytes):
            self.connection.to_server.append(message)
        elif message is None:
            self.disconnect()  # it has waited for an answer for too long
        else:
            self.idle = True

    def hear(self, now: float) -> None:
        """The next message that has arrived."""
        assert self.session is not None
        assert self.connection is not None
        self.idle = False
        message = self.connection.to_client.popleft()
        if isinstance(message, StatusCode):
            self._ended(message)
            return
        response = pb.StreamMetricsResponse.FromString(message)
        self.session.received(response, now)
        if self.session.end is End.HISTORY_GAP:
            raise Broken("the server has records that were never logged")
        self.writer.acked = max(self.writer.acked, self.outbox.acked)
        if self.session.end is End.FINISHED:
            self.over = True
            everything = not self.writer.logged_to and self._saw == len(self.writer.steps)
            self.writer.sent |= self.is_first or everything
            self.disconnect()

    def reclaim(self) -> None:
        """The one who has taken over is gone."""
        self.epoch = self.writer.next_epoch()
        self.fenced = False

    def _ended(self, status: StatusCode) -> None:
        assert self.session is not None
        if status not in _AGAIN:
            raise Broken(f"a stream ended with {status.name}")
        self.fenced = status is StatusCode.ABORTED and not self.session.welcomed
        self.disconnect()

    def _closing(self) -> pb.Finish | None:
        return pb.Finish(last_seq=self.outbox.last_seq) if self.finishing else None

    def _rejected(self, reject: pb.Reject) -> None:
        raise Broken(f"records {reject.first_seq} to {reject.last_seq} were refused: {reject.reason}")

    @property
    def _last(self) -> Segment:
        return self.spool.segments[-1]
