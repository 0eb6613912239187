"""The file that a download is written to until it is whole: its bytes, and behind them how far each range has come.

It lies beside its target, so that it can be moved there at once, and whoever downloads the same file to the same place
goes on with it. Where files cannot be locked, and on Windows, each has one of his own, which ends with him. Nothing is
synced: after a loss of power it may say more than there is, and then the digest tells.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
from pathlib import Path
from typing import BinaryIO, Self

from penstock.copying import within_kernel
from penstock.paths import PART_SUFFIX
from penstock.wire import CHUNK

if os.name == "nt":
    _LOCKS = False  # and what others have open is not moved
else:
    import fcntl

    _LOCKS = True

_MAGIC = b"penstock part 1\n"
_MARK = struct.Struct("<Q")
_NAME_LIMIT = 255
_BLOCK = 256 << 10  # hashed at once: stays in the processor's cache


class Partial:
    """A context. Each range is written by one thread at a time."""

    def __init__(self, target: Path, size: int, sha256: bytes, range_bytes: int) -> None:
        """Opens what there is of this very file, or makes an empty one. Raises OSError."""
        self._target = target
        self._size = size
        self.range_bytes = range_bytes
        self.done = [0] * -(-size // range_bytes)  # bytes of each range that are there
        self._head = _MAGIC + sha256 + _MARK.pack(range_bytes)
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._hashing = threading.Lock()
        self._whole = 0  # ranges, from the first on
        shared = _shared(name_for(target))
        self._shared = shared is not None
        self._path, self._file = shared or _alone(target)
        try:
            self._recall()
            self._reader = self._path.open("rb", buffering=0)  # hashes what is written meanwhile
        except BaseException:
            self._file.close()
            raise
        self._block = memoryview(bytearray(_BLOCK))
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        with self._lock, self._hashing:  # after Ctrl-C a thread may still write, or hash
            self._file.close()
            self._reader.close()
        if not self._shared:
            self._path.unlink(missing_ok=True)

    def length(self, number: int) -> int:
        """Of a range, in bytes; its first byte is at `number * range_bytes`."""
        return min(self.range_bytes, self._size - number * self.range_bytes)

    def write(self, number: int, data: bytes | memoryview) -> None:
        """The bytes that come next in a range. Raises OSError."""
        view = memoryview(data)
        with self._lock:
            self._file.seek(number * self.range_bytes + self.done[number])
            while view:
                view = view[self._file.write(view) :]
            self.done[number] += len(data)
            self._mark(number)

    def copy(self, number: int, source: io.FileIO, most: int) -> int:
        """As `write`, from the same place of another file. How many bytes it was; none where that has ended."""
        at = number * self.range_bytes + self.done[number]
        with self._lock:
            self._file.seek(at)
            count = within_kernel(source.fileno(), self._file.fileno(), at, most)
            if count:
                self.done[number] += count
                self._mark(number)
                return count
        source.seek(at)
        data = source.read(min(CHUNK, most))
        self.write(number, data)
        return len(data)

    def hash_on(self) -> None:
        """Hash what is there without gaps, unless another thread is at it."""
        while not self._closed and self._hashing.acquire(blocking=False):
            try:
                block = self._block[: max(0, self._gapless() - self._hashed)]
                self._reader.seek(self._hashed)
                count = self._reader.readinto(block)
                if not count:
                    return
                self._hash.update(block[:count])
                self._hashed += count
            finally:
                self._hashing.release()

    def digest(self) -> bytes:
        """Of the whole, once all is there."""
        self.hash_on()
        return self._hash.digest()

    def finish(self) -> None:
        """Move it to its target. Raises OSError."""
        self._file.truncate(self._size)
        if not _LOCKS:
            self._file.close()
            self._reader.close()
        self._path.replace(self._target)

    def discard(self) -> None:
        """It is not what it should be."""
        self._file.truncate(0)
        if not _LOCKS:
            self._file.close()
            self._reader.close()
        self._path.unlink(missing_ok=True)

    def _gapless(self) -> int:
        """How many bytes; asked by one thread at a time."""
        while self._whole < len(self.done) and self.done[self._whole] == self.length(self._whole):
            self._whole += 1
        more = self.done[self._whole] if self._whole < len(self.done) else 0
        return min(self._size, self._whole * self.range_bytes + more)

    def _recall(self) -> None:
        """How far it had come, when it is of the same bytes in the same ranges; else it is begun anew."""
        tail = len(self._head) + len(self.done) * _MARK.size
        if os.fstat(self._file.fileno()).st_size == self._size + tail:
            self._file.seek(self._size)
            data = self._file.read(tail)
            if data.startswith(self._head):
                marks = [mark for (mark,) in _MARK.iter_unpack(data[len(self._head) :])]
                self.done = [min(mark, self.length(number)) for number, mark in enumerate(marks)]
                return
        self._file.truncate(0)
        self._file.truncate(self._size + tail)
        self._file.seek(self._size)
        self._file.write(self._head)

    def _mark(self, number: int) -> None:
        self._file.seek(self._size + len(self._head) + number * _MARK.size)
        self._file.write(_MARK.pack(self.done[number]))


def name_for(target: Path, more: str = "") -> Path:
    """Of the file beside `target`. Where that would be too long a name, a hash stands for it."""
    name = f".{more}{target.name}{PART_SUFFIX}"
    if len(os.fsencode(name)) > _NAME_LIMIT:
        digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]
        name = f".{more}{digest}{PART_SUFFIX}"
    return target.with_name(name)


def _alone(target: Path) -> tuple[Path, BinaryIO]:
    path = name_for(target, f"{os.urandom(8).hex()}-")
    return path, _open(path, os.O_EXCL)


def _shared(path: Path) -> tuple[Path, BinaryIO] | None:
    """With a lock; None when another has it, or there are none: two who write to one file make a wrong one."""
    while _LOCKS:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:  # a file system without locks
            empty = not os.fstat(file.fileno()).st_size
            file.close()
            if empty:
                path.unlink(missing_ok=True)
            return None
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return path, file
        except FileNotFoundError:
            pass
        file.close()  # it was whole, and moved, just now
    return None


def _open(path: Path, how: int = 0) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | how
    return os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
