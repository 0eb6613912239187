"""A sum that threads and signal handlers change beside each other, without a lock."""

from __future__ import annotations

import itertools
import queue


class Tally:
    """A lock could be held by the very frame that a signal handler interrupts; `+=` could lose what the handler adds.

    Here each step is one of the interpreter's own, which nothing interrupts; and for each number that is put there is
    one `next`, whoever comes first.
    """

    def __init__(self) -> None:
        self._numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._sums = itertools.accumulate(iter(self._numbers.get_nowait, None))

    def add(self, number: int) -> int:
        """Returns the sum."""
        self._numbers.put(number)
        return next(self._sums)

    @property
    def sum(self) -> int:
        """Of all that was added."""
        return self.add(0)
