"""A server of the test build: as servers.ServerProcess, and wrong in the way it is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from servers import ServerProcess, clean_environment
from testbuild import failpoints
from testbuild.failpoints import Strike, Struck

# `python -m testbuild` finds itself by this.
ENVIRONMENT = clean_environment() | {"PYTHONPATH": str(Path(__file__).parent.parent)}


def command(mutant: str | None, *rest: str) -> list[str]:
    """The command line of a program of the test build. `mutant` names what is wrong with it; None: nothing is."""
    return [sys.executable, "-m", "testbuild", *(["--mutant", mutant] if mutant else []), *rest]


class BuiltServer(ServerProcess):
    """On a given database. `mutant` names what is wrong with it; None: nothing is."""

    def __init__(self, data_dir: Path, dsn: str, mutant: str | None = None) -> None:
        super().__init__(data_dir, dsn=dsn, env=ENVIRONMENT)
        self._mutant = mutant
        self._strikes = data_dir.parent / f"{data_dir.name}.strikes"
        self._struck = data_dir.parent / f"{data_dir.name}.struck"

    def start(self, strikes: Sequence[Strike] = ()) -> BuiltServer:
        """Starts it, and does not wait. It will suffer the strikes in their order."""
        failpoints.write(self._strikes, strikes)
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        self._struck.unlink(missing_ok=True)
        files = ["--strikes", str(self._strikes), "--struck", str(self._struck)]
        addresses = ("--grpc-address", self.grpc_address, "--http-address", self.http_address)
        serve = ["server", "serve", "--data-dir", str(self.data_dir), *addresses, "--log-format", "json"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command(self._mutant, *files, *serve),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
            )
        return self

    def close(self) -> None:
        """Kills it if it still runs: the database is not its own, and somebody else's to close."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def struck(self) -> list[Struck]:
        """The strikes that it has suffered since the last start."""
        return failpoints.suffered(self._struck)
