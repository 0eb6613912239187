"""What goes wrong around a stream: no thread, no server, a server that says no, the end of the process."""

from __future__ import annotations

import threading

import pytest
from peer import Peer, eventually

import penstock
from penstock.session import Pace

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
            assert "1 records with 1 values are NOT committed (cannot start the thread" in caplog.text
        assert run.finish(timeout=20)
        assert steps(peer) == [1]
