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

import asyncpg
import grpc
import pytest
from artifacts.accounts import accounts
from artifacts.depots import Bucket, Directory
from artifacts.ledger import Ledger, made
from artifacts.program import CAMPAIGNS, SHORT, play
from artifacts.scene import Scene
from artifacts.sender import Pause, Sender
from artifacts.wire import CutAnswer, Hold
from campaign.ground import Ground

from artifacts import wire

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


@pytest.mark.slow
@pytest.mark.timeout(300)  # longer than any wait in there, which tells more
@pytest.mark.parametrize("name", SHORT)
def test_what_is_seen_is_whole_and_nothing_is_left(name: str, ground: Ground, tmp_path: Path) -> None:
    size = SHORT[name]
    try:
        outcome = play(CAMPAIGNS[name], tmp_path / "scene", ground, _SEED, size)
    except PermissionError as error:
        pytest.skip(str(error))
    print(outcome)
    assert outcome.faults.total() == size.faults
    assert outcome.uploads > 0
    assert outcome.downloads > 0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def s3(dsn: str, tmp_path: Path, stage: ExitStack) -> Scene:
    return Scene(tmp_path, dsn, stage.enter_context(closing(Bucket(tmp_path / "store"))), stage)


@pytest.fixture
def local(dsn: str, tmp_path: Path, stage: ExitStack) -> Scene:
    return Scene(tmp_path, dsn, Directory(tmp_path / "store"), stage)


def sender(scene: Scene, path: str, size: int, seed: int = 1) -> Sender:
    return Sender(scene.address, scene.run_id, path, made(seed, size))


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
    s3.server()
    wire_of(s3).harm = wire.nth("complete", 1, CutAnswer())
    deliver(s3, sender(s3, "a.bin", 2 * _PART + 1))
    assert wire_of(s3).struck == [("complete", CutAnswer())]
    assert s3.outcome().uploads == 1


def test_a_server_dies_between_the_store_and_the_row(s3: Scene) -> None:
    """The object is complete, and nobody knows: whoever goes on with the upload finds it, and it is sent once."""
    server = s3.server()
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
    assert s3.outcome().resumed == 0  # of a crew: there was none


def test_a_begun_upload_that_nobody_knows_is_swept(s3: Scene) -> None:
    """The store has begun it, and its answer was lost every time."""
    s3.server()
    wire_of(s3).harm = wire.nth("create", 1, CutAnswer(), times=1_000)
    one = sender(s3, "a.bin", 2 * _PART)
    with pytest.raises(grpc.RpcError) as caught:
        one.attempt()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "store" in caught.value.details()
    assert s3.depot.begun()
    wire_of(s3).harm = wire.none
    deliver(s3, one)
    assert s3.outcome().swept > 0


def test_a_killed_server_has_what_was_stored(local: Scene) -> None:
    server = local.server()
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
    s3.server()
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
    first = local.server()
    one = sender(local, "a.bin", 4 * _PART)
    one.address = lambda: first.grpc_address
    pause = Pause(7 * _PART // 2)
    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(one.attempt, pause)
        local.wait_stored(3)
        second = local.server()
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
    local.server()
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


_PLANTED = [
    ("UPDATE artifacts SET sha256 = sha256('x')", "another SHA-256"),
    ("UPDATE artifacts SET size = size + 1", "bytes long instead of"),
    ("UPDATE artifact_blobs SET state = 1", "in state 1"),
    ("UPDATE artifact_blobs SET path = 'b.bin'", "blob is of b.bin"),
    ("UPDATE artifact_blobs SET key = key || 'x'", "is not in the store"),
    ("DELETE FROM artifacts", "row of artifact_blobs"),
    ("INSERT INTO artifact_parts SELECT id, 1, 1, 'x' FROM artifact_blobs", "rows of artifact_parts"),
]


async def test_the_books_find_what_is_wrong(local: Scene, dsn: str) -> None:
    local.server()
    deliver(local, sender(local, "a.bin", 100))
    assert (await accounts(dsn, local.depot)).problems == []
    conn = await asyncpg.connect(dsn)
    for sql, problem in _PLANTED:
        await conn.execute("CREATE TEMP TABLE IF NOT EXISTS kept AS TABLE artifacts")
        await conn.execute("CREATE TEMP TABLE IF NOT EXISTS kept_blobs AS TABLE artifact_blobs")
        await conn.execute(sql)
        assert problem in "\n".join((await accounts(dsn, local.depot)).problems)
        await conn.execute("DELETE FROM artifacts; DELETE FROM artifact_blobs")
        await conn.execute("INSERT INTO artifact_blobs TABLE kept_blobs; INSERT INTO artifacts TABLE kept")
    await conn.close()
    assert isinstance(local.depot, Directory)
    (key,) = local.depot.objects()
    good = local.depot.read(key)
    for path, content, problem in (
        (key, good[:-1], "99 bytes long"),
        (key, bytes(100), "another SHA-256"),
        (f"{key}.more", b"x", "object"),
        (".uploads/x", b"x", "upload"),
    ):
        (local.depot.place / path).parent.mkdir(exist_ok=True)
        (local.depot.place / path).write_bytes(content)
        assert problem in "\n".join((await accounts(dsn, local.depot)).problems)
        (local.depot.place / path).unlink()
        (local.depot.place / key).write_bytes(good)
    assert (await accounts(dsn, local.depot)).problems == []


async def test_the_books_of_a_bucket_find_orphans(s3: Scene, dsn: str) -> None:
    assert isinstance(s3.depot, Bucket)
    assert (await accounts(dsn, s3.depot)).problems == []
    s3.depot.plant("1/x/artifacts/a.bin")
    found = (await accounts(dsn, s3.depot)).problems
    assert len(found) == 2
    assert "object 1/x/artifacts/a.bin" in found[0]
    assert "upload" in found[1]
