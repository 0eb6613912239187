"""The thread that ships one writer's records: opens the stream, keeps it open, opens it again.

States are those of docs/protocol.md. What is said on a stream is `session`'s business; here are the
connection, the waiting and the decision what to do when a stream has ended.
"""

from __future__ import annotations

import enum
import logging
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import grpc

from penstock import forks
from penstock.address import Address
from penstock.relay import RelayedStream
from penstock.session import End, Pace, Session, Wait
from penstock.spool import keeper
from penstock.spool.home import Home
from penstock.spool.outbox import Outbox
from penstock.spool.spool import Spool
from penstock.spool.stored import Stored
from penstock.transport import Broken, DirectStream, Stream
from penstock.v1 import metrics_pb2

_log = logging.getLogger("penstock")

_METHOD = "/penstock.v1.MetricService/StreamMetrics"
_PROTOCOL = 1
_REJECTIONS_KEPT = 1_000

_HURRIED = 1.0  # seconds between streams, at most, while somebody waits for the end
_FENCES = 3  # times that we take a spool back, with no welcome between
_NO_MORE_THREADS = "at interpreter shutdown"  # so Python puts it; before 3.12.2 that is at once when the script ends
_COMPLAINTS = 5  # streams that the server has called wrong, with nothing acknowledged between, until we believe it

# As answers to Hello these say that the run cannot be logged to, however often we ask.
_NEVER = frozenset(
    (
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.UNIMPLEMENTED,
    )
)


class State(enum.Enum):
    """Where a writer stands."""

    NEW = "new"
    CONNECTING = "connecting"
    SYNCING = "syncing"  # Hello is sent, Welcome is not here
    STREAMING = "streaming"
    DRAINING = "draining"
    BACKOFF = "backoff"
    AUTH_WAIT = "auth_wait"  # the server does not know who we are; asked again now and then
    FENCED = "fenced"  # another process has taken the spool over; taken back when that is gone
    OFFLINE = "offline"  # records are spooled, and sent by `penstock sync`
    CLOSED = "closed"  # everything is committed
    PARKED = "parked"  # the server will not take this run

    @property
    def over(self) -> bool:
        """Whether nothing more will be sent."""
        return self in (State.CLOSED, State.PARKED)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Records that the server refused for good: how many, and its sentence."""

    records: int
    code: int
    reason: str


class Sender:
    """Ships what is in `spool` into its run. Starts with the first `wake` or `start`; `offline`, not at all."""

    def __init__(
        self,
        spool: Spool | Stored,
        home: Home,
        address: Address,
        pace: Pace,
        *,
        offline: bool = False,
        resume: bool = False,
    ) -> None:
        self.spool = spool
        self.outbox = Outbox(spool, pace.batch_bytes, acked=spool.head.base)
        self.state = State.OFFLINE if offline else State.NEW
        self.trouble = ""  # the last thing that went wrong
        self.settled = threading.Event()  # set when `state.over`
        self.rejected: deque[Rejection] = deque(maxlen=_REJECTIONS_KEPT)
        self.refused = 0  # what the writer could not take
        self._home = home
        self._offline = offline
        self._resume = resume
        self._address = address
        self._run_id = spool.head.run_id
        self._pace = pace
        self._finish: metrics_pb2.Finish | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._unstarted = [True]
        self._asked = False
        # One per stream, so that no message goes to a thread of an earlier one. Its `put` takes no lock that a
        # signal handler or a fork could find taken.
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._open: Stream | None = None
        self._failures = 0
        self._complaints = 0
        self._fences = 0  # since the last welcome
        self._began: float | None = None  # None once the server has welcomed us
        self._told_absent = False
        self._orphan_since: float | None = None
        self._random = random.Random()  # its own: training may have seeded the common one
        self._told: set[str] = set()
        if isinstance(spool, Spool):
            spool.wake = self.wake
        else:
            self._finish = spool.finish or metrics_pb2.Finish(last_seq=spool.count)

    # For the threads that log.

    def start(self) -> None:
        """Begin. Does nothing when it has begun."""
        self._asked = True
        if self._offline:
            return
        try:
            self._unstarted.pop()  # one thread gets it, and no lock is left behind
        except IndexError:
            return
        try:
            self._thread = threading.Thread(target=self._work, name=f"penstock {self._run_id}", daemon=True)
            self._thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self._thread = None
            self._unstarted.append(True)
            self.trouble = f"cannot start the thread that sends: {error}"
            self._tell("thread", f"{self.trouble}; tried again with what is logged next")
            self.spool.wanted = True

    @property
    def started(self) -> bool:
        """Whether anything is, or was, to be sent."""
        return self._asked

    def wake(self) -> None:
        """Something has come in."""
        self._news.put(None)
        if self._thread is None:
            self.start()

    def finish(self, finish: metrics_pb2.Finish) -> None:
        """Send what there is, then `finish`; takes no more records. `settled` tells when. The first call counts.

        When no thread can be started it is settled at once, but not over: the next call tries again.
        """
        self.spool.close(finish)
        if self._finish is None:
            self._finish = finish
        if self._offline:
            self.settled.set()
            return
        if self._thread is None:
            self.settled.clear()
        self.wake()
        if self._thread is None:
            self.settled.set()

    def stop(self, timeout: float) -> None:
        """Send nothing more, whatever there is. Waits for the thread at most `timeout` seconds."""
        self._stopping = True
        self._news.put(None)
        if stream := self._open:
            stream.cancel()
        if (thread := self._thread) is not None and thread is not threading.current_thread():
            thread.join(timeout)
            if thread.is_alive():
                return  # it may still be reading
        self._let_go()

    def _let_go(self) -> None:
        """Of the files, and of the right to send them."""
        if isinstance(self.spool, Spool):
            keeper.forget(self.spool)
        self.spool.release()
        self._home.release()

    def _mark_sent(self) -> None:
        try:
            if isinstance(self.spool, Stored) and self.spool.grown():
                return  # it was taken from a living process by force; the rest is for the next
            self._home.sent(self.outbox.acked)
        except OSError as error:
            _log.warning("run %s: %s cannot be marked as sent: %s", self._run_id, self._home.path, error)

    # The thread.

    def _work(self) -> None:
        self._began = time.monotonic()
        while not self._stopping:
            try:
                delay = self._stream()
            except Exception as error:  # noqa: BLE001  a bug of ours must not end the logging of a run
                if _NO_MORE_THREADS in str(error):  # and none without threads; what there is stays in the spool
                    self.trouble = str(error)
                    self.settled.set()
                    return
                _log.exception("run %s: the sender failed; it goes on in a moment", self._run_id)
                self.trouble = f"{type(error).__name__}: {error}"
                delay = self._backoff()
            if delay is None:
                if self.state is State.CLOSED:
                    self._let_go()  # there may be nobody who still waits for the end
                return
            self._sleep(delay)

    def _stream(self) -> float | None:
        """One stream, from Hello to its end. Returns the seconds until the next; None: there is none."""
        self.state = State.CONNECTING
        opened = time.monotonic()
        news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._news = news
        create = self.spool.head.create_run  # empty where a damaged spool does not tell
        hello = metrics_pb2.Hello(
            protocol=_PROTOCOL,
            run_id=self._run_id,
            create_run=create if create.ByteSize() else None,
            writer_id=self.spool.head.writer_id,
            epoch=self._home.epoch,
            last_acked=max(0, self.outbox.acked - self.spool.head.base),
            last_spooled=max(0, self.outbox.last_seq - self.spool.head.base),
            attributes=self.spool.head.attributes,
            refused=self.refused,
            resume=self._resume,
        )
        session = Session(self.outbox, hello, self._closing, self._reject, self._pace, self.spool.head.base)
        broken: Broken | None = None
        way: Callable[[Address, str, Iterable[bytes]], Stream]
        way = DirectStream if forks.may_stream() else RelayedStream
        with way(self._address, _METHOD, self._requests(session, news)) as stream:
            self._open = stream
            self.state = State.SYNCING
            try:
                for message in stream:
                    response = metrics_pb2.StreamMetricsResponse.FromString(message)
                    session.received(response, time.monotonic())
                    news.put(None)
                    if session.welcomed:
                        self._found()
                    if session.forgotten:
                        self._tell_forgotten(session.forgotten)
                    if session.end is End.FINISHED:
                        self._settle(State.CLOSED)
                    else:
                        self.state = State.DRAINING if session.draining else State.STREAMING
            except Broken as error:
                broken = error.with_traceback(None)  # which holds this frame, and the stream in it
            finally:
                session.end = session.end or End.BROKEN
                news.put(None)
                self._open = None
        if session.progressed or (session.welcomed and time.monotonic() - opened >= self._pace.backoff_most):
            self._failures = 0
        delay = self._decide(session, broken)
        if session.end is End.STALLED or (broken is not None and not broken.told):
            self._tell_if_absent()
        return delay

    def _requests(self, session: Session, news: queue.SimpleQueue[None]) -> Iterator[bytes]:
        """What the stream says; gRPC asks for it in a thread of its own."""
        try:
            while not self._stopping and (message := session.next(time.monotonic())) is not None:
                if isinstance(message, bytes):
                    yield message
                else:
                    _await(news, message)
        except Exception as error:  # noqa: BLE001  gRPC would say less of it
            _log.exception("run %s: the sender could not make a message", self._run_id)
            self.trouble = f"{type(error).__name__}: {error}"
            session.end = End.STALLED
        # A stream that is finished ends of itself; the server may take its time over any other.
        if session.end is not End.FINISHED and (stream := self._open) is not None:
            stream.cancel()

    def _closing(self) -> metrics_pb2.Finish | None:
        if self._finish is None:
            return None
        finish = metrics_pb2.Finish()
        finish.CopyFrom(self._finish)
        finish.last_seq = self.outbox.last_seq
        return finish

    def _reject(self, reject: metrics_pb2.Reject) -> None:
        records = reject.last_seq - reject.first_seq + 1
        self.rejected.append(Rejection(records, reject.code, reject.reason))
        _log.warning("run %s: the server refused %d record(s): %s", self._run_id, records, reject.reason)

    # What to do when a stream has ended.

    def _decide(self, session: Session, broken: Broken | None) -> float | None:
        """Returns the seconds until the next stream; None: there is none."""
        match session.end:
            case End.FINISHED:
                self._settle(State.CLOSED)
                return None
            case End.GO_AWAY:
                return self._backoff()
            case End.HISTORY_GAP:
                return self._begin_anew()
            case End.STALLED:
                self.trouble = "the server was silent"
                return self._backoff()
        self.trouble = str(broken or "the server ended the stream")
        code, details = (broken.code, broken.details) if broken else (None, "")
        if self._stopping:
            return None
        if code is grpc.StatusCode.UNAUTHENTICATED:
            self._tell("auth", f"the server does not know who we are ({details}); logging goes on, asking again")
            self.state = State.AUTH_WAIT
            return self._pace.backoff_most
        if not session.welcomed and code is grpc.StatusCode.ABORTED:
            return self._fenced(details, broken.epoch if broken else 0)
        if broken is not None and broken.told and self._hopeless(session, code):
            self._tell("parked", f"the server will not take this run: {details}. Nothing more is sent")
            self._settle(State.PARKED)
            return None
        return max(self._backoff(), broken.retry_after if broken else 0.0)

    def _hopeless(self, session: Session, code: grpc.StatusCode | None) -> bool:
        if session.progressed:
            self._complaints = 0
        if code is grpc.StatusCode.NOT_FOUND and not session.welcomed and self.spool.head.create_run.parent_run_id:
            # The parent's own stream may be on its way.
            now = time.monotonic()
            self._orphan_since = self._orphan_since or now
            return now - self._orphan_since > self._pace.parent_timeout
        if session.welcomed:  # what is wrong with the run, Hello will be told
            self._complaints += code is grpc.StatusCode.INVALID_ARGUMENT
            return self._complaints >= _COMPLAINTS
        return code in _NEVER

    def _settle(self, state: State) -> None:
        if state is self.state:
            return
        self.state = state
        if state is State.CLOSED:
            self._mark_sent()
        else:
            self.spool.close()
        self.settled.set()

    def _fenced(self, details: str, epoch: int) -> float | None:
        """Another process has taken the spool over, and sends what is in it. When that is gone, the rest is ours."""
        if not self._home.owned:
            self._tell("parked", f"another process writes for this writer ({details}); nothing more is sent")
            self._settle(State.PARKED)
            return None
        if self._home.reclaim(epoch) and self._fences < _FENCES:
            self._fences += 1
            return self._backoff()
        self._tell("fenced", f"another process has taken the spool over ({details}); waiting for its end")
        self.state = State.FENCED
        return _HURRIED

    def _begin_anew(self) -> float:
        """As another writer. Numbers are never used twice, and what was let go of cannot be sent again."""
        self._tell(
            "gap",
            "the server has more of this writer than this process has logged (was it restored from a snapshot?); "
            "it goes on as another writer",
        )
        self.spool.begin_anew(os.urandom(16), self.outbox.acked)
        return self._backoff()

    def _backoff(self) -> float:
        self.state = State.BACKOFF
        self._failures += 1
        most = min(self._pace.backoff_most, self._pace.backoff_least * 2 ** min(self._failures, 20))
        if self._finish is not None:
            most = min(most, _HURRIED)
        return self._random.uniform(most / 2, most)

    def _found(self) -> None:
        """The server has welcomed us."""
        self._orphan_since = None
        self._began = None
        self._fences = 0
        self._resume = False
        if self._told_absent:
            self._told_absent = False
            _log.warning(
                "run %s: the server at %s has answered; what was kept is being sent", self._run_id, self._address.target
            )

    def _tell_forgotten(self, records: int) -> None:
        self._tell(
            "forgotten",
            f"the server has forgotten {records} records that it had acknowledged (was it restored from a backup?); "
            "what is still in the spool is sent again",
        )

    def _tell_if_absent(self) -> None:
        """Once, when there has been no server for a while: a wrong address looks the same as one that is late."""
        if self._stopping or self._told_absent or self._began is None:
            return
        if time.monotonic() - self._began < self._pace.absent_timeout:
            return
        self._told_absent = True
        _log.warning(
            "run %s: no server at %s (%s); records are kept in %s; check PENSTOCK_URL",
            self._run_id,
            self._address.target,
            self.trouble,
            self._home.path or "memory",
        )

    def _sleep(self, seconds: float) -> None:
        """Until it is time, or somebody has begun to wait for the end."""
        until = time.monotonic() + seconds
        hurried = self._finish is not None
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
            if self._finish is not None and not hurried:
                return

    def _tell(self, kind: str, message: str) -> None:
        """Loudly, and once."""
        if kind not in self._told:
            self._told.add(kind)
            _log.error("run %s: %s", self._run_id, message)


def _await(news: queue.SimpleQueue[None], wait: Wait) -> None:
    """Until something happens, or the time is up."""
    try:
        news.get(timeout=wait.seconds)
        while True:
            news.get_nowait()
    except queue.Empty:
        return
