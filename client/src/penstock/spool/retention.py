"""How much of a spool is kept: what is not acknowledged, and of the rest what may be wanted again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from penstock.spool.segments import Segment

# How long acknowledged segments are kept, in seconds, in case the server is restored from a backup.
GRACE = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept, in bytes."""

    disk: int = 8 << 30
    memory: int = 256 << 20  # while the disk does not take it
    keep: int = 1 << 30  # what is acknowledged, for a server that is restored from a backup
    segment: int = 64 << 20

    @property
    def kept(self) -> int:
        """How much of what is acknowledged is kept: what is not comes first."""
        return min(self.keep, self.disk // 2)

    @property
    def segment_bytes(self) -> int:
        """How long a segment is; shorter where little may be kept, which is let go of segment by segment."""
        return min(self.segment, max(64 << 10, self.disk // 8))

    @property
    def memory_segment_bytes(self) -> int:
        """How long a segment in memory is; each becomes a file, so they are not too many."""
        return min(self.segment, 16 << 20, max(16 << 10, self.memory // 8))


def goners(segments: Sequence[Segment], acked: int, limits: Limits, disk_bytes: int, *, starved: bool) -> list[Segment]:
    """Of the segments whose records are all acknowledged, the old ones, those in memory, and what is too much.

    The oldest go first. `starved` is a disk on which there is no room for what comes.
    """
    now = time.monotonic()
    done = []
    for segment, following in pairwise(segments):
        if following.first_seq - 1 <= acked:
            done.append(segment)
        else:
            segment.acked_at = 0.0  # the server has forgotten it
    kept = sum(segment.size for segment in done)
    room = limits.disk - disk_bytes
    gone = []
    for segment in done:
        since = segment.acked_at = segment.acked_at or now
        scarce = starved or kept > limits.kept or room < 2 * limits.segment_bytes
        if segment.memory is not None or scarce or now - since > GRACE:
            gone.append(segment)
            kept -= segment.size
            room += segment.size
    return gone
