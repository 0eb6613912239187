"""A real server for the client's tests, and runs that are never left open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import penstock
from penstock import exits
from servers import ServerProcess


@pytest.fixture(scope="session")
def server(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the session, on a database of its own."""
    directory = tmp_path_factory.mktemp("client") / "data"
    dsn = postgres.create(template="penstock_template")
    with ServerProcess(directory, dsn=dsn) as process:
        yield process.start().wait_ready()
    postgres.drop(dsn)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[penstock.Client]:
    with penstock.Client(server.grpc_address) as client:
        yield client


@pytest.fixture(params=[pytest.param(True, id="direct"), pytest.param(False, id="relayed")])
def either_way(request: pytest.FixtureRequest, tidy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what must be the same when streams go by a process of their own."""
    monkeypatch.setattr(penstock, "FORKS_SAFELY", request.param)


@pytest.fixture(autouse=True)
def tidy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Streams are in this process, which never forks; and what a test leaves behind sends nothing any more."""
    monkeypatch.setattr(penstock, "FORKS_SAFELY", True)
    yield
    for run in list(exits._open.values()):
        run._stop()
        exits.forget(run)
