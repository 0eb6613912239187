"""A spool without a directory: the same records, in bounded memory, for as long as the process lives."""

from __future__ import annotations

from spools import HEAD, everything, in_memory, log, on_disk, told

from penstock.batches import Update
from penstock.spool.outbox import Outbox
from penstock.spool.reader import Reader
from penstock.spool.records import pack_shape
from penstock.spool.retention import Limits
from penstock.spool.segments import Segment
from penstock.v1 import metrics_pb2 as pb

FRAME = (("loss",), [0.5], 1, 1)


def test_each_segment_can_be_read_alone() -> None:
    """It goes to the disk some day, and its elder may be gone by then."""
    spool = in_memory(Limits(segment=1_000))
    for _ in range(100):
        log(spool, FRAME)
    assert len(spool.segments) > 5
    for segment in spool.segments:
        reader = Reader(lambda segment=segment: (segment,), 1 << 20)  # type: ignore[misc]
        reader.seek(segment.first_seq - 1)
        batch = reader.read()
        assert batch is not None
        assert batch.first_seq == segment.first_seq
        assert not batch.lost
        assert reader.head == HEAD


def test_a_full_memory_refuses_and_grows_no_segments() -> None:
    spool = in_memory(Limits(memory=20_000, segment=1_000))
    while log(spool, FRAME):
        pass
    assert spool.memory_bytes <= 20_000
    segments, count = spool.segments, spool.count
    for number in range(1_000):
        assert not log(spool, FRAME)
        assert not log(spool, (("other", f"m{number}"), [0.5, 0.5], 1, 1))
        assert not log(spool, Update(True, "lr", "0.1" * 100))
    assert spool.count == count
    assert len(spool.segments) <= len(segments) + 1
    assert spool.memory_bytes <= 20_000 + 2_000


def test_acknowledged_memory_is_let_go_of() -> None:
    spool = in_memory(Limits(memory=20_000, segment=1_000))
    outbox = Outbox(spool, 500)
    for _ in range(50):
        for _ in range(100):
            assert log(spool, FRAME)
        got, lost = everything(outbox)
        assert (got, lost) == (told([FRAME] * 100), 0)
        outbox.acknowledge(spool.count)
        assert len(spool.segments) == 1
    assert spool.memory_bytes == spool.segments[0].size == len(spool.segments[0].memory or b"")


def test_names_longer_than_a_segment() -> None:
    names = tuple(f"{number:0200}" for number in range(500))
    spool = in_memory(Limits(segment=1_000))
    records = [(names, [float(step)] * 500, step, 1) for step in range(3)]
    for record in records:
        assert log(spool, record)
    assert max(segment.size for segment in spool.segments) > 2 * len(pack_shape(1, 0, names))
    assert everything(Outbox(spool)) == (told(records), 0)


def test_after_its_end_nothing_is_taken() -> None:
    spool = in_memory()
    log(spool, FRAME)
    spool.close(pb.Finish(refused=2))
    spool.close(pb.Finish(refused=9))
    assert not log(spool, FRAME)
    assert not log(spool, Update(True, "lr", "0.1"))
    reader = Reader(lambda: spool.segments, 1 << 20)
    while reader.read():
        pass
    assert reader.finish == pb.Finish(last_seq=1, refused=2)


def test_the_end_of_a_handler_counts_what_it_has_interrupted() -> None:
    """SIGTERM's handler ends the run while `log` has written its record and not yet counted it."""
    spool = on_disk()
    log(spool, FRAME)
    segment: Segment = spool.segments[-1]
    record = segment.read(0, 1 << 20)[-48:]
    size = segment.size
    assert segment.append(record)
    segment.size = size
    ended = pb.Finish()
    spool.close(ended)
    assert (ended.last_seq, spool.count) == (2, 2)
    assert everything(Outbox(spool)) == (told([FRAME] * 2), 0)


def test_a_head_that_comes_late_is_the_one_that_counts() -> None:
    for spool in (in_memory(), on_disk()):
        log(spool, FRAME)
        spool.begin_anew(b"another's bytes.", 1)
        log(spool, FRAME)
        reader = Reader(lambda spool=spool: spool.segments, 1 << 20)  # type: ignore[misc]
        while reader.read():
            pass
        assert reader.position == 2
        assert reader.head is not None
        assert (reader.head.writer_id, reader.head.base) == (b"another's bytes.", 1)
