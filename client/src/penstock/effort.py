"""What a transfer, of one file or of many at once, may take: how long nothing may go well, and who still wants it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from penstock.errors import PenstockError, Retryable, Stopped

T = TypeVar("T")
Progress = Callable[[int], None]

PATIENCE = 60.0  # seconds
_LEAST, _MOST = 0.1, 5.0  # seconds between tries
_LOOK = 0.1


class Effort:
    """Shared by all threads of a transfer.

    `progress` is called with the bytes done since its last call, from any of the threads; with a negative number when
    some have to be done again. `stop`, once set, ends it with Stopped.
    """

    def __init__(
        self, patience: float | None = PATIENCE, progress: Progress | None = None, stop: threading.Event | None = None
    ) -> None:
        """`patience` is in seconds; None: it is tried until it is stopped."""
        self._patience = patience
        self._progress = progress
        self._stop = stop
        self._over = False
        self._failing_since: float | None = None
        self._random = random.Random()  # its own: training may have seeded the common one

    @property
    def stopped(self) -> bool:
        """Whether nobody wants it any more."""
        return self._over or (self._stop is not None and self._stop.is_set())

    def end(self) -> None:
        """Let the other threads end, too."""
        self._over = True

    def check(self) -> None:
        """Raises Stopped."""
        if self.stopped:
            raise Stopped

    def count(self, done: int) -> None:
        """Tell of bytes that have moved."""
        if done and self._progress is not None:
            self._progress(done)

    def advanced(self) -> None:
        """Something is done for good: patience begins anew."""
        self._failing_since = None

    def persist(self, work: Callable[[], T], over: type[Retryable] | tuple[()] = (), *, least: float = 0.0) -> T:
        """What `work` returns, tried again while it raises Retryable, but not `over`. Raises Stopped, too.

        Whatever the patience is, it is at least `least` seconds here.
        """
        tries = 0
        while True:
            self.check()
            try:
                return work()
            except over:
                raise
            except Retryable as error:
                self.check()  # that may be why
                failed = error.with_traceback(None)
            tries += 1
            self.pause(failed, tries, least)

    def pause(self, error: PenstockError, tries: int, least: float = 0.0) -> None:
        """Before it is tried again, for the `tries`-th time. Raises `error` when there is no patience left; Stopped."""
        now = time.monotonic()
        since = self._failing_since = self._failing_since or now
        told = error.facts.get("retry-after-ms", "")
        asked = min(int(told) / 1000, 300.0) if told.isdecimal() else 0.0
        wait = max(asked, min(_MOST, _LEAST * 2 ** min(tries, 10)) * self._random.uniform(0.5, 1.0))
        if self._patience is not None and now + wait > since + max(self._patience, least):
            raise error
        while (left := now + wait - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _LOOK))
        self.check()
