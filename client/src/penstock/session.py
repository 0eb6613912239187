"""One stream's conversation with the server, without threads and sockets: what to send next, what an answer means.

The rules are in docs/protocol.md: Hello and Welcome, then batches within the window, each kept until its
acknowledgement, then Finish and FinishAck.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penstock.batches import Batch, Names, encode
from penstock.spool.outbox import Outbox
from penstock.v1 import metrics_pb2

_DEFAULT_WINDOW = 8 << 20
_DEFAULT_MESSAGE = 4 << 20
# A record that is there and cannot be read is looked for again after so many seconds.
_LOOK_AGAIN = 0.05
# Who logs wakes the sender; but an exception out of a signal handler may come between.
_IDLE = 5.0
# A stream that has defined this many shapes is opened anew, so that neither side keeps them for ever.
_SHAPES_PER_STREAM = 20_000


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and how much. Times are in seconds."""

    linger: float = 0.025
    batch_bytes: int = 1 << 20
    welcome_timeout: float = 20.0
    stall_timeout: float = 60.0
    leave_timeout: float = 10.0
    backoff_least: float = 0.1
    backoff_most: float = 30.0
    parent_timeout: float = 60.0
    absent_timeout: float = 10.0


class End(enum.Enum):
    """Why a conversation is over."""

    FINISHED = enum.auto()
    GO_AWAY = enum.auto()  # the server stops; so does a stream with too many shapes
    STALLED = enum.auto()
    HISTORY_GAP = enum.auto()  # the server's mark is beyond anything that this writer has numbered
    BROKEN = enum.auto()  # the connection ended first


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to send: look again after `seconds`, or when something has happened."""

    seconds: float


class Session:
    """One stream of one writer. `next` and `received` may be called by two threads.

    `closing` gives the Finish to send once all records are, or None while more may come. `base` is the
    number of records that an earlier writer of this process has delivered.
    """

    def __init__(
        self,
        outbox: Outbox,
        hello: metrics_pb2.Hello,
        closing: Callable[[], metrics_pb2.Finish | None],
        rejected: Callable[[metrics_pb2.Reject], None],
        pace: Pace,
        base: int = 0,
    ) -> None:
        self.end: End | None = None
        self.welcomed = False
        self.progressed = False  # something was acknowledged
        self.forgotten = 0  # records that the server had acknowledged, and does not have any more
        self._outbox = outbox
        self._hello = hello
        self._closing = closing
        self._rejected = rejected
        self._pace = pace
        self._base = base
        self._lock = threading.Lock()
        self._opened: float | None = None
        self._position = 0  # the last record sent on this stream; the buffer goes on after what is acknowledged
        self._numbers: dict[Names, int] = {}
        self._parts: Iterator[Batch] = iter(())
        self._outstanding: deque[tuple[int, int]] = deque()  # last_seq and weight
        self._outstanding_bytes = 0
        self._window = _DEFAULT_WINDOW
        self._message_limit = _DEFAULT_MESSAGE
        self._quiet_since = 0.0  # when something was last acknowledged, or sent after everything was
        self._throttled_until = 0.0
        self._leave_by: float | None = None
        self._finish_sent = False

    @property
    def draining(self) -> bool:
        """Whether Finish has been sent."""
        return self._finish_sent

    def next(self, now: float) -> bytes | Wait | None:
        """The next message; or how long to wait; or None when there is nothing more to say."""
        with self._lock:
            if self.end is None:
                message = self._next(now)
                if self.end is None:
                    return message
            return None

    def received(self, response: metrics_pb2.StreamMetricsResponse, now: float) -> None:
        """Take in an answer."""
        with self._lock:
            match response.WhichOneof("message"):
                case "welcome":
                    self._take_welcome(response.welcome, now)
                case "ack":
                    self._take_mark(response.ack.hwm, now)
                case "reject":
                    self._rejected(response.reject)
                    self._take_mark(response.reject.last_seq, now)
                case "throttle":
                    self._throttled_until = now + response.throttle.retry_after_ms / 1000
                case "go_away":
                    self._leave_by = now + self._pace.leave_timeout
                case "finish_ack":
                    self._take_mark(response.finish_ack.hwm, now)
                    if self._finish_sent and not self._outbox.unacked:
                        self.end = End.FINISHED

    def _next(self, now: float) -> bytes | Wait | None:
        if self._opened is None:
            self._opened = now
            return metrics_pb2.StreamMetricsRequest(hello=self._hello).SerializeToString()
        if not self.welcomed:
            return self._wait_until(self._opened + self._pace.welcome_timeout, now)
        if self._leave_by is not None:
            if not self._outstanding:
                self.end = End.GO_AWAY
            return self._wait_until(self._leave_by, now, End.GO_AWAY)
        if now < self._throttled_until:
            return Wait(self._throttled_until - now)
        if self._outstanding_bytes >= self._window:
            return self._wait_until(self._quiet_since + self._pace.stall_timeout, now)
        return self._next_batch(now)

    def _next_batch(self, now: float) -> bytes | Wait | None:
        if part := next(self._parts, None):
            return self._send(part, now)
        finish = self._closing()
        due = self._outbox.due(self._position)
        if due is not None:
            ripe = due + self._pace.linger
            if due and finish is None and ripe > now:
                return Wait(ripe - now)
            if len(self._numbers) > _SHAPES_PER_STREAM:
                self._leave_by = now + self._pace.leave_timeout
                return Wait(0)
            batch = self._outbox.take(self._position)
            if batch is None:
                return Wait(_LOOK_AGAIN)
            self._parts = batch.cut(min(self._pace.batch_bytes, self._message_limit))
            return self._send(next(self._parts), now)
        if finish is not None and not self._finish_sent:
            self._finish_sent = True
            self._quiet_since = now
            finish.last_seq -= self._base
            return metrics_pb2.StreamMetricsRequest(finish=finish).SerializeToString()
        if self._outstanding or self._finish_sent:
            return self._wait_until(self._quiet_since + self._pace.stall_timeout, now)
        return Wait(_IDLE)

    def _send(self, part: Batch, now: float) -> bytes:
        if not self._outstanding:
            self._quiet_since = now
        self._outstanding.append((part.last_seq, part.weight))
        self._outstanding_bytes += part.weight
        self._position = part.last_seq
        return encode(part, self._numbers, self._base)

    def _wait_until(self, deadline: float, now: float, end: End = End.STALLED) -> Wait:
        if now >= deadline:
            self.end = end
        return Wait(deadline - now)

    def _take_welcome(self, welcome: metrics_pb2.Welcome, now: float) -> None:
        mark = welcome.hwm + self._base
        self.welcomed = True
        if mark > self._outbox.last_seq and self._outbox.live:
            self.end = End.HISTORY_GAP
            return
        if mark < self._outbox.acked:
            self.forgotten = self._outbox.acked - mark
            self._outbox.go_back(mark)
        self._window = welcome.window_bytes or _DEFAULT_WINDOW
        self._message_limit = welcome.max_message_bytes or _DEFAULT_MESSAGE
        self._take_mark(welcome.hwm, now)

    def _take_mark(self, hwm: int, now: float) -> None:
        mark = hwm + self._base
        if mark > self._outbox.acked:
            self.progressed = True
            self._quiet_since = now
        self._outbox.acknowledge(mark)
        while self._outstanding and self._outstanding[0][0] <= mark:
            self._outstanding_bytes -= self._outstanding.popleft()[1]
