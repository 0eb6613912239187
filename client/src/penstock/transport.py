"""How messages get to the server: over a channel of this process. (`relay` is for where that cannot be.)

Messages are bytes here; what they say is not this module's business.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import grpc

from penstock import forks
from penstock.address import Address

Metadata = tuple[tuple[str, str], ...]


@dataclass
class Broken(Exception):
    """A stream ended by an error."""

    code: grpc.StatusCode
    details: str
    metadata: Metadata = ()

    @property
    def retry_after(self) -> float:
        """What the server asks us to wait, in seconds."""
        for key, value in self.metadata:
            if key == "retry-after-ms" and value.isdecimal():
                return min(int(value) / 1000, 300.0)
        return 0.0

    @property
    def told(self) -> bool:
        """Whether a Penstock server said so, and not something on the way to it."""
        return any(key == "penstock-error" for key, _ in self.metadata)

    @property
    def epoch(self) -> int:
        """Of the process that has taken a writer over; 0 when it is not told."""
        return next((int(value) for key, value in self.metadata if key == "penstock-epoch" and value.isdecimal()), 0)

    def __str__(self) -> str:
        return f"{self.code.name}: {self.details}"


class Stream(Protocol):
    """An open stream: iterate over the answers. Raises Broken. Leaving its context lets go of it at once."""

    def __iter__(self) -> Iterator[bytes]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def cancel(self) -> None:
        """End it, from any thread; whoever iterates gets Broken."""


class Channels:
    """To the servers that are called, one each, shared by all threads. No lock: a fork might find it taken."""

    def __init__(self, *, threadless: bool = False) -> None:
        self._open: dict[tuple[int, Address], grpc.Channel] = {}
        self._threadless = threadless

    def to(self, address: Address) -> grpc.Channel:
        """Connects with its first call."""
        key = (os.getpid(), address)
        channel = self._open.get(key)
        if channel is None:
            made = forks.watch(address.channel(threadless=self._threadless))
            channel = self._open.setdefault(key, made)
            if channel is not made:
                made.close()
        return channel

    @contextmanager
    def beginning(self, address: Address) -> Iterator[grpc.Channel]:
        """The same, for a stream that begins within. See `_beginning`; the next call makes another then."""
        channel = self.to(address)
        try:
            with _beginning(channel):
                yield channel
        except RuntimeError:
            self._open.pop((os.getpid(), address), None)
            raise

    def close(self) -> None:
        """Let go of the connections, and cut off what is under way. The next call makes others."""
        for key in list(self._open):
            if key[0] == os.getpid():
                self._open.pop(key).close()


class CallStream:
    """A call on a channel.

    A call of gRPC's takes its lock when it is destroyed, and a thread of gRPC's that the end of the interpreter has
    stopped may hold that lock: one exit of 600 hung for ever. So it is destroyed here, with its stream. The error that
    a call raises is the call itself, in a cycle with its own traceback, which is left to nobody.
    """

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._call
        except grpc.RpcError as error:
            broken = broken_by(error)
        else:
            return
        raise broken  # out here, where the call is not its context

    def cancel(self) -> None:
        """End it, from any thread; whoever iterates gets Broken."""
        if (call := self._call) is not None:
            call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self._call = None


class DirectStream(CallStream):
    """Over a channel that is made for it."""

    def __init__(self, address: Address, path: str, requests: Iterable[bytes], timeout: float | None = None) -> None:
        self._channel = forks.watch(address.stream_channel())
        method = self._channel.stream_stream(path, request_serializer=None, response_deserializer=None)
        with _beginning(self._channel):
            super().__init__(method(iter(requests), timeout=timeout, metadata=address.metadata))

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._channel.close()


@contextmanager
def _beginning(channel: grpc.Channel) -> Iterator[None]:
    """Inside, a stream begins. Where no thread can be had for it (RuntimeError), gRPC takes it for begun all the same,
    and waits for its end for ever when the channel is closed or destroyed: so that is neither.
    """
    try:
        yield
    except RuntimeError:
        forks.keep(channel)
        raise


def broken_by(error: grpc.RpcError) -> Broken:
    """What a call's error tells. Lets go of the call."""
    trailing = tuple((key, value) for key, value in error.trailing_metadata() or () if isinstance(value, str))
    error.__traceback__ = None
    return Broken(error.code(), error.details() or "", trailing)
