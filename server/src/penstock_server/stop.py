"""The wish to stop: SIGTERM and SIGINT, told to the one task that runs the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import structlog

_SAME_WISH_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Stop:
    """Made by the task that runs the process. While that starts, a wish to stop cancels it; then it is told.

    A second signal ends the process at once, unless it follows the first so closely that it is the same wish: what
    stops a process group often sends it twice.
    """

    def __init__(self, at_once: Callable[[], None] = lambda: None) -> None:
        """`at_once` is done before the process ends at once."""
        self._asked = asyncio.Event()
        self._asked_at = 0.0
        self._at_once = at_once
        self._starting = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)

    @property
    def asked(self) -> bool:
        """Whether the process is to stop."""
        return self._asked.is_set()

    def ask(self, reason: str) -> None:
        """Wishes to stop; once is enough."""
        if self.asked:
            return
        log.info("stopping", reason=reason)
        self._asked.set()
        self._asked_at = time.monotonic()
        if self._starting is not None:
            self._starting.cancel()

    def started(self) -> None:
        """The start is over: from now on nothing is cancelled, whoever waits is told."""
        self._starting = None

    @contextlib.contextmanager
    def covered(self) -> Iterator[None]:
        """Around everything: a start that was cancelled because of us has ended as it should."""
        try:
            yield
        except asyncio.CancelledError:
            if not self.asked:
                raise

    async def wait(self) -> None:
        """Until the process is to stop."""
        await self._asked.wait()

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.asked and time.monotonic() - self._asked_at < _SAME_WISH_SECONDS:
            return
        if self.asked:
            log.error("second signal, exiting at once", signal=name)
            self._at_once()
            os._exit(128 + number)
        self.ask(name)
