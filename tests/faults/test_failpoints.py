"""A server that dies, or loses its connection to PostgreSQL, at each point of a flush: everything is there, once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from testbuild import counting
from testbuild.counting import SAME_STEP
from testbuild.failpoints import ACTIONS, CUT, KILL, POINTS, Strike, Struck
from testbuild.honest import new_run_id
from testbuild.process import BuiltServer

from penstock.v1 import metrics_pb2 as me
from penstock.v1.metrics_pb2_grpc import MetricServiceStub
from servers import clean_environment

_RUNS = 2
_WRITERS = 4
_SECONDS = 120


class Writer:
    """A process that logs until it is told to end."""

    def __init__(self, url: str, run_id: str, name: str, spool: Path) -> None:
        self.run_id = run_id
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, counting.__file__, url, run_id, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment() | {"PENSTOCK_SPOOL_DIR": str(spool)},
        )

    def end(self) -> int:
        """How many records it has logged, all of which it says are committed."""
        out, _ = self._process.communicate(timeout=_SECONDS)
        told = json.loads(out)
        assert (told["done"], told["refused"]) == (True, 0)
        return int(told["logged"])

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def writers(url: str, spool: Path) -> Iterator[list[Writer]]:
    """Several, in turn of one run and another."""
    runs = [new_run_id() for _ in range(_RUNS)]
    processes = [Writer(url, runs[number % _RUNS], f"writer-{number}", spool) for number in range(_WRITERS)]
    try:
        yield processes
    finally:
        for process in processes:
            process.stop()


def lives(seed: int) -> Iterator[list[Strike]]:
    """What a server suffers in each of its lives: its connection is cut at each point, and at one it dies."""
    rng = random.Random(seed)
    for last in rng.sample(POINTS, len(POINTS)):
        cuts = [Strike(point, CUT, rng.randint(1, 5)) for point in rng.sample(POINTS, len(POINTS))]
        yield [*cuts, Strike(last, KILL, rng.randint(1, 5))]


def holds(channel: grpc.Channel, writer: Writer, count: int) -> None:
    """The writer's points are there once each, in the order in which they were logged, and summed up rightly."""
    stub = MetricServiceStub(channel)
    values: list[float] = []
    steps: list[int] = []
    for part in stub.StreamMetricHistory(me.StreamMetricHistoryRequest(run_id=writer.run_id, names=[writer.name])):
        values += part.points.values
        steps += part.points.steps
    assert values == list(range(count))
    assert steps == [number // SAME_STEP for number in range(count)]
    (run,) = stub.GetMetricSummaries(me.GetMetricSummariesRequest(run_ids=[writer.run_id], names=[writer.name])).runs
    (told,) = run.metrics
    assert (told.count, told.min_value, told.max_value, told.last_value) == (count, 0, count - 1, count - 1)
    assert told.last_step == (count - 1) // SAME_STEP


@pytest.mark.parametrize("seed", [1])
def test_every_failpoint(tmp_path: Path, dsn: str, spool_root: Path, seed: int) -> None:
    struck: list[Struck] = []
    with BuiltServer(tmp_path / "server", dsn) as server:
        server.start().wait_ready()
        with writers(server.grpc_address, spool_root) as processes:
            server.kill()
            for strikes in lives(seed):
                server.start(strikes).wait_ready()
                assert server.wait_exit() == -signal.SIGKILL
                struck += server.struck
            server.start().wait_ready()
            counts = [process.end() for process in processes]
        with server.channel() as channel:
            for process, count in zip(processes, counts, strict=True):
                holds(channel, process, count)
    assert {(each.point, each.action) for each in struck} == {(point, how) for point in POINTS for how in ACTIONS}
