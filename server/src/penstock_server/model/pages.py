"""Page tokens: where a page ended, bound to the query it is a page of.

A token is opaque to callers. It carries the sort key of the last row and a digest over it and over the
query, so that a token which was altered, or is sent with another query, is refused rather than obeyed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from penstock_server.model.errors import InvalidArgument, InvalidPageToken

Key = str | int | float | bool | None

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
    body = json.dumps(list(key), separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_digest(query, body) + body).decode().rstrip("=")


def decode(query: Sequence[object], token: str) -> list[Key]:
    """The sort key in `token`. Raises InvalidPageToken unless `encode` made it for the same query."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidPageToken from None
    digest, body = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
    if digest != _digest(query, body):
        raise InvalidPageToken
    key: list[Key] = json.loads(body)
    return key


def _digest(query: Sequence[object], body: bytes) -> bytes:
    fingerprint = json.dumps(list(query), separators=(",", ":"), default=str).encode()
    return hashlib.blake2b(fingerprint + b"\0" + body, digest_size=_DIGEST_BYTES, person=b"penstock-page").digest()
