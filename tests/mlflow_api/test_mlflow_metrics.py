"""Metrics and batches over MLflow's REST API."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
from asking import Asking

BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
INTERVAL = "metrics/get-history-bulk-interval"


@pytest.fixture
def run(ask: Asking) -> str:
    """A run's id."""
    return str(ask.ok("runs/create", experiment_id="0", start_time=1)["run"]["info"]["run_id"])


def point(key: str = "loss", value: object = 1.0, step: object = 0, timestamp: object = 5) -> dict[str, object]:
    return {"key": key, "value": value, "timestamp": timestamp, "step": step}


def history(ask: Asking, run: str, key: str = "loss", **query: Any) -> Any:
    return ask.read("metrics/get-history", run_id=run, metric_key=key, **query)


def refused(ask: Asking, run: str, **fields: Any) -> str:
    """The message of a batch that is refused as a whole."""
    told = ask.post("runs/log-batch", run_id=run, **fields)
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE"), told.body
    return str(told.json["message"])


def data(ask: Asking, run: str) -> Any:
    return ask.read("runs/get", run_id=run)["run"]["data"]


def test_a_metric(ask: Asking, run: str) -> None:
    assert ask.ok("runs/log-metric", run_id=run, key="loss", value=0.5, timestamp=17, step=3) == {}
    assert ask.ok("runs/log-metric", run_id=run, run_uuid=run, key="loss", value="0.25", timestamp="18") == {}
    assert history(ask, run)["metrics"] == [point("loss", 0.5, 3, 17), point("loss", 0.25, 0, 18)]
    assert data(ask, run)["metrics"] == [point("loss", 0.5, 3, 17)]


@pytest.mark.parametrize("lacking", ["key", "value", "timestamp", "run_id"])
def test_a_metric_that_lacks_something(ask: Asking, run: str, lacking: str) -> None:
    fields = {"run_id": run, "key": "loss", "value": 1.0, "timestamp": 5}
    told = ask.post("runs/log-metric", **{**fields, lacking: None})
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    assert told.json["message"].startswith(f"Missing value for required parameter '{lacking}'.")


def test_a_batch_is_seen_at_once(ask: Asking, run: str) -> None:
    metrics = [point("loss", 1 / (step + 1), step) for step in range(3)] + [point("acc", 1, 2)]
    params = [{"key": "lr", "value": "0.1"}, {"key": "empty"}, {"key": "long", "value": "x" * 6001}]
    tags = [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}, {"key": "mlflow.runName", "value": "renamed"}]
    assert ask.ok("runs/log-batch", run_id=run, metrics=metrics, params=params, tags=tags) == {}
    found = ask.read("runs/get", run_id=run)["run"]
    assert {each["key"]: each["value"] for each in found["data"]["metrics"]} == {"loss": 1 / 3, "acc": 1.0}
    params = {each["key"]: each["value"] for each in found["data"]["params"]}
    assert params == {"lr": "0.1", "empty": "", "long": "x" * 6000}
    assert {"key": "a", "value": "2"} in found["data"]["tags"]
    assert found["info"]["run_name"] == "renamed"
    assert ask.ok("runs/log-batch", run_id=run) == {}


def test_a_batch_that_was_logged_before(ask: Asking, run: str) -> None:
    fields = {"metrics": [point(), point(step=1)], "params": [{"key": "lr", "value": "1"}]}
    for _ in range(2):
        ask.ok("runs/log-batch", run_id=run, **fields)
    assert history(ask, run)["metrics"] == [point(), point(step=1)]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"value": 1, "timestamp": 5}, "Missing value for required parameter 'metrics[1].key'"),
        (point(key=""), "Missing value for required parameter 'metrics[1].key'"),
        (point(value=None), "Missing value for required parameter 'metrics[1].value'"),
        (point(timestamp=None), "Missing value for required parameter 'metrics[1].timestamp'"),
        (point(value="much"), "Invalid value \"much\" for parameter 'metrics[1].value'"),
        (point(value=[1]), "Invalid value [1] for parameter 'metrics[1].value'"),
        (point(timestamp=-1), "Invalid value -1 for parameter 'metrics[1].timestamp'"),
        (point(timestamp=1.5), "Invalid value 1.5 for parameter 'metrics[1].timestamp'"),
        (point(timestamp=253_402_300_800_000), "parameter 'metrics[1].timestamp'"),
        (point(step=2**63), "parameter 'metrics[1].step'"),
        (point(key=5), "Invalid value 5 for parameter 'metrics[1].key'"),  # type: ignore[arg-type]
        (point(key="a!b"), "'a!b'"),
        (point(key="../a"), "'../a'"),
        (point(key="k" * 251), "251"),
        (1, "parameter 'metrics'"),
    ],
)
def test_a_point_that_cannot_be(ask: Asking, run: str, metric: Any, message: str) -> None:
    assert message in refused(ask, run, metrics=[point(key="good"), metric], params=[{"key": "p", "value": "1"}])
    assert history(ask, run, "good") == {}
    assert "params" not in data(ask, run)


def test_as_other_clients_write_it(ask: Asking, run: str) -> None:
    metrics = [
        {"key": "a", "value": 1, "timestamp": 5},
        {"key": "a", "value": True, "timestamp": "6", "step": None},
        {"key": "a", "value": "-Infinity", "timestamp": 7.0, "step": "-3"},
    ]
    ask.ok("runs/log-batch", run_id=run, metrics=metrics)
    found = [(each["value"], each["timestamp"], each["step"]) for each in history(ask, run, "a")["metrics"]]
    assert found == [(1.0, 5, 0), (1.0, 6, 0), (-sys.float_info.max, 7, -3)]


def test_sizes(ask: Asking, run: str) -> None:
    points = [point(step=step) for step in range(1001)]
    texts = [{"key": f"k{number}", "value": ""} for number in range(101)]
    assert refused(ask, run, metrics=points).startswith("A batch logging request can contain at most 1000 metrics. Got")
    assert "at most 100 params. Got 101 params." in refused(ask, run, params=texts)
    assert "at most 100 tags. Got 101 tags." in refused(ask, run, tags=texts)
    assert "1000 metrics, params, and tags" in refused(ask, run, metrics=points[:1000], params=texts[:1])
    assert "Duplicate parameter keys have been submitted: ['p']" in refused(
        ask, run, params=[{"key": "p", "value": "1"}] * 2
    )
    ask.ok("runs/log-batch", run_id=run, metrics=points[:900], params=texts[:100])
    assert len(history(ask, run)["metrics"]) == 900


def test_all_or_nothing(ask: Asking, run: str) -> None:
    ask.ok("runs/log-parameter", run_id=run, key="lr", value="1")
    tags = [{"key": "t", "value": "1"}, {"key": "mlflow.runName", "value": "renamed"}]
    message = refused(ask, run, params=[{"key": "lr", "value": "2"}], metrics=[point()], tags=tags)
    assert message.startswith("Changing param values is not allowed.")
    assert history(ask, run) == {}
    found = ask.read("runs/get", run_id=run)["run"]
    assert {"key": "t", "value": "1"} not in found["data"]["tags"]
    assert found["info"]["run_name"] != "renamed"


@pytest.mark.parametrize("run_id", ["f" * 32, "nonsense"])
def test_no_such_run(ask: Asking, run_id: str) -> None:
    for path, fields in (("runs/log-metric", point()), ("runs/log-batch", {"metrics": [point()]})):
        told = ask.post(path, run_id=run_id, **fields)
        assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert told.json["message"] == f"Run with id={run_id} not found"
    assert history(ask, run_id) == {}
    assert ask.read(INTERVAL, run_ids=[run_id], metric_key="loss") == {}
    assert ask.read(BULK, run_id=[run_id], metric_key="loss") == {"metrics": []}


def test_a_deleted_run_takes_nothing(ask: Asking, run: str) -> None:
    ask.ok("runs/log-metric", run_id=run, **point())
    ask.ok("runs/delete", run_id=run)
    assert "deleted" in refused(ask, run, metrics=[point(step=2)])
    ask.ok("runs/restore", run_id=run)
    assert len(history(ask, run)["metrics"]) == 1


def test_history_by_time_step_and_value(ask: Asking, run: str) -> None:
    given = [(9, 1, 0.0), (1, 2, 5.0), (1, 2, "NaN"), (1, 2, -5.0), (1, 1, "Infinity"), (1, 2, 5), (1, 2, 1)]
    ask.ok("runs/log-batch", run_id=run, metrics=[point("m", value, step, time) for time, step, value in given])
    wanted: list[object] = [sys.float_info.max, -5.0, "NaN", 1.0, 5.0, 0.0]
    assert [each["value"] for each in history(ask, run, "m")["metrics"]] == wanted
    values, token = [], ""
    while True:
        page = history(ask, run, "m", max_results=2, page_token=token)
        values += [each["value"] for each in page["metrics"]]
        token = page.get("next_page_token", "")
        if not token:
            break
    assert values == wanted
    assert "next_page_token" not in history(ask, run, "m", max_results=6)


def test_odd_names(ask: Asking, run: str) -> None:
    name = "train/loss 100.5-x:y_ü"
    ask.ok("runs/log-batch", run_id=run, metrics=[point(name)])
    assert history(ask, run, name)["metrics"] == [point(name)]


@pytest.mark.parametrize(
    "query", [{"max_results": 0}, {"max_results": -1}, {"max_results": "x"}, {"page_token": "x"}, {"metric_key": ""}]
)
def test_a_history_that_cannot_be_asked_for(ask: Asking, run: str, query: dict[str, Any]) -> None:
    ask.ok("runs/log-metric", run_id=run, **point())
    told = ask.get("metrics/get-history", **{"run_id": run, "metric_key": "loss", **query})
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


def test_the_last_value_of_equals_is_the_greatest(ask: Asking, run: str) -> None:
    for value in (3.0, 7.0, 5.0):
        ask.ok("runs/log-metric", run_id=run, **point(value=value))
    ask.ok("runs/log-batch", run_id=run, metrics=[point("a", 2.0), point("a", "NaN"), point("b", -2.0)])
    ask.ok("runs/log-metric", run_id=run, **point("b", "NaN"))
    found = {each["key"]: each["value"] for each in data(ask, run)["metrics"]}
    assert found == {"loss": 7.0, "a": 2.0, "b": "NaN"}
    assert math.isfinite(found["a"])


def test_histories_of_many_runs(ask: Asking, run: str) -> None:
    other = str(ask.ok("runs/create", experiment_id="0", start_time=1)["run"]["info"]["run_id"])
    for each in (other, run):
        ask.ok("runs/log-batch", run_id=each, metrics=[point("m", step, step, 9 - step) for step in range(10)])
    found = ask.read(BULK, run_id=[run, other], metric_key="m", max_results=12)["metrics"]
    assert [each["run_id"] for each in found] == [min(run, other)] * 10 + [max(run, other)] * 2
    assert [each["value"] for each in found[:3]] == [9.0, 8.0, 7.0]
    for prefix in ("", "/ajax-api/2.0/mlflow/"):
        found = ask.read(prefix + INTERVAL, run_ids=[run, other], metric_key="m", max_results=4)["metrics"]
        assert [each["run_id"] for each in found] == [run] * 4 + [other] * 4
        assert [each["value"] for each in found[:4]] == [0.0, 3.0, 6.0, 9.0]
    ranged = ask.read(INTERVAL, run_ids=[run], metric_key="m", start_step=2, end_step=5)["metrics"]
    assert [each["step"] for each in ranged] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "query",
    [
        {"run_ids": []},
        {"metric_key": ""},
        {"max_results": 0},
        {"max_results": 2501},
        {"start_step": 1},
        {"start_step": 3, "end_step": 2},
        {"run_ids": ["a" * 32] * 101},
    ],
)
def test_intervals_that_cannot_be_asked_for(ask: Asking, run: str, query: dict[str, Any]) -> None:
    told = ask.get(INTERVAL, **{"run_ids": [run], "metric_key": "loss", **query})
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("query", [{"run_id": []}, {"run_id": ["a" * 32] * 101}, {"metric_key": None}])
def test_bulks_that_cannot_be_asked_for(ask: Asking, run: str, query: dict[str, Any]) -> None:
    asked = {"run_id": [run], "metric_key": "loss", **query}
    told = ask.get(BULK, **{name: value for name, value in asked.items() if value is not None})
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
