"""Runs that are open: finished at the end of the process, left alone in a forked child."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from penstock.progress import wait_settled
from penstock.runs import RunStatus

if TYPE_CHECKING:
    from penstock.tracking import ActiveRun

# By identity. A dict, whose single operations no fork and no signal handler can catch halfway.
_open: dict[int, ActiveRun] = {}
_watched: set[tuple[int, str]] = set()


def close_at_exit(run: ActiveRun) -> None:
    """See to it that the run is finished before this process ends in an orderly way."""
    _open[id(run)] = run
    _watch("atexit", lambda: atexit.register(_finish_all))
    if "multiprocessing.util" in sys.modules and _is_child():
        # Its children end by os._exit after finalisers of their own kind.
        util: Any = importlib.import_module("multiprocessing.util")
        _watch("multiprocessing", lambda: util.Finalize(None, _finish_all, exitpriority=100))


def forget(run: ActiveRun) -> None:
    """It is finished."""
    _open.pop(id(run), None)


def _is_child() -> bool:
    process: Any = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _watch(how: str, register: Any) -> None:
    # atexit functions are inherited by a forked child, finalisers are not.
    key = (0 if how == "atexit" else os.getpid(), how)
    if key not in _watched:
        _watched.add(key)
        register()


def _finish_all() -> None:
    """All at once, so that they wait together."""
    runs = [run for run in list(_open.values()) if run._sender.started]
    left = [run for run in runs if not run._buffer.closed or run._sender.state.over]
    for run in left:
        run._begin_finish(RunStatus.FAILED if _failing() and not run._child else None)
    begun = time.monotonic()
    for run in left:
        wait_settled(run._sender, run.id, max(0.0, run._finish_timeout - (time.monotonic() - begun)))
        run._end_finish()
    for run in runs:
        run._stop()


def _failing() -> bool:
    """Whether the interpreter ends because of an uncaught exception."""
    return getattr(sys, "last_value", None) is not None and not hasattr(sys, "ps1")


def _in_child() -> None:
    for run in list(_open.values()):
        run._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
