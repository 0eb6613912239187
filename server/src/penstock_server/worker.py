"""One of several processes that share the ports: `python -m penstock_server.worker`, started by supervisor.py.

Its standard input is a socket to its supervisor: what to do comes in as one line, "ready" goes out, and when the
supervisor is gone, so is the reason to live.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
import uvloop

from penstock_server import app, failures, logs, ports
from penstock_server.config import Settings
from penstock_server.stop import Stop


@dataclass(frozen=True, slots=True)
class Orders:
    """What a supervisor tells its worker. `settings` are as JSON has them; the addresses in it have real ports."""

    number: int
    settings: dict[str, Any]
    dsn: str
    metrics_dir: str

    def line(self) -> bytes:
        """As they are sent."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> int:
    """Works until told to stop, and returns the exit code."""
    with socket.socket(fileno=os.dup(0)) as supervisor:
        with supervisor.makefile("rb") as lines:
            orders = Orders(**json.loads(lines.readline()))
        settings = Settings(**orders.settings)
        logs.configure(settings.log_format, settings.log_level)
        structlog.contextvars.bind_contextvars(worker=orders.number)
        return failures.exit_code(lambda: uvloop.run(_run(orders, settings, supervisor)))


async def _run(orders: Orders, settings: Settings, supervisor: socket.socket) -> None:
    stop = Stop()
    reader, writer = await asyncio.open_connection(sock=supervisor)
    watching = asyncio.create_task(_watch(reader, stop))
    try:
        with stop.covered():
            await app.serve(
                settings,
                _given(orders.dsn),
                ports.share("http_address", settings.http_address),
                metrics_dir=Path(orders.metrics_dir),
                stop=stop,
                announce=lambda *_: writer.write(b"ready\n"),
            )
    finally:
        watching.cancel()
        writer.close()


async def _watch(supervisor: asyncio.StreamReader, stop: Stop) -> None:
    await supervisor.read()
    stop.ask("the supervisor is gone")


@asynccontextmanager
async def _given(dsn: str) -> AsyncIterator[str]:
    yield dsn


if __name__ == "__main__":
    sys.exit(main())
