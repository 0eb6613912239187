"""Experiments over MLflow's REST API."""

from __future__ import annotations

from typing import Any

import pytest
from asking import Asking

_NO_ACTIVE = "must be in the 'active' state. Current state is deleted."


def _made(ask: Asking, name: str, **fields: Any) -> str:
    return str(ask.ok("experiments/create", name=name, **fields)["experiment_id"])


def _found(ask: Asking, experiment_id: str) -> Any:
    return ask.read("experiments/get", experiment_id=experiment_id)["experiment"]


def _names(ask: Asking, **fields: Any) -> list[str]:
    answer = ask.ok("experiments/search", **{"max_results": 1000, **fields})
    return [each["name"] for each in answer.get("experiments", [])]


def test_the_default_experiment_is_there(ask: Asking) -> None:
    found = _found(ask, "0")
    assert (found["name"], found["lifecycle_stage"]) == ("Default", "active")
    assert found["artifact_location"] == "mlflow-artifacts:/0"


def test_made_and_found(ask: Asking) -> None:
    made = _made(ask, "made", tags=[{"key": "team", "value": "vision"}])
    found = _found(ask, made)
    assert found == {
        "experiment_id": made,
        "name": "made",
        "artifact_location": f"mlflow-artifacts:/{made}",
        "lifecycle_stage": "active",
        "creation_time": found["creation_time"],
        "last_update_time": found["creation_time"],
        "tags": [{"key": "team", "value": "vision"}],
        "workspace": "default",
    }
    assert ask.read("experiments/get-by-name", experiment_name="made")["experiment"] == found


@pytest.mark.parametrize(
    "kept", ["s3://bucket/some/where", "file:///tmp/here", "/tmp/here", "abfss://c@a/p", "s3://b/p?x=y"]
)
def test_a_place_of_its_own_for_artifacts(ask: Asking, kept: str) -> None:
    made = _made(ask, f"kept at {kept}", artifact_location=kept)
    assert _found(ask, made)["artifact_location"] == kept


@pytest.mark.parametrize("ours", ["", "mlflow-artifacts:/elsewhere", "mlflow-artifacts://host:5000/x"])
def test_a_place_in_our_store(ask: Asking, ours: str) -> None:
    made = _made(ask, f"ours: {ours}", artifact_location=ours)
    assert _found(ask, made)["artifact_location"] == f"mlflow-artifacts:/{made}"


@pytest.mark.parametrize(
    "bad", ["runs:/1/model", "s3://b/p#f", "s3://b/p?a=../..", "s3://b/p?a=%252e%252e", "x" * 2049, "http://[x"]
)
def test_a_place_that_cannot_be(ask: Asking, bad: str) -> None:
    told = ask.post("experiments/create", name=f"nowhere {bad[:20]}", artifact_location=bad)
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


def test_a_name_that_is_taken(ask: Asking) -> None:
    made = _made(ask, "taken")
    told = ask.post("experiments/create", name="taken")
    assert (told.status, told.code) == (400, "RESOURCE_ALREADY_EXISTS")
    ask.ok("experiments/delete", experiment_id=made)
    told = ask.post("experiments/create", name="taken")
    assert (told.status, told.code) == (400, "RESOURCE_ALREADY_EXISTS")
    assert "deleted" in told.json["message"]


@pytest.mark.parametrize("name", [None, "", 5, "x" * 501])
def test_a_name_that_cannot_be(ask: Asking, name: object) -> None:
    told = ask.post("experiments/create", name=name)
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    if not name:
        assert told.json["message"].startswith("Missing value for required parameter 'name'.")


@pytest.mark.parametrize(
    ("experiment_id", "status", "words"),
    [
        ("9999", 404, "No Experiment with id=9999 exists"),
        ("-1", 404, "No Experiment with id=-1 exists"),
        ("9" * 30, 404, "exists"),
        ("abc", 400, "Invalid experiment ID 'abc'. Experiment ID must be a valid integer."),
        ("1.5", 400, "must be a valid integer"),
        ("", 400, "Missing value for required parameter 'experiment_id'."),
    ],
)
def test_ids_of_none(ask: Asking, experiment_id: str, status: int, words: str) -> None:
    code = "RESOURCE_DOES_NOT_EXIST" if status == 404 else "INVALID_PARAMETER_VALUE"
    for told in (
        ask.get("experiments/get", experiment_id=experiment_id),
        ask.post("experiments/delete", experiment_id=experiment_id),
        ask.post("experiments/restore", experiment_id=experiment_id),
        ask.post("experiments/update", experiment_id=experiment_id, new_name="x"),
        ask.post("experiments/set-experiment-tag", experiment_id=experiment_id, key="k", value="v"),
        ask.post("experiments/delete-experiment-tag", experiment_id=experiment_id, key="k"),
        ask.post("runs/create", experiment_id=experiment_id),
    ):
        assert (told.status, told.code) == (status, code)
        assert words in told.json["message"]


def test_a_name_of_none(ask: Asking) -> None:
    for name in ("nobody's", "x" * 501):
        told = ask.get("experiments/get-by-name", experiment_name=name)
        assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    told = ask.get("experiments/get-by-name")
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


def test_renamed(ask: Asking) -> None:
    made = _made(ask, "before")
    assert ask.ok("experiments/update", experiment_id=made, new_name="after") == {}
    assert _found(ask, made)["name"] == "after"
    assert ask.get("experiments/get-by-name", experiment_name="before").status == 404
    assert ask.post("experiments/update", experiment_id=made).status == 400
    assert ask.post("experiments/update", experiment_id=made, new_name="Default").status == 400


def test_deleted_and_restored_with_its_runs(ask: Asking) -> None:
    made = _made(ask, "comes and goes")
    run = ask.ok("runs/create", experiment_id=made)["run"]["info"]["run_id"]
    assert ask.ok("experiments/delete", experiment_id=made) == {}
    assert _found(ask, made)["lifecycle_stage"] == "deleted"
    assert ask.read("runs/get", run_id=run)["run"]["info"]["lifecycle_stage"] == "deleted"
    told = ask.post("experiments/delete", experiment_id=made)
    assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    for told in (
        ask.post("runs/create", experiment_id=made),
        ask.post("experiments/set-experiment-tag", experiment_id=made, key="k", value="v"),
        ask.post("experiments/delete-experiment-tag", experiment_id=made, key="k"),
    ):
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
        assert told.json["message"] == f"The experiment {made} {_NO_ACTIVE}"
    told = ask.post("experiments/update", experiment_id=made, new_name="other")
    assert (told.status, told.code) == (400, "INVALID_STATE")

    assert ask.ok("experiments/restore", experiment_id=made) == {}
    assert _found(ask, made)["lifecycle_stage"] == "active"
    assert ask.read("runs/get", run_id=run)["run"]["info"]["lifecycle_stage"] == "active"
    told = ask.post("experiments/restore", experiment_id=made)
    assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_tags(ask: Asking) -> None:
    made = _made(ask, "tagged")
    for key, value in (("a", "1"), ("a", "2"), ("b", "x" * 20_000), ("c", None)):
        assert ask.ok("experiments/set-experiment-tag", experiment_id=made, key=key, value=value) == {}
    tags = {each["key"]: each["value"] for each in _found(ask, made)["tags"]}
    assert tags == {"a": "2", "b": "x" * 20_000, "c": ""}
    assert ask.ok("experiments/delete-experiment-tag", experiment_id=made, key="a") == {}
    told = ask.post("experiments/delete-experiment-tag", experiment_id=made, key="a")
    assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert told.json["message"] == "No tag with name: a"


@pytest.mark.parametrize(
    ("key", "value"), [("", "v"), ("a#b", "v"), ("a/../b", "v"), ("x" * 251, "v"), ("k", "x" * 20_001)]
)
def test_tags_that_cannot_be(ask: Asking, key: str, value: str) -> None:
    for told in (
        ask.post("experiments/set-experiment-tag", experiment_id="0", key=key, value=value),
        ask.post("experiments/create", name="badly tagged", tags=[{"key": key, "value": value}]),
    ):
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


def test_searched(ask: Asking) -> None:
    ids = [_made(ask, f"searched {n}", tags=[{"key": "n", "value": str(n)}] * (n > 0)) for n in range(4)]
    ask.ok("experiments/delete", experiment_id=ids[3])
    ours = "name LIKE 'searched%'"
    assert _names(ask, filter=ours) == ["searched 2", "searched 1", "searched 0"]
    assert _names(ask, filter=ours, view_type="DELETED_ONLY") == ["searched 3"]
    assert _names(ask, filter=ours, view_type=3, order_by=["name"]) == [f"searched {n}" for n in range(4)]
    assert _names(ask, filter=f"{ours} AND tags.n = '1'") == ["searched 1"]
    assert _names(ask, filter=f"{ours} AND tags.n != '1'") == ["searched 2"]
    assert _names(ask, filter=f"{ours} AND tags.n IS NULL") == ["searched 0"]
    assert _names(ask, filter=f"attribute.name ILIKE 'SEARCHED%' AND experiment_id IN ('{ids[0]}', '{ids[2]}')") == [
        "searched 2",
        "searched 0",
    ]
    created = _found(ask, ids[1])["creation_time"]
    assert "searched 1" in _names(ask, filter=f"{ours} AND creation_time <= {created}")
    assert _names(ask, filter=ours, order_by=["last_update_time ASC", "name DESC"])[0] == "searched 0"


def test_searched_page_by_page(ask: Asking) -> None:
    for n in range(5):
        _made(ask, f"paged {n}")
    fields = {"filter": "name LIKE 'paged%'", "order_by": ["name"], "max_results": 2}
    seen: list[str] = []
    token = None
    while True:
        answer = ask.read("experiments/search", **fields, **({"page_token": token} if token else {}))
        seen += [each["name"] for each in answer["experiments"]]
        token = answer.get("next_page_token")
        if token is None:
            break
    assert seen == [f"paged {n}" for n in range(5)]


@pytest.mark.parametrize(
    "fields",
    [
        {"max_results": None},
        {"max_results": 0},
        {"max_results": -1},
        {"max_results": 50_001},
        {"max_results": "many"},
        {"page_token": "zzz"},
        {"view_type": "SOME"},
        {"filter": "name = unquoted"},
        {"filter": "name > 'a'"},
        {"filter": "colour = 'red'"},
        {"filter": "creation_time > 'a'"},
        {"order_by": ["tags.n"]},
        {"order_by": ["name SIDEWAYS"]},
    ],
)
def test_searches_that_cannot_be(ask: Asking, fields: dict[str, Any]) -> None:
    told = ask.post("experiments/search", **{"max_results": 10, **fields})
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


def test_no_such_endpoint(ask: Asking) -> None:
    told = ask.get("gateway/secrets/list")
    assert (told.status, told.code) == (404, "ENDPOINT_NOT_FOUND")


def test_another_content_type(ask: Asking) -> None:
    told = ask.request("POST", "/api/2.0/mlflow/experiments/create", b"name=a", {"content-type": "text/plain"})
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
