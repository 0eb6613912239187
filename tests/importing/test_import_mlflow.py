"""What MLflow's own package has written is imported: from a database of MLflow 3, and from a directory of MLflow 2."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers import ServerProcess, clean_environment

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]
_MAKE = Path(__file__).with_name("mlflow_source.py")
_LONG = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("importing") / "data").start() as process:
        yield process.wait_ready()


@pytest.fixture(scope="module")
def source3(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """The URI of a database that MLflow 3 has made, and the ids in it."""
    directory = tmp_path_factory.mktemp("source3")
    uri = f"sqlite:///{directory / 'mlflow.db'}"
    return uri, _made(3, directory, uri, str(directory / "files"))


@pytest.fixture(scope="module")
def imported3(server: ServerProcess, source3: tuple[str, dict[str, str]]) -> dict[str, str]:
    """The ids of what was imported from there."""
    uri, made = source3
    done = _import(server, uri)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def _made(version: int, directory: Path, *arguments: str) -> dict[str, str]:
    done = _run(version, directory, str(_MAKE), *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def _import(server: ServerProcess, uri: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("-m", "penstock_server", "import", "mlflow", "--from", uri, "--data-dir", str(server.data_dir))
    return _run(3, server.data_dir.parent, *command, *arguments)


def _run(version: int, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    python = _ROOT / f".venv-mlflow{version}" / "bin" / "python"
    assert python.exists(), "make test sets it up"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    env = {name: value for name, value in clean_environment().items() if not name.startswith("MLFLOW_")} | quiet
    return subprocess.run(
        [python, *arguments], cwd=directory, env=env, capture_output=True, text=True, timeout=_LONG, check=False
    )


def _ask(server: ServerProcess, path: str, body: dict[str, Any] | None = None, **query: str) -> dict[str, Any]:
    url = f"http://{server.http_address}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _table(text: str) -> dict[str, tuple[int, int]]:
    """Of each kind how many there are in the source and here."""
    rows = re.findall(r"^(\S[a-z ]*?) +([\d,]+) +([\d,]+) +[\d,]+$", text, re.MULTILINE)
    return {kind: (int(source.replace(",", "")), int(here.replace(",", ""))) for kind, source, here in rows}


def test_run_is_here_with_its_id_its_times_and_its_histories(server: ServerProcess, imported3: dict[str, str]) -> None:
    run = _ask(server, "runs/get", run_id=imported3["run"])["run"]
    info = {key: run["info"][key] for key in ("run_name", "status", "start_time", "end_time", "user_id")}
    assert info == {
        "run_name": "first",
        "status": "FINISHED",
        "start_time": 1_700_000_000_000,
        "end_time": 1_700_000_009_000,
        "user_id": "ann",
    }
    assert run["data"]["params"] == [{"key": "lr", "value": "0.1"}]
    assert {"key": "x", "value": "1"} in run["data"]["tags"]
    last = {each["key"]: (each["step"], each["timestamp"], each["value"]) for each in run["data"]["metrics"]}
    assert last["late"] == (7, 1_700_000_000_001, 3.0)
    assert last["nan"] == (0, 1_700_000_000_001, "NaN")
    assert run["inputs"]["dataset_inputs"][0]["tags"] == [{"key": "mlflow.data.context", "value": "train"}]
    points = _ask(server, "metrics/get-history", run_id=imported3["run"], metric_key="loss")["metrics"]
    assert [(each["step"], each["timestamp"], each["value"]) for each in points] == [
        (step, 1_700_000_000_000 + step * 10, 1 / (step + 1)) for step in range(300)
    ]


def test_files_are_in_the_store(server: ServerProcess, imported3: dict[str, str]) -> None:
    files = _ask(server, "artifacts/list", run_id=imported3["run"])
    assert [(each["path"], each.get("file_size")) for each in files["files"]] == [("empty.txt", 0), ("model", None)]
    assert files["root_uri"].startswith("mlflow-artifacts:/")
    url = f"http://{server.http_address}/get-artifact?run_uuid={imported3['run']}&path=model/weights.txt"
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.read() == b"weights"


def test_what_was_deleted_is_deleted(server: ServerProcess, imported3: dict[str, str]) -> None:
    run = _ask(server, "runs/get", run_id=imported3["deleted"])["run"]
    assert run["info"]["lifecycle_stage"] == "deleted"
    assert {"key": "mlflow.parentRunId", "value": imported3["run"]} in run["data"]["tags"]
    experiment = _ask(server, "experiments/get-by-name", experiment_name="gone")["experiment"]
    assert experiment["lifecycle_stage"] == "deleted"


def test_versions_keep_their_numbers_their_stages_and_what_they_stand_on(
    server: ServerProcess, imported3: dict[str, str]
) -> None:
    name = imported3["name"]
    found = _ask(server, "model-versions/search", filter=f"name='{name}'")["model_versions"]
    versions = {each["version"]: each for each in found}
    assert sorted(versions) == ["1", "3", "4"]
    assert versions["1"]["current_stage"] == "Production"
    assert versions["1"]["source"] == f"runs:/{imported3['run']}/model"
    assert versions["3"]["tags"] == [{"key": "n", "value": "2"}]
    assert versions["4"]["source"] == f"models:/{imported3['logged']}"
    alias = _ask(server, "registered-models/alias", name=name, alias="champion")["model_version"]
    assert alias["version"] == "3"
    more = {"name": name, "source": f"models:/{imported3['logged']}", "model_id": imported3["logged"]}
    made = _ask(server, "model-versions/create", more)
    assert made["model_version"]["version"] == "5"


def test_prompts_and_logged_models_are_here(server: ServerProcess, imported3: dict[str, str]) -> None:
    prompt = _ask(server, "model-versions/get", name="greeting", version="1")["model_version"]
    assert {"key": "mlflow.prompt.text", "value": "hi {{x}}"} in prompt["tags"]
    model = _ask(server, f"logged-models/{imported3['logged']}")["model"]
    assert model["info"]["name"] == "lm"
    assert model["info"]["status"] in (2, "LOGGED_MODEL_READY")
    assert [each["key"] for each in model["data"]["metrics"]] == ["acc"]
    files = _ask(server, f"logged-models/{imported3['logged']}/artifacts/directories")["files"]
    assert [(each["path"], int(each["file_size"])) for each in files] == [("weights.bin", 4)]


def test_again_nothing_is_there_twice(
    server: ServerProcess, source3: tuple[str, dict[str, str]], imported3: dict[str, str]
) -> None:
    before = _ask(server, "runs/get", run_id=imported3["run"])
    again = _import(server, source3[0])
    assert again.returncode == 0, again.stdout + again.stderr
    counts = _table(again.stdout)
    assert counts["runs"] == (3, 3)
    assert counts["points"] == (304, 304)
    assert counts["files"] == (4, 4)
    assert counts["versions"] == (4, 4)
    assert _ask(server, "runs/get", run_id=imported3["run"]) == before


def test_directory_of_mlflow_2(server: ServerProcess, imported3: dict[str, str], tmp_path: Path) -> None:
    """Into the experiments that are here by name; its own model is another one."""
    made = _made(2, tmp_path, (tmp_path / "mlruns").as_uri())
    done = _import(server, str(tmp_path / "mlruns"))
    assert done.returncode == 0, done.stdout + done.stderr
    run, other = (_ask(server, "runs/get", run_id=ids["run"])["run"] for ids in (made, imported3))
    assert run["info"]["experiment_id"] == other["info"]["experiment_id"]
    assert _table(done.stdout)["points"] == (303, 303)
    url = f"http://{server.http_address}/get-artifact?run_uuid={made['run']}&path=model/weights.txt"
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.read() == b"weights"


def test_what_cannot_be_brought_in_is_told(server: ServerProcess, tmp_path: Path) -> None:
    """A param that is too long for us, and versions whose numbers those of another source have here."""
    other = tmp_path / "other"
    other.mkdir()
    _made(2, other, (other / "mlruns").as_uri())
    _import(server, str(other / "mlruns"), "--artifacts", "none")
    made = _made(2, tmp_path, (tmp_path / "mlruns").as_uri())
    [param] = tmp_path.glob(f"mlruns/*/{made['run']}/params/lr")
    param.write_text("9" * 6_001)
    done = _import(server, str(tmp_path / "mlruns"))
    assert done.returncode == 1
    assert _table(done.stdout)["params"] == (1, 0)
    assert f"missing: run {made['run']}" in done.stdout
    assert "another one of that number is here already" in done.stdout


def test_referenced_files_stay_where_they_are(server: ServerProcess, tmp_path: Path) -> None:
    script = "import mlflow; mlflow.set_tracking_uri({uri!r}); e = mlflow.create_experiment('kept', {at!r}); "
    script += "r = mlflow.MlflowClient().create_run(e); mlflow.MlflowClient().log_text(r.info.run_id, 'x', 'x.txt'); "
    script += "print(r.info.run_id)"
    uri, at = f"sqlite:///{tmp_path / 'a.db'}", (tmp_path / "there").as_uri()
    made = _run(3, tmp_path, "-c", script.format(uri=uri, at=at))
    assert made.returncode == 0, made.stderr
    done = _import(server, uri, "--artifacts", "reference", "--experiments", "kept")
    assert done.returncode == 0, done.stdout + done.stderr
    run_id = made.stdout.splitlines()[-1]
    run = _ask(server, "runs/get", run_id=run_id)["run"]
    assert run["info"]["artifact_uri"] == f"{at}/{run_id}/artifacts"


def test_killed_import_is_gone_on_with(server: ServerProcess, tmp_path: Path) -> None:
    script = """
import mlflow
from mlflow.entities import Metric
mlflow.set_tracking_uri({uri!r})
client = mlflow.MlflowClient()
experiment = client.create_experiment("many")
for number in range(60):
    run = client.create_run(experiment).info.run_id
    client.log_batch(run, [Metric("m", step, 1_700_000_000_000, step) for step in range(50)])
    client.log_text(run, str(number), "f.txt")
"""
    uri = (tmp_path / "mlruns").as_uri()
    made = _run(2, tmp_path, "-c", script.format(uri=uri))
    assert made.returncode == 0, made.stderr
    command = ("-m", "penstock_server", "import", "mlflow", "--from", str(tmp_path / "mlruns"))
    python = _ROOT / ".venv-mlflow3" / "bin" / "python"
    process = subprocess.Popen(
        [python, *command, "--data-dir", str(server.data_dir)],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + _LONG
        while process.poll() is None and not _runs(server):
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert 0 < _runs(server) < 60
    done = _import(server, str(tmp_path / "mlruns"))
    assert done.returncode == 0, done.stdout + done.stderr
    counts = _table(done.stdout)
    assert (counts["runs"], counts["points"], counts["files"]) == ((60, 60), (3_000, 3_000), (60, 60))
    assert _runs(server) == 60


def _runs(server: ServerProcess) -> int:
    """How many runs there are of the experiment `many`."""
    found = _ask(server, "experiments/search", {"filter": "name = 'many'", "max_results": 10}).get("experiments")
    if not found:
        return 0
    ids = [found[0]["experiment_id"]]
    return len(_ask(server, "runs/search", {"experiment_ids": ids, "max_results": 1000}).get("runs", []))


def test_source_that_is_not_there_is_not_made(server: ServerProcess, tmp_path: Path) -> None:
    for uri in (f"sqlite:///{tmp_path / 'no.db'}", str(tmp_path / "no"), str(tmp_path)):
        assert _import(server, uri).returncode == 1
    assert list(tmp_path.iterdir()) == []
