"""A stream by way of another process, for those that must not have gRPC in their own (`forks` tells which).

The process starts a fresh interpreter, which has the channel; between the two go the messages as they are,
each after its length. The end of the relay's input is the half-close; its last message tells how the stream
ended. On the wire all of gRPC's methods are streams, so a relay carries any call.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import IO, Self

import grpc

from penstock.address import Address
from penstock.transport import Broken, DirectStream, Metadata

_LENGTH = struct.Struct("<I")
_END = 0xFFFF_FFFF  # instead of a length: how it ended follows, as JSON
_LOOK = 1.0  # seconds

# The path is that of this process, so that the relay finds the same penstock whatever has been done to it there.
_COMMAND = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from penstock.relay import main; main()"


class RelayedStream:
    """The side of who has something to say."""

    def __init__(self, address: Address, path: str, requests: Iterable[bytes], timeout: float | None = None) -> None:
        told = ([each for each in sys.path if isinstance(each, str)], asdict(address), path, timeout, os.getpid())
        self._process = subprocess.Popen(  # noqa: S603  this very interpreter
            [sys.executable, "-c", _COMMAND, *map(json.dumps, told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for the relay: what was logged is still to be delivered
        )
        self._feeder = threading.Thread(target=self._feed, args=(requests,), name="to penstock's relay", daemon=True)
        try:
            self._feeder.start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            self._process.kill()
            self._process.communicate()
            raise

    def _feed(self, requests: Iterable[bytes]) -> None:
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                for message in requests:
                    _write(pipe, message)
        except (BrokenPipeError, ValueError):
            pass  # it has ended; why, its last line tells whoever iterates

    def __iter__(self) -> Iterator[bytes]:
        assert self._process.stdout is not None
        pipe = self._process.stdout
        while len(header := pipe.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(header)
            if length == _END:
                try:
                    name, details, metadata = json.loads(pipe.read())
                except ValueError:
                    break
                if name != grpc.StatusCode.OK.name:
                    raise Broken(grpc.StatusCode[name], details, tuple((key, value) for key, value in metadata))
                return
            if len(message := pipe.read(length)) < length:
                break
            yield message
        raise Broken(grpc.StatusCode.UNAVAILABLE, "the relay has ended")

    def cancel(self) -> None:
        """End it; whoever iterates gets Broken."""
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._feeder.join(timeout=1.0)
        if self._process.stdout is not None:
            self._process.stdout.close()


def main() -> None:
    """The relay's side: carries one stream, then ends."""
    address, path, timeout, parent = map(json.loads, sys.argv[2:])
    threading.Thread(target=_outlive_nobody, args=(parent,), daemon=True).start()
    answers = sys.stdout.buffer
    ended: tuple[str, str, Metadata] = (grpc.StatusCode.OK.name, "", ())
    try:
        with DirectStream(Address(**address), path, _read(sys.stdin.buffer), timeout) as stream:
            try:
                for message in stream:
                    _write(answers, message)
            except Broken as error:
                ended = (error.code.name, error.details, error.metadata)
        answers.write(_LENGTH.pack(_END) + json.dumps(ended).encode())
        answers.flush()
    except BrokenPipeError:
        os._exit(1)  # whoever had something to say is gone; nobody wants what is still in the pipe's buffer
    os._exit(0)  # gRPC's thread may still read: at its end, the interpreter waits for stdin's lock, or aborts


def _outlive_nobody(parent: int) -> None:
    """End with whoever has something to say: while a server is silent, nothing is read, and no pipe tells it."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _write(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(_LENGTH.pack(len(message)))
    pipe.write(message)
    pipe.flush()


def _read(pipe: IO[bytes]) -> Iterator[bytes]:
    while header := pipe.read(_LENGTH.size):
        message = pipe.read(_LENGTH.unpack(header)[0]) if len(header) == _LENGTH.size else None
        if message is None or len(message) < _LENGTH.unpack(header)[0]:
            os._exit(1)  # whoever had something to say is gone in mid-word: the stream is cut, not ended
        yield message
