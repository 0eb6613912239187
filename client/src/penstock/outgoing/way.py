"""How a file gets to the server: by the calls of `uploads`."""

from __future__ import annotations

import threading
from collections.abc import Callable

import grpc

from penstock.address import Address
from penstock.outgoing.box import Entry
from penstock.transport import Channels
from penstock.uploads import upload_artifact
from penstock.wire import Wire

_PATIENCE = 3.0  # seconds; who is away for longer, the courier waits for


class _Channels(Channels):
    """Those of somebody who may end while threads still call: what is closed stays closed."""

    _closed = False

    def to(self, address: Address) -> grpc.Channel:
        channel = super().to(address)
        if self._closed:
            channel.close()  # a call over it ends as over any that is closed
        return channel

    def close(self) -> None:
        self._closed = True
        super().close()


class GrpcWay:
    """Shared by the threads that send. Connects with the first file."""

    def __init__(self, address: Address, patience: float = _PATIENCE) -> None:
        """With less `patience`, in seconds, it is told earlier that a server is away."""
        self._wire = Wire(address, channels=_Channels(), beside_forks=True)
        self._patience = min(patience, _PATIENCE)

    def send(self, run_id: str, entry: Entry, told: Callable[[int], None], stopping: threading.Event) -> None:
        """Send it, as `courier.Way` has it."""
        what = entry.data if entry.file is None else entry.file
        upload_artifact(self._wire, run_id, what, entry.path, progress=told, stop=stopping, patience=self._patience)

    def close(self) -> None:
        """Let go of the connection, for good, and end what goes over it."""
        self._wire.close()
