"""Pages of other sites, which a browser lets ask a server that its user can reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from asking import Asking, Told

from servers import ServerProcess

_CREATE = "/api/2.0/mlflow/experiments/create"
_OURS = "127.0.0.1:5000"


def _create(ask: Asking, name: str, headers: Mapping[str, str]) -> Told:
    body = b'{"name":"%b"}' % name.encode()
    return ask.request("POST", _CREATE, body, {"content-type": "application/json", **headers})


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://127.0.0.1:5001", "http://127.0.0.1", "null", "", "127.0.0.1:5000"]
)
def test_a_change_from_a_page_of_another_site(ask: Asking, origin: str) -> None:
    told = _create(ask, "never made", {"Origin": origin, "Host": _OURS})
    assert (told.status, told.code) == (403, "PERMISSION_DENIED")
    assert ask.get("experiments/get-by-name", experiment_name="never made").status == 404


@pytest.mark.parametrize(
    ("origin", "host", "forwarded"),
    [
        ("http://127.0.0.1:5000", _OURS, ""),
        ("http://LOCALHOST", "localhost:80", ""),
        ("https://localhost:443", "localhost", ""),
        ("http://[::1]:5000", "[::1]:5000", ""),
        ("https://penstock.example", _OURS, "penstock.example"),
    ],
)
def test_a_change_from_a_page_of_our_own(ask: Asking, origin: str, host: str, forwarded: str) -> None:
    headers = {"Origin": origin, "Host": host} | ({"X-Forwarded-Host": forwarded} if forwarded else {})
    assert _create(ask, f"made by {origin}", headers).status == 200


def test_reading_is_left_to_the_browser(ask: Asking) -> None:
    assert ask.request("GET", "/version", headers={"Origin": "http://evil.example"}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "127.0.0.1.evil.example", "10.0.0.1", "[::2]:80"]
)
def test_a_name_of_another_site_that_leads_here(ask: Asking, host: str) -> None:
    for told in (
        ask.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": host}),
        _create(ask, "never made", {"Host": host}),
        ask.request("GET", "/metrics", headers={"Host": host}),
    ):
        assert (told.status, told.code) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:5000", "[::1]", "tracking.localhost"]
)
def test_names_of_this_machine(ask: Asking, host: str) -> None:
    assert ask.request("GET", "/version", headers={"Host": host}).status == 200


def test_a_server_that_others_can_reach_has_any_name(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "data")
    process.http_address = "0.0.0.0:0"
    with process.start():
        asking = Asking(process.wait_ready().http_address.replace("0.0.0.0", "127.0.0.1"))
        try:
            told = asking.request("GET", "/version", headers={"Host": "penstock.example"})
            assert told.status == 200
            told = _create(asking, "made", {"Host": "penstock.example", "Origin": "https://penstock.example"})
            assert told.status == 200
            assert _create(asking, "not", {"Host": "penstock.example", "Origin": "https://other.example"}).status == 403
        finally:
            asking.close()
