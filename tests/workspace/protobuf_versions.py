"""The client on other people's pins of grpcio and protobuf: `make check-protobuf`.

Makes a throwaway environment for each, with the client's source and nothing else, and there loads every module and
sends messages through the generated code and its columns as bytes. Not a test of pytest: it installs packages.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"

# The floors that the client declares, then a protobuf of each later major version.
CLIENT = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]
FLOORS = [requirement.replace(">=", "==") for requirement in CLIENT["dependencies"]]
PINS = [FLOORS, ["grpcio==1.85.1", "protobuf==6.33.6"], ["grpcio==1.85.1", "protobuf==7.36.2"]]

PROGRAM = r"""
import importlib, pkgutil, sys
from importlib.metadata import version

import penstock

for module in pkgutil.walk_packages(penstock.__path__, "penstock."):
    if not module.name.endswith("__main__") and not module.name.startswith("penstock.mlflow."):  # MLflow's to load
        importlib.import_module(module.name)

from penstock.columns import by_bytes
from penstock.v1 import access_pb2, metrics_pb2, metrics_pb2_grpc, runs_pb2

batch = metrics_pb2.Batch(first_seq=1, count=2, shapes=[0, 0], steps=[-1, 2], values=[0.5, float("inf")])
request = metrics_pb2.StreamMetricsRequest(batch=batch)
twin = by_bytes(metrics_pb2.StreamMetricsRequest).FromString(request.SerializeToString())
values = memoryview(b"".join(twin.batch.values)).cast("d").tolist()
assert values == [0.5, float("inf")], values
assert metrics_pb2.StreamMetricsRequest.FromString(twin.SerializeToString()) == request

method = metrics_pb2.DESCRIPTOR.services_by_name["MetricService"].methods_by_name["StreamMetrics"]
assert method.GetOptions().Extensions[access_pb2.access].field == "hello.run_id"
run = runs_pb2.Run(params={"a": "1"}, end_time_ms=0)
assert run.HasField("end_time_ms") and runs_pb2.Run.FromString(run.SerializeToString()) == run

print("loads and speaks: protobuf", version("protobuf"), "grpcio", version("grpcio"))
"""


def main() -> int:
    """Tries all of them, and returns how many do not work."""
    with tempfile.TemporaryDirectory(prefix="penstock-pins-") as directory, ThreadPoolExecutor() as pool:
        tried = pool.map(_try, PINS, (Path(directory) / str(number) for number in range(len(PINS))))
        return sum(_told(pins, done) for pins, done in zip(PINS, tried, strict=True))


def _try(pins: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    python = directory / "bin" / "python"
    # The floors have no wheels for the newest Pythons.
    made = _run(UV, "venv", "--quiet", "--python", ">=3.11,<3.14", directory)
    if made.returncode == 0:
        made = _run(UV, "pip", "install", "--quiet", "--only-binary", ":all:", "--python", python, *pins)
    # Warnings are errors: what warns today fails tomorrow.
    return made if made.returncode else _run(python, "-W", "error", "-c", PROGRAM)


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "client" / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def _told(pins: list[str], done: subprocess.CompletedProcess[str]) -> bool:
    if done.returncode:
        print(f"FAILED with {' '.join(pins)}:\n{done.stdout}{done.stderr}", file=sys.stderr)
    else:
        print(done.stdout.strip())
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
