"""JSON as it comes in: what can be read can be written again, within what is shown and stored around it."""

from __future__ import annotations

from typing import Any

import orjson

# orjson writes 254 levels, and reads more.
_DEPTH = 200
_AROUND = 254 - _DEPTH


def read(text: str | bytes) -> Any:
    """What it says. Raises ValueError when it is no JSON, or has more than 200 levels."""
    value = orjson.loads(text)
    brackets = (b"[", b"{") if isinstance(text, bytes) else ("[", "{")
    if sum(map(text.count, brackets)) > _DEPTH:  # type: ignore[arg-type]  # each of its own kind
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    for _ in range(_AROUND):
        value = [value]
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise ValueError(f"it has more than {_DEPTH} levels of lists and objects") from None
