"""Experiments and runs: params, metrics, tags, datasets, nested runs, searching, deleting."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Experiment, Metric, Param, RunTag, ViewType


def test_experiments(client: MlflowClient, name: str) -> None:
    made = client.create_experiment(name, tags={"team": "vision"})
    found = client.get_experiment_by_name(name)
    assert found is not None
    assert (found.experiment_id, found.tags["team"], found.lifecycle_stage) == (made, "vision", "active")
    assert client.get_experiment(made).name == name
    with pytest.raises(MlflowException) as caught:
        client.create_experiment(name)
    assert caught.value.error_code == "RESOURCE_ALREADY_EXISTS"
    assert client.get_experiment_by_name(name + " of another") is None
    client.set_experiment_tag(made, "team", "speech")
    client.rename_experiment(made, name + " renamed")
    renamed = client.get_experiment(made)
    assert (renamed.name, renamed.tags["team"]) == (name + " renamed", "speech")
    assert client.get_experiment("0").name == "Default"


def test_experiments_are_searched(client: MlflowClient, name: str) -> None:
    ids = [client.create_experiment(f"{name}/{number}", tags={"number": str(number % 2)}) for number in range(7)]
    mine = f"name LIKE '{name}/%'"
    first = client.search_experiments(filter_string=mine, order_by=["name DESC"], max_results=4)
    assert [found.experiment_id for found in first] == ids[:2:-1]
    rest = client.search_experiments(filter_string=mine, order_by=["name DESC"], max_results=4, page_token=first.token)
    assert ([found.experiment_id for found in rest], rest.token) == (ids[2::-1], None)
    odd = mlflow.search_experiments(filter_string=f"{mine} AND tags.number = '1'", order_by=["name"])
    assert [found.experiment_id for found in odd] == ids[1::2]
    # The newest first, when nothing else is asked for.
    assert [found.experiment_id for found in client.search_experiments(filter_string=mine)] == ids[::-1]
    client.delete_experiment(ids[0])
    deleted = client.search_experiments(ViewType.DELETED_ONLY, filter_string=mine)
    assert [found.experiment_id for found in deleted] == ids[:1]


def test_an_experiment_is_deleted_with_its_runs(client: MlflowClient, experiment: Experiment) -> None:
    with mlflow.start_run() as run:
        pass
    client.delete_experiment(experiment.experiment_id)
    assert client.get_experiment(experiment.experiment_id).lifecycle_stage == "deleted"
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    with pytest.raises(MlflowException) as caught:
        mlflow.set_experiment(experiment.name)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(MlflowException) as caught:
        client.create_run(experiment.experiment_id)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    client.restore_experiment(experiment.experiment_id)
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"


def test_a_run(client: MlflowClient, experiment: Experiment) -> None:
    before = int(time.time() * 1000)
    with mlflow.start_run(run_name="first", tags={"stage": "try"}, description="what it is for") as run:
        run_id = run.info.run_id
        assert client.get_run(run_id).info.status == "RUNNING"
        mlflow.log_param("lr", 0.1)
        mlflow.log_params({"layers": [64, 64], "nothing": None, "empty": ""})
        mlflow.log_metric("loss", 3, step=1)
        for step in range(2, 5):
            mlflow.log_metrics({"loss": 3 / step, "accuracy": step / 10}, step=step)
        mlflow.log_metric("loss", 9.0, step=0)
        mlflow.set_tag("stage", "done")
        mlflow.set_tags({"a": 1, "b": True})
    found = mlflow.get_run(run_id)
    assert found.data.params == {"lr": "0.1", "layers": "[64, 64]", "nothing": "None", "empty": ""}
    assert found.data.metrics == {"loss": 0.75, "accuracy": 0.4}
    tags = found.data.tags
    assert (tags["stage"], tags["a"], tags["b"]) == ("done", "1", "True")
    assert tags["mlflow.note.content"] == "what it is for"
    assert tags["mlflow.runName"] == found.info.run_name == "first"
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags["mlflow.user"] == found.info.user_id
    assert (found.info.status, found.info.experiment_id) == ("FINISHED", experiment.experiment_id)
    assert before <= found.info.start_time <= found.info.end_time
    history = client.get_metric_history(run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(0, 9), (1, 3), (2, 1.5), (3, 1), (4, 0.75)]
    assert all(before <= point.timestamp <= time.time() * 1000 for point in history)


def test_a_run_that_fails_and_goes_on(client: MlflowClient) -> None:
    with pytest.raises(ZeroDivisionError), mlflow.start_run() as run:
        _ = 1 / 0
    run_id = run.info.run_id
    assert mlflow.get_run(run_id).info.status == "FAILED"
    assert run.info.run_name
    with mlflow.start_run(run_id=run_id):
        assert mlflow.get_run(run_id).info.status == "RUNNING"
        mlflow.log_metric("loss", 1)
    client.update_run(run_id, name="renamed")
    client.set_terminated(run_id, status="KILLED", end_time=1_900_000_000_000)
    found = mlflow.get_run(run_id)
    assert (found.info.status, found.info.run_name, found.info.end_time) == ("KILLED", "renamed", 1_900_000_000_000)
    client.set_tag(run_id, "mlflow.runName", "renamed by its tag")
    assert mlflow.get_run(run_id).info.run_name == "renamed by its tag"


def test_nested_runs(client: MlflowClient, experiment: Experiment) -> None:
    with mlflow.start_run(run_name="parent") as parent:
        for number in range(3):
            with mlflow.start_run(run_name=f"child {number}", nested=True) as child:
                mlflow.log_metric("score", number)
    found = mlflow.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'", order_by=["metrics.score DESC"]
    )
    assert list(found["tags.mlflow.runName"]) == ["child 2", "child 1", "child 0"]
    up = client.get_parent_run(child.info.run_id)
    assert up is not None
    assert up.info.run_id == parent.info.run_id
    assert client.get_parent_run(parent.info.run_id) is None


def test_what_numbers_may_be(client: MlflowClient) -> None:
    with mlflow.start_run() as run:
        for step, value in enumerate([math.nan, math.inf, -math.inf, 1e-320, -0.0, 10**15 + 1, np.float32(0.1)]):
            mlflow.log_metric("odd", value, step=step)
        mlflow.log_metric("negative step", 1, step=-5)
        mlflow.log_metric("last is none", math.nan)
    points = sorted(client.get_metric_history(run.info.run_id, "odd"), key=lambda point: point.step)
    values = [point.value for point in points]
    assert math.isnan(values[0])
    assert values[1:] == [
        1.7976931348623157e308,
        -1.7976931348623157e308,
        1e-320,
        0,
        10**15 + 1,
        float(np.float32(0.1)),
    ]
    found = mlflow.get_run(run.info.run_id)
    assert math.isnan(found.data.metrics["last is none"])
    assert client.get_metric_history(run.info.run_id, "negative step")[0].step == -5
    assert client.get_metric_history(run.info.run_id, "not there") == []


def test_batches_and_long_histories(client: MlflowClient, experiment: Experiment) -> None:
    run = client.create_run(experiment.experiment_id, start_time=1_700_000_000_000, run_name="by the client")
    run_id = run.info.run_id
    client.log_batch(
        run_id,
        params=[Param(f"p/{number}", str(number)) for number in range(100)],
        tags=[RunTag(f"t.{number}", "x" * 5000) for number in range(100)],
        metrics=[Metric(f"m {number}", number, 1_700_000_000_000, 0) for number in range(800)],
    )
    # More than the client asks for at once.
    for start in range(0, 26_000, 1000):
        points = [Metric("long", step / 2, 1_700_000_000_000 + step, step) for step in range(start, start + 1000)]
        client.log_batch(run_id, metrics=points)
    client.log_batch(run_id, metrics=points)
    found = client.get_run(run_id)
    assert (len(found.data.params), len(found.data.metrics)) == (100, 801)
    assert found.data.tags["t.99"] == "x" * 5000
    assert found.data.metrics["m 799"] == 799
    assert found.info.start_time == 1_700_000_000_000
    history = client.get_metric_history(run_id, "long")
    assert [(point.step, point.value, point.timestamp) for point in history] == [
        (step, step / 2, 1_700_000_000_000 + step) for step in range(26_000)
    ]


def test_what_is_refused(client: MlflowClient, experiment: Experiment) -> None:
    def code(call: object, *arguments: object) -> str:
        with pytest.raises(MlflowException) as caught:
            call(*arguments)  # type: ignore[operator]
        return str(caught.value.error_code)

    run_id = client.create_run(experiment.experiment_id).info.run_id
    client.log_param(run_id, "lr", "0.1")
    client.log_param(run_id, "lr", "0.1")
    assert code(client.log_param, run_id, "lr", "0.2") == "INVALID_PARAMETER_VALUE"
    assert code(client.log_batch, run_id, [], [Param("lr", "0.3")]) == "INVALID_PARAMETER_VALUE"
    assert code(client.log_metric, run_id, "../up", 1) == "INVALID_PARAMETER_VALUE"
    assert code(client.log_metric, run_id, "a?b", 1) == "INVALID_PARAMETER_VALUE"
    assert code(client.set_tag, run_id, "a" * 251, 1) == "INVALID_PARAMETER_VALUE"
    assert code(client.delete_tag, run_id, "not there") == "RESOURCE_DOES_NOT_EXIST"
    assert code(client.get_run, "0" * 32) == "RESOURCE_DOES_NOT_EXIST"
    assert code(client.get_experiment, "987654321") == "RESOURCE_DOES_NOT_EXIST"
    assert code(client.search_runs, [experiment.experiment_id], "metrics.a ~ 3") == "INVALID_PARAMETER_VALUE"
    assert code(client.search_runs, [experiment.experiment_id], "params.a > '3'") == "INVALID_PARAMETER_VALUE"
    assert client.get_run(run_id).data.params == {"lr": "0.1"}


def test_runs_are_deleted_and_restored(client: MlflowClient, experiment: Experiment) -> None:
    with mlflow.start_run() as run:
        mlflow.set_tags({"kept": 1, "removed": 1})
        mlflow.delete_tag("removed")
    run_id = run.info.run_id
    assert "removed" not in client.get_run(run_id).data.tags
    mlflow.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    with pytest.raises(MlflowException) as caught:
        client.log_metric(run_id, "late", 1)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    ids = [experiment.experiment_id]
    assert client.search_runs(ids) == []
    assert [found.info.run_id for found in client.search_runs(ids, run_view_type=ViewType.DELETED_ONLY)] == [run_id]
    assert [found.info.run_id for found in client.search_runs(ids, run_view_type=ViewType.ALL)] == [run_id]
    client.restore_run(run_id)
    assert [found.info.run_id for found in client.search_runs(ids)] == [run_id]


@pytest.fixture
def twelve(client: MlflowClient, experiment: Experiment) -> list[str]:
    """The ids of runs that have been told things, oldest first."""
    ids = []
    for number in range(12):
        run = client.create_run(
            experiment.experiment_id, start_time=1_700_000_000_000 + number, run_name=f"Run {number}"
        )
        metrics = [Metric("score", number / 4, 1, step) for step in (1, 0)]
        if number == 11:
            metrics = [Metric("score", math.nan, 1, 1)]
        params = [Param("kind", "odd" if number % 2 else "even")]
        client.log_batch(run.info.run_id, metrics if number else [], params, [RunTag("with space", f"t{number}")])
        if number < 3:
            client.set_terminated(run.info.run_id, "FAILED" if number else "FINISHED")
        ids.append(run.info.run_id)
    return ids


def test_runs_are_searched(client: MlflowClient, experiment: Experiment, twelve: list[str]) -> None:
    def found(filter_string: str, *order_by: str) -> list[int]:
        runs = client.search_runs([experiment.experiment_id], filter_string, order_by=list(order_by))
        return [twelve.index(run.info.run_id) for run in runs]

    assert found("") == list(range(11, -1, -1))
    assert found("metrics.score >= 2.25") == [10, 9]
    assert found("metrics.score > 1 and params.kind = 'odd'", "metrics.score ASC") == [5, 7, 9]
    assert found("params.kind != 'odd'", "attributes.start_time") == [0, 2, 4, 6, 8, 10]
    assert found("tags.`with space` LIKE 't1%'") == [11, 10, 1]
    assert found("attributes.run_name ILIKE 'run 1_'") == [11, 10]
    assert found("status = 'FAILED'") == [2, 1]
    assert found("attributes.start_time < 1700000000002") == [1, 0]
    assert found(f"attributes.run_id IN ('{twelve[3]}', '{twelve[7]}')") == [7, 3]
    assert found("metrics.score < 100", "metrics.score DESC")[:3] == [10, 9, 8]
    # Real numbers, then what is none, then what has none, either way.
    assert found("", "metrics.score DESC")[-3:] == [1, 11, 0]
    assert found("", "metrics.score ASC")[-3:] == [10, 11, 0]
    assert found("params.missing != 'x'") == []


def test_runs_are_searched_page_by_page(client: MlflowClient, experiment: Experiment, twelve: list[str]) -> None:
    pages, token = [], None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], "", max_results=5, order_by=["params.kind"], page_token=token
        )
        pages.append([twelve.index(run.info.run_id) for run in page])
        token = page.token
        if not token:
            break
    assert pages == [[10, 8, 6, 4, 2], [0, 11, 9, 7, 5], [3, 1]]


def test_runs_are_searched_into_a_table(experiment: Experiment, twelve: list[str]) -> None:
    table = mlflow.search_runs([experiment.experiment_id], order_by=["start_time"])
    assert isinstance(table, pd.DataFrame)
    assert list(table["run_id"]) == twelve
    assert list(table["params.kind"]) == ["even", "odd"] * 6
    assert pd.isna(table["metrics.score"][0])
    assert table["metrics.score"][10] == 2.5
    assert list(table["status"][:4]) == ["FINISHED", "FAILED", "FAILED", "RUNNING"]
    assert str(table["start_time"][0]) == "2023-11-14 22:13:20+00:00"
    best = mlflow.search_runs(experiment_names=[experiment.name], order_by=["metrics.score DESC"], max_results=1)
    assert list(best["tags.mlflow.runName"]) == ["Run 10"]
    listed = mlflow.search_runs([experiment.experiment_id], "params.kind = 'odd'", output_format="list")
    assert [run.info.run_id for run in listed] == twelve[::-2]
    everywhere = mlflow.search_runs(search_all_experiments=True, filter_string=f"run_id = '{twelve[0]}'")
    assert list(everywhere["run_id"]) == twelve[:1]


def test_datasets(client: MlflowClient, experiment: Experiment, name: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": [0, 1, 0]})
    source = tmp_path / "train.csv"
    frame.to_csv(source)
    train = mlflow.data.from_pandas(frame, source=str(source), name=name, targets="y")
    held_out = mlflow.data.from_numpy(np.arange(6.0).reshape(3, 2), name="held out")
    with mlflow.start_run() as run:
        mlflow.log_input(train, context="training", tags={"fold": "1"})
        mlflow.log_input(held_out, context="validation")
        mlflow.log_input(train, context="training")
    inputs = {found.dataset.name: found for found in mlflow.get_run(run.info.run_id).inputs.dataset_inputs}
    assert set(inputs) == {name, "held out"}
    assert inputs[name].dataset.digest == train.digest
    assert '"x"' in inputs[name].dataset.schema
    assert "num_rows" in inputs[name].dataset.profile
    assert {tag.key: tag.value for tag in inputs["held out"].tags} == {"mlflow.data.context": "validation"}
    assert mlflow.data.get_source(inputs[name]).load() == str(source)
    for filter_string in (
        f"dataset.name = '{name}'",
        f"datasets.digest = '{train.digest}' AND datasets.context LIKE 'train%'",
        "datasets.context IN ('validation', 'test')",
    ):
        found = client.search_runs([experiment.experiment_id], filter_string)
        assert [run.info.run_id for run in found] == [run.info.run_id]
        assert {one.dataset.name for one in found[0].inputs.dataset_inputs} == set(inputs)
    assert client.search_runs([experiment.experiment_id], "dataset.name = 'another'") == []


def test_logging_beside_training(client: MlflowClient) -> None:
    with mlflow.start_run() as run:
        told = [mlflow.log_metric("loss", step / 2, step=step, synchronous=False) for step in range(300)]
        mlflow.log_params({"lr": 1}, synchronous=False)
        last = mlflow.set_tag("done", "yes", synchronous=False)
        for future in (*told, last):
            future.wait()
        mlflow.flush_async_logging()
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, step / 2) for step in range(300)]
    found = client.get_run(run.info.run_id)
    assert (found.data.params, found.data.tags["done"]) == ({"lr": "1"}, "yes")


def test_many_threads_log_to_one_run(client: MlflowClient, experiment: Experiment) -> None:
    run_id = client.create_run(experiment.experiment_id).info.run_id
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait()
        for step in range(20):
            client.log_metric(run_id, f"loss/{number}", step, step=step)
            client.log_metric(run_id, "shared", number, step=step)
            client.log_param(run_id, "shared", "the same of all")
            client.set_tag(run_id, "shared", number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    found = client.get_run(run_id)
    assert [found.data.metrics[f"loss/{number}"] for number in range(8)] == [19] * 8
    assert found.data.params == {"shared": "the same of all"}
    assert len(client.get_metric_history(run_id, "shared")) == 8 * 20


def test_metrics_of_the_system(client: MlflowClient) -> None:
    mlflow.set_system_metrics_sampling_interval(1)
    mlflow.set_system_metrics_samples_before_logging(1)
    with mlflow.start_run(log_system_metrics=True) as run:
        deadline = time.monotonic() + 30
        while not (found := client.get_run(run.info.run_id).data.metrics):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(found)
    assert client.get_metric_history(run.info.run_id, "system/system_memory_usage_megabytes")[0].value > 0


def test_autologged_metrics_may_have_odd_names(client: MlflowClient) -> None:
    with mlflow.start_run() as run:
        names = ["val/top-1", "a.b_c", "with space", "0", "system/disk usage", "größe"]
        mlflow.log_metrics(dict.fromkeys(names, 1.5))
        mlflow.log_params(dict.fromkeys(names, "é" * 6000))
    found = client.get_run(run.info.run_id)
    assert set(found.data.metrics) == set(names)
    assert found.data.params["größe"] == "é" * 6000
