"""Other servers of MLflow's API to measure beside ours, each with a PostgreSQL of its own like the one that we embed.

They are installed once, into virtual environments beside ours: `.venv-bench-mlflow`, `.venv-bench-fasttrackml`.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from penstock_server.postgres.embedded import Embedded

ROOT = Path(__file__).parent.parent
UV = Path(sys.executable).parent / "uv"
FASTTRACKML = ["--no-deps", "fasttrackml==0.6.0"]  # it is a program in Go; what it depends on is for its client
MLFLOW = ["mlflow", "psycopg2-binary==2.9.13", "--constraint", str(ROOT / "constraints-mlflow3.txt")]
_START_SECONDS = 300


@dataclass(frozen=True)
class Peer:
    """Where a server answers, which process it is, and the directory that has its artifacts."""

    name: str
    address: str
    pid: int
    artifacts: Path


def installed(name: str, packages: Sequence[str]) -> Path:
    """The programs of a virtual environment with these packages, which is made when it is not there."""
    where = ROOT / f".venv-bench-{name}"
    if not (where / "ready").exists():
        print(f"setting up {where.name} …", file=sys.stderr)
        subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, where], check=True)
        install = [UV, "pip", "install", "--quiet", "--only-binary", ":all:", "--python", where / "bin" / "python"]
        subprocess.run([*install, *packages], check=True)
        (where / "ready").touch()
    return where / "bin"


@contextmanager
def mlflow() -> Iterator[Peer]:
    """MLflow's own server, as `mlflow server` starts it."""
    program = installed("mlflow", MLFLOW) / "mlflow"
    with _directory() as directory, _postgresql(directory) as dsn:
        address, artifacts = _free_address(), directory / "artifacts"
        host, port = address.split(":")
        store = dsn.replace("postgresql:", "postgresql+psycopg2:")
        command = [program, "server", "--host", host, "--port", port, "--backend-store-uri", store]
        with _started([*command, "--artifacts-destination", artifacts], directory, address) as pid:
            yield Peer("MLflow", address, pid, artifacts)


@contextmanager
def fasttrackml() -> Iterator[Peer]:
    """FastTrackML."""
    program = installed("fasttrackml", FASTTRACKML) / "fml"
    with _directory() as directory, _postgresql(directory) as dsn:
        address, artifacts = _free_address(), directory / "artifacts"
        command = [program, "server", "--database-uri", dsn, "--listen-address", address, "--log-level", "error"]
        with _started([*command, "--default-artifact-root", artifacts], directory, address) as pid:
            yield Peer("FastTrackML", address, pid, artifacts)


def memory_mb(pid: int) -> float:
    """The memory in MB of a process and of all that it started but PostgreSQL; what they share is counted once."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (entry / "stat").read_text().partition(" (")[2].rpartition(") ")
        except OSError:  # it has ended
            continue
        if name != "postgres":
            children.setdefault(int(rest.split()[1]), []).append(int(entry.name))
    total, left = 0, [pid]
    while left:
        one = left.pop()
        left += children.get(one, [])
        lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    directory.chmod(0o755)  # PostgreSQL may be another user's
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _postgresql(directory: Path) -> Iterator[str]:
    database = Embedded(directory / "postgres")
    database.start()
    try:
        yield database.dsn
    finally:
        database.stop()


@contextmanager
def _started(command: Sequence[str | Path], directory: Path, address: str) -> Iterator[int]:
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"GIT_PYTHON_REFRESH": "quiet"},
        )
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start: {(directory / 'log').read_text()[-2000:]}")
                time.sleep(0.2)
            yield process.pid
        finally:
            for ending in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, ending)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
