"""Forks and the ends of processes. Each test is a process of its own, for what it does to itself."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter

import pytest
from peer import Peer

from servers import ServerProcess

PREAMBLE = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork() beside threads: that is what we are here for
import penstock

run = penstock.start_run(experiment="test", url=sys.argv[1])
"""


def run(peer: Peer | str, script: str, *, code: int = 0, before: str = "") -> str:
    """Runs a script to its end; its exit code must be `code`. Returns what it wrote to stderr."""
    url = peer if isinstance(peer, str) else peer.url
    command = [sys.executable, "-c", before + PREAMBLE + textwrap.dedent(script), url]
    # Not what other tests in this process have set by importing Penstock.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=env)
    assert done.returncode == code, done.stderr
    return done.stderr


def by_name(peer: Peer) -> dict[str, list[int]]:
    """The steps of each metric, sorted."""
    found: dict[str, list[int]] = {}
    for values, step, _ in peer.frames:
        for name in values:
            found.setdefault(name, []).append(step)
    return {name: sorted(steps) for name, steps in found.items()}


def test_a_forked_child_has_a_writer_of_its_own_and_the_parents_goes_on() -> None:
    with Peer() as peer:
        stderr = run(
            peer,
            """
            for step in range(100):
                run.log({"parent": step}, step)
            child = os.fork()
            for step in range(100, 200):
                run.log({"parent" if child else "child": step}, step)
            if child == 0:
                sys.exit()  # atexit finishes what the child has logged
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert run.finish(timeout=30)
            """,
        )
    assert by_name(peer) == {"parent": list(range(200)), "child": list(range(100, 200))}
    assert len(peer.writers) == 2
    # The child does not end the run.
    assert sorted(writer.finish.status for writer in peer.writers.values()) == [0, 3]
    assert len({hello.run_id for hello in peer.hellos}) == 1
    assert "fork" not in stderr


def test_a_child_that_logs_nothing_opens_nothing() -> None:
    with Peer() as peer:
        run(
            peer,
            """
            run.log({"parent": 1}, 1)
            with run:
                if os.fork() == 0:
                    sys.exit()  # by way of the with, and of atexit
                os.wait()
            """,
        )
    assert len(peer.writers) == 1
    assert by_name(peer) == {"parent": [1]}


def test_multiprocessing_children_deliver_before_they_end() -> None:
    with Peer() as peer:
        run(
            peer,
            """
            import multiprocessing

            def work(number):
                for step in range(50):
                    run.log({f"worker/{number}": step}, step)

            context = multiprocessing.get_context("fork")
            workers = [context.Process(target=work, args=(number,)) for number in range(3)]
            for worker in workers:
                worker.start()
            for step in range(50):
                run.log({"parent": step}, step)
            for worker in workers:
                worker.join()
                assert worker.exitcode == 0
            assert run.finish(timeout=30)
            """,
        )
    assert by_name(peer) == {name: list(range(50)) for name in ("parent", "worker/0", "worker/1", "worker/2")}


def test_a_child_may_start_a_run_of_its_own() -> None:
    with Peer() as peer:
        run(
            peer,
            """
            child = os.fork()
            if child == 0:
                with penstock.start_run(experiment="other", url=sys.argv[1]) as own:
                    own.log({"child": 1}, 1)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            run.log({"parent": 1}, 1)
            """,
        )
    assert by_name(peer) == {"child": [1], "parent": [1]}
    assert Counter(hello.create_run.experiment_name for hello in peer.hellos) == {"test": 1, "other": 1}


def test_a_child_may_ask_the_server(server: ServerProcess) -> None:
    run(
        server.grpc_address,
        """
        client = penstock.Client(sys.argv[1])
        client.search_runs()
        child = os.fork()
        if child == 0:
            assert client.get_experiment_by_name("Default").id == "0"
            assert penstock.Client(sys.argv[1]).search_runs(experiments=["none"]) == []
            try:
                client.get_run("0" * 32)
            except penstock.errors.NotFound as error:
                assert "does not exist" in str(error)
                sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert client.get_experiment_by_name("Default").id == "0"
        """,
    )


def test_no_child_crashes_whether_it_logs_or_not() -> None:
    with Peer() as peer:
        run(
            peer,
            """
            import multiprocessing

            def work(number):
                if number % 4 == 0:
                    run.log({"child": 1.0}, number)
                time.sleep(0.05)

            context = multiprocessing.get_context("fork")
            for begin in range(0, 40, 4):
                workers = [context.Process(target=work, args=(begin + each,)) for each in range(4)]
                for worker in workers:
                    worker.start()
                    run.log({"parent": 1.0})
                for worker in workers:
                    worker.join()
                    assert worker.exitcode == 0, worker.exitcode
            """,
        )
    assert by_name(peer) == {"child": list(range(0, 40, 4)), "parent": list(range(40))}


def test_where_grpc_was_loaded_with_its_handlers_on_nothing_crashes_either() -> None:
    script = """
    import multiprocessing

    def work():
        time.sleep(0.1)

    context = multiprocessing.get_context("fork")
    for step in range(20):
        workers = [context.Process(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        run.log({"parent": 1.0}, step)
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0, worker.exitcode
    """
    with Peer() as peer:
        run(peer, script, before="import grpc")
    assert by_name(peer) == {"parent": list(range(20))}


def test_forks_while_threads_and_signal_handlers_log() -> None:
    with Peer() as peer:
        run(
            peer,
            """
            signals = iter(range(10**9))
            signal.signal(signal.SIGALRM, lambda *_: run.log({"signal": 1.0}, next(signals)))
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            done = threading.Event()
            counts = [0] * 8

            def work(number):
                while not done.is_set():
                    run.log({f"thread/{number}": 1.0}, counts[number])
                    counts[number] += 1
                    time.sleep(0.0005)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for step in range(150):
                child = os.fork()
                if child == 0:
                    run.log({"child": 1.0}, step)  # into the child's own buffer, which dies with it
                    os._exit(0)
                os.waitpid(child, 0)
                run.log({"parent": 1.0}, step)
            signal.setitimer(signal.ITIMER_REAL, 0)
            done.set()
            for thread in threads:
                thread.join()
            run.log({"counts": {str(number): count for number, count in enumerate(counts)}, "signals": next(signals)})
            assert run.finish(timeout=60)
            """,
        )
    found = by_name(peer)
    found.pop("child", None)
    (told,) = [values for values, _, _ in peer.frames if "signals" in values]
    assert found["parent"] == list(range(150))
    assert found["signal"] == list(range(int(told["signals"])))
    for number in range(8):
        assert found[f"thread/{number}"] == list(range(int(told[f"counts/{number}"])))


def test_the_end_of_the_process_finishes_open_runs() -> None:
    with Peer() as peer:
        run(peer, "run.log({'loss': 1.0}, 1)")
    assert by_name(peer) == {"loss": [1]}
    assert peer.writer.finish.status == 3


def test_an_uncaught_exception_fails_open_runs() -> None:
    with Peer() as peer:
        stderr = run(peer, "run.log({'loss': 1.0}, 1)\nraise ValueError('no')", code=1)
    assert by_name(peer) == {"loss": [1]}
    assert peer.writer.finish.status == 4
    assert "ValueError: no" in stderr


def test_an_interrupted_with_is_killed() -> None:
    with Peer() as peer:
        run(
            peer,
            """
            with run:
                run.log({"loss": 1.0}, 1)
                os.kill(os.getpid(), signal.SIGINT)
                while True:  # another thread may be the one that is struck, which does not end this one's sleep
                    time.sleep(0.05)
            """,
            code=-2,
        )
    assert by_name(peer) == {"loss": [1]}
    assert peer.writer.finish.status == 5


def test_without_a_server_the_process_ends_in_time_and_says_what_is_lost() -> None:
    stderr = run(
        "127.0.0.1:9",
        """
        run._finish_timeout = 2.5
        for step in range(10):
            run.log({"loss": 1.0}, step)
        """,
    )
    assert "10 records with 10 values are NOT committed" in stderr
    assert "10 records to be committed" in stderr  # the progress line
    assert "Traceback" not in stderr


@pytest.mark.parametrize("what", ["import penstock", "import penstock; penstock.__version__; dir(penstock)"])
def test_importing_loads_nothing(what: str) -> None:
    code = f"{what}; import sys; print(sorted({{'grpc', 'google.protobuf', 'numpy', 'asyncio'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
