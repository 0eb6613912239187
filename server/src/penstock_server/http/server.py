"""The HTTP server: uvicorn in the loop that everything else runs in, on sockets it is given."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette


class Server:
    """Serves `app` on `sockets`, which it then owns. `run` it in a task, `stop` it to let that end."""

    def __init__(self, app: Starlette, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=2,
                # Longer than a training takes between two things that it logs: a connection that closes just as a
                # request is sent costs the client another try.
                timeout_keep_alive=75,
            )
        )

    async def run(self) -> None:
        """Serves until stopped."""
        await self._uvicorn.serve(sockets=self._sockets)

    def stop(self) -> None:
        """Takes no more requests, answers those under way, lets `run` return."""
        self._uvicorn.should_exit = True


class _Uvicorn(uvicorn.Server):
    """Leaves the signals alone: uvicorn's own capture raises SIGTERM again when it is done, over our drain."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
