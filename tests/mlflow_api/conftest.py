"""One server for all tests of a module, and somebody who asks it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asking import Asking

from servers import ServerProcess

# They run with MLflow's own package: test_stock_clients.py.
collect_ignore = ["stock"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an embedded database of its own."""
    with ServerProcess(tmp_path_factory.mktemp("mlflow") / "data").start() as process:
        yield process.wait_ready()


@pytest.fixture
def ask(server: ServerProcess) -> Iterator[Asking]:
    """Requests of MLflow's REST API."""
    asking = Asking(server.http_address)
    yield asking
    asking.close()
