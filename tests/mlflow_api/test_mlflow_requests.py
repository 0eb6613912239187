"""Requests that mean harm, or make no sense: none of them is answered as a mistake of the server's own."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from asking import Asking

from penstock_server.mlflow import places
from penstock_server.mlflow.errors import MlflowError

# One character, encoded so often that nobody means it.
ENCODED = "%" + "25" * 40


def test_a_path_is_decoded_a_few_times_only() -> None:
    assert places.safe("a%2525/./b") == "a%2525/b"
    for text in (f"a/{ENCODED}", "a" * 5_000):
        with pytest.raises(MlflowError):
            places.safe(text)


def test_a_source_is_decoded_a_few_times_only(ask: Asking) -> None:
    ask.ok("registered-models/create", name="often")
    ask.ok("model-versions/create", name="often", source="s3://a/b%2525")
    for source in (f"s3://a/{ENCODED}", "s3://a/" + "b" * 5_000):
        told = ask.post("model-versions/create", name="often", source=source)
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
def run(ask: Asking) -> str:
    """A run's id."""
    return str(ask.ok("runs/create", experiment_id="0")["run"]["info"]["run_id"])


@pytest.fixture
def trace(ask: Asking) -> str:
    """A trace's id."""
    trace_id = f"tr-{uuid.uuid4().hex}"
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    info = {"trace_id": trace_id, "trace_location": location, "request_time": "2026-01-01T00:00:00Z", "state": "OK"}
    ask.ok("/api/3.0/mlflow/traces", trace={"trace_info": info})
    return trace_id


@pytest.mark.parametrize("levels", [230, 260, 900])
def test_json_of_too_many_levels(ask: Asking, run: str, trace: str, levels: int) -> None:
    deep = nested(levels)
    model = {"artifact_path": "m", "flavors": {"x": deep}, "utc_time_created": "x", "run_id": run}
    value = {"serialization_format": "JSON_FORMAT", "value": json.dumps(deep)}
    for path, fields in (
        ("experiments/create", {"name": deep}),
        ("runs/log-model", {"run_id": run, "model_json": json.dumps(model)}),
        (f"/api/3.0/mlflow/traces/{trace}/assessments", {"assessment": _assessment(feedback={"value": deep})}),
        (
            f"/api/3.0/mlflow/traces/{trace}/assessments",
            {"assessment": _assessment(expectation={"serialized_value": value})},
        ),
    ):
        told = ask.post(path, **fields)
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE"), told.body


def test_json_of_many_levels(ask: Asking, run: str, trace: str) -> None:
    model = {"artifact_path": "m", "flavors": {"x": nested(190)}, "utc_time_created": "x", "run_id": run}
    ask.ok("runs/log-model", run_id=run, model_json=json.dumps(model))
    ask.ok(f"/api/3.0/mlflow/traces/{trace}/assessments", assessment=_assessment(feedback={"value": nested(190)}))
    ask.read(f"/api/3.0/mlflow/traces/{trace}")


def test_a_history_of_models_of_too_many_levels(ask: Asking, run: str) -> None:
    ask.ok("runs/set-tag", run_id=run, key="mlflow.log-model.history", value=json.dumps(nested(260)))
    model = {"artifact_path": "m", "flavors": {}, "utc_time_created": "x", "run_id": run}
    ask.ok("runs/log-model", run_id=run, model_json=json.dumps(model))


def _assessment(**fields: Any) -> dict[str, Any]:
    return {"assessment_name": "n", "source": {"source_type": "HUMAN", "source_id": "x"}, **fields}


A, B = "/api/2.0/mlflow", "/api/3.0/mlflow"
MODEL = f"m-{'1' * 32}"
POINT = {"key": "a", "value": 1, "timestamp": 1, "model_id": MODEL, "dataset_name": "d", "dataset_digest": "e"}
TAGS = [{"key": "k", "value": "v"}]
DATASET = {"name": "d", "digest": "e", "source_type": "s", "source": "t", "schema": "u", "profile": "p"}
SEARCH = {"filter": "tags.a = 'b'", "order_by": ["name"], "page_token": ""}
VERSION = {"name": "m", "version": "1"}
INFO = {
    "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
    "request_time": "2026-01-01T00:00:00Z",
    "state": "OK",
    "client_request_id": "c",
    "request_preview": "q",
    "response_preview": "a",
    "execution_duration": "1s",
    "tags": {"k": "v"},
    "trace_metadata": {"k": "v"},
}
ASSESSMENT = {
    "assessment_id": "i",
    "assessment_name": "n",
    "source": {"source_type": "HUMAN", "source_id": "x"},
    "feedback": {"value": {"k": "v"}, "error": {"error_code": "c", "error_message": "m", "stack_trace": "s"}},
    "rationale": "r",
    "metadata": {"k": "v"},
    "span_id": "s",
    "overrides": "o",
    "create_time": "2026-01-01T00:00:00Z",
}

# What is sent, with {run} and {trace} for ids: one text after the other gets a NUL.
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", f"{A}/experiments/create", {"name": "e", "artifact_location": "s3://a/b", "tags": TAGS}),
    ("GET", f"{A}/experiments/get", {"experiment_id": "0"}),
    ("GET", f"{A}/experiments/get-by-name", {"experiment_name": "e"}),
    ("POST", f"{A}/experiments/search", {"max_results": 1, **SEARCH}),
    ("POST", f"{A}/experiments/update", {"experiment_id": "0", "new_name": "Default"}),
    ("POST", f"{A}/experiments/set-experiment-tag", {"experiment_id": "0", "key": "k", "value": "v"}),
    ("POST", f"{A}/experiments/delete-experiment-tag", {"experiment_id": "0", "key": "k"}),
    ("POST", f"{A}/experiments/search-datasets", {"experiment_ids": ["0"]}),
    ("POST", f"{A}/runs/create", {"experiment_id": "0", "user_id": "u", "run_name": "r", "tags": TAGS}),
    ("GET", f"{A}/runs/get", {"run_id": "{run}"}),
    ("POST", f"{A}/runs/update", {"run_id": "{run}", "status": "RUNNING", "run_name": "r"}),
    ("POST", f"{A}/runs/search", {"experiment_ids": ["0"], "run_view_type": "ALL", **SEARCH}),
    ("POST", f"{A}/runs/log-metric", {"run_id": "{run}", **POINT}),
    ("POST", f"{A}/runs/log-parameter", {"run_id": "{run}", "key": "k", "value": "v"}),
    ("POST", f"{A}/runs/log-batch", {"run_id": "{run}", "metrics": [POINT], "params": TAGS, "tags": TAGS}),
    ("POST", f"{A}/runs/set-tag", {"run_id": "{run}", "key": "k", "value": "v"}),
    ("POST", f"{A}/runs/delete-tag", {"run_id": "{run}", "key": "k"}),
    (
        "POST",
        f"{A}/runs/log-inputs",
        {"run_id": "{run}", "datasets": [{"dataset": DATASET, "tags": TAGS}], "models": [{"model_id": MODEL}]},
    ),
    ("POST", f"{A}/runs/outputs", {"run_id": "{run}", "models": [{"model_id": MODEL}]}),
    ("POST", f"{A}/runs/log-model", {"run_id": "{run}", "model_json": "{}"}),
    ("GET", f"{A}/metrics/get-history", {"run_id": "{run}", "metric_key": "k", "page_token": ""}),
    ("GET", f"{A}/metrics/get-history-bulk", {"run_id": "{run}", "metric_key": "k"}),
    ("GET", f"{A}/metrics/get-history-bulk-interval", {"run_ids": "{run}", "metric_key": "k"}),
    (
        "POST",
        f"{A}/logged-models",
        {"experiment_id": "0", "name": "n", "model_type": "t", "source_run_id": "r", "params": TAGS, "tags": TAGS},
    ),
    (
        "POST",
        f"{A}/logged-models/search",
        {
            "experiment_ids": ["0"],
            "filter": "name = 'a'",
            "datasets": [{"dataset_name": "d", "dataset_digest": "e"}],
            "order_by": [{"field_name": "metrics.a", "dataset_name": "d", "dataset_digest": "e"}],
            "page_token": "",
        },
    ),
    ("PATCH", f"{A}/logged-models/{MODEL}", {"model_id": MODEL, "status": "LOGGED_MODEL_READY"}),
    ("PATCH", f"{A}/logged-models/{MODEL}/tags", {"tags": TAGS}),
    ("POST", f"{A}/logged-models/{MODEL}/params", {"params": TAGS}),
    ("GET", f"{A}/logged-models/{MODEL}/artifacts/directories", {"artifact_directory_path": "a", "page_token": ""}),
    ("POST", f"{A}/registered-models/create", {"name": "m", "description": "d", "tags": TAGS}),
    ("GET", f"{A}/registered-models/get", {"name": "m"}),
    ("POST", f"{A}/registered-models/rename", {"name": "m", "new_name": "m"}),
    ("PATCH", f"{A}/registered-models/update", {"name": "m", "description": "d"}),
    ("GET", f"{A}/registered-models/search", SEARCH),
    ("POST", f"{A}/registered-models/get-latest-versions", {"name": "m", "stages": ["Production"]}),
    ("POST", f"{A}/registered-models/set-tag", {"name": "m", "key": "k", "value": "v"}),
    ("DELETE", f"{A}/registered-models/delete-tag", {"name": "m", "key": "k"}),
    ("POST", f"{A}/registered-models/alias", {**VERSION, "alias": "a"}),
    ("GET", f"{A}/registered-models/alias", {"name": "m", "alias": "a"}),
    ("DELETE", f"{A}/registered-models/alias", {"name": "m", "alias": "a"}),
    (
        "POST",
        f"{A}/model-versions/create",
        {"name": "m", "source": "s3://a/b", "description": "d", "run_link": "l", "model_id": MODEL, "tags": TAGS},
    ),
    ("POST", f"{A}/model-versions/create", {"name": "m", "source": "runs:/{run}/a", "run_id": "{run}"}),
    ("GET", f"{A}/model-versions/get", VERSION),
    ("PATCH", f"{A}/model-versions/update", {**VERSION, "description": "d"}),
    ("POST", f"{A}/model-versions/transition-stage", {**VERSION, "stage": "Production"}),
    ("GET", f"{A}/model-versions/search", SEARCH),
    ("GET", f"{A}/model-versions/get-download-uri", VERSION),
    ("POST", f"{A}/model-versions/set-tag", {**VERSION, "key": "k", "value": "v"}),
    ("DELETE", f"{A}/model-versions/delete-tag", {**VERSION, "key": "k"}),
    ("GET", f"{A}/artifacts/list", {"run_id": "{run}", "path": "a", "page_token": ""}),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts", {"path": "0/{run}/artifacts/a"}),
    ("GET", "/get-artifact", {"run_id": "{run}", "path": "a"}),
    ("GET", "/model-versions/get-artifact", {**VERSION, "path": "a"}),
    ("POST", f"{B}/traces", {"trace": {"trace_info": {"trace_id": "{trace}", **INFO, "assessments": [ASSESSMENT]}}}),
    ("GET", f"{B}/traces/get", {"trace_id": "{trace}"}),
    ("GET", f"{B}/traces/batchGet", {"trace_ids": "{trace}"}),
    ("POST", f"{B}/traces/batchGetInfos", {"trace_ids": ["{trace}"]}),
    (
        "POST",
        f"{B}/traces/search",
        {"locations": [INFO["trace_location"]], "filter": "feedback.a = 'b'", "order_by": ["name"], "page_token": ""},
    ),
    ("PATCH", f"{B}/traces/{{trace}}/tags", {"key": "k", "value": "v"}),
    ("DELETE", f"{B}/traces/{{trace}}/tags", {"key": "k"}),
    ("POST", f"{B}/traces/delete-traces", {"experiment_id": "0", "request_ids": ["x"]}),
    ("POST", f"{A}/traces/link-to-run", {"trace_ids": ["{trace}"], "run_id": "{run}"}),
    ("POST", f"{A}/traces/link-prompts", {"trace_id": "{trace}", "prompt_versions": [VERSION]}),
    ("GET", f"{B}/get-trace-artifact", {"request_id": "{trace}"}),
    ("POST", f"{B}/traces/{{trace}}/assessments", {"assessment": ASSESSMENT}),
    (
        "PATCH",
        f"{B}/traces/{{trace}}/assessments/i",
        {"assessment": ASSESSMENT, "update_mask": "assessment_name,feedback,rationale,metadata"},
    ),
    ("POST", f"{A}/traces", {"experiment_id": "0", "timestamp_ms": 1, "request_metadata": TAGS, "tags": TAGS}),
    ("PATCH", f"{A}/traces/{{trace}}", {"timestamp_ms": 9, "status": "OK", "request_metadata": TAGS, "tags": TAGS}),
    ("GET", f"{A}/traces", {"experiment_ids": "0", "filter": "tag.a = 'b'", "order_by": "name", "page_token": ""}),
]


@pytest.mark.parametrize(("method", "path", "fields"), REQUESTS, ids=[f"{each[0]} {each[1]}" for each in REQUESTS])
def test_a_nul_in_a_text(ask: Asking, run: str, trace: str, method: str, path: str, fields: dict[str, Any]) -> None:
    path = path.replace("{run}", run).replace("{trace}", trace)
    plain = json.loads(json.dumps(fields).replace("{run}", run).replace("{trace}", trace))
    for changed in with_nul(plain):
        told = ask.get(path, **changed) if method == "GET" else ask.json(method, path, changed)
        assert told.status < 500, (changed, told.body)


def with_nul(value: Any) -> list[Any]:
    """It, once for each text in it, which has a NUL at its end there; keys of free objects are texts, too."""
    match value:
        case str():
            return [f"{value}\0"]
        case list():
            return [[*value[:at], each, *value[at + 1 :]] for at in range(len(value)) for each in with_nul(value[at])]
        case dict():
            found = [{**value, name: each} for name, inner in value.items() for each in with_nul(inner)]
            return [*found, {f"{name}\0": inner for name, inner in value.items()}]
        case _:
            return []


def test_a_long_body(ask: Asking, run: str) -> None:
    long = "x" * (3 << 20)
    told = ask.post("runs/set-tag", run_id=run, key="k", value=long)
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "2097152 bytes" in told.json["message"]
    dataset = {"name": "d", "digest": "e", "source_type": "s", "source": "t", "profile": long}
    ask.ok("runs/log-inputs", run_id=run, datasets=[{"dataset": dataset}])


def test_names_of_fields_in_camel_case(ask: Asking, run: str) -> None:
    point = {"key": "a", "value": 1, "timestamp": 1, "modelId": MODEL}
    assert ask.post("runs/log-batch", run_id=run, metrics=[point]).status == 400


@pytest.mark.parametrize("value", ["1_000", "\u0661"])
def test_numbers_of_python_are_none(ask: Asking, run: str, value: str) -> None:
    told = ask.post("runs/log-metric", run_id=run, key="a", value=value, timestamp=1)
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
