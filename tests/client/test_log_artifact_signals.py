"""A signal handler that ends the run may strike anywhere in a call that logs a file."""

from __future__ import annotations

import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from training import DEADLINE

from penstock.address import parse_address
from penstock.outgoing import box, outgoing
from penstock.outgoing.box import Entry
from penstock.outgoing.courier import Courier
from penstock.outgoing.outgoing import Outgoing, Unlogged
from penstock.outgoing.tally import Tally
from penstock.session import Pace
from penstock.spool.retention import Limits

ADDRESS = parse_address("localhost:1")


class Away:
    """Takes each file in a moment."""

    def __init__(self, *_: object) -> None:
        pass

    def send(self, run_id: str, entry: Entry, told: Callable[[int], None], stopping: threading.Event) -> None:
        time.sleep(0.002)

    def close(self) -> None:
        pass


@pytest.fixture
def strike() -> Iterator[Callable[[Callable[[], None], Callable[[], None]], None]]:
    """Calls the second again and again, and at some moment the first in a signal handler."""
    before = signal.getsignal(signal.SIGALRM)

    def strike(handle: Callable[[], None], work: Callable[[], None]) -> None:
        struck = []

        def handler(*_: object) -> None:
            handle()
            struck.append(True)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.01))
        while not struck:
            work()

    yield strike
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


def all_sent(courier: Courier) -> bool:
    deadline = time.monotonic() + DEADLINE / 4
    while not courier.settled and time.monotonic() < deadline:
        courier.wait(0.05)
    return courier.settled


Strike = Callable[[Callable[[], None], Callable[[], None]], None]


def test_the_courier_s_threads_wait_for_no_frame_that_a_handler_interrupts(strike: Strike) -> None:
    for _ in range(100):
        numbers = iter(range(1, 1_000_000))
        ends: list[tuple[bool, list[Entry]]] = []
        courier = Courier("r", Away(), Pace(), done=lambda _: None, refused=lambda *_: None, patient=lambda: True)

        def end(courier: Courier = courier, ends: list[tuple[bool, list[Entry]]] = ends) -> None:
            courier.start()
            ends.append((all_sent(courier), courier.left))

        def log(courier: Courier = courier, numbers: Iterator[int] = numbers) -> None:
            number = next(numbers)
            courier.add(Entry(number, f"{number % 20}", 0))
            if number % 8 == 0:
                time.sleep(0.003)

        strike(end, log)
        assert ends == [(True, [])]
        assert all_sent(courier)
        assert not courier.left
        courier.stop(DEADLINE)


def test_the_end_comes_wherever_a_handler_strikes(
    strike: Strike, spool_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "GrpcWay", Away)
    for _ in range(50):
        files = Outgoing(
            uuid.uuid4().hex,
            ADDRESS,
            Pace(),
            spool_root,
            Limits(1 << 30, 1 << 20),
            durable=False,
            offline=False,
            patient=lambda: True,
        )
        ends: list[bool] = []

        def end(files: Outgoing = files, ends: list[bool] = ends) -> None:
            files.close()
            ends.append(all_sent(files.courier))

        def log(files: Outgoing = files) -> None:
            try:
                files.content(b"x" * 1000, uuid.uuid4().hex)
            except Unlogged:
                assert files.closed
            time.sleep(0.002)

        strike(end, log)
        assert ends == [True]
        assert all_sent(files.courier)
        files.stop(DEADLINE)
        assert (files.left, files.box.held, box.found(spool_root)) == ([], 0, [])


def test_a_tally_loses_nothing(strike: Strike) -> None:
    tally = Tally()
    added = 0

    def add() -> None:
        nonlocal added
        tally.add(3)
        added += 3

    threads = [threading.Thread(target=lambda: [tally.add(1) for _ in range(20_000)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        handled = tally.sum
        strike(lambda: [tally.add(5) for _ in range(7)] and None, add)
        assert tally.sum > handled
    for thread in threads:
        thread.join()
    assert tally.sum == added + 40_000 + 20 * 7 * 5
