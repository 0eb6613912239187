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

from penstock.batches import Update
from penstock.buffer import Buffer
from penstock.session import End, Pace, Session, Wait
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


def buffer(limit: int = 1 << 20, batch_bytes: int = 300) -> Buffer:
    return Buffer(limit, lambda: None, batch_bytes)


def log(to: Buffer, record: Any) -> None:
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
        self.buffer = buffer()
        self.committed: list[Any] = []
        self.window, self.message = window, message
        self.closing: pb.Finish | None = None
        self.open()

    def open(self) -> None:
        self.session = Session(self.buffer, pb.Hello(), self._closing, self._rejected, Pace())
        self.accepted: list[Any] = []  # by the server, not committed
        self.shapes: list[tuple[str, ...]] = []

    def _closing(self) -> pb.Finish | None:
        if self.closing is not None:
            self.closing.last_seq = self.buffer.gather()
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
        self.buffer.close()
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
                log(world.buffer, how)
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
    assert world.buffer.unacked == 0
    assert world.buffer.unacked_points == 0


def conversation(*, window: int = 1 << 20, hwm: int = 0) -> tuple[Buffer, Session]:
    """Welcomed, with nothing logged."""
    made = buffer(batch_bytes=1 << 20)
    session = Session(made, pb.Hello(), lambda: None, lambda _: None, Pace())
    assert isinstance(session.next(0.0), bytes)
    session.received(pb.StreamMetricsResponse(welcome=pb.Welcome(hwm=hwm, window_bytes=window)), 0.0)
    return made, session


def sent(session: Session, now: float) -> Iterator[pb.Batch]:
    while isinstance(message := session.next(now), bytes):
        yield pb.StreamMetricsRequest.FromString(message).batch


FRAME = (("loss",), [0.5], 1, 1)


def test_what_is_logged_lingers_and_leaves_together() -> None:
    made, session = conversation()
    log(made, FRAME)
    due = made.due(0)
    assert due is not None
    assert session.next(due + 0.01) == Wait(pytest.approx(Pace().linger - 0.01, abs=1e-6))
    log(made, FRAME)
    assert [batch.count for batch in sent(session, due + 1)] == [2]


def test_no_more_than_the_window_is_unacknowledged() -> None:
    made, session = conversation(window=1)
    now = time.monotonic() + 1
    log(made, FRAME)
    assert [batch.first_seq for batch in sent(session, now)] == [1]
    log(made, FRAME)
    assert list(sent(session, now)) == []
    session.received(pb.StreamMetricsResponse(ack=pb.Ack(hwm=1)), now)
    assert [batch.first_seq for batch in sent(session, now)] == [2]


def test_a_throttled_writer_waits() -> None:
    made, session = conversation()
    now = time.monotonic() + 1
    log(made, FRAME)
    session.received(pb.StreamMetricsResponse(throttle=pb.Throttle(retry_after_ms=500)), now)
    assert session.next(now) == Wait(pytest.approx(0.5))
    assert len(list(sent(session, now + 0.5))) == 1


def test_a_server_that_says_nothing_is_left() -> None:
    session = Session(buffer(), pb.Hello(), lambda: None, lambda _: None, Pace())
    session.next(0.0)
    assert session.next(Pace().welcome_timeout - 0.1) is not None
    assert session.next(Pace().welcome_timeout) is None
    assert session.end is End.STALLED


def test_a_server_that_acknowledges_nothing_is_left() -> None:
    made, session = conversation()
    now = time.monotonic() + 1
    log(made, FRAME)
    assert len(list(sent(session, now))) == 1
    assert session.next(now + Pace().stall_timeout - 1) is not None
    assert session.next(now + Pace().stall_timeout) is None
    assert session.end is End.STALLED


def test_a_record_that_comes_in_at_the_last_moment_is_not_slept_through() -> None:
    """After the buffer was found empty, and before it could be said that the next record is wanted."""
    woken: list[None] = []

    class Slow(Buffer):
        def gather(self) -> int:
            last = super().gather()
            if last == 0:
                log(self, FRAME)
            return last

    made = Slow(1 << 20, lambda: woken.append(None))
    made._wanted = False
    assert made.due(0) is not None
    assert woken == []


def test_an_idle_stream_stays() -> None:
    _, session = conversation()
    assert session.next(1e9) == Wait(None)
    assert session.end is None


def test_going_away_waits_for_acknowledgements_only() -> None:
    made, session = conversation()
    now = time.monotonic() + 1
    log(made, FRAME)
    assert len(list(sent(session, now))) == 1
    session.received(pb.StreamMetricsResponse(go_away=pb.GoAway()), now)
    log(made, FRAME)
    assert isinstance(session.next(now), Wait)
    session.received(pb.StreamMetricsResponse(ack=pb.Ack(hwm=1)), now)
    assert session.next(now) is None
    assert session.end is End.GO_AWAY
    assert made.unacked == 1


@pytest.mark.parametrize("mark", [0, 5])
def test_a_mark_that_cannot_be_is_told_from_a_break(mark: int) -> None:
    made, session = conversation()
    for _ in range(3):
        log(made, FRAME)
    list(sent(session, time.monotonic() + 1))
    session.received(pb.StreamMetricsResponse(ack=pb.Ack(hwm=2)), 0.0)
    again = Session(made, pb.Hello(), lambda: None, lambda _: None, Pace())
    again.next(0.0)
    again.received(pb.StreamMetricsResponse(welcome=pb.Welcome(hwm=mark)), 0.0)
    assert again.end is End.HISTORY_GAP


def test_acknowledgements_told_twice_or_late_change_nothing() -> None:
    made, session = conversation()
    for _ in range(3):
        log(made, FRAME)
    list(sent(session, time.monotonic() + 1))
    for mark, left in ((2, 1), (2, 1), (1, 1), (3, 0), (2, 0), (99, 0)):
        session.received(pb.StreamMetricsResponse(ack=pb.Ack(hwm=mark)), 0.0)
        assert made.unacked == left
