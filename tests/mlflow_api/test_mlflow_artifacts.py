"""Artifacts over MLflow's REST API: lists, whole files, ranges, and what becomes of paths that are none."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import time
from urllib.parse import quote, urlencode

import pytest
from asking import Asking, Told

from servers import ServerProcess

ROOT = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture
def run_id(ask: Asking) -> str:
    return str(ask.ok("runs/create", experiment_id="0")["run"]["info"]["run_id"])


@pytest.fixture
def place(run_id: str) -> str:
    """The root of a run's artifacts, as a path."""
    return f"0/{run_id}/artifacts"


def put(ask: Asking, path: str, data: bytes, **headers: str) -> Told:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask.request("PUT", f"{ROOT}/{quote(path)}", data, named)


def get(ask: Asking, path: str, **headers: str) -> Told:
    return ask.request("GET", f"{ROOT}/{quote(path)}", headers={n.replace("_", "-"): v for n, v in headers.items()})


def listed(ask: Asking, path: str) -> list[tuple[str, bool, int | None]]:
    files = ask.read(ROOT, path=path).get("files", [])
    return [(each["path"], each["is_dir"], each.get("file_size")) for each in files]


def test_in_and_out(ask: Asking, place: str) -> None:
    told = put(ask, f"{place}/a/ü b.txt", b"hello")
    assert (told.status, told.body) == (200, b"")
    told = get(ask, f"{place}/a/ü b.txt")
    assert (told.status, told.body) == (200, b"hello")
    assert told.headers["etag"] == f'"{hashlib.sha256(b"hello").hexdigest()}"'
    assert told.headers["content-type"] == "text/plain"
    assert told.headers["content-disposition"] == "attachment; filename=\"_ b.txt\"; filename*=UTF-8''%C3%BC%20b.txt"
    assert told.headers["x-content-type-options"] == "nosniff"
    assert told.headers["accept-ranges"] == "bytes"


def test_an_empty_file(ask: Asking, place: str) -> None:
    assert put(ask, f"{place}/empty", b"").status == 200
    told = get(ask, f"{place}/empty")
    assert (told.status, told.body, told.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("pieces", [[], [b"a"], [b"ab" * 100_000, b"c", b"d" * 300_000]])
def test_of_a_size_that_is_not_told(server: ServerProcess, ask: Asking, place: str, pieces: list[bytes]) -> None:
    """As MLflow sends an empty file."""
    connection = http.client.HTTPConnection(server.http_address, timeout=60)
    connection.request("PUT", f"{ROOT}/{place}/chunked", iter(pieces), encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert get(ask, f"{place}/chunked").body == b"".join(pieces)


def test_a_large_file(ask: Asking, place: str) -> None:
    data = os.urandom(20 << 20)  # of three parts
    assert put(ask, f"{place}/large", data).status == 200
    assert get(ask, f"{place}/large").body == data
    assert get(ask, f"{place}/large", range=f"bytes={9 << 20}-{17 << 20}").body == data[9 << 20 : (17 << 20) + 1]


@pytest.mark.parametrize(
    ("wanted", "status", "body", "range_"),
    [
        ("bytes=1-2", 206, b"bc", "bytes 1-2/6"),
        ("bytes=4-", 206, b"ef", "bytes 4-5/6"),
        ("bytes=-2", 206, b"ef", "bytes 4-5/6"),
        ("bytes=-99", 206, b"abcdef", "bytes 0-5/6"),
        ("bytes=0-99", 206, b"abcdef", "bytes 0-5/6"),
        ("bytes=6-", 416, b"", "bytes */6"),
        ("bytes=-0", 416, b"", "bytes */6"),
        ("bytes=3-2", 206, b"abcdef", "bytes 0-5/6"),
        ("bytes=0-1,3-4", 200, b"abcdef", ""),
        ("bytes=-", 200, b"abcdef", ""),
        ("lines=1-2", 200, b"abcdef", ""),
    ],
)
def test_ranges(ask: Asking, place: str, wanted: str, status: int, body: bytes, range_: str) -> None:
    put(ask, f"{place}/file", b"abcdef")
    told = get(ask, f"{place}/file", range=wanted)
    assert (told.status, told.body, told.headers.get("content-range", "")) == (status, body, range_)


def test_only_when_it_has_changed(ask: Asking, place: str) -> None:
    put(ask, f"{place}/file", b"old")
    etag = get(ask, f"{place}/file").headers["etag"]
    assert get(ask, f"{place}/file", if_none_match=f'"x", W/{etag}').status == 304
    assert get(ask, f"{place}/file", range="bytes=0-0", if_range=etag).body == b"o"
    put(ask, f"{place}/file", b"new")
    assert get(ask, f"{place}/file", if_none_match=etag).body == b"new"
    assert get(ask, f"{place}/file", range="bytes=0-0", if_range=etag).body == b"new"


def test_only_the_headers(ask: Asking, place: str) -> None:
    put(ask, f"{place}/file", b"abc")
    told = ask.request("HEAD", f"{ROOT}/{place}/file")
    assert (told.status, told.body, told.headers["content-length"]) == (200, b"", "3")
    assert ask.request("HEAD", f"{ROOT}/{place}/none").status == 404


@pytest.mark.parametrize(
    ("told", "name", "kept"),
    [
        ("application/json", "a.txt", "application/json"),
        ("", "MLmodel", "text/plain"),
        ("application/octet-stream", "a.json", "application/json"),
        ("application/x-www-form-urlencoded", "a.png", "image/png"),
        ("x" * 300, "a", "application/octet-stream"),
    ],
)
def test_media_types(ask: Asking, place: str, told: str, name: str, kept: str) -> None:
    put(ask, f"{place}/{name}", b"x", **({"content_type": told} if told else {}))
    assert get(ask, f"{place}/{name}").headers["content-type"] == kept


def test_listed(ask: Asking, place: str, run_id: str) -> None:
    for path in ("b/c", "b/d/e", "a.txt"):
        put(ask, f"{place}/{path}", b"12")
    assert listed(ask, place) == [("a.txt", False, 2), ("b", True, None)]
    assert listed(ask, f"{place}/b/") == [("c", False, 2), ("d", True, None)]
    for nothing in (f"{place}/a.txt", f"{place}/none", f"0/{'0' * 32}/artifacts", "0", "0/models", "", "x/y"):
        assert ask.read(ROOT, path=nothing) == {}
    assert ask.read(ROOT) == {}
    answer = ask.read("artifacts/list", run_uuid=run_id, path="b")
    assert answer["root_uri"] == f"mlflow-artifacts:/{place}"
    assert answer["files"] == [{"path": "b/c", "is_dir": False, "file_size": 2}, {"path": "b/d", "is_dir": True}]
    assert ask.read("artifacts/list", run_id=run_id, path="none") == {"root_uri": f"mlflow-artifacts:/{place}"}


def test_what_is_not_there(ask: Asking, place: str) -> None:
    put(ask, f"{place}/a/b", b"x")
    for path in (f"{place}/none", f"0/{'0' * 32}/artifacts/a", "0", f"1/models/m-{'0' * 32}/artifacts/a"):
        told = get(ask, path)
        assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    for path in (place, f"{place}/a", f"{place}/a/"):
        told = get(ask, path)
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    for query in ({}, {"run_id": "nope"}, {"run_uuid": "0" * 32}):
        told = ask.get("artifacts/list", **query)
        assert told.code == ("RESOURCE_DOES_NOT_EXIST" if query else "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("path", ["..%2Fx", "0/%2e%2e/x", "0/%252e%252e/x", "%2Fetc/passwd", "a%5Cb", "a/../../x"])
def test_paths_that_lead_out(ask: Asking, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        told = ask.request(method, f"{ROOT}/{path}", b"x" if method == "PUT" else None)
        assert (told.status, told.code, told.json["message"]) == (400, "INVALID_PARAMETER_VALUE", "Invalid path")
    told = ask.request("GET", f"{ROOT}?path={path}")
    assert (told.status, told.json["message"]) == (400, "Invalid path")


def test_where_nothing_is_written(ask: Asking, run_id: str, place: str) -> None:
    put(ask, f"{place}/a/b", b"x")
    for path in (
        "x",
        f"0/{run_id}/x",
        place,
        f"{place}/a",
        f"{place}/a/b/c",
        f"{place}/a/",
        "0/models/m-1/artifacts/x",
    ):
        told = put(ask, path, b"x")
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE"), path
    for path in (f"0/{'0' * 32}/artifacts/a", f"0/traces/tr-{'0' * 32}/artifacts/a"):
        assert put(ask, path, b"x").status == 404
    ask.ok("runs/delete", run_id=run_id)
    assert put(ask, f"{place}/c", b"x").code == "INVALID_PARAMETER_VALUE"
    assert get(ask, f"{place}/a/b").body == b"x"


def test_deleted(ask: Asking, place: str) -> None:
    for path in ("a/b", "a/c", "d"):
        put(ask, f"{place}/{path}", b"x")
    for path in (f"{place}/a/b", f"{place}/a/b", f"{place}/none", f"0/{'0' * 32}/artifacts/a", "nothing"):
        assert ask.request("DELETE", f"{ROOT}/{path}").json == {}
    assert listed(ask, f"{place}/a") == [("c", False, 1)]
    assert ask.request("DELETE", f"{ROOT}/{place}/").json == {}
    assert listed(ask, place) == []


def test_of_a_logged_model(ask: Asking) -> None:
    model = ask.ok("logged-models", experiment_id="0", name="m")["model"]["info"]
    place = model["artifact_uri"].removeprefix("mlflow-artifacts:/")
    assert put(ask, f"{place}/MLmodel", b"flavors").status == 200
    assert listed(ask, place) == [("MLmodel", False, 7)]
    told = ask.get(f"logged-models/{model['model_id']}/artifacts/files", artifact_file_path="MLmodel")
    assert (told.status, told.body) == (200, b"flavors")
    assert ask.get(f"logged-models/{model['model_id']}/artifacts/files").status == 400


def test_for_the_web_ui(ask: Asking, run_id: str, place: str) -> None:
    upload = "/ajax-api/2.0/mlflow/upload-artifact"
    sent = urlencode({"run_uuid": run_id, "path": "a/b.txt"})
    assert ask.request("POST", f"{upload}?{sent}", b"x").status == 200
    for name, value in (("run_id", run_id), ("run_uuid", run_id)):
        told = ask.get("/get-artifact", **{name: value, "path": "a/b.txt"})
        assert (told.status, told.body) == (200, b"x")
    for query, data, problem in (
        (f"path=a&run_uuid={run_id}", b"", "Request must specify data."),
        (f"run_uuid={run_id}", b"x", "Request must specify path."),
        ("path=a", b"x", "Request must specify run_uuid."),
        (sent, b"x" * (10 << 20) + b"x", "Artifact size is too large. Max size is 10MB."),
    ):
        told = ask.request("POST", f"{upload}?{query}", data)
        assert (told.status, told.json["message"]) == (400, problem)
    assert ask.get("/get-artifact", run_id="nope", path="a").status == 404
    assert ask.get("/get-artifact", run_id=run_id).status == 400


def test_of_a_version(ask: Asking, run_id: str, place: str) -> None:
    put(ask, f"{place}/model/MLmodel", b"x")
    ask.ok("registered-models/create", name="by-file")
    ask.ok("model-versions/create", name="by-file", source=f"runs:/{run_id}/model", run_id=run_id)
    told = ask.get("/model-versions/get-artifact", name="by-file", version="1", path="MLmodel")
    assert (told.status, told.body) == (200, b"x")
    for version, status in (("2", 404), ("x", 400)):
        assert ask.get("/model-versions/get-artifact", name="by-file", version=version, path="a").status == status
    # MLflow's clients know no force: what a version stands on is replaced, and its model's history tells.
    assert put(ask, f"{place}/model/MLmodel", b"y").status == 200
    assert get(ask, f"{place}/model/MLmodel").body == b"y"


def test_a_broken_connection_leaves_nothing(server: ServerProcess, ask: Asking, place: str) -> None:
    host, port = server.http_address.rsplit(":", 1)
    head = f"PUT {ROOT}/{place}/broken HTTP/1.1\r\nHost: {server.http_address}\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + b"x" * 500_000)
    time.sleep(0.1)
    assert listed(ask, place) == []
    assert put(ask, f"{place}/broken", b"x").status == 200


def test_who_is_refused_may_send_all(server: ServerProcess) -> None:
    """Clients that send a body do not listen before it is sent."""
    connection = http.client.HTTPConnection(server.http_address, timeout=60)
    for _ in range(2):  # on the same connection
        connection.request("PUT", f"{ROOT}/nowhere", b"x" * 5_000_000)
        told = connection.getresponse()
        assert told.status == 400
        told.read()
    connection.close()


def test_nothing_goes_straight_to_this_store(ask: Asking, place: str) -> None:
    for name in ("create", "complete", "abort"):
        told = ask.post(f"/api/2.0/mlflow-artifacts/mpu/{name}/{place}", path="x", num_parts=1)
        assert (told.status, told.code) == (501, "NOT_IMPLEMENTED")
        # Clients look for these words.
        assert told.json["message"].startswith("Multipart upload is not supported for the current artifact repository")
    assert ask.get(f"/api/2.0/mlflow-artifacts/presigned/{place}/x").status == 501
    assert ask.read("/api/3.0/mlflow/server-info")["multipart_uploads_enabled"] is False
