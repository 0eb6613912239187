"""MLflow's own package, in an environment of its own: what is in the folder stock runs there against a server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from servers import clean_environment

ROOT = Path(__file__).parents[2]
STOCK = Path(__file__).parent / "stock"
FILES = sorted(file.stem for file in STOCK.glob("test_*.py"))
VERSIONS = (3, 2)
# A machine that does other things at the same time takes several times what is usual.
SECONDS = 600


def environment(version: int) -> Path:
    """Where that version of MLflow is."""
    return ROOT / f".venv-mlflow{version}"


@dataclass
class StockTests:
    """Files of tests, with a version of MLflow, against the server at `uri`, in one process."""

    version: int
    files: Sequence[str]
    uri: str
    directory: Path
    env: dict[str, str] = field(default_factory=dict)

    def run(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Fails, with what the tests said, when one of them does.

        `meanwhile` is called again and again until they have ended.
        """
        python = environment(self.version) / "bin" / "python"
        assert python.exists(), "make test sets it up"
        paths = [STOCK / f"{file}.py" for file in self.files]
        log = self.directory / "stock.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, "-m", "pytest", "-c", STOCK / "pytest.ini", *paths],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=self._environment(python.parent),
                start_new_session=True,
            )
        end = time.monotonic() + SECONDS
        try:
            while process.poll() is None:
                assert time.monotonic() < end, f"takes more than {SECONDS} s:\n{log.read_text()}"
                meanwhile()
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert process.returncode == 0, log.read_text()

    def _environment(self, binaries: Path) -> dict[str, str]:
        mine = {name: value for name, value in clean_environment().items() if not name.startswith("MLFLOW_")}
        return mine | {
            "PATH": f"{binaries}{os.pathsep}{mine['PATH']}",
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "MPLBACKEND": "Agg",
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_LOGGING_LEVEL": "ERROR",
            # What the server fails to do is seen at once, and not hidden by the next try.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            **self.env,
        }
