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
