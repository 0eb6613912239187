"""A server whose artifacts' store is away says so, and goes on serving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import errors
from servers import ServerProcess


def test_a_store_that_is_away(postgres: Any, data_dir: Path) -> None:
    dsn = postgres.create(template="penstock_template")
    root, gone = data_dir / "artifacts", data_dir / "gone"
    with ServerProcess(data_dir, dsn=dsn) as server:
        server.start().wait_ready()
        with penstock.Client(server.grpc_address) as client:
            run = client.create_run("store")
            client.upload_artifact(run.id, b"1", "a")
            assert json.loads(server.get("/ready")[1]) == {"status": "ready", "artifact_store": "works"}
            assert "penstock_artifact_store_up 1.0" in server.get("/metrics")[1]
            root.rename(gone)
            for _ in range(3):
                with pytest.raises(errors.FailedPrecondition):
                    client.upload_artifact(run.id, b"2", "a", patience=0)
            told = server.wait_event("the artifacts' store does not work")
            assert (told["level"], told["root"], told["remedy"]) == ("error", root.as_uri(), "mount it or make it")
            status, text = server.get("/ready")
            assert (status, json.loads(text)["artifact_store"]) == (200, f"{root} is not there; mount it or make it")
            assert "penstock_artifact_store_up 0.0" in server.get("/metrics")[1]
            client.set_tags(run.id, {"still": "served"})
            gone.rename(root)
            client.upload_artifact(run.id, b"3", "a")
            server.wait_event("the artifacts' store works again")
            (root / next(path for path in root.rglob("a") if path.read_bytes() == b"3")).unlink()
            with pytest.raises(errors.FailedPrecondition):
                client.download_artifacts(run.id, "a", data_dir / "out", patience=0)
            assert server.wait_event("an artifact is missing from the store")["path"] == "a"
        assert [each["event"] for each in server.events].count("the artifacts' store does not work") == 1
    postgres.drop(dsn)
