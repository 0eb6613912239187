"""Those who upload in a campaign: each one file after the other, to few paths, so that one is often replaced.

What they begin they bring to its end, however often it breaks off: they give up only what can never succeed, and that
is a problem.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from artifacts.ledger import Ledger, made
from artifacts.sender import Sender

MIB = 1 << 20
_SECONDS = 150  # for one file, whatever happens
_RATE = 32 * MIB  # bytes a second: a fault shall find it under way


class Member(Protocol):
    """Brings files in, one at a time."""

    tries: int
    resumed: int
    sent: int

    def deliver(self, path: str, data: bytes) -> None:
        """Returns when it is there. Raises AssertionError when it will not be."""

    def close(self) -> None:
        """Its end, in the midst of whatever it does."""


class Raw:
    """A member in a thread of this process, which speaks gRPC itself. `address` says which server, at each try."""

    def __init__(self, address: Callable[[], str], run_id: str, rate: float = _RATE) -> None:
        self.tries = self.resumed = self.sent = 0
        self._address = address
        self._run_id = run_id
        self._rate = rate
        self._sender: Sender | None = None

    def deliver(self, path: str, data: bytes) -> None:
        """Asks how far it got, and sends the rest, until it is there."""
        sender = self._sender = Sender(self._address, self._run_id, path, data, self._rate)
        try:
            artifact = sender.deliver(_SECONDS)
            assert (artifact.size, artifact.sha256) == (len(data), sender.digest), "something else was answered"
        finally:
            self._sender = None
            self.tries += sender.tries
            self.resumed += sender.resumed
            self.sent += sender.sent

    def break_off(self) -> None:
        """What is being sent is sent again, in part."""
        if (sender := self._sender) is not None:
            sender.cancel()

    def close(self) -> None:
        """Ends it."""
        if (sender := self._sender) is not None:
            sender.over = True
            sender.cancel()


class Crew:
    """Works from its start until `finish`."""

    def __init__(self, members: list[Member], ledger: Ledger, seed: int, largest: int) -> None:
        self.members = members
        self.problems: list[str] = []
        self._ledger = ledger
        self._largest = largest
        self._active = [0] * len(members)  # bytes of what each has under way
        self._ends = threading.Event()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(number, random.Random(f"{seed} {number}")), daemon=True)
            for number in range(len(members))
        ]
        for thread in self._threads:
            thread.start()

    def wait_busy(self, seconds: float = 60) -> bool:
        """Until a file is under way that is worth a fault. False when there was none in time."""
        deadline = time.monotonic() + seconds
        while not self.busy and not self.problems:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    @property
    def busy(self) -> bool:
        """Whether a file is under way that is worth a fault."""
        return max(self._active) >= MIB

    def finish(self) -> None:
        """What is begun comes to its end. Raises AssertionError when something did not."""
        self._ends.set()
        for thread in self._threads:
            thread.join(_SECONDS + 30)
            assert not thread.is_alive(), "an upload hangs"
        assert not self.problems, "\n".join(self.problems)

    def close(self) -> None:
        """Its end, in the midst of whatever it does. May be called again."""
        self._closed = True
        self._ends.set()
        for member in self.members:
            member.close()
        for thread in self._threads:
            thread.join(_SECONDS)

    def _work(self, number: int, chance: random.Random) -> None:
        while not self._ends.is_set():
            path = chance.choice(("model.pt", "checkpoints/last.pt", "checkpoints/best/ünï code.bin", f"own/{number}"))
            data = made(chance.getrandbits(64), _size(chance, self._largest))
            self._active[number] = len(data)
            try:
                with self._ledger.upload(path, data):
                    self.members[number].deliver(path, data)
            except Exception as error:  # noqa: BLE001 whoever finishes the crew tells
                if not self._closed:
                    self.problems.append(f"{path}, {len(data)} bytes, was not uploaded: {error!r}")
                return
            finally:
                self._active[number] = 0


def _size(chance: random.Random, largest: int) -> int:
    match chance.randrange(6):
        case 0:
            return chance.choice((0, 1, 1 << 16, 8 * MIB, 16 * MIB))  # parts have 8 MiB
        case 1:
            return chance.randrange(2 * MIB)
        case _:
            return chance.randrange(8 * MIB, largest)
