"""One more writer of a run that somebody else keeps: MLflow's plugin logs so."""

from __future__ import annotations

import time

import pytest

import penstock
from penstock import start
from penstock.address import parse_address
from penstock.runs import RunStatus
from servers import ServerProcess


def attached(server: ServerProcess, run_id: str, points: int = 3) -> penstock.ActiveRun:
    run = start.attach(run_id, parse_address(server.grpc_address))
    for step in range(points):
        run.log({"loss": step}, step=step)
    return run


@pytest.mark.parametrize("status", [None, "failed"])
def test_nothing_of_the_run_changes(server: ServerProcess, client: penstock.Client, status: str | None) -> None:
    with penstock.start_run(experiment="kept", name="mine", tags={"a": "1"}, url=server.grpc_address) as run:
        pass
    before = client.get_run(run.id)
    assert attached(server, run.id).finish(status)
    after = client.get_run(run.id)
    told = ("status", "name", "tags", "start_time_ms", "end_time_ms", "user")
    assert [getattr(after, name) for name in told] == [getattr(before, name) for name in told]
    assert list(client.metric_history(run.id, "loss").steps) == [0, 1, 2]


def test_it_goes_on_running(server: ServerProcess, client: penstock.Client) -> None:
    run = client.create_run("kept")
    assert attached(server, run.id).finish()
    assert client.get_run(run.id).status is RunStatus.RUNNING


def test_no_run_is_made(server: ServerProcess, client: penstock.Client) -> None:
    run = attached(server, "0" * 32)
    end = time.monotonic() + 30
    while run.state != "parked":
        assert time.monotonic() < end
        time.sleep(0.01)
    with pytest.raises(penstock.errors.NotFound):
        client.get_run("0" * 32)
