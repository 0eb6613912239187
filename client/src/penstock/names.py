"""What the server takes as a name and as text, so that nothing is sent that it would refuse.

The rules are the server's: a record that breaks them would be refused together with its batch.
"""

from __future__ import annotations

import re

KEY_LIMIT = 250
PARAM_VALUE_LIMIT = 6_000
TAG_VALUE_LIMIT = 8_000
NAME_LIMIT = 500

_KEY = re.compile(r"[/\w.\- :]+")


def key_problem(key: object) -> str | None:
    """Why `key` cannot name a metric, a param or a tag; None when it can."""
    if not isinstance(key, str):
        return f"a name must be text, not {type(key).__name__}"
    if not key:
        return "a name must not be empty"
    if len(key) > KEY_LIMIT:
        return f"{key[:40]!r}… is {len(key)} characters long; the limit is {KEY_LIMIT}"
    if not _KEY.fullmatch(key):
        return f"{key!r} may have letters, digits, spaces and _ - . : / only"
    if any(part in ("", ".", "..") for part in key.split("/")):
        return f"{key!r} is no plain relative path: an empty, '.' or '..' part"
    return None


def text_problem(text: str, limit: int) -> str | None:
    """Why `text` cannot be stored; None when it can."""
    if len(text) > limit:
        return f"it is {len(text)} characters long; the limit is {limit}"
    if "\0" in text:
        return "it has a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it is no valid Unicode text (a lone surrogate)"
    return None


def fit(text: str, limit: int) -> str:
    """What of `text` can be stored, for what describes a run and is not worth refusing it."""
    return text.replace("\0", "").encode(errors="replace").decode()[:limit]
