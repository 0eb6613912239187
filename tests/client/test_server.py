"""The client against a real server, from run.log to what is read back."""

from __future__ import annotations

import math
import signal
import time
import uuid
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peer import eventually

import penstock
from penstock import errors
from penstock.metrics import Point
from servers import ServerProcess

Start = Callable[..., penstock.ActiveRun]


@pytest.fixture
def start(server: ServerProcess) -> Start:
    def start(experiment: str = "client", **more: Any) -> penstock.ActiveRun:
        return penstock.start_run(experiment=experiment, url=server.grpc_address, **more)

    return start


@pytest.fixture
def name() -> str:
    """Of an experiment that no other test has."""
    return f"experiment {uuid.uuid4().hex}"


@pytest.mark.usefixtures("either_way")
def test_from_log_to_history(client: penstock.Client, start: Start, name: str) -> None:
    with start(name, name="sgd", params={"lr": 0.1}, tags={"data": "digits"}) as run:
        for step in range(1_000):
            run.log({"loss": 1 / (step + 1), "nested": {"acc": step / 1_000}}, step=step, time=step)
        run.log({"loss": math.nan, "spike": math.inf}, step=1_000, time=1_000)
        run.log_param("depth", 3)
        run.set_tag("stage", "done")

    found = client.get_run(run.id)
    assert (found.name, found.status, found.active) == ("sgd", penstock.RunStatus.FINISHED, True)
    assert found.params == {"lr": "0.1", "depth": "3"}
    assert found.tags["data"] == "digits"
    assert found.tags["stage"] == "done"
    assert found.tags["mlflow.user"] == found.user
    assert found.end_time_ms is not None
    assert found.metrics["nested/acc"].last_value == 0.999
    assert found.metrics["nested/acc"].count == 1_000
    assert math.isinf(found.metrics["spike"].max_value)

    history = client.metric_history(run.id, "loss")
    assert len(history) == 1_001
    assert list(history.steps) == list(range(1_001))
    assert list(history.times_ms) == [1_000 * step for step in range(1_001)]
    assert list(history.values[:-1]) == [1 / (step + 1) for step in range(1_000)]
    assert math.isnan(history.values[-1])
    assert list(client.metric_history(run.id, "loss", 10, 12).steps) == [10, 11, 12]
    assert len(client.metric_history(run.id, "none")) == 0
    assert sorted(client.metric_histories(run.id)) == ["loss", "nested/acc", "spike"]


def test_histories_become_arrays_and_frames(client: penstock.Client, start: Start) -> None:
    with start() as run:
        run.log({"loss": 0.5}, step=3, time=1.5)
    history = client.metric_history(run.id, "loss")
    steps, times_ms, values = history.to_numpy()
    assert (steps.tolist(), times_ms.tolist(), values.tolist()) == ([3], [1_500], [0.5])
    frame = history.to_pandas()
    assert list(frame.columns) == ["step", "time", "value"]
    assert frame.time[0].isoformat() == "1970-01-01T00:00:01.500000+00:00"
    assert client.metric_history(run.id, "none").to_pandas().empty


def test_search(client: penstock.Client, start: Start, name: str) -> None:
    for number in range(7):
        with start(name, name=f"run {number}", params={"number": number}) as run:
            run.log({"acc": number / 10}, step=0)
    best = client.search_runs(experiments=[name], filter="metrics.acc > 0.2", order_by=["metrics.acc DESC"], limit=2)
    assert [run.name for run in best] == ["run 6", "run 5"]
    rest = client.search_runs(
        experiments=[name],
        filter="metrics.acc > 0.2",
        order_by=["metrics.acc DESC"],
        limit=None,
        page_token=best.next_page_token,
    )
    assert [run.name for run in rest] == ["run 4", "run 3"]
    assert rest.next_page_token == ""
    frame = client.search_runs(experiments=[name], order_by=["metrics.acc ASC"]).to_pandas()
    assert frame["metrics.acc"].tolist() == [number / 10 for number in range(7)]
    assert frame["params.number"].tolist() == [str(number) for number in range(7)]
    assert client.search_runs(experiments=["none"]) == []
    assert client.search_runs(experiments=["none"]).to_pandas().empty
    assert client.search_runs(experiments=[name], info_only=True)[0].params == {}
    with pytest.raises(errors.InvalidFilter, match="position 12"):
        client.search_runs(filter="metrics.acc >> 1")


def test_experiments(client: penstock.Client, name: str) -> None:
    made = client.create_experiment(name, tags={"team": "vision"})
    assert client.get_experiment(made.id) == client.get_experiment_by_name(name) == made
    assert (made.active, made.tags) == (True, {"team": "vision"})
    with pytest.raises(errors.AlreadyExists):
        client.create_experiment(name)
    client.rename_experiment(made.id, f"{name}, renamed")
    client.set_experiment_tags(made.id, {"stage": "one"})
    client.delete_experiment_tags(made.id, ["team"])
    with pytest.raises(errors.NotFound):
        client.delete_experiment_tags(made.id, ["team"])
    client.delete_experiment(made.id)
    found = client.get_experiment(made.id)
    assert (found.name, found.tags, found.active) == (f"{name}, renamed", {"stage": "one"}, False)
    assert found in client.search_experiments(f"name = '{found.name}'", view="deleted")
    assert client.search_experiments(f"name = '{found.name}'") == []
    client.restore_experiment(made.id)
    assert client.search_experiments(f"name LIKE '{name}%'", limit=1)[0].active


def test_runs(client: penstock.Client, name: str) -> None:
    parent = client.create_run(name)
    made = client.create_run(name, "child", {"lr": "1"}, {"a": "b"}, parent=parent.id, status="scheduled")
    assert client.create_run(name, run_id=made.id) == made
    assert (made.parent_run_id, made.status.name, made.end_time_ms) == (parent.id, "SCHEDULED", None)
    client.log_params(made.id, {"depth": "3"})
    with pytest.raises(errors.AlreadyExists, match="depth"):
        client.log_params(made.id, {"depth": "4"})
    client.set_tags(made.id, {"c": "d"})
    client.delete_tags(made.id, ["a"])
    changed = client.update_run(made.id, name="other", status="failed", end_time_ms=5)
    assert (changed.name, changed.status.name, changed.end_time_ms) == ("other", "FAILED", 5)
    found = client.get_run(made.id)
    assert (found.params, found.tags) == ({"lr": "1", "depth": "3"}, {"c": "d"})
    client.delete_run(made.id)
    with pytest.raises(errors.FailedPrecondition, match="deleted"):
        client.set_tags(made.id, {"c": "e"})
    client.restore_run(made.id)
    assert client.get_run(made.id).active
    with pytest.raises(errors.NotFound):
        client.get_run("0" * 32)
    with pytest.raises(errors.InvalidArgument, match="run id"):
        client.get_run("x")


def test_batches_series_and_summaries(client: penstock.Client, name: str) -> None:
    one, other = client.create_run(name), client.create_run(name)
    client.log_batch(one.id, {"loss": 0.5, "acc": 1}, {"lr": "1"}, {"a": "b"}, step=3)
    client.log_batch(other.id, [Point("loss", float(step), step, 1_000) for step in range(100)])
    assert client.get_run(one.id).params == {"lr": "1"}
    (series,) = client.metric_series([other.id], ["loss"], width=10)
    assert 0 < len(series) <= 10
    assert sum(series.counts) == 100
    assert (series.first_steps[0], series.last_steps[-1], min(series.mins), max(series.maxs)) == (0, 99, 0.0, 99.0)
    summaries = client.metric_summaries([one.id, other.id])
    assert sorted(summaries[one.id]) == ["acc", "loss"]
    assert (summaries[other.id]["loss"].count, summaries[other.id]["loss"].last_value) == (100, 99.0)
    assert list(client.metric_summaries([one.id], ["acc"])[one.id]) == ["acc"]


def test_watching_runs(client: penstock.Client, start: Start) -> None:
    run = start()
    run.log({"loss": 1.0}, 1)
    eventually(lambda: run.unacked == 0)
    watch = client.watch_runs(run_ids=[run.id])
    first = next(watch)
    while first.run is None:
        first = next(watch)
    assert first.run.id == run.id
    assert "snapshot" in first.changes
    run.finish()
    for event in watch:
        if event.run is not None and event.run.status is penstock.RunStatus.FINISHED:
            break


async def test_the_asyncio_client_has_the_same_calls(server: ServerProcess, name: str) -> None:
    async with penstock.AsyncClient(server.grpc_address) as client:
        run = await client.create_run(name, params={"lr": "1"})
        await client.log_batch(run.id, {"loss": 0.5}, step=3)
        assert [found.id for found in await client.search_runs(experiments=[name])] == [run.id]
        history = await client.metric_history(run.id, "loss")
        assert (history.steps, history.values) == (array("q", [3]), array("d", [0.5]))
        with pytest.raises(errors.NotFound):
            await client.get_run("0" * 32)
        async for event in client.watch_runs(run_ids=[run.id]):
            if event.run is not None:
                assert event.run.id == run.id
                break


def test_both_clients_have_the_same_surface() -> None:
    def surface(client: type) -> set[str]:
        return {each for each in dir(client) if not each.startswith("_")}

    assert surface(penstock.Client) == surface(penstock.AsyncClient)
    assert penstock.Client.search_runs.__doc__


def test_a_param_that_changes_is_refused_and_told(
    client: penstock.Client, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with start(params={"lr": 1}) as run:
        run.log_param("lr", 1)  # the same again is fine
        run.log_params({"lr": 2, "depth": 3})
        run.log({"loss": 1.0}, 1)
    assert [each.reason for each in run.rejected] == [
        "param 'lr' is '1' and cannot become '2': params are written once; use a tag"
    ]
    assert "cannot become '2'" in caplog.text
    found = client.get_run(run.id)
    assert found.params == {"lr": "1", "depth": "3"}
    assert found.metrics["loss"].count == 1


def test_a_run_can_be_gone_on_with(client: penstock.Client, start: Start, name: str) -> None:
    with start(name, name="first", params={"lr": 1}) as run:
        run.log({"loss": 1.0}, 1)
    with start(
        f"not {name}", name="second", run_id=run.id, params={"lr": 1, "depth": 3}, tags={"again": "yes"}
    ) as again:
        again.log({"loss": 2.0}, 2)
    found = client.get_run(run.id)
    assert found.name == "first"
    assert found.params == {"lr": "1", "depth": "3"}
    assert found.tags["again"] == "yes"
    assert list(client.metric_history(run.id, "loss").steps) == [1, 2]


def test_a_deleted_run_parks(client: penstock.Client, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    run = start()
    run.log({"loss": 1.0}, 1)
    eventually(lambda: run.unacked == 0)
    client.delete_run(run.id)
    eventually(lambda: run.log({"loss": 1.0}) or run.state == "parked")
    assert not run.finish()
    assert "deleted" in caplog.text


def test_sixteen_writers_of_one_run(client: penstock.Client, start: Start, name: str) -> None:
    key = uuid.uuid4().hex
    runs = [start(name, run_key=key) for _ in range(16)]
    for step in range(100):
        for run in runs:
            run.log({"loss": 1.0}, step)
    assert all(run.finish() for run in runs)
    (found,) = client.search_runs(experiments=[name])
    assert found.metrics["loss"].count == 1_600


def test_servers_come_and_go_and_nothing_is_lost(tmp_path: Path, dsn: str) -> None:
    with ServerProcess(tmp_path / "data", dsn=dsn) as server:
        server.start().wait_ready()
        run = penstock.start_run(experiment="restarts", url=server.grpc_address)
        step = 0

        def train(seconds: float) -> None:
            nonlocal step
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                run.log({"loss": float(step), "acc": float(-step)}, step)
                step += 1
                time.sleep(0.0005)

        train(0.5)
        server.kill()
        train(0.3)
        server.start().wait_ready()
        train(0.5)
        server.signal(signal.SIGTERM)
        train(0.5)
        assert server.wait_exit() == 0
        server.start().wait_ready()
        train(0.3)
        assert run.finish(timeout=60)
        with penstock.Client(server.grpc_address) as client:
            history = client.metric_history(run.id, "loss")
            assert list(history.steps) == list(range(step))
            assert list(history.values) == [float(each) for each in range(step)]
            assert client.get_run(run.id).metrics["acc"].count == step


@pytest.fixture
def nobody() -> Iterator[penstock.Client]:
    with penstock.Client("127.0.0.1:9") as client:
        yield client


def test_without_a_server_the_message_says_what_to_do(nobody: penstock.Client) -> None:
    with pytest.raises(
        errors.Unavailable, match=r"no server at 127\.0\.0\.1:9; start one with `penstock-server serve`"
    ):
        nobody.search_runs()


def test_a_server_that_never_answers_is_given_up() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = penstock.Client(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
        with pytest.raises(errors.Retryable):
            client.search_runs()
        client.close()


def test_workspaces_are_apart(server: ServerProcess) -> None:
    with (
        penstock.Client(server.grpc_address, workspace="elsewhere") as client,
        pytest.raises(errors.NotFound, match="elsewhere"),
    ):
        client.search_runs()
