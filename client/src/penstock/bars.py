"""How far a transfer of files has come, for people who watch a terminal: a bar where rich is installed, else a line."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

_QUIET = 1.0  # seconds before anything is shown
_IN_A_FILE = 10.0  # seconds between lines where they are not overwritten
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
# stderr may be None, closed, a pipe that nobody reads, or an object that is not quite a file.
NO_FILE = (AttributeError, OSError, ValueError)


def size_of(size: float) -> str:
    """A number of bytes, to be read."""
    unit = _UNITS[0]
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def count_of(count: int, what: str) -> str:
    """A number of things: `1 file`, `2,000 files`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def files_of(count: int, size: int) -> str:
    """A number of files, and of the bytes in them."""
    return f"{count_of(count, 'file')} with {size_of(size)}"


def is_terminal() -> bool:
    """Whether what is shown on stderr can be overwritten."""
    try:
        return sys.stderr.isatty()
    except NO_FILE:
        return False


def say(line: str, *, last: bool) -> None:
    """A line on stderr; on a terminal it takes the place of the one before, and the last leaves nothing."""
    try:
        if is_terminal():
            sys.stderr.write(f"\r\x1b[K{line[:160]}" + ("\r\x1b[K" if last else ""))
        elif line:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except NO_FILE:
        return  # nobody reads it


class Bar:
    """Shows nothing before a second has passed. `what` is to be read before the figures, such as `3 files`.

    In a file, or where nobody looks, `lines` says whether there is a line every ten seconds. Never raises.
    """

    def __init__(self, *, lines: bool = False) -> None:
        self._begun = time.monotonic()
        self._told: float | None = None
        self._lines = lines
        self._bar: Any = None
        self._task: Any = None

    def show(self, what: str, done: int, total: int) -> None:
        """So far it is, in bytes. Cheap to call, as often as one likes."""
        now = time.monotonic()
        if now - self._begun < _QUIET:
            return
        if is_terminal():
            pause = 0.1
        elif self._lines:
            pause = _IN_A_FILE
        else:
            return
        if self._told is not None and now - self._told < pause:
            return
        if self._told is None and is_terminal():
            self._bar = _rich_bar()
        self._told = now
        if self._bar is not None:
            with suppress(*NO_FILE):
                if self._task is None:
                    self._bar.start()
                    self._task = self._bar.add_task(what)
                self._bar.update(self._task, description=what, completed=done, total=total, refresh=True)
            return
        rate = done / (now - self._begun)
        say(f"penstock: {what}: {size_of(done)} of {size_of(total)}, {size_of(rate)}/s", last=False)

    def close(self) -> None:
        """Leaves nothing on the terminal. Does nothing the second time."""
        bar, self._bar = self._bar, None
        if bar is not None:
            with suppress(*NO_FILE):
                bar.stop()
        elif self._told is not None and is_terminal():
            say("", last=True)
        self._told = None
        self._task = None
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _rich_bar() -> Any:
    """None where rich is not installed."""
    try:
        from rich import progress  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415

        # Without a thread of its own: it may be shown while the interpreter ends.
        return progress.Progress(
            progress.TextColumn("{task.description}", markup=False),  # it may have an error in it
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
    except Exception:  # noqa: BLE001  not installed, or too old, or too new
        return None
