"""Tables for a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Container, Sequence


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], right: Container[int] = ()) -> str:
    """Columns side by side, those of `right` (by number, from 0) as figures are. On a terminal, what is too long for a
    line is cut.
    """
    lines = [
        *([[each.upper() for each in heading]] if heading else []),
        *([_clean(cell) for cell in row] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    if sys.stdout.isatty():
        most = shutil.get_terminal_size().columns
        text = [line if len(line) <= most else line[: most - 1] + "…" for line in text]
    return "\n".join(text)


def _clean(cell: str) -> str:
    """On one line, and without what would steer the terminal."""
    return "".join(each if each.isprintable() else " " for each in cell)
