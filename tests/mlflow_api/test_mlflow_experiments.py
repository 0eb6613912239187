"""Experiments over MLflow's REST API."""

from __future__ import annotations

from asking import Asking


def test_the_default_experiment_is_there(ask: Asking) -> None:
    found = ask.read("experiments/get", experiment_id="0")["experiment"]
    assert (found["name"], found["lifecycle_stage"]) == ("Default", "active")
    assert found["artifact_location"] == "mlflow-artifacts:/0"


def test_made_and_found(ask: Asking) -> None:
    made = ask.ok("experiments/create", name="made", tags=[{"key": "team", "value": "vision"}])
    found = ask.read("experiments/get", experiment_id=made["experiment_id"])["experiment"]
    assert (found["name"], found["tags"]) == ("made", [{"key": "team", "value": "vision"}])


def test_a_name_that_is_taken(ask: Asking) -> None:
    ask.ok("experiments/create", name="taken")
    told = ask.post("experiments/create", name="taken")
    assert (told.status, told.code) == (400, "RESOURCE_ALREADY_EXISTS")


def test_no_name(ask: Asking) -> None:
    told = ask.post("experiments/create")
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    assert told.json["message"].startswith("Missing value for required parameter 'name'.")


def test_no_such_endpoint(ask: Asking) -> None:
    told = ask.get("gateway/secrets/list")
    assert (told.status, told.code) == (404, "ENDPOINT_NOT_FOUND")


def test_another_content_type(ask: Asking) -> None:
    told = ask.request("POST", "/api/2.0/mlflow/experiments/create", b"name=a", {"content-type": "text/plain"})
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
