"""The files that this process logs to a run: into the box, and from there to the server.

No call waits for a network, and none raises but `Unlogged`: where the disk does not take a file, only a note is made
of where it is, and what is in memory stays there.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from penstock.address import Address
from penstock.bars import files_of
from penstock.outgoing import snapshot
from penstock.outgoing.box import Box, Entry
from penstock.outgoing.courier import Courier
from penstock.outgoing.tally import Tally
from penstock.outgoing.way import GrpcWay
from penstock.session import Pace
from penstock.spool.retention import Limits

_log = logging.getLogger("penstock")

_REFUSALS_KEPT = 1_000


class Unlogged(Exception):
    """A file that cannot be taken; the sentence says why. `about_it`: another may be taken."""

    def __init__(self, kind: str, message: str, *, about_it: bool = True) -> None:
        super().__init__(message)
        self.kind = kind
        self.about_it = about_it


class Outgoing:
    """What is logged goes in by `file` and `content`; what becomes of it, the rest tells."""

    def __init__(
        self,
        run_id: str,
        address: Address,
        pace: Pace,
        root: str | os.PathLike[str] | None,
        limits: Limits,
        *,
        durable: bool,
        offline: bool,
        patient: Callable[[], bool],
    ) -> None:
        self.box = Box(root, run_id, address, durable=durable)
        self.refusals: deque[tuple[str, str]] = deque(maxlen=_REFUSALS_KEPT)  # what the server refused, and why
        self.refused = 0  # how many that were
        self.closed = False
        self.courier = Courier(
            run_id,
            GrpcWay(address),
            pace,
            done=self._done,
            refused=self._was_refused,
            patient=patient,
            offline=offline,
        )
        self._run_id = run_id
        self._limits = limits
        self._offline = offline
        self._memory = Tally()  # bytes
        self._told: set[str] = set()

    # For the threads that log. Each raises Unlogged.

    def file(self, source: Path, path: str, *, copy: bool = True) -> None:
        """A file, as it is now. Without `copy` only a note is made of it: it must not change until it is sent."""
        self._check_open()
        try:
            with snapshot.open_plain(source) as readable:
                status = os.fstat(readable.fileno())
        except (OSError, ValueError) as error:
            raise Unlogged("file", f"{source} cannot be read ({_reason(error)})") from error
        if copy and (entry := self._copied(source, path, status.st_size)) is not None:
            self.courier.add(entry)
            return
        whole = Path(os.path.abspath(source))  # noqa: PTH100  links are followed when it is read
        entry = Entry(self.box.number(), path, status.st_size, whole, changed_ns=status.st_mtime_ns)
        try:
            self.box.refer(entry)
        except OSError as error:
            self._tell(
                "note",
                f"no note can be made on the disk ({_reason(error)}) of files to be sent, the first of them {source}; "
                "those that are not sent when this process ends are LOST to the run",
            )
        self.courier.add(entry)

    def content(self, data: bytes, path: str) -> None:
        """These bytes, as a file."""
        self._check_open()
        try:
            if not self._has_room(len(data)):
                raise OSError(f"{self._limits.disk:,} bytes are waiting to be sent; spool_bytes=")
            entry = self.box.keep(data, path)
        except OSError as error:
            if self._memory.sum + len(data) > self._limits.memory:
                raise Unlogged(
                    "room", f"neither the disk ({_reason(error)}) nor memory has room for {path!r}; it is LOST"
                ) from error
            self._tell(
                "memory",
                f"the disk does not take what is logged as {path!r} ({_reason(error)}); it is kept in memory, and LOST "
                "if this process ends before it is sent",
            )
            self._memory.add(len(data))
            entry = Entry(self.box.number(), path, len(data), data=data)
        self.courier.add(entry)

    def _copied(self, source: Path, path: str, size: int) -> Entry | None:
        """None: there is no room for it."""
        try:
            if self._has_room(size):
                return self.box.copy(source, path)
            problem = f"{self._limits.disk:,} bytes are waiting to be sent; spool_bytes="
        except OSError as error:
            problem = _reason(error)
        self._tell(
            "reference",
            f"no copy can be made of {source} ({problem}): it is sent from where it is, as are others; "
            "leave them as they are until finish() has returned",
        )
        return None

    def _has_room(self, size: int) -> bool:
        return self.box.held + size <= self._limits.disk

    def _check_open(self) -> None:
        if self.courier.parked:
            raise Unlogged("files closed", f"logging of files has stopped ({self.courier.parked})", about_it=False)
        if self.closed:
            raise Unlogged("finished", "the run is finished; what is logged after that is refused", about_it=False)

    # For the end.

    def close(self) -> None:
        """Take no more, and hurry."""
        self.closed = True
        self.courier.hurried = True
        self.courier.start()

    @property
    def settled(self) -> bool:
        """Whether nothing more will be sent of what is here."""
        return self.courier.settled

    @property
    def left(self) -> list[Entry]:
        """What is not sent."""
        return self.courier.left

    def fate(self) -> str:
        """What is not sent, and what becomes of that when the process ends; empty when all is sent."""
        left = self.left
        if not left:
            return ""
        text = f"{told(left)} NOT sent"
        if why := self.courier.parked or self.courier.reason:
            text += f" ({why})"
        lost = self.lost
        if len(lost) >= len(left):
            return f"{text}; LOST to the run when this process ends"
        text += f"; kept in {self.box.path}: `penstock sync` sends them"
        if not self._offline:
            text += ", as does the next run here to the same server"
        if away := [entry for entry in left if entry.noted and not entry.ours]:
            others = f" and {len(away) - 1} more" * (len(away) > 1)
            text += f"; leave {away[0].file}{others} as they are until then"
        if lost:
            text += f"; BUT {told(lost)} noted nowhere, and LOST when this process ends"
        return text

    @property
    def lost(self) -> list[Entry]:
        """What is not sent, and ends with the process."""
        return self.left if self.box.path is None else [entry for entry in self.left if not entry.noted]

    def stop(self, timeout: float) -> None:
        """Send nothing more, and leave the box to others."""
        self.courier.stop(timeout)
        self.box.release()

    # In the courier's threads, or those that log.

    def _done(self, entry: Entry) -> None:
        if entry.file is None:
            self._memory.add(-entry.size)
        self.box.drop(entry)

    def _was_refused(self, entry: Entry, reason: str) -> None:
        self.refused += 1
        self.refusals.append((entry.path, reason))
        kept = self.box.refuse(entry, reason)
        _log.warning(
            "run %s: the file %s is refused: %s%s",
            self._run_id,
            entry.path,
            reason,
            f"; what was logged is kept for a day in {kept}" if kept else "",
        )

    def _tell(self, kind: str, message: str) -> None:
        """Once."""
        if kind not in self._told:
            self._told.add(kind)
            _log.warning("run %s: %s (told once)", self._run_id, message)


def told(entries: list[Entry]) -> str:
    """How many files of how many bytes are …"""
    return files_of(len(entries), sum(entry.size for entry in entries)) + (" is" if len(entries) == 1 else " are")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
