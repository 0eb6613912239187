"""Sends what is left of processes that are gone, or were offline: spool by spool, each under an epoch of its own."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.address import Address, parse_address
from penstock.errors import NotFound, PenstockError
from penstock.runs import RunStatus
from penstock.sender import Sender, State
from penstock.session import Pace
from penstock.spool import owner, places, records
from penstock.spool.home import Home
from penstock.spool.owner import Owner
from penstock.spool.records import CHECK, PREFIX, Head
from penstock.spool.segments import stored
from penstock.spool.stored import Stored

_log = logging.getLogger("penstock")

_LOOK = 0.1  # seconds between looks at how far a sender has come
_LEAVE = 5.0  # seconds for it to end
_HEAD_BYTES = 2 << 20  # a head has all params and tags that a run began with
_STUCK = 60.0  # seconds without an acknowledgement, after which the next spool has its turn
_BRIEF = 1.0  # seconds for a server that has not taken the spool before
# That no server is there is told in the outcome, and of the run that adopts.
_HURRIED = Pace(backoff_most=2.0, absent_timeout=float("inf"))
_PATIENT = Pace(absent_timeout=float("inf"))

# Of a run's id: how many of its records are committed, and how many there are.
Telling = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a spool. `problem` is empty, or a sentence for people."""

    directory: Path
    run_id: str
    address: Address | None  # that it is for; None: nothing tells
    records: int  # that are committed
    values: int  # about so many, in all of its records
    left: int  # records that are not committed
    lost: int  # that were written, cannot be read, and were not there already; the server counts them
    rejected: int  # that the server refused for good
    ended: bool  # whether its writer came to an end of its own
    done: bool  # the server has all that can be had of it
    problem: str

    @property
    def whole(self) -> bool:
        """Whether everything that was logged is stored."""
        return self.done and not self.lost and not self.rejected


def send(
    directory: Path,
    *,
    url: str | None = None,
    workspace: str | None = None,
    force: bool = False,
    timeout: float | None = None,
    told: Telling | None = None,
    ended: threading.Event | None = None,
    pace: Pace = _HURRIED,
) -> Outcome | None:
    """Send a spool. None: somebody alive owns it, or it is sent, or gone. Whatever else is wrong is in the outcome.

    Raises ValueError for a `url` that is none.

    Args:
        directory: the spool's.
        url: another server than the one that it was meant for.
        workspace: another, too.
        force: take it from a living process; that goes on with it when this is done.
        timeout: give up when nothing was acknowledged for so many seconds. None: never.
        told: called now and then.
        ended: give up when it is set.
        pace: of the stream.
    """
    if url is not None:
        parse_address(url, workspace)
    try:
        claimed = Owner.claim(directory, force=force)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _unread(directory, f"cannot be claimed ({error.strerror or error}); its disk has to be writable")
    if claimed is None:
        return None
    try:
        if places.is_sent(directory):
            return None
        try:
            spool = _open(directory)
            where = _where(spool.head, url, workspace)
        except ValueError as error:
            return _unread(directory, f"{error}; remove the directory if nothing in it is wanted")
        home = Home.of_stored(directory, claimed, spool.head.run_id, spool.head.writer_id)
        sender = Sender(spool, home, where, pace)
        sender.start()
        _await(sender, timeout, told, ended)
        sender.stop(_LEAVE)
        spool.release()
        return _outcome(directory, spool, sender, where)
    finally:
        claimed.release()


def sync(
    roots: Iterable[Path],
    *,
    url: str | None = None,
    workspace: str | None = None,
    force: bool = False,
    timeout: float | None = None,
    told: Telling | None = None,
    each: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Send all that is left in some roots, the oldest first; `each` is called with what has become of it.

    A server that did not take one is not waited for as long for the next.
    """
    outcomes: list[Outcome] = []
    absent: set[Address | None] = set()
    for root in roots:
        for directory in unsent(root) if force else places.orphans(root):
            brief = timeout is not None and _address_of(directory, url, workspace) in absent
            wait = min(timeout, _BRIEF) if brief and timeout is not None else timeout
            outcome = send(directory, url=url, workspace=workspace, force=force, timeout=wait, told=told)
            if outcome is None:
                continue
            if outcome.address and not outcome.done and not outcome.records:
                absent.add(outcome.address)
            outcomes.append(outcome)
            if each is not None:
                each(outcome)
    return outcomes


def unsent(root: Path) -> Iterator[Path]:
    """Spools that are not sent, whoever owns them. Raises OSError at the start."""
    for directory in sorted(places.found(root)):
        with suppress(OSError):  # swept away meanwhile
            if not places.is_sent(directory) and places.contents(directory).segments:
                yield directory


def end_as_killed(
    roots: Iterable[Path], *, url: str | None = None, workspace: str | None = None
) -> Iterator[tuple[str, str]]:
    """End as KILLED the runs that are RUNNING though all their writers here are gone, one without a word of its end.

    Only runs whose spools in these roots are all sent. What has been logged last tells the time. Yields their ids,
    each with what kept it from being ended, or nothing.
    """
    from penstock.client import Client  # noqa: PLC0415  who logs needs none of it

    runs: dict[tuple[str, Address], list[Path]] = {}
    unsettled: set[str] = set()
    for root in roots:
        for directory in places.found(root):
            run_id, _ = places.ids_of(directory)
            where = _address_of(directory, url, workspace)
            if where is None or not places.is_sent(directory) or not owner.orphaned(directory):
                unsettled.add(run_id)
            else:
                runs.setdefault((run_id, where), []).append(directory)
    for (run_id, where), directories in runs.items():
        if run_id in unsettled or all(map(_has_ended, directories)):
            continue
        last = max(places.contents(directory).written for directory in directories)
        try:
            with Client(_url_of(where), workspace=where.workspace) as client:
                if client.get_run(run_id).status is RunStatus.RUNNING:
                    client.update_run(run_id, status=RunStatus.KILLED, end_time_ms=int(last * 1000))
                    yield run_id, ""
        except NotFound:  # deleted since
            continue
        except PenstockError as error:
            yield run_id, f"{error}; try again, or name the server by --url"


# In the background of a run.

_ended = threading.Event()
_adopting: set[Path] = set()
_watched: list[bool] = []


def adopt_in_background(root: Path, address: Address) -> None:
    """Send to this server what processes of this machine have left in `root`, one after the other, in a thread.

    Does nothing where that is under way. Never raises, and the process may end at any time: what is not sent then is
    sent another time.
    """
    if root in _adopting or _ended.is_set():
        return
    if not _watched:
        _watched.append(True)
        atexit.register(_end)
    _adopting.add(root)
    try:
        threading.Thread(target=_adopt, args=(root, address), name="penstock's orphans", daemon=True).start()
    except RuntimeError as error:  # no more threads, or the interpreter is ending
        _adopting.discard(root)
        _log.debug("%s is not looked through: %s", root, error)


def _adopt(root: Path, address: Address) -> None:
    try:
        places.sweep(root, grace_seconds=places.GRACE_SECONDS, keep_bytes=places.KEEP_BYTES, now=time.time())
        outcomes = []
        for directory in places.orphans(root):
            if _ended.is_set():
                return
            last = owner.holder(directory)
            if last is not None and last.here and _address_of(directory) == address:
                outcome = send(directory, ended=_ended, timeout=_STUCK, pace=_PATIENT)
                if outcome is not None and not _ended.is_set():
                    outcomes.append(outcome)
        _tell(outcomes)
        _adopt_files(root, address)
    except OSError as error:
        _log.warning("%s: what earlier processes may have left there is not sent: %s; try `penstock sync`", root, error)
    except Exception:  # noqa: BLE001  whatever it is, the run that is being logged to goes on
        _log.exception("%s: what earlier processes may have left there is not sent; try `penstock sync`", root)
    finally:
        _adopting.discard(root)


def _adopt_files(root: Path, address: Address) -> None:
    """After the records, because those make the runs."""
    if not (root / "artifacts").is_dir():
        return
    from penstock.outgoing import left  # noqa: PLC0415  most roots have none

    for outcome in left.adopt(root, address, _ended, _STUCK, _PATIENT):
        if outcome.whole:
            _log.info("run %s: sent %d file(s) that an earlier process had left here", outcome.run_id, outcome.files)
        else:
            _log.warning(
                "run %s: files of an earlier process, in %s: %s", outcome.run_id, outcome.directory, outcome.problem
            )


def _tell(outcomes: list[Outcome]) -> None:
    """Once."""
    whole = [outcome for outcome in outcomes if outcome.whole]
    if whole:
        _log.info(
            "sent what %d earlier process(es) had left here: %d records of run(s) %s",
            len(whole),
            sum(outcome.records for outcome in whole),
            ", ".join(sorted({outcome.run_id for outcome in whole})),
        )
    for outcome in outcomes:
        if not outcome.whole:
            _log.warning("run %s: of an earlier process, in %s: %s", outcome.run_id, outcome.directory, outcome.problem)


def _end() -> None:
    """The process ends, and does not wait for what others have left."""
    _ended.set()
    until = time.monotonic() + 1.0
    while _adopting and time.monotonic() < until:
        time.sleep(0.01)


def _in_child() -> None:
    """The thread is the parent's."""
    _adopting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


# One spool.


def _await(sender: Sender, timeout: float | None, told: Telling | None, ended: threading.Event | None) -> None:
    """Until all is sent, or cannot be, or nothing has moved for too long."""
    outbox = sender.outbox
    acked, since = -1, 0.0
    while not sender.settled.wait(_LOOK):
        if sender.state is State.FENCED or (ended is not None and ended.is_set()):
            return
        now = time.monotonic()
        if outbox.acked != acked:
            acked, since = outbox.acked, now
        elif timeout is not None and now - since > timeout:
            return
        if told is not None:
            told(sender.spool.head.run_id, outbox.acked, outbox.last_seq)


def _outcome(directory: Path, spool: Stored, sender: Sender, where: Address) -> Outcome:
    outbox = sender.outbox
    rejected = sum(each.records for each in sender.rejected)
    done = sender.state is State.CLOSED
    problems = []
    if not done:
        problems.append(_trouble(sender, where))
    if rejected:
        problems.append(f"the server refused {rejected} record(s): {sender.rejected[-1].reason}")
    if outbox.lost:
        problems.append(f"{outbox.lost} record(s) are damaged and lost")
    return Outcome(
        directory=directory,
        run_id=spool.head.run_id,
        address=where,
        records=outbox.acked,
        values=spool.values,
        left=outbox.unacked,
        lost=outbox.lost,
        rejected=rejected,
        ended=spool.finish is not None,
        done=done,
        problem="; ".join(problems),
    )


def _trouble(sender: Sender, where: Address) -> str:
    match sender.state:
        case State.FENCED:
            return "another process has taken it over"
        case State.PARKED:
            return f"the server will not take it ({sender.trouble})"
        case _:
            return f"not sent to {where.target} ({sender.trouble or sender.state.value})"


def _unread(directory: Path, problem: str) -> Outcome:
    """Of a spool of which nothing is known but its name."""
    run_id, _ = places.ids_of(directory)
    return Outcome(directory, run_id, None, 0, 0, 0, 0, 0, ended=False, done=False, problem=problem)


def _where(head: Head, url: str | None, workspace: str | None) -> Address:
    return replace(
        head.address if url is None else parse_address(url, workspace or head.address.workspace),
        workspace=workspace or head.address.workspace,
    )


def _address_of(directory: Path, url: str | None = None, workspace: str | None = None) -> Address | None:
    """Where a spool is to be sent. Reads no more than its beginning; None where that does not tell."""
    try:
        with stored(directory)[0].open("rb") as file:
            data = file.read(_HEAD_BYTES)
        length = records.whole(data, 0)
        if not length or records.kind(data, 0) != records.HEAD:
            return None
        head = Head.unpack(data[PREFIX.size : length - CHECK.size])
        return _where(head, url, workspace)
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return None


def _url_of(address: Address) -> str:
    return f"https://{address.target}" if address.tls else address.target


def _open(directory: Path) -> Stored:
    """Raises ValueError, whatever is wrong with it: no spool that a disk has damaged keeps back the others."""
    try:
        return Stored.open(directory)
    except Exception as error:
        raise ValueError(f"cannot be read ({type(error).__name__}: {error})") from error


def _has_ended(directory: Path) -> bool:
    """Whether the writer came to an end of its own."""
    try:
        spool = _open(directory)
    except ValueError:
        return False
    spool.release()
    return spool.finish is not None
