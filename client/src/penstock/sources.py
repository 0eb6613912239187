"""What is uploaded: the bytes of a file, which must not change meanwhile, or of memory."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from penstock.copying import within_kernel, write_all
from penstock.errors import SourceChanged
from penstock.wire import CHUNK

_MARK = 8 << 20  # parts of uploads end at multiples of it
_BLOCK = 256 << 10  # hashed at once: stays in the processor's cache


class Source:
    """A context. Hashes no byte twice: it goes on where it was, and remembers the marks. Threads may share it."""

    def __init__(self, given: Path | bytes) -> None:
        """Raises OSError, or ValueError when it is no file."""
        self.name = f"file {str(given)!r}" if isinstance(given, Path) else "the bytes"
        self._file: io.FileIO | io.BytesIO
        self._memory = None if isinstance(given, Path) else memoryview(given)
        self._seen: os.stat_result | None = None
        if isinstance(given, Path):
            # Looked at first: to open a pipe would wait for who writes to it.
            if not stat.S_ISREG(given.stat().st_mode):
                what = "a directory; upload_artifacts takes those" if given.is_dir() else "no file"
                raise ValueError(f"{str(given)!r} is {what}")
            self._file = given.open("rb", buffering=0)
            self._seen = os.fstat(self._file.fileno())
            self.size = self._seen.st_size
        else:
            self._file = io.BytesIO(given)
            self.size = len(given)
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._block = memoryview(bytearray(min(_BLOCK, self.size)))
        self._marks: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._file.close()

    def check(self) -> None:
        """Raises SourceChanged when the file is not what it was at the beginning."""
        if self._seen is not None:
            now = os.fstat(self._file.fileno())
            if (now.st_size, now.st_mtime_ns) != (self._seen.st_size, self._seen.st_mtime_ns):
                raise self._changed()

    def read(self, start: int, length: int) -> bytes:
        """So many bytes. Raises SourceChanged when they are not there; OSError."""
        with self._lock:
            self._file.seek(start)
            data = self._file.read(length)
            while len(data) < length:  # a system may give less than there is
                more = self._file.read(length - len(data))
                if not more:
                    raise self._changed()
                data += more
            if start <= self._hashed < start + length:
                self._take(data[self._hashed - start :] if start < self._hashed else data)
        return data

    def copy(self, target: int, start: int, length: int) -> None:
        """Write so many bytes to where a descriptor stands, without hashing them. Raises as `read` does."""
        if self._memory is not None:
            return write_all(target, self._memory[start : start + length])
        with self._lock:
            mine = os.dup(self._file.fileno())  # after Ctrl-C, the other may be closed, and its number another's
        try:
            done = within_kernel(mine, target, start, length)
        finally:
            os.close(mine)
        while done < length:
            data = self.read(start + done, min(CHUNK, length - done))
            write_all(target, data)
            done += len(data)
        return None

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from `start` on. Raises as `read` does."""
        for at in range(start, self.size, CHUNK):
            yield self.read(at, min(CHUNK, self.size - at))

    def digest(self, end: int | None = None) -> bytes:
        """SHA-256 of the bytes before `end`, or of all. `end` is a multiple of 8 MiB. Raises as `read` does."""
        end = self.size if end is None else end
        while self._hashed < end:
            self._hash_on(end)
        with self._lock:
            return self._hash.digest() if end == self._hashed else self._marks[end]

    @property
    def hashed(self) -> bool:
        """Whether all of it has been read, so that `digest` costs nothing."""
        return self._hashed == self.size

    def _hash_on(self, end: int) -> None:
        with self._lock:
            block = self._block[: max(0, end - self._hashed)]  # nothing where another thread was quicker
            self._file.seek(self._hashed)
            count = self._file.readinto(block)
            if block and not count:
                raise self._changed()
            self._take(block[:count])

    def _take(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            step = min(len(view), _MARK - self._hashed % _MARK)
            self._hash.update(view[:step])
            self._hashed += step
            view = view[step:]
            if self._hashed % _MARK == 0:
                self._marks[self._hashed] = self._hash.digest()

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{self.name} was written to while it was uploaded; upload it again when it is complete")
