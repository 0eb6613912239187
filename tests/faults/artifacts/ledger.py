"""What was uploaded where and when, and so what may be seen at a moment: one whole content, and none that is past.

Each content is made once, from a number; its digest says which it is. What is uploaded in vain on purpose, with a wrong
digest say, is not in here: whoever sees it has seen too much.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def made(seed: int, size: int) -> bytes:
    """Bytes that no other seed has."""
    return random.Random(seed).randbytes(size)


@dataclass(slots=True, eq=False)
class Upload:
    """Of one content to one path. Times are of time.monotonic()."""

    path: str
    digest: bytes
    size: int
    begun: float
    done: float = math.inf  # when it was answered that it is there; never, where it failed


class Ledger:
    """Of one run. Threads may share it."""

    def __init__(self) -> None:
        self._uploads: dict[str, list[Upload]] = defaultdict(list)
        self._lock = threading.Lock()
        self.failed = 0

    @contextmanager
    def upload(self, path: str, data: bytes) -> Iterator[None]:
        """Inside, it is under way. If it raises, it may be seen, or never."""
        entry = self.enter(path, data)
        try:
            yield
        except BaseException:
            self.failed += 1
            raise
        entry.done = time.monotonic()

    def enter(self, path: str, data: bytes) -> Upload:
        """It begins. Whoever knows that it is there sets `done`."""
        entry = Upload(path, hashlib.sha256(data).digest(), len(data), time.monotonic())
        with self._lock:
            self._uploads[path].append(entry)
        return entry

    def wrong(self, path: str, digest: bytes, size: int, since: float, until: float) -> str:
        """Why what was seen, at some moment between, should not have been; empty where it should."""
        with self._lock:
            uploads = list(self._uploads[path])
        found = [each for each in uploads if each.digest == digest and each.begun <= until]
        if not found:
            return f"{path}: nobody has uploaded {size} bytes with SHA-256 {digest.hex()[:12]}"
        if found[0].size != size:
            return f"{path}: {size} bytes, and {found[0].size} were uploaded"
        if all(any(_past(each, later, since) for later in uploads) for each in found):
            return f"{path}: what is seen was replaced before"
        return ""

    def must(self, until: float) -> set[str]:
        """Paths at which there was something by then."""
        with self._lock:
            return {path for path, uploads in self._uploads.items() if any(each.done < until for each in uploads)}

    @property
    def uploads(self) -> list[Upload]:
        """All of them."""
        with self._lock:
            return [each for uploads in self._uploads.values() for each in uploads]


def _past(seen: Upload, later: Upload, since: float) -> bool:
    """Whether one was replaced by another for certain, before a look that began then."""
    return seen.done < later.begun and later.done < since
