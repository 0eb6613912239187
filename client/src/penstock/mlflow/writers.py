"""The streams on which metrics leave: one for each run that is logged to, in the background."""

from __future__ import annotations

import functools
import operator
import os
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from penstock.address import Address
from penstock.batches import Names
from penstock.effort import PATIENCE
from penstock.frames import TIME_MS_MAX
from penstock.names import key_problem
from penstock.run_ids import parse_run_id
from penstock.start import attach
from penstock.tracking import ActiveRun

_MOST = 64  # runs that are logged to at the same time; further ones go without a stream
_IDLE = 5.0  # seconds, after which one of those makes room
_LOOK = 0.002
_INT64 = 2**63


class Writers:
    """Of one process, whatever stores it has, and, after a fork, of its child."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._known: set[str] = set()  # runs that are active
        self._open: dict[str, ActiveRun] = {}
        self._locks: dict[int, threading.Lock] = {}  # by process: a fork might find one taken

    def know(self, run_id: str) -> None:
        """The server has just told of it as an active run."""
        self._known.add(run_id)

    def log(self, run_id: str, metrics: Sequence[Any], is_active: Callable[[str], bool]) -> bool:
        """Take metrics of one step and time; does not wait. False: they are none for a stream, or there is none.

        `is_active` asks the server whether it has the run, and not as a deleted one.
        """
        run = self._open.get(run_id) or self._opened(run_id, is_active)
        if run is None:
            return False
        try:
            names = tuple(metric.key for metric in metrics)
            values = array("d", [metric.value for metric in metrics])
            return _append(run, names, values, metrics[0].step, metrics[0].timestamp)
        except (TypeError, OverflowError):  # no numbers: MLflow's server says so in its own words
            return False

    def flush(self, run_id: str | None = None) -> None:
        """Wait until what was logged to the run, or to all, is committed.

        Raises MlflowException after a minute, and, once, when something of it never will be.
        """
        end = time.monotonic() + PATIENCE
        for each, run in list(self._open.items()) if run_id is None else [(run_id, self._open.get(run_id))]:
            if run is None:
                continue
            while run.unacked and not run._sender.state.over:
                if run._ending or time.monotonic() > end:  # at the end of the process it was waited for before
                    run._finish_timeout = 0.0  # nor then again
                    raise MlflowException(
                        f"{run.unacked:,} metrics of run {each} have not arrived at {self._address.target} within "
                        f"{PATIENCE:.0f} s ({run._sender.trouble or run.state}); they are kept in {run._spool.place}, "
                        "and sent as soon as it is there",
                        error_code=TEMPORARILY_UNAVAILABLE,
                    )
                time.sleep(_LOOK)
            run._finish_timeout = PATIENCE
            if run._sender.state.over:  # the run was deleted meanwhile, say; what is logged next tells, too
                self._open.pop(each, None)
                self._known.discard(each)
                if run.unacked:
                    raise MlflowException(
                        f"{run.unacked:,} metrics of run {each} were not taken ({run._sender.trouble})",
                        error_code=INVALID_PARAMETER_VALUE,
                    )

    def end(self, run_id: str) -> None:
        """Flush, and let go of the stream; what is logged later gets another. Raises MlflowException."""
        self.flush(run_id)
        run = self._open.pop(run_id, None)
        if run is not None:
            run.finish(timeout=PATIENCE)

    def forget(self, run_id: str) -> None:
        """The run is being deleted."""
        self.end(run_id)
        self._known.discard(run_id)

    def forget_all(self) -> None:
        """Runs are being deleted, whichever."""
        for run_id in list(self._open):
            self.end(run_id)
        self._known.clear()

    def _opened(self, run_id: str, is_active: Callable[[str], bool]) -> ActiveRun | None:
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            if run_id in self._open:
                return self._open[run_id]
            try:
                if parse_run_id(run_id) != run_id:
                    return None
            except ValueError:
                return None
            if run_id not in self._known:
                if not is_active(run_id):
                    return None
                self._known.add(run_id)
            if len(self._open) >= _MOST and not self._make_room():
                return None
            run = self._open[run_id] = attach(run_id, self._address, finish_timeout=PATIENCE)
            return run

    def _make_room(self) -> bool:
        now = time.monotonic()
        for run_id, run in list(self._open.items()):
            if not run.unacked and now - run._spool.since > _IDLE:
                self.end(run_id)
                return True
        return False


@functools.cache
def writers_of(address: Address) -> Writers:
    """Of this process to that server: what one store has logged, another waits for."""
    return Writers(address)


def _append(run: ActiveRun, names: Names, values: array[float], step: int, time_ms: int) -> bool:
    """Into the run's spool. False: there is no room, it is closed, or the stream does not take such values."""
    step, time_ms = operator.index(step), operator.index(time_ms)
    spool = run._spool
    shape = spool.shapes.get(names)
    if shape is None:
        if len(set(names)) < len(names) or any(map(key_problem, names)):
            return False
        run._at_home()
        shape = spool.learn(names)
    if not (-_INT64 <= step < _INT64 and 0 <= time_ms <= TIME_MS_MAX):
        return False
    return spool.append(shape, values, step, time_ms)
