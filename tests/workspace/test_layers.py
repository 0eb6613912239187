"""The contracts of import-linter hold something: each is broken by the import that it is there to refuse."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# An import that a hurried hand might write, for every contract: where, and what.
OFFENCES = {
    "Dependencies point to the model": ("model/runs.py", "from penstock_server.telemetry import requests"),
    "Doors know the core and the model only": ("rpc/runs.py", "from penstock_server.postgres import runs"),
    "Only what wires and starts knows the settings": ("core/runs.py", "from penstock_server.config import Settings"),
    "SQL only in postgres": ("ingest/writer.py", "import asyncpg"),
    "S3 only in blobs/s3.py": ("blobs/check.py", "from botocore import exceptions"),
    "gRPC and protobuf only in rpc": ("core/streams.py", "from google.protobuf import message"),
    "HTTP only in http": ("core/changes.py", "from starlette import routing"),
    "Settings are read in one place": ("core/access.py", "from pydantic_settings import BaseSettings"),
    "What is measured stands in one catalogue": ("ingest/pipeline.py", "from prometheus_client import Counter"),
    "The model is standard library": ("model/metrics.py", "import numpy"),
    "The client knows nothing of the server": ("../penstock/columns.py", "from penstock_server.model import errors"),
    "MLflow is known to its plugin only": ("../penstock/start.py", "from mlflow import entities"),
}


def test_every_contract_refuses_its_offence(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "client/src/penstock", tmp_path / "penstock")
    shutil.copytree(ROOT / "server/src/penstock_server", tmp_path / "penstock_server")
    for file, offence in OFFENCES.values():
        path = tmp_path / "penstock_server" / file
        path.write_text(path.read_text() + f"\n{offence}\n")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    # As the command does, with the copies before what is installed.
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as lint; lint()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--no-logo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)$", done.stdout, re.MULTILINE))
    assert verdicts == dict.fromkeys(OFFENCES, "BROKEN"), done.stdout + done.stderr
