"""Damaged spools: every intact record arrives under its number, the lost are counted, and nothing raises."""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import decode
from spools import HEAD, Place, everything, log, on_disk, told

from penstock.batches import Update
from penstock.session import End, Pace, Session
from penstock.spool import records
from penstock.spool.outbox import Outbox
from penstock.spool.retention import Limits
from penstock.spool.stored import Stored
from penstock.v1 import metrics_pb2 as pb

LOGGED: list[Any] = [
    (("loss",), [0.5], 1, 10),
    (("loss", "acc"), [0.25, float("nan")], 2, 11),
    Update(True, "lr", "0.1"),
    (("loss",), [0.125], 3, 12),
    (("acc",), [1.0], 4, 13),
    Update(False, "note", "well"),
    (("loss", "acc"), [0.0, 1.0], 5, 14),
    (("loss",), [9.0], 6, 15),
]


class Spooled:
    """A spool that a process has left: in files of three, three and two records."""

    def __init__(self, place: Place, *, finished: bool) -> None:
        self.place = place
        self.path = place.path
        spool = on_disk(Limits(segment=50), place)
        for number, record in enumerate(LOGGED):
            log(spool, record)
            if number in (2, 5):
                spool.keep()
        if finished:
            spool.close(pb.Finish(refused=1))
        spool.release()
        self.files = sorted(self.path.glob("*.log"))
        assert len(self.files) == 3

    def places(self) -> Iterator[tuple[Path, int, int, int]]:
        """Each record: its file, where it is, its length, its number; 0 where it has none."""
        number = 0
        for file in self.files:
            data = file.read_bytes()
            at = 0
            while at < len(data):
                length = records.whole(data, at)
                assert length
                numbered = records.kind(data, at) in records.NUMBERED
                number += numbered
                yield file, at, length, number if numbered else 0
                at += length


@pytest.fixture(params=[False, True], ids=["killed", "finished"])
def spooled(request: pytest.FixtureRequest) -> Spooled:
    place = Place()
    return Spooled(place, finished=request.param)


def opened(path: Path) -> tuple[Stored, list[Any], int]:
    """As another process finds it; what is in it, and how much is lost."""
    stored = Stored.open(path)
    got, lost = everything(Outbox(stored, 300))
    assert len(got) + lost == stored.count
    assert stored.lost <= lost  # of a first file that is missing it cannot know
    return stored, got, lost


def check(path: Path, gone: set[int], count: int = len(LOGGED), *, sent: bool = True) -> Stored:
    """All but the records with these numbers are there, and those are counted."""
    stored, got, lost = opened(path)
    assert got == told(record for number, record in enumerate(LOGGED[:count], 1) if number not in gone)
    assert (stored.count, lost) == (count, len(gone))
    stored.release()
    if sent:
        deliver(path, gone, count)
    return stored


def deliver(path: Path, gone: set[int], count: int) -> None:
    """To a server that has had nothing, and to one that has some: its mark ends at the last number."""
    for had in (0, count // 2):
        stored = Stored.open(path)
        outbox = Outbox(stored, 200)
        closing = pb.Finish(last_seq=stored.count)
        session = Session(
            outbox, pb.Hello(), lambda closing=closing: pb.Finish(last_seq=closing.last_seq), refuse, Pace()
        )
        hwm, lost, shapes = had, set(), []
        got: dict[int, Any] = {}
        while session.end is None:
            message = session.next(0.0)
            assert isinstance(message, bytes), "it waits for what never comes"
            request = pb.StreamMetricsRequest.FromString(message)
            match request.WhichOneof("message"):
                case "hello":
                    session.received(pb.StreamMetricsResponse(welcome=pb.Welcome(hwm=hwm, window_bytes=1 << 20)), 0.0)
                case "batch":
                    batch = request.batch
                    numbers = range(batch.first_seq, batch.first_seq + batch.count)
                    assert batch.first_seq == hwm + 1
                    hwm = numbers[-1]
                    if batch.lost:
                        lost.update(numbers)
                    else:
                        got.update(zip(numbers, decode(batch, shapes), strict=True))
                    session.received(pb.StreamMetricsResponse(ack=pb.Ack(hwm=hwm)), 0.0)
                case "finish":
                    assert request.finish.last_seq == hwm
                    session.received(pb.StreamMetricsResponse(finish_ack=pb.FinishAck(hwm=hwm)), 0.0)
        assert session.end is End.FINISHED
        assert hwm == count == outbox.acked
        assert lost == {number for number in gone if number > had}
        assert set(got) == set(range(had + 1, count + 1)) - lost
        for number, record in got.items():
            logged = LOGGED[number - 1]
            if isinstance(logged, Update):
                assert record == ("param" if logged.is_param else "tag", logged.key, logged.value)
            else:
                values, step, time_ms = record
                assert (list(values), step, time_ms) == (list(logged[0]), logged[2], logged[3])
        stored.release()


def refuse(reject: pb.Reject) -> None:
    raise AssertionError(reject)


def test_undamaged(spooled: Spooled) -> None:
    stored = check(spooled.path, set())
    assert stored.head == HEAD


def test_a_torn_tail_at_every_byte(spooled: Spooled) -> None:
    """What is not whole was not logged, unless the file after it, or the end, tells that it was."""
    places = list(spooled.places())
    for file in spooled.files:
        data = file.read_bytes()
        for size in range(len(data)):
            file.write_bytes(data[:size])
            gone = {number for each, at, length, number in places if each == file and at + length > size and number}
            count = len(LOGGED)
            if file == spooled.files[-1] and size < len(data):
                count -= len(gone)
                gone = set()
            check(spooled.path, gone, count, sent=size % 8 == 0)
        file.write_bytes(data)


def test_a_flipped_bit_in_every_byte(spooled: Spooled) -> None:
    """The record alone is lost. A record that had no number takes no other with it: names are told twice."""
    places = list(spooled.places())
    last = max(number for *_, number in places)
    told_at_the_end = places[-1][3] == 0
    for file, begin, length, number in places:
        data = file.read_bytes()
        for at in range(begin, begin + length):
            broken = bytearray(data)
            broken[at] ^= 1 << at % 8
            file.write_bytes(broken)
            gone, count = ({number} if number else set()), len(LOGGED)
            if number == last and not told_at_the_end and at - begin in (0, 1, 2, 3, 4, 5, 6, 7):
                # Nothing comes after it, and what says that it was a record, and how long, is broken.
                stored, got, lost = opened(spooled.path)
                assert got == told(LOGGED[: last - 1])
                assert stored.count - (last - 1) == lost <= 1
                stored.release()
            elif not number and (file, begin) == places[-1][:2] and at - begin == 2:
                stored, got, lost = opened(spooled.path)  # the end, which now says that it is something else
                assert got == told(LOGGED)
                assert lost <= 1
                stored.release()
            else:
                check(spooled.path, gone, count, sent=at % 8 == 0)
        file.write_bytes(data)


@pytest.mark.parametrize("zeros", [1, 4096, 2 << 20])
def test_a_tail_of_zeros(spooled: Spooled, zeros: int) -> None:
    with spooled.files[-1].open("ab") as file:
        file.write(bytes(zeros))
    check(spooled.path, set())


@pytest.mark.parametrize("zeros", [5, 5_000])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_garbage_before_between_and_after(spooled: Spooled, which: int, zeros: int) -> None:
    file = spooled.files[which]
    data = file.read_bytes()
    begins = [at for each, at, _, _ in spooled.places() if each == file] + [len(data)]
    for at in begins:
        for garbage in (bytes(zeros), (b"\xa5P\x03\x01" * zeros)[:zeros]):
            file.write_bytes(data[:at] + garbage + data[at:])
            stored, got, lost = opened(spooled.path)
            assert (got, lost, stored.lost) == (told(LOGGED), 0, 0)
            stored.release()


def test_a_missing_file(spooled: Spooled) -> None:
    numbers = {file: {each[3] for each in spooled.places() if each[0] == file} - {0} for file in spooled.files}
    for which, file in enumerate(spooled.files):
        data = file.read_bytes()
        for how in ("missing", "empty", "zeros", "foreign"):
            match how:
                case "missing":
                    file.unlink()
                case "empty":
                    file.write_bytes(b"")
                case "zeros":
                    file.write_bytes(bytes(len(data)))
                case "foreign":
                    file.write_bytes(b"\x89PNG\r\n" * 100)
            if which == 2:  # nothing tells that there was one
                check(spooled.path, set(), 6)
            else:
                stored = check(spooled.path, numbers[file])
                assert stored.lost == (len(numbers[file]) if which == 1 else 0)
        file.write_bytes(data)


def test_without_any_head_the_directory_tells_the_run(spooled: Spooled, tmp_path: Path) -> None:
    for file, at, length, _ in list(spooled.places()):
        data = bytearray(file.read_bytes())
        if records.kind(data, at) == records.HEAD:
            data[at + length - 1] ^= 1
            file.write_bytes(data)
    with pytest.raises(ValueError, match="nothing tells what run"):
        Stored.open(spooled.path)
    named = tmp_path / f"{'a1' * 16}.{'b2' * 16}"
    shutil.copytree(spooled.path, named)
    stored = check(named, set())
    assert (stored.head.run_id, stored.head.writer_id) == ("a1" * 16, b"\xb2" * 16)


def test_another_version_is_not_taken_for_nothing(spooled: Spooled) -> None:
    for file in spooled.files:
        data = file.read_bytes()
        later, at = b"", 0
        while length := records.whole(data, at):
            body = bytearray(data[at : at + length - 4])
            body[3] = 2
            later += body + records.CHECK.pack(zlib.crc32(body))
            at += length
        file.write_bytes(later)
        with pytest.raises(ValueError, match="another version"):
            Stored.open(spooled.path)
        file.write_bytes(data)


def test_files_of_others_are_left_alone(spooled: Spooled) -> None:
    (spooled.path / "00000009.log.swp").write_bytes(b"what an editor leaves")
    (spooled.path / "trainer.log").write_bytes(b"what somebody has put here\n" * 100)
    (spooled.path / "00000008.log").mkdir()
    (spooled.path / "00000007.log").symlink_to(spooled.files[0])
    check(spooled.path, set())


def test_files_that_overlap_are_read_once(spooled: Spooled) -> None:
    """One was copied from memory, in part or twice, before the process was killed."""
    places = list(spooled.places())
    for which, file in enumerate(spooled.files):
        data = file.read_bytes()
        copy = file.with_name(f"0000001{which}.log")
        for size in sorted({at for each, at, _, _ in places if each == file} | {len(data), len(data) - 1}):
            for whole, part in ((file, copy), (copy, file)):
                whole.write_bytes(data)
                part.write_bytes(data[:size])
                check(spooled.path, set())
        file.write_bytes(data)
        copy.unlink()


def test_damage_all_over_a_long_file() -> None:
    """Which takes time in proportion, not in square."""
    place = Place()
    spool = on_disk(None, place)
    for step in range(100_000):
        log(spool, (("loss",), [0.5], step, 1))
    spool.release()
    (file,) = place.path.glob("*.log")
    data = bytearray(file.read_bytes())
    begin = len(data) - 100_000 * 48
    broken = range(7, 99_999, 100)
    for number in broken:
        data[begin + number * 48 + 41] ^= 1
    file.write_bytes(data)
    stored = Stored.open(place.path)
    assert (stored.count, stored.lost) == (100_000, len(broken))
    got, lost = everything(Outbox(stored))
    assert lost == len(broken)
    assert [each[1] for each in got] == sorted(set(range(100_000)) - set(broken))
    stored.release()


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_whatever_becomes_of_it(data: st.DataObject) -> None:
    """It opens, or says that there is nothing; what it gives was logged; its numbers have no gaps."""
    spooled = Spooled(Place(), finished=data.draw(st.booleans()))
    named = spooled.path.rename(
        spooled.path.with_name(f"{'a1' * 16}.{spooled.path.name.encode().hex()[:32].ljust(32, '0')}")
    )
    try:
        for name in data.draw(st.lists(st.sampled_from([file.name for file in spooled.files]), max_size=3)):
            file = named / name
            content = bytearray(file.read_bytes())
            begin = data.draw(st.integers(0, len(content)))
            end = data.draw(st.integers(begin, len(content)))
            content[begin:end] = data.draw(st.binary(max_size=50) | st.just(bytes(end - begin)))
            file.write_bytes(content)
        try:
            stored, got, _ = opened(named)
        except ValueError as error:
            if "no records" not in str(error):
                raise
            return
        rest = iter(told(LOGGED))
        assert all(each in rest for each in got)
        stored.release()
    finally:
        shutil.rmtree(named)


def test_the_last_record_of_a_living_process_is_given_up_when_it_stays_unreadable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.spool.spool._PATIENCE", 0.05)
    place = Place()
    spool = on_disk(place=place)
    for step in range(3):
        log(spool, (("loss",), [1.0], step, 1))
    (path,) = place.path.glob("*.log")
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff")
    outbox = Outbox(spool)
    first = outbox.take(0)
    assert first is not None
    assert first.last_seq == 2
    assert outbox.take(2) is None  # for it may come
    spool.close(pb.Finish())
    deadline = time.monotonic() + 30
    while (lost := outbox.take(2)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lost is not None
    assert (lost.first_seq, lost.lost) == (3, 1)


def test_a_spool_that_grows_after_it_was_read_says_so() -> None:
    place = Place()
    spool = on_disk(place=place)
    log(spool, (("loss",), [1.0], 1, 1))
    stored = Stored.open(place.path)
    assert not stored.grown()
    log(spool, (("loss",), [1.0], 2, 1))
    assert stored.grown()
    again = Stored.open(place.path)
    assert not again.grown()
    spool._begin_file()
    assert again.grown()
    stored.release()
    again.release()
