"""What a writing process has done, in words of a shared mapping: the page cache keeps them when it is killed.

The process writes its words, the campaign reads them, and sets `STOP`. Refused calls stand one by one in a file beside.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

# Words of 8 bytes.
BEGUN = 0  # calls that were begun: 1 + the index of the last
RETURNED = 1  # calls that have returned: 1 + the index of the last
FIRST = 2  # the first index of this life
UNACKED = 3  # records that are not acknowledged, after the last call
ACKED = 4  # records that are
LONGEST = 5  # the longest call, in ns
LONGEST_INDEX = 6
STARTED = 7  # ns that start_run took, 0 while it has not returned
ENDED = 8  # 1: finish has said that all is committed, 2: that it is not
REFUSED = 9  # run.refused at the end
REJECTED = 10  # records that the server refused
STOP = 11  # set by the campaign: come to an end
FINISHING = 12  # ns that finish took
STATE = 13  # 1: the writer is parked
FREE = 14  # two more, for programs of other kinds
_WORDS = 16
BUCKETS = 256
_BYTES = 8 * (_WORDS + BUCKETS)


def bucket(ns: int) -> int:
    """Four to an octave."""
    length = ns.bit_length()
    return 4 * length + (ns >> length - 3 & 3) if length > 2 else ns


def bound_ms(number: int) -> float:
    """Where a bucket ends."""
    length, quarter = divmod(number, 4)
    return ((4 + quarter + 1) << length - 3) / 1e6 if length > 2 else number / 1e6


class Journal:
    """Of one life. `words` may be read and written by both sides; each store is one word."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(_BYTES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _BYTES)
        whole = memoryview(self._map).cast("Q")
        self.words = whole[:_WORDS]
        self.histogram = whole[_WORDS:]

    def took(self, ns: int, index: int) -> None:
        """A call has returned."""
        self.histogram[bucket(ns)] += 1
        if ns > self.words[LONGEST]:
            self.words[LONGEST] = ns
            self.words[LONGEST_INDEX] = index

    def refuse(self, index: int) -> None:
        """The call was refused, and counted by the client."""
        with self._refusals.open("ab") as file:
            file.write(struct.pack("<Q", index))

    def refused(self) -> list[int]:
        """Indexes of the calls that were refused."""
        data = self._refusals.read_bytes() if self._refusals.exists() else b""
        return [index for (index,) in struct.iter_unpack("<Q", data)]

    @property
    def _refusals(self) -> Path:
        return self.path.with_suffix(".refused")

    def __str__(self) -> str:
        words = self.words
        return (
            f"{self.path.name}: calls {words[FIRST]}…, begun {words[BEGUN]}, returned {words[RETURNED]}, "
            f"unacked {words[UNACKED]}, acked {words[ACKED]}, ended {words[ENDED]}, refused {words[REFUSED]}, "
            f"rejected {words[REJECTED]}, longest {words[LONGEST] / 1e6:.3f} ms at {words[LONGEST_INDEX]}"
        )


@dataclass(frozen=True, slots=True)
class Latency:
    """How long calls took, in ms."""

    calls: int
    p50: float
    p99: float
    p9999: float
    longest: float
    over_1ms: int


def latency(journals: list[Journal]) -> Latency:
    """Of all of them together."""
    counts = [sum(journal.histogram[number] for journal in journals) for number in range(BUCKETS)]
    calls = sum(counts)

    def percentile(part: float) -> float:
        seen = 0
        for number, count in enumerate(counts):
            seen += count
            if count and seen >= part * calls:
                return bound_ms(number)
        return 0.0

    longest = max((journal.words[LONGEST] for journal in journals), default=0) / 1e6
    over = sum(count for number, count in enumerate(counts) if bound_ms(number - 1 if number else 0) >= 1)
    return Latency(calls, percentile(0.5), percentile(0.99), percentile(0.9999), longest, over)
