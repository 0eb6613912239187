"""Segments: the files a spool is made of, or the memory that stands in where there is no disk to write to.

A segment begins with a head and defines the shapes of its frames, so it can be read without the others.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from penstock.batches import Names

SUFFIX = ".log"
_NAME = re.compile(r"[0-9]{8,}" + re.escape(SUFFIX))
_RESERVE_BYTES = 4 << 20
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_COPY_BYTES = 128 << 10  # written while nobody else runs
_BINARY = getattr(os, "O_BINARY", 0)


def _plain_write(fd: int, data: bytes, length: int) -> int:
    try:
        return os.write(fd, data)
    except OSError as error:
        ctypes.set_errno(error.errno or errno.EIO)
        return -1


def _write_at_once() -> Callable[[int, bytes, int], int]:
    """write(2), without letting go of the interpreter's lock.

    os.write lets go of it, and when another thread computes, gets it back 5 ms later. Writing to the page cache
    takes a microsecond: with a busy thread beside it, one call in a hundred took 5 ms by os.write, 5 µs by this.
    Telling ctypes the types would double what it costs; an int, bytes and a small int are what it takes them for.
    """
    if sys.platform == "win32":
        return _plain_write
    try:
        return ctypes.PyDLL(None, use_errno=True).write
    except (OSError, AttributeError):
        return _plain_write


def _reserve_space() -> Callable[[int, int, int], None]:
    """fallocate(2), which reserves blocks beyond the end of a file and leaves its length as it is."""
    if not sys.platform.startswith("linux"):
        return lambda fd, at, length: None
    try:
        call = ctypes.CDLL(None, use_errno=True).fallocate64
    except (OSError, AttributeError):
        return lambda fd, at, length: None
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return lambda fd, at, length: call(fd, _KEEP_SIZE, at, length)


_reserve = _reserve_space()

# Returns how many bytes were written; less than all, or -1 (why: `write_error`), when something is wrong.
write = _write_at_once()


def write_error() -> OSError:
    """Why the last `write` of this thread did not write everything."""
    number = ctypes.get_errno() or errno.ENOSPC  # a short write is what a full disk does first
    return OSError(number, os.strerror(number))


class Segment:
    """Consecutive records, in a file or in memory. Appended to by the spool alone; read by anybody, at any time."""

    def __init__(self, first_seq: int, path: Path | None = None, fd: int = -1) -> None:
        self.first_seq = first_seq
        self.values_before = 0  # in the records before it
        self.path = path
        self.size = 0
        self.ended = False  # nothing is appended any more
        self.memory: bytearray | None = bytearray() if path is None else None
        self.acked_at = 0.0  # time.monotonic() when all of it was known to be committed
        self.shapes: dict[int, Names] = {}  # those that its reader has met
        self.fd = fd  # of its file; -1 where it has none, or it is not open
        self._synced = 0
        self._gone = False
        self._reserved = 0  # blocks are there up to this place

    def append(self, data: bytes) -> bool:
        """False: the file did not take all of it, and nothing must come after it. `write_error` tells why."""
        if self.memory is not None:
            self.memory += data
        elif write(self.fd, data, len(data)) != len(data):
            return False
        self.size += len(data)
        return True

    def take(self, other: Segment) -> None:
        """Append what the other has more than is here. Raises OSError."""
        while data := other.read(self.size, _COPY_BYTES):
            if not self.append(data):
                raise write_error()

    def read(self, at: int, length: int) -> bytes:
        """What is there from `at` on, at most `length` bytes. Raises OSError."""
        memory = self.memory
        if self._gone:
            return b""
        if memory is not None:
            return bytes(memory[at : at + length])
        fd = self._opened()
        if hasattr(os, "pread"):
            return os.pread(fd, length, at)
        os.lseek(fd, at, os.SEEK_SET)  # where it is appended to, that is done at the end all the same
        return os.read(fd, length)

    def _opened(self) -> int:
        if self.fd < 0:  # another process has written it
            assert self.path is not None
            self.fd = os.open(self.path, os.O_RDONLY | _BINARY)
        return self.fd

    def moved(self, path: Path, fd: int) -> None:
        """The same bytes are in this file from here on."""
        if self.fd < 0:
            self.fd = fd
        else:  # under the same number: somebody may be about to read by it
            os.dup2(fd, self.fd, inheritable=False)
            os.close(fd)
        self.path, self.memory = path, None
        self._synced = 0

    def look(self) -> int:
        """How many bytes are there. Raises OSError."""
        if self._gone:
            return 0
        return len(self.memory) if self.memory is not None else os.fstat(self._opened()).st_size

    @property
    def unlinked(self) -> bool:
        """Whether somebody has removed its file, which lives on for us alone."""
        try:
            return self.memory is None and self.fd >= 0 and os.fstat(self.fd).st_nlink == 0
        except OSError:
            if not self._gone:
                raise
            return False

    def reserve(self) -> None:
        """Have blocks for what comes next: without, a write waits for who syncs the file (ext4; 20 ms were seen)."""
        size = self.size
        if self.memory is None and not self.ended and self._reserved < size + _RESERVE_BYTES // 4:
            self._reserved = size + _RESERVE_BYTES
            _reserve(self.fd, size, _RESERVE_BYTES)  # where it fails, it is as without

    def trim(self) -> None:
        """Give back what is reserved. Only where nobody can append."""
        if self._reserved and self.fd >= 0:
            self._reserved = 0
            with suppress(OSError):
                os.ftruncate(self.fd, os.fstat(self.fd).st_size)

    def sync(self) -> None:
        """See to it that it outlives a loss of power. Raises OSError."""
        size = self.size
        if self.memory is None and self._synced != size:
            try:
                getattr(os, "fdatasync", os.fsync)(self.fd)
            except OSError:
                if not self._gone:
                    raise
            self._synced = size

    def close(self) -> None:
        """Let go of its file."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with suppress(OSError):  # a network's file system tells late what it could not write
                os.close(fd)

    def remove(self) -> None:
        """It is needed no more; its reader finds it empty."""
        self._gone = True
        self.close()
        if self.memory is not None:
            self.memory = bytearray()  # shapes that were defined here last may hold on to it
        if self.path is not None:
            with suppress(OSError):  # what cannot be removed now, the sweep removes with its directory
                self.path.unlink()


def create(directory: Path, ordinal: int) -> tuple[Path, int]:
    """A new file for a segment. Raises OSError."""
    path = directory / f"{ordinal:08d}{SUFFIX}"
    return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY, 0o600)


def stored(directory: Path) -> list[Path]:
    """The files of a spool's segments, in the order in which they were made. Raises OSError."""
    with os.scandir(directory) as entries:
        names = [each.name for each in entries if _NAME.fullmatch(each.name) and each.is_file(follow_symlinks=False)]
    return [directory / name for name in sorted(names, key=lambda name: (len(name), name))]
