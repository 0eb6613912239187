"""The conversation, without sockets: whatever breaks, what was logged is committed once and in order."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer import bits, decode
from spools import HEAD, on_disk

from penstock.batches import Update
from penstock.session import End, Pace, Session, Wait
from penstock.spool.outbox import Outbox
from penstock.spool.retention import Limits
from penstock.spool.spool import Spool
from penstock.v1 import metrics_pb2 as pb

NAMES = [("loss",), ("loss", "acc"), ("acc", "loss"), tuple(f"m{i}" for i in range(20)), ("é", "日本")]
INT64 = st.integers(-(2**63), 2**63 - 1)

frames = st.sampled_from(NAMES).flatmap(
    lambda names: st.tuples(
        st.just(names),
        st.lists(st.floats(), min_size=len(names), max_size=len(names)),
        INT64,
        st.integers(0, 253_402_300_799_999),
    )
)
updates = st.builds(Update, st.booleans(), st.text("ab/é", min_size=1, max_size=8), st.text(max_size=30))
logs = st.tuples(st.just("log"), frames | updates)
events = st.tuples(st.sampled_from(["send", "commit", "ack", "break", "drop"]), st.integers(0, 5))


def spooled(batch_bytes: int = 300) -> tuple[Spool, Outbox]:
    spool = on_disk(Limits(segment=100, keep=400))
    return spool, Outbox(spool, batch_bytes)


def log(to: Spool, record: Any) -> None:
    if isinstance(record, Update):
        assert to.update(record)
    else:
        names, values, step, time_ms = record
        assert to.append(to.shapes.get(names) or to.learn(names), array("d", values), step, time_ms)


def comparable(record: Any) -> Any:
    if isinstance(record[0], dict):
        values, step, time_ms = record
        return [(name, bits(value)) for name, value in values.items()], step, time_ms
    return record


def expected(record: Any) -> Any:
    if isinstance(record, Update):
        return "param" if record.is_param else "tag", record.key, record.value
    names, values, step, time_ms = record
    return [(name, bits(value)) for name, value in zip(names, values, strict=True)], step, time_ms


class World:
    """A writer, and a server that commits in its own time. `pace` and limits are small, so that everything happens."""

    def __init__(self, window: int, message: int) -> None:
        self.spool, self.outbox = spooled()
        self.committed: list[Any] = []
        self.window, self.message = window, message
        self.closing: pb.Finish | None = None
        self.open()

    def open(self) -> None:
        self.session = Session(self.outbox, pb.Hello(), self._closing, self._rejected, Pace())
        self.accepted: list[Any] = []  # by the server, not committed
        self.shapes: list[tuple[str, ...]] = []

    def _closing(self) -> pb.Finish | None:
        if self.closing is not None:
            self.closing.last_seq = self.outbox.last_seq
        return self.closing

    def _rejected(self, reject: pb.Reject) -> None:
        raise AssertionError(reject)

    @property
    def later(self) -> float:
        """When anything that lingers is ripe."""
        return time.monotonic() + 1

    def answer(self, **message: Any) -> None:
        self.session.received(pb.StreamMetricsResponse(**message), self.later)

    def send(self) -> bool:
        """One message to the server. False: there is none to send."""
        message = self.session.next(self.later)
        if not isinstance(message, bytes):
            return False
        request = pb.StreamMetricsRequest.FromString(message)
        match request.WhichOneof("message"):
            case "hello":
                welcome = pb.Welcome(hwm=len(self.committed), window_bytes=self.window, max_message_bytes=self.message)
                self.answer(welcome=welcome)
            case "batch":
                batch = request.batch
                assert len(message) <= self.message or batch.count == 1
                records = list(decode(batch, self.shapes))
                assert len(records) == batch.count > 0
                skip = len(self.committed) + len(self.accepted) + 1 - batch.first_seq
                assert skip >= 0, "a gap"
                self.accepted += records[skip:]
            case "finish":
                assert request.finish.last_seq == len(self.committed) + len(self.accepted)
                self.commit(len(self.accepted))
                self.answer(finish_ack=pb.FinishAck(hwm=len(self.committed)))
        return True

    def commit(self, count: int) -> None:
        self.committed += self.accepted[:count]
        del self.accepted[:count]

    def ack(self) -> None:
        if self.session.welcomed:
            self.answer(ack=pb.Ack(hwm=len(self.committed)))

    def finish(self) -> None:
        self.spool.close()
        self.closing = pb.Finish()
        for _ in range(10_000):
            if self.session.end is End.FINISHED:
                return
            assert self.session.end is None
            if not self.send():
                self.commit(3)
                self.ack()
        raise AssertionError("it never finishes")


@given(
    st.lists(logs | events, max_size=60),
    st.sampled_from([1, 500, 1 << 20]),
    st.sampled_from([1, 120, 1 << 20]),
)
def test_whatever_happens_it_is_committed_once_in_order(script: list[Any], window: int, message: int) -> None:
    world = World(window, message)
    told = []
    for what, how in script:
        match what:
            case "log":
                told.append(how)
                log(world.spool, how)
            case "send":
                for _ in range(how):
                    world.send()
            case "commit":
                world.commit(how)
            case "ack":
                world.ack()
            case "drop" | "break":
                if what == "break":
                    world.commit(how)  # and the acknowledgement is lost
                world.open()
    world.finish()
    assert [comparable(record) for record in world.committed] == [expected(record) for record in told]
    assert world.outbox.unacked == 0
    assert world.outbox.unacked_points == 0


def conversation(*, window: int = 1 << 20, hwm: int = 0) -> tuple[Spool, Outbox, Session]:
    """Welcomed, with nothing logged."""
    spool, outbox = spooled(batch_bytes=1 << 20)
    session = Session(outbox, pb.Hello(), lambda: None, lambda _: None, Pace())
    assert isinstance(session.next(0.0), bytes)
    session.received(pb.StreamMetricsResponse(welcome=pb.Welcome(hwm=hwm, window_bytes=window)), 0.0)
    return spool, outbox, session


def sent(session: Session, now: float) -> Iterator[pb.Batch]:
    while isinstance(message := session.next(now), bytes):
        yield pb.StreamMetricsRequest.FromString(message).batch


FRAME = (("loss",), [0.5], 1, 1)


def test_what_is_logged_lingers_and_leaves_together() -> None:
    spool, outbox, session = conversation()
    log(spool, FRAME)
    due = outbox.due(0)
    assert due is not None
    assert session.next(due + 0.01) == Wait(pytest.approx(Pace().linger - 0.01, abs=1e-6))
    log(spool, FRAME)
    assert [batch.count for batch in sent(session, due + 1)] == [2]


def test_no_more_than_the_window_is_unacknowledged() -> None:
    spool, _, session = conversation(window=1)
    now = time.monotonic() + 1
    log(spool, FRAME)
    assert [batch.first_seq for batch in sent(session, now)] == [1]
    log(spool, FRAME)
    assert list(sent(session, now)) == []
    session.received(pb.StreamMetricsResponse(ack=pb.Ack(hwm=1)), now)
    assert [batch.first_seq for batch in sent(session, now)] == [2]


def test_a_throttled_writer_waits() -> None:
    spool, _, session = conversation()
    now = time.monotonic() + 1
    log(spool, FRAME)
    session.received(pb.StreamMetricsResponse(throttle=pb.Throttle(retry_after_ms=500)), now)
    assert session.next(now) == Wait(pytest.approx(0.5))
    assert len(list(sent(session, now + 0.5))) == 1


def test_a_server_that_says_nothing_is_left() -> None:
    session = Session(spooled()[1], pb.Hello(), lambda: None, lambda _: None, Pace())
    session.next(0.0)
    assert session.next(Pace().welcome_timeout - 0.1) is not None
    assert session.next(Pace().welcome_timeout) is None
    assert session.end is End.STALLED


def test_a_server_that_acknowledges_nothing_is_left() -> None:
    spool, _, session = conversation()
    now = time.monotonic() + 1
    log(spool, FRAME)
    assert len(list(sent(session, now))) == 1
    assert session.next(now + Pace().stall_timeout - 1) is not None
    assert session.next(now + Pace().stall_timeout) is None
    assert session.end is End.STALLED


def test_a_record_that_comes_in_at_the_last_moment_is_not_slept_through() -> None:
    """After the spool was found empty, and before it could be said that the next record is wanted."""
    woken: list[None] = []

    class Late(Spool):
        count = property(lambda self: self._count, lambda self, count: setattr(self, "_count", count))  # type: ignore[assignment]

        @property  # type: ignore[override]
        def wanted(self) -> bool:
            return self._is_wanted

        @wanted.setter
        def wanted(self, value: bool) -> None:
            if value and self._comes:
                self._comes = False
                log(self, FRAME)
            self._is_wanted = value

        _comes = False

    spool = Late(HEAD, None)
    spool.wanted = False
    spool.wake = lambda: woken.append(None)
    spool._comes = True
    assert Outbox(spool).due(0) is not None
    assert woken == []


def test_an_idle_stream_stays() -> None:
    *_, session = conversation()
    assert isinstance(session.next(1e9), Wait)
    assert session.end is None


def test_going_away_waits_for_acknowledgements_only() -> None:
    spool, outbox, session = conversation()
    now = time.monotonic() + 1
    log(spool, FRAME)
    assert len(list(sent(session, now))) == 1
    session.received(pb.StreamMetricsResponse(go_away=pb.GoAway()), now)
    log(spool, FRAME)
    assert isinstance(session.next(now), Wait)
    session.received(pb.StreamMetricsResponse(ack=pb.Ack(hwm=1)), now)
    assert session.next(now) is None
    assert session.end is End.GO_AWAY
    assert outbox.unacked == 1


def test_a_mark_beyond_what_was_logged_is_no_break() -> None:
    spool, outbox, _ = conversation()
    log(spool, FRAME)
    again = Session(outbox, pb.Hello(), lambda: None, lambda _: None, Pace())
    again.next(0.0)
    again.received(pb.StreamMetricsResponse(welcome=pb.Welcome(hwm=5)), 0.0)
    assert again.end is End.HISTORY_GAP


def test_what_the_server_has_forgotten_is_sent_again_as_far_as_it_is_kept() -> None:
    spool, outbox, session = conversation()
    for step in range(100):
        log(spool, (("loss",), [0.5], step, 1))
        spool.keep()
    list(sent(session, time.monotonic() + 1))
    session.received(pb.StreamMetricsResponse(ack=pb.Ack(hwm=90)), 0.0)
    again = Session(outbox, pb.Hello(), lambda: None, lambda _: None, Pace())
    again.next(0.0)
    again.received(pb.StreamMetricsResponse(welcome=pb.Welcome(hwm=10, window_bytes=1 << 20)), 0.0)
    assert again.forgotten == 80
    lost, *rest = sent(again, time.monotonic() + 1)
    assert lost.lost
    assert lost.first_seq == 11
    assert 11 < lost.first_seq + lost.count == rest[0].first_seq <= 91
    assert sum(batch.count for batch in rest) == 101 - rest[0].first_seq
    assert sum(len(batch.values) for batch in rest) == 101 - rest[0].first_seq


def test_acknowledgements_told_twice_or_late_change_nothing() -> None:
    spool, outbox, session = conversation()
    for _ in range(3):
        log(spool, FRAME)
    list(sent(session, time.monotonic() + 1))
    for mark, left in ((2, 1), (2, 1), (1, 1), (3, 0), (2, 0), (99, 0)):
        session.received(pb.StreamMetricsResponse(ack=pb.Ack(hwm=mark)), 0.0)
        assert outbox.unacked == left
