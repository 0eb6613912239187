"""Campaigns in which servers and PostgreSQL die, stand still, refuse and are replaced, under writers that go on."""

from __future__ import annotations

import signal
import time

from campaign.stage import Stage


def killed(stage: Stage) -> None:
    """SIGKILL of the server, again and again."""
    server = stage.server()
    stage.begin(server.grpc_address)
    for _ in stage.rounds():
        stage.strike("SIGKILL of the server")
        server.kill()
        time.sleep(stage.chance.choice((0, 0, 0.3)))
        server.start().wait_ready()
    stage.finish()


def standing_still(stage: Stage) -> None:
    """SIGSTOP of a server: it accepts, and never answers; then it goes on where it was."""
    servers = [stage.server(), stage.server()]
    stage.begin(*(server.grpc_address for server in servers))
    for _ in stage.rounds():
        server = stage.chance.choice(servers)
        stage.strike("SIGSTOP of the server")
        server.signal(signal.SIGSTOP)
        time.sleep(stage.chance.uniform(0.1, 4.0))
        server.signal(signal.SIGCONT)
    stage.finish()


def rolling(stage: Stage) -> None:
    """Two replicas behind one address, restarted in turn by SIGTERM. Nobody's user sees an error."""
    servers = [stage.server("--drain-seconds", "5"), stage.server("--drain-seconds", "5")]
    proxy = stage.proxy(servers[0])
    lives = stage.begin(proxy.address)
    for number in stage.rounds():
        leaving, staying = servers[number % 2], servers[1 - number % 2]
        proxy.upstream = staying.grpc_address  # as a load balancer does with one that is not ready
        stage.strike("rolling restart")
        assert leaving.stop() == 0
        leaving.start().wait_ready()
        stage.recover()
    stage.finish()
    for life in lives:
        assert not life.said, f"its user saw something:\n{life.said}"


def database_dies(stage: Stage) -> None:
    """Immediate shutdown of PostgreSQL, or SIGKILL of its postmaster, in mid-transaction; the servers stay."""
    servers = [stage.server(), stage.server()]
    stage.begin(*(server.grpc_address for server in servers))
    for _ in stage.rounds():
        kill = stage.chance.random() < 0.3
        stage.strike("SIGKILL of PostgreSQL" if kill else "immediate stop of PostgreSQL")
        stage.ground.die(kill=kill)
        for server in servers:
            assert server.get("/health")[0] == 200
        if stage.chance.random() < 0.3:
            _wait_ready(stage, status=503)
        stage.ground.revive()
        _wait_ready(stage, status=200)
    stage.finish()


def database_fails(stage: Stage) -> None:
    """PostgreSQL locked, read-only, out of connections, standing still, cutting connections off."""
    server = stage.server("--max-message-bytes", "1MiB", "--ingest-buffer-bytes", "4MiB")  # soon full
    stage.begin(server.grpc_address)
    ground, database, chance = stage.ground, stage.database, stage.chance
    kinds = ("locked", "read-only", "out of connections", "standing still", "connections ended")
    for number in stage.rounds():
        kind = kinds[number % len(kinds)]
        stage.strike(f"PostgreSQL {kind}")
        seconds = chance.uniform(0.2, 2.5)
        match kind:
            case "locked":
                with ground.locked(database, chance.choice(("metric_segments", "writers", "run_metrics"))):
                    time.sleep(seconds)
            case "read-only":
                ground.read_only(database, on=True)
                time.sleep(seconds)
                ground.read_only(database, on=False)
            case "out of connections":
                ground.let_in(chance.choice((0, 2)))
                ground.disconnect(database)
                time.sleep(seconds)
                ground.let_in(-1)
            case "standing still":
                ground.stand_still()
                time.sleep(seconds)
                ground.go_on()
            case _:
                ground.disconnect(database)
    stage.finish()


def _wait_ready(stage: Stage, status: int) -> None:
    """Readiness goes, and comes back, by itself."""
    deadline = time.monotonic() + 60
    for server in stage.servers:
        while (found := server.get("/ready")[0]) != status:
            assert time.monotonic() < deadline, f"/ready is {found}, not {status}"
            time.sleep(0.02)
