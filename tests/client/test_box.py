"""Boxes: what is whole in them counts, whatever happens to the process that fills them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from penstock.address import Address, parse_address
from penstock.outgoing import box, snapshot
from penstock.outgoing.box import Box
from penstock.spool.owner import Owner

RUN = "0" * 31 + "7"
ADDRESS = parse_address("localhost:1")


@pytest.fixture
def made(spool_root: Path) -> Box:
    return Box(spool_root, RUN, ADDRESS, durable=False)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def there(directory: Path) -> list[tuple[str, bytes]]:
    found, damaged = box.entries(directory)
    assert not damaged
    return [(entry.path, entry.file.read_bytes()) for entry in found if entry.file is not None]


def test_a_copy_is_of_the_file_as_it_was(made: Box, tmp_path: Path) -> None:
    source = written(tmp_path / "model.pt", os.urandom(3_000_000))
    before = source.read_bytes()
    entry = made.copy(source, "models/model.pt")
    source.write_bytes(b"other")
    assert made.path is not None
    assert there(made.path) == [("models/model.pt", before)]
    assert (entry.size, made.held, entry.problem()) == (len(before), len(before), "")


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("size", [0, 1, 4096, 1_000_001])
def test_a_copy_has_all_bytes(tmp_path: Path, size: int, durable: bool) -> None:
    source = written(tmp_path / "source", os.urandom(size))
    assert snapshot.take(source, tmp_path / "copy", durable=durable) == size
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_a_file_that_tells_no_size_is_read_all_the_same(tmp_path: Path) -> None:
    assert snapshot.take(Path("/proc/version"), tmp_path / "copy") > 0
    assert (tmp_path / "copy").read_bytes() == Path("/proc/version").read_bytes()


def test_between_file_systems_that_cannot_do_it_themselves_bytes_are_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(tmp_path / "source", os.urandom(2_500_000))
    for way in ("copy_file_range", "sendfile"):
        monkeypatch.delattr(os, way, raising=False)
        assert snapshot.take(source, tmp_path / way) == 2_500_000
        assert (tmp_path / way).read_bytes() == source.read_bytes()


def test_what_is_no_file_is_not_opened(made: Box, tmp_path: Path) -> None:
    """To open a pipe would be to wait for somebody who writes into it."""
    os.mkfifo(tmp_path / "pipe")
    for nothing in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(OSError, match=r"no file|No such file"):
            made.copy(nothing, "a")
    assert made.path is not None
    assert there(made.path) == []
    assert not list(made.path.glob("*.data"))


def test_only_what_is_whole_counts(made: Box) -> None:
    made.keep(b"whole", "a")
    assert made.path is not None
    (made.path / "000002.data").write_bytes(b"its entry was never made")
    (made.path / "000003.draft").write_text('{"pa')
    assert there(made.path) == [("a", b"whole")]


def test_what_is_damaged_is_told(made: Box) -> None:
    made.keep(b"whole", "a")
    entry = made.keep(b"whole", "b")
    assert made.path is not None
    assert entry.file is not None
    (made.path / "000001.json").write_text("{")
    entry.file.write_bytes(b"cut")
    found, damaged = box.entries(made.path)
    assert damaged == ["000001.json"]
    assert "has been changed" in found[0].problem()


def test_a_file_that_is_only_noted_must_stay_as_it_was(made: Box, tmp_path: Path) -> None:
    source = written(tmp_path / "model.pt", b"first")
    status = source.stat()
    entry = made.refer(box.Entry(made.number(), "model.pt", 5, source, changed_ns=status.st_mtime_ns))
    assert made.path is not None
    (again,) = box.entries(made.path)[0]
    assert (again.file, again.size, again.changed_ns, again.problem()) == (source, 5, status.st_mtime_ns, "")
    os.utime(source, ns=(0, 1))
    assert "has been changed" in again.problem()
    source.unlink()
    assert "cannot be read any more" in again.problem()
    made.drop(entry)
    assert box.is_empty(made.path)


def test_entries_come_in_the_order_in_which_they_were_made(made: Box) -> None:
    made._numbers = iter(range(999_998, 1_000_003))  # type: ignore[assignment]
    for name in "abcde":
        made.keep(name.encode(), name)
    assert made.path is not None
    assert [path for path, _ in there(made.path)] == list("abcde")


def test_a_box_is_its_process_s_until_that_is_gone(spool_root: Path) -> None:
    script = f"""
import sys
from penstock.address import parse_address
from penstock.outgoing.box import Box
made = Box({str(spool_root)!r}, {RUN!r}, parse_address("somewhere:5", "lab"), durable=False)
made.keep(b"data", "a")
print(made.path, flush=True)
sys.stdin.readline()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().strip())
        assert box.found(spool_root) == [directory]
        assert list(box.orphans(spool_root)) == []
        assert Box.claim(directory) is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(box.orphans(spool_root)) == [directory]
    claimed = Box.claim(directory)
    assert claimed is not None
    assert (claimed.run_id, claimed.address) == (RUN, Address("somewhere:5", tls=False, workspace="lab"))
    assert list(box.orphans(spool_root)) == []
    claimed.drop(box.entries(directory)[0][0])
    claimed.release()
    assert box.found(spool_root) == []


def test_an_empty_box_is_removed_when_it_is_left_and_one_with_something_stays(made: Box, spool_root: Path) -> None:
    entry = made.keep(b"data", "a")
    other = Box(spool_root, RUN, ADDRESS, durable=False)
    other.keep(b"data", "a")
    made.drop(entry)
    for each in (made, other):
        each.release()
        each.release()
    assert box.found(spool_root) == [other.path]


def test_what_the_server_refused_is_kept_for_a_day(made: Box, spool_root: Path) -> None:
    kept = made.refuse(made.keep(b"the only copy", "a"), "a is a directory")
    made.release()
    assert kept is not None
    assert kept.read_bytes() == b"the only copy"
    assert json.loads(kept.with_suffix(".refused").read_text())["reason"] == "a is a directory"
    assert list(box.orphans(spool_root)) == []
    box.sweep(spool_root, grace_seconds=86_400.0, now=time.time())
    assert kept.exists()
    box.sweep(spool_root, grace_seconds=86_400.0, now=time.time() + 90_000.0)
    assert box.found(spool_root) == []


def test_a_sweep_leaves_what_is_owned_and_what_is_to_be_sent(made: Box, spool_root: Path) -> None:
    made.drop(made.keep(b"data", "a"))
    left = Box(spool_root, RUN, ADDRESS, durable=False)
    left.keep(b"data", "a")
    left.release()
    box.sweep(spool_root, grace_seconds=0.0, now=time.time() + 1_000_000.0)
    assert set(box.found(spool_root)) == {made.path, left.path}


def test_nothing_that_is_not_ours_is_removed(made: Box, spool_root: Path) -> None:
    made.drop(made.keep(b"data", "a"))
    assert made.path is not None
    (made.path / "notes.txt").write_text("mine")
    made.release()
    assert (made.path / "notes.txt").exists()


def test_a_box_that_threads_make_at_once_is_one(made: Box, spool_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither finds one when it begins."""
    both = threading.Barrier(2)
    claim = Owner.claim

    def claimed(directory: Path) -> Owner | None:
        both.wait(10.0)
        return claim(directory)

    monkeypatch.setattr(Owner, "claim", claimed)
    threads = [threading.Thread(target=made.keep, args=(b"data", name)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert box.found(spool_root) == [made.path]
    assert made.path is not None
    assert len(there(made.path)) == 2
    made.release()
    assert list(box.orphans(spool_root)) == [made.path]
