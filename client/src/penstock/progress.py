"""Waiting for the last records to be committed and the last files to be sent, and telling so when it takes long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from penstock.bars import Bar, count_of, is_terminal, say

if TYPE_CHECKING:
    from penstock.outgoing.outgoing import Outgoing
    from penstock.sender import Sender

_QUIET = 1.0  # seconds before the first line
_IN_A_FILE = 10.0  # seconds between lines where they are not overwritten
_OF_FILES = 0.1  # seconds between looks at how far they are
_REASON = 70  # characters of what goes wrong, beside a bar


def wait_settled(sender: Sender, run_id: str, timeout: float | None, outgoing: Outgoing | None = None) -> None:
    """Wait until nothing more will be sent, at most `timeout` seconds; None: as long as it takes."""
    begun = time.monotonic()
    told = 0.0
    shown = False
    with Bar() as bar:
        while not _settled(sender, outgoing):
            waited = time.monotonic() - begun
            if timeout is not None and waited >= timeout:
                break
            _wait(sender, outgoing, _QUIET if timeout is None else min(_QUIET, timeout - waited))
            waited = time.monotonic() - begun
            if outgoing is not None and _is_done(sender) and is_terminal():
                files = outgoing.courier
                left = outgoing.left
                total = files.bytes + sum(entry.size for entry in left)
                what = f"{count_of(len(left), 'file')} left"
                # A line has no room for both; which run it is that waits is plain.
                what = f"{what} ({_shortly(files.trouble)})" if files.trouble else f"run {run_id}: {what}"
                bar.show(f"penstock: {what}", files.sent_bytes, total)
            elif waited >= _QUIET and (is_terminal() or waited >= told + _IN_A_FILE or not shown):
                told, shown = waited, True
                say(_line(sender, run_id, waited, outgoing), last=False)
    if shown:
        say("" if is_terminal() else _line(sender, run_id, time.monotonic() - begun, outgoing), last=True)


def _is_done(sender: Sender) -> bool:
    """A child that has logged nothing but files has none to wait for."""
    return sender.settled.is_set() or not sender.started


def _settled(sender: Sender, outgoing: Outgoing | None) -> bool:
    return _is_done(sender) and (outgoing is None or outgoing.settled)


def _wait(sender: Sender, outgoing: Outgoing | None, seconds: float) -> None:
    """Until something has happened, or so long."""
    if not _is_done(sender):
        sender.settled.wait(max(0.0, seconds))
    elif outgoing is not None:
        outgoing.courier.wait(min(seconds, _OF_FILES))


def _line(sender: Sender, run_id: str, waited: float, outgoing: Outgoing | None) -> str:
    why = (
        f", {sender.trouble}" if sender.trouble and sender.state.value in ("backoff", "connecting", "auth_wait") else ""
    )
    files = len(outgoing.left) if outgoing is not None else 0
    if sender.state.value == "closed" and not files:
        return f"penstock: run {run_id}: all is committed, after {waited:.0f} s"
    if outgoing is not None and not why and outgoing.courier.trouble:
        why = f", {outgoing.courier.trouble}"
    done = _is_done(sender)
    what = [f"{count_of(sender.outbox.unacked, 'record')} to be committed"] if not done or not files else []
    what += [f"{count_of(files, 'file')} to be sent"] if files else []
    state = f", {sender.state.value}" if not done else ""
    return f"penstock: run {run_id}: {', '.join(what)}, {waited:.0f} s{state}{why}"


def _shortly(trouble: str) -> str:
    """What is wrong, without what to do about it."""
    said = " ".join(trouble.partition(";")[0].split())
    return said if len(said) <= _REASON else said[: _REASON - 1] + "…"
