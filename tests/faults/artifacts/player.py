"""A member of a crew that is a process of its own with the client as people have it, so that it can be killed.

`python -m artifacts.player URL RUN_ID` reads a line of JSON for each file, and answers with one when it is there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from campaign.troupe import environment

_SECONDS = 150
_WAIT = 0.1


class Player:
    """Starts its process when there is something to do, and again whenever that has died."""

    def __init__(self, directory: Path, address: Callable[[], str], run_id: str) -> None:
        directory.mkdir()
        self.tries = self.resumed = self.sent = 0
        self.busy = 0  # bytes of what it has under way
        self._directory = directory
        self._address = address
        self._run_id = run_id
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()

    def deliver(self, path: str, data: bytes) -> None:
        """Has its process upload the file, and another when that dies, until it is there."""
        file = self._directory / "file"
        file.write_bytes(data)
        deadline = time.monotonic() + _SECONDS
        self.busy = len(data)
        try:
            while True:
                self.tries += 1
                answer = self._ask({"file": str(file), "path": path})
                if answer.get("done"):
                    return
                assert answer.get("again", True), f"{path}: {answer['error']}"
                assert time.monotonic() < deadline, f"{path}: {answer.get('error', 'its process was killed')}"
                assert not self._closed.wait(_WAIT), "closed"
        finally:
            self.busy = 0

    def kill(self) -> None:
        """SIGKILL."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """Its end."""
        self._closed.set()
        if (process := self._process) is not None:
            process.kill()
            bury(process)

    def _ask(self, command: dict[str, str]) -> dict[str, object]:
        """What its process answers; nothing when it dies."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(command).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        if line:
            told: dict[str, object] = json.loads(line)
            return told
        bury(process)
        return {}

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "artifacts.player", self._address(), self._run_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )


def bury(process: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a process, and closes its pipes."""
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()


def main() -> None:
    """Uploads what it is told to."""
    import penstock
    from penstock.errors import Retryable

    url, run_id = sys.argv[1:]
    with penstock.Client(url) as client:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                client.upload_artifact(run_id, command["file"], command["path"])
            except penstock.PenstockError as error:
                again = isinstance(error, Retryable)
                print(json.dumps({"error": repr(error), "again": again}), flush=True)
            else:
                print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    main()
