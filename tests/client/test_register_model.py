"""`run.register_model`: what was logged is at the server first, and one call makes one version, whatever breaks."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from peer import eventually

import penstock
from faults.campaign.proxy import Proxy
from penstock import errors
from penstock.session import Pace
from servers import ServerProcess

QUICK = Pace(backoff_least=0.01, backoff_most=0.05)
NOBODY = "127.0.0.1:9"

Start = Callable[..., penstock.ActiveRun]


@pytest.fixture
def start(server: ServerProcess) -> Start:
    def start(**more: Any) -> penstock.ActiveRun:
        return penstock.start_run("models", url=server.grpc_address, pace=QUICK, **more)

    return start


@pytest.fixture
def own_server(dsn: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """One that the test may kill."""
    with ServerProcess(tmp_path / "server", dsn=dsn) as server:
        yield server.start().wait_ready()


@pytest.fixture
def name() -> str:
    return f"iris {uuid.uuid4().hex}"


@pytest.mark.usefixtures("either_way")
def test_what_was_logged_before_is_there(client: penstock.Client, start: Start, name: str) -> None:
    with start() as run:
        for step in range(100):
            run.log({"acc": step / 100}, step)
        for number in range(20):
            run.log_text(f"part {number}", f"model/{number}.txt")
        made = run.register_model(name, "model", description="a flower", tags={"a": 1})
        assert len(client.list_artifacts(run.id, "model")) == 20
        assert client.registry.promote(name, 1, alias="champion", gates=["metrics.acc >= 0.99"])
        assert (made.version, made.run_id, made.path) == (1, run.id, "model")
        assert (made.description, made.tags) == ("a flower", {"a": "1"})
        assert run.register_model(name, "model/3.txt").path == "model/3.txt"
    assert run.register_model(name).source == f"runs:/{run.id}"
    assert [each.version for each in client.registry.search_versions(f"name = '{name}'", "version")] == [1, 2, 3]


def test_a_run_that_has_logged_nothing_is_made_first(start: Start, name: str) -> None:
    with start() as run:
        with pytest.raises(errors.NotFound, match="model"):
            run.register_model(name, "model")
        run.log_text("x", "model")
        assert run.register_model(name, "model").version == 1


def test_what_can_never_be_registered_is_told(client: penstock.Client, start: Start, name: str) -> None:
    with start() as run:
        with pytest.raises(errors.InvalidArgument, match="a/b"):
            run.register_model("a/b")
        run.log_text("x", "model/x")
        eventually(lambda: not run.unsent)
        run.log_text("x", "model")
        with pytest.raises(errors.FailedPrecondition, match=r"the file model of run .* was refused"):
            run.register_model(name, "model")
        client.delete_run(run.id)
        with pytest.raises(errors.FailedPrecondition, match="deleted"):
            run.register_model(name, "model/x")
    assert client.registry.search_models(f"name = '{name}'") == []


def test_a_run_that_is_deleted_before_it_has_sent_anything(
    server: ServerProcess, client: penstock.Client, name: str
) -> None:
    gone = client.create_run("models")
    client.delete_run(gone.id)
    run = penstock.start_run(run_id=gone.id, url=server.grpc_address, pace=QUICK)
    run.log({"acc": 1.0})
    run.log_text("x", "model")
    with pytest.raises(errors.FailedPrecondition, match="deleted"):
        run.register_model(name, "model")


def test_offline_there_is_nobody_to_register_it(name: str) -> None:
    with penstock.start_run(mode="offline") as run:
        run.log_text("x", "model")
        with pytest.raises(errors.FailedPrecondition, match=f"penstock models register {name} {run.id} model"):
            run.register_model(name, "model")


def test_a_server_that_is_away_is_waited_for_in_vain(name: str) -> None:
    run = penstock.start_run(url=NOBODY, pace=QUICK)
    with pytest.raises(errors.TimedOut, match="is not known to be registered: no server at"):
        run.register_model(name, timeout=0.1)
    run.log_text("x", "model")
    run.log({"acc": 1.0})
    with pytest.raises(errors.TimedOut, match="1 file with 1 B and 1 record still to be sent"):
        run.register_model(name, "model", timeout=0.1)
    run.finish(timeout=0.1)


def test_what_takes_longer_is_told(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = penstock.start_run(url=NOBODY, pace=QUICK)
    run.log_text("x", "model")
    capsys.readouterr()
    told = []
    for quiet in (1000.0, 0.0):
        monkeypatch.setattr("penstock.progress._QUIET", quiet)
        with pytest.raises(errors.TimedOut):
            run.register_model(name, "model", timeout=0.2)
        told += capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"penstock: run {run.id}: 1 file to be sent, 0 s")
    run.finish(timeout=0.1)


def test_what_finish_has_left_is_not_waited_for(name: str) -> None:
    run = penstock.start_run(url=NOBODY, pace=QUICK)
    run.log_text("x", "model")
    run.finish(timeout=0.1)
    run._stop()
    with pytest.raises(errors.FailedPrecondition, match="1 file with 1 B is NOT sent"):
        run.register_model(name, "model", timeout=60)


def test_an_answer_that_is_lost_makes_no_second_version(
    server: ServerProcess, client: penstock.Client, name: str
) -> None:
    made: list[penstock.ModelVersion] = []
    with (
        closing(Proxy(server.grpc_address)) as network,
        penstock.start_run("models", url=network.address) as run,
    ):
        run.log_text("x", "model")
        eventually(lambda: not run.unsent)
        network.delay(0.3)
        registering = threading.Thread(target=lambda: made.append(run.register_model(name, "model")))
        registering.start()
        eventually(lambda: client.registry.search_models(f"name = '{name}'"))  # the answer is on its way
        network.refuse()
        network.cut(reset=True)
        refused = network.accepted
        eventually(lambda: network.accepted > refused + 11)  # by then gRPC's own tries are over
        network.clear()
        registering.join(60)
    assert [each.version for each in made] == [1]
    assert client.registry.search_versions(f"name = '{name}'") == made


def test_a_server_that_is_killed_between_makes_one_version(own_server: ServerProcess) -> None:
    done: list[penstock.ModelVersion] = []

    def work() -> None:
        with penstock.start_run("models", url=own_server.grpc_address, pace=QUICK) as run:
            for number in range(30):
                run.log({"acc": number / 30})
                run.log_text(f"weights {number}", f"model/{number}")
                done.append(run.register_model("iris", f"model/{number}", tags={"number": number}))

    working = threading.Thread(target=work)
    working.start()
    eventually(lambda: len(done) >= 5, 60)
    own_server.kill()
    own_server.start().wait_ready()
    working.join(120)
    assert [each.version for each in done] == list(range(1, 31))
    with penstock.Client(own_server.grpc_address) as client:
        found = client.registry.search_versions("name = 'iris'", "version")
    assert found == done
    assert [each.tags["number"] for each in found] == [str(number) for number in range(30)]


def test_what_a_version_stands_on_is_not_replaced(start: Start, name: str, caplog: pytest.LogCaptureFixture) -> None:
    run = start()
    run.log_text("old", "model/w")
    assert run.register_model(name, "model").version == 1
    run.log_text("new", "model/w")
    run.log_text("beside", "model/x")
    assert not run.finish()
    (rejection,) = run.rejected
    told = f"{name} version 1 stands on 'model/w', so it is not replaced by other content; log it under another path"
    assert told in rejection.reason
    assert told in caplog.text
