"""A real S3 server for tests: `rclone serve s3` on a loopback port, with a directory for each bucket."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

ACCESS_KEY = "penstock-tests"
SECRET_KEY = "not-much-of-a-secret"
REGION = "us-east-1"
START_SECONDS = 30
BINARY = Path(sys.executable).with_name("rclone")


class S3Server:
    """Keeps its port and its directory when started again; not the uploads in parts that had no end, as it is.

    `directory` has a directory of files for each bucket; `bucket` is there from the start.
    """

    def __init__(self, directory: Path, *args: str, bucket: str = "tests") -> None:
        self.directory = directory
        self.bucket = bucket
        self.port = 0
        self._args = args
        self._process: subprocess.Popen[bytes] | None = None
        (directory / bucket).mkdir(parents=True, exist_ok=True)

    def start(self) -> S3Server:
        """Starts it, and waits until it takes connections. On another port when its first one was snatched away."""
        for _ in range(5):
            port = self.port or _free_port()
            if self._start_at(port):
                self.port = port
                return self
        raise AssertionError(f"rclone does not start:\n{self.log}")

    def _start_at(self, port: int) -> bool:
        command = [
            str(BINARY),
            "serve",
            "s3",
            str(self.directory),
            "--config",
            os.devnull,
            "--addr",
            f"127.0.0.1:{port}",
        ]
        # --vfs-write-wait etc. stay as they are: what people run is what is tested.
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", *self._args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                return self._process.poll() is None
            time.sleep(0.02)
        self.kill()
        return False

    def stop(self) -> None:
        """By SIGTERM, as its owner would. May be called again."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)
            self._process = None

    def restart(self) -> S3Server:
        """Killed and started."""
        self.kill()
        return self.start()

    def __enter__(self) -> S3Server:
        return self if self._process else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def root(self) -> str:
        """For `artifacts_root`."""
        return f"s3://{self.bucket}/some/prefix"

    @property
    def credentials(self) -> dict[str, str]:
        """For the environment of a process that shall reach it. No machine's own configuration comes in."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def environment(self) -> dict[str, str]:
        """For a Penstock server that keeps its artifacts here."""
        return self.credentials | {"PENSTOCK_ARTIFACTS_ROOT": self.root, "PENSTOCK_S3_ENDPOINT": self.endpoint}

    @property
    def files(self) -> list[str]:
        """All objects below the root, as keys, also what rclone hides."""
        top = self.directory / self.root.removeprefix("s3://")
        return sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file())

    def wipe(self) -> None:
        """Empties the bucket."""
        shutil.rmtree(self.directory / self.bucket)
        (self.directory / self.bucket).mkdir()

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    @property
    def _log_file(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}.log")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
