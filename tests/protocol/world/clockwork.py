"""An event loop that runs until nothing more can happen by itself. Time passes when it is told to."""

from __future__ import annotations

import asyncio


class Clockwork(asyncio.SelectorEventLoop):
    """Its `time` stands still but for `wait`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Until nobody has anything to do but wait."""
        while True:
            self.stop()
            self.run_forever()  # one turn
            if not self._ready:  # type: ignore[attr-defined]  # what asyncio has no word for
                return

    def wait(self, seconds: float) -> None:
        """Lets time pass, and what was waiting for it happen."""
        self.now += seconds
        self.settle()

    @property
    def waiting(self) -> bool:
        """Whether anybody waits for time to pass."""
        return any(not timer.cancelled() for timer in self._scheduled)  # type: ignore[attr-defined]
