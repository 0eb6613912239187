"""Runs that are open: finished at the end of the process, left alone in a forked child."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock.progress import wait_settled
from penstock.runs import RunStatus

if TYPE_CHECKING:
    from penstock.tracking import ActiveRun

# By identity. A dict, whose single operations no fork and no signal handler can catch halfway.
_open: dict[int, ActiveRun] = {}
# Before, threads can be started while atexit's functions run, and we may need some; what these log is taken, too.
_THREADS_AT_EXIT = sys.version_info < (3, 12)

_watched: set[tuple[int, str]] = set()


def close_at_exit(run: ActiveRun) -> None:
    """See to it that the run is finished before this process ends in an orderly way."""
    _open[id(run)] = run
    _watch("atexit", _register)
    if "multiprocessing.util" in sys.modules and _is_child():
        # Its children end by os._exit after finalisers of their own kind.
        util: Any = importlib.import_module("multiprocessing.util")
        _watch("multiprocessing", lambda: util.Finalize(None, _finish_all, exitpriority=100))


def _register() -> None:
    atexit.register(_finish_all)
    before_threads_end = getattr(threading, "_register_atexit", None)
    if before_threads_end is not None and not _THREADS_AT_EXIT:
        with suppress(RuntimeError):  # the interpreter is ending
            before_threads_end(_begin_last_thread)


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


def _begin_last_thread() -> None:
    """Finish in a thread that the interpreter waits for: until that has ended, threads can be started."""
    if _open:
        with suppress(RuntimeError):  # Python 3.12.0 and 3.12.1 start none even here; atexit does what it can
            threading.Thread(target=_finish_last, name="penstock's end", daemon=False).start()


def _finish_last() -> None:
    for thread in threading.enumerate():  # they may still log
        if not thread.daemon and thread not in (threading.current_thread(), threading.main_thread()):
            thread.join()
    _finish_all()


def _finish_all() -> None:
    """All at once, so that they wait together."""
    runs = [run for run in list(_open.values()) if run._sender.started or run._files is not None]
    left = [run for run in runs if not run._ending]
    for run in left:
        run._begin_finish(None if run._child else status_of(_uncaught()))
    begun = time.monotonic()
    try:
        for run in left:
            wait = max(0.0, run._finish_timeout - (time.monotonic() - begun))
            wait_settled(run._sender, run.id, wait, run._files)
    finally:  # Ctrl-C, too, is told what it costs; and so is who gave up waiting before
        for run in runs:
            if _open.pop(id(run), None) is not None:
                run._end_finish()
        for run in runs:
            run._stop()


def status_of(error: BaseException | None) -> RunStatus | None:
    """The status of a run that an error has ended; None for a normal end."""
    match error:
        case None:
            return None
        case SystemExit(code=code) if code in (None, 0):
            return None
        case KeyboardInterrupt() | GeneratorExit() | asyncio.CancelledError():
            return RunStatus.KILLED
        case _:
            return RunStatus.FAILED


def _uncaught() -> BaseException | None:
    """The exception that ends the interpreter."""
    return None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)


def _in_child() -> None:
    for run in list(_open.values()):
        run._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
