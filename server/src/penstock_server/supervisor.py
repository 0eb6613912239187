"""A server of several processes that share the ports: this one prepares the database, starts the others (worker.py),
starts again those that die, and stops them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from prometheus_client.multiprocess import mark_process_dead

from penstock_server import ports
from penstock_server.app import Announce, NotDrainedError, prepared
from penstock_server.config import Settings
from penstock_server.stop import Stop
from penstock_server.worker import Orders

log = structlog.get_logger(__name__)

# All in seconds. A worker that dies is started again after the back-off, which doubles each time, and begins anew
# when it has lived for a while. What a worker gets beyond its own drain before it is killed.
_BACK_OFF = 0.5
_LONGEST_BACK_OFF = 30.0
_HEALTHY = 60.0
_KILL_AFTER = 5.0


async def run_several(settings: Settings, announce: Announce, lock: int) -> None:
    """A server of `settings.workers` processes, until SIGTERM or SIGINT. They are given the descriptor `lock`, so that
    it is held as long as one of them lives. Raises NotDrainedError when one did not commit all in time.
    """
    workers: list[_Worker] = []
    stop = Stop(at_once=lambda: _signal(workers, signal.SIGKILL))
    with stop.covered(), contextlib.ExitStack() as held:
        # Another program's port could be shared without either noticing. Once held, it stays ours.
        ports.check("grpc_address", settings.grpc_address)
        ports.check("http_address", settings.http_address)
        grpc_sockets = ports.share("grpc_address", settings.grpc_address)
        http_sockets = ports.share("http_address", settings.http_address)
        for listener in (*grpc_sockets, *http_sockets):
            held.enter_context(listener)
        grpc_address = ports.bound(grpc_sockets, settings.grpc_address)
        http_address = ports.bound(http_sockets, settings.http_address)
        given = settings.model_dump(mode="json", exclude={"database_url"})
        given |= {"grpc_address": str(grpc_address), "http_address": str(http_address)}
        metrics_dir = _emptied(settings.data_dir / "metrics")
        async with prepared(settings) as dsn:
            stop.started()
            numbers = range(1, settings.workers + 1)
            workers += [_Worker(Orders(number, given, dsn, str(metrics_dir)), lock, stop) for number in numbers]
            await _keep(workers, stop, settings.drain_seconds, lambda: announce(grpc_address, http_address))


async def _keep(workers: Sequence[_Worker], stop: Stop, drain_seconds: float, announce: Callable[[], None]) -> None:
    """Keeps the workers alive until `stop`, then lets them drain."""
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.keep(), name=f"worker-{worker.orders.number}")
        announcing = group.create_task(_announce(workers, announce))
        await stop.wait()
        announcing.cancel()
        _signal(workers, signal.SIGTERM)
        killing = asyncio.get_running_loop().call_later(drain_seconds + _KILL_AFTER, _signal, workers, signal.SIGKILL)
    killing.cancel()
    if late := [worker.orders.number for worker in workers if worker.exit_code]:
        raise NotDrainedError(f"these workers did not end well: {late}; their writers will send again what is missing")


async def _announce(workers: Sequence[_Worker], announce: Callable[[], None]) -> None:
    for worker in workers:
        await worker.ready.wait()
    announce()


class _Worker:
    """A process that is started again when it dies. `exit_code` is that of its end after `stop`."""

    def __init__(self, orders: Orders, lock: int, stop: Stop) -> None:
        self.orders = orders
        self.ready = asyncio.Event()
        self.exit_code = 0
        self._lock = lock
        self._stop = stop
        self._process: asyncio.subprocess.Process | None = None

    async def keep(self) -> None:
        """Keeps one alive until `stop`."""
        back_off = _BACK_OFF
        while True:
            began = time.monotonic()
            exit_code = await self._live()
            if self._stop.asked:
                self.exit_code = exit_code
                return
            if time.monotonic() - began > _HEALTHY:
                back_off = _BACK_OFF
            log.error("worker died", worker=self.orders.number, exit_code=exit_code, again_in=back_off)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(back_off):
                    await self._stop.wait()
                    return
            back_off = min(_LONGEST_BACK_OFF, back_off * 2)

    def signal(self, number: signal.Signals) -> None:
        """Signals the process, if there is one."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _live(self) -> int:
        """One life: from start to exit code."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "penstock_server.worker"),
                stdin=theirs.fileno(),
                pass_fds=(self._lock,),
                start_new_session=True,  # Ctrl-C is for us; they are told
                env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": self.orders.metrics_dir},
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            writer.write(self.orders.line())
            if self._stop.asked:
                self.signal(signal.SIGTERM)
            if await reader.readline():
                log.info("worker ready", worker=self.orders.number, pid=self._process.pid)
                self.ready.set()
            return await self._process.wait()
        finally:
            self.signal(signal.SIGKILL)  # when we are cancelled
            writer.close()
            mark_process_dead(self._process.pid, self.orders.metrics_dir)  # type: ignore[no-untyped-call]


def _signal(workers: Sequence[_Worker], number: signal.Signals) -> None:
    for worker in workers:
        worker.signal(number)


def _emptied(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return directory
