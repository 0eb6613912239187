"""Runs, their params and their tags over MLflow's REST API."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from asking import Asking

from penstock.v1.runs_pb2 import CreateRunRequest
from penstock.v1.runs_pb2_grpc import RunServiceStub
from servers import ServerProcess

_NOBODY = "0" * 32


def _made(ask: Asking, **fields: Any) -> Any:
    return ask.ok("runs/create", **{"experiment_id": "0", **fields})["run"]


def _run_id(ask: Asking, **fields: Any) -> str:
    return str(_made(ask, **fields)["info"]["run_id"])


def _found(ask: Asking, run_id: str) -> Any:
    return ask.read("runs/get", run_id=run_id)["run"]


def _texts(run: Any, name: str) -> dict[str, str]:
    return {each["key"]: each["value"] for each in run["data"].get(name, [])}


def test_made_and_found(ask: Asking) -> None:
    tags = [{"key": "mlflow.user", "value": "ann"}, {"key": "mlflow.source.name", "value": "train.py"}]
    made = _made(ask, user_id="ann", run_name="first", start_time=1234, tags=tags)
    run_id = made["info"]["run_id"]
    assert made == {
        "info": {
            "run_id": run_id,
            "run_uuid": run_id,
            "run_name": "first",
            "experiment_id": "0",
            "user_id": "ann",
            "status": "RUNNING",
            "start_time": 1234,
            "artifact_uri": f"mlflow-artifacts:/0/{run_id}/artifacts",
            "lifecycle_stage": "active",
        },
        "data": {"tags": made["data"]["tags"]},
        "inputs": {},
    }
    assert _texts(made, "tags") == {"mlflow.user": "ann", "mlflow.source.name": "train.py", "mlflow.runName": "first"}
    assert len(run_id) == 32
    assert _found(ask, run_id) == {**made, "outputs": {}}
    assert ask.read("runs/get", run_uuid=run_id)["run"] == {**made, "outputs": {}}


def test_a_start_and_a_name_that_are_not_said(ask: Asking) -> None:
    before = time.time_ns() // 1_000_000
    run = _made(ask)
    assert before - 1000 <= run["info"]["start_time"] <= time.time_ns() // 1_000_000 + 1000
    assert run["info"]["run_name"]
    assert _texts(run, "tags") == {"mlflow.runName": run["info"]["run_name"]}
    assert "end_time" not in run["info"]


def test_a_name_by_tag(ask: Asking) -> None:
    named = [{"key": "mlflow.runName", "value": "by tag"}]
    assert _made(ask, tags=named)["info"]["run_name"] == "by tag"
    assert _made(ask, tags=named, run_name="by tag")["info"]["run_name"] == "by tag"
    told = ask.post("runs/create", experiment_id="0", tags=named, run_name="another")
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "different values" in told.json["message"]


@pytest.mark.parametrize(
    ("location", "expected"),
    [("s3://b/p/", "s3://b/p/{}/artifacts"), ("s3://b/p?x=y", "s3://b/p/{}/artifacts?x=y"), ("/d", "/d/{}/artifacts")],
)
def test_where_its_artifacts_are(ask: Asking, location: str, expected: str) -> None:
    experiment = ask.ok("experiments/create", name=f"at {location}", artifact_location=location)["experiment_id"]
    run_id = _run_id(ask, experiment_id=experiment)
    uri = expected.format(run_id)
    assert _found(ask, run_id)["info"]["artifact_uri"] == uri
    assert ask.ok("runs/update", run_id=run_id, status="FINISHED")["run_info"]["artifact_uri"] == uri
    for condition in (f"artifact_uri = '{uri}'", "attributes.artifact_uri LIKE '%/artifacts%'"):
        found = ask.ok("runs/search", experiment_ids=[experiment], filter=condition, order_by=["artifact_uri"])
        assert [run["info"]["run_id"] for run in found["runs"]] == [run_id]


@pytest.mark.parametrize(
    "fields",
    [
        {"experiment_id": None},
        {"experiment_id": 0},
        {"start_time": "soon"},
        {"start_time": -1},
        {"run_name": 5},
        {"run_name": "x" * 501},
        {"tags": [{"key": "a#b", "value": "v"}]},
        {"tags": [{"value": "v"}]},
        {"tags": ["a"]},
    ],
)
def test_runs_that_cannot_be(ask: Asking, fields: dict[str, Any]) -> None:
    told = ask.post("runs/create", **{"experiment_id": "0", **fields})
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("run_id", [_NOBODY, "nobody", "ABCDEF" + "0" * 26, "0" * 300, "\u00e9"])
def test_ids_of_none(ask: Asking, run_id: str) -> None:
    for told in (
        ask.get("runs/get", run_id=run_id),
        ask.post("runs/update", run_id=run_id, status="FINISHED"),
        ask.post("runs/delete", run_id=run_id),
        ask.post("runs/restore", run_id=run_id),
        ask.post("runs/log-parameter", run_id=run_id, key="k", value="v"),
        ask.post("runs/set-tag", run_id=run_id, key="k", value="v"),
        ask.post("runs/delete-tag", run_id=run_id, key="k"),
    ):
        assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert told.json["message"] == f"Run with id={run_id[:256]} not found"


def test_no_id(ask: Asking) -> None:
    for name in ("update", "delete", "restore", "log-parameter", "set-tag", "delete-tag", "log-model"):
        told = ask.post(f"runs/{name}", key="k", value="v", model_json="{}")
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE"), name
    told = ask.get("runs/get")
    assert told.json["message"].startswith("Missing value for required parameter 'run_id'.")


def test_ended_and_taken_up_again(ask: Asking) -> None:
    run_id = _run_id(ask, start_time=1000)
    info = ask.ok("runs/update", run_id=run_id, run_uuid=run_id, status="FINISHED", end_time=5000)["run_info"]
    assert (info["status"], info["end_time"]) == ("FINISHED", 5000)
    assert _found(ask, run_id)["info"] == info
    info = ask.ok("runs/update", run_uuid=run_id, status="RUNNING")["run_info"]
    assert info["status"] == "RUNNING"
    assert ask.ok("runs/update", run_id=run_id, status=4)["run_info"]["status"] == "FAILED"
    for fields in ({"status": "finished"}, {"status": 9}, {"end_time": "late"}, {"end_time": -1}):
        told = ask.post("runs/update", run_id=run_id, **fields)
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    assert _found(ask, run_id)["info"]["status"] == "FAILED"


def test_the_name_is_a_tag(ask: Asking) -> None:
    run_id = _run_id(ask, run_name="one")
    assert ask.ok("runs/update", run_id=run_id, run_name="two")["run_info"]["run_name"] == "two"
    assert _texts(_found(ask, run_id), "tags")["mlflow.runName"] == "two"
    assert ask.ok("runs/set-tag", run_id=run_id, key="mlflow.runName", value="three") == {}
    assert ask.ok("runs/update", run_id=run_id, run_name="")["run_info"]["run_name"] == "three"
    assert ask.ok("runs/set-tag", run_id=run_id, key="mlflow.runName", value="") == {}
    assert ask.ok("runs/delete-tag", run_id=run_id, key="mlflow.runName") == {}
    found = _found(ask, run_id)
    assert (found["info"]["run_name"], _texts(found, "tags")) == ("three", {"mlflow.runName": "three"})


def test_deleted_and_restored(ask: Asking) -> None:
    run_id = _run_id(ask)
    for _ in range(2):
        assert ask.ok("runs/delete", run_id=run_id) == {}
        assert _found(ask, run_id)["info"]["lifecycle_stage"] == "deleted"
    for told in (
        ask.post("runs/update", run_id=run_id, status="FINISHED"),
        ask.post("runs/log-parameter", run_id=run_id, key="k", value="v"),
        ask.post("runs/set-tag", run_id=run_id, key="k", value="v"),
        ask.post("runs/set-tag", run_id=run_id, key="mlflow.runName", value="v"),
        ask.post("runs/delete-tag", run_id=run_id, key="k"),
        ask.post("runs/log-model", run_id=run_id, model_json=json.dumps(_model(run_id, "m"))),
    ):
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
        assert told.json["message"] == f"The run {run_id} must be in the 'active' state. Current state is deleted."
    for _ in range(2):
        assert ask.ok("runs/restore", run_id=run_id) == {}
        assert _found(ask, run_id)["info"]["lifecycle_stage"] == "active"


def test_params_are_written_once(ask: Asking) -> None:
    run_id = _run_id(ask)
    for _ in range(2):
        assert ask.ok("runs/log-parameter", run_id=run_id, key="lr", value="0.1") == {}
    told = ask.post("runs/log-parameter", run_id=run_id, key="lr", value="0.2")
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    assert told.json["message"].startswith("Changing param values is not allowed.")
    ask.ok("runs/log-parameter", run_uuid=run_id, key="empty")
    ask.ok("runs/log-parameter", run_id=run_id, key="a/b.c - d:e_f", value="x")
    assert _texts(_found(ask, run_id), "params") == {"lr": "0.1", "empty": "", "a/b.c - d:e_f": "x"}


def test_long_values_lose_their_end(ask: Asking) -> None:
    tags = [{"key": "long", "value": "t" * 8001}]
    run_id = _run_id(ask, tags=tags, user_id="u" * 300)
    for n in (6001, 6002):  # the same, once cut
        ask.ok("runs/log-parameter", run_id=run_id, key="long", value="p" * n)
    ask.ok("runs/set-tag", run_id=run_id, key="longer", value="t" * 9000)
    found = _found(ask, run_id)
    assert _texts(found, "params") == {"long": "p" * 6000}
    assert _texts(found, "tags")["long"] == _texts(found, "tags")["longer"] == "t" * 8000


@pytest.mark.parametrize("key", ["", "a#b", "a/../b", "/a", "a//b", "a/", ".", "x" * 251, 5])
def test_keys_that_cannot_be(ask: Asking, key: object) -> None:
    run_id = _run_id(ask)
    for name in ("log-parameter", "set-tag"):
        told = ask.post(f"runs/{name}", run_id=run_id, key=key, value="v")
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "params" not in _found(ask, run_id)["data"]


def test_tags(ask: Asking) -> None:
    run_id = _run_id(ask, run_name="n")
    for key, value in (("a", "1"), ("a", "2"), ("b", None)):
        assert ask.ok("runs/set-tag", run_id=run_id, key=key, value=value) == {}
    assert _texts(_found(ask, run_id), "tags") == {"a": "2", "b": "", "mlflow.runName": "n"}
    assert ask.ok("runs/delete-tag", run_id=run_id, key="a") == {}
    told = ask.post("runs/delete-tag", run_id=run_id, key="a")
    assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert ask.post("runs/set-tag", run_id=run_id, key="c", value=5).status == 400


def test_nested(ask: Asking, server: ServerProcess) -> None:
    parent = _run_id(ask)
    child = _run_id(ask, tags=[{"key": "mlflow.parentRunId", "value": parent}])
    orphan = _run_id(ask, tags=[{"key": "mlflow.parentRunId", "value": _NOBODY}])
    odd = _run_id(ask, tags=[{"key": "mlflow.parentRunId", "value": "any text"}])
    with server.channel() as channel:
        request = CreateRunRequest(
            experiment_id="0", parent_run_id=parent, user="ann", source_name="t.py", git_commit="c0"
        )
        ours = RunServiceStub(channel).CreateRun(request).run.run_id
    assert _texts(_found(ask, odd), "tags")["mlflow.parentRunId"] == "any text"
    tags = _texts(_found(ask, ours), "tags")
    assert (tags["mlflow.parentRunId"], tags["mlflow.user"]) == (parent, "ann")
    assert (tags["mlflow.source.name"], tags["mlflow.source.git.commit"]) == ("t.py", "c0")
    for value, expected in ((parent, {child, ours}), (_NOBODY, {orphan}), ("any text", {odd})):
        assert _children(ask, value) == expected
    ask.ok("runs/set-tag", run_id=ours, key="mlflow.parentRunId", value=odd)
    assert (_children(ask, parent), _children(ask, odd)) == ({child}, {ours})


def _children(ask: Asking, parent: str) -> set[str]:
    answer = ask.ok("runs/search", experiment_ids=["0"], filter=f"tags.mlflow.parentRunId = '{parent}'")
    return {run["info"]["run_id"] for run in answer.get("runs", [])}


def _model(run_id: str, path: str, **more: Any) -> dict[str, Any]:
    flavors = {"python_function": {"env": "conda.yaml", "config": {"secret": 1}}}
    return {
        "run_id": run_id,
        "artifact_path": path,
        "utc_time_created": "2026-01-01 00:00:00",
        "model_uuid": "abc",
        "flavors": flavors,
        "signature": None,
        **more,
    }


def test_models_of_old_clients(ask: Asking) -> None:
    run_id = _run_id(ask)
    for path in ("first", "second"):
        assert ask.ok("runs/log-model", run_id=run_id, model_json=json.dumps(_model(run_id, path))) == {}
    history = json.loads(_texts(_found(ask, run_id), "tags")["mlflow.log-model.history"])
    assert history == [
        {
            "run_id": run_id,
            "artifact_path": path,
            "utc_time_created": "2026-01-01 00:00:00",
            "model_uuid": "abc",
            "flavors": {"python_function": {"env": "conda.yaml"}},
        }
        for path in ("first", "second")
    ]


def test_the_newest_models_of_old_clients_stay(ask: Asking) -> None:
    run_id = _run_id(ask)
    for n in range(60):
        ask.ok("runs/log-model", run_id=run_id, model_json=json.dumps(_model(run_id, f"model {n}")))
    text = _texts(_found(ask, run_id), "tags")["mlflow.log-model.history"]
    history = json.loads(text)
    assert history[-1]["artifact_path"] == "model 59"
    assert 30 < len(history) < 60
    assert len(text) <= 8000


@pytest.mark.parametrize("model", ["x", "[]", "{}", '{"run_id":"r","artifact_path":"a","flavors":{}}', '{"flavors":5}'])
def test_models_that_cannot_be(ask: Asking, model: str) -> None:
    told = ask.post("runs/log-model", run_id=_run_id(ask), model_json=model)
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
