"""MLflow's own clients, of both versions, do with our server what they do with MLflow's."""

from __future__ import annotations

from pathlib import Path

import pytest
from stock_clients import FILES, SECONDS, VERSIONS, StockTests

from servers import ServerProcess


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES)
def test_mlflow(server: ServerProcess, tmp_path: Path, file: str, version: int) -> None:
    if not StockTests(version, file, f"http://{server.http_address}", tmp_path).run():
        pytest.skip("what it needs is not installed")
