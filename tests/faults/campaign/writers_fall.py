"""Campaigns in which writing processes are killed, end in every way there is, and are taken over while they sleep."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

from campaign import crowd
from campaign import journal as words
from campaign.journal import Journal
from campaign.proxy import Proxy
from campaign.stage import Stage
from campaign.troupe import Life
from penstock import Client


def killed(stage: Stage) -> None:
    """SIGKILL of a writer; what it leaves is sent by the next that starts, or by `penstock sync`."""
    proxy = stage.proxy(stage.server())
    stage.begin(proxy.address)
    for number in stage.rounds(pause=0.3):
        life = _unacked(stage)
        away = stage.chance.random() < 0.3  # then more is left behind
        if away:
            _away(stage, proxy)
        stage.strike("SIGKILL of a writer", "server away" if away else "", unacked=life.unacked)
        life.kill()
        proxy.clear()
        if number % 10 == 9:
            stage.sync(codes=(0, 1))  # 1: what the living have is left to them
        stage.troupe.again(life)
    stage.finish()
    stage.sync()


def ended(stage: Stage) -> None:
    """A writer ends by an exception, by SIGTERM with and without a handler, by os._exit, and another goes on."""
    proxy = stage.proxy(stage.server())
    stage.begin(proxy.address)
    ends = {"exception": 1, "sigterm": 0, "exit": 0, "default": -signal.SIGTERM}
    kinds = {
        "exception": "uncaught exception",
        "sigterm": "SIGTERM, handled",
        "exit": "os._exit",
        "default": "SIGTERM, unhandled",
    }
    for number in stage.rounds(pause=0.3):
        end = list(ends)[number % len(ends)]
        life = _unacked(stage)
        _leave(life)
        dying = stage.troupe.again(life, end=end if end in ("exception", "sigterm", "exit") else "abandon")
        dying.wait_until(lambda it: it.unacked, "record")
        if stage.chance.random() < 0.3:
            _away(stage, proxy)
        stage.strike(kinds[end], unacked=dying.unacked)
        if end in ("sigterm", "default"):
            dying.signal(signal.SIGTERM)
        else:
            dying.stop()
        proxy.clear()
        code = dying.wait()
        assert code == ends[end], f"exit code {code} after {end}: {dying.said}"
        stage.troupe.again(dying, end="finish")
    stage.finish()
    stage.sync()


def _leave(life: Life) -> None:
    """Comes to its end with everything committed."""
    life.stop()
    assert life.wait() == 0
    assert life.journal.words[words.ENDED] == 1, life.said


def taken_over(stage: Stage) -> None:
    """A writer sleeps (SIGSTOP), `penstock sync --take-over` sends what it has, and it wakes up and goes on."""
    stage.measures = False
    server = stage.server()
    stage.begin(server.grpc_address)
    for _ in stage.rounds(pause=0.3):
        life = _unacked(stage)
        stage.strike("zombie sender", unacked=life.unacked)
        life.signal(signal.SIGSTOP)
        # Those that are awake are fenced as well, and take their spools back.
        stage.sync("--take-over", codes=(0, 1))
        life.signal(signal.SIGCONT)
        stage.recover()
    stage.finish()
    stage.sync()


def server_absent(stage: Stage) -> None:
    """No server from the start of the writers to their end; `penstock sync` sends it all when there is one."""
    server = stage.server()
    server.stop()
    while len(stage.strikes) < stage.size.faults:
        numbers = range(1, stage.size.writers + 1)
        calls = stage.chance.randint(50, 300)
        given = {"calls": calls, "timeout": 0.5}
        lives = []
        for number in numbers:
            stage.strike("server absent from start to end", unacked=True)
            mode = "offline" if number % 2 else "online"
            writer = number + 100 * len(stage.strikes)
            lives.append(stage.troupe.begin(stage.part(writer, server.grpc_address, mode=mode, **given)))
        for life in lives:
            assert life.wait() == 0, life.said
            state = life.journal.words
            assert state[words.RETURNED] == calls
            if life.part.mode == "online":  # offline, what is spooled is all that there is to do
                assert state[words.ENDED] == 2, "finish said that all is committed, without a server"
            assert state[words.FINISHING] < 30e9, life
        stage.sync("--timeout", "0.5", codes=(1,))  # still none: it says so
    server.start().wait_ready()
    stage.sync()


def many_ranks(stage: Stage) -> None:
    """Many ranks log the same names and steps into one run, and the server is killed in between."""
    server = stage.server()
    run_id = stage.part(1, "").run_id
    ranks = stage.size.writers
    for rank in range(ranks):
        part = stage.part(rank + 1, server.grpc_address, run_id=run_id, patient=True)  # they start all at once
        stage.troupe.begin(replace(part, rank=rank, ranks=ranks))
    stage.troupe.wait_streaming()
    for _ in stage.rounds():
        stage.strike("SIGKILL of the server under many ranks")
        server.kill()
        server.start().wait_ready()
    stage.finish()


def poisoned(stage: Stage) -> None:
    """Among good records there are some that can never be stored. They alone are refused."""
    # No connection is cut: who is told of a refusal is told once.
    server = stage.server()
    lives = stage.begin(server.grpc_address, poison=50)
    while len(stage.strikes) < stage.size.faults:
        time.sleep(0.2)
        stage.troupe.wait_acked()
        poison = sum(life.journal.words[words.RETURNED] // 50 for life in lives)
        while len(stage.strikes) < poison:
            stage.strike("poison in a good batch", unacked=True)  # itself, to begin with
    stage.finish()
    for life in lives:
        state = life.journal.words
        given = -(-state[words.RETURNED] // 50)
        # The first param is stored; whatever has another value is not.
        assert state[words.REJECTED] == given - 1, f"{given} conflicting params: {life.journal}\n{life.said}"


def clocks(stage: Stage) -> None:
    """The writers' clocks jump by up to ten years, either way."""
    proxy = stage.proxy(stage.server())
    lives = stage.begin(proxy.address, per_step=1, clock=1 + stage.chance.getrandbits(30))
    while len(stage.strikes) < stage.size.faults:
        time.sleep(0.1)
        jumps = sum(life.journal.words[words.RETURNED] // 100 for life in lives)
        while len(stage.strikes) < jumps:
            stage.strike("clock jumps by years")
    stage.finish()


def deleted(stage: Stage) -> None:
    """A run is deleted under its writer, restored, and what is in the spool is sent."""
    server = stage.server()
    stage.begin(server.grpc_address)
    with Client(server.grpc_address) as client:
        for _ in stage.rounds(pause=0.3):
            life = _unacked(stage)
            stage.strike("run deleted in mid-stream", unacked=life.unacked)
            client.delete_run(life.part.run_id)
            life.wait_until(lambda it: it.journal.words[words.STATE] == 1, "end of its stream")
            life.stop()
            assert life.wait() == 0
            assert life.journal.words[words.ENDED] == 2, "finish said that all is committed, into a deleted run"
            client.restore_run(life.part.run_id)
            stage.sync(codes=(0, 1))
            stage.troupe.again(life)
    stage.finish()
    stage.sync()


def _unacked(stage: Stage) -> Life:
    """A writer that has something to lose, by chance."""
    deadline = time.monotonic() + 120
    while True:
        if lives := [life for life in stage.troupe.streaming if life.unacked]:
            return stage.chance.choice(lives)
        assert time.monotonic() < deadline, "nobody has anything unacknowledged"
        time.sleep(0.001)


def _away(stage: Stage, proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut(reset=True)
    time.sleep(stage.chance.uniform(0.05, 0.5))


def crowded(stage: Stage) -> None:
    """Threads, a signal handler that logs inside of other calls, and forks: a thousand rounds, and none hangs."""
    proxy = stage.proxy(stage.server())
    lives = []
    for number in range(stage.size.writers):
        part = stage.part(1 + number * 2_000, proxy.address, every=0)
        lives.append(stage.troupe.begin(part, "campaign.crowd"))
    while len(stage.strikes) < stage.size.faults:
        time.sleep(0.1)
        assert all(life.alive for life in lives), "\n".join(life.said for life in lives)
        forks = sum(life.journal.words[crowd.FORKS] for life in lives)
        while len(stage.strikes) < forks:
            met = sum(life.journal.words[crowd.FORKS_UNACKED] for life in lives)
            stage.strike("fork among threads and signals", unacked=sum(each.unacked for each in stage.strikes) < met)
        if stage.chance.random() < 0.05:
            proxy.cut(reset=True)
    stage.finish()
    stage.sync()
    for life in lives:
        voices = 2 + crowd.THREADS + life.journal.words[crowd.FORKS]
        found = (crowd.sequence(life.part, number) for number in range(1, voices))
        stage.beside += [(part, Journal(path)) for part, path in found]
