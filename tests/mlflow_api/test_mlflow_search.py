"""Searches of runs over MLflow's REST API."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from asking import Asking

from servers import ServerProcess

# The runs of one experiment by their names: when each began, and what it logged. `n` is NaN, `i` infinity.
_RUNS: dict[str, dict[str, Any]] = {
    "a": {"start": 1000, "metrics": {"loss": 0.5}, "params": {"lr": "0.1"}, "tags": {"team": "vision"}},
    "b": {"start": 2000, "metrics": {"loss": -1.0, "val/loss": 2.0}, "params": {"lr": "0.01"}, "tags": {"team": ""}},
    "c": {"start": 3000, "metrics": {"loss": "NaN"}, "tags": {"mlflow.user": "ann", "key with space": "x"}},
    "d": {"start": 4000, "metrics": {"loss": "Infinity"}, "user": "bob", "status": "FINISHED"},
    "e": {"start": 5000, "params": {"lr": "it's"}},
}


class Runs:
    """The runs, and searches among them."""

    def __init__(self, ask: Asking) -> None:
        self.ask = ask
        self.experiment = ask.ok("experiments/create", name="searched")["experiment_id"]
        self.ids: dict[str, str] = {}
        for name, run in _RUNS.items():
            tags = _pairs(run.get("tags", {}))
            fields = {"start_time": run["start"], "run_name": name, "tags": tags, "user_id": run.get("user", "")}
            run_id = ask.ok("runs/create", experiment_id=self.experiment, **fields)["run"]["info"]["run_id"]
            for key, value in run.get("metrics", {}).items():
                ask.ok("runs/log-metric", run_id=run_id, key=key, value=value, timestamp=7, step=3)
            for key, value in run.get("params", {}).items():
                ask.ok("runs/log-parameter", run_id=run_id, key=key, value=value)
            if "status" in run:
                ask.ok("runs/update", run_id=run_id, status=run["status"], end_time=9000)
            self.ids[name] = run_id

    def answer(self, **fields: Any) -> Any:
        """What a search answers."""
        return self.ask.ok("runs/search", **{"experiment_ids": [self.experiment], **fields})

    def names(self, condition: str = "", *order: str, **fields: Any) -> str:
        """The names of those that a search selects, in their order."""
        found = self.answer(filter=condition, order_by=list(order), **fields).get("runs", [])
        return "".join(run["info"]["run_name"] for run in found)


def _pairs(texts: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in texts.items()]


@pytest.fixture(scope="module")
def searched(server: ServerProcess) -> Runs:
    with closing(Asking(server.http_address)) as ask:
        return Runs(ask)


@pytest.fixture
def runs(searched: Runs, ask: Asking) -> Runs:
    """The runs, and somebody who asks for them in this very test."""
    searched.ask = ask
    return searched


def test_a_whole_run(runs: Runs) -> None:
    [found] = runs.answer(filter="run_name = 'b'")["runs"]
    assert found == runs.ask.read("runs/get", run_id=runs.ids["b"])["run"]
    assert found["data"]["metrics"] == [
        {"key": "loss", "value": -1.0, "timestamp": 7, "step": 3},
        {"key": "val/loss", "value": 2.0, "timestamp": 7, "step": 3},
    ]
    assert found["data"]["params"] == [{"key": "lr", "value": "0.01"}]
    assert (found["inputs"], found["outputs"]) == ({}, {})


def test_values_that_are_no_numbers_of_json(runs: Runs) -> None:
    [nan] = runs.answer(filter="run_name = 'c'")["runs"]
    assert nan["data"]["metrics"] == [{"key": "loss", "value": "NaN", "timestamp": 7, "step": 3}]
    [infinite] = runs.answer(filter="run_name = 'd'")["runs"]
    assert infinite["data"]["metrics"][0]["value"] == 1.7976931348623157e308


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("", "edcba"),
        ("metrics.loss > 0", "da"),
        ("metric.loss <= 0.5", "ba"),
        ("metrics.loss != 0.5", "dcb"),  # NaN is not equal
        ("metrics.loss = -1", "b"),
        ("metrics.`val/loss` >= 2.0", "b"),
        ('metrics."val/loss" >= 2.0', "b"),
        ("params.lr = '0.1'", "a"),
        ("parameters.lr != '0.1'", "eb"),
        ("param.lr LIKE '0.%'", "ba"),
        ("params.lr IS NULL", "dc"),
        ("params.lr IS NOT NULL", "eba"),
        ('params.lr = "it\'s"', "e"),
        ("tags.team = ''", "b"),
        ("tag.team ILIKE 'VIS%'", "a"),
        ("tags.`key with space` = 'x'", "c"),
        ("tags.mlflow.runName = 'a'", "a"),
        ("tags.`mlflow.runName` LIKE '_'", "edcba"),
        ("tags.mlflow.runName IS NULL", ""),
        ("tags.mlflow.user = 'ann'", "c"),
        ("tags.mlflow.user = 'bob'", "d"),
        ("tags.mlflow.user != 'bob'", "c"),
        ("tags.mlflow.user IS NULL", "eba"),
        ("tags.mlflow.user IS NOT NULL", "dc"),
        ("attributes.run_name = 'a'", "a"),
        ("attr.`run name` = 'a'", "a"),
        ("\"Run name\" != 'a'", "edcb"),
        ("run.status = 'FINISHED'", "d"),
        ("status LIKE 'RUN%'", "ecba"),
        ("user_id = 'bob'", "d"),
        ("start_time > 1000 and start_time < 4000", "cb"),
        ("Created >= 4000", "ed"),
        ("end_time = 9000", "d"),
        ("metrics.loss > 0 AND params.lr = '0.1'", "a"),
        ("run_id = 'nobody'", ""),
        # what MLflow refuses
        ("params.lr = '0.1' OR tags.team = ''", "ba"),
        ("NOT (params.lr = '0.1')", "edcb"),
        ("tags.team IN ('', 'vision')", "ba"),
    ],
)
def test_filters(runs: Runs, condition: str, expected: str) -> None:
    assert runs.names(condition) == expected


def test_ids(runs: Runs) -> None:
    a, b = runs.ids["a"], runs.ids["b"]
    assert runs.names(f"run_id IN ('{a}', '{b}')") == "ba"
    assert runs.names(f"attributes.run_id NOT IN ('{a}','{b}')", "run_name") == "cde"
    assert runs.names(f"attributes.run_id = '{a}'") == "a"


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("metrics.loss", "badce"),
        ("metrics.loss DESC", "dabce"),
        ("params.lr ASC", "baedc"),
        ("params.lr DESC", "eabdc"),
        ("tags.team", "baedc"),
        ("attributes.start_time ASC", "abcde"),
        ("Created DESC", "edcba"),
        ("run_name desc", "edcba"),
        ("tags.mlflow.runName", "abcde"),
        ("attributes.end_time", "decba"),
        ("status DESC", "ecbad"),
        ("metrics.`val/loss`", "bedca"),
    ],
)
def test_orders(runs: Runs, order: str, expected: str) -> None:
    assert runs.names("", order) == expected


def test_several_keys(runs: Runs) -> None:
    assert runs.names("", "status", "start_time DESC", "run_name DESC") == "decba"
    assert runs.names("", "tags.mlflow.runName DESC", "attributes.run_name") == "edcba"


def test_runs_that_began_together(ask: Asking) -> None:
    experiment = ask.ok("experiments/create", name="together")["experiment_id"]
    for _ in range(4):
        ask.ok("runs/create", experiment_id=experiment, start_time=1)
    found = [run["info"]["run_id"] for run in ask.ok("runs/search", experiment_ids=[experiment])["runs"]]
    assert found == sorted(found)


def test_pages(runs: Runs) -> None:
    for order in ((), ("metrics.loss DESC",), ("params.lr",)):
        whole, paged, token = runs.names("", *order), "", ""
        while True:
            fields = {"page_token": token} if token else {}
            answer = runs.answer(order_by=list(order), max_results=2, **fields)
            paged += "".join(run["info"]["run_name"] for run in answer["runs"])
            token = answer.get("next_page_token", "")
            if not token:
                break
        assert paged == whole


def test_a_page_is_sent_with_its_search(runs: Runs) -> None:
    token = runs.answer(max_results=2)["next_page_token"]
    told = runs.ask.post("runs/search", experiment_ids=[runs.experiment], filter="start_time > 0", page_token=token)
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


def test_more_runs_than_are_written_at_once(ask: Asking) -> None:
    experiment = ask.ok("experiments/create", name="many")["experiment_id"]
    ids = [
        ask.ok("runs/create", experiment_id=experiment, start_time=n + 1)["run"]["info"]["run_id"] for n in range(1002)
    ]
    found = ask.ok("runs/search", experiment_ids=[experiment], max_results=1001)
    assert [run["info"]["run_id"] for run in found["runs"]] == ids[:0:-1]
    assert len(ask.ok("runs/search", experiment_ids=[experiment])["runs"]) == 1000


def test_stages(ask: Asking) -> None:
    experiment = ask.ok("experiments/create", name="stages")["experiment_id"]
    kept, gone = [
        ask.ok("runs/create", experiment_id=experiment, run_name=name)["run"]["info"]["run_id"]
        for name in ("kept", "gone")
    ]
    ask.ok("runs/delete", run_id=gone)

    def found(**fields: Any) -> set[str]:
        answer = ask.ok("runs/search", experiment_ids=[experiment], **fields)
        return {run["info"]["run_id"] for run in answer.get("runs", [])}

    assert found() == found(run_view_type="ACTIVE_ONLY") == found(run_view_type=1) == {kept}
    assert found(run_view_type="DELETED_ONLY") == {gone}
    assert found(run_view_type="ALL") == {kept, gone}


def test_no_experiments(runs: Runs) -> None:
    assert runs.answer(experiment_ids=[]) == runs.ask.ok("runs/search") == {}
    assert runs.answer(experiment_ids=["987654", "-1", "9" * 30]) == {}
    assert runs.names("", "run_name", experiment_ids=[runs.experiment, "987654"]) == "abcde"


@pytest.mark.parametrize(
    "fields",
    [
        {"experiment_ids": ["abc"]},
        {"max_results": 0},
        {"max_results": 50_001},
        {"max_results": "many"},
        {"run_view_type": "SOME"},
        {"page_token": "zzz"},
        {"filter": "metrics.loss > 'high'"},
        {"filter": "metrics.loss LIKE 'a'"},
        {"filter": "params.lr = 0.1"},
        {"filter": "params.lr > '0.1'"},
        {"filter": "colour.lr = '0.1'"},
        {"filter": "colour = 'red'"},
        {"filter": "params.lr"},
        {"filter": "start_time > 'noon'"},
        {"filter": "run_id IN ()"},
        {"filter": "params.lr = '1'; params.lr = '2'"},
        {"filter": 5},
        {"order_by": ["colour"]},
        {"order_by": ["metrics.loss SIDEWAYS"]},
        {"order_by": ["metrics.loss", "metrics.loss DESC"]},
        {"order_by": [""]},
        {"order_by": [5]},
    ],
)
def test_searches_that_cannot_be(runs: Runs, fields: dict[str, Any]) -> None:
    told = runs.ask.post("runs/search", **{"experiment_ids": [runs.experiment], **fields})
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
