"""A database that stops at once under a server: the server stays, its streams stay, and all is there afterwards."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import psutil
import pytest
from writers import Conversation

from penstock.v1 import metrics_pb2 as me
from penstock.v1 import runs_pb2 as ru
from penstock.v1.metrics_pb2_grpc import MetricServiceStub
from penstock.v1.runs_pb2_grpc import RunServiceStub
from servers import ServerProcess


def postmaster(server: ServerProcess) -> psutil.Process:
    return psutil.Process(int((server.data_dir / "postgres/data/postmaster.pid").read_text().split()[0]))


def replaced(server: ServerProcess, before: psutil.Process) -> bool:
    try:
        return postmaster(server).pid != before.pid
    except (FileNotFoundError, IndexError, psutil.NoSuchProcess):  # it is being started
        return False


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def delivered(channel: grpc.Channel, writer: Conversation, last: int) -> Conversation:
    """Hears that all is committed. The stream goes on, but for one whose COMMIT was cut off: that opens again."""
    while True:
        try:
            while writer.hear_until("ack")[-1].ack.hwm < last:
                pass
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            writer = Conversation(channel, writer.run_id, writer_id=writer.writer_id)
            writer.batch(1, list(range(1, last + 1)), new_shapes=[me.Shape(names=["loss"])])
        else:
            return writer


@pytest.mark.parametrize("workers", ["1", "2"])
def test_postgresql_stops_at_once_under_writers(data_dir: Path, workers: str) -> None:
    with ServerProcess(data_dir, "--workers", workers) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            runs, metrics = RunServiceStub(channel), MetricServiceStub(channel)
            run_id = runs.CreateRun(ru.CreateRunRequest()).run.run_id
            writer = Conversation(channel, run_id).first([1])
            writer.hear_until("ack")
            for last in (100, 200, 300):
                before = postmaster(server)
                before.send_signal(signal.SIGQUIT)  # immediate shutdown
                for seq in range(max(2, last - 99), last + 1):
                    writer.batch(seq, [seq])
                # Not `/ready`: it is back so soon that who asks may not hear of it.
                wait(partial(replaced, server, before))
                writer = delivered(channel, writer, last)
                wait(lambda: server.get("/ready")[0] == 200)
            writer.say(finish=me.Finish(last_seq=300))
            assert writer.hear_all()[-1].finish_ack.hwm == 300
            points = metrics.GetMetricHistory(me.GetMetricHistoryRequest(run_id=run_id, name="loss")).points
            assert list(points.steps) == list(range(1, 301))
        assert "Traceback" not in server.log
        assert server.stop() == 0


def test_a_database_that_cannot_be_started_is_tried_again(data_dir: Path, tmp_path: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            runs = RunServiceStub(channel)
            run_id = runs.CreateRun(ru.CreateRunRequest(name="kept")).run.run_id
            database = postmaster(server)
            shutil.move(data_dir / "postgres/data", tmp_path / "away")  # as when a volume is unmounted
            database.send_signal(signal.SIGQUIT)
            told = server.wait_event("PostgreSQL cannot be started and is tried again")
            assert "an empty one in its place" in told["error"]
            wait(lambda: server.get("/ready")[0] == 503)
            assert server.get("/health")[0] == 200
            wait(lambda: not database.is_running() or database.status() == psutil.STATUS_ZOMBIE)
            shutil.move(tmp_path / "away", data_dir / "postgres/data")
            wait(lambda: server.get("/ready")[0] == 200)
            assert runs.GetRun(ru.GetRunRequest(run_id=run_id), wait_for_ready=True).run.name == "kept"
        assert server.stop() == 0
        assert not (data_dir / "postgres/data/postmaster.pid").exists()
