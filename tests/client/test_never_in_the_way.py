"""Whatever the server does: training goes on as it would, `finish` comes back in time, nothing is lost or doubled."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest
from peer import Peer, Says, Stream, eventually, plain
from training import DEADLINE, Training, beside_ours, silent_listener, stored, sync

import penstock
from penstock import errors
from penstock.runs import RunStatus
from penstock.v1 import runs_pb2
from servers import ServerProcess

# Beside what a busy machine may add.
IN_TIME = 10.0

# Logs for a second or two, as a quick loop does, and says what it took.
LOOP = """
import json
import penstock.session

began = time.monotonic()
run = start(finish_timeout=1.0, pace=penstock.session.Pace(welcome_timeout=0.5, stall_timeout=0.5, backoff_most=0.5))
started = time.monotonic() - began
costs = []
for step in range(2_000):
    began = time.perf_counter()
    run.log({"loss": step / 3}, step, time=1_000_000 + step)
    costs.append(time.perf_counter() - began)
    if step % 10 == 0:
        time.sleep(0.005)
    if step == 1_000:
        print("halfway", flush=True)
        sys.stdin.readline()
began = time.monotonic()
done = run.finish(timeout=TIMEOUT)
finished = time.monotonic() - began
print(json.dumps({"start": started, "log": sorted(costs)[1_000], "finish": finished, "done": done}), flush=True)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


Halfway = Callable[[], None]


class Trouble:
    """A server that is none, at `url`. What it has committed all the same, `peer` knows, which is well after `heal`."""

    def __init__(self, url: str, peer: Peer, halfway: Halfway = lambda: None) -> None:
        self.url = url
        self.peer = peer
        self.halfway = halfway
        # Of one who commits in silence, the next stream's welcome tells how far.
        self.least = "its end is" if peer.script is commits_and_is_silent else "2,000 records with 2,000 values are"

    def heal(self) -> None:
        self.peer.script = plain


@contextmanager
def absent() -> Iterator[Trouble]:
    with silent_listener() as url:
        pass
    with Peer() as peer:
        yield Trouble(url, peer)


@contextmanager
def silent() -> Iterator[Trouble]:
    with silent_listener() as url, Peer() as peer:
        yield Trouble(url, peer)


@contextmanager
def dying() -> Iterator[Trouble]:
    with Peer() as peer, Peer() as other:
        other.writers = peer.writers
        yield Trouble(peer.url, other, halfway=peer.stop)


def scripted(script: Callable[[Stream], Says]) -> Callable[[], AbstractContextManager[Trouble]]:
    @contextmanager
    def trouble() -> Iterator[Trouble]:
        with Peer(script) as peer:
            yield Trouble(peer.url, peer)

    return trouble


def never_welcomes(stream: Stream) -> Says:
    for _ in stream.batches():
        yield stream.ack()


def welcomes_and_is_silent(stream: Stream) -> Says:
    yield stream.welcome()
    for _ in stream.batches():
        pass


def commits_and_is_silent(stream: Stream) -> Says:
    yield stream.welcome()
    for batch in stream.batches():
        stream.commit(batch)


def refuses(*metadata: tuple[str, str]) -> Callable[[Stream], Says]:
    def script(stream: Stream) -> Says:
        stream.context.set_trailing_metadata(metadata)
        stream.context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")
        yield

    return script


def refuses_what_is_sent(stream: Stream) -> Says:
    yield stream.welcome()
    for _ in stream.batches():
        stream.context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")


TROUBLES: dict[str, Callable[[], AbstractContextManager[Trouble]]] = {
    "absent": absent,
    "accepts and never answers": silent,
    "dies in mid-run": dying,
    "never welcomes": scripted(never_welcomes),
    "welcomes and is silent": scripted(welcomes_and_is_silent),
    "commits and is silent": scripted(commits_and_is_silent),
    "refuses": scripted(refuses(("penstock-error", "Busy"))),
    "refuses and says for how long": scripted(refuses(("penstock-error", "Busy"), ("retry-after-ms", "300000"))),
    "is refused by somebody else": scripted(refuses()),
    "refuses what is sent": scripted(refuses_what_is_sent),
}


@pytest.fixture(scope="module")
def healthy() -> float:
    """The median of what `log` takes beside a server that is well."""
    with Peer() as peer, TemporaryDirectory() as directory:
        report, _ = loop(peer.url, Path(directory) / "ledger", timeout=60)
        assert report["done"]
        return float(report["log"])


def loop(url: str, ledger: Path, *, timeout: float, halfway: Halfway = lambda: None) -> tuple[dict[str, Any], Training]:
    """Runs LOOP to its end: what it reports, and itself."""
    training = Training(LOOP.replace("TIMEOUT", str(timeout)), url, ledger)
    training.until("halfway")
    halfway()
    assert training.process.stdin
    assert training.process.stdout
    training.process.stdin.write("\n")
    training.process.stdin.flush()
    report = json.loads(training.process.stdout.readline())
    report["stderr"] = training.wait()
    return report, training


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_training_does_not_notice(
    trouble: Callable[[], AbstractContextManager[Trouble]], healthy: float, ledger: Path, spool_root: Path
) -> None:
    with trouble() as server:
        report, training = loop(server.url, ledger, timeout=1.5, halfway=server.halfway)
        assert report["start"] < 5.0  # it is about 10 ms; a server that is waited for takes longer
        assert report["log"] < 10 * healthy
        assert report["finish"] < 1.5 + IN_TIME
        assert not report["done"]
        (directory,) = spool_root.glob(f"{training.run_id}.*")
        told = report["stderr"]
        what = rf"([1-9][\d,]* records? with [1-9][\d,]* values? (is|are)|{server.least}) NOT committed \(.+\)"
        assert re.search(rf"run {training.run_id}: {what}", told)
        assert f"that is kept in {directory}: `penstock sync` sends it" in told
        assert "Traceback" not in told

        server.heal()
        assert "sent, 2,000 records" in sync("--url", server.peer.url)
        frames = server.peer.frames
        assert [(values, step) for values, step, _ in frames] == [({"loss": step / 3}, step) for step in range(2_000)]
        assert server.peer.writer.finish is not None
        assert server.peer.writer.finish.status == runs_pb2.RUN_STATUS_FINISHED


def test_a_server_that_is_back_at_the_same_address(healthy: float, ledger: Path) -> None:
    with Peer() as peer:
        again: list[Peer] = []

        def restart() -> None:
            peer.stop()
            again.append(Peer(port=peer.port))
            again[0].writers = peer.writers

        report, _ = loop(peer.url, ledger, timeout=60, halfway=restart)
        with again[0] as after:
            assert report["done"]
            assert report["log"] < 10 * healthy
            assert beside_ours(report["stderr"]) == ""
            assert [step for _, step, _ in after.frames] == list(range(2_000))


def test_another_replica_takes_the_place_of_one_that_is_killed(tmp_path: Path, dsn: str, ledger: Path) -> None:
    with ServerProcess(tmp_path / "one", dsn=dsn) as one, ServerProcess(tmp_path / "two", dsn=dsn) as two:
        one.start().wait_ready()
        two.grpc_address = one.grpc_address

        def replace() -> None:
            one.kill()
            two.start().wait_ready()

        report, training = loop(one.grpc_address, ledger, timeout=90, halfway=replace)
        assert report["done"]
        assert beside_ours(report["stderr"]) == ""
        with penstock.Client(two.grpc_address) as client:
            assert stored(client, training.run_id) == {"loss": list(range(2_000))}
            assert client.get_run(training.run_id).status is RunStatus.FINISHED


# Going on with a run, and many in one.


def test_a_run_goes_on_after_its_process_was_killed(tmp_path: Path, dsn: str, ledger: Path) -> None:
    """The next process sends what the first could not, and the run is RUNNING until it ends."""
    with ServerProcess(tmp_path / "data", dsn=dsn) as server:
        url = server.start().wait_ready().grpc_address
        training = Training(
            """
            run = start()
            log("first", range(1_000))
            print("logged", flush=True)
            sys.stdin.readline()
            log("first", range(1_000, 2_000))
            print("logged", flush=True)
            time.sleep(600)
            """,
            url,
            ledger,
        )
        training.until("logged")
        server.kill()
        assert training.process.stdin
        training.process.stdin.write("\n")
        training.process.stdin.flush()
        training.until("logged")
        training.kill()
        server.start().wait_ready()

        again = Training(
            """
            run = start()
            log("second", range(1_000))
            print("logged", flush=True)
            sys.stdin.readline()
            """,
            url,
            ledger,
            run_id=training.run_id,
        )
        again.until("logged")
        with penstock.Client(url) as client:

            def adopted() -> bool:
                try:
                    return stored(client, training.run_id).get("first") == list(range(2_000))
                except errors.NotFound:
                    return False

            eventually(adopted, DEADLINE)
            assert client.get_run(training.run_id).status is RunStatus.RUNNING
            assert beside_ours(again.wait()) == ""
            assert stored(client, training.run_id) == again.logged
            assert client.get_run(training.run_id).status is RunStatus.FINISHED


def test_a_run_that_has_ended_is_running_again(server: ServerProcess, client: penstock.Client, ledger: Path) -> None:
    training = Training("run = start()\nlog('first', range(100))\nos._exit(0)", server.grpc_address, ledger)
    training.wait()
    assert "ended as KILLED" in sync("--killed")
    assert client.get_run(training.run_id).status is RunStatus.KILLED
    script = "run = start()\nlog('second', range(100))\nprint('logged', flush=True)\nsys.stdin.readline()"
    again = Training(script, server.grpc_address, ledger, run_id=training.run_id)
    again.until("logged")
    eventually(lambda: client.get_run(training.run_id).status is RunStatus.RUNNING, DEADLINE)
    assert client.get_run(training.run_id).end_time_ms is None
    again.wait()
    assert stored(client, training.run_id) == again.logged
    assert client.get_run(training.run_id).status is RunStatus.FINISHED


@pytest.mark.parametrize("way", ["run_id=run_id", "run_id=None, run_key=run_id"])
def test_many_processes_log_into_one_run(
    way: str, server: ServerProcess, client: penstock.Client, tmp_path: Path
) -> None:
    """Each is a writer of its own; rank 0 ends the run. What bears the same name and step is there from each."""
    script = f"""
    rank = os.environ["RANK"]
    run = start({way})
    for step in range(500):
        run.log({{f"rank/{{rank}}": step / 3, "all": step / 3}}, step, time=1_000_000 + step)
    print(run.id, flush=True)
    """
    shared = uuid.uuid4().hex
    ranks = [
        Training(script, server.grpc_address, tmp_path / "ledger", run_id=shared, RANK=str(rank), WORLD_SIZE="8")
        for rank in range(8)
    ]
    told = set()
    for each in ranks:
        assert each.process.stdout
        told.add(each.process.stdout.readline().strip())
        assert beside_ours(each.wait()) == ""
    (run_id,) = told
    found = stored(client, run_id)
    assert found.pop("all") == sorted([*range(500)] * 8)
    assert found == {f"rank/{rank}": list(range(500)) for rank in range(8)}
    assert client.get_run(run_id).status is RunStatus.FINISHED
