"""Checks that every noun uses: what text may be, what a number in text may be."""

from __future__ import annotations

from penstock_server.model.errors import InvalidArgument

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

# The end of year 9999, in ms: what timestamps of PostgreSQL, Python and browsers can all show.
TIME_MS_MAX = 253_402_300_799_999


def check_text(where: str, text: str, limit: int, *, empty: bool = True) -> str:
    """`text` as it is, of at most `limit` characters and without what PostgreSQL cannot store: NUL, lone surrogates."""
    if not text and not empty:
        raise InvalidArgument(where, "must not be empty")
    if len(text) > limit:
        raise InvalidArgument(where, f"is {len(text)} characters long; the limit is {limit}")
    if "\0" in text:
        raise InvalidArgument(where, f"has a NUL character at position {text.index(chr(0))}; remove it")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidArgument(where, "has half of a surrogate pair, which is no character; remove it")
    return text


def check_time_ms(where: str, time_ms: int) -> int:
    """A time in ms since 1970 UTC, to the end of year 9999."""
    if not 0 <= time_ms <= TIME_MS_MAX:
        raise InvalidArgument(where, f"{time_ms} is not a time in ms since 1970 (0 to {TIME_MS_MAX})")
    return time_ms


def parse_decimal(text: str, where: str) -> int:
    """A non-negative int64 written in decimal digits."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= INT64_MAX):
        raise InvalidArgument(where, f"{text[:40]!r} is not a decimal integer")
    return int(text)
