"""How processes end: whatever the way, what they logged is in PostgreSQL once, and they say nothing but what is so.

Each program runs twice: with a server, and with one that accepts its connection and never answers, where what is left
is delivered by `penstock sync`.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import pytest
from peer import Peer, Says, Stream, eventually
from training import DEADLINE, Training, beside_ours, silent_listener, stored, sync

import penstock
from penstock.address import parse_address
from penstock.relay import _COMMAND
from penstock.runs import RunStatus
from penstock.v1 import metrics_pb2 as pb
from servers import ServerProcess

METHOD = "/penstock.v1.MetricService/StreamMetrics"

FINISHED, FAILED, KILLED, RUNNING = RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED, RunStatus.RUNNING


@dataclass(frozen=True)
class Way:
    """A program, how it ends, and the status of its run after that. `says` is in its stderr, and then that is all."""

    script: str
    status: RunStatus
    code: int = 0
    says: str = ""
    torn: bool = False  # killed while it logged: one record more than it knows of may have been written


PATIENCE = "finish_timeout=2.0 if os.environ.get('STALLED') else 60.0"
WAYS = {
    "the end of the script": Way("run = start(PATIENCE)\nlog('loss', range(100))", FINISHED),
    "the end of the with": Way("with start(PATIENCE) as run:\n    log('loss', range(100))", FINISHED),
    "an exception in the with": Way(
        "with start(PATIENCE) as run:\n    log('loss', range(100))\n    raise ValueError('no')",
        FAILED,
        1,
        "ValueError: no",
    ),
    "an exception without a with": Way(
        "run = start(PATIENCE)\nlog('loss', range(100))\nraise ValueError('no')", FAILED, 1, "ValueError: no"
    ),
    "sys.exit": Way("run = start(PATIENCE)\nlog('loss', range(100))\nsys.exit(3)", FINISHED, 3),
    "sys.exit in the with": Way(
        "with start(PATIENCE) as run:\n    log('loss', range(100))\n    sys.exit(3)", FAILED, 3
    ),
    "SIGTERM": Way(
        "run = start(PATIENCE)\nlog('loss', range(100))\nos.kill(os.getpid(), signal.SIGTERM)", RUNNING, -15
    ),
    "SIGTERM, handled by sys.exit": Way(
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        run = start(PATIENCE)
        log("loss", range(100))
        strike(signal.SIGTERM)
        log("loss", range(100, 200))
        """,
        FINISHED,
        143,
    ),
    "SIGTERM, handled by finish": Way(
        """
        def end(*_):
            log("loss", range(100, 200))
            run.finish("KILLED", timeout=2.0 if os.environ.get("STALLED") else 60.0)
            os._exit(143)

        signal.signal(signal.SIGTERM, end)
        run = start(PATIENCE)
        log("loss", range(100))
        strike(signal.SIGTERM)
        log("never", range(100))
        """,
        KILLED,
        143,
    ),
    "SIGTERM, handled by a last log and os._exit": Way(
        """
        def end(*_):
            log("loss", range(100, 200))
            os._exit(143)

        signal.signal(signal.SIGTERM, end)
        run = start(PATIENCE)
        log("loss", range(100))
        strike(signal.SIGTERM)
        """,
        RUNNING,
        143,
    ),
    "Ctrl-C in the with": Way(
        "with start(PATIENCE) as run:\n    log('loss', range(100))\n    strike(signal.SIGINT)",
        KILLED,
        -2,
        "KeyboardInterrupt",
    ),
    "Ctrl-C without a with": Way(
        "run = start(PATIENCE)\nlog('loss', range(100))\nstrike(signal.SIGINT)",
        KILLED,
        -2,
        "KeyboardInterrupt",
    ),
    "os._exit": Way("run = start(PATIENCE)\nlog('loss', range(100))\nos._exit(4)", RUNNING, 4),
    "os.abort": Way("run = start(PATIENCE)\nlog('loss', range(100))\nos.abort()", RUNNING, -6),
    "SIGKILL": Way("run = start(PATIENCE)\nlog('loss', range(100))\nos.kill(os.getpid(), signal.SIGKILL)", RUNNING, -9),
    "SIGKILL while threads log": Way(
        """
        import itertools

        run = start(PATIENCE)
        for number in range(4):
            threading.Thread(target=log, args=(f"loss/{number}", itertools.count())).start()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        RUNNING,
        -9,
        torn=True,
    ),
    "threads that log on after the main one": Way(
        """
        def work():
            threading.main_thread().join()
            log("late", range(100))

        run = start(PATIENCE)
        threading.Thread(target=work).start()
        log("loss", range(100))
        """,
        FINISHED,
    ),
    "a forked child's sys.exit": Way(
        """
        run = start(PATIENCE)
        log("loss", range(100))
        child = os.fork()
        if child == 0:
            log("child", range(100))
            sys.exit(5)
        log("loss", range(100, 200))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        """,
        FINISHED,
    ),
    "a forked child's os._exit, and its SIGKILL": Way(
        """
        run = start(PATIENCE)
        log("loss", range(100))
        for end in (lambda: os._exit(5), lambda: os.kill(os.getpid(), signal.SIGKILL)):
            child = os.fork()
            if child == 0:
                log(f"child/{os.getpid()}", range(100))
                end()
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (5, -9)
        log("loss", range(100, 200))
        """,
        FINISHED,
    ),
    "workers of multiprocessing, forked": Way(
        """
        import multiprocessing

        run = start(PATIENCE)
        log("loss", range(100))
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=log, args=(f"worker/{number}", range(100))) for number in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        """,
        FINISHED,
    ),
}

# Imported by workers that are spawned, which find functions by their module.
WORKER = """
import os, sys, penstock

def work(url, run_id, ledger, number, patience):
    with penstock.start_run("training", run_id=run_id, url=url, finish_timeout=patience) as run:
        told = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for step in range(100):
            run.log({f"worker/{number}": step / 3}, step, time=1_000_000 + step)
            os.write(told, f"worker/{number} {step}\\n".encode())
"""
WAYS["workers of multiprocessing, spawned"] = Way(
    """
    import multiprocessing, spawned

    run = start(PATIENCE)
    log("loss", range(100))
    context = multiprocessing.get_context("spawn")
    patience = 2.0 if os.environ.get("STALLED") else 60.0
    workers = [
        context.Process(target=spawned.work, args=(url, run_id, ledger, number, patience)) for number in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    """,
    FINISHED,
)


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    with silent_listener() as url:
        yield url


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def end(way: Way, url: str, ledger: Path, **env: str) -> Training:
    """Runs it to its end, and looks at what it says."""
    (ledger.parent / "spawned.py").write_text(WORKER)
    training = Training(way.script.replace("PATIENCE", PATIENCE), url, ledger, PYTHONPATH=str(ledger.parent), **env)
    noise = beside_ours(training.wait(way.code))
    if way.says:
        assert noise.startswith("Traceback")
        assert noise.count("Traceback") == 1
        assert noise.rstrip().endswith(way.says)
    else:
        assert noise == ""
    return training


def check(way: Way, training: Training, client: penstock.Client) -> None:
    """What was logged is there, once, and the run has its status."""
    found, logged = stored(client, training.run_id), training.logged
    assert found.keys() == logged.keys()
    for name, steps in logged.items():
        assert steps == list(range(len(steps)))
        more = len(found[name]) - len(steps)
        assert more in ((0, 1) if way.torn else (0,))
        assert found[name] == list(range(len(steps) + more))
    assert client.get_run(training.run_id).status is way.status


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_with_a_server(way: Way, server: ServerProcess, client: penstock.Client, ledger: Path) -> None:
    training = end(way, server.grpc_address, ledger)
    sync()
    check(way, training, client)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_with_a_server_that_never_answers(
    way: Way, silent: str, server: ServerProcess, client: penstock.Client, ledger: Path
) -> None:
    training = end(way, silent, ledger, STALLED="yes")
    sync("--url", server.grpc_address)
    check(way, training, client)


def test_daemon_threads_that_log_to_the_last_moment(
    server: ServerProcess, client: penstock.Client, ledger: Path
) -> None:
    """What they log once the run has ended is refused; all before that is there, and so is the process's end."""
    script = """
    import itertools

    def work(number):
        for step in itertools.count():
            before = run.refused
            run.log({f"loss/{number}": step / 3}, step, time=1_000_000 + step)
            if run.refused == before:
                os.write(told, f"loss/{number} {step}\\n".encode())

    run = start()
    for number in range(4):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    time.sleep(0.5)
    """
    training = Training(script, server.grpc_address, ledger)
    assert beside_ours(training.wait()) == ""
    sync()
    found, logged = stored(client, training.run_id), training.logged
    assert len(logged) == 4
    for name, steps in found.items():
        assert steps == list(range(len(steps)))
        # A thread may have seen another's refusal as its own, or be cut off before it told.
        assert set(logged[name]) <= set(steps)
    assert client.get_run(training.run_id).status is FINISHED


def test_a_signal_may_end_the_process_while_it_logs(
    server: ServerProcess, client: penstock.Client, ledger: Path
) -> None:
    """SystemExit out of a handler, wherever it strikes in `log`: what is written and what is counted stay the same."""
    for _ in range(5):
        script = """
        import itertools

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        run = start()
        print("ready", flush=True)
        log("loss", itertools.count())
        """
        training = Training(script, server.grpc_address, ledger)
        training.until("ready")
        training.process.send_signal(signal.SIGTERM)
        assert beside_ours(training.wait()) == ""
        steps = stored(client, training.run_id).get("loss", [])
        assert steps == list(range(len(steps)))
        assert len(steps) - len(training.logged.get("loss", [])) in (0, 1)
        assert client.get_run(training.run_id).status is FINISHED
        ledger.unlink(missing_ok=True)


def test_no_call_is_left_to_the_end_of_the_interpreter() -> None:
    """Destroying one takes a lock of gRPC's, which one of its threads may hold that the interpreter has stopped."""

    def cut_then_linger(stream: Stream) -> Says:
        yield stream.welcome()
        if stream.number == 1:
            stream.fail(grpc.StatusCode.UNAVAILABLE, "not now")
        for batch in stream.batches():
            stream.commit(batch)
        yield from stream.end()
        eventually(lambda: not stream.context.is_active())  # so that the client has to cancel it

    gc.collect()  # what other tests have left
    gc.disable()
    try:
        with Peer(cut_then_linger) as peer:
            with penstock.start_run("calls", url=peer.url) as run:
                run.log({"loss": 0.5})
            assert run.state == "closed"
            assert peer.writer.streams == 2
            # An error of the peer's own is no call.
            errors = [each for each in gc.get_objects() if isinstance(each, grpc.RpcError)]
            gone = [type(each) for each in errors if isinstance(each, grpc.Call)]
            assert gone == []
    finally:
        gc.enable()


def test_a_relay_whose_stream_is_cut_while_more_may_come_ends_without_a_word() -> None:
    def cut(stream: Stream) -> Says:
        yield stream.welcome()

    hello = pb.StreamMetricsRequest(hello=pb.Hello(writer_id=b"w" * 16)).SerializeToString()
    with Peer(cut) as peer:
        told = map(json.dumps, (sys.path, asdict(parse_address(peer.url)), METHOD, 60, os.getpid()))
        relay = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with relay:
            assert relay.stdin
            assert relay.stderr
            relay.stdin.write(len(hello).to_bytes(4, "little") + hello)
            relay.stdin.flush()  # and it stays open
            assert relay.wait(DEADLINE) == 0
            assert relay.stderr.read() == b""


def test_a_relay_does_not_outlive_a_child_that_dies_before_the_server_answers(ledger: Path) -> None:
    """Nor would whoever waits for the process's stderr to be closed wait for ever."""

    def never(stream: Stream) -> Says:
        yield from (stream.ack() for _ in stream.batches())

    script = """
    run = start()
    child = os.fork()
    if child == 0:
        log("loss", range(100))
        sys.stdin.readline()  # the relay has its stream by then
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    os._exit(6)
    """
    with Peer(never) as peer:
        training = Training(script, peer.url, ledger)
        eventually(lambda: len(peer.hellos) == 2, DEADLINE)
        assert beside_ours(training.wait(6)) == ""


# A thousand take about a minute.
ROUNDS = int(os.environ.get("FORK_ROUNDS", "100"))
FORKS = """
import itertools

rounds, many = int(os.environ["ROUNDS"]), 32
signals = itertools.count()
done = threading.Event()

def interrupted(*_):
    log("signal", [next(signals)])

def work(number):
    for step in itertools.count():
        if done.is_set():
            return
        log(f"thread/{number}", [step])
        time.sleep(0.02)

run = start()
signal.signal(signal.SIGALRM, interrupted)
threads = [threading.Thread(target=work, args=(number,)) for number in range(many)]
for thread in threads:
    thread.start()
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
for round in range(rounds):
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if round % 4 == 0:
            log(f"child/{round}", range(3))
        if round % 40 == 0:
            assert run.finish(timeout=60)
        os._exit(7)
    log("parent", [round])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 7, status
signal.setitimer(signal.ITIMER_REAL, 0)
done.set()
for thread in threads:
    thread.join()
"""


@pytest.mark.timeout(120 + ROUNDS)
def test_forks_while_threads_log_and_signals_strike(
    server: ServerProcess, client: penstock.Client, ledger: Path
) -> None:
    """Of the children some finish, and some leave what they have logged to `penstock sync`."""
    training = Training(FORKS, server.grpc_address, ledger, ROUNDS=str(ROUNDS))
    assert beside_ours(training.wait(seconds=DEADLINE + ROUNDS)) == ""
    sync()
    assert stored(client, training.run_id) == training.logged
    assert training.logged["parent"] == list(range(ROUNDS))
    assert sum(name.startswith("child/") for name in training.logged) == len(range(0, ROUNDS, 4))
    assert client.get_run(training.run_id).status is FINISHED
