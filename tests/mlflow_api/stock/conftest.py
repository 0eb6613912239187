"""What every test here may ask for. A test is a user of MLflow; where the server is, its environment says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Experiment

THREE = int(mlflow.__version__.partition(".")[0]) >= 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What only MLflow 3 has is not asked of MLflow 2."""
    for item in items:
        if not THREE and item.get_closest_marker("mlflow3"):
            item.add_marker(pytest.mark.skip(reason="MLflow 3 has it"))


@pytest.fixture(autouse=True)
def experiment(request: pytest.FixtureRequest) -> Iterator[Experiment]:
    """The active experiment, of this test's own."""
    yield mlflow.set_experiment(f"{request.node.name} {uuid.uuid4().hex[:8]}")
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def client() -> MlflowClient:
    """The same as a client."""
    return MlflowClient()


@pytest.fixture
def name() -> str:
    """A name that nobody has."""
    return f"name-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def called() -> dict[str, Any]:
    """What log_model is told of the model's name; MLflow 2 takes it for a path in the run."""
    return {"name": "model"} if THREE else {"artifact_path": "model"}
