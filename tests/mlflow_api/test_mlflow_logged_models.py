"""Logged models over MLflow's REST API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from asking import Asking

MODELS = "logged-models"
NOBODY = f"m-{7:032x}"


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return iter(range(1_000))


@pytest.fixture
def experiment_id(ask: Asking, numbers: Iterator[int]) -> str:
    """An experiment of the test's own."""
    return str(ask.ok("experiments/create", name=f"models {next(numbers)}")["experiment_id"])


@pytest.fixture
def run_id(ask: Asking, experiment_id: str) -> str:
    """A run in it."""
    return str(ask.ok("runs/create", experiment_id=experiment_id)["run"]["info"]["run_id"])


def make(ask: Asking, experiment_id: str, **fields: Any) -> dict[str, Any]:
    """A model's info."""
    info: dict[str, Any] = ask.ok(MODELS, experiment_id=experiment_id, **fields)["model"]["info"]
    return info


def names(ask: Asking, experiment_id: str, **fields: Any) -> list[str]:
    """Of those that a search finds."""
    found = ask.ok(f"{MODELS}/search", experiment_ids=[experiment_id], **fields)
    return [each["info"]["name"] for each in found.get("models", [])]


def test_made_and_found(ask: Asking, experiment_id: str) -> None:
    made = ask.ok(
        MODELS,
        experiment_id=experiment_id,
        name="iris",
        model_type="tree",
        source_run_id="r",
        params=[{"key": "a", "value": "1"}],
        tags=[{"key": "t"}],
    )["model"]
    info = made["info"]
    model_id, created_ms = info["model_id"], info["creation_timestamp_ms"]
    assert re.fullmatch("m-[0-9a-f]{32}", model_id)
    assert made == {
        "info": {
            "model_id": model_id,
            "experiment_id": experiment_id,
            "name": "iris",
            "creation_timestamp_ms": created_ms,
            "last_updated_timestamp_ms": created_ms,
            "artifact_uri": f"mlflow-artifacts:/{experiment_id}/models/{model_id}/artifacts",
            "status": "LOGGED_MODEL_PENDING",
            "model_type": "tree",
            "source_run_id": "r",
            "tags": [{"key": "t", "value": ""}],
        },
        "data": {"params": [{"key": "a", "value": "1"}]},
    }
    assert ask.read(f"{MODELS}/{model_id}") == {"model": made}


def test_where_the_experiment_says(ask: Asking) -> None:
    experiment = ask.ok("experiments/create", name="elsewhere", artifact_location="s3://bucket/there")
    info = make(ask, experiment["experiment_id"])
    assert info["artifact_uri"] == f"s3://bucket/there/models/{info['model_id']}/artifacts"
    assert (info["model_type"], info["source_run_id"], bool(info["name"])) == ("", "", True)


@pytest.mark.parametrize("status", ["LOGGED_MODEL_READY", "READY", 2, "LOGGED_MODEL_UPLOAD_FAILED", 3])
def test_finalized(ask: Asking, experiment_id: str, status: Any) -> None:
    model_id = make(ask, experiment_id)["model_id"]
    told = ask.json("PATCH", f"{MODELS}/{model_id}", {"model_id": model_id, "status": status})
    shown = "LOGGED_MODEL_READY" if status in ("LOGGED_MODEL_READY", "READY", 2) else "LOGGED_MODEL_UPLOAD_FAILED"
    assert (told.status, told.json["model"]["info"]["status"]) == (200, shown)
    assert ask.read(f"{MODELS}/{model_id}") == told.json


@pytest.mark.parametrize(
    ("method", "path", "fields", "status", "message"),
    [
        ("POST", "", {}, 400, "Missing value for required parameter 'experiment_id'."),
        ("POST", "", {"experiment_id": "abc"}, 400, "Invalid experiment ID 'abc'."),
        ("POST", "", {"experiment_id": "99999"}, 404, "No Experiment with id=99999 exists"),
        ("POST", "", {"experiment_id": "0", "name": "a/b"}, 400, "name: "),
        ("GET", f"/{NOBODY}", None, 404, f"Logged model with ID '{NOBODY}' not found."),
        ("GET", "/nonsense", None, 404, "Logged model with ID 'nonsense' not found."),
        ("PATCH", f"/{NOBODY}", {}, 400, "Missing value for required parameter 'status'."),
        ("PATCH", f"/{NOBODY}", {"status": "nonsense"}, 400, "Invalid value"),
        ("PATCH", f"/{NOBODY}", {"status": 7}, 400, "Invalid value"),
        ("PATCH", f"/{NOBODY}", {"status": 2}, 404, "Logged model"),
        ("DELETE", f"/{NOBODY}", {}, 404, "Logged model"),
        ("PATCH", f"/{NOBODY}/tags", {}, 404, "Logged model"),
        ("DELETE", f"/{NOBODY}/tags/t", {}, 404, "Logged model"),
        ("POST", f"/{NOBODY}/params", {}, 404, "Logged model"),
        ("GET", f"/{NOBODY}/artifacts/directories", None, 404, "Logged model"),
        ("POST", "/search", {}, 400, "Missing value for required parameter 'experiment_ids'."),
        ("POST", "/search", {"experiment_ids": ["0"], "datasets": [{}]}, 400, "`dataset_name` in the `datasets`"),
        ("POST", "/search", {"experiment_ids": ["0"], "order_by": [{"field_name": "params.a"}]}, 400, "order_by"),
        ("POST", "/search", {"experiment_ids": ["0"], "order_by": [{}]}, 400, "order_by"),
        ("POST", "/search", {"experiment_ids": ["0"], "order_by": ["name"]}, 400, "Invalid value"),
        ("POST", "/search", {"experiment_ids": ["0"], "filter": "nothing = 'a'"}, 400, "filter: "),
        ("POST", "/search", {"experiment_ids": ["0"], "max_results": -1}, 400, "Invalid value"),
        ("POST", "/search", {"experiment_ids": ["0"], "page_token": "zz"}, 400, "page_token: "),
    ],
)
def test_refused(ask: Asking, method: str, path: str, fields: Any, status: int, message: str) -> None:
    told = ask.get(MODELS + path) if fields is None else ask.json(method, MODELS + path, fields)
    assert (told.status, told.json["message"][: len(message)]) == (status, message)
    assert told.code == ("RESOURCE_DOES_NOT_EXIST" if status == 404 else "INVALID_PARAMETER_VALUE")


def test_tags_and_params(ask: Asking, experiment_id: str) -> None:
    model_id = make(ask, experiment_id)["model_id"]
    given = [{"key": "b", "value": "1"}, {"key": "a c", "value": "2"}, {"key": "b", "value": "3"}]
    assert ask.json("PATCH", f"{MODELS}/{model_id}/tags", {"tags": given}).json == {}
    assert ask.json("DELETE", f"{MODELS}/{model_id}/tags/a%20c", {}).json == {}
    told = ask.json("DELETE", f"{MODELS}/{model_id}/tags/a%20c", {})
    assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert ask.ok(f"{MODELS}/{model_id}/params", params=[{"key": "p", "value": "1"}]) == {}
    assert ask.ok(f"{MODELS}/{model_id}/params", params=[{"key": "p", "value": "1"}]) == {}
    told = ask.post(f"{MODELS}/{model_id}/params", params=[{"key": "p", "value": "2"}])
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    model = ask.read(f"{MODELS}/{model_id}")["model"]
    assert model["info"]["tags"] == [{"key": "b", "value": "3"}]
    assert model["data"] == {"params": [{"key": "p", "value": "1"}]}


def test_deleted(ask: Asking, experiment_id: str) -> None:
    model_id = make(ask, experiment_id, name="gone")["model_id"]
    for _ in range(2):
        assert ask.json("DELETE", f"{MODELS}/{model_id}", {}).json == {}
    assert ask.get(f"{MODELS}/{model_id}").status == 404
    assert ask.get(f"{MODELS}/{model_id}", allow_deleted="false").status == 404
    assert ask.read(f"{MODELS}/{model_id}", allow_deleted="True")["model"]["info"]["name"] == "gone"
    assert names(ask, experiment_id) == []


def test_metrics_of_runs_are_the_models_too(ask: Asking, experiment_id: str, run_id: str) -> None:
    model_id = make(ask, experiment_id)["model_id"]
    fields = {"key": "acc", "value": 0.5, "timestamp": 10, "model_id": model_id}
    for _ in range(2):
        ask.ok("runs/log-metric", run_id=run_id, step=1, dataset_name="d", dataset_digest="1", **fields)
    of_model = {"key": "nan", "value": "NaN", "timestamp": 11, "step": 0, "model_id": model_id}
    batch = [of_model, {**of_model, "key": "loss", "value": "-Infinity"}, {"key": "b", "value": 1, "timestamp": 1}]
    ask.ok("runs/log-batch", run_id=run_id, metrics=batch)
    ask.ok("runs/log-metric", run_id=run_id, **{**fields, "key": "of the run", "model_id": ""})
    own = {"model_id": model_id, "run_id": run_id}
    assert ask.read(f"{MODELS}/{model_id}")["model"]["data"]["metrics"] == [
        {**fields, **own, "step": 1, "dataset_name": "d", "dataset_digest": "1"},
        {"key": "loss", "value": -1.7976931348623157e308, "timestamp": 11, "step": 0, **own},
        {"key": "nan", "value": "NaN", "timestamp": 11, "step": 0, **own},
    ]
    keys = {each["key"] for each in ask.read("runs/get", run_id=run_id)["run"]["data"]["metrics"]}
    assert keys == {"acc", "nan", "loss", "b", "of the run"}


@pytest.mark.parametrize("model_id", [NOBODY, "nonsense"])
def test_metrics_of_no_model(ask: Asking, run_id: str, model_id: str) -> None:
    metric = {"key": "acc", "value": 0.5, "timestamp": 10, "step": 0, "model_id": model_id}
    for told in (
        ask.post("runs/log-metric", run_id=run_id, **metric),
        ask.post("runs/log-batch", run_id=run_id, metrics=[metric]),
    ):
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "metrics" not in ask.read("runs/get", run_id=run_id)["run"]["data"]


def test_searches_in_order_page_by_page(ask: Asking, experiment_id: str, run_id: str) -> None:
    for name, value in (("a", 0.1), ("b", 0.9), ("c", None)):
        model_id = make(ask, experiment_id, name=name)["model_id"]
        if value is not None:
            metric = {"key": "acc", "value": value, "timestamp": 1, "dataset_name": f"of {name}", "model_id": model_id}
            ask.ok("runs/log-metric", run_id=run_id, **metric)
    assert names(ask, experiment_id) == ["c", "b", "a"]
    assert names(ask, experiment_id, max_results=0, filter="metrics.acc > 0.5") == ["b"]
    assert names(ask, experiment_id, datasets=[{"dataset_name": "of a"}]) == ["a"]
    best = [{"field_name": "metrics.acc", "ascending": False}]
    assert names(ask, experiment_id, order_by=best) == ["b", "a", "c"]
    of_a = [{"field_name": "metrics.acc", "dataset_name": "of a"}, {"field_name": "name"}]
    assert names(ask, experiment_id, order_by=of_a) == ["a", "b", "c"]
    asked = {"experiment_ids": [experiment_id, "99999"], "order_by": best, "max_results": 2}
    page = ask.ok(f"{MODELS}/search", **asked)
    rest = ask.ok(f"{MODELS}/search", **asked, page_token=page["next_page_token"])
    assert [len(page["models"]), len(rest["models"]), "next_page_token" in rest] == [2, 1, False]
    assert ask.ok(f"{MODELS}/search", experiment_ids=[]) == {}


def test_artifacts_of_a_new_model(ask: Asking, experiment_id: str) -> None:
    info = make(ask, experiment_id)
    listed = ask.read(f"{MODELS}/{info['model_id']}/artifacts/directories", artifact_directory_path="a")
    assert listed == {"root_uri": info["artifact_uri"]}
    told = ask.get(f"{MODELS}/{info['model_id']}/artifacts/directories", artifact_directory_path="../a")
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
