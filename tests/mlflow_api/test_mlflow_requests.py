"""Requests that mean harm, or make no sense: none of them is answered as a mistake of the server's own."""

from __future__ import annotations

import pytest
from asking import Asking

from penstock_server.mlflow import places
from penstock_server.mlflow.errors import MlflowError

# One character, encoded so often that nobody means it.
ENCODED = "%" + "25" * 40


def test_a_path_is_decoded_a_few_times_only() -> None:
    assert places.safe("a%2525/./b") == "a%2525/b"
    for text in (f"a/{ENCODED}", "a" * 5_000):
        with pytest.raises(MlflowError):
            places.safe(text)


def test_a_source_is_decoded_a_few_times_only(ask: Asking) -> None:
    ask.ok("registered-models/create", name="often")
    ask.ok("model-versions/create", name="often", source="s3://a/b%2525")
    for source in (f"s3://a/{ENCODED}", "s3://a/" + "b" * 5_000):
        told = ask.post("model-versions/create", name="often", source=source)
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
