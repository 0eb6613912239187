"""Page tokens: where a page ended, bound to the query it is a page of.

A token is opaque to callers. It carries the sort key of the last row and a digest over it and over the
query, so that a token which was altered, or is sent with another query, is refused rather than obeyed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from collections.abc import Sequence

from penstock_server.model.errors import InvalidArgument, InvalidPageToken
from penstock_server.model.limits import INT64_MAX, INT64_MIN

Key = str | int | float | uuid.UUID

SIZE_DEFAULT = 1_000
SIZE_LIMIT = 50_000

_DIGEST_BYTES = 9


def check_size(size: int) -> int:
    """How many a page of a search has: 1 to 50,000; 0 means 1,000. Raises InvalidArgument."""
    if not 0 <= size <= SIZE_LIMIT:
        raise InvalidArgument("page_size", f"{size} is not within 1 to {SIZE_LIMIT} (0: {SIZE_DEFAULT})")
    return size or SIZE_DEFAULT


def encode(query: Sequence[object], key: Sequence[Key]) -> str:
    """The token for the page after the row with sort key `key`, in the results of `query`."""
    values = [value.hex if isinstance(value, uuid.UUID) else value for value in key]
    body = json.dumps(values, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_digest(query, body) + body).decode().rstrip("=")


def decode(query: Sequence[object], token: str, types: Sequence[str]) -> list[Key]:
    """The sort key in `token`, whose values are of these types.

    Raises InvalidPageToken unless `encode` made it for the same query, or somebody something just as good.
    """
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidPageToken from None
    digest, body = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
    if digest != _digest(query, body):
        raise InvalidPageToken
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidPageToken from None
    if not isinstance(values, list) or len(values) != len(types):
        raise InvalidPageToken
    return [_checked(kind, value) for kind, value in zip(types, values, strict=True)]


def decode_id(query: Sequence[object], token: str) -> int:
    """The sort key in `token` where that is an id. Raises InvalidPageToken."""
    (found,) = decode(query, token, ["int8"])
    assert isinstance(found, int)
    return found


def _checked(kind: str, value: object) -> Key:
    """The value, when the column can have it: digests keep accidents out, not forgers."""
    match kind, value:
        case "int8", int() if INT64_MIN <= value <= INT64_MAX and not isinstance(value, bool):
            return value
        case "float8", float():
            return value
        case "bool", bool():
            return value
        case "text", str() if "\0" not in value and (
            value.isascii() or value.encode(errors="replace").decode() == value
        ):
            return value
        case "uuid", str() if len(value) == 32:
            try:
                return uuid.UUID(value)
            except ValueError:
                raise InvalidPageToken from None
    raise InvalidPageToken


def _digest(query: Sequence[object], body: bytes) -> bytes:
    fingerprint = json.dumps(list(query), separators=(",", ":"), default=str).encode()
    return hashlib.blake2b(fingerprint + b"\0" + body, digest_size=_DIGEST_BYTES, person=b"penstock-page").digest()
