"""Servers that tests share: whatever a test does, it must leave them usable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from penstock.v1.experiments_pb2_grpc import ExperimentServiceStub
from penstock.v1.metrics_pb2_grpc import MetricServiceStub
from penstock.v1.runs_pb2_grpc import RunServiceStub
from servers import ServerProcess


@pytest.fixture(scope="session")
def server(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the session, on a database of its own in the session's PostgreSQL."""
    directory = tmp_path_factory.mktemp("server") / "data"
    dsn = postgres.create(template="penstock_template")
    with ServerProcess(directory, dsn=dsn) as process:
        yield process.start().wait_ready()
    postgres.drop(dsn)


@pytest.fixture(scope="session")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    """A channel to the shared server."""
    with server.channel() as channel:
        yield channel


@pytest.fixture(scope="session")
def experiments(channel: grpc.Channel) -> ExperimentServiceStub:
    return ExperimentServiceStub(channel)


@pytest.fixture(scope="session")
def runs(channel: grpc.Channel) -> RunServiceStub:
    return RunServiceStub(channel)


@pytest.fixture(scope="session")
def metrics(channel: grpc.Channel) -> MetricServiceStub:
    return MetricServiceStub(channel)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory of the test's own, not made yet."""
    return tmp_path / "data"
