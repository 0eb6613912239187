"""What docs/mlflow.md says of endpoints and of differences is so."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from differential.differences import CHOSEN
from starlette.routing import BaseRoute, Route

from penstock_server.http import mlflow, mlflow_artifacts
from penstock_server.mlflow import SPEAKS
from penstock_server.mlflow.artifacts import ArtifactEndpoints, ProxyEndpoints
from penstock_server.mlflow.assessments import AssessmentEndpoints
from penstock_server.mlflow.datasets import DatasetEndpoints
from penstock_server.mlflow.door import Endpoint
from penstock_server.mlflow.experiments import ExperimentEndpoints
from penstock_server.mlflow.logged_models import LoggedModelEndpoints
from penstock_server.mlflow.metrics import MetricEndpoints
from penstock_server.mlflow.model_versions import ModelVersionEndpoints
from penstock_server.mlflow.registered_models import RegisteredModelEndpoints
from penstock_server.mlflow.runs import RunEndpoints
from penstock_server.mlflow.traces import TraceEndpoints
from penstock_server.mlflow.traces_of_2 import OldTraceEndpoints

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "mlflow.md").read_text()
FLOWING = " ".join(TEXT.split())
ROWS = re.findall(r"^\| `([A-Z]+ \S+)` \| (\w+) \|", TEXT, re.MULTILINE)
# Of the server, beside MLflow's API.
OPERATING = {"GET /health", "GET /metrics"}


def _plain(method: str, path: str) -> str:
    """An endpoint without the names of its arguments, and without the prefix that both of its paths have."""
    return f"{method} {re.sub(r'{[^}]*}', '{}', re.sub('^/(ajax-)?api/', '', path))}"


def _endpoints() -> list[Endpoint]:
    nothing: Any = None
    return list(
        chain(
            ArtifactEndpoints(nothing, nothing),
            AssessmentEndpoints(nothing),
            DatasetEndpoints(nothing),
            ExperimentEndpoints(nothing),
            LoggedModelEndpoints(nothing, nothing),
            MetricEndpoints(nothing, nothing, nothing),
            ModelVersionEndpoints(nothing),
            OldTraceEndpoints(nothing),
            ProxyEndpoints(nothing, nothing, signed=True),
            RegisteredModelEndpoints(nothing, nothing),
            RunEndpoints(nothing, nothing),
            TraceEndpoints(nothing, nothing),
        )
    )


def _of_routes(routes: list[BaseRoute]) -> set[str]:
    return {
        _plain(method, route.path)
        for route in routes
        if isinstance(route, Route) and "{rest:path}" not in route.path
        for method in (route.methods or ()) - {"HEAD"}
    }


def _served() -> set[str]:
    return {
        *(_plain(each.method, each.path) for each in _endpoints()),
        *_of_routes(mlflow.routes(lambda: None, signed=True)),
        *_of_routes(mlflow_artifacts.routes(lambda: None)),
        *OPERATING,
    }


def _documented(*states: str) -> list[str]:
    return [_plain(*name.split(" ")) for name, state in ROWS if state in states]


def test_the_table_is_what_the_server_serves() -> None:
    named = _documented("full", "partial")
    assert len(named) == len(set(named))
    assert set(named) == _served()


def test_what_is_not_served_is_not_served() -> None:
    assert not _served().intersection(_documented("no"))


def test_all_classes_of_endpoints_are_looked_at() -> None:
    made = set(re.findall(r"^class (\w*Endpoints)\b", "\n".join(_sources()), re.MULTILINE))
    assert made == {name for name in globals() if name.endswith("Endpoints")}


def _sources() -> list[str]:
    return [path.read_text() for path in (ROOT / "server/src/penstock_server/mlflow").glob("*.py")]


def test_the_version_of_the_api() -> None:
    assert f"API this is: {SPEAKS}" in FLOWING


@pytest.mark.parametrize("why", [each.why for each in CHOSEN])
def test_a_difference_is_told(why: str) -> None:
    assert f"- {why}" in FLOWING
