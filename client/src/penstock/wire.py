"""Calls of ArtifactService, from any number of threads: over one channel, or by relays where gRPC must not be.

Streams carry bytes as they are: of a chunk no message object is made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from penstock import forks
from penstock.address import Address
from penstock.calls import ARTIFACTS, Flow, request
from penstock.errors import PenstockError, TimedOut, Unavailable, from_status
from penstock.relay import RelayedStream
from penstock.transport import Broken, CallStream, Channels, Stream, broken_by

T = TypeVar("T")

# Of a message: the least that a server can be set to take is 1 MiB, and a header has a path, too.
CHUNK = (1 << 20) - (4 << 10)
STALL = 300.0  # seconds in which nothing moves; other uploads may go first. A dead peer is noticed earlier.

_TIMEOUT = 30.0
_LOOK = 0.2
# Said by a Penstock server these are its bugs; else a connection has been cut, by whatever is between.
_CUT = frozenset((grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN))


class Wire:
    """To one server. Connects with the first call. Raises what `errors` tells."""

    def __init__(
        self,
        address: Address,
        timeout: float = _TIMEOUT,
        *,
        channels: Channels | None = None,
        beside_forks: bool = False,
    ) -> None:
        """`channels` are shared with others, who close them. `timeout` is of each single request, in seconds.

        With `beside_forks` the process may be forked by other threads while something is under way.
        """
        self.address = address
        self._timeout = timeout
        self._channels = channels or Channels()
        self._allowed = forks.may_stream if beside_forks else forks.use_grpc

    def ask(self, method: str, message: Message, timeout: float | None = None) -> Any:
        """One request, one answer."""
        asked = request(ARTIFACTS, method, message)
        return asked.answer.FromString(self._ask(method, message.SerializeToString(), timeout or self._timeout))

    def _ask(self, method: str, message: bytes, timeout: float) -> bytes:
        path = _path(method)
        try:
            if not self._allowed():
                with RelayedStream(self.address, path, [message], timeout) as answers:
                    return next(iter(answers), b"")
            try:
                answer: bytes = self._call("unary_unary", path, message, timeout=timeout)
            except grpc.RpcError as error:
                broken = broken_by(error)
            else:
                return answer
        except Broken as error:
            broken = error.with_traceback(None)
        raise self.error(broken)

    def carry(self, flow: Flow[T]) -> T:
        """A call as `calls` describes it."""
        try:
            asked = next(flow)
            while True:
                asked = flow.send(self.ask(asked.path.rpartition("/")[2], asked.message))
        except StopIteration as done:
            result: T = done.value
            return result

    def send(self, method: str, messages: Iterable[bytes]) -> Stream:
        """A stream of requests. No deadline: see Watched."""
        path = _path(method)
        if not self._allowed():
            return RelayedStream(self.address, path, messages)
        return CallStream(self._call("stream_stream", path, iter(messages)))

    def receive(self, method: str, message: Message) -> Stream:
        """A stream of answers. No deadline: see Watched."""
        return self._receive(method, message.SerializeToString())

    def _receive(self, method: str, message: bytes) -> Stream:
        path = _path(method)
        if not self._allowed():
            return RelayedStream(self.address, path, [message])
        return CallStream(self._call("unary_stream", path, message))

    def ask_unless(self, stopped: Callable[[], bool], method: str, message: bytes) -> bytes:
        """One request, one answer, in bytes; see Watched for what ends it. For what may wait for much that is large.

        A stream of one message is a request, and an answer, too: on the wire there is no difference.
        """
        with Watched(self, stopped, lambda _: self._receive(method, message)) as answers:
            return b"".join(answers)

    def _call(self, kind: str, path: str, sent: object, timeout: float | None = None) -> Any:
        try:
            with self._channels.beginning(self.address) as channel:
                method = getattr(channel, kind)(path, request_serializer=None, response_deserializer=None)
                return method(sent, timeout=timeout, metadata=self.address.metadata)
        except ValueError:  # so gRPC puts it
            raise Unavailable(f"the connection to {self.address.target} was closed here") from None

    def error(self, broken: Broken) -> PenstockError:
        """What a call's end tells."""
        if broken.code in _CUT and not any(key == "x-request-id" for key, _ in broken.metadata):
            return Unavailable(f"the connection to {self.address.target} broke ({broken})")
        return from_status(broken.code, broken.details, broken.metadata, self.address.target)

    def close(self) -> None:
        """Let go of the connection, and cut off what is under way. The next call makes another."""
        self._channels.close()


class Watched:
    """A stream that ends when nobody wants it any more, or when nothing has moved on it for `STALL` seconds.

    Who moves something says so by `moved`. Raises PenstockError; when it was to end, whoever asked for that knows.
    """

    def __init__(self, wire: Wire, stopped: Callable[[], bool], begin: Callable[[Watched], Stream]) -> None:
        self._wire = wire
        self._stopped = stopped
        self._begin = begin
        self._stream: Stream | None = None
        self._left = STALL
        self._moved = time.monotonic()
        self._over = threading.Event()
        self._cancelled = False
        self._stalled = False

    def moved(self, allow: float = STALL) -> None:
        """The next move may take `allow` seconds."""
        self._moved = time.monotonic()
        self._left = allow

    def cancel(self) -> None:
        """End it, from any thread."""
        self._cancelled = True
        if self._stream is not None:
            self._stream.cancel()

    def __iter__(self) -> Iterator[bytes]:
        assert self._stream is not None
        try:
            for message in self._stream:
                self.moved()
                yield message
        except Broken as error:
            broken = error.with_traceback(None)
        else:
            return
        if self._stalled:
            raise TimedOut(f"no answer from {self._wire.address.target}: nothing has moved for {self._left:.0f} s")
        raise self._wire.error(broken)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            self._stalled = time.monotonic() - self._moved > self._left
            if self._stalled or self._stopped():
                self.cancel()
                return

    def __enter__(self) -> Self:
        self._stream = self._begin(self).__enter__()
        if self._cancelled:  # who sends was quicker
            self._stream.cancel()
        with suppress(RuntimeError):  # no more threads, or the interpreter is ending
            threading.Thread(target=self._watch, name="penstock's watch", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        assert self._stream is not None
        self._stream.__exit__(*error)


def _path(method: str) -> str:
    return f"/{ARTIFACTS.full_name}/{method}"
