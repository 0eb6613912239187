"""What people do to the surface of the client that nobody meant them to, and what they may do that looks as if not."""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import dataclasses
import inspect
import io
import math
import pydoc
import signal
import sys
import threading
import uuid
from collections import UserDict
from typing import Any

import pytest
from peer import Peer
from test_forks import run as run_script

import penstock
from penstock.cli import main
from penstock.session import Pace
from penstock.v1 import metrics_pb2
from penstock.v1.metrics_pb2_grpc import MetricServiceStub
from servers import ServerProcess

QUICK = Pace(backoff_least=0.01, backoff_most=0.05)
NOBODY = "127.0.0.1:9"  # the port `discard`: nothing listens there


class Tee:
    """As people write it: it writes, and is no file."""

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> None:
        self.written += text


class Broken(io.StringIO):
    """A pipe that nobody reads."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def closed() -> io.StringIO:
    file = io.StringIO()
    file.close()
    return file


@pytest.mark.parametrize("stderr", [None, Tee(), Broken(), closed()], ids=["none", "tee", "broken", "closed"])
def test_progress_raises_nothing_wherever_it_goes(stderr: object, monkeypatch: pytest.MonkeyPatch) -> None:
    run = penstock.start_run(url=NOBODY, pace=QUICK)
    run.log({"loss": 1.0})
    monkeypatch.setattr(sys, "stderr", stderr)
    assert not run.finish(timeout=1.5)
    if isinstance(stderr, Tee):
        assert "1 record to be committed" in stderr.written


def test_a_with_that_is_left_in_another_context_finishes_all_the_same() -> None:
    with Peer() as peer:
        run = penstock.start_run(url=peer.url, pace=QUICK)
        contextvars.copy_context().run(run.__enter__)
        run.log({"loss": 1.0}, 1)
        run.__exit__(None, None, None)
    assert run.state == "closed"
    assert peer.writer.finish.status == penstock.RunStatus.FINISHED


def test_a_status_that_there_is_not_is_warned_of_and_finishes(caplog: pytest.LogCaptureFixture) -> None:
    with Peer() as peer:
        run = penstock.start_run(url=peer.url, pace=QUICK)
        run.log({"loss": 1.0}, 1)
        assert run.finish("done")
    assert peer.writer.finish.status == penstock.RunStatus.FINISHED
    assert "'done' is no status of a run" in caplog.text


def test_an_interrupted_wait_tells_what_it_costs(caplog: pytest.LogCaptureFixture) -> None:
    run = penstock.start_run(url=NOBODY, pace=QUICK)
    run.log({"loss": 1.0}, 1)
    threading.Timer(0.3, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    assert "1 record with 1 value is NOT committed" in caplog.text
    assert "penstock sync" in caplog.text


def test_a_thread_that_was_not_to_be_had_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Peer() as peer:
        with monkeypatch.context() as poor:
            poor.setattr(threading.Thread, "start", none)
            run = penstock.start_run(url=peer.url, pace=QUICK)
            run.log({"loss": 1.0}, 1)
        assert run.finish(timeout=30)
        assert len(peer.frames) == 1
        with monkeypatch.context() as poor:
            poor.setattr(threading.Thread, "start", none)
            other = penstock.start_run(url=peer.url, pace=QUICK)
            other.log({"loss": 1.0}, 1)
            assert not other.finish()  # and does not wait for a thread that is not there


def test_a_child_that_fails_in_the_with_it_was_born_into_does_not_end_its_parents_run() -> None:
    with Peer() as peer:
        run_script(
            peer,
            """
            try:
                with run:
                    child = os.fork()
                    run.log({"parent" if child else "child": 1.0}, 1)
                    if child == 0:
                        raise ValueError("the child's own")
                    os.waitpid(child, 0)
            except ValueError:
                pass
            """,
        )
    assert sorted(writer.finish.status for writer in peer.writers.values()) == [0, penstock.RunStatus.FINISHED]


class Evil:
    """Raises, whatever it is asked."""

    def __float__(self) -> float:
        raise RuntimeError(self)

    __index__ = __float__  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


class EvilMapping(UserDict[str, Any]):
    """As a settings library may have it."""

    def items(self) -> Any:
        raise RuntimeError("no items")


def test_nothing_that_is_logged_raises(caplog: pytest.LogCaptureFixture) -> None:
    evil: Any = Evil()
    mapping: Any = EvilMapping({"other": 1.0})
    with Peer() as peer, penstock.start_run(url=peer.url, pace=QUICK, params=mapping, tags=mapping) as run:
        for step in (10**5000, evil, math.nan):
            run.log({"loss": 1.0}, step)
        run.log({"loss": 1.0}, 1, evil)
        run.log({"evil": evil, "loss": 2.0}, 2)
        run.log(evil)
        run.log(mapping)
        run.log({"outer": mapping})
        run.log_params({"evil": evil, "good": 1})
        run.log_params(mapping)
        run.log_param([], 1)  # type: ignore[arg-type]
        run.set_tags(mapping)
        run.set_tag({}, 1)  # type: ignore[arg-type]
        run.log({"loss": 3.0}, 3)
    assert [(values, step) for values, step, _ in peer.frames] == [({"loss": step}, step) for step in (1.0, 2.0, 3.0)]
    assert ("param", "good", "1") in peer.writer.records
    assert run.refused == 2 + 3 + 1 + 3 + 1 + 4
    assert caplog.text.count("RuntimeError (no items) while taking what is logged") == 1


def test_each_name_is_told_of_once_and_not_too_many(caplog: pytest.LogCaptureFixture) -> None:
    with Peer() as peer, penstock.start_run(url=peer.url, pace=QUICK) as run:
        for _ in range(2):
            run.log({f"text/{number}": "high" for number in range(100)})
        run.log({"loss": 1.0}, 0.5)  # type: ignore[arg-type]  another kind is told all the same
    told = [record.getMessage() for record in caplog.records if "told once" in record.getMessage()]
    assert len(told) == 20 + 1
    assert "20 are told" in told[19]
    assert run.refused == 201


@dataclasses.dataclass
class Net:
    depth: int = 3


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    net: Net = dataclasses.field(default_factory=Net)


class Keys:
    def keys(self) -> list[str]:
        return ["lr"]

    def __getitem__(self, key: str) -> float:
        return 0.1


@pytest.mark.parametrize(
    ("params", "recorded"),
    [
        (argparse.Namespace(lr=0.1, layers=[1, 2]), {"lr": "0.1", "layers": "[1, 2]"}),
        (Settings(), {"lr": "0.1", "net/depth": "3"}),
        (Keys(), {"lr": "0.1"}),
        ({}, {}),
    ],
)
def test_params_are_what_people_keep_settings_in(params: object, recorded: dict[str, str]) -> None:
    with Peer() as peer, penstock.start_run(url=peer.url, pace=QUICK, params=params) as run:
        run.log_params(params)  # type: ignore[arg-type]
    assert dict(peer.hellos[0].create_run.params) == recorded
    assert {key: value for _, key, value in peer.writer.records} == recorded
    assert run.refused == 0


def test_a_status_prints_its_name() -> None:
    status = penstock.RunStatus.FINISHED
    assert (str(status), f"{status}", f"{status:>9}", status == 3) == ("FINISHED", "FINISHED", " FINISHED", True)


def test_what_calls_take_and_give_can_be_named() -> None:
    assert all(getattr(penstock, name).__name__.endswith(name) for name in penstock.__all__)
    assert {"Artifact", "ModelVersion", "Point", "PromotionResult", "Rejection", "View"} <= set(penstock.__all__)


def test_both_clients_have_the_same_calls() -> None:
    blocking, coroutine = (
        {name for name in dir(client) if not name.startswith("_")} for client in (penstock.Client, penstock.AsyncClient)
    )
    assert blocking == coroutine
    for name in blocking:
        assert getattr(penstock.Client, name).__doc__, f"{name} is not described"
    assert "registry" in blocking
    transfers = {name for name in blocking if "artifact" in name}
    assert transfers == {
        "delete_artifact",
        "download_artifacts",
        "list_artifacts",
        "read_artifact",
        "stat_artifact",
        "upload_artifact",
        "upload_artifacts",
    }


def test_a_single_name_is_a_list_of_one(client: penstock.Client) -> None:
    experiment = uuid.uuid4().hex
    run = client.create_run(experiment, params={"lr": 0.1, "flag": True}, tags={"a": 1, "bc": None})
    client.log_batch(run.id, {"loss": 1, "acc": 2}, {"depth": 3}, {"d": 4})
    client.log_params(run.id, {"more": [5]})
    client.set_tags(run.id, {"e": 6.5})
    (found,) = client.search_runs(experiment, order_by="metrics.loss DESC")
    assert found.params == {"lr": "0.1", "flag": "True", "depth": "3", "more": "[5]"}
    assert found.tags == {"a": "1", "bc": "None", "d": "4", "e": "6.5"}
    assert client.search_runs(experiment_ids=run.experiment_id)[0].id == run.id
    client.delete_tags(run.id, "bc")
    assert "bc" not in client.get_run(run.id).tags
    assert [each.name for each in client.metric_series(run.id, "loss")] == ["loss"]
    assert list(client.metric_summaries(run.id, "acc")[run.id]) == ["acc"]
    assert list(client.metric_histories(run.id, "acc")) == ["acc"]
    watched = client.watch_runs(run_ids=run.id)
    first = next(watched).run
    watched.close()
    assert first is not None
    assert first.id == run.id
    made = client.create_experiment(uuid.uuid4().hex, {"a": 1})
    client.set_experiment_tags(made.id, {"bc": 2})
    client.delete_experiment_tags(made.id, "bc")
    assert client.get_experiment(made.id).tags == {"a": "1"}


def test_a_batch_says_which_metric_is_no_number(client: penstock.Client) -> None:
    run = client.create_run("surface")
    for value in ("1.5", None, [1.0]):
        with pytest.raises(TypeError, match=r"metric 'acc': .* is no number"):
            client.log_batch(run.id, {"loss": 1.0, "acc": value})  # type: ignore[dict-item]


def test_an_async_client_may_be_used_by_one_event_loop_after_another(server: ServerProcess) -> None:
    client = penstock.AsyncClient(server.grpc_address)
    for _ in range(3):
        assert asyncio.run(client.get_experiment_by_name("Default")).id == "0"
    asyncio.run(client.close())


def test_a_process_that_was_spawned_goes_on_with_the_run_and_leaves_its_status(
    server: ServerProcess, client: penstock.Client
) -> None:
    parent = penstock.start_run("surface", url=server.grpc_address)
    child = penstock.start_run(run_id=parent.id, url=server.grpc_address)  # as docs/client.md says
    child.log({"child": 1.0}, 1)
    assert child.finish(status="running")
    assert client.get_run(parent.id).status is penstock.RunStatus.RUNNING
    parent.log({"parent": 1.0}, 1)
    assert parent.finish()
    found = client.get_run(parent.id)
    assert found.status is penstock.RunStatus.FINISHED
    assert sorted(found.metrics) == ["child", "parent"]


def test_a_run_whose_process_was_killed_can_be_told_so(client: penstock.Client) -> None:
    run = client.create_run("surface")
    assert client.update_run(run.id, status="KILLED").status is penstock.RunStatus.KILLED


def test_a_run_shows_what_did_not_arrive(
    server: ServerProcess, client: penstock.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = client.create_run("surface")
    assert main(["runs", "show", run.id, "--url", server.grpc_address]) == 0
    assert "records" not in capsys.readouterr().out
    messages = [
        metrics_pb2.StreamMetricsRequest(
            hello=metrics_pb2.Hello(protocol=1, run_id=run.id, writer_id=uuid.uuid4().bytes, epoch=1, refused=1234)
        ),
        metrics_pb2.StreamMetricsRequest(batch=metrics_pb2.Batch(first_seq=1, count=5, lost=True)),
        metrics_pb2.StreamMetricsRequest(finish=metrics_pb2.Finish(last_seq=5, refused=1234)),
    ]
    with server.channel() as channel:
        list(MetricServiceStub(channel).StreamMetrics(iter(messages), timeout=30))
    found = client.get_run(run.id)
    assert (found.refused_records, found.lost_records) == (1234, 5)
    assert main(["runs", "show", run.id, "--url", server.grpc_address]) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines() if "1,234" in line or "5 records" in line] == [
        ["refused", "1,234", "values,", "params,", "tags", "and", "files"],
        ["lost", "5", "records"],
    ]


@pytest.mark.parametrize("kind", [penstock.Client, penstock.AsyncClient])
@pytest.mark.parametrize(
    "name", ["upload_artifact", "upload_artifacts", "download_artifacts", "read_artifact", "get_run", "list_artifacts"]
)
def test_help_shows_what_callers_give(kind: Any, name: str) -> None:
    method = getattr(kind(NOBODY), name)
    assert next(iter(inspect.signature(method).parameters)) == "run_id"
    for told in (pydoc.plain(pydoc.render_doc(method)), pydoc.plain(pydoc.render_doc(getattr(kind, name)))):
        assert "wire" not in told
        assert "(run_id: " in told or "(self, run_id: " in told
    assert "Flow" not in str(inspect.signature(method))


def test_methods_may_be_called_by_way_of_the_class() -> None:
    with pytest.raises(ValueError, match="bytes have no name"):
        penstock.Client.upload_artifact(penstock.Client(NOBODY), "0" * 32, b"")
