"""Where spools are kept, what is left behind, and what is removed when."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from penstock.spool import places
from penstock.spool.owner import Owner
from penstock.spool.places import NoPlace, found, is_sent, mark_sent, orphans, place_of, root, roots, sweep

if sys.platform == "win32":
    pytest.skip("modes and owners are POSIX's here", allow_module_level=True)

NOBODY = 65534
DAY = 86_400.0
NOW = time.time()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's environment: nothing set, a home, a place for temporary files."""
    for name in ("PENSTOCK_SPOOL_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "home"


@pytest.fixture
def spools(tmp_path: Path) -> Path:
    return root(tmp_path / "spools")


def made(spools: Path, *, size: int = 100, begun: float = NOW, sent: float | None = None) -> Path:
    directory = place_of(spools, os.urandom(16).hex(), os.urandom(16))
    directory.mkdir(mode=0o700)
    owner = Owner.claim(directory)
    assert owner
    segment = directory / "00000001.log"
    segment.write_bytes(bytes(size))
    os.utime(segment, (begun, begun))
    if sent is not None:
        mark_sent(directory, 7)
        (directory / "sent").write_text(json.dumps({"acked": 7, "at": sent}))
    owner.release()
    return directory


def mode_of(place: Path) -> int:
    return stat.S_IMODE(place.stat().st_mode)


# The root.


def test_the_users_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert root() == home / ".local" / "state" / "penstock" / "spool"
    assert mode_of(root()) == 0o700
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    assert root() == home / ".local" / "state" / "penstock" / "spool"
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    assert root() == home / "state" / "penstock" / "spool"
    assert list(root().iterdir()) == []


def test_the_one_that_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SPOOL_DIR", str(home / "one"))
    assert root() == home / "one"
    assert mode_of(home / "one") == 0o700
    assert root("~/two") == home / "two"
    monkeypatch.chdir(home)
    assert root("three") == home / "three"


@pytest.mark.skipif(os.getuid() != 0, reason="gives a directory to somebody else")
def test_a_home_that_is_not_ours(home: Path) -> None:
    theirs = home / ".local" / "state" / "penstock" / "spool"
    theirs.mkdir(parents=True)
    os.chown(theirs, NOBODY, NOBODY)
    temporary = home.parent / "tmp" / f"penstock-{os.getuid()}"
    assert root() == temporary
    assert mode_of(temporary) == 0o700
    assert roots() == [temporary]


def test_a_home_that_cannot_be_written(home: Path) -> None:
    (home / ".local").write_text("a file is in the way")
    temporary = home.parent / "tmp" / f"penstock-{os.getuid()}"
    assert root() == temporary
    (home / ".local").unlink()
    assert root() != temporary
    assert roots() == [root(), temporary]  # what was kept there is found there


def test_a_directory_that_is_shared(home: Path) -> None:
    """A scratch disk, a container's volume: we have one of our own in it."""
    shared = home / "scratch"
    shared.mkdir()
    shared.chmod(0o1777)
    ours = root(shared)
    assert ours == shared / f"penstock-{os.getuid()}"
    assert mode_of(ours) == 0o700
    assert mode_of(shared) == 0o1777
    assert root(shared) == ours
    assert roots(shared) == [ours]


def test_what_others_can_put_in_our_place(home: Path) -> None:
    shared = home / "scratch"
    shared.mkdir()
    shared.chmod(0o777)
    ours = shared / f"penstock-{os.getuid()}"
    (home / "elsewhere").mkdir(mode=0o700)
    ours.symlink_to(home / "elsewhere")
    with pytest.raises(NoPlace, match="belongs to somebody else"):
        root(shared)
    ours.unlink()
    ours.mkdir()
    ours.chmod(0o777)
    with pytest.raises(NoPlace, match="PENSTOCK_SPOOL_DIR"):
        root(shared)
    if os.getuid() == 0:
        ours.chmod(0o700)
        os.chown(ours, NOBODY, NOBODY)
        with pytest.raises(NoPlace, match="belongs to somebody else"):
            root(shared)


def test_one_that_is_told_is_that_or_none(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(NoPlace, match=r"cannot write to .*/file/below: .*; set PENSTOCK_SPOOL_DIR"):
        root(home / "file" / "below")
    with pytest.raises(NoPlace):
        root("/proc/penstock")
    assert roots("/proc/penstock") == []
    assert issubclass(NoPlace, OSError)


# What is in it.


def test_what_is_found(spools: Path) -> None:
    one, two = made(spools), made(spools)
    (spools / "notes").mkdir()
    (spools / ("0" * 32 + "." + "1" * 32)).symlink_to(one)
    (spools / ("0" * 32 + "." + "2" * 32)).touch()
    assert sorted(found(spools)) == sorted([one, two])
    run_id, writer_id = places.ids_of(one)
    assert place_of(spools, run_id, writer_id) == one
    dashed = f"{run_id[:8]}-{run_id[8:12]}-{run_id[12:16]}-{run_id[16:20]}-{run_id[20:]}"
    assert place_of(spools, dashed, writer_id) == one


def test_orphans_are_unsent_unowned_and_oldest_first(spools: Path) -> None:
    young, old, middle = (made(spools, begun=NOW - age) for age in (10, 1000, 500))
    made(spools, begun=NOW - 5000, sent=NOW)
    empty = place_of(spools, "ab" * 16, os.urandom(16))
    empty.mkdir()
    owned = made(spools, begun=NOW - 7000)
    owner = Owner.claim(owned)
    assert owner
    assert list(orphans(spools)) == [old, middle, young]
    owner.release()
    assert list(orphans(spools)) == [owned, old, middle, young]
    found_so_far = orphans(spools)
    assert next(found_so_far) == owned
    mark_sent(old, 1)  # by another, meanwhile
    assert next(found_so_far) == middle


def test_contents(spools: Path) -> None:
    directory = made(spools, size=100, begun=NOW - 50)
    (directory / "00000002.log").write_bytes(bytes(11))
    os.utime(directory / "00000002.log", (NOW - 20, NOW - 20))
    there = places.contents(directory)
    assert (there.segments, there.size) == (2, 111)
    assert there.written == pytest.approx(NOW - 20, abs=0.01)


def test_marked_as_sent(spools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = made(spools)
    assert not is_sent(directory)
    mark_sent(directory, 12)
    assert is_sent(directory)
    told = json.loads((directory / "sent").read_bytes())
    assert told["acked"] == 12
    assert abs(told["at"] - time.time()) < 60
    mark_sent(directory, 12)
    names = sorted(each.name for each in directory.iterdir())
    assert names == ["00000001.log", "epoch-1", "sent"]
    with pytest.raises(FileNotFoundError):
        mark_sent(spools / "none", 1)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    other = made(spools)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        mark_sent(other, 12)
    assert is_sent(other)  # a full disk is made room on by what is sent
    assert sweep(spools, grace_seconds=DAY, keep_bytes=1 << 30, now=time.time() + 2 * DAY) == 2


def test_not_marked_while_its_writer_may_write_more(spools: Path) -> None:
    directory = made(spools)
    writer = Owner.claim(directory)
    assert writer
    thief = Owner.claim(directory, force=True)
    assert thief
    mark_sent(directory, 12)
    assert not is_sent(directory)
    thief.release()
    mark_sent(directory, 12)
    assert is_sent(directory)
    writer.release()


# What is removed.


def test_swept_after_the_grace(spools: Path) -> None:
    old, new = made(spools, sent=NOW - DAY - 1), made(spools, sent=NOW - DAY + 60)
    unsent = made(spools, begun=NOW - 100 * DAY)
    assert sweep(spools, grace_seconds=DAY, keep_bytes=1 << 30, now=NOW) == 1
    assert not old.exists()
    assert sorted(spools.iterdir()) == sorted([new, unsent])
    assert sweep(spools, grace_seconds=0, keep_bytes=1 << 30, now=NOW) == 1
    assert list(spools.iterdir()) == [unsent]


def test_swept_beyond_the_bytes_oldest_first(spools: Path) -> None:
    first, second, third = (made(spools, size=1000, sent=NOW - age) for age in (300, 200, 100))
    made(spools, size=9000)  # not sent: does not count
    assert sweep(spools, grace_seconds=DAY, keep_bytes=3000, now=NOW) == 0
    assert sweep(spools, grace_seconds=DAY, keep_bytes=2500, now=NOW) == 1
    assert [each.exists() for each in (first, second, third)] == [False, True, True]
    assert sweep(spools, grace_seconds=DAY, keep_bytes=0, now=NOW) == 2
    assert len(found(spools)) == 1


def test_clocks_that_were_wrong(spools: Path) -> None:
    ahead = made(spools, sent=NOW + 3650 * DAY)
    unsent = made(spools, begun=NOW + 3650 * DAY)
    assert sweep(spools, grace_seconds=DAY, keep_bytes=1 << 30, now=NOW) == 1
    assert not ahead.exists()
    assert list(orphans(spools)) == [unsent]


def test_what_somebody_owns_stays(spools: Path) -> None:
    directory = made(spools, sent=NOW - 9 * DAY)
    owner = Owner.claim(directory)
    assert owner
    assert sweep(spools, grace_seconds=0, keep_bytes=0, now=NOW) == 0
    assert directory.exists()
    # Nor what its writer lost to another, who is gone, while it lives itself and may still write.
    thief = Owner.claim(directory, force=True)
    assert thief
    thief.release()
    assert sweep(spools, grace_seconds=0, keep_bytes=0, now=NOW) == 0
    owner.release()
    assert sweep(spools, grace_seconds=0, keep_bytes=0, now=NOW) == 1
    assert list(spools.iterdir()) == []


def test_one_that_never_had_a_segment(spools: Path) -> None:
    directory = place_of(spools, "ab" * 16, os.urandom(16))
    directory.mkdir()
    assert sweep(spools, grace_seconds=0, keep_bytes=0, now=NOW + 10) == 0  # it may be just being made
    os.utime(directory, (NOW - 2 * DAY, NOW - 2 * DAY))
    assert sweep(spools, grace_seconds=DAY, keep_bytes=0, now=NOW) == 1
    assert not directory.exists()


def test_links_are_not_followed(spools: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "1.log").write_text("stays")
    (precious / "sent").write_text("stays")
    (spools / f"{'a' * 32}.{'b' * 32}").symlink_to(precious)
    (spools / ".gone-x").symlink_to(precious)
    directory = made(spools, sent=NOW - 9 * DAY)
    (directory / "00000002.log").symlink_to(precious / "1.log")
    (directory / "00000003.log").symlink_to(precious)
    assert sweep(spools, grace_seconds=0, keep_bytes=0, now=NOW) == 1
    assert not directory.exists()
    assert sorted(each.name for each in precious.iterdir()) == ["1.log", "sent"]


def test_what_is_not_ours_stays(spools: Path) -> None:
    directory = made(spools, sent=NOW - 9 * DAY)
    (directory / "notes.txt").write_text("mine")
    (directory / "folder.log").mkdir()
    assert sweep(spools, grace_seconds=0, keep_bytes=0, now=NOW) == 1
    (left,) = spools.iterdir()
    assert left.name.startswith(f".gone-{directory.name}")
    assert (left / "notes.txt").read_text() == "mine"
    assert sweep(spools, grace_seconds=0, keep_bytes=0, now=NOW) == 0
    assert (left / "notes.txt").exists()
    (left / "notes.txt").unlink()
    (left / "folder.log").rmdir()
    sweep(spools, grace_seconds=0, keep_bytes=0, now=NOW)
    assert list(spools.iterdir()) == []


def test_a_sweep_that_was_killed_is_finished(spools: Path) -> None:
    directory = made(spools, sent=NOW - 9 * DAY)
    half = spools / f".gone-{directory.name}-0102"
    directory.rename(half)
    (half / "sent").unlink()
    assert found(spools) == []
    assert sweep(spools, grace_seconds=DAY, keep_bytes=1 << 30, now=NOW) == 0
    assert list(spools.iterdir()) == []


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none", grace_seconds=0, keep_bytes=0, now=NOW) == 0


def _sweep(place: str) -> int:
    return sweep(Path(place), grace_seconds=0, keep_bytes=0, now=NOW)


def test_many_sweep_at_once(spools: Path) -> None:
    sent = [made(spools, sent=NOW - DAY - number) for number in range(60)]
    unsent = made(spools)
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as processes:
        list(processes.map(int, range(4)))  # they are there
        removed = sum(processes.map(_sweep, [str(spools)] * 8))
    _sweep(str(spools))
    assert removed <= len(sent)
    assert list(spools.iterdir()) == [unsent]


def test_importing_it_does_nothing(home: Path) -> None:
    script = "import penstock.spool.places, penstock.spool.owner"
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"HOME": str(home)})
    assert list(home.iterdir()) == []


@pytest.fixture(autouse=True)
def _nothing_is_held() -> Iterator[None]:
    yield
    from penstock.spool import owner

    assert not owner._held
