"""All campaigns, in their order, each with its size in `make test` and in `make test-faults`; and how one is played."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

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


CAMPAIGNS = {
    "server-killed": Campaign("SIGKILL of the server", servers_fall.killed, Size(4), Size(80, writers=8)),
    "server-standing-still": Campaign(
        "SIGSTOP of the server", servers_fall.standing_still, Size(3), Size(40, writers=8)
    ),
    "rolling-restart": Campaign(
        "rolling restart of two replicas by SIGTERM", servers_fall.rolling, Size(2), Size(20, writers=8)
    ),
    "database-dies": Campaign(
        "immediate stop or SIGKILL of PostgreSQL", servers_fall.database_dies, Size(3), Size(60, writers=8)
    ),
    "database-fails": Campaign(
        "PostgreSQL locked, read-only, out of connections, standing still",
        servers_fall.database_fails,
        Size(5),
        Size(60, writers=8),
    ),
    "connections-cut": Campaign(
        "connections reset, ended, torn in a message", networks_fail.cut, Size(12), Size(300, writers=8)
    ),
    "network-bad": Campaign(
        "delays, slowness, black holes, refusals, no answers", networks_fail.bad, Size(8), Size(120, writers=8)
    ),
    "replicas-hopped": Campaign(
        "writers hopping between two replicas with batches queued on both",
        networks_fail.hopping,
        Size(8),
        Size(120, writers=8),
    ),
    "writer-killed": Campaign("SIGKILL of writers", writers_fall.killed, Size(6), Size(150, writers=8)),
    "writer-ended": Campaign("every way a process can end", writers_fall.ended, Size(4), Size(40)),
    "writer-taken-over": Campaign(
        "zombie senders: SIGSTOP, sync --take-over, SIGCONT", writers_fall.taken_over, Size(2), Size(30)
    ),
    "server-absent": Campaign("no server from start to end, then sync", writers_fall.server_absent, Size(4), Size(40)),
    "many-ranks": Campaign(
        "64 ranks in one run", writers_fall.many_ranks, Size(1, writers=8), Size(4, writers=64, rate=20)
    ),
    "poisoned": Campaign("records that can never be stored", writers_fall.poisoned, Size(10), Size(100)),
    "clocks-jump": Campaign("clocks that jump by years", writers_fall.clocks, Size(10), Size(100)),
    "run-deleted": Campaign("runs deleted in mid-stream", writers_fall.deleted, Size(2), Size(20)),
    "crowded": Campaign(
        "forks among threads and signals",
        writers_fall.crowded,
        Size(20, writers=1, width=10),
        Size(1_000, writers=2, width=10),
    ),
    "disk-full": Campaign(
        "a full disk under the spool",
        disks_fail.full,
        Size(1, writers=2, width=500, rate=500),
        Size(10, width=500, rate=300),
    ),
    "spool-full": Campaign(
        "a spool at its limit",
        disks_fail.bounded,
        Size(1, writers=2, width=500, rate=500),
        Size(10, width=500, rate=300),
    ),
    "spool-removed": Campaign("spools removed", disks_fail.removed, Size(2), Size(20)),
    "spool-absent": Campaign("no directory for spools", disks_fail.absent, Size(3), Size(20)),
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
