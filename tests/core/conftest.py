"""What tests of artifacts share: a store of each kind, and parts that are small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uploading import PART

from penstock_server.blobs import S3Options, Store, open_store
from penstock_server.model import artifacts
from penstock_server.model.artifacts import LocalRoot, parse_root
from s3 import S3Server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the session."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are cut into parts of 64 KiB, those of unknown size into parts of 128 KiB."""
    monkeypatch.setattr(artifacts, "PART_BYTES", PART)
    monkeypatch.setattr(artifacts, "PART_BYTES_MOST", 2 * PART)


@pytest.fixture
def local(run: Any, tmp_path: Path) -> Iterator[Store]:
    """A directory of the test's own."""
    store = run(open_store(LocalRoot(str(tmp_path / "artifacts")), S3Options()))
    yield store
    run(store.close())


@pytest.fixture
def bucket(run: Any, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The session's bucket, empty, without uploads."""
    for name, value in s3.credentials.items():
        monkeypatch.setenv(name, value)
    s3.wipe()
    store = run(open_store(parse_root(s3.root), S3Options(endpoint=s3.endpoint, addressing="path")))
    run(_give_up(store))
    yield store
    run(store.close())


async def _give_up(store: Store) -> None:
    for begun in [each async for each in store.begun()]:
        await store.abort(begun.key, begun.token)


@pytest.fixture(params=["local", "bucket"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each kind in turn."""
    found: Store = request.getfixturevalue(request.param)
    return found
