"""LIKE and ILIKE as PostgreSQL means them, in time that no pattern can blow up."""

from __future__ import annotations

import re


def like(text: str, pattern: str, *, any_case: bool) -> bool:
    """Whether all of `text` is as `pattern` says: % is any text, _ any character, a backslash means the next one."""
    if any_case:
        text, pattern = _fold(text), _fold(pattern)
    pieces = _pieces(pattern)
    (first, length), *others = pieces
    if not others:
        return first.fullmatch(text) is not None
    if first.match(text) is None:
        return False
    # What stands between two % is best found as early as it can be; so nothing is ever tried twice.
    *middle, (last, last_length) = others
    at = length
    for piece, length in middle:
        found = piece.search(text, at)
        if found is None:
            return False
        at = found.start() + length
    return at <= len(text) - last_length and last.match(text, len(text) - last_length) is not None


def _pieces(pattern: str) -> list[tuple[re.Pattern[str], int]]:
    """What stands between the % of a pattern, with the length of the texts that it matches."""
    pieces: list[list[str]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == "%":
            pieces.append([])
        elif character == "_":
            pieces[-1].append(".")
        else:
            pieces[-1].append(re.escape(next(characters) if character == "\\" else character))
    return [(re.compile("".join(piece), re.DOTALL), len(piece)) for piece in pieces]


def _fold(text: str) -> str:
    """In small letters, one for each: `_` counts them."""
    small = text.lower()
    return small if len(small) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
