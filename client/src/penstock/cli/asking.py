"""Asks on a terminal before something is done for good."""

from __future__ import annotations

import sys

from penstock.bars import NO_FILE


def confirmed(question: str) -> bool:
    """False, too, where there is nobody to be asked."""
    try:
        return sys.stdin.isatty() and input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except (*NO_FILE, EOFError):
        return False
