"""The run that `start_run` gives: what training code calls. Nothing here waits for the server but `finish`."""

from __future__ import annotations

import logging
import os
import threading
import time as clock
from array import array
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from operator import index
from types import TracebackType
from typing import Any, Self

from penstock import forks
from penstock.address import Address
from penstock.bars import count_of
from penstock.batches import Update
from penstock.exits import close_at_exit, forget, status_of
from penstock.frames import Problem, as_step, as_time_ms, flattened, shown, sort_out, texts
from penstock.origin import rank
from penstock.progress import wait_settled
from penstock.runs import RunStatus
from penstock.sender import Rejection, Sender, State
from penstock.session import Pace
from penstock.spool import keeper
from penstock.spool.home import Home
from penstock.spool.records import Head
from penstock.spool.retention import Limits
from penstock.spool.spool import Spool
from penstock.tracking_artifacts import ArtifactLog
from penstock.tracking_registry import ModelLog
from penstock.v1 import metrics_pb2, runs_pb2

_log = logging.getLogger("penstock")

_INT64 = 2**63
_NAMES_WARNED = 20
_SETTLE_SECONDS = 5.0  # for a last try to get what is in memory to the disk

_current: ContextVar[ActiveRun | None] = ContextVar("penstock_run", default=None)


def current() -> ActiveRun | None:
    """The run of the innermost `with` around."""
    return _current.get()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a writer of the run is made of, in this process or in a child."""

    address: Address
    run_id: str
    create_run: runs_pb2.CreateRunRequest
    pace: Pace
    limits: Limits
    spool_dir: str | os.PathLike[str] | None
    durable: bool
    offline: bool

    def writer(self, host: str, *, first_step: int = 0, resume: bool = False) -> tuple[Spool, Sender]:
        """A new writer, of this process: what takes the records, and what ships them."""
        number, size = rank()
        attributes = metrics_pb2.WriterAttributes(rank=number, world_size=size, host=host, pid=os.getpid())
        head = Head(self.run_id, os.urandom(16), self.address, self.create_run, attributes)
        home = Home(self.spool_dir, self.run_id, head.writer_id)
        spool = Spool(head, home.make, self.limits, first_step, durable=self.durable)
        return spool, Sender(spool, home, self.address, self.pace, offline=self.offline, resume=resume)


class ActiveRun(ArtifactLog, ModelLog):
    """A run that is being logged to. Made by `start_run`; may be used by any thread, and in children after a fork.

    No method that logs raises because of what is logged or because of the server: what cannot be taken is warned of,
    once per kind and name, and counted in `refused`. `register_model` does, and waits.
    """

    _attached = False  # it says nothing of the run's status, whatever ends it

    def __init__(self, plan: Plan, host: str, *, shared: bool, resume: bool, finish_timeout: float) -> None:
        self.id = plan.run_id
        self._plan = plan
        self._host = host
        self._shared = shared
        self._finish_timeout = finish_timeout
        self._child = False
        self._ending = False  # finish() has been called
        self._warned: set[tuple[str, str]] = set()
        self._names_warned = 0
        self._refused = 0
        self._counting = threading.RLock()
        self._entered: Token[ActiveRun | None] | None = None
        self._spool, self._sender = plan.writer(host, resume=resume)

    def log(self, values: Mapping[str, Any], step: int | None = None, time: float | None = None) -> None:
        """Log metrics: numbers, 0-d arrays or tensors by name; nested dicts are flattened with `/`. Does not block.

        `step` None is one more than the last; `time` is in seconds since 1970 or a datetime, None is now.
        """
        spool = self._spool
        try:
            numbers: Any = values
            names = tuple(values)
            shape = spool.shapes.get(names)
            if shape is None:
                numbers = flattened(values)
                names = tuple(numbers)
                shape = spool.shapes[names]
            # By way of a list, which tells its length, this is the quickest.
            column = array("d", list(numbers.values()))
            if step is not None:
                step = index(step)
            sound = time is None and len(column) == len(names) and (step is None or -_INT64 <= step < _INT64)
        except Exception:  # noqa: BLE001  names not seen before, or something is wrong: the careful way tells what
            self._guarded(lambda: self._log_carefully(values, step, time))
            return
        if not sound:
            self._guarded(lambda: self._log_carefully(values, step, time))
        elif not spool.append(shape, column, step, clock.time_ns() // 1_000_000):
            self._no_room(len(column))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record params, as text. A param is written once: another value is refused by the server; see `rejected`."""
        self._guarded(lambda: self._log_texts(params, "param"))

    def log_param(self, key: str, value: object) -> None:
        """Record one param."""
        self._guarded(lambda: self._log_texts({key: value}, "param"))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, as text, replacing those of the same key."""
        self._guarded(lambda: self._log_texts(tags, "tag"))

    def set_tag(self, key: str, value: object) -> None:
        """Set one tag."""
        self._guarded(lambda: self._log_texts({key: value}, "tag"))

    def finish(self, status: RunStatus | str | None = None, timeout: float | None = None) -> bool:
        """End the run: waits until all is committed, at most `timeout` seconds; None: as long as it takes.

        Returns whether everything that was logged, files too, is committed, and logs a warning that tells what is not;
        offline, whether it was taken. The status does not wait for the files.
        `status` None is FINISHED; but in a forked child, and in ranks above 0 of a run that ranks share, the
        status is left to the others. A status that there is not is warned of, and taken as None.
        """
        self._begin_finish(status)
        try:
            wait_settled(self._sender, self.id, timeout, self._files)
        finally:  # Ctrl-C while it waits, too, is told what it costs
            done = self._end_finish()
        return done

    @property
    def state(self) -> str:
        """Where this process's writer stands: `streaming`, `backoff`, `closed`, …"""
        return self._sender.state.value

    @property
    def refused(self) -> int:
        """How many values, params, tags and files were not taken: no number, a bad name, no room."""
        return self._refused

    @property
    def rejected(self) -> list[Rejection]:
        """What the server refused for good: the last thousand refusals, and those of files."""
        files = list(self._files.refusals) if self._files is not None else []  # in one step: threads add to it
        return [*self._sender.rejected, *(Rejection(1, 0, f"{path}: {reason}") for path, reason in files)]

    @property
    def unacked(self) -> int:
        """How many records (calls of `log`, params, tags) are not known to be committed."""
        return self._sender.outbox.unacked

    @property
    def unacked_points(self) -> int:
        """About how many values are not known to be committed."""
        return self._sender.outbox.unacked_points

    @property
    def unacked_age(self) -> float:
        """How many seconds the oldest record that is not known to be committed has waited; 0 when there is none."""
        since = self._sender.outbox.unacked_since
        return clock.monotonic() - since if since is not None else 0.0

    def __enter__(self) -> Self:
        self._entered = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, None
        try:
            if entered is not None:
                with suppress(ValueError):  # of another context, as in async generators: nothing to put back here
                    _current.reset(entered)
        finally:
            # A forked child that fails in the `with` it was born into does not end its parent's run.
            self.finish(None if self._child else status_of(error), self._finish_timeout)

    def __repr__(self) -> str:
        return f"<penstock run {self.id} {self.state}>"

    # The careful way.

    def _guarded(self, work: Callable[[], None]) -> None:
        """For what nobody has thought of: mappings that raise, say. Nothing that is logged ends training."""
        try:
            work()
        except Exception as error:  # noqa: BLE001
            self._count(1)
            self._warn(
                "bug", f"{type(error).__name__} ({shown(error, str)}) while taking what is logged; it is left out"
            )

    def _log_carefully(self, values: object, step: object, time: object) -> None:
        self._at_home()
        found = sort_out(values)
        self._report(found.problems)
        when = clock.time_ns() // 1_000_000
        if time is not None:
            told = as_time_ms(time)
            if told is None:
                self._warn("time", f"{shown(time)} is no time (seconds since 1970, to the year 9999); now is taken")
            else:
                when = told
        whole = None
        if step is not None and (whole := as_step(step)) is None:
            self._count(sum(len(names) for names, _ in found.frames))
            self._warn("step", f"step {shown(step, str)} is no 64-bit integer; what comes with it is not logged")
            return
        for names, column in found.frames:
            shape = self._spool.shapes.get(names) or self._spool.learn(names)
            if not self._spool.append(shape, column, whole, when):
                self._no_room(len(column))

    def _log_texts(self, values: object, kind: str) -> None:
        self._at_home()
        pairs, problems = texts(values, kind)
        self._report(problems)
        for key, value in pairs:
            if not self._spool.update(Update(kind == "param", key, value)):
                self._no_room(1)

    def _report(self, problems: list[Problem]) -> None:
        if problems:
            self._count(len(problems))
            for problem in problems:
                self._warn(problem.kind, problem.message, problem.name)

    def _no_room(self, values: int) -> None:
        self._count(values)
        if not self._spool.closed:
            self._warn(
                "full",
                f"{self._full()} is full, because the server does not take what is logged "
                f"({self._sender.trouble or self.state}); what is logged now is LOST until there is room",
            )
        elif self._sender.state is State.PARKED:
            self._warn("closed", f"logging has stopped, the run is {self.state} ({self._sender.trouble})")
        else:
            self._warn("finished", "the run is finished; what is logged after that is refused")

    def _full(self) -> str:
        spool, limits = self._spool, self._plan.limits
        if spool.trouble:
            return f"the disk does not take it ({spool.trouble}), and the buffer in memory ({limits.memory >> 20} MiB)"
        return f"the spool {spool.place} ({limits.disk:,} bytes; spool_bytes=)"

    def _count(self, values: int) -> None:
        with self._counting:
            self._refused += values
            self._sender.refused = self._refused

    def _warn(self, kind: str, message: str, name: str = "") -> None:
        """Once per kind and name, and of so many names at most."""
        if (kind, name) in self._warned:
            return
        if name:
            if self._names_warned == _NAMES_WARNED:
                return
            self._names_warned += 1
        self._warned.add((kind, name))
        last = (
            f", and no other name from here on: {_NAMES_WARNED} are told" if self._names_warned == _NAMES_WARNED else ""
        )
        how = f"told once per name{last}" if name else "told once"
        _log.warning("run %s: %s (%s; run.refused counts)", self.id, message, how)

    # The end.

    @property
    def _silent(self) -> bool:
        """Whether it is a forked child that has logged nothing but files: it has no stream, and begins none."""
        return self._child and not self._sender.started and not self.unacked

    def _begin_finish(self, status: RunStatus | str | None) -> None:
        if self._files is not None:
            self._files.close()
        if self._silent:
            self._spool.close()
            self._ending = True
            return
        known = None
        if status is not None and not self._attached:
            try:
                known = RunStatus.of(status)
            except ValueError as error:
                _log.warning("run %s: %s; it is finished as if none were given", self.id, error)
        if known is None and not (self._attached or self._child or (self._shared and rank()[0] > 0)):
            known = RunStatus.FINISHED
        ended = known is not None and known.ended
        end_time_ms = clock.time_ns() // 1_000_000 if ended else 0
        status = known.wire if known else None
        self._sender.finish(metrics_pb2.Finish(status=status, end_time_ms=end_time_ms, refused=self._refused))
        self._ending = True

    def _end_finish(self) -> bool:
        """Tells what there is to be told. Returns whether all is well."""
        files, silent = self._files, self._silent
        if (silent or self._sender.state.over or self._sender.state is State.OFFLINE) and (not files or files.settled):
            forget(self)
        done = self._refused == 0 if silent else self._end_records()
        return self._end_files() and done

    def _end_records(self) -> bool:
        sender, spool = self._sender, self._spool
        if sender.state is State.OFFLINE:
            if spool.in_memory:
                keeper.settle(_SETTLE_SECONDS)
            sender.stop(timeout=1.0)
            _log.warning(
                "run %s: offline; %s; %s%s", self.id, count_of(spool.count, "record"), self._fate(), self._lost()
            )
            return self._refused == 0
        if sender.state is not State.CLOSED:
            left, verb = sender.outbox.unacked, "is" if sender.outbox.unacked == 1 else "are"
            _log.error(
                "run %s: %s NOT committed (%s); %s",
                self.id,
                f"{count_of(left, 'record')} with {count_of(sender.outbox.unacked_points, 'value')} {verb}"
                if left
                else "its end is",
                sender.trouble or sender.state.value,
                self._fate() + self._lost(),
            )
            return False
        sender.stop(timeout=1.0)
        rejected = sum(each.records for each in self.rejected)
        if self._refused or rejected:
            parts = [f"{self._refused:,} values, params, tags or files that were refused here"] if self._refused else []
            parts += [f"{rejected:,} records or files that the server refused"] if rejected else []
            _log.warning("run %s: all is committed, but for %s", self.id, " and ".join(parts))
            return False
        return True

    def _fate(self) -> str:
        """Of what is not committed when the process ends."""
        spool = self._spool
        if spool.in_memory:
            return f"that is in memory ({spool.trouble}), and LOST when this process ends"
        return f"that is kept in {spool.place}: `penstock sync` sends it, as does the next run here to the same server"

    def _lost(self) -> str:
        refused = self._refused
        return f"; BESIDES, {refused:,} values, params, tags or files were refused, and are lost" if refused else ""

    def _stop(self) -> None:
        """At the end of the process."""
        if self._files is not None:
            self._files.stop(timeout=2.0)
        self._sender.stop(timeout=2.0)

    # Forks.

    def _after_fork(self) -> None:
        """In the child: leave the parent's stream alone. A writer of the child's own begins when it logs."""
        forks.keep(self._sender)
        forks.keep(self.__dict__.pop("_files", None))
        self._spool.abandon()
        self._child = True
        self._ending = False
        self._counting = threading.RLock()
        self._refused = 0
        self._spool, self._sender = self._plan.writer(self._host, first_step=self._spool.next_step)

    def _at_home(self) -> None:
        if self._child:
            close_at_exit(self)
            keeper.watch(self._spool)

    def _begin(self) -> None:
        """Make the spool, with what makes the run, and start sending."""
        self._spool.begin()
        keeper.watch(self._spool)
        close_at_exit(self)
        self._sender.start()
