"""The room there is for what is accepted and not yet committed or stored, in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from penstock_server import telemetry


class Budget:
    """A limit in bytes with waiters in order of arrival. Waiting here is the server's backpressure."""

    def __init__(self, limit: int, measured: Callable[[float], None] = telemetry.ingest_buffer_bytes.set) -> None:
        """`measured` is told how many are in use."""
        self.limit = limit
        self._measured = measured
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def fits(self, size: int) -> bool:
        """Whether `size` bytes could be taken now. A parcel larger than the limit goes in alone."""
        return not self._waiting and (self.used == 0 or self.used + size <= self.limit)

    async def take(self, size: int) -> None:
        """Takes `size` bytes of room, waiting for it behind those who came before."""
        if self.fits(size):
            self._add(size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)  # the room came just as the waiter left
            raise

    def give(self, size: int) -> None:
        """Gives room back, and lets in whom it is enough for."""
        self._add(-size)
        while self._waiting:
            size, turn = self._waiting[0]
            if turn.done():  # it was cancelled
                self._waiting.popleft()
                continue
            if self.used and self.used + size > self.limit:
                return
            self._waiting.popleft()
            self._add(size)
            turn.set_result(None)

    def _add(self, size: int) -> None:
        self.used += size
        self._measured(self.used)
