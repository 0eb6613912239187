"""Campaigns in which the network between writers and servers fails, and writers hop between replicas."""

from __future__ import annotations

import time

from campaign.proxy import DOWN, UP, Proxy
from campaign.stage import Stage


def cut(stage: Stage) -> None:
    """Connections reset, ended, torn in the middle of a message; one cut after the other."""
    proxy = stage.proxy(stage.server())
    stage.begin(proxy.address)
    kinds = ("reset", "ended", "torn in a message")
    for number in stage.rounds(pause=0.3):
        kind = kinds[number % len(kinds)]
        stage.strike(f"connections {kind}")
        _cut(proxy, kind)
    stage.finish()


def _cut(proxy: Proxy, kind: str) -> None:
    if kind == "torn in a message":
        proxy.tear()
    else:
        proxy.cut(reset=kind == "reset")


def bad(stage: Stage) -> None:
    """Delays, a few kB a second, a black hole in one direction or both, connections refused or never answered."""
    proxy = stage.proxy(stage.server())
    stage.begin(proxy.address)
    chance = stage.chance
    kinds = ("delays", "slow", "holding up", "holding down", "swallowing up", "swallowing down", "refusing", "stalling")
    for number in stage.rounds(pause=0.5):
        kind = kinds[number % len(kinds)]
        stage.strike(f"network {kind}")
        match kind:
            case "delays":
                proxy.delay(chance.uniform(0.01, 0.3))
            case "slow":
                proxy.slow(chance.uniform(20_000, 200_000))
            case "holding up" | "holding down":
                proxy.hold(*(UP, DOWN) if chance.random() < 0.3 else (UP,) if kind == "holding up" else (DOWN,))
            case "swallowing up" | "swallowing down":
                proxy.swallow(UP if kind == "swallowing up" else DOWN)
            case "refusing":
                proxy.refuse()
                proxy.cut(reset=True)
            case _:
                proxy.stall()
                proxy.cut(reset=True)
        before = proxy.accepted
        seconds = chance.uniform(0.2, 2.0)
        time.sleep(seconds)
        tries = (proxy.accepted - before) / stage.size.writers
        assert tries <= 3 + 10 * seconds, f"{tries:.0f} connections of each writer in {seconds:.1f} s: a busy loop"
        if kind.startswith("swallowing") or kind == "stalling" or chance.random() < 0.2:
            proxy.cut(reset=chance.random() < 0.5)
        proxy.clear()
    stage.finish()


def hopping(stage: Stage) -> None:
    """Two replicas. Writers are sent from one to the other while the first still holds batches of theirs."""
    servers = [stage.server(), stage.server()]
    here, there = (stage.proxy(server) for server in servers)
    stage.begin(here.address, there.address)
    for number in stage.rounds(pause=0.3):
        # PostgreSQL waits: what is queued on the replica that is left is committed, or not, after the hop.
        locked = number % 2 == 0
        stage.strike("hop to another replica", "with batches queued" if locked else "")
        if locked:
            with stage.ground.locked(stage.database, "metric_segments"):
                time.sleep(stage.chance.uniform(0.1, 0.5))
                _hop(stage, here, there)
                time.sleep(stage.chance.uniform(0.0, 0.5))
        else:
            _hop(stage, here, there)
    stage.finish()


def _hop(stage: Stage, here: Proxy, there: Proxy) -> None:
    """The servers stay; the ways to them are exchanged. What has been sent may arrive, and its answer vanish."""
    here.upstream, there.upstream = there.upstream, here.upstream
    for proxy in (here, there):
        if stage.chance.random() < 0.5:
            proxy.swallow(DOWN)
    time.sleep(stage.chance.uniform(0.0, 0.1))
    for proxy in (here, there):
        proxy.cut(reset=stage.chance.random() < 0.5)
        proxy.clear()
