"""Bytes from one file to another that need not come into this process."""

from __future__ import annotations

import os
from contextlib import suppress

_CHUNK = 32 << 20  # between two chunks, signal handlers have their turn


def within_kernel(source: int, target: int, start: int, size: int) -> int:
    """As much of `size` bytes, from `start` of the source on, as the kernel will copy by itself, to where the target
    stands. How many those were: the rest is left for who reads and writes, and is told by that what is wrong.
    """
    done = 0
    if hasattr(os, "copy_file_range"):
        with suppress(OSError):  # between these two file systems it cannot; or the disk is full
            while done < size and (count := os.copy_file_range(source, target, min(_CHUNK, size - done), start + done)):
                done += count
    if hasattr(os, "sendfile"):
        with suppress(OSError):  # some systems send to sockets only
            while done < size and (count := os.sendfile(target, source, start + done, min(_CHUNK, size - done))):
                done += count
    return done


def write_all(target: int, data: bytes | memoryview) -> None:
    """To where the target stands. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
