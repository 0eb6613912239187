"""How far an import is: a line that moves on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter

_SECONDS = 0.2
_LINES_SECONDS = 10.0


class Progress:
    """Writes to standard error, of which nothing is read by a program."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._terminal = sys.stderr.isatty()
        self._began = self._shown = time.monotonic()
        self._where = ""

    def __call__(self, what: str, more: int) -> None:
        """`more` of a kind were brought in; without any, `what` is what comes next."""
        if more:
            self._counts[what] += more
        else:
            self._where = what
        now = time.monotonic()
        if now - self._shown >= (_SECONDS if self._terminal else _LINES_SECONDS):
            self._shown = now
            self._write(now)

    def end(self) -> None:
        """The last line."""
        self._write(time.monotonic(), last=True)

    def _write(self, now: float, *, last: bool = False) -> None:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in self._counts.items()) or "nothing yet"
        line = f"{now - self._began:7.1f} s  {counts}" + ("" if last else f"  ({self._where[:40]})")
        sys.stderr.write(f"\r\x1b[2K{line}" if self._terminal else f"{line}\n")
        if last and self._terminal:
            sys.stderr.write("\n")
        sys.stderr.flush()
