"""MLflow's own clients, of both versions, do with our server what they do with MLflow's.

The files of a test are run in one process: to start one costs more than most of them do.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from stock_clients import FILES, SECONDS, VERSIONS, StockTests, environment

from servers import ServerProcess

# What serves a model is MLflow's own, and asks us for a version's files only: one version of MLflow will do.
BY_HTTP = {
    3: [file for file in FILES if file != "test_torch"],
    2: [file for file in FILES if file not in ("test_torch", "test_serving")],
}
# What the plugin has a way of its own for; the rest is the same requests over another wire.
BY_PLUGIN = {
    3: ["test_tracking", "test_files", "test_traces", "test_models", "plugin_only"],
    2: ["test_tracking", "plugin_only"],
}


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("version", VERSIONS)
def test_mlflow(server: ServerProcess, tmp_path: Path, version: int) -> None:
    StockTests(version, BY_HTTP[version], f"http://{server.http_address}", tmp_path).run()


@pytest.mark.timeout(SECONDS + 60)
def test_pytorch(server: ServerProcess, tmp_path: Path) -> None:
    if not any(environment(3).glob("lib/python*/site-packages/torch")):
        pytest.skip("there is no PyTorch: make test TORCH=torch")
    StockTests(3, ["test_torch"], f"http://{server.http_address}", tmp_path).run()


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("version", VERSIONS)
def test_mlflow_by_the_plugin(server: ServerProcess, tmp_path: Path, version: int) -> None:
    env = {"PENSTOCK_SPOOL_DIR": str(tmp_path / "spool"), "PENSTOCK_SERVER_PIDS": str(server.pid)}
    StockTests(version, BY_PLUGIN[version], f"penstock://{server.grpc_address}", tmp_path, env).run()
