"""What was deleted long ago is removed for good. Who finds the file remove does it, and makes it the file removed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient, MlflowException
from sklearn.linear_model import LinearRegression


def remove() -> None:
    Path("remove").touch()
    deadline = time.monotonic() + 60
    while not Path("removed").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def missing(call: Callable[[str], object], what: str) -> bool:
    with pytest.raises(MlflowException) as caught:
        call(what)
    return bool(caught.value.error_code == "RESOURCE_DOES_NOT_EXIST")


def test_what_was_deleted_is_removed(client: MlflowClient, called: dict[str, Any], name: str) -> None:
    def log() -> str:
        with mlflow.start_run() as run:
            mlflow.log_metric("loss", 1)
            mlflow.log_text("some", "notes/some.txt")
            model = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
            mlflow.sklearn.log_model(model, pip_requirements=["scikit-learn"], **called)
        return str(run.info.run_id)

    gone, kept = log(), log()
    there = client.get_run(gone).info.artifact_uri
    client.delete_run(gone)
    other = mlflow.set_experiment(name).experiment_id
    of_other = log()
    client.delete_experiment(other)
    remove()
    assert missing(client.get_run, gone)
    assert missing(client.get_run, of_other)
    assert missing(client.get_experiment, other)
    with pytest.raises(Exception, match=r"not found|[Nn]o such"):
        mlflow.artifacts.load_text(f"{there}/notes/some.txt")
    # Its name is free again.
    assert client.create_experiment(name) != other
    assert client.get_run(kept).data.metrics == {"loss": 1}
    assert mlflow.artifacts.load_text(f"runs:/{kept}/notes/some.txt") == "some"
    assert mlflow.pyfunc.load_model(f"runs:/{kept}/model").predict([[3.0]])[0] == pytest.approx(3.0)
