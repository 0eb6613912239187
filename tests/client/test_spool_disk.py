"""Disks that fail: training never raises nor hangs, what is refused is counted, and what comes back gets everything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from spools import HEAD, Place, everything, log, told

from penstock.spool import segments
from penstock.spool.outbox import Outbox
from penstock.spool.retention import Limits
from penstock.spool.segments import Segment
from penstock.spool.spool import Spool
from penstock.spool.stored import Stored
from penstock.v1 import metrics_pb2 as pb


def frame(step: int) -> Any:
    return ("loss", "acc")[: 1 + step % 2], [0.5] * (1 + step % 2), step, 1


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if not hasattr(os, "getuid") or os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk; test_a_file_that_may_not_grow does without")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "penstock", place], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"this root may not mount: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def settled(spool: Spool, place: Path, logged: list[Any]) -> None:
    """All of it has come to the disk, in order, and nothing twice."""
    spool.close(pb.Finish())
    spool.keep()
    assert spool.trouble == ""
    assert not spool.in_memory
    assert spool.memory_bytes == 0
    assert everything(Outbox(spool)) == (told(logged), 0)
    spool.release()
    stored = Stored.open(place)
    assert (stored.count, stored.lost) == (len(logged), 0)
    assert stored.head == HEAD
    assert stored.finish == pb.Finish(last_seq=len(logged))
    assert everything(Outbox(stored)) == (told(logged), 0)
    stored.release()


def log_some(spool: Spool, logged: list[Any], count: int) -> int:
    """Returns how many were refused."""
    refused = 0
    for step in range(len(logged), len(logged) + count):
        if log(spool, frame(step)):
            logged.append(frame(step))
        else:
            refused += 1
    return refused


def test_a_full_disk_that_gets_room_again(tmpfs: Path) -> None:
    filler = tmpfs / "filler"
    filler.write_bytes(bytes(150 << 10))
    place = tmpfs / "spool"
    place.mkdir()
    spool = Spool(HEAD, lambda: place, Limits(memory=1 << 20))
    logged: list[Any] = []
    assert log_some(spool, logged, 5_000) == 0
    assert spool.in_memory
    assert "No space" in spool.trouble
    for _ in range(5):  # the disk stays full
        spool.keep()
        assert log_some(spool, logged, 100) == 0
        assert "No space" in spool.trouble
    filler.unlink()
    # What is in files goes when it is acknowledged; with the filler's room that is enough for the rest.
    outbox = Outbox(spool)
    spool.keep()
    assert log_some(spool, logged, 100) == 0
    got, lost = everything(outbox)
    assert (got, lost) == (told(logged), 0)


def test_a_disk_that_is_full_for_a_while_loses_nothing(tmpfs: Path) -> None:
    filler = tmpfs / "filler"
    filler.write_bytes(bytes(200 << 10))
    place = tmpfs / "spool"
    place.mkdir()
    spool = Spool(HEAD, lambda: place, Limits(memory=1 << 20))
    logged: list[Any] = []
    assert log_some(spool, logged, 1_500) == 0
    assert spool.trouble
    spool.keep()
    assert log_some(spool, logged, 300) == 0
    filler.unlink()
    settled(spool, place, logged)


def test_a_full_disk_gives_up_what_is_acknowledged(tmpfs: Path) -> None:
    place = tmpfs / "spool"
    place.mkdir()
    spool = Spool(HEAD, lambda: place, Limits(segment=20_000))
    logged: list[Any] = []
    while not spool.trouble:
        assert log_some(spool, logged, 10) == 0
        if spool.segments[-1].size > 20_000:
            spool.keep()
    Outbox(spool).acknowledge(spool.segments[-1].first_seq - 1)  # all but what is in memory
    assert len(list(place.glob("*.log"))) > 5
    spool.keep()
    spool.keep()
    assert not spool.trouble
    assert not spool.in_memory
    assert log_some(spool, logged, 100) == 0
    assert not spool.trouble
    spool.release()


def test_when_memory_is_full_too_what_is_refused_is_counted(tmpfs: Path) -> None:
    filler = tmpfs / "filler"
    filler.write_bytes(bytes(200 << 10))
    place = tmpfs / "spool"
    place.mkdir()
    spool = Spool(HEAD, lambda: place, Limits(memory=20_000))
    logged: list[Any] = []
    refused = log_some(spool, logged, 3_000)
    assert refused > 1_000
    assert refused + spool.count == 3_000
    assert spool.memory_bytes <= 20_000
    assert log_some(spool, logged, 10) == 10
    filler.unlink()
    spool.keep()
    assert log_some(spool, logged, 100) == 0
    settled(spool, place, logged)


class Away(Place):
    """A place that can be taken away."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = self.path.with_name(self.path.name + "-aside")
        self.away = False

    def make(self) -> Path:
        if self.away:
            raise OSError(30, "Read-only file system")
        return super().make()


def test_a_directory_that_is_removed_while_the_run_goes_on() -> None:
    place = Away()
    spool = Spool(HEAD, place.make, Limits(segment=1_000))
    logged: list[Any] = []
    for _ in range(3):
        log_some(spool, logged, 100)
        spool.keep()
        log_some(spool, logged, 10)
        shutil.rmtree(place.path)
        log_some(spool, logged, 10)
        place.away = True
        spool.keep()
        assert "Read-only" in spool.trouble
        log_some(spool, logged, 10)
        place.away = False
    assert len(logged) == 390
    spool.keep()
    settled(spool, place.path, logged)


def test_a_segment_that_somebody_removes() -> None:
    place = Place()
    spool = Spool(HEAD, place.make, Limits(segment=1_000))
    logged: list[Any] = []
    for _ in range(5):
        log_some(spool, logged, 50)
        for path in sorted(place.path.glob("*.log"))[-2:]:
            path.unlink()
        spool.keep()
    settled(spool, place.path, logged)


def file_in_the_way(path: Path) -> Callable[[], Path]:
    def make() -> Path:
        path.mkdir(exist_ok=True)  # raises where a file is
        return path

    return make


def test_where_the_directory_should_be_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_text("mine")
    spool = Spool(HEAD, file_in_the_way(path))
    spool.begin()
    logged: list[Any] = []
    assert log_some(spool, logged, 100) == 0
    spool.keep()
    assert "exists" in spool.trouble
    assert spool.in_memory
    path.unlink()
    spool.keep()
    settled(spool, path, logged)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("slow", [False, True], ids=["as ever", "by os.write"])
def test_a_file_that_takes_nothing(monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    if slow:
        monkeypatch.setattr(segments, "write", segments._plain_write)
        monkeypatch.setattr("penstock.spool.spool.write", segments._plain_write)
    place = Place()
    spool = Spool(HEAD, place.make)
    logged: list[Any] = []
    assert log_some(spool, logged, 10) == 0
    segment = spool.segments[-1]
    good = os.dup(segment.fd)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, segment.fd)
    os.close(full)
    assert log_some(spool, logged, 10) == 0
    assert spool.trouble == "No space left on device"
    assert [each.memory is None for each in spool.segments] == [True, False]
    os.dup2(good, segment.fd)
    os.close(good)
    spool.keep()
    assert log_some(spool, logged, 10) == 0
    settled(spool, place.path, logged)


_LIMITED = """
import resource, signal, sys
sys.path[:0] = {path!r}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from pathlib import Path
from spools import HEAD, everything, log, told
from test_spool_disk import frame, log_some, settled
from penstock.spool.outbox import Outbox
from penstock.spool.retention import Limits
from penstock.spool.spool import Spool
place = Path({place!r})
spool = Spool(HEAD, lambda: place, Limits(memory=1 << 20))
logged = []
log_some(spool, logged, 10)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, hard))
assert log_some(spool, logged, 1000) == 0
assert spool.in_memory and spool.trouble
assert spool.segments[0].look() == {limit} and spool.segments[0].size < {limit}  # a fragment
spool.keep()
assert log_some(spool, logged, 50) == 0
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
settled(spool, place, logged)
print("well")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits here")
@pytest.mark.parametrize("limit", [1_501, 2_048, 4_099])
def test_a_file_that_may_not_grow(tmp_path: Path, limit: int) -> None:
    """A record is written in part; the rest of it, and what comes after, goes elsewhere."""
    code = _LIMITED.format(path=[str(Path(__file__).parent)], place=str(tmp_path), limit=limit)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_a_spool_that_is_full_has_room_again_after_acknowledgements() -> None:
    place = Place()
    spool = Spool(HEAD, place.make, Limits(disk=100_000, segment=10_000))
    outbox = Outbox(spool)
    logged: list[Any] = []
    refused = 0
    while not refused:
        refused += log_some(spool, logged, 10)
        spool.keep()
    assert 90_000 < spool.disk_bytes <= 100_000
    assert log_some(spool, logged, 5) == 5
    assert not spool.trouble
    outbox.acknowledge(spool.count)
    spool.keep()
    assert spool.disk_bytes <= 60_000  # half of it may be kept
    assert log_some(spool, logged, 300) == 0
    assert everything(outbox) == (told(logged[-300:]), 0)


def test_memory_is_limited_and_has_room_again() -> None:
    spool = Spool(HEAD, None, Limits(memory=50_000))
    outbox = Outbox(spool)
    logged: list[Any] = []
    assert log_some(spool, logged, 5_000) > 3_000
    assert spool.memory_bytes <= 50_000
    outbox.acknowledge(spool.count)
    assert log_some(spool, logged, 300) == 0
    assert everything(outbox) == (told(logged[-300:]), 0)


def test_two_that_keep_a_spool_at_once_write_each_segment_once() -> None:
    """The keeper's thread, and the end of an offline run."""
    place = Place()
    spool = Spool(HEAD, place.make)
    spool._go_to_memory(OSError("not now"))
    logged: list[Any] = []
    log_some(spool, logged, 10)
    take, comes = Segment.take, [True]

    def late(self: Segment, other: Segment) -> None:
        take(self, other)
        if comes:
            comes.clear()
            spool.keep()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segment, "take", late)
        spool.close()
        spool.keep()
    assert len(list(place.path.glob("*.log"))) == 1
    assert spool.memory_bytes == 0
    assert everything(Outbox(spool)) == (told(logged), 0)
    assert spool.disk_bytes == sum(path.stat().st_size for path in place.path.glob("*.log"))


def test_nobody_waits_for_a_disk_that_is_looked_after() -> None:
    """The keeper is in the middle of a sync and does not hold up who logs."""
    place = Place()
    spool = Spool(HEAD, place.make)
    logged: list[Any] = []
    log_some(spool, logged, 10)
    sync, stuck = Segment.sync, []

    def slow(self: Segment) -> None:
        logger = threading.Thread(target=log_some, args=(spool, logged, 10))
        logger.start()
        logger.join(30)
        stuck.append(logger.is_alive())
        sync(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segment, "sync", slow)
        spool.keep()
    assert stuck == [False]
    assert len(logged) == 20
    settled(spool, place.path, logged)
