"""Waiting for the last records to be committed and the last files to be sent, and telling so when it takes long."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from penstock.bars import Bar, count_of, is_terminal, say

if TYPE_CHECKING:
    from penstock.outgoing.outgoing import Outgoing
    from penstock.sender import Sender

_QUIET = 1.0  # seconds before the first line
_IN_A_FILE = 10.0  # seconds between lines where they are not overwritten
_OF_FILES = 0.1  # seconds between looks at how far they are, and lines that are overwritten
_REASON = 70  # characters of what goes wrong, beside a bar


def wait_settled(sender: Sender, run_id: str, timeout: float | None, outgoing: Outgoing | None = None) -> None:
    """Wait until nothing more will be sent, at most `timeout` seconds; None: as long as it takes."""
    begun = time.monotonic()
    with Telling(sender, run_id, outgoing) as telling:
        while not _settled(sender, outgoing):
            waited = time.monotonic() - begun
            if timeout is not None and waited >= timeout:
                break
            _wait(sender, outgoing, _QUIET if timeout is None else min(_QUIET, timeout - waited))
            telling.tell()
    if telling.told is not None and not is_terminal():
        say(_line(sender, run_id, time.monotonic() - begun, outgoing), last=True)


class Telling:
    """How far a run is, from a second on: a bar, or a line every ten seconds where those are not overwritten.

    `told` is when the last line was, in seconds since this was made; None: there was none.
    """

    def __init__(self, sender: Sender, run_id: str, outgoing: Outgoing | None) -> None:
        self._sender = sender
        self._run_id = run_id
        self._outgoing = outgoing
        self._begun = time.monotonic()
        self._bar = Bar()
        self.told: float | None = None

    def tell(self) -> None:
        """Cheap to call, as often as one likes."""
        waited = time.monotonic() - self._begun
        left = self._outgoing.left if self._outgoing is not None else []
        only_files = _is_done(self._sender) or (left and not self._sender.outbox.unacked)
        if self._outgoing is not None and only_files and is_terminal():
            files = self._outgoing.courier
            total = files.bytes + sum(entry.size for entry in left)
            what = f"{count_of(len(left), 'file')} left"
            # A line has no room for both; which run it is that waits is plain.
            what = f"{what} ({_shortly(why)})" if (why := files.reason) else f"run {self._run_id}: {what}"
            self._bar.show(f"penstock: {what}", files.sent_bytes, total)
        elif waited >= (_QUIET if self.told is None else self.told + (_OF_FILES if is_terminal() else _IN_A_FILE)):
            self.told = waited
            say(_line(self._sender, self._run_id, waited, self._outgoing), last=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self.told is not None and is_terminal():
            say("", last=True)


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
    if outgoing is not None and not why and (trouble := outgoing.courier.reason):
        why = f", {trouble}"
    done = _is_done(sender)
    records = sender.outbox.unacked
    what = [f"{count_of(records, 'record')} to be committed"] if not files or (records and not done) else []
    what += [f"{count_of(files, 'file')} to be sent"] if files else []
    state = f", {sender.state.value}" if not done else ""
    return f"penstock: run {run_id}: {', '.join(what)}, {waited:.0f} s{state}{why}"


def _shortly(trouble: str) -> str:
    """What is wrong, without what to do about it."""
    said = " ".join(trouble.partition(";")[0].split())
    return said if len(said) <= _REASON else said[: _REASON - 1] + "…"
