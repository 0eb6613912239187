"""Training programs, each a process of its own, with a ledger of what they have logged; and what became of that.

Before a program's own lines stand PREAMBLE's. A line is in the ledger only once `run.log` has returned.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import penstock

DEADLINE = 60.0  # generous: the machine may be busy with other tests

PREAMBLE = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork() beside threads: that is what we are here for
import penstock

url, run_id, ledger = sys.argv[1:4]
told = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def start(**more):
    more = {"run_id": run_id, "finish_timeout": 60.0} | more
    return penstock.start_run("training", url=url, **more)

def log(name, steps, run=None):
    for step in steps:
        (run or globals()["run"]).log({name: step / 3}, step, time=1_000_000 + step)
        os.write(told, f"{name} {step}\\n".encode())

def strike(number):
    os.kill(os.getpid(), number)
    while True:  # another thread may be the one that is struck, which does not end this one's sleep
        time.sleep(0.05)

"""


class Training:
    """A process that runs `script`. Ended by `wait` or `kill`."""

    def __init__(self, script: str, url: str, ledger: Path, run_id: str | None = None, **env: str) -> None:
        self.run_id = run_id or uuid.uuid4().hex
        self._ledger = ledger
        # Not what other tests in this process have set by importing Penstock.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), url, self.run_id, str(ledger)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean | env,
        )

    def until(self, word: str) -> None:
        """Until it has printed this line."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.strip() == word:
                return
        _, stderr = self.process.communicate(timeout=DEADLINE)
        raise AssertionError(f"it ended before {word!r}:\n{stderr}")

    def wait(self, code: int = 0, seconds: float = DEADLINE) -> str:
        """Its stderr, when it has ended with this exit code."""
        try:
            _, stderr = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, stderr = self.process.communicate()
            raise AssertionError(f"it did not end:\n{stderr}") from None
        assert self.process.returncode == code, stderr
        return stderr

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.wait(-signal.SIGKILL)

    @property
    def logged(self) -> dict[str, list[int]]:
        """The steps of each metric for which `log` has returned, sorted."""
        return steps_in(self._ledger)


def steps_in(ledger: Path) -> dict[str, list[int]]:
    """The steps of each metric for which `log` has returned, sorted."""
    found: dict[str, list[int]] = {}
    for line in ledger.read_text().splitlines():
        name, step = line.split()
        found.setdefault(name, []).append(int(step))
    return {name: sorted(steps) for name, steps in found.items()}


def stored(client: penstock.Client, run_id: str) -> dict[str, list[int]]:
    """The steps of each metric of a run, sorted. Their values and times are those that `log` of PREAMBLE gives."""
    found = {}
    for name, history in client.metric_histories(run_id).items():
        assert list(history.values) == [step / 3 for step in history.steps]
        assert list(history.times_ms) == [1000 * (1_000_000 + step) for step in history.steps]
        found[name] = list(history.steps)
    return found


def sync(*args: str) -> str:
    """`penstock sync`, as a process; everything has to be sent by it. Returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "sync", *args], capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def beside_ours(stderr: str) -> str:
    """What a process wrote to stderr, without the lines that we write there on purpose."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("run ", "penstock: run ")))


@contextmanager
def silent_listener() -> Iterator[str]:
    """The address of somebody who accepts every connection and never says a word."""
    accepted: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                accepted.append(listener.accept()[0])
            except OSError:  # closed
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in accepted:
                each.close()
