"""Metrics go first: what gives way to them, for how long, and when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from frames import CALLER, Sender, hello, logs, make_run, working

from penstock_server.ingest.precedence import Precedence
from penstock_server.ingest.writer import WINDOW_BYTES
from penstock_server.postgres.database import Database


class Clock:
    """Goes on when it is told to, by thousandths of a second."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> Iterator[float]:
        for _ in range(round(seconds * 1000)):
            self.now += 0.001
            yield self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def precedence(clock: Clock) -> Precedence:
    return Precedence(clock)


def share(precedence: Precedence, clock: Clock, seconds: float = 2.0) -> float:
    """In what part of the time nobody has to wait."""
    free = [precedence.hold() == 0 for _ in clock.pass_by(seconds)]
    return sum(free) / len(free)


@contextmanager
def busy(precedence: Precedence, clock: Clock, size: int) -> Iterator[None]:
    """Inside, so many bytes have been under way for long."""
    with precedence.flushing(size):
        clock.now += 10
        yield


def test_with_nothing_to_commit_nobody_waits(precedence: Precedence, clock: Clock) -> None:
    assert share(precedence, clock) == 1


@pytest.mark.parametrize("windows", [1, 3, 100])
def test_the_busiest_ingest_leaves_a_quarter_of_the_time(precedence: Precedence, clock: Clock, windows: int) -> None:
    with busy(precedence, clock, windows * WINDOW_BYTES):
        assert share(precedence, clock) == pytest.approx(0.25, abs=0.02)


def test_half_as_much_under_way_takes_half_of_the_rest(precedence: Precedence, clock: Clock) -> None:
    with busy(precedence, clock, WINDOW_BYTES // 2):
        assert share(precedence, clock) == pytest.approx(1 - 0.75 / 2, abs=0.02)


def test_flushes_in_parallel_count_together(precedence: Precedence, clock: Clock) -> None:
    with precedence.flushing(WINDOW_BYTES // 2), busy(precedence, clock, WINDOW_BYTES // 2):
        assert share(precedence, clock) == pytest.approx(0.25, abs=0.02)


def test_small_flushes_hold_up_nothing_however_many(precedence: Precedence, clock: Clock) -> None:
    with busy(precedence, clock, 20_000):
        assert share(precedence, clock) > 0.98


def test_half_of_the_time_counts_half(precedence: Precedence, clock: Clock) -> None:
    free = []
    for _ in range(1000):
        with precedence.flushing(WINDOW_BYTES):
            free += [precedence.hold() == 0 for _ in clock.pass_by(0.007)]
        free += [precedence.hold() == 0 for _ in clock.pass_by(0.007)]
    assert sum(free[-4000:]) / 4000 == pytest.approx(1 - 0.75 / 2, abs=0.03)


def test_it_comes_and_goes_within_seconds(precedence: Precedence, clock: Clock) -> None:
    with precedence.flushing(WINDOW_BYTES):
        assert share(precedence, clock, 0.1) > 0.6
        share(precedence, clock, 1)
        assert share(precedence, clock, 0.1) < 0.3
    assert share(precedence, clock, 0.1) < 0.6
    share(precedence, clock, 2)
    assert share(precedence, clock, 0.1) == pytest.approx(1, abs=0.02)


def test_who_waits_as_told_goes_on_then(precedence: Precedence, clock: Clock) -> None:
    waits = 0
    with busy(precedence, clock, WINDOW_BYTES):
        for _ in clock.pass_by(1):
            if seconds := precedence.hold():
                waits += 1
                before, clock.now = clock.now, clock.now + seconds + 1e-6
                assert seconds < 0.1
                assert precedence.hold() == 0
                clock.now = before
    assert waits > 700


async def test_a_flush_is_given_way_to_while_it_lasts(db: Database) -> None:
    run = await make_run(db)
    async with working(db, 8 * WINDOW_BYTES) as ingest:
        writer, sender = await ingest.open(CALLER, run, hello(run)), Sender()
        await writer.put(sender.batch(logs(0, 1)))
        await writer.reached(1)
        async with db.transaction() as conn:
            await conn.fetch("SELECT FROM run_metrics WHERE run_id = $1 FOR UPDATE", run.run_id)
            await writer.put(sender.batch(logs(1, 100_000)))
            await held_up(ingest.precedence)
        await writer.reached(100_001)
    assert ingest.precedence._bytes == 0


async def held_up(precedence: Precedence) -> None:
    """Waits until somebody would have to wait."""
    while not precedence.hold():
        await asyncio.sleep(0.005)
