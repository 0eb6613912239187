"""A process that trains, and logs files to its run; it can be killed. What it has logged is on disk until it is sent.

`python -m artifacts.trainer URL RUN_ID` reads a line of JSON for each file, and answers with one when it is logged.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from campaign.troupe import environment

from artifacts.player import bury

_SECONDS = 120


class Trainer:
    """One life of it."""

    def __init__(self, url: str, run_id: str, directory: Path, spool: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._said = directory.with_suffix(".stderr")
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "artifacts.trainer", url, run_id],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment({"PENSTOCK_SPOOL_DIR": str(spool)}),
            )

    def log(self, path: str, data: bytes) -> None:
        """Returns when the call has returned; the file is changed right after that."""
        directory, _, name = path.rpartition("/")
        file = self._directory / name
        file.write_bytes(data)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(file), directory]).encode() + b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"logged\n", self._said.read_text()
        file.write_bytes(b"something else")

    def finish(self) -> None:
        """Its end, with everything sent."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(_SECONDS) == 0, self._said.read_text()
        bury(self._process)

    def kill(self) -> None:
        """SIGKILL. May be called again."""
        self._process.kill()
        bury(self._process)


def sync(spool: Path) -> None:
    """`penstock sync` of what processes that were killed have left."""
    command = [sys.executable, "-m", "penstock.cli", "sync", "--dir", str(spool)]
    done: Any = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=_SECONDS)
    assert done.returncode == 0, f"penstock sync: {done.returncode}\n{done.stdout}{done.stderr}"


def main() -> None:
    """Logs what it is told to, and finishes."""
    import penstock

    url, run_id = sys.argv[1:]
    run = penstock.start_run(experiment="faults", run_id=run_id, url=url)
    for line in sys.stdin:
        file, directory = json.loads(line)
        run.log_artifact(file, directory)
        print("logged", flush=True)
    run.finish(timeout=_SECONDS)


if __name__ == "__main__":
    main()
