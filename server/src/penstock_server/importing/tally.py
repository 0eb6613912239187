"""How many there are of each kind in the source and here, and what is missing, with what and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

KINDS = (
    *("experiments", "runs", "params", "tags", "metrics", "points", "inputs", "logged models", "files"),
    *("registered models", "versions", "aliases"),
)
_TOLD = 50


class Tally:
    """Counts as an import goes on."""

    def __init__(self) -> None:
        self.source: Counter[str] = Counter()
        self.here: Counter[str] = Counter()
        self._reasons: list[str] = []
        self._more = 0
        self._notes: list[str] = []

    def note(self, what: str) -> None:
        """Something is here, and not just as it was."""
        self._notes.append(what)

    def missing(self, what: str, why: object) -> None:
        """Something cannot be brought in."""
        if len(self._reasons) < _TOLD:
            self._reasons.append(f"{what}: {why}")
        else:
            self._more += 1

    def compare(self, where: str, source: Mapping[str, int], here: Mapping[str, int]) -> None:
        """Counts both; what is here beyond the source, such as what was logged here since, makes up for nothing."""
        self.source.update(source)
        for kind, count in source.items():
            found = min(count, here.get(kind, 0))
            self.here[kind] += found
            if found < count and not any(reason.startswith(where) for reason in self._reasons):
                self.missing(where, f"{count - found:,} of {count:,} {kind} are not here")

    @property
    def whole(self) -> bool:
        """Whether all that is in the source is here."""
        return not self._reasons and self.here == self.source

    def lines(self) -> list[str]:
        """The table, and what is missing and why."""
        shown = [f"{'':17} {'in the source':>14} {'here':>14} {'missing':>10}"]
        for kind in KINDS:
            source, here = self.source[kind], self.here[kind]
            if source:
                shown.append(f"{kind:17} {source:14,} {here:14,} {source - here:10,}")
        shown += [f"missing: {reason}" for reason in self._reasons]
        if self._more:
            shown.append(f"missing: and {self._more:,} more of such")
        shown += [f"note: {each}" for each in self._notes[:_TOLD]]
        if self._notes[_TOLD:]:
            shown.append(f"note: and {len(self._notes) - _TOLD:,} more of such")
        return shown
