"""Whatever is logged comes out of the spool as it was: live and left behind, in files, in memory and in both."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peer import bits
from spools import HEAD, Place, everything, log, on_disk, shown, told

from penstock.batches import Update
from penstock.spool.outbox import Outbox
from penstock.spool.reader import Reader
from penstock.spool.retention import Limits
from penstock.spool.segments import Segment
from penstock.spool.spool import Spool
from penstock.spool.stored import Stored
from penstock.v1 import metrics_pb2 as pb

NAMES = [("loss",), ("loss", "acc"), ("ab", "c"), tuple(f"m{i}" for i in range(50)), ("é", "日本"), ("åP\x01\x03",)]
INT64 = st.integers(-(2**63), 2**63 - 1)
# Of every NaN there is, too.
doubles = st.integers(0, 2**64 - 1).map(lambda bits: array("d", bits.to_bytes(8, sys.byteorder))[0]) | st.floats()

frames = st.sampled_from(NAMES).flatmap(
    lambda names: st.tuples(
        st.just(names),
        st.lists(doubles, min_size=len(names), max_size=len(names)),
        INT64 | st.just(2**63 - 1) | st.just(-(2**63)),
        INT64,
    )
)
updates = st.builds(Update, st.booleans(), st.text(min_size=1, max_size=8), st.text(max_size=60))
records = frames | updates
limits = st.builds(
    Limits,
    segment=st.sampled_from([100, 1_000, 1 << 20]),
    keep=st.sampled_from([0, 500, 1 << 20]),
    memory=st.just(1 << 20),
)


class Fickle(Place):
    """A place that is there or not, as it is told."""

    there = True

    def make(self) -> Any:
        if not self.there:
            raise OSError("not now")
        return super().make()


def to_memory(spool: Spool) -> None:
    with spool._lock:
        spool._go_to_memory(OSError("the disk is full"))


@given(
    st.lists(
        st.tuples(st.just("log"), records)
        | st.tuples(
            st.sampled_from(["keep", "memory", "read", "ack", "back", "forget", "learn", "off", "on"]),
            st.integers(0, 9),
        ),
        max_size=50,
    ),
    limits,
    st.sampled_from([1, 300, 1 << 20]),
)
@settings(max_examples=100, deadline=None)
def test_what_is_logged_is_read(script: list[Any], limits: Limits, batch_bytes: int) -> None:
    place = Fickle()
    spool = on_disk(limits, place)
    outbox = Outbox(spool, batch_bytes)
    logged: list[Any] = []
    position = 0  # the reader's
    for what, how in script:
        match what:
            case "log":
                assert log(spool, how)
                logged.append(how)
            case "keep":
                spool.keep()
            case "memory":
                to_memory(spool)
            case "off" | "on":
                place.there = what == "on"
            case "learn":
                spool.shapes.clear()
            case "read":
                if outbox.due(position) is not None:
                    batch = outbox.take(position)
                    assert batch is not None
                    assert batch.first_seq == max(position, outbox.acked) + 1
                    if not batch.lost:  # it is kept no more
                        assert shown(batch) == told(logged[batch.first_seq - 1 : batch.last_seq])
                    else:
                        assert batch.last_seq < spool.segments[0].first_seq
                    position = batch.last_seq
            case "ack":
                outbox.acknowledge(outbox.acked + how)
            case "back":
                position = max(outbox.acked, position - how)
            case "forget":  # the server, not we
                outbox.go_back(max(0, outbox.acked - how))
                position = min(position, outbox.acked)
        assert spool.count == outbox.last_seq == len(logged)
        assert outbox.unacked == len(logged) - outbox.acked
        assert spool.segments == () or spool.segments[-1].first_seq <= spool.count + 1
        points = sum(len(each[1]) for each in logged[outbox.acked :] if not isinstance(each, Update))
        assert points <= outbox.unacked_points <= spool.values
        assert (outbox.unacked_since is None) == (outbox.unacked == 0)
    place.there = True
    got, lost = everything(outbox)
    assert got == told(logged[len(logged) - len(got) :])
    assert len(got) + lost == outbox.unacked

    finish = pb.Finish(refused=3)
    spool.close(finish)
    spool.keep()
    first = spool.segments[0].first_seq  # of what is kept now
    assert not spool.in_memory
    assert spool.memory_bytes == 0
    assert spool.disk_bytes == sum(segment.size for segment in spool.segments)
    assert spool.disk_bytes == sum(path.stat().st_size for path in place.path.glob("*.log"))
    stored = Stored.open(place.path)
    assert stored.lost == 0
    assert stored.head == HEAD
    assert stored.count == len(logged)
    assert stored.finish == pb.Finish(last_seq=len(logged), refused=3)
    got, lost = everything(Outbox(stored, batch_bytes))
    assert lost == first - 1
    assert got == told(logged[first - 1 :])
    stored.release()
    spool.release()


@given(st.lists(records, min_size=1, max_size=30), st.data(), st.sampled_from([1, 300, 1 << 20]))
@settings(deadline=None)
def test_a_reader_goes_wherever_it_is_told(logged: list[Any], data: st.DataObject, batch_bytes: int) -> None:
    spool = on_disk(Limits(segment=300))
    for record in logged:
        log(spool, record)
        if data.draw(st.booleans()):
            spool.keep()
    reader = Reader(lambda: spool.segments, batch_bytes)
    for after in data.draw(st.lists(st.integers(0, len(logged)), max_size=20)):
        reader.seek(after)
        batch = reader.read()
        if after == len(logged):
            assert batch is None
            continue
        assert batch is not None
        assert batch.first_seq == after + 1
        assert shown(batch) == told(logged[after : batch.last_seq])
        if data.draw(st.booleans()):
            reader.forget(data.draw(st.integers(0, batch.last_seq)))


def test_many_names_before_the_mark_are_passed_over() -> None:
    """However much they weigh: they are in no batch."""
    spool = on_disk()
    for number in range(100):
        log(spool, ((f"{number}" * 50,), [1.0], number, 1))
    outbox = Outbox(spool, 300)
    outbox.acknowledge(99)
    batch = outbox.take(99)
    assert batch is not None
    assert (batch.first_seq, batch.count, len(batch.names)) == (100, 1, 1)


def test_a_reader_of_a_segment_that_has_gone() -> None:
    spool = on_disk(Limits(segment=100, keep=0))
    for step in range(50):
        log(spool, (("loss",), [0.5], step, 1))
    spool.keep()
    log(spool, (("loss",), [0.5], 50, 1))
    outbox = Outbox(spool, 300)
    assert outbox.take(0) is not None  # it is in the first
    outbox.acknowledge(50)
    assert len(spool.segments) == 1
    got, lost = everything(outbox)
    assert (len(got), lost) == (1, 0)
    outbox.go_back(20)
    batch = outbox.take(20)
    assert batch is not None
    assert (batch.first_seq, batch.lost) == (21, 30)
    assert everything(outbox)[1] == 30
    outbox.go_back(0)
    batch = outbox.take(0)
    assert batch is not None
    assert (batch.first_seq, batch.lost) == (1, 50)


def test_what_the_server_has_forgotten_is_kept_until_it_is_acknowledged_again() -> None:
    spool = on_disk(Limits(segment=100, keep=5_000))
    for step in range(50):
        log(spool, (("loss",), [0.5], step, 1))
        spool.keep()
    outbox = Outbox(spool)
    outbox.acknowledge(50)
    kept = spool.segments
    assert 10 < len(kept) < 50
    outbox.go_back(0)
    for step in range(200):  # far more than what is kept of the acknowledged
        log(spool, (("loss",), [0.5], step, 1))
        spool.keep()
    assert spool.segments[: len(kept)] == kept


@pytest.mark.parametrize("name_bytes", [40, 2_000])
def test_names_that_always_change_are_forgotten(name_bytes: int) -> None:
    spool = on_disk(Limits(segment=1 << 20, keep=1 << 30))
    outbox = Outbox(spool)
    for number in range(25_000 if name_bytes < 100 else 12_000):
        log(spool, ((f"{number:0{name_bytes}}",), [1.0], number, 1))
        if number % 1_000 == 999:
            spool.keep()
            everything(outbox)
            outbox.acknowledge(spool.count)
    assert len(spool.shapes) <= 10_000
    assert sum(len(names[0]) for names in spool.shapes) <= 16 << 20
    assert len(spool.segments) > 3
    remembered = [len(segment.shapes) for segment in spool.segments]
    assert sum(remembered[:-2]) == 0, remembered


def test_a_segment_that_has_gone_holds_no_memory() -> None:
    """Shapes that it was the last to define hold on to it."""
    spool = Spool(HEAD, None, Limits(segment=1_000))
    outbox = Outbox(spool)
    for number in range(200):
        log(spool, ((f"m{number}",), [1.0], number, 1))
        everything(outbox)
        outbox.acknowledge(spool.count)
    segments = {shape.segment for shape in spool.shapes.values() if shape.segment is not None}
    assert len(segments) > 20
    assert sum(len(segment.memory or b"") for segment in segments) < 3_000


def test_a_batch_is_due_since_the_record_that_was_wanted() -> None:
    spool = on_disk()
    woken: list[None] = []
    spool.wake = lambda: woken.append(None)
    outbox = Outbox(spool)
    assert outbox.due(0) is None
    assert outbox.unacked_since is None
    before = time.monotonic()
    log(spool, (("loss",), [0.5], 1, 1))
    log(spool, (("loss",), [0.5], 1, 1))
    due = outbox.due(0)
    assert due is not None
    assert before <= due <= time.monotonic()
    assert woken == [None]
    assert outbox.unacked_since == due
    assert outbox.take(0) is not None
    assert outbox.due(2) is None
    since = outbox.unacked_since
    assert since is not None
    assert since >= due
    assert outbox.unacked_points == 2
    outbox.acknowledge(1)  # in the middle of a batch: it counts whole
    assert outbox.unacked_points == 2
    outbox.acknowledge(2)
    assert (outbox.unacked_points, outbox.unacked_since) == (0, None)


def test_points_are_told_after_a_rewind_too() -> None:
    spool = on_disk(Limits(segment=100))
    for step in range(10):
        log(spool, (("loss", "acc"), [0.5, 0.1], step, 1))
        spool.keep()
    outbox = Outbox(spool, 1)
    everything(outbox)
    outbox.acknowledge(8)
    assert outbox.unacked_points == 4
    outbox.go_back(2)
    assert outbox.unacked_points == 16
    everything(outbox)
    outbox.acknowledge(9)
    assert outbox.unacked_points == 2


# Threads and signals.


def numbered(thread: int, count: int) -> Iterator[tuple[tuple[str, ...], list[float], int, int]]:
    for step in range(count):
        yield (f"t{thread}", "all")[: 1 + step % 2], [float(step)] * (1 + step % 2), step, thread


def test_threads_log_while_segments_end() -> None:
    place = Place()
    spool = on_disk(Limits(segment=2_000), place)
    outbox = Outbox(spool, 5_000)
    taken: list[Any] = []
    over = threading.Event()

    def keep() -> None:
        while not over.is_set():
            spool.keep()
            to_memory(spool)
            time.sleep(0.002)

    def send() -> None:
        while not over.is_set() or outbox.unacked:
            batch = outbox.take(outbox.acked) if outbox.due(outbox.acked) is not None else None
            if batch is None:
                time.sleep(0.001)
                continue
            assert not batch.lost
            taken.extend(shown(batch))
            outbox.acknowledge(batch.last_seq)

    def log_all(thread: int) -> None:
        for record in numbered(thread, 300):
            assert log(spool, record)

    loggers = [threading.Thread(target=log_all, args=(number,)) for number in range(32)]
    others = [threading.Thread(target=keep), threading.Thread(target=send)]
    for each in (*others, *loggers):
        each.start()
    for each in loggers:
        each.join(60)
    over.set()
    for each in others:
        each.join(60)
        assert not each.is_alive()
    assert spool.count == len(taken) == 32 * 300
    for thread in range(32):
        assert [each for each in taken if each[2] == thread] == told(numbered(thread, 300))
    spool.close()
    spool.keep()
    stored = Stored.open(place.path)
    assert stored.count == 32 * 300  # what was acknowledged in memory is in no file
    stored.release()


class Thrown(BaseException):
    """By a signal handler."""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
@pytest.mark.parametrize("handler", ["logs", "raises", "logs and raises", "raises now and then", "ends it"])
@pytest.mark.parametrize("durable", [False, True])
def test_a_signal_anywhere_in_log(handler: str, durable: bool) -> None:
    place = Place()
    spool = Spool(HEAD, place.make, Limits(segment=4_000), durable=durable)
    returned: list[tuple[str, float]] = []
    begun: list[tuple[str, float]] = []
    rounds = 0
    armed = False

    def log_one(name: str, value: float, more: int) -> None:
        begun.append((name, value))
        names = (name, f"n{more % 7}") if more % 3 else (name,)
        if more % 11 == 10:
            assert spool.update(Update(True, name, repr(value)))
        else:
            assert log(spool, (names, [value] * len(names), 0, 0))
        returned.append((name, value))

    def handle(*_: Any) -> None:
        nonlocal rounds
        rounds += 1
        if "logs" in handler:
            log_one("handler", float(rounds), rounds)
        if handler == "ends it" and rounds % 50 == 0:
            spool.begin_anew(b"x" * 16, 0)
        if armed and "raises" in handler and (rounds % 3 == 0 or "now" not in handler):
            raise Thrown

    gc.disable()  # what is thrown out of its callbacks is told, and goes no further
    before = signal.signal(signal.SIGALRM, handle)
    value = 0
    until = time.monotonic() + 60
    try:
        while rounds < (200 if durable else 2_000) and time.monotonic() < until:
            # Somewhere in what follows: from a call's beginning to well after its end.
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + (value * 7 % 97) * 1e-6)
                for _ in range(3):
                    value += 1
                    log_one("main", float(value), value)
                if value % 90 == 0:
                    spool.keep()
                if value % 150 == 0:
                    to_memory(spool)
                armed = False
            except Thrown:
                armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert rounds > 100
    spool.close(pb.Finish())
    spool.keep()
    outbox = Outbox(spool)
    got, lost = everything(outbox)
    assert lost == 0
    assert len(got) == spool.count
    firsts = [
        (each[0][0][0], each[0][0][1]) if isinstance(each[0], list) else (each[1], bits(float(each[2]))) for each in got
    ]
    wanted = [(name, bits(each)) for name, each in returned]
    assert len(set(firsts)) == len(firsts), "twice"
    assert set(wanted) <= set(firsts) <= {(name, bits(each)) for name, each in begun}
    # By their place: each segment begins with the number that it says.
    place_of = 0
    for segment in spool.segments:
        assert segment.first_seq == place_of + 1
        reader = Reader(lambda segment=segment: (segment,), 1 << 30)
        reader.seek(place_of)
        while batch := reader.read():
            assert not batch.lost
            place_of = batch.last_seq
    stored = Stored.open(place.path)
    assert (stored.count, stored.lost) == (spool.count, 0)
    assert everything(Outbox(stored)) == (got, 0)
    stored.release()


def test_a_segment_that_a_handler_has_outrun_is_begun_again() -> None:
    """It was numbered, and before it took its place the handler logged."""
    spool = on_disk(Limits(segment=100))
    log(spool, (("loss",), [0.5], 0, 1))
    add, comes = spool._add, [True]

    def late(segment: Segment) -> bool:
        if comes:
            comes.clear()
            log(spool, (("loss",), [0.5], 1, 1))
        return add(segment)

    spool._add = late  # type: ignore[method-assign]
    spool.keep()
    log(spool, (("loss",), [0.5], 2, 1))
    assert [segment.first_seq for segment in spool.segments] == [1, 3]
    assert spool.place is not None
    assert len(list(spool.place.glob("*.log"))) == 2
    got, lost = everything(Outbox(spool))
    assert ([each[1] for each in got], lost) == ([0, 1, 2], 0)


def test_an_end_is_written_also_where_nothing_more_was_taken() -> None:
    """As of a run that was deleted: what was refused after that is told by whoever sends the rest."""
    place = Place()
    spool = on_disk(place=place)
    log(spool, (("loss",), [1.0], 1, 1))
    spool.close()
    spool.close(pb.Finish(refused=7))
    spool.close(pb.Finish(refused=9))
    stored = Stored.open(place.path)
    assert stored.finish == pb.Finish(last_seq=1, refused=7)
    stored.release()
    spool.release()
