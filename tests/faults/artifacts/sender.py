"""A client that does what protos/penstock/v1/artifacts.proto asks of one, step by step as a test tells it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc

from penstock.v1 import artifacts_pb2 as ar
from penstock.v1.artifacts_pb2_grpc import ArtifactServiceStub

SECONDS = 60
_CHUNK = 256 << 10
_WAIT = 0.05
# Trying again may help; of ABORTED, from what is stored or from the beginning.
_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}


@dataclass
class Pause:
    """The stream stands still when so many bytes of the file were given to it, until `go`."""

    at: int
    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


class Cancelled(grpc.RpcError):
    """The sender was told to break off."""

    def code(self) -> grpc.StatusCode:
        """As of other errors."""
        return grpc.StatusCode.CANCELLED


class Sender:
    """Of one file. `address` is asked for at each try: it may be another replica each time."""

    def __init__(self, address: Callable[[], str], run_id: str, path: str, data: bytes, rate: float = 0) -> None:
        """`rate` is in bytes a second; 0: as fast as it goes."""
        self.address = address
        self.run_id = run_id
        self.path = path
        self.data = data
        self.rate = rate
        self.digest = hashlib.sha256(data).digest()
        self.over = False  # it is not tried again
        self.tries = 0
        self.sent = 0  # bytes, over all tries
        self.resumed = 0  # tries that did not begin at the beginning
        self.errors: list[grpc.StatusCode] = []
        self._upload_id = ""  # that was ours: others are not offered it while it may still be written
        self._call: grpc.Call | None = None

    def deliver(self, seconds: float = SECONDS, pause: Pause | None = None) -> ar.Artifact:
        """Tries until it is there. `pause` is of the first try. Raises the last error when it took too long."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.attempt(pause)
            except grpc.RpcError as error:
                self.errors.append(error.code())
                if error.code() not in _AGAIN or self.over or time.monotonic() > deadline:
                    raise
            pause = None
            time.sleep(_WAIT)

    def attempt(self, pause: Pause | None = None) -> ar.Artifact:
        """Asks how far it got, and sends the rest."""
        self.tries += 1
        with self._channel() as channel:
            stub = ArtifactServiceStub(channel)
            asked = ar.BeginUploadRequest(run_id=self.run_id, path=self.path, size=len(self.data), sha256=self.digest)
            asked.upload_id = self._upload_id
            begun = stub.BeginUpload(asked, timeout=SECONDS)
            if not begun.upload_id:
                return begun.artifact
            self._upload_id = begun.upload_id
            return self._send(stub, begun.upload_id, self._stored(begun), pause)

    def send(self, *, header: bytes = b"", trailer: bytes = b"", pause: Pause | None = None) -> ar.Artifact:
        """Sends all of it without asking, with whatever digests."""
        with self._channel() as channel:
            return self._send(ArtifactServiceStub(channel), "", 0, pause, header, trailer)

    def cancel(self) -> None:
        """Breaks off what is being sent."""
        if (call := self._call) is not None:
            call.cancel()

    def _stored(self, begun: ar.BeginUploadResponse) -> int:
        """Up to where what is stored is what we have."""
        good, end = 0, 0
        digest = hashlib.sha256()
        for part in begun.parts:
            digest.update(self.data[end : end + part.size])
            end += part.size
            if part.prefix_sha256 == digest.digest():
                good = end
        self.resumed += good > 0
        return good

    def _send(
        self,
        stub: ArtifactServiceStub,
        upload_id: str,
        offset: int,
        pause: Pause | None,
        header: bytes = b"",
        trailer: bytes | None = None,
    ) -> ar.Artifact:
        told = ar.UploadHeader(
            run_id=self.run_id,
            path=self.path,
            size=len(self.data),
            sha256=header,
            upload_id=upload_id,
            offset=offset,
        )
        trailer = self.digest if trailer is None else trailer

        def messages() -> Iterator[ar.UploadArtifactRequest]:
            yield ar.UploadArtifactRequest(header=told)
            for at in range(offset, len(self.data), _CHUNK):
                if pause is not None and at >= pause.at:
                    pause.reached.set()
                    pause.go.wait(SECONDS)
                piece = self.data[at : at + _CHUNK]
                self.sent += len(piece)
                if self.rate:
                    time.sleep(len(piece) / self.rate)
                yield ar.UploadArtifactRequest(chunk=piece)
            if trailer:
                yield ar.UploadArtifactRequest(trailer=ar.UploadTrailer(sha256=trailer))

        call = stub.UploadArtifact.future(messages(), timeout=SECONDS)
        self._call = call
        try:
            return call.result().artifact
        except grpc.FutureCancelledError:
            raise Cancelled from None
        finally:
            self._call = None
            if pause is not None:
                pause.reached.set()  # nobody waits for what has ended
                pause.go.set()

    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address(), options=[("grpc.use_local_subchannel_pool", 1)])
