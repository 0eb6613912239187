"""The directory of a server: private, and held by one server at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path


class DataDirError(Exception):
    """The data directory cannot be used; the message says why and what to do."""


@contextlib.contextmanager
def hold(path: Path, patience: float) -> Iterator[int]:
    """Makes the directory where it is missing, and keeps other servers out until the end of the block.

    Yields the descriptor of the lock, for processes that are part of the server: the lock is the kernel's and ends
    with the last process that has it, however that ends. When they have outlived their server, which is how they
    commit what it had accepted, waits for them, `patience` seconds at most. Raises DataDirError.
    """
    make(path)
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(path, descriptor, time.monotonic() + patience)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def make(path: Path) -> None:
    """Makes the directory, for its owner alone. Raises DataDirError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if path.stat().st_uid == os.geteuid():
            # When we are root, PostgreSQL runs as another user, who must be able to walk through, and no more.
            path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise DataDirError(f"{path} cannot be made: {error.strerror}; choose another with --data-dir") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise DataDirError(f"{path} cannot be written to; change its owner, or choose another with --data-dir")


def _lock(path: Path, descriptor: int, deadline: float) -> None:
    while True:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        if _lives(holder) or time.monotonic() > deadline:
            raise DataDirError(
                f"{path} is in use by another Penstock server (process {holder or 'unknown'}); "
                "stop that, or give this one a directory of its own with --data-dir"
            )
        time.sleep(0.1)


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
