"""The threads that send what is in a box: a few, started when there is something to send, ended when there is not.

Entries are sent in the order in which they were logged; of two for the same path the later is sent after the earlier,
or instead of it. What the server cannot take now is tried again without end, what it never will is told.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from penstock import errors
from penstock.outgoing.box import Entry
from penstock.session import Pace

_log = logging.getLogger("penstock")

THREADS = 8  # most of the time of a small file is waiting for disks
_HURRIED = 1.0  # seconds between tries, at most, while somebody waits for the end
_DAMAGED = 3  # tries, when what came was not what was sent
# Refusals that end when somebody sees to the server, or that are those of something on the way to it.
_MENDED = ("", "StoreRefused")


class Way(Protocol):
    """How a file gets to the server. Raises PenstockError, and OSError where its bytes cannot be read."""

    def send(self, run_id: str, entry: Entry, told: Callable[[int], None], stopping: threading.Event) -> None:
        """Send it; `told` is called with how many more of its bytes are there. Gives up soon once `stopping` is set."""

    def close(self) -> None:
        """Let go of connections, and end what goes over them."""


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
        # Reentrant: a signal handler may log a file while we are in here.
        self._lock = threading.RLock()
        self._waiting: dict[int, Entry] = {}  # by number; those that are being sent, too
        self._newest: dict[str, Entry] = {}
        self._under_way: dict[str, Entry] = {}
        self._sent: dict[int, int] = {}  # bytes of those that are being sent
        self._threads: set[threading.Thread] = set()
        self._stopping = _Stop()
        self._closed = False
        self._random = random.Random()  # its own: training may have seeded the common one
        self._told: set[str] = set()
        self._quiet = quiet  # somebody else tells of what goes wrong

    def add(self, entry: Entry) -> None:
        """Send this, too. One that waits for the same path is not needed any more, if nothing can happen to this."""
        with self._lock:
            earlier = self._newest.get(entry.path)
            self._waiting[entry.number] = self._newest[entry.path] = entry
            instead = earlier is not None and entry.ours and self._under_way.get(entry.path) is not earlier
            if instead and earlier is not None:
                self._waiting.pop(earlier.number, None)
        if instead and earlier is not None:
            self._done(earlier)
        self.start()

    def start(self) -> None:
        """Send what waits. Where no thread can be had, the next call tries again. Offline, nothing is sent."""
        if self._offline:
            return
        try:
            with self._lock:
                while not self._stopping.is_set() and len(self._threads) < min(THREADS, len(self._waiting)):
                    thread = threading.Thread(target=self._work, name=f"penstock's files {self._run_id}", daemon=True)
                    thread.start()
                    self._threads.add(thread)
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self.trouble = f"cannot start a thread that sends: {error}"

    @property
    def settled(self) -> bool:
        """Whether nothing more will be sent of what is here."""
        return not self._waiting or bool(self.parked) or self._stopping.is_set() or not self._threads

    @property
    def left(self) -> list[Entry]:
        """What is not sent."""
        return list(self._waiting.values())

    @property
    def sent_bytes(self) -> int:
        """Also of the files that are being sent."""
        return self.bytes + sum(list(self._sent.values()))

    def wait(self, seconds: float) -> None:
        """Until something has been sent, or will not be, or so long."""
        with suppress(queue.Empty):
            self._news.get(timeout=max(0.0, seconds))

    def stop(self, timeout: float) -> None:
        """Send nothing more. Waits for the threads at most `timeout` seconds."""
        self._stopping.set()
        closed, self._closed = self._closed, True
        if not closed:
            self._way.close()
        until = time.monotonic() + timeout
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))

    # The threads.

    def _work(self) -> None:
        while (entry := self._take()) is not None:
            try:
                self._deliver(entry)
            except Exception:  # noqa: BLE001  a bug of ours must not end the sending of the others
                _log.exception("run %s: %s could not be sent", self._run_id, entry.path)
            finally:
                with self._lock:
                    self._under_way.pop(entry.path, None)
                    self._sent.pop(entry.number, None)
                self._news.put(None)

    def _take(self) -> Entry | None:
        """The next whose path is not being sent to. None: this thread is not needed any more."""
        with self._lock:
            if not self._stopping.is_set() and not self.parked:
                for entry in self._waiting.values():
                    if entry.path not in self._under_way:
                        self._under_way[entry.path] = entry
                        return entry
            self._threads.discard(threading.current_thread())
        self._news.put(None)
        return None

    def _deliver(self, entry: Entry) -> None:
        tries = 0
        while not self._stopping.is_set() and not self.parked:
            tries += 1
            wait = 0.0
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
                self.trouble = str(error)
                if self._is_final(entry, error, tries):
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

    def _is_final(self, entry: Entry, error: errors.PenstockError, tries: int) -> bool:
        """Whether there is no sense in another try; if so, that has been seen to."""
        name = error.facts.get("penstock-error", "")
        match error:
            case errors.Retryable() if name != "StoreFull":
                return False
            case errors.SourceChanged():
                self._refuse(entry, str(error))
            case errors.NotFound() if name:
                if self._patient():
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
        with self._lock:
            self._waiting.pop(entry.number, None)
            if self._newest.get(entry.path) is entry:
                del self._newest[entry.path]

    def _park(self, reason: str) -> None:
        self.parked = reason
        self._tell("parked", f"the server takes no files of this run: {reason}")

    def _progress(self, entry: Entry, more: int) -> None:
        self._sent[entry.number] = self._sent.get(entry.number, 0) + more
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
