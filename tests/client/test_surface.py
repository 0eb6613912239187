"""What people do to the surface of the client that nobody meant them to, and what they may do that looks as if not."""

from __future__ import annotations

import contextvars
import io
import signal
import sys
import threading

import pytest
from peer import Peer
from test_forks import run as run_script

import penstock
from penstock.session import Pace

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
        assert "1 records to be committed" in stderr.written


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
    assert "1 records with 1 values are NOT committed" in caplog.text
    assert "the run itself is NOT recorded" in caplog.text


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
