"""Training while the server is killed and started again. The file server.pid says whom to kill."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
from mlflow import MlflowClient


def test_training_goes_on(client: MlflowClient) -> None:
    steps, killed_at = 120, 60
    with mlflow.start_run() as run, ThreadPoolExecutor(2) as pool:
        run_id = run.info.run_id

        def beside(number: int) -> None:
            for step in range(steps):
                client.log_metric(run_id, f"beside/{number}", step, step=step)

        others = [pool.submit(beside, number) for number in range(2)]
        for step in range(steps):
            if step == killed_at:
                os.kill(int(Path("server.pid").read_text()), signal.SIGKILL)
            mlflow.log_metrics({"loss": step / 2, "accuracy": step / 4}, step=step)
        for other in others:
            other.result()
        mlflow.log_text("done", "notes/done.txt")
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    for key, part in {"loss": 2, "accuracy": 4, "beside/0": 1, "beside/1": 1}.items():
        history = client.get_metric_history(run_id, key)
        assert [(point.step, point.value) for point in history] == [(step, step / part) for step in range(steps)], key
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/notes/done.txt") == "done"
