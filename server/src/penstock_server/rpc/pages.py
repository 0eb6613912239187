"""Pages that fit into a message: a page ends early when it would grow over the limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from penstock_server.model import pages

M = TypeVar("M", bound=Message)
Page = Callable[[int, str], Awaitable[tuple[list[M], str]]]

# Core is asked for this many at once, so that of a long page of large runs not all is in memory twice.
_STEP = 2_000

# Tag and length of an entry, and the token beside the entries.
_ENTRY_OVERHEAD = 6
_TOKEN_ROOM = 64 * 1024


async def fitting(page: Page[M], size: int, token: str, max_bytes: int, step: int = _STEP) -> tuple[list[M], str]:
    """Up to `size` entries from `token` on (0: 1,000), as many as `max_bytes` hold and at least one; the next token.

    `page` is asked for `step` at once at most, and again for fewer when what it gave does not fit: the token must
    belong to the last that is sent.
    Raises InvalidArgument when `size` is out of range.
    """
    wanted = pages.check_size(size)
    room = max_bytes - _TOKEN_ROOM
    entries: list[M] = []
    while True:
        found, next_token = await page(min(wanted - len(entries), step), token)
        sizes = [entry.ByteSize() + _ENTRY_OVERHEAD for entry in found]
        if sum(sizes) > room:
            fits = _how_many(sizes, room)
            if fits == 0 and entries:
                return entries, token
            found, next_token = await page(max(fits, 1), token)
            return entries + found, next_token
        entries += found
        room -= sum(sizes)
        token = next_token
        if not token or len(entries) >= wanted:
            return entries, token


def _how_many(sizes: list[int], room: int) -> int:
    """How many from the beginning fit."""
    for count, size in enumerate(sizes):
        room -= size
        if room < 0:
            return count
    return len(sizes)
