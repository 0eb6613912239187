"""Boxes of processes that are gone, or were offline: what is in them is sent by others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.address import Address, artifacts_address, parse_address
from penstock.outgoing import box
from penstock.outgoing.box import Box, Entry
from penstock.outgoing.courier import Courier
from penstock.outgoing.way import GrpcWay
from penstock.session import Pace
from penstock.spool import owner, places

_LOOK = 0.1  # seconds between looks at how far a courier has come
_LEAVE = 5.0  # seconds for it to end
_BRIEF = 1.0  # seconds for a server that has taken nothing before
_HURRIED = Pace(backoff_most=2.0)

# Of a run's id: how many bytes are sent, and how many there are.
Telling = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a box. `problem` is empty, or a sentence for people."""

    directory: Path
    run_id: str
    address: Address | None  # that it is for; None: nothing tells
    files: int  # that are sent
    bytes: int
    left: int  # files
    left_bytes: int
    problem: str

    @property
    def whole(self) -> bool:
        """Whether all that was logged is stored."""
        return not self.left and not self.problem


def send(
    directory: Path,
    *,
    url: str | None = None,
    workspace: str | None = None,
    timeout: float | None = None,
    told: Telling | None = None,
    ended: threading.Event | None = None,
    pace: Pace = _HURRIED,
) -> Outcome | None:
    """Send a box. None: somebody alive owns it, or it is gone. Whatever else is wrong is in the outcome.

    `timeout` is how many seconds nothing may move while the server is away; to read a large file, here or where the
    server keeps it, takes its time. The rest is as in `penstock.sync.send`.
    """
    try:
        claimed = Box.claim(directory)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return Outcome(directory, box.run_of(directory), None, 0, 0, 0, 0, f"cannot be read ({error})")
    if claimed is None:
        return None
    try:
        return _send(claimed, directory, _where(claimed.address, url, workspace), timeout, told, ended, pace)
    finally:
        claimed.release()


def _send(
    claimed: Box,
    directory: Path,
    where: Address,
    timeout: float | None,
    told: Telling | None,
    ended: threading.Event | None,
    pace: Pace,
) -> Outcome:
    problems: list[str] = []

    def refused(entry: Entry, reason: str) -> None:
        kept = claimed.refuse(entry, reason)
        problems.append(f"{entry.path} is refused: {reason}" + (f"; kept for a day in {kept}" if kept else ""))

    way = GrpcWay(where) if timeout is None else GrpcWay(where, patience=timeout)
    courier = Courier(claimed.run_id, way, pace, done=claimed.drop, refused=refused, patient=lambda: False, quiet=True)
    found, damaged = box.entries(directory)
    for name in damaged:
        claimed.set_aside(name)
        problems.append(f"{name} in {directory} cannot be read; what there is of it is kept for a day")
    total = sum(entry.size for entry in found)
    for entry in found:
        courier.add(entry)
    moved, since = -1, 0.0
    while not courier.settled and not (ended is not None and ended.wait(0)):
        now = time.monotonic()
        if courier.moved != moved:
            moved, since = courier.moved, now
        elif timeout is not None and now - since > timeout and courier.trouble:
            break
        if told is not None:
            told(claimed.run_id, courier.sent_bytes, total)
        courier.wait(_LOOK)
    courier.stop(_LEAVE)
    left = courier.left
    if left:
        problems.append(courier.parked or f"not sent to {where.target} ({courier.reason or 'it takes too long'})")
    return Outcome(
        directory,
        claimed.run_id,
        where,
        files=courier.files,
        bytes=courier.bytes,
        left=len(left),
        left_bytes=sum(entry.size for entry in left),
        problem="; ".join(problems),
    )


def sync(
    roots: Iterable[Path],
    *,
    url: str | None = None,
    workspace: str | None = None,
    timeout: float | None = None,
    told: Telling | None = None,
    each: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Send all boxes that nobody alive owns, the oldest first; `each` is called with what has become of it.

    A server that took nothing of one is not waited for as long for the next.
    """
    outcomes: list[Outcome] = []
    absent: set[Address | None] = set()
    for root in roots:
        for directory in box.orphans(root):
            brief = timeout is not None and _address(directory, url, workspace) in absent
            wait = min(timeout, _BRIEF) if brief and timeout is not None else timeout
            outcome = send(directory, url=url, workspace=workspace, timeout=wait, told=told)
            if outcome is None:
                continue
            if outcome.address and outcome.left and not outcome.files:
                absent.add(outcome.address)
            outcomes.append(outcome)
            if each is not None:
                each(outcome)
        box.sweep(root, grace_seconds=places.GRACE_SECONDS, now=time.time())
    return outcomes


def adopt(root: Path, address: Address, ended: threading.Event, stuck: float, pace: Pace) -> Iterator[Outcome]:
    """Send to this server what processes of this machine have left."""
    box.sweep(root, grace_seconds=places.GRACE_SECONDS, now=time.time())
    for directory in box.orphans(root):
        with suppress(OSError, ValueError):
            if ended.is_set():
                return
            last = owner.holder(directory)
            if last is not None and last.here and box.head_of(directory)[1] == artifacts_address(address):
                outcome = send(directory, ended=ended, timeout=stuck, pace=pace)
                if outcome is not None and not ended.is_set():
                    yield outcome


def drop(directory: Path) -> bool:
    """Remove a box with all that is in it. False: somebody alive owns it. Raises OSError."""
    claimed = owner.Owner.claim(directory)
    if claimed is None:
        return False
    try:
        box.remove(directory)
    finally:
        claimed.release()
    return True


def unsent(root: Path) -> Iterator[Path]:
    """Boxes with something to be sent, whoever owns them."""
    for directory in box.found(root):
        with suppress(OSError):  # removed meanwhile
            if not box.is_empty(directory):
                yield directory


def _address(directory: Path, url: str | None, workspace: str | None) -> Address | None:
    try:
        return _where(box.head_of(directory)[1], url, workspace)
    except (OSError, ValueError):
        return None


def _where(address: Address, url: str | None, workspace: str | None) -> Address:
    workspace = workspace or address.workspace
    if url is None:
        return Address(address.target, address.tls, workspace)
    return artifacts_address(parse_address(url, workspace))
