"""Waiting for the last records to be committed, and telling so when it takes long."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.sender import Sender

_QUIET = 1.0  # seconds before the first line
_IN_A_FILE = 10.0  # seconds between lines where they are not overwritten
# stderr may be None, closed, a pipe that nobody reads, or an object that is not quite a file.
_NO_FILE = (AttributeError, OSError, ValueError)


def wait_settled(sender: Sender, run_id: str, timeout: float | None) -> None:
    """Wait until nothing more will be sent, at most `timeout` seconds; None: as long as it takes."""
    begun = time.monotonic()
    told = 0.0
    shown = False
    while True:
        waited = time.monotonic() - begun
        left = _QUIET if timeout is None else min(_QUIET, timeout - waited)
        if sender.settled.wait(max(0.0, left)) or (timeout is not None and waited >= timeout):
            break
        waited = time.monotonic() - begun
        if waited >= _QUIET and (_is_terminal() or waited >= told + _IN_A_FILE or not shown):
            told, shown = waited, True
            _say(_line(sender, run_id, waited), last=False)
    if shown:
        _say("" if _is_terminal() else _line(sender, run_id, time.monotonic() - begun), last=True)


def _line(sender: Sender, run_id: str, waited: float) -> str:
    why = (
        f", {sender.trouble}" if sender.trouble and sender.state.value in ("backoff", "connecting", "auth_wait") else ""
    )
    if sender.state.value == "closed":
        return f"penstock: run {run_id}: all is committed, after {waited:.0f} s"
    return (
        f"penstock: run {run_id}: {sender.outbox.unacked:,} records to be committed, "
        f"{waited:.0f} s, {sender.state.value}{why}"
    )


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except _NO_FILE:
        return False


def _say(line: str, *, last: bool) -> None:
    try:
        if _is_terminal():
            sys.stderr.write(f"\r\x1b[K{line[:160]}" + ("\r\x1b[K" if last else ""))
        elif line:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except _NO_FILE:
        return  # nobody reads it
