"""What runs take in and bring forth, over MLflow's REST API."""

from __future__ import annotations

from typing import Any

import pytest
from asking import Asking

NOBODY = f"{7:032x}"
DATASET = {"name": "d", "digest": "1", "source_type": "local", "source": "{}"}


@pytest.fixture
def run_id(ask: Asking) -> str:
    """A run in the default experiment."""
    return str(ask.ok("runs/create", experiment_id="0")["run"]["info"]["run_id"])


def told_of(ask: Asking, run_id: str) -> tuple[Any, Any]:
    """Its inputs and outputs; runs/get and runs/search say the same."""
    run = ask.read("runs/get", run_id=run_id)["run"]
    found = ask.ok("runs/search", experiment_ids=["0"], filter=f"run_id = '{run_id}'")["runs"]
    assert found == [run]
    return run["inputs"], run["outputs"]


def test_a_run_of_nothing(ask: Asking, run_id: str) -> None:
    assert ask.ok("runs/log-inputs", run_id=run_id) == {}
    assert ask.ok("runs/outputs", run_id=run_id, models=[]) == {}
    assert told_of(ask, run_id) == ({}, {})


def test_taken_in_and_brought_forth(ask: Asking, run_id: str) -> None:
    whole = {**DATASET, "schema": "s", "profile": ""}
    tags = [{"key": "mlflow.data.context", "value": "train"}]
    inputs = [{"dataset": whole, "tags": tags}, {"dataset": {"name": "e", "digest": "2"}}]
    for _ in range(2):
        ask.ok("runs/log-inputs", run_id=run_id, datasets=inputs, models=[{"model_id": "m-1"}])
        ask.ok("runs/outputs", run_id=run_id, models=[{"model_id": "m-2", "step": "3"}, {"model_id": "m-3"}])
    bare = {"name": "e", "digest": "2", "source_type": "", "source": ""}
    assert told_of(ask, run_id) == (
        {
            "dataset_inputs": [{"dataset": whole, "tags": tags}, {"dataset": bare}],
            "model_inputs": [{"model_id": "m-1"}],
        },
        {"model_outputs": [{"model_id": "m-3", "step": 0}, {"model_id": "m-2", "step": 3}]},
    )


@pytest.mark.parametrize(
    ("endpoint", "fields", "message"),
    [
        ("log-inputs", {"datasets": "x"}, "Invalid value"),
        ("log-inputs", {"datasets": [{}]}, "Missing value for required parameter 'datasets[0].dataset'."),
        ("log-inputs", {"datasets": [{"dataset": {"name": "d"}}]}, "Missing value for required parameter"),
        ("log-inputs", {"datasets": [{"dataset": {**DATASET, "name": "x" * 501}}]}, "name: "),
        (
            "log-inputs",
            {"datasets": [{"dataset": DATASET, "tags": [{"key": "k", "value": "v" * 501}]}]},
            "value of tag",
        ),
        ("log-inputs", {"models": [{}]}, "Missing value for required parameter 'models[0].model_id'."),
        ("outputs", {}, "Missing value for required parameter 'models'."),
        ("outputs", {"models": [{"model_id": "m-1", "step": 2**63}]}, "Invalid value"),
    ],
)
def test_refused(ask: Asking, run_id: str, endpoint: str, fields: Any, message: str) -> None:
    told = ask.post(f"runs/{endpoint}", run_id=run_id, **fields)
    assert (told.status, told.code, told.json["message"][: len(message)]) == (400, "INVALID_PARAMETER_VALUE", message)
    assert told_of(ask, run_id) == ({}, {})


def test_no_run_and_a_deleted_one(ask: Asking, run_id: str) -> None:
    for endpoint in ("log-inputs", "outputs"):
        told = ask.post(f"runs/{endpoint}", run_id=NOBODY, models=[])
        assert (told.status, told.json["message"]) == (404, f"Run with id={NOBODY} not found")
        assert ask.post(f"runs/{endpoint}", models=[]).status == 400
    ask.ok("runs/delete", run_id=run_id)
    for endpoint in ("log-inputs", "outputs"):
        told = ask.post(f"runs/{endpoint}", run_id=run_id, models=[])
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
        assert told.json["message"] == f"The run {run_id} must be in the 'active' state. Current state is deleted."


def test_runs_are_found_by_their_datasets(ask: Asking) -> None:
    experiment_id = ask.ok("experiments/create", name="datasets")["experiment_id"]
    for name, digest, context in (("a", "1", "train"), ("a", "2", "eval"), ("b", "1", None)):
        run_id = ask.ok("runs/create", experiment_id=experiment_id, run_name=name + digest)["run"]["info"]["run_id"]
        dataset = {"dataset": {**DATASET, "name": name, "digest": digest}}
        tags = {"tags": [{"key": "mlflow.data.context", "value": context}]} if context else {}
        ask.ok("runs/log-inputs", run_id=run_id, datasets=[{**dataset, **tags}])
    ask.ok("runs/create", experiment_id=experiment_id, run_name="none")
    for text, names in {
        "datasets.name = 'a'": {"a1", "a2"},
        "dataset.digest = '1' AND dataset.name != 'b'": {"a1"},
        "datasets.context = 'eval'": {"a2"},
        "datasets.context != 'eval'": {"a1"},
        "datasets.name ILIKE 'A%'": {"a1", "a2"},
        "datasets.name LIKE 'A%'": set(),
        "datasets.name IN ('b', 'c')": {"b1"},
        "datasets.name NOT IN ('b', 'c')": {"a1", "a2"},
    }.items():
        found = ask.ok("runs/search", experiment_ids=[experiment_id], filter=text).get("runs", [])
        assert {each["info"]["run_name"] for each in found} == names, text
    for text in ("datasets.source = 'a'", "datasets.name > 'a'", "datasets.name = 5"):
        told = ask.post("runs/search", experiment_ids=[experiment_id], filter=text)
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    asked = {"experiment_ids": [experiment_id, "99999"]}
    summaries = [
        {"experiment_id": experiment_id, "name": "a", "digest": "1", "context": "train"},
        {"experiment_id": experiment_id, "name": "a", "digest": "2", "context": "eval"},
        {"experiment_id": experiment_id, "name": "b", "digest": "1"},
    ]
    for prefix in ("api", "ajax-api"):
        found = ask.ok(f"/{prefix}/2.0/mlflow/experiments/search-datasets", **asked)
        assert found == {"dataset_summaries": summaries}


@pytest.mark.parametrize("ids", [[], ["0"] * 21, ["abc"]])
def test_datasets_of_what_cannot_be(ask: Asking, ids: list[str]) -> None:
    told = ask.post("/ajax-api/2.0/mlflow/experiments/search-datasets", experiment_ids=ids)
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


def test_datasets_of_no_experiment(ask: Asking) -> None:
    assert ask.ok("/ajax-api/2.0/mlflow/experiments/search-datasets", experiment_ids=["99999"]) == {}
