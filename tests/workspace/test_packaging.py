"""What the two distributions promise to those who install them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import penstock

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "client"
SERVER = ROOT / "server"


def project(distribution: Path) -> dict[str, Any]:
    return dict(tomllib.loads((distribution / "pyproject.toml").read_text())["project"])


def wheel(distribution: Path, directory: Path) -> set[str]:
    """The names of the files in the wheel of `distribution`, built into `directory`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=distribution, check=True, capture_output=True, text=True)
    (built,) = directory.glob("*.whl")
    return set(zipfile.ZipFile(built).namelist())


def sources(directory: Path) -> set[str]:
    """Every file of a source tree, but for what Python made."""
    found = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(directory).as_posix() for path in found}


def test_the_clients_wheel_has_all_of_its_source(tmp_path: Path) -> None:
    files = wheel(CLIENT, tmp_path)
    assert sources(CLIENT / "src") <= files
    assert {"penstock/py.typed", "penstock/v1/metrics_pb2.pyi"} <= files
    assert {name.split("/")[0] for name in files} == {"penstock", f"penstock-{penstock.__version__}.dist-info"}
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in files)


def test_the_servers_wheel_has_its_migrations(tmp_path: Path) -> None:
    files = wheel(SERVER, tmp_path)
    assert sources(SERVER / "src") <= files
    assert "penstock_server/py.typed" in files
    migrations = [name for name in files if name.startswith("penstock_server/postgres/migrations/")]
    assert any(name.endswith(".sql") for name in migrations)
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in files)


def test_both_have_one_version() -> None:
    assert project(CLIENT)["version"] == project(SERVER)["version"] == penstock.__version__
    assert f"penstock=={penstock.__version__}" in project(SERVER)["dependencies"]


def test_a_training_node_needs_grpcio_and_protobuf_only() -> None:
    names = [requirement.partition(">=")[0] for requirement in project(CLIENT)["dependencies"]]
    assert sorted(names) == ["grpcio", "protobuf"]


# In a process of its own, where numpy and the like cannot be imported, whether they are installed or not.
BARE = """
import pathlib, sys, threading

PRESENT = {*sys.stdlib_module_names, "penstock", "grpc", "cygrpc", "google", "typing_extensions"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in PRESENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import penstock
import penstock.cli

assert penstock.start_run and penstock.Client and penstock.AsyncClient
assert threading.active_count() == 1, threading.enumerate()
tasks = pathlib.Path("/proc/self/task")
assert not tasks.exists() or len(list(tasks.iterdir())) == 1, "native threads"
"""


def test_importing_the_client_needs_nothing_more_and_starts_nothing() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", BARE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
