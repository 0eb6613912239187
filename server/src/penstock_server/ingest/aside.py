"""Runs that are put aside: somebody holds a row that they need, and the others of their pipeline do not wait for it.

Who that may be: a replica that was stopped or cut off in the middle of a flush of the same run, until PostgreSQL ends
its transaction; an operator with a transaction open.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock_server.ingest.parcels import Parcel
from penstock_server.model.runs import RunId

# How long a flush waits for a row the next time, in seconds, and how long until then. Both double, so that a row that
# is held again and again is met at last. After waiting in vain for one run, none is tried for as long: however many are
# held, the others have at least half of the time.
LEAST_PATIENCE = 0.05
_MOST_PATIENCE = 1.0
# For so long after a run was put aside others may be held too: what waits has been given up, and comes again.
_SUSPICIOUS_SECONDS = 5.0


@dataclass(slots=True)
class Held:
    """One run's parcels in order. Due at a time of the monotonic clock, and then to be flushed with this patience."""

    parcels: deque[Parcel]
    patience: float
    due: float


class Aside:
    """What of a pipeline's queue waits by itself, run by run, in the order of arrival, within a limit in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._runs: dict[RunId, Held] = {}
        self._rest_until = 0.0
        self._suspicious_until = 0.0

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: RunId) -> bool:
        return run_id in self._runs

    @property
    def patience(self) -> float | None:
        """How long a flush of runs that are not aside waits for a row; None when there is nothing to be wary of."""
        return LEAST_PATIENCE if time.monotonic() < self._suspicious_until else None

    def put(self, taken: Sequence[Parcel], patience: float) -> list[Parcel]:
        """Puts parcels of one run aside that were flushed with `patience` in vain. None of the run is aside.

        Returns those for which there is no room.
        """
        now = time.monotonic()
        self._rest_until = now + patience
        self._suspicious_until = now + _SUSPICIOUS_SECONDS
        patience = min(_MOST_PATIENCE, max(LEAST_PATIENCE, 2 * patience))
        self._runs[taken[0].run.run_id] = Held(deque(), patience, now + patience * random.uniform(1, 1.5))
        return self.follow(taken)

    def follow(self, parcels: Iterable[Parcel]) -> list[Parcel]:
        """Puts parcels behind those of their runs that are aside; where there are none, they are due at once.

        Returns those for which there is no room. A run's first always has room, so that it is known to be held.
        """
        left: list[Parcel] = []
        for parcel in parcels:
            held = self._runs.setdefault(parcel.run.run_id, Held(deque(), LEAST_PATIENCE, 0.0))
            if held.parcels and self._size + parcel.size > self._limit:
                left.append(parcel)
            else:
                held.parcels.append(parcel)
                self._size += parcel.size
        return left

    def wait(self) -> float | None:
        """How long until one is due, in seconds; None when there is none."""
        if not self._runs:
            return None
        due = min(held.due for held in self._runs.values())
        return max(0.0, max(due, self._rest_until) - time.monotonic())

    def take(self) -> Held | None:
        """One that is due, which is aside no longer."""
        run_id, held = min(self._runs.items(), key=lambda item: item[1].due, default=(None, None))
        if run_id is None or held is None or max(held.due, self._rest_until) > time.monotonic():
            return None
        self._size -= sum(parcel.size for parcel in held.parcels)
        return self._runs.pop(run_id)
