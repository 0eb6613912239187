"""All campaigns of artifacts, each with its store and its size in `make test` and in `make test-faults`."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from campaign.ground import Ground

from artifacts import acts
from artifacts.depots import Bucket, Directory, Disk
from artifacts.scene import Outcome, Scene, Size

_DISK = 1 << 30


@dataclass(frozen=True, slots=True)
class Campaign:
    """One, with what it shows in words. `store` is directory, disk or s3."""

    title: str
    act: Callable[[Scene], None]
    store: str
    long: Size
    own_database: bool = False  # which it harms


def _long(faults: int, members: int = 4) -> Size:
    return Size(faults, members, 40 << 20)


CAMPAIGNS = {
    "artifacts-s3-fails": Campaign("S3 answers 500, 503, late, in part, not at all", acts.store_fails, "s3", _long(80)),
    "artifacts-s3-restarted": Campaign("S3 forgets its uploads", acts.store_restarted, "s3", _long(12)),
    "artifacts-server-killed": Campaign("SIGKILL of the server, S3", acts.server_killed, "s3", _long(20)),
    "artifacts-server-killed-local": Campaign("SIGKILL, directory", acts.server_killed, "directory", _long(20)),
    "artifacts-server-still": Campaign("SIGSTOP of a replica, S3", acts.server_still, "s3", _long(20)),
    "artifacts-server-still-local": Campaign("SIGSTOP, directory", acts.server_still, "directory", _long(20)),
    "artifacts-replicas-hopped": Campaign("uploads hop between replicas", acts.replicas_hopped, "s3", _long(60)),
    "artifacts-client-killed": Campaign("SIGKILL of clients", acts.client_killed, "s3", _long(20)),
    "artifacts-logged": Campaign("SIGKILL of who logs files", acts.logged, "s3", _long(15)),
    "artifacts-direct": Campaign("clients write to S3 themselves", acts.direct, "s3", _long(40)),
    "artifacts-database-dies": Campaign(
        "PostgreSQL killed or stopped", acts.database_dies, "s3", _long(15), own_database=True
    ),
    "artifacts-disk-full": Campaign("the store's disk is full", acts.disk_full, "disk", Size(15)),
    "artifacts-digests-wrong": Campaign("digests that do not agree", acts.digests_wrong, "s3", _long(60)),
    "artifacts-races": Campaign("clients at once at one path, S3", acts.races, "s3", _long(60)),
    "artifacts-races-local": Campaign("clients at once, directory", acts.races, "directory", _long(60)),
}

# In `make test`, the others there at chosen points only.
SHORT = {
    "artifacts-s3-fails": Size(3),
    "artifacts-s3-restarted": Size(1),
    "artifacts-server-still": Size(1),
    "artifacts-replicas-hopped": Size(1),
    "artifacts-client-killed": Size(1),
    "artifacts-logged": Size(1),
    "artifacts-database-dies": Size(1),
    "artifacts-disk-full": Size(1),
    "artifacts-digests-wrong": Size(3),
    "artifacts-races-local": Size(2),
}


def play(campaign: Campaign, directory: Path, ground: Ground, seed: int, size: Size) -> Outcome:
    """From an empty database to the books. An AssertionError has the story as its note."""
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        depot = stack.enter_context(depot_of(campaign.store, directory / "store"))
        dsn = ground.dsn(stack.enter_context(ground.database()))
        made = zlib.crc32(f"{seed} {campaign.title}".encode())
        return perform(campaign, Scene(directory, dsn, depot, stack, seed=made, size=size, ground=ground), seed)


def perform(campaign: Campaign, scene: Scene, seed: int) -> Outcome:
    """On a scene that is set."""
    try:
        campaign.act(scene)
        return scene.outcome()
    except Exception as error:
        error.add_note(f"{campaign.title}: seed {seed}\n{scene.story()}")
        raise


def depot_of(store: str, place: Path) -> AbstractContextManager[Directory | Bucket]:
    """A store of one of the three kinds."""
    match store:
        case "s3":
            return closing(Bucket(place))
        case "disk":
            return closing(Disk(place, _DISK))
    return nullcontext(Directory(place))
