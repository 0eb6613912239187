"""Metrics go first: while much is being committed, bytes of artifacts are taken and given for a part of the time only.

Time is cut into slices. With nothing to commit, all of a slice is the artifacts'; the busier ingest is the less, but
never less than a quarter. So what they cost is bounded however many they are, who is slower than that anyway is hardly
held up, and nobody waits longer than a slice.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from penstock_server import telemetry
from penstock_server.ingest.writer import WINDOW_BYTES

_SLICE_SECONDS = 0.1
_LEAST_SHARE = 1 / 4
# A moment without a flush is not yet rest.
_SMOOTHING_SECONDS = 0.25


class Precedence:
    """How busy ingest is, and what gives way to it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bytes = 0
        self._busy = 0.0  # at `_at`, smoothed: 0 to 1
        self._at = clock()

    @contextmanager
    def flushing(self, size: int) -> Iterator[None]:
        """Inside, `size` bytes are being committed."""
        self._add(size)
        try:
            yield
        finally:
            self._add(-size)

    def hold(self) -> float:
        """How long the bytes of an artifact are to wait now, in seconds."""
        self._add(0)
        share = 1 - (1 - _LEAST_SHARE) * self._busy
        passed = self._at % _SLICE_SECONDS
        return 0.0 if passed <= share * _SLICE_SECONDS else _SLICE_SECONDS - passed

    async def give_way(self) -> None:
        """Returns when bytes of an artifact may be taken or given."""
        seconds = self.hold()
        if seconds:
            telemetry.artifact_held_seconds.inc(seconds)
            await asyncio.sleep(seconds)

    def _add(self, size: int) -> None:
        # As much as one writer may have under way, all of the time, is as busy as can be. A thousand writers of a frame
        # now and then keep the pipelines busy too, but not the machine.
        level = min(1.0, self._bytes / WINDOW_BYTES)
        now = self._clock()
        self._busy = level + (self._busy - level) * math.exp((self._at - now) / _SMOOTHING_SECONDS)
        self._at = now
        self._bytes += size
