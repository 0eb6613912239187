"""MLflow's own clients, of both versions, do with our server what they do with MLflow's."""

from __future__ import annotations

from pathlib import Path

import pytest
from stock_clients import FILES, SECONDS, VERSIONS, StockTests

from servers import ServerProcess

# What the plugin has a way of its own for, in both versions; the rest is the same requests over another wire.
BY_PLUGIN = ("test_tracking", "test_files", "test_traces", "plugin_only")


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES)
def test_mlflow(server: ServerProcess, tmp_path: Path, file: str, version: int) -> None:
    if not StockTests(version, file, f"http://{server.http_address}", tmp_path).run():
        pytest.skip("what it needs is not installed")


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", BY_PLUGIN)
def test_mlflow_by_the_plugin(server: ServerProcess, tmp_path: Path, file: str, version: int) -> None:
    env = {"PENSTOCK_SPOOL_DIR": str(tmp_path / "spool"), "PENSTOCK_SERVER_PIDS": str(server.pid)}
    assert StockTests(version, file, f"penstock://{server.grpc_address}", tmp_path, env).run()


@pytest.mark.timeout(SECONDS + 60)
def test_models_by_the_plugin(server: ServerProcess, tmp_path: Path) -> None:
    env = {"PENSTOCK_SPOOL_DIR": str(tmp_path / "spool")}
    assert StockTests(VERSIONS[0], "test_models", f"penstock://{server.grpc_address}", tmp_path, env).run()
