"""Real server processes for tests: started, waited for, stopped or killed, started again at the same addresses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from penstock_server.postgres.embedded import Embedded

# Generous: the machine may be busy with other tests.
START_SECONDS = 60
STOP_SECONDS = 60

_COMMAND = (sys.executable, "-m", "penstock_server")


class ServerProcess:
    """`penstock-server serve` on a data directory. Takes ports that are free at its first start, and keeps them.

    With `dsn` it uses that database, else the embedded one.
    """

    def __init__(
        self, data_dir: Path, *args: str, dsn: str | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir
        self.grpc_address = "127.0.0.1:0"
        self.http_address = "127.0.0.1:0"
        self._args = args
        self._env = clean_environment() | ({"PENSTOCK_DATABASE_URL": dsn} if dsn else {}) | dict(env or {})
        self._embedded = dsn is None
        self._log = data_dir.parent / f"{data_dir.name}.log"
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> ServerProcess:
        """Starts it, and does not wait."""
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        addresses = ("--grpc-address", self.grpc_address, "--http-address", self.http_address)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_COMMAND, "serve", "--data-dir", str(self.data_dir), *addresses, "--log-format", "json", *self._args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
            )
        return self

    def wait_ready(self, seconds: float = START_SECONDS) -> ServerProcess:
        """Waits until it serves, and learns its addresses. Fails with the log when it ends first."""
        event = self.wait_event("serving", seconds)
        self.grpc_address, self.http_address = event["grpc_address"], event["http_address"]
        return self

    def wait_event(self, name: str, seconds: float = START_SECONDS) -> dict[str, Any]:
        """Waits for an event in the log since the last start, and returns it."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self._process is None or self._process.poll() is not None
            for event in self.events:
                if event["event"] == name:
                    return event
            assert not ended, f"the server ended before {name!r}:\n{self.log}"
            assert time.monotonic() < deadline, f"no {name!r} within {seconds} s:\n{self.log}"
            time.sleep(0.02)

    def wait_exit(self, seconds: float = STOP_SECONDS) -> int:
        """Waits until it has ended, and returns the exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        """Signals the server's main process."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(seconds)

    def kill(self) -> None:
        """SIGKILL to the main process; an embedded PostgreSQL goes on."""
        self.signal(signal.SIGKILL)
        self.wait_exit()

    def close(self) -> None:
        """Stops whatever still runs, PostgreSQL included."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
            self._process.kill()
            self._process.wait()
        embedded = Embedded(self.data_dir / "postgres")
        if self._embedded and embedded.accepts():
            embedded.start()
            embedded.stop()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def ended(self) -> bool:
        """Whether the main process has ended."""
        assert self._process is not None
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        """The main process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has printed and logged since the last start."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log's events since the last start."""
        lines = [line for line in self.log.splitlines(keepends=True) if line.endswith("\n")]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of an HTTP page."""
        try:
            with urllib.request.urlopen(f"http://{self.http_address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode()

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A gRPC channel to it, with the server's message limit."""
        limit = 64 * 1024 * 1024
        options = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)]
        with grpc.insecure_channel(self.grpc_address, options=[*options, ("grpc.use_local_subchannel_pool", 1)]) as it:
            yield it


def clean_environment() -> dict[str, str]:
    """Ours without settings: neither Penstock's nor PostgreSQL's reach the process by accident."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PG"))}


def command(*args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> tuple[int, str, str]:
    """Runs a `penstock-server` command to its end: exit code, standard output, standard error."""
    done = subprocess.run(
        [*_COMMAND, *args],
        capture_output=True,
        text=True,
        env=clean_environment() | dict(env or {}),
        cwd=cwd,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
