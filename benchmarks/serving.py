"""A Penstock server of one benchmark's own: in a temporary directory, on free ports, gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock_server.postgres.embedded import Embedded


@dataclass(frozen=True)
class Server:
    """Where it answers, where its database is, and how much memory its processes hold."""

    grpc_address: str
    http_address: str
    dsn: str
    pid: int

    def memory_mb(self, what: str = "VmHWM") -> float:
        """The server process's peak (VmHWM) or present (VmRSS) memory in MB, PostgreSQL not included."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) / 1024
        raise LookupError(what)


@contextmanager
def server(*args: str) -> Iterator[Server]:
    """A server with an embedded PostgreSQL of its own."""
    directory = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    command = [sys.executable, "-m", "penstock_server", "serve", "--data-dir", str(directory / "data")]
    command += ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--log-format", "json", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "serving":
                break
        else:
            raise RuntimeError("the server did not start")
        os.set_blocking(process.stdout.fileno(), False)
        dsn = Embedded(directory / "data" / "postgres").dsn
        yield Server(event["grpc_address"], event["http_address"], dsn, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(directory)


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of all are not above."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def clock() -> float:
    """Seconds, for differences."""
    return time.perf_counter()
