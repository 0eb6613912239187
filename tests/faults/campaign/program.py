"""All campaigns, in their order, each with its size in `make test` and in `make test-faults`; and how one is played."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign import disks_fail, networks_fail, servers_fall, writers_fall
from campaign.ground import Ground
from campaign.stage import Outcome, Size, Stage


@dataclass(frozen=True, slots=True)
class Campaign:
    """One, with what it shows in words."""

    title: str
    act: Callable[[Stage], None]
    short: Size
    long: Size


def _long(faults: int, *, writers: int = 8, **more: Any) -> Size:
    return Size(faults, writers=writers, **({"rate": 150.0} | more))


_WIDE: Any = {"width": 500, "rate": 400.0}  # soon fills what is small

CAMPAIGNS = {
    "server-killed": Campaign("SIGKILL of the server", servers_fall.killed, Size(3), _long(30)),
    "server-still": Campaign("SIGSTOP of a server, SIGCONT", servers_fall.standing_still, Size(3), _long(30)),
    "rolling-restart": Campaign("two replicas restarted in turn by SIGTERM", servers_fall.rolling, Size(2), _long(10)),
    "database-dies": Campaign(
        "immediate stop or SIGKILL of PostgreSQL", servers_fall.database_dies, Size(3), _long(40)
    ),
    "database-fails": Campaign(
        "PostgreSQL locked, read-only, out of connections, standing still, cutting off",
        servers_fall.database_fails,
        Size(5),
        _long(40),
    ),
    "connections-cut": Campaign("connections reset, ended, torn", networks_fail.cut, Size(9), _long(400)),
    "network-bad": Campaign(
        "delays, slowness, one-way black holes, refusals, no answers", networks_fail.bad, Size(8), _long(120)
    ),
    "replicas-hopped": Campaign(
        "writers hop between replicas, with batches queued on both", networks_fail.hopping, Size(6), _long(150)
    ),
    "writer-killed": Campaign("SIGKILL of writers", writers_fall.killed, Size(5), _long(200)),
    "writer-ended": Campaign("exception, SIGTERM, os._exit", writers_fall.ended, Size(4, writers=2), _long(40)),
    "writer-taken-over": Campaign(
        "zombies: SIGSTOP, `penstock sync --take-over`, SIGCONT", writers_fall.taken_over, Size(1), _long(20)
    ),
    "server-absent": Campaign(
        "no server from start to end, then `penstock sync`", writers_fall.server_absent, Size(2, writers=2), _long(24)
    ),
    "many-ranks": Campaign(
        "64 ranks in one run, server killed",
        writers_fall.many_ranks,
        Size(1, writers=6),
        _long(3, writers=64, rate=20.0),
    ),
    "poisoned": Campaign("records that can never be stored", writers_fall.poisoned, Size(8, writers=2), _long(100)),
    "clocks-jump": Campaign("clocks jump by years", writers_fall.clocks, Size(8, writers=2), _long(100)),
    "run-deleted": Campaign("runs deleted and restored", writers_fall.deleted, Size(1, writers=2), _long(15)),
    "crowded": Campaign(
        "forks among threads and signals",
        writers_fall.crowded,
        Size(12, writers=1, width=10),
        _long(1_000, writers=2, width=10),
    ),
    "disk-full": Campaign(
        "the spool's disk is full", disks_fail.full, Size(1, writers=2, **_WIDE), _long(6, writers=4, **_WIDE)
    ),
    "spool-full": Campaign(
        "the spool is at its limit", disks_fail.bounded, Size(1, writers=2, **_WIDE), _long(6, writers=4, **_WIDE)
    ),
    "spool-removed": Campaign("spools are removed", disks_fail.removed, Size(2, writers=2), _long(15)),
    "spool-absent": Campaign("no directory for spools", disks_fail.absent, Size(2, writers=2), _long(20)),
}


def play(campaign: Campaign, directory: Path, ground: Ground, seed: int, size: Size) -> Outcome:
    """From an empty database to the count. An AssertionError has the story as its note."""
    directory.mkdir(parents=True)
    with ExitStack() as closing:
        stage = Stage(directory, ground, zlib.crc32(f"{seed} {campaign.title}".encode()), size, closing)
        try:
            campaign.act(stage)
            return stage.outcome()
        except Exception as error:
            error.add_note(f"{campaign.title}: seed {seed}\n{stage.story()}")
            raise
