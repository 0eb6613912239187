"""The same work on many things, by a few threads. The caller's own is one of them, so that it gets done without any."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from penstock.effort import Effort

K = TypeVar("K")
T = TypeVar("T")
E = TypeVar("E", bound=Exception)


def in_parallel(work: Callable[[K], T], things: Iterable[K], threads: int, effort: Effort) -> list[T]:
    """What `work` returns for each, in no order. `things` may be a generator: it is asked by one thread at a time.

    The first error is raised, when those who are at work have ended; no more is begun. Ctrl-C waits for nobody.
    """
    source = iter(things)
    lock = threading.Lock()
    results: list[T] = []
    errors: list[BaseException] = []

    def go() -> None:
        while not errors:
            with lock:
                try:
                    thing = next(source)
                except StopIteration:
                    return
            results.append(work(thing))

    def help_out() -> None:
        try:
            go()
        except BaseException as error:  # noqa: BLE001  the caller raises it
            errors.append(error)

    helpers = [threading.Thread(target=help_out, name="penstock's files", daemon=True) for _ in range(threads - 1)]
    try:
        try:
            for helper in helpers:
                helper.start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            pass
        try:
            go()
        except Exception as error:  # noqa: BLE001  raised below
            errors.append(error)
        for helper in helpers:
            if helper.ident is not None:
                helper.join()
    except BaseException:
        effort.end()
        raise
    if errors:
        raise errors[0]
    return results


def kept(error: E) -> E:
    """The error without the frames that it came from, which hold data and messages, for one of many to be told of."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
