"""MLflow's own clients beside what is done to a server: killed and started again; what was deleted is removed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest
from stock_clients import SECONDS, VERSIONS, StockTests

from penstock_server.postgres.embedded import Embedded
from servers import ServerProcess, command

# What MLflow's clients do when nothing else is set.
_USUAL = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7"}
_TWO_MONTHS_MS = 60 * 86_400_000


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("version", VERSIONS)
def test_training_outlives_the_server(server: ServerProcess, tmp_path: Path, version: int) -> None:
    first = server.pid
    (tmp_path / "server.pid").write_text(str(first))

    def start_again() -> None:
        if server.pid == first and server.ended:
            server.start().wait_ready()

    StockTests(version, ["outage"], f"http://{server.http_address}", tmp_path, _USUAL).run(start_again)
    assert server.pid != first


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_deleted_is_removed(server: ServerProcess, tmp_path: Path, version: int) -> None:
    def remove() -> None:
        if (tmp_path / "remove").exists():
            asyncio.run(age(server.data_dir))
            code, out, err = command("gc", "--data-dir", str(server.data_dir), "--older-than", "30d", "--yes")
            assert (code, err) == (0, "")
            assert re.match(r"removed: 2 runs.* and 1 experiment", out), out
            (tmp_path / "remove").rename(tmp_path / "removed")

    StockTests(version, ["removal"], f"http://{server.http_address}", tmp_path).run(remove)


async def age(data_dir: Path) -> None:
    """Two months pass."""
    conn = await asyncpg.connect(Embedded(data_dir / "postgres").dsn)
    await conn.execute("UPDATE runs SET deleted_ms = deleted_ms - $1", _TWO_MONTHS_MS)
    await conn.execute("UPDATE experiments SET updated_ms = updated_ms - $1", _TWO_MONTHS_MS)
    await conn.close()
