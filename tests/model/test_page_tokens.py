"""A token that somebody makes up is refused, as far as the database would refuse what is in it."""

from __future__ import annotations

import base64
import math
import uuid

import pytest

from penstock_server.model import pages
from penstock_server.model.errors import InvalidPageToken

QUERY = ("things", 1)
FINE = {"int8": -(2**63), "float8": math.inf, "text": "a\u00fc", "uuid": uuid.UUID(int=7), "bool": True}
FORGED: dict[str, list[object]] = {
    "int8": [True, 2**63, -(2**63) - 1, 1.0, "1", None, [1], {}],
    "float8": [1, "1", None, True],
    "text": [1, "a\0", "\ud800", None],
    "uuid": ["0" * 31, "g" * 32, 1],
    "bool": [1, "true", None],
}


def forged(body: bytes) -> str:
    return base64.urlsafe_b64encode(pages._digest(QUERY, body) + body).decode().rstrip("=")


def test_a_key_comes_back() -> None:
    assert pages.decode(QUERY, pages.encode(QUERY, list(FINE.values())), list(FINE)) == list(FINE.values())
    assert pages.decode_id(QUERY, pages.encode(QUERY, [7])) == 7


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in FORGED for value in FORGED[kind]])
def test_a_value_of_another_type_is_refused(kind: str, value: object) -> None:
    with pytest.raises(InvalidPageToken):
        pages.decode(QUERY, pages.encode(QUERY, [value]), [kind])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "body", [b"", b"[", b"1", b"{}", b"[]", b"[1,1]", b"[" * 100_000, b"[" + b"1" * 5_000 + b"]", b"\xff"]
)
def test_what_is_no_key_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidPageToken):
        pages.decode_id(QUERY, forged(body))
