"""A copy of a file as it is now, as cheaply as the file system lets us."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from penstock.copying import within_kernel, write_all

if sys.platform == "linux":
    import fcntl

_FICLONE = 0x4004_9409  # the same number on all machines but some that nobody trains on; there it is refused
_READ = 1 << 20


def take(source: Path, target: Path, *, durable: bool = False) -> int:
    """Copy `source` to `target`, which is made. Returns the size in bytes. Raises OSError; then there is no target.

    Blocks are shared where the file system can do that (Btrfs, XFS), and then it takes no time and no room.
    """
    with open_plain(source) as given, _made(target, durable=durable) as descriptor:
        return _copy(given.fileno(), descriptor)


def write(data: bytes, target: Path, *, durable: bool = False) -> None:
    """Make a file of some bytes. Raises OSError; then there is none."""
    with _made(target, durable=durable) as descriptor:
        write_all(descriptor, data)


@contextmanager
def _made(target: Path, *, durable: bool) -> Iterator[int]:
    """A new file. It is gone again when what is done with it raises."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        yield descriptor
        if durable:
            os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise
    finally:
        os.close(descriptor)


def open_plain(path: Path) -> FileIO:
    """A file to be read: not a directory, and not a pipe, which might keep us waiting for ever. Raises OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return FileIO(path)


def _copy(source: int, target: int) -> int:
    """What there is of the source now; what is appended meanwhile is left."""
    size = os.fstat(source).st_size
    if sys.platform == "linux":
        with suppress(OSError):
            fcntl.ioctl(target, _FICLONE, source)
            return os.fstat(target).st_size
    done = within_kernel(source, target, 0, size)
    os.lseek(source, done, os.SEEK_SET)
    # Some file systems tell no size, or an older kernel copies nothing.
    while done < size or not size:
        chunk = os.read(source, _READ)
        if not chunk:
            break
        write_all(target, chunk)
        done += len(chunk)
    return done
