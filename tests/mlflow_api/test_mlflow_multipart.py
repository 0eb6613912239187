"""Files that MLflow's clients bring to S3 themselves, and fetch there."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterator

import pytest
from asking import Asking

from s3 import S3Server
from servers import ServerProcess

HERE = "/api/2.0/mlflow-artifacts"
PART = 5 << 20  # S3 takes none that is smaller, but the last


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One whose clients reach its store."""
    directory = tmp_path_factory.mktemp("multipart")
    with S3Server(directory / "s3") as s3:
        arguments = ("--artifacts-mode", "direct", "--s3-addressing", "path")
        with ServerProcess(directory / "data", *arguments, env=s3.environment).start() as process:
            yield process.wait_ready()


@pytest.fixture
def place(ask: Asking) -> str:
    """The root of a run's artifacts, as a path."""
    return f"0/{ask.ok('runs/create', experiment_id='0')['run']['info']['run_id']}/artifacts"


def send(url: str, data: bytes) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, data, method="PUT"), timeout=60) as answer:
        return str(answer.headers["ETag"])


def begun(ask: Asking, directory: str, count: int) -> tuple[str, list[str]]:
    """An upload of model.bin: its id, and where its parts go."""
    made = ask.ok(f"{HERE}/mpu/create/{directory}", path="/data/ann/model.bin", num_parts=count)
    assert [each["part_number"] for each in made["credentials"]] == list(range(1, count + 1))
    return made["upload_id"], [each["url"] for each in made["credentials"]]


def test_told(ask: Asking) -> None:
    told = ask.read("/api/3.0/mlflow/server-info")
    assert (told["multipart_uploads_enabled"], told["multipart_downloads_enabled"]) == (True, True)


def test_in_parts(ask: Asking, place: str) -> None:
    data = os.urandom(2 * PART + 1)
    upload_id, urls = begun(ask, f"{place}/a", 3)
    etags = [send(url, data[number * PART :][:PART]) for number, url in enumerate(urls)]
    assert ask.read(f"{HERE}/artifacts", path=place) == {}
    parts = [{"part_number": number, "etag": etag, "url": "x"} for number, etag in enumerate(etags, 1)]
    end = {"path": "C:\\home\\model.bin", "upload_id": upload_id, "parts": parts[::-1]}
    assert ask.ok(f"{HERE}/mpu/complete/{place}/a", **end) == {}
    assert ask.ok(f"{HERE}/mpu/complete/{place}/a", **end) == {}  # its answer was lost
    told = ask.get(f"{HERE}/artifacts/{place}/a/model.bin")
    assert told.body == data
    assert told.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    found = ask.read(f"{HERE}/presigned/{place}/a/model.bin")
    assert found["file_size"] == len(data)
    with urllib.request.urlopen(found["url"], timeout=60) as answer:
        assert answer.read() == data


def test_given_up(ask: Asking, place: str) -> None:
    upload_id, urls = begun(ask, place, 1)
    etag = send(urls[0], b"x")
    for _ in range(2):
        assert ask.ok(f"{HERE}/mpu/abort/{place}", path="model.bin", upload_id=upload_id) == {}
    told = ask.post(
        f"{HERE}/mpu/complete/{place}",
        path="model.bin",
        upload_id=upload_id,
        parts=[{"part_number": 1, "etag": etag}],
    )
    assert (told.status, told.code) == (409, "RESOURCE_CONFLICT")


def test_replaces(ask: Asking, place: str) -> None:
    for data in (b"old", b"new"):
        upload_id, urls = begun(ask, place, 1)
        parts = [{"part_number": 1, "etag": send(urls[0], data)}]
        ask.ok(f"{HERE}/mpu/complete/{place}", path="model.bin", upload_id=upload_id, parts=parts)
        assert ask.get(f"{HERE}/artifacts/{place}/model.bin").body == data


def test_bad_ones(ask: Asking, place: str) -> None:
    for fields in (
        {},
        {"path": "x", "num_parts": 0},
        {"path": "x", "num_parts": 10_001},
        {"path": ".."},
        {"path": "a/"},
    ):
        assert ask.post(f"{HERE}/mpu/create/{place}", **fields).code == "INVALID_PARAMETER_VALUE"
    assert ask.post(f"{HERE}/mpu/create/0/{'0' * 32}/artifacts", path="x").status == 404
    upload_id, _ = begun(ask, place, 101)
    for fields in ({}, {"parts": []}, {"parts": [{"part_number": 2, "etag": "x"}]}, {"parts": [{"part_number": 1}]}):
        told = ask.post(f"{HERE}/mpu/complete/{place}", path="model.bin", upload_id=upload_id, **fields)
        assert told.code == "INVALID_PARAMETER_VALUE"
    told = ask.get(f"{HERE}/presigned/{place}/none")
    assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert ask.get(f"{HERE}/presigned/{place}").code == "INVALID_PARAMETER_VALUE"
