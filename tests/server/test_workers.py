"""Several processes that share the ports: they are one server, and outlive each other's deaths."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from penstock.v1 import experiments_pb2
from penstock.v1.experiments_pb2_grpc import ExperimentServiceStub
from servers import ServerProcess

CALLS = 30
METHOD = "penstock.v1.ExperimentService.GetExperiment"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of two workers, with its embedded database. Tests leave two workers alive."""
    with ServerProcess(tmp_path_factory.mktemp("two") / "data", "--workers", "2", "--drain-seconds", "10") as server:
        yield server.start().wait_ready()


def wait(condition: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)


def workers(server: ServerProcess) -> list[psutil.Process]:
    """The worker processes that are alive."""
    children = psutil.Process(server.pid).children()
    return [child for child in children if "penstock_server.worker" in child.cmdline()]


def call(server: ServerProcess) -> None:
    """One call, on a connection of its own: the kernel chooses the worker."""
    with server.channel() as channel:
        ExperimentServiceStub(channel).GetExperiment(
            experiments_pb2.GetExperimentRequest(experiment_id="0"), wait_for_ready=True, timeout=20
        )


def calls_counted(server: ServerProcess) -> int:
    text = server.get("/metrics")[1]
    found = re.search(rf'penstock_requests_total{{method="{METHOD}",status="OK"}} (\d+)', text)
    return int(found[1]) if found else 0


def ready_count(server: ServerProcess) -> int:
    return sum(event["event"] == "worker ready" for event in server.events)


def test_metrics_add_up_whichever_worker_answers(two: ServerProcess) -> None:
    before = calls_counted(two)
    for _ in range(CALLS):
        call(two)
    # Each page comes on a connection of its own, so both workers answer some.
    assert {calls_counted(two) - before for _ in range(10)} == {CALLS}
    counters = list((two.data_dir / "metrics").glob("counter_*.db"))
    served = [counter for counter in counters if METHOD.encode() in counter.read_bytes()]
    assert len(served) == 2, "the kernel gave all connections to one worker"


def test_a_worker_that_dies_is_started_again_and_counts_on(two: ServerProcess) -> None:
    before, was_ready = calls_counted(two), ready_count(two)
    first, second = workers(two)
    first.kill()
    wait(lambda: ready_count(two) == was_ready + 1)
    (died,) = [event for event in two.events if event["event"] == "worker died"]
    assert died["exit_code"] == -signal.SIGKILL
    assert second in workers(two)
    assert len(workers(two)) == 2
    call(two)
    assert calls_counted(two) == before + 1
    assert not list((two.data_dir / "metrics").glob(f"gauge_live*_{first.pid}.db"))


def test_sigterm_drains_all_and_stops_the_database(two: ServerProcess) -> None:
    children = workers(two)
    assert two.stop() == 0
    assert sum(event["event"] == "drained" for event in two.events) == 2
    assert all(not child.is_running() for child in children)
    assert not (two.data_dir / "postgres/data/postmaster.pid").exists()
    two.start().wait_ready()


def test_orphans_drain_and_the_next_server_waits_for_them(two: ServerProcess) -> None:
    orphans = workers(two)
    for orphan in orphans:
        orphan.suspend()  # they would be gone too soon to be seen
    two.kill()
    two.start()
    time.sleep(0.5)
    assert two.events == [], "it waits for the orphans, without a word"
    for orphan in orphans:
        orphan.resume()
    two.wait_ready()
    for orphan in orphans:
        wait(lambda orphan=orphan: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
    call(two)


def test_ctrl_c_reaches_the_supervisor_alone(two: ServerProcess) -> None:
    groups = {os.getpgid(worker.pid) for worker in workers(two)}
    assert os.getpgid(two.pid) not in groups


def test_the_first_start_makes_the_directory_of_the_numbers_private(two: ServerProcess) -> None:
    assert Path(two.data_dir / "metrics").stat().st_mode & 0o777 == 0o700
