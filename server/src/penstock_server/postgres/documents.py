"""JSON as PostgreSQL can take it and look into it."""

from __future__ import annotations

import re
from typing import Any

import orjson

# PostgreSQL has no place for NUL in text, in whatever disguise; what a model has answered is not lost for one.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def document(value: Any) -> str:
    """As a parameter of type json: with U+FFFD for each NUL."""
    text = orjson.dumps(value).decode()
    return _NUL.sub("\\1\ufffd", text) if "\\u0000" in text else text
