"""The thread that looks after this process's spools: to the disk within a second, into the next file, out of memory."""

from __future__ import annotations

import logging
import os
import queue
import threading
from contextlib import suppress

from penstock.spool.spool import Spool

_log = logging.getLogger("penstock")

INTERVAL = 1.0  # seconds; what a loss of power takes at most


class _Keeper:
    def __init__(self) -> None:
        self._spools: dict[int, Spool] = {}
        self._told: set[int] = set()
        self._thread: threading.Thread | None = None
        # Reentrant, both: a signal handler may log, or end a run, while we are in here.
        self._starting = threading.RLock()
        self._hurry: queue.SimpleQueue[threading.Event] = queue.SimpleQueue()

    def watch(self, spool: Spool) -> None:
        self._spools[id(spool)] = spool
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="penstock's spools", daemon=True)
                with suppress(RuntimeError):  # no more threads; the next spool tries again
                    thread.start()
                    self._thread = thread

    def forget(self, spool: Spool) -> None:
        self._spools.pop(id(spool), None)

    def settle(self, timeout: float) -> None:
        done = threading.Event()
        self._hurry.put(done)
        done.wait(timeout)

    def _work(self) -> None:
        while True:
            waiting = None
            with suppress(queue.Empty):
                waiting = self._hurry.get(timeout=INTERVAL)
            for key, spool in list(self._spools.items()):
                try:
                    spool.keep()
                except Exception:  # noqa: BLE001  a bug of ours must not end the keeping of the others
                    _log.exception("run %s: the spool could not be looked after", spool.head.run_id)
                self._tell(key, spool)
            if waiting is not None:
                waiting.set()

    def _tell(self, key: int, spool: Spool) -> None:
        """Once when the disk fails, and once when it is well again."""
        run_id, trouble = spool.head.run_id, spool.trouble
        if trouble and key not in self._told:
            self._told.add(key)
            _log.error(
                "run %s: %s does not take what is logged (%s); it is kept in memory, up to %d MiB, and sent; "
                "if this process is killed meanwhile, what the server does not have is LOST",
                run_id,
                spool.place or "the spool directory",
                trouble,
                spool.limits.memory >> 20,
            )
        elif not trouble and key in self._told:
            self._told.discard(key)
            _log.warning("run %s: %s takes what is logged again", run_id, spool.place)


_keeper = _Keeper()


def watch(spool: Spool) -> None:
    """Look after this spool, from here on."""
    _keeper.watch(spool)


def settle(timeout: float) -> None:
    """Look after all of them now, and wait for it, so long at most."""
    _keeper.settle(timeout)


def forget(spool: Spool) -> None:
    """It is done with."""
    _keeper.forget(spool)


def _in_child() -> None:
    global _keeper  # noqa: PLW0603  the thread is not there, and the lock may be taken for ever
    _keeper = _Keeper()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
