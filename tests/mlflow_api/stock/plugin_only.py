"""What MLflow does by Penstock's plugin only: metrics go in the background, and arrive, whatever the server does.

The environment says, beside the URI, which process the server is: here it is made to stand still.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
import pytest
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Experiment, Metric, Param

URI = os.environ["MLFLOW_TRACKING_URI"]
SERVERS = [int(number) for number in os.environ["PENSTOCK_SERVER_PIDS"].split()]

# What a script leaves to the end of its process.
UNENDED = """
import mlflow
mlflow.set_experiment({name!r})
run = mlflow.start_run()
for step in range(500):
    mlflow.log_metric("loss", step / 2, step=step)
print(run.info.run_id)
"""


@contextmanager
def standing_still() -> Iterator[None]:
    """The server answers nothing."""
    for pid in SERVERS:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in SERVERS:
            os.kill(pid, signal.SIGCONT)


def steps(client: MlflowClient, run_id: str, key: str = "loss") -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, key)]


def test_nothing_waits_for_a_server_that_stands_still(client: MlflowClient) -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.0, step=0)
        with standing_still():
            for step in range(1, 1000):
                mlflow.log_metric("loss", step / 2, step=step)
            mlflow.log_metrics({"a": 1, "b": 2}, step=7)
            client.log_batch(run.info.run_id, [Metric("batch", value, 1000 + value, 0) for value in range(1000)])
    found = client.get_run(run.info.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"loss": 499.5, "a": 1, "b": 2, "batch": 999}
    assert steps(client, run.info.run_id) == list(range(1000))
    assert len(steps(client, run.info.run_id, "batch")) == 1000


def test_what_was_logged_is_read(client: MlflowClient, experiment: Experiment) -> None:
    run_id = client.create_run(experiment.experiment_id).info.run_id
    for step in range(20):
        client.log_metric(run_id, "loss", step, step=step)
        assert client.get_run(run_id).data.metrics == {"loss": step}
        assert steps(client, run_id) == list(range(step + 1))
    client.log_metric(run_id, "late", 5)
    assert len(client.search_runs([experiment.experiment_id], "metrics.late = 5")) == 1


def test_another_store_waits_for_it_too(client: MlflowClient, experiment: Experiment) -> None:
    run_id = client.create_run(experiment.experiment_id).info.run_id
    other = MlflowClient(f"{URI}/")
    for step in range(20):
        client.log_metric(run_id, "loss", step, step=step)
        assert other.get_run(run_id).data.metrics == {"loss": step}


def test_what_is_late_arrives(client: MlflowClient, experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.mlflow import writers

    run_id = client.create_run(experiment.experiment_id).info.run_id
    client.log_metric(run_id, "loss", 0)
    client.get_run(run_id)
    monkeypatch.setattr(writers, "PATIENCE", 0.5)
    with standing_still():
        client.log_metric(run_id, "loss", 1, step=1)
        for _ in range(2):
            with pytest.raises(MlflowException, match="have not arrived") as caught:
                client.get_run(run_id)
            assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    monkeypatch.undo()
    assert steps(client, run_id) == [0, 1]


def test_what_a_deleted_run_did_not_take_is_told_once(client: MlflowClient, experiment: Experiment) -> None:
    run_id = client.create_run(experiment.experiment_id).info.run_id
    client.log_metric(run_id, "loss", 0)
    client.get_run(run_id)
    # Somebody else's process, which knows nothing of what is logged here.
    script = f"import penstock; penstock.Client({URI!r}).delete_run({run_id!r})"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    client.log_metric(run_id, "loss", 2, step=2)
    with pytest.raises(MlflowException, match="metrics of run"):
        client.get_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"


def test_the_status_is_left_alone(client: MlflowClient, experiment: Experiment) -> None:
    run_id = client.create_run(experiment.experiment_id, run_name="mine", tags={"t": "1"}).info.run_id
    client.log_metric(run_id, "loss", 1)
    client.set_terminated(run_id, "KILLED", end_time=1_700_000_000_000)
    client.log_metric(run_id, "loss", 2, step=1)
    found = client.get_run(run_id)
    assert (found.info.status, found.info.end_time, found.info.run_name) == ("KILLED", 1_700_000_000_000, "mine")
    assert (found.data.metrics, found.data.tags["t"]) == ({"loss": 2}, "1")


@pytest.mark.parametrize("odd", [{"timestamp": 1.5}, {"step": 1.5}])
def test_what_is_no_whole_number(client: MlflowClient, experiment: Experiment, odd: dict[str, float]) -> None:
    run_id = client.create_run(experiment.experiment_id).info.run_id
    with pytest.raises(TypeError):  # as with MLflow's own store
        client.log_metric(run_id, "loss", 1, **odd)
    client.log_metric(run_id, "loss", 2)
    assert client.get_run(run_id).data.metrics == {"loss": 2}


def test_runs_that_cannot_be_logged_to(client: MlflowClient, experiment: Experiment) -> None:
    def code(run_id: str) -> str:
        with pytest.raises(MlflowException) as caught:
            client.log_metric(run_id, "loss", 1)
        return str(caught.value.error_code)

    assert code("0" * 32) == "RESOURCE_DOES_NOT_EXIST"
    run_id = client.create_run(experiment.experiment_id).info.run_id
    client.log_metric(run_id, "loss", 1)
    client.delete_run(run_id)
    assert code(run_id) == "INVALID_PARAMETER_VALUE"
    client.restore_run(run_id)
    client.log_metric(run_id, "loss", 2, step=1)
    assert steps(client, run_id) == [0, 1]


def test_more_runs_than_there_are_streams(client: MlflowClient, experiment: Experiment) -> None:
    ids = [client.create_run(experiment.experiment_id).info.run_id for _ in range(70)]
    for run_id in ids:
        client.log_metric(run_id, "loss", 1)
    assert [client.get_run(run_id).data.metrics for run_id in ids] == [{"loss": 1}] * 70


def test_a_batch_that_is_refused_is_not_logged_in_part(client: MlflowClient, experiment: Experiment) -> None:
    run_id = client.create_run(experiment.experiment_id).info.run_id
    client.log_param(run_id, "lr", "1")
    with pytest.raises(MlflowException):
        client.log_batch(run_id, [Metric("loss", 1, 0, 0)], [Param("lr", "2")])
    assert client.get_run(run_id).data.metrics == {}


@pytest.mark.parametrize("error", ["", "raise ValueError('asked for it')"])
def test_a_script_that_ends_no_run(client: MlflowClient, experiment: Experiment, error: str) -> None:
    script = UNENDED.format(name=experiment.name) + error
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert ended.returncode == bool(error)
    run_id = ended.stdout.split()[0]
    assert steps(client, run_id) == list(range(500))
    assert client.get_run(run_id).info.status in ("FINISHED", "FAILED")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_logs(client: MlflowClient) -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0, step=0)
        child = os.fork()
        if not child:
            try:
                client.log_metric(run.info.run_id, "loss", 1, step=1)  # the active run is the parent's alone
                client.get_run(run.info.run_id)  # which waits for it
            finally:
                os._exit(0)
        end = time.monotonic() + 60
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            assert time.monotonic() < end
            time.sleep(0.05)
        mlflow.log_metric("loss", 2, step=2)
    assert steps(client, run.info.run_id) == [0, 1, 2]


def test_nobody_is_there(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.mlflow import door

    monkeypatch.setattr(door, "PATIENCE", 0.5)
    with pytest.raises(MlflowException, match=r"127\.0\.0\.1:9") as caught:
        MlflowClient("penstock://127.0.0.1:9").get_run("0" * 32)
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    with pytest.raises(MlflowException) as caught:
        MlflowClient("penstock://nobody:port").get_run("0" * 32)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
