"""`penstock sync`: sends what is left on this machine, or shows it."""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock import sync as spools
from penstock.bars import count_of, files_of, is_terminal, say, size_of
from penstock.cli import references
from penstock.cli.asking import confirmed
from penstock.cli.tables import table
from penstock.outgoing import box, left
from penstock.spool import owner, places
from penstock.spool.stored import Stored

_PATHS = 5  # that are told
_QUIET = 1.0  # seconds before anything is told
_IN_A_FILE = 10.0  # seconds between lines where they are not overwritten


def sync(args: argparse.Namespace) -> int:
    """`penstock sync`. Returns 0 when everything is sent, else 1."""
    roots = places.roots(args.dir)
    if args.dir is not None and not roots:
        raise ValueError(f"{args.dir} is no directory of spools that is ours")
    if args.list:
        return _list(roots)
    if args.drop is not None:
        return _drop(roots, args.drop, sure=args.yes)
    logging.getLogger("penstock").addHandler(logging.NullHandler())  # what it tells is told here
    progress = _Progress()

    def each(tell: Callable[[Any], None]) -> Callable[[Any], None]:
        def telling(outcome: Any) -> None:
            progress.over()
            tell(outcome)

        return telling

    outcomes = spools.sync(
        roots,
        url=args.url,
        force=args.take_over,
        timeout=args.timeout,
        told=progress.records,
        each=each(_told_outcome),
    )
    met = {outcome.directory for outcome in outcomes}
    owned = [directory for root in roots for directory in spools.unsent(root) if directory not in met]
    for directory in owned:
        _say(directory, f"NOT sent: {_owned_by(directory)}, and sends it; --take-over sends it now")
    files = left.sync(roots, url=args.url, timeout=args.timeout, told=progress.files, each=each(_told_files))
    met |= {outcome.directory for outcome in files}
    for directory in (each for root in roots for each in left.unsent(root) if each not in met):
        owned.append(directory)
        _say(directory, f"files NOT sent: {_owned_by(directory)}, and sends them")
    whole = not owned and all(outcome.whole for outcome in outcomes) and all(outcome.whole for outcome in files)
    alive = {places.ids_of(directory)[0] for root in roots for directory in spools.unsent(root)}
    if args.killed:
        for run_id, problem in spools.end_as_killed(roots, url=args.url):
            whole &= not problem
            print(f"run {run_id}: {f'NOT ended: {problem}' if problem else 'ended as KILLED'}", flush=True)
    elif died := {outcome.run_id for outcome in outcomes if outcome.done and not outcome.ended} - alive:
        print(
            f"penstock: {count_of(len(died), 'run')} had a process that died; --killed ends those that are RUNNING: "
            f"{', '.join(sorted(died))}",
            file=sys.stderr,
        )
    for root in roots:
        places.sweep(root, grace_seconds=places.GRACE_SECONDS, keep_bytes=places.KEEP_BYTES, now=time.time())
    if not outcomes and not files and not owned:
        print(f"nothing to send in {', '.join(map(str, roots)) or 'any directory of spools'}", file=sys.stderr)
    return 0 if whole else 1


def _told_outcome(outcome: spools.Outcome) -> None:
    """A line: what it was, what became of it, what is wrong, what to do."""
    told = count_of(outcome.records, "record")
    if outcome.done:
        text = f"sent, {told}" + (f"; BUT {outcome.problem}" if outcome.problem else "")
    elif outcome.left:
        text = f"NOT sent: {outcome.left:,} of {outcome.left + outcome.records:,} records are left, {outcome.problem}"
        text += f"; they stay in {outcome.directory}: "
        text += _way_out(outcome.run_id, outcome.problem) or "try again, or name the server by --url"
    else:
        text = f"NOT sent: {outcome.problem}; {outcome.directory}"
        if way_out := _way_out(outcome.run_id, outcome.problem):
            text += f": {way_out}"
    _say(outcome.directory, text)


def _told_files(outcome: left.Outcome) -> None:
    """A line, as of records."""
    texts = [f"sent, {files_of(outcome.files, outcome.bytes)}"] if outcome.files else []
    if outcome.left:
        texts.append(f"NOT sent: {files_of(outcome.left, outcome.left_bytes)} left in {outcome.directory}")
    if outcome.problem:
        texts.append(f"BUT {outcome.problem}")
    if outcome.left and (way_out := _way_out(outcome.run_id, outcome.problem)):
        texts.append(way_out)
    _say(outcome.directory, "; ".join(texts))


def _way_out(run_id: str, problem: str) -> str:
    """Of a run that the server has no more: what to do, by the server's own words; empty where those are others."""
    drop = f"`penstock sync --drop {run_id}` removes what is left here"
    if "is deleted" in problem:
        return f"`penstock runs restore {run_id}` and sync again, or give it up: {drop}"
    if "was removed for good" in problem:
        return drop
    if f"run {run_id} does not exist" in problem:
        return f"its records may be elsewhere, and make it; if it was removed for good, {drop}"
    return ""


def _drop(roots: Sequence[Path], text: str, *, sure: bool) -> int:
    """Gives up what is left of a run. Returns 0 when that is gone, else 1."""
    logs = [each for root in roots for each in spools.unsent(root)]
    boxes = [each for root in roots for each in left.unsent(root)]
    run_id = _run_left(text, [*logs, *boxes])
    logs, boxes = ([each for each in found if box.run_of(each) == run_id] for found in (logs, boxes))
    for directory in logs:
        _say(directory, f"{_records(directory)} records, {size_of(places.contents(directory).size)}, in {directory}")
    for directory in boxes:
        _say(directory, f"{files_of(*_sizes(directory))}, in {directory}: {_paths(directory)}")
    if not sure and not confirmed("Drop this for good?"):
        print("penstock: nothing is dropped; the same with --yes drops it for good", file=sys.stderr)
        return 1
    kept = 0
    for directory in (*logs, *boxes):
        gone = places.remove(directory) if directory in logs else left.drop(directory)
        kept += not gone
        _say(directory, "dropped" if gone else f"NOT dropped: {_owned_by(directory)}, or it cannot be removed")
    return 1 if kept else 0


def _run_left(text: str, directories: Sequence[Path]) -> str:
    """The run that is meant, of those that something is left of. Raises ValueError."""
    there = {box.run_of(each) for each in directories}
    beginning = references.beginning_of(text) or references.whole(text)
    found = {each: "" for each in sorted(there) if each.startswith(beginning)}
    if not found:
        raise ValueError(f"nothing that is to be sent is left of run {text} here")
    return references.only(text, found)


def _sizes(directory: Path) -> tuple[int, int]:
    found, _ = box.entries(directory)
    return len(found), sum(entry.size for entry in found)


def _paths(directory: Path) -> str:
    found, _ = box.entries(directory)
    return ", ".join(entry.path for entry in found[:_PATHS]) + (", …" if len(found) > _PATHS else "")


def _say(directory: Path, text: str) -> None:
    print(f"run {box.run_of(directory)}: {text}", flush=True)


def _owned_by(directory: Path) -> str:
    told = None
    with suppress(OSError):
        told = owner.holder(directory)
    return f"process {told.pid} on {told.host} has it" if told is not None else "another process has it"


class _Progress:
    """On a terminal, one line that is overwritten; else one after a second, and every ten seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _QUIET

    def records(self, run_id: str, acked: int, count: int) -> None:
        """So many are sent."""
        self._say(f"run {run_id}: {acked:,} of {count:,} records sent")

    def files(self, run_id: str, sent: int, total: int) -> None:
        """So many bytes of them are sent."""
        self._say(f"run {run_id}: {size_of(sent)} of {size_of(total)} of files sent")

    def over(self) -> None:
        """Of one: before what became of it is told."""
        self._next = time.monotonic() + _QUIET
        if is_terminal():
            say("", last=True)

    def _say(self, line: str) -> None:
        now = time.monotonic()
        if is_terminal():
            say(line, last=False)
        elif now >= self._next:
            self._next = now + _IN_A_FILE
            say(f"penstock: {line}", last=False)


def _list(roots: Sequence[Path]) -> int:
    rows, unsent = [], 0
    for root in roots:
        for directory in sorted(places.found(root)):
            with suppress(FileNotFoundError):  # swept away meanwhile
                there = places.contents(directory)
                if not there.segments and not places.is_sent(directory):
                    continue  # it is just being made
                state = _state(directory)
                unsent += state != "sent"
                rows.append(
                    [
                        places.ids_of(directory)[0],
                        state,
                        size_of(there.size),
                        _records(directory),
                        _when(there.written),
                        str(root),
                    ]
                )
        for directory in left.unsent(root):
            with suppress(OSError):
                rows.append([box.run_of(directory), _state(directory), *_files(directory), str(root)])
                unsent += 1
    print(table(["run", "state", "size", "records", "written", "in"], rows))
    return 1 if unsent else 0


def _state(directory: Path) -> str:
    if places.is_sent(directory):
        return "sent"
    return "left" if owner.orphaned(directory) else _owned_by(directory)


def _records(directory: Path) -> str:
    """How many there are; of what is sent, as the mark tells."""
    try:
        if places.is_sent(directory):
            return f"{json.loads((directory / places.SENT).read_bytes())['acked']:,}"
        spool = Stored.open(directory)
        spool.release()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"cannot be read ({error})"
    return f"{spool.count:,}" + (f", {spool.lost:,} of them lost" if spool.lost else "")


def _files(directory: Path) -> list[str]:
    """Of a box: size, number, time of the last."""
    found, damaged = box.entries(directory)
    told = count_of(len(found), "file") + (f", {len(damaged):,} damaged" if damaged else "")
    return [size_of(sum(entry.size for entry in found)), told, _when(directory.stat().st_mtime)]


def _when(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC).astimezone():%Y-%m-%d %H:%M:%S}"
