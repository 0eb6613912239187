"""The threads that send what is in a box: a few, started when there is something to send, ended when there is not.

Entries are sent in the order in which they were logged; of two for the same path the later is sent after the earlier,
or instead of it. What the server cannot take now is tried again without end, what it never will is told.

Who logs may be a signal handler that waits for the end, and the frame that it interrupts may be one of `add`'s. So
whoever logs holds no lock that the threads take, and after each step of `add` and `start` a handler finds things as
they must be for all to be sent.
"""

from __future__ import annotations

import _thread
import logging
import math
import queue
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from penstock import errors
from penstock.outgoing.box import Entry
from penstock.outgoing.tally import Tally
from penstock.session import Pace

_log = logging.getLogger("penstock")

THREADS = 8  # most of the time of a small file is waiting for disks
_HURRIED = 1.0  # seconds between tries, at most, while somebody waits for the end
_STILL = 3.0  # seconds in which nothing of a file has moved before that is told
_DAMAGED = 3  # tries, when what came was not what was sent
# Refusals that end when somebody sees to the server, or that are those of something on the way to it.
_MENDED = ("", "StoreRefused")


class Way(Protocol):
    """How a file gets to the server. Raises PenstockError, and OSError where its bytes cannot be read."""

    def send(self, run_id: str, entry: Entry, told: Callable[[int], None], stopping: threading.Event) -> None:
        """Send it; `told` is called with how many more of its bytes are there. Gives up soon once `stopping` is set."""

    def close(self) -> None:
        """Let go of the connection to the server, for good, and end what goes over it."""


class _Stop(threading.Event):
    """Takes no lock, which a signal handler could find taken."""

    _stopped = False

    def set(self) -> None:
        self._stopped = True

    def is_set(self) -> bool:
        return self._stopped


class Courier:
    """Sends entries of one run; `done` and `refused` are called with each, by its threads.

    `patient` tells whether a run that the server does not know is still to come.
    """

    def __init__(
        self,
        run_id: str,
        way: Way,
        pace: Pace,
        *,
        done: Callable[[Entry], None],
        refused: Callable[[Entry, str], None],
        patient: Callable[[], bool],
        offline: bool = False,
        quiet: bool = False,
    ) -> None:
        self.trouble = ""  # what goes wrong, while nothing is sent
        self.parked = ""  # why the server takes nothing of this run; empty while it may
        self.hurried = False  # somebody waits for the end
        self.files = 0  # that were sent
        self.bytes = 0  # of these
        self.moved = 0  # grows with whatever is sent
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._run_id = run_id
        self._way = way
        self._pace = pace
        self._done = done
        self._refused = refused
        self._patient = patient
        self._offline = offline
        self._waiting: dict[int, Entry] = {}  # by number; those that are being sent, too
        self._open: set[int] = set()  # numbers of those that nobody sends yet
        self._newest: dict[str, Entry] = {}
        self._threads = Tally()
        self._unmanned = False  # no thread was to be had
        self._lock = threading.Lock()  # the threads'
        self._line: dict[int, Entry] = {}  # what they have seen of `_waiting`
        self._under_way: dict[str, Entry] = {}
        self._sent: dict[int, int] = {}  # bytes of those that are being sent
        self._moved_at: dict[int, float] = {}  # when something of these last moved
        self._stopping = _Stop()
        self._closed = False
        self._random = random.Random()  # its own: training may have seeded the common one
        self._told: set[str] = set()
        self._quiet = quiet  # somebody else tells of what goes wrong

    def add(self, entry: Entry) -> None:
        """Send this, too. One that waits for the same path is not needed any more, if nothing can happen to this."""
        earlier = self._newest.get(entry.path)
        # First of all: should the process end before it is dropped, it must not be sent after this by others.
        if earlier is not None and entry.ours and self._claim(earlier):
            self._forget(earlier)
            self._done(earlier)
        self._newest[entry.path] = entry
        self._open.add(entry.number)
        self._waiting[entry.number] = entry
        self.start()

    def start(self) -> None:
        """Send what waits. Where no thread can be had, the next call tries again. Offline, nothing is sent."""
        if self._offline:
            return
        try:
            for _ in range(0 if self._stopping.is_set() else min(THREADS, len(self._waiting)) - self._threads.sum):
                # Not by `threading`: that holds a lock for a moment without which no thread begins.
                _thread.start_new_thread(self._work, ())
                self._threads.add(1)  # not before: a handler would count on one that does not begin
                self._unmanned = False
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self._unmanned = True
            self.trouble = f"cannot start a thread that sends: {error}"

    @property
    def settled(self) -> bool:
        """Whether nothing more will be sent of what is here."""
        if not self._waiting or self.parked or self._stopping.is_set():
            return True
        idle = not self._open or self._offline or self._unmanned
        return idle and not self._under_way and self._threads.sum <= 0

    @property
    def left(self) -> list[Entry]:
        """What is not sent."""
        return list(self._waiting.values())

    @property
    def sent_bytes(self) -> int:
        """Also of the files that are being sent."""
        return self.bytes + sum(list(self._sent.values()))

    @property
    def reason(self) -> str:
        """Why not all is sent yet; empty as far as all goes well."""
        if self.trouble:
            return self.trouble
        still = time.monotonic() - min(list(self._moved_at.values()), default=math.inf)
        return f"nothing has moved for {still:.0f} s: the server or its store is slow, or away" * (still >= _STILL)

    def wait(self, seconds: float) -> None:
        """Until nothing more will be sent, or so long."""
        with suppress(queue.Empty):
            self._news.get(timeout=max(0.0, seconds))

    def stop(self, timeout: float) -> None:
        """Send nothing more. Waits for the threads at most `timeout` seconds."""
        self._stopping.set()
        closed, self._closed = self._closed, True
        if not closed:
            self._way.close()
        until = time.monotonic() + timeout
        while self._threads.sum > 0 and time.monotonic() < until:
            time.sleep(0.01)

    def _claim(self, entry: Entry) -> bool:
        """Whether it is for the caller, and nobody else, to send it or to leave it out."""
        try:
            self._open.remove(entry.number)
        except KeyError:
            return False
        return True

    # The threads.

    def _work(self) -> None:
        while (entry := self._take() or self._leave()) is not None:
            try:
                self._deliver(entry)
            except Exception:  # noqa: BLE001  a bug of ours must not end the sending of the others
                _log.exception("run %s: %s could not be sent", self._run_id, entry.path)
            finally:
                with self._lock:
                    self._under_way.pop(entry.path, None)
                    self._sent.pop(entry.number, None)
                    self._moved_at.pop(entry.number, None)
            self._tell_settled()

    def _take(self) -> Entry | None:
        """The next whose path is not being sent to. None: this thread is not needed any more."""
        with self._lock:
            if self._stopping.is_set() or self.parked:
                return None
            entry = self._next()
            if entry is None:
                self._line = self._waiting.copy()
                entry = self._next()
            return entry

    def _next(self) -> Entry | None:
        """The next in line; it is under way from here on."""
        while entry := next((each for each in self._line.values() if each.path not in self._under_way), None):
            del self._line[entry.number]
            self._under_way[entry.path] = entry
            if self._claim(entry):
                return entry
            del self._under_way[entry.path]
        return None

    def _leave(self) -> Entry | None:
        """None: this thread is not counted on any more. What came while it was has been left to it."""
        self._threads.add(-1)
        entry = self._take()
        if entry is not None:
            self._threads.add(1)
        else:
            self._tell_settled()
        return entry

    def _tell_settled(self) -> None:
        if self.settled and self._news.empty():
            self._news.put(None)

    def _deliver(self, entry: Entry) -> None:
        tries = 0
        while not self._stopping.is_set() and not self.parked:
            tries += 1
            wait = 0.0
            patient = self._patient()  # asked before the server is
            self._sent.pop(entry.number, None)
            self._moved_at[entry.number] = time.monotonic()
            if problem := entry.problem():
                self._refuse(entry, problem)
                return
            try:
                self._way.send(self._run_id, entry, lambda more: self._progress(entry, more), self._stopping)
            except errors.Stopped:
                return
            except errors.PenstockError as error:
                if self._stopping.is_set():
                    return
                if not (patient and _is_of_run(error)):  # else the stream that makes it tells what is wrong
                    self.trouble = str(error)
                if self._is_final(entry, error, tries, patient):
                    return
                told = error.facts.get("retry-after-ms", "")
                wait = min(int(told) / 1000, 300.0) if told.isdecimal() else 0.0
            except Exception as error:  # noqa: BLE001  what cannot be read, no more threads, a bug: it stays in the box
                self.trouble = f"{type(error).__name__}: {error}"
                if not self._stopping.is_set():
                    self._tell("failed", f"{entry.path} could not be sent, and is tried again: {self.trouble}")
            else:
                self._forget(entry)
                with self._lock:
                    self.files += 1
                    self.bytes += entry.size
                self._has_moved()
                self._done(entry)
                return
            self._sleep(max(wait, self._backoff(tries)))

    def _is_final(self, entry: Entry, error: errors.PenstockError, tries: int, patient: bool) -> bool:
        """Whether there is no sense in another try; if so, that has been seen to."""
        name = error.facts.get("penstock-error", "")
        match error:
            case errors.Retryable() if name != "StoreFull":
                return False
            case errors.SourceChanged():
                self._refuse(entry, str(error))
            case errors.NotFound() if _is_of_run(error):
                if patient:
                    return False
                self._park(str(error))
            case errors.FailedPrecondition() | errors.PermissionDenied() if name in ("NotActive", "PermissionDenied"):
                self._park(str(error))
            case errors.InvalidArgument() if name == "ContentMismatch" and entry.ours and tries < _DAMAGED:
                return False
            case errors.InvalidArgument() | errors.AlreadyExists() | errors.FailedPrecondition() if name not in _MENDED:
                self._refuse(entry, str(error))
            case _:
                self._tell(type(error).__name__, f"files wait, and are tried again: {error}")
                return False
        return True

    def _refuse(self, entry: Entry, reason: str) -> None:
        self._forget(entry)
        self._refused(entry, reason)

    def _forget(self, entry: Entry) -> None:
        self._waiting.pop(entry.number, None)
        if self._newest.get(entry.path) is entry:
            self._newest.pop(entry.path, None)  # should it be a later one by now, that is sent in vain at worst

    def _park(self, reason: str) -> None:
        self.parked = reason
        self._tell("parked", f"the server takes no files of this run: {reason}")

    def _progress(self, entry: Entry, more: int) -> None:
        self._sent[entry.number] = self._sent.get(entry.number, 0) + more
        self._moved_at[entry.number] = time.monotonic()
        self._has_moved()

    def _has_moved(self) -> None:
        self.moved += 1
        self.trouble = ""

    def _backoff(self, tries: int) -> float:
        most = min(self._pace.backoff_most, self._pace.backoff_least * 2 ** min(tries, 20))
        return self._random.uniform(most / 2, most)

    def _sleep(self, seconds: float) -> None:
        """Until it is time; when somebody waits for the end, that is soon."""
        until = time.monotonic() + seconds
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
            if self.hurried:
                until = min(until, time.monotonic() + _HURRIED)

    def _tell(self, kind: str, message: str) -> None:
        """Loudly, and once."""
        if kind not in self._told and not self._quiet:
            self._told.add(kind)
            _log.error("run %s: %s", self._run_id, message)


def _is_of_run(error: errors.PenstockError) -> bool:
    """Whether the server itself says that there is no such run."""
    return isinstance(error, errors.NotFound) and "penstock-error" in error.facts
