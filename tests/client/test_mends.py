"""What goes wrong around a stream: no thread, no server, a server that says no, the end of the process."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import asdict

import grpc
import pytest
from peer import Peer, Says, Stream, eventually, plain
from spools import in_memory

import penstock
from penstock.address import parse_address
from penstock.relay import _COMMAND, RelayedStream
from penstock.session import Pace
from penstock.transport import Broken

QUICK = Pace(backoff_least=0.01, backoff_most=0.05, welcome_timeout=1.0, stall_timeout=0.5, leave_timeout=0.5)


def start(peer: Peer, pace: Pace = QUICK) -> penstock.ActiveRun:
    return penstock.start_run(experiment="test", url=peer.url, pace=pace)


def steps(peer: Peer) -> list[int]:
    return [step for _, step, _ in peer.frames]


def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a system does that has no more of them; for ours only."""
    begin = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name.startswith("penstock "):
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)


def test_a_thread_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer() as peer:
        with monkeypatch.context() as patch:
            refuse_threads(patch)
            run = start(peer)
            run.log({"loss": 1.0}, 1)
            run.log({"loss": 1.0}, 2)
        run.log({"loss": 1.0}, 3)
        eventually(lambda: steps(peer) == [1, 2, 3])
        assert run.finish(timeout=20)


def test_without_a_thread_finish_says_that_all_is_lost_and_may_be_called_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Peer() as peer:
        with monkeypatch.context() as patch:
            refuse_threads(patch)
            run = start(peer)
            run.log({"loss": 1.0}, 1)
            assert not run.finish()
            assert "1 record with 1 value is NOT committed (cannot start the thread" in caplog.text
        assert run.finish(timeout=20)
        assert steps(peer) == [1]


def test_while_somebody_waits_for_the_end_a_server_that_is_back_is_found_soon() -> None:
    def away_for_long(stream: Stream) -> Says:
        if stream.number <= 4:
            stream.context.abort(grpc.StatusCode.UNAVAILABLE, "soon")
        yield from plain(stream)

    with Peer(away_for_long) as peer:
        run = start(peer, Pace(backoff_least=20.0, backoff_most=60.0))
        run.log({"loss": 1.0}, 1)
        eventually(lambda: run.state == "backoff")
        assert run.finish(timeout=15)  # after three more streams that fail
        assert steps(peer) == [1]


def test_streams_that_lived_a_while_are_no_failures() -> None:
    def cut_when_it_is_old(stream: Stream) -> Says:
        yield stream.welcome()
        time.sleep(0.1)
        stream.context.abort(grpc.StatusCode.UNAVAILABLE, "the balancer's limit")

    with Peer(cut_when_it_is_old) as peer:
        run = start(peer)  # which has nothing to say, so nothing is acknowledged
        eventually(lambda: len(peer.hellos) >= 4)
        assert run._sender._failures <= 1


def say_no(code: grpc.StatusCode, until: int, *, welcome: bool) -> Callable[[Stream], Says]:
    """The first `until` streams end with `code`, at Hello or after the first batch, which is not committed."""

    def script(stream: Stream) -> Says:
        if stream.number > until:
            yield from plain(stream)
            return
        if welcome:
            yield stream.welcome()
            next(stream.batches())
        stream.fail(code, "no")

    return script


NEVER = [
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.UNIMPLEMENTED,
]


@pytest.mark.parametrize("code", NEVER)
def test_a_no_to_hello_parks(code: grpc.StatusCode) -> None:
    with Peer(say_no(code, 1, welcome=False)) as peer:
        run = start(peer)
        run.log({"loss": 1.0}, 1)
        eventually(lambda: run.state == "parked")
        assert len(peer.hellos) == 1


@pytest.mark.parametrize("code", NEVER)
def test_a_no_in_mid_stream_opens_again(code: grpc.StatusCode) -> None:
    with Peer(say_no(code, 3, welcome=True)) as peer:
        run = start(peer)
        run.log({"loss": 1.0}, 1)
        assert run.finish(timeout=20)
        assert steps(peer) == [1]


def test_a_message_that_is_called_wrong_again_and_again_parks() -> None:
    with Peer(say_no(grpc.StatusCode.INVALID_ARGUMENT, 100, welcome=True)) as peer:
        run = start(peer)
        run.log({"loss": 1.0}, 1)
        eventually(lambda: run.state == "parked")
        assert len(peer.hellos) == 5


def test_a_server_that_is_not_there_is_told_of_once_and_so_is_that_it_has_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    with Peer() as peer:
        port = peer.port
    pace = Pace(backoff_least=0.01, backoff_most=0.05, absent_timeout=0.2)
    run = penstock.start_run(experiment="test", url=f"127.0.0.1:{port}", pace=pace)
    run.log({"loss": 1.0}, 1)
    eventually(lambda: f"no server at 127.0.0.1:{port} (UNAVAILABLE" in caplog.text)
    assert f"{run.id}." in caplog.text  # its place in the spool
    assert "check PENSTOCK_URL" in caplog.text
    with Peer(port=port) as peer:
        assert run.finish(timeout=20)
        assert steps(peer) == [1]
    assert caplog.text.count("no server at") == 1
    assert caplog.text.count("has answered") == 1


def test_a_server_that_was_there_is_not_called_missing(caplog: pytest.LogCaptureFixture) -> None:
    with Peer() as peer:
        run = start(peer, Pace(backoff_least=0.01, backoff_most=0.05, absent_timeout=0.0))
        eventually(lambda: run.state == "streaming")
    failures = run._sender._failures
    eventually(lambda: run._sender._failures >= failures + 3)
    assert "no server" not in caplog.text


def run_script(peer: Peer | str, script: str) -> str:
    """Runs it to its end. Returns what it wrote to stderr."""
    url = peer if isinstance(peer, str) else peer.url
    env = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=env).stderr


PREAMBLE = """
import atexit, os, signal, sys, threading, time
import penstock, penstock.exits

def start(**more):
    return penstock.start_run(experiment="test", url=sys.argv[1], **more)

def as_python_3_12():
    def refused(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    penstock.exits._THREADS_AT_EXIT = False
    start().finish()
    atexit.register(lambda: setattr(threading.Thread, "start", refused))
"""


def test_the_end_of_the_script_delivers_where_atexit_can_start_no_threads() -> None:
    def later_runs_are_cut(stream: Stream) -> Says:
        if 1 < stream.number <= 4:
            stream.context.abort(grpc.StatusCode.UNAVAILABLE, "soon")
        yield from plain(stream)

    with Peer(later_runs_are_cut) as peer:
        stderr = run_script(
            peer,
            """
            as_python_3_12()
            run = start()
            def work():
                time.sleep(0.5)
                run.log({"thread": 2.0}, 2)
            threading.Thread(target=work).start()
            run.log({"loss": 1.0}, 1)
            """,
        )
        assert sorted(steps(peer)) == [1, 2], stderr
    assert "NOT committed" not in stderr
    assert "Traceback" not in stderr


def test_forked_children_deliver_at_their_ends_where_atexit_can_start_no_threads() -> None:
    with Peer() as peer:
        stderr = run_script(
            peer,
            """
            import multiprocessing

            as_python_3_12()
            run = start()
            run.log({"parent": 1.0}, 1)
            child = os.fork()
            if child == 0:
                run.log({"child": 1.0}, 2)
                sys.exit()
            assert os.waitpid(child, 0)[1] == 0
            work = lambda: run.log({"worker": 1.0}, 3)
            worker = multiprocessing.get_context("fork").Process(target=work)
            worker.start()
            worker.join()
            assert worker.exitcode == 0
            """,
        )
        assert sorted(steps(peer)) == [1, 2, 3], stderr
    assert "NOT committed" not in stderr


def test_ctrl_c_while_the_end_waits_is_told_what_is_lost() -> None:
    stderr = run_script(
        "127.0.0.1:9",
        """
        run, other = start(), start()
        run.log({"loss": 1.0}, 1)
        other.log({"loss": 1.0}, 1)
        other.log({"loss": 1.0}, 2)
        def interrupt():
            time.sleep(1.5)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt, daemon=True).start()
        """,
    )
    assert "1 record with 1 value is NOT committed" in stderr
    assert "2 records with 2 values are NOT committed" in stderr


def test_a_run_whose_finish_was_given_up_is_told_of_at_the_end() -> None:
    stderr = run_script(
        "127.0.0.1:9",
        """
        run = start()
        run.log({"loss": 1.0}, 1)
        run.finish(timeout=0.1)
        print("now the end", file=sys.stderr)
        """,
    )
    assert "1 record with 1 value is NOT committed" in stderr.partition("now the end")[2]


def test_what_comes_after_the_end_is_refused_and_counted() -> None:
    with Peer() as peer:
        run = start(peer)
        run.log({"loss": 1.0}, 1)
        run._begin_finish(None)
        assert run._sender.settled.wait(20)
        run.log({"loss": 1.0}, 2)
        assert not run.finish(timeout=5)
        assert run.refused == 1


def test_names_that_always_change_are_not_kept_for_ever() -> None:
    spool = in_memory()
    for number in range(300):
        spool.learn((f"{number:03}" + "x" * 200_000,))
    assert 0 < sum(len(name) for names in spool.shapes for name in names) <= 16 << 20


@pytest.mark.parametrize(
    "cut", [b"\x01\x00", b"\x05\x00\x00\x00ab", b"\xff\xff\xff\xff", b'\xff\xff\xff\xff["OK", ""'], ids=repr
)
def test_what_a_relay_leaves_unsaid_is_a_break(cut: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"import sys; sys.stdout.buffer.write(bytes({list(cut)}))"
    monkeypatch.setattr("penstock.relay._COMMAND", script)
    with RelayedStream(parse_address("127.0.0.1:9"), "/x/y", ()) as stream:
        with pytest.raises(Broken) as told:
            list(stream)
        assert told.value.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("said", [b"", b"\x01\x00", b"\x05\x00\x00\x00ab"], ids=["nothing", "header", "message"])
def test_a_relay_whose_reader_is_gone_ends_without_a_word(said: bytes) -> None:
    told = map(json.dumps, (sys.path, asdict(parse_address("127.0.0.1:9")), "/x/y", 5, os.getpid()))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        command = [sys.executable, "-c", _COMMAND, *told]
        done = subprocess.run(command, input=said, stdout=gone, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == b""


@pytest.mark.parametrize("workspace", ["grün", "a\nb", "日本"])
def test_a_workspace_must_fit_into_a_header(workspace: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        parse_address("localhost", workspace)
