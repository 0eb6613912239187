"""A line to a server that counts what goes over it, and can be cut after so many bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

_PIECE = 1 << 16


class Line:
    """A TCP forwarder to `upstream`, host:port. `up` and `down` are bytes so far, of all connections."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self.counted = {"up": 0, "down": 0}
        self.cuts = 0
        self._cut_at: dict[str, int] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def up(self) -> int:
        return self.counted["up"]

    @property
    def down(self) -> int:
        return self.counted["down"]

    def cut_after(self, **more: int) -> None:
        """Cuts all connections, once, when so many more bytes have gone `up` or `down`."""
        with self._lock:
            self._cut_at = {way: self.counted[way] + count for way, count in more.items()}

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                try:
                    there = socket.create_connection(self._upstream)
                except OSError:
                    here.close()
                    continue
                self._sockets += [here, there]
                for way, source, target in (("up", here, there), ("down", there, here)):
                    threading.Thread(target=self._pump, args=(way, source, target), daemon=True).start()

    def _pump(self, way: str, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                target.sendall(data)
                with self._lock:
                    self.counted[way] += len(data)
                    cut = self.counted[way] >= self._cut_at.get(way, 1 << 62)
                    if cut:
                        self._cut_at = {}
                        self.cuts += 1
                if cut:
                    self._shut()
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _shut(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._shut()
