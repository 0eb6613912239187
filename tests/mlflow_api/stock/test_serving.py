"""`mlflow models serve` of a registered model, by its alias."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

FRAME = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]})


@pytest.fixture
def served(client: MlflowClient, called: dict[str, Any], name: str, tmp_path: Path) -> Iterator[str]:
    """Where a model that doubles is served."""
    model = LinearRegression().fit(FRAME, FRAME["x"] * 2)
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model,
            signature=infer_signature(FRAME, model.predict(FRAME)),
            pip_requirements=["scikit-learn"],
            registered_model_name=name,
            **called,
        )
    client.set_registered_model_alias(name, "champion", "1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    log = tmp_path / "serve.log"
    command = ["mlflow", "models", "serve", "-m", f"models:/{name}@champion", "--env-manager", "local"]
    with log.open("wb") as output:
        process = psutil.Popen([*command, "-h", "127.0.0.1", "-p", port], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 200
        while not answers(f"http://127.0.0.1:{port}/ping"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        family = [*process.children(recursive=True), process] if process.is_running() else []
        for one in family:
            one.kill()
        process.wait()  # not for its children: who takes them over may never say that they have ended


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_model_is_served(served: str) -> None:
    body = json.dumps({"dataframe_split": {"columns": ["x"], "data": [[10.0], [20.0]]}}).encode()
    request = urllib.request.Request(f"{served}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["predictions"] == pytest.approx([20.0, 40.0])
