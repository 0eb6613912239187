"""How a file gets to the server: by the calls of `uploads`."""

from __future__ import annotations

import threading
from collections.abc import Callable

from penstock.address import Address
from penstock.outgoing.box import Entry
from penstock.uploads import upload
from penstock.wire import Wire

_PATIENCE = 3.0  # seconds; who is away for longer, the courier waits for


class GrpcWay:
    """Shared by the threads that send. Connects with the first file."""

    def __init__(self, address: Address) -> None:
        self._wire = Wire(address, beside_forks=True)

    def send(self, run_id: str, entry: Entry, told: Callable[[int], None], stopping: threading.Event) -> None:
        """Send it, as `courier.Way` has it."""
        what = entry.data if entry.file is None else entry.file
        upload(self._wire, run_id, what, entry.path, progress=told, stop=stopping, patience=_PATIENCE)

    def close(self) -> None:
        """Let go of the connection, and end what goes over it."""
        self._wire.close()
