"""Faults under uploads: at points that are chosen, and by chance as `make test-faults` does it at length.

Whoever looks sees whole artifacts only, what is begun comes to its end, and after the sweep nothing is left over.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from artifacts.accounts import accounts
from artifacts.depots import Bucket, Directory
from artifacts.ledger import Ledger, made
from artifacts.program import CAMPAIGNS, SHORT, depot_of, perform, play
from artifacts.scene import Scene, Size
from artifacts.sender import Pause, Sender
from artifacts.wire import CutAnswer, Hold
from campaign.ground import Ground

from artifacts import wire
from penstock_server.core.runs import Runs
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.runs import NewRun
from penstock_server.postgres.database import Database

_SEED = 20_261_121
_MIB = 1 << 20
_PART = 8 * _MIB
_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    with tempfile.TemporaryDirectory(prefix="penstock-test-", dir=_MEMORY if in_memory else None) as directory:
        ground = Ground(Path(directory) / "pg").start()
        try:
            yield ground
        finally:
            ground.close()


@pytest.fixture(scope="module")
def scenes(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    """One with S3 and one with a directory, whose servers the tests share."""
    with ExitStack() as stack:
        found = {}
        for store in ("s3", "directory"):
            place = tmp_path_factory.mktemp(store)
            depot = stack.enter_context(depot_of(store, place / "store"))
            dsn = postgres.create(template="penstock_template")
            stack.callback(postgres.drop, dsn)
            found[store] = Scene(place, dsn, depot, stack)
        yield found


@pytest.fixture
def s3(scenes: dict[str, Scene]) -> Scene:
    scenes["s3"].again(Size(1), _SEED)
    scenes["s3"].replicas()
    wire_of(scenes["s3"]).harm = wire.none
    return scenes["s3"]


@pytest.fixture
def local(scenes: dict[str, Scene]) -> Scene:
    scenes["directory"].again(Size(1), _SEED)
    scenes["directory"].replicas()
    return scenes["directory"]


@pytest.mark.slow
@pytest.mark.timeout(300)  # longer than any wait in there, which tells more
@pytest.mark.parametrize("name", SHORT)
def test_what_is_seen_is_whole_and_nothing_is_left(
    name: str, request: pytest.FixtureRequest, scenes: dict[str, Scene], tmp_path: Path
) -> None:
    campaign, size = CAMPAIGNS[name], SHORT[name]
    if campaign.store in scenes and not campaign.own_database:
        scenes[campaign.store].again(size, _SEED)
        outcome = perform(campaign, scenes[campaign.store], _SEED)
    else:
        try:
            outcome = play(campaign, tmp_path / "scene", request.getfixturevalue("ground"), _SEED, size)
        except PermissionError as error:
            pytest.skip(str(error))
    print(outcome)
    assert outcome.faults.total() == size.faults
    assert outcome.uploads > 0
    assert outcome.downloads > 0


def sender(scene: Scene, path: str, size: int, seed: int = 1) -> Sender:
    return Sender(lambda: scene.servers[0].grpc_address, scene.run_id, path, made(seed, size))


def deliver(scene: Scene, *senders: Sender, pause: Pause | None = None) -> None:
    """In turn, each until it is there."""
    for each in senders:
        with scene.ledger.upload(each.path, each.data):
            each.deliver(pause=pause)


def wire_of(scene: Scene) -> wire.Wire:
    assert isinstance(scene.depot, Bucket)
    return scene.depot.wire


# Points that are chosen.


def test_an_upload_is_done_and_its_answer_is_lost(s3: Scene) -> None:
    wire_of(s3).harm = wire.nth("complete", 1, CutAnswer())
    deliver(s3, sender(s3, "a.bin", 2 * _PART + 1))
    assert wire_of(s3).struck[-1] == ("complete", CutAnswer())
    assert s3.outcome().uploads == 1


def test_a_server_dies_between_the_store_and_the_row(s3: Scene) -> None:
    """The object is complete, and nobody knows: whoever goes on with the upload finds it, and it is sent once."""
    server = s3.servers[0]
    hold = Hold()
    wire_of(s3).harm = wire.nth("complete", 1, hold)
    one = sender(s3, "a.bin", 2 * _PART + 1)
    with ThreadPoolExecutor(1) as pool:
        delivered = pool.submit(deliver, s3, one)
        assert hold.reached.wait(60)
        server.kill()
        hold.go.set()
        server.start().wait_ready()
        delivered.result()
    assert one.sent == len(one.data)
    s3.outcome()


def test_a_begun_upload_that_nobody_knows_is_swept(s3: Scene) -> None:
    """The store has begun it, and its answer was lost: the server has begun another."""
    wire_of(s3).harm = wire.nth("create", 1, CutAnswer())
    deliver(s3, sender(s3, "a.bin", 2 * _PART))
    assert wire_of(s3).struck[-1] == ("create", CutAnswer())
    assert len(s3.depot.begun()) == 1
    assert s3.outcome().swept == 1


def test_a_killed_server_has_what_was_stored(local: Scene) -> None:
    server = local.servers[0]
    one, pause = sender(local, "a.bin", 4 * _PART + 1), Pause(3 * _PART)
    with ThreadPoolExecutor(1) as pool:
        delivered = pool.submit(deliver, local, one, pause=pause)
        local.wait_stored(2)
        server.kill()
        server.start().wait_ready()
        delivered.result()
    assert one.resumed
    assert one.sent <= len(one.data) + _PART + _MIB  # what was stored is not sent again
    local.outcome()


def test_a_file_that_was_changed_meanwhile_begins_anew(s3: Scene) -> None:
    one, pause = sender(s3, "a.bin", 3 * _PART), Pause(5 * _PART // 2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(one.attempt, pause)
        s3.wait_stored(2)
        one.cancel()
        assert isinstance(first.exception(), grpc.RpcError)
    deliver(s3, sender(s3, "a.bin", 3 * _PART, seed=2))
    s3.outcome()


def test_a_server_that_wakes_up_spoils_nothing(local: Scene) -> None:
    """It stands still in mid-upload, another replica takes the same file and one of the same size, and it goes on."""
    first, second = local.replicas(2)
    one = sender(local, "a.bin", 4 * _PART)
    pause = Pause(7 * _PART // 2)
    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(one.attempt, pause)
        local.wait_stored(3)
        first.signal(signal.SIGSTOP)
        pause.go.set()
        one.cancel()
        assert isinstance(broken.exception(), grpc.RpcError)
    one.address = lambda: second.grpc_address
    other = sender(local, "a.bin", 4 * _PART, seed=2)
    other.address = lambda: second.grpc_address
    deliver(local, one, other)
    first.signal(signal.SIGCONT)
    assert one.resumed
    local.outcome()


# That all of this can fail.


def test_an_onlooker_sees_what_should_not_be_there(local: Scene) -> None:
    sender(local, "a.bin", 100).deliver()  # not in the ledger
    with pytest.raises(AssertionError, match=r"nobody has uploaded 100 bytes"):
        local.outcome()


def test_a_ledger_knows_what_is_past() -> None:
    ledger, old, new = Ledger(), made(1, 10), made(2, 10)
    digest = {name: hashlib.sha256(data).digest() for name, data in (("old", old), ("new", new))}
    with ledger.upload("a", old):
        assert not ledger.wrong("a", digest["old"], 10, 0, time.monotonic())
    with ledger.upload("a", new):
        now = time.monotonic()
        assert not ledger.wrong("a", digest["old"], 10, now, now)
        assert not ledger.wrong("a", digest["new"], 10, now, now)
    now = time.monotonic()
    assert "replaced" in ledger.wrong("a", digest["old"], 10, now, now)
    assert not ledger.wrong("a", digest["new"], 10, now, now)
    assert "9 bytes" in ledger.wrong("a", digest["new"], 9, now, now)
    assert "nobody" in ledger.wrong("b", digest["new"], 10, now, now)
    assert ledger.must(now) == {"a"}


_BLOB = """
INSERT INTO artifact_blobs (id, workspace_id, experiment_id, owner_id, path, key, state, size, sha256, media_type,
                            part_bytes, touched_ms, created_ms)
VALUES (gen_random_uuid(), 1, 0, $1, 'a.bin', $2, 2, 100, $3, 'text/plain', 1, 0, 0)
"""
_ARTIFACT = """
INSERT INTO artifacts (owner_id, path, workspace_id, experiment_id, blob_id, size, sha256, media_type, updated_ms)
SELECT owner_id, path, workspace_id, experiment_id, id, size, sha256, media_type, 0
  FROM artifact_blobs WHERE owner_id = $1
"""
# What is done, how it is taken back, and what the books say meanwhile.
_PLANTED = [
    (
        "UPDATE artifacts SET sha256 = sha256('x')",
        "UPDATE artifacts a SET sha256 = b.sha256 FROM artifact_blobs b WHERE b.id = a.blob_id",
        "another SHA-256",
    ),
    ("UPDATE artifacts SET size = size + 1", "UPDATE artifacts SET size = size - 1", "bytes long instead of"),
    ("UPDATE artifact_blobs SET state = 1", "UPDATE artifact_blobs SET state = 2", "in state 1"),
    ("UPDATE artifact_blobs SET path = 'b'", "UPDATE artifact_blobs SET path = 'a.bin'", "blob is of b"),
    (
        "UPDATE artifact_blobs SET key = key || 'x'",
        "UPDATE artifact_blobs SET key = rtrim(key, 'x')",
        "not in the store",
    ),
    (
        _BLOB.replace("$1", "gen_random_uuid()").replace("$2", "'k'").replace("2, 100, $3", "1, 100, NULL"),
        "DELETE FROM artifact_blobs WHERE key = 'k'",
        "row of artifact_blobs",
    ),
    (
        "INSERT INTO artifact_parts SELECT blob_id, 1, 1, 'x' FROM artifacts",
        "DELETE FROM artifact_parts",
        "rows of artifact_parts",
    ),
]


async def test_the_books_find_what_is_wrong(db: Database, dsn: str, tmp_path: Path) -> None:
    depot, key = Directory(tmp_path), "0/x/artifacts/a.bin"
    run = await Runs(db, lambda _: None).create(Caller("ada", WorkspaceId(1)), NewRun())
    good = made(1, 100)

    async def wrong() -> str:
        return "\n".join((await accounts(dsn, depot)).problems)

    def write(path: str, data: bytes) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)

    async with db.connection() as conn:
        await conn.execute(_BLOB, run.id, key, hashlib.sha256(good).digest())
        await conn.execute(_ARTIFACT, run.id)
        write(key, good)
        assert not await wrong()
        for sql, back, problem in _PLANTED:
            await conn.execute(sql)
            assert problem in await wrong()
            await conn.execute(back)
            assert not await wrong()
    for path, data, problem in (
        (key, good[:-1], "99 bytes long"),
        (key, bytes(100), "another SHA-256"),
        (f"{key}.more", b"x", "object"),
        (".uploads/x", b"x", "upload"),
    ):
        write(path, data)
        assert problem in await wrong()
        (tmp_path / path).unlink()
        write(key, good)
        assert not await wrong()


async def test_the_books_of_a_bucket_find_orphans(dsn: str, tmp_path: Path) -> None:
    with closing(Bucket(tmp_path / "store")) as depot:
        assert (await accounts(dsn, depot)).problems == []
        depot.plant("1/x/artifacts/a.bin")
        found = (await accounts(dsn, depot)).problems
    assert [each.partition(" of ")[0].partition(".bin ")[0] for each in found] == [
        "orphan: object 1/x/artifacts/a.bin",
        "orphan: upload some/prefix/1/x/artifacts/a",
    ]
