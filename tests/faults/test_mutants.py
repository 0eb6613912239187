"""Wrong servers are found out: each mutant fails the count in a scene that the sound build passes.

A scene is short and directed: it brings about the one thing that its mutant does wrong.
"""

from __future__ import annotations

import asyncio
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from testbuild.failpoints import CUT, KILL, Strike
from testbuild.honest import Honest, Inexact, holds, new_run_id
from testbuild.mutants import MUTANTS
from testbuild.process import ENVIRONMENT, BuiltServer, command

_SECONDS = 60  # for anything to happen


class Stage:
    """Servers of one build on one database, and that database."""

    def __init__(self, directory: Path, dsn: str, mutant: str | None, closing: ExitStack) -> None:
        self.dsn = dsn
        self.directory = directory
        self._mutant = mutant
        self._closing = closing

    def servers(self, count: int, strikes: tuple[Strike, ...] = ()) -> list[BuiltServer]:
        """That many replicas, ready."""
        names = [self.directory / f"server-{number}" for number in range(count)]
        servers = [self._closing.enter_context(BuiltServer(name, self.dsn, self._mutant)) for name in names]
        for server in servers:
            server.start(strikes)
        for server in servers:
            server.wait_ready()
        return servers

    def build(self, *rest: str) -> list[str]:
        """The command line of a program of the build."""
        return command(self._mutant, *rest)

    def client(self, server: BuiltServer, arguments: list[str], root: Path) -> int:
        """Runs a program that uses this server and this spool directory, and returns its exit code."""
        env = ENVIRONMENT | {"PENSTOCK_URL": server.grpc_address, "PENSTOCK_SPOOL_DIR": str(root)}
        return subprocess.run(arguments, env=env, timeout=_SECONDS, check=False).returncode

    def channel(self, server: BuiltServer) -> grpc.Channel:
        return self._closing.enter_context(server.channel())

    @contextmanager
    def locked(self, statement: str, *given: Any) -> Iterator[None]:
        """Inside, a transaction holds the locks that a statement takes."""
        with asyncio.Runner() as runner:
            conn = runner.run(asyncpg.connect(self.dsn))
            try:
                runner.run(conn.execute("BEGIN"))
                runner.run(conn.fetch(statement, *given))
                yield
            finally:
                runner.run(conn.close())

    def wait_for_waiting(self) -> None:
        """Until a flush waits for a lock."""

        async def wait() -> None:
            conn = await asyncpg.connect(self.dsn)
            query = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')"
            await until(lambda: conn.fetchval(query))
            await conn.close()

        asyncio.run(wait())


async def until(there: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not await there():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def buffered(server: BuiltServer) -> float:
    """How many bytes a server has taken in and not committed."""
    status, page = server.get("/metrics")
    assert status == 200
    (line,) = [line for line in page.splitlines() if line.startswith("penstock_ingest_buffer_bytes ")]
    return float(line.split()[1])


def wait_buffered(server: BuiltServer, enough: Callable[[float], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not enough(buffered(server)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def killed_after_commit(stage: Stage) -> None:
    (server,) = stage.servers(1, (Strike("after COMMIT", KILL),))
    writer = Honest(new_run_id(), range(5))
    writer.open(stage.channel(server))
    server.wait_exit()
    writer.hear_to_the_end()
    server.start().wait_ready()
    writer.deliver(stage.channel(server))
    holds(stage.channel(server), writer.run_id, range(5))


def queued_here_and_sent_there(stage: Stage) -> None:
    here, there = stage.servers(2)
    # Writers of runs whose ids are even share a pipeline.
    held, writer = Honest(new_run_id(even=True), range(1)), Honest(new_run_id(even=True), range(5))
    held.open(stage.channel(here))
    held.hear_ack()
    with stage.locked("SELECT FROM writers WHERE id = $1 FOR UPDATE", uuid.UUID(bytes=held.writer_id)):
        held.log(range(1, 2))
        held.send()
        stage.wait_for_waiting()
        before = buffered(here)
        writer.open(stage.channel(here))
        wait_buffered(here, lambda size: size > before)
        writer.leave()
        writer.deliver(stage.channel(there))
    wait_buffered(here, lambda size: size == 0)
    holds(stage.channel(there), writer.run_id, range(5))


def killed_while_flushing(stage: Stage) -> None:
    (server,) = stage.servers(1)
    writer = Honest(new_run_id(), range(5))
    with stage.locked("LOCK TABLE metric_segments IN EXCLUSIVE MODE"):
        writer.open(stage.channel(server))
        stage.wait_for_waiting()
        server.kill()
        writer.hear_to_the_end()
    server.start().wait_ready()
    writer.deliver(stage.channel(server))
    holds(stage.channel(server), writer.run_id, range(5))


def cut_before_commit(stage: Stage) -> None:
    (server,) = stage.servers(1, (Strike("before COMMIT", CUT),))
    writer = Honest(new_run_id(), range(5))
    writer.open(stage.channel(server))
    writer.hear_to_the_end()
    assert len(server.struck) == 1
    writer.deliver(stage.channel(server))
    holds(stage.channel(server), writer.run_id, range(5))


def zombie_goes_on(stage: Stage) -> None:
    here, there = stage.servers(2)
    zombie = Honest(new_run_id(), range(5))
    zombie.open(stage.channel(here))
    zombie.hear_ack()
    heir = zombie.heir(range(5, 10))
    heir.open(stage.channel(there), silent=True)
    zombie.log(range(1005, 1008))
    zombie.send()
    zombie.hear_ack()  # or what ends its stream
    heir.deliver(stage.channel(there))
    holds(stage.channel(there), heir.run_id, range(10))


def same_values_again(stage: Stage) -> None:
    (server,) = stage.servers(1)
    writer = Honest(new_run_id(), [0, 1, 1, 1])
    writer.open(stage.channel(server))
    writer.hear_ack()
    writer.log([1, 0])
    writer.deliver(stage.channel(server))
    holds(stage.channel(server), writer.run_id, [0, 0, 1, 1, 1, 1])


def power_lost(stage: Stage) -> None:
    (server,) = stage.servers(1)
    run_id = new_run_id()
    root = stage.directory / "spool"
    root.mkdir()
    assert stage.client(server, [sys.executable, "-c", _LOGS, run_id], root) == -signal.SIGKILL
    (segment,) = root.glob("*/*.log")
    data = bytearray(segment.read_bytes())
    for value in (50.0, 99.0):  # in the middle and at the end, the disk has not what was written there
        at = data.rindex(struct.pack("<d", value))
        data[at : at + 8] = bytes(8)
    segment.write_bytes(data)
    assert stage.client(server, stage.build("client", "sync"), root) in (0, 1)  # 1: some of it cannot be sent
    holds(stage.channel(server), run_id, {*range(100)} - {50, 99})


# A process that dies after it has logged 0 to 99.
_LOGS = """
import os, signal, sys, penstock
run = penstock.start_run(run_id=sys.argv[1], mode="offline")
for step in range(100):
    run.log({"loss": step}, step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


SCENES: dict[str, Callable[[Stage], None]] = {
    "mark_apart": killed_after_commit,
    "no_compare_and_set": queued_here_and_sent_there,
    "hasty_ack": killed_while_flushing,
    "cached_mark": cut_before_commit,
    "no_epoch": zombie_goes_on,
    "by_value": same_values_again,
    "no_checksum": power_lost,
}


@pytest.fixture
def play(tmp_path: Path, dsn: str) -> Iterator[Callable[[str, str | None], None]]:
    """Plays the scene of a mutant with a build."""
    with ExitStack() as closing:
        yield lambda scene, mutant: SCENES[scene](Stage(tmp_path, dsn, mutant, closing))


@pytest.mark.parametrize("mutant", SCENES)
def test_the_count_finds_the_mutant(play: Callable[[str, str | None], None], mutant: str) -> None:
    with pytest.raises(Inexact):
        play(mutant, mutant)


@pytest.mark.parametrize("scene", SCENES)
def test_the_sound_build_passes(play: Callable[[str, str | None], None], scene: str) -> None:
    play(scene, None)


def test_every_mutant_has_a_scene() -> None:
    assert set(SCENES) == set(MUTANTS)
