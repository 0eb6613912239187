"""The protocol, searched: whatever is lost, doubled, delayed or killed between any two steps, every record once.

world/ is where it happens. One thing after another does, and in between the world goes on by itself for some steps.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from world.database import Broken
from world.whole import World, Wrong
from world.wrong import WRONG

T = TypeVar("T")

_WRITERS = 3
_MEMORY = Path("/dev/shm")
# So many steps are made between one thing that happens and the next; a record is committed after some twelve.
_STEPS = (0, 1, 3, 10, 30)

# What happens, and how often beside the others.
_HAPPENINGS = {
    "nothing": 4,
    "wait": 1,
    # What people do.
    "start": 2,
    "log": 8,
    "finish": 1,
    "take_over": 2,
    "reclaim": 2,
    "drain": 1,
    "back_up": 1,
    "restore": 1,
    # What goes wrong: in the network, in the database, with processes and with disks.
    "change_replica": 6,
    "notice": 2,
    "lose": 2,
    "double": 2,
    "slow_down": 4,
    "sever": 4,
    "give_up": 2,
    "undo": 2,
    "kill_replica": 1,
    "kill": 1,
    "damage": 2,
}


class Protocol(RuleBasedStateMachine):
    """Any history of the world. What cannot happen at the time does not."""

    wrong: ClassVar[Wrong | None] = None

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None)
        self._world = World(Path(self._directory.name), self.wrong)
        self._chance = random.Random()

    def teardown(self) -> None:
        try:
            self._world.heal(self._chance)
        finally:
            self._world.close()
            self._directory.cleanup()

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self._chance.seed(seed)
        self.start()

    @rule(what=st.sampled_from([what for what, often in _HAPPENINGS.items() for _ in range(often)]))
    def happen(self, what: str) -> None:
        getattr(self, what)()
        self._world.check()
        self._world.go_on(self._chance.choice(_STEPS), self._chance)

    def nothing(self) -> None: ...

    def wait(self) -> None:
        self._world.wait(60.0)

    def start(self) -> None:
        if len(self._world.writers) < _WRITERS:
            self._world.start()
            self._world.log(self._world.processes[-1], 2)

    def log(self) -> None:
        if process := self._one([each for each in self._world.processes if each.logs]):
            self._world.log(process, self._chance.randint(1, 4))

    def finish(self) -> None:
        if process := self._one(self._world.processes):
            process.finish()

    def take_over(self) -> None:
        self._world.take_over(self._chance.choice(self._world.writers))

    def reclaim(self) -> None:
        self._world.reclaim()

    def drain(self) -> None:
        self._world.drain(self._chance.randrange(2))

    def back_up(self) -> None:
        self._world.back_up()

    def restore(self) -> None:
        if self._world.backup is not None:
            self._world.restore()

    def change_replica(self) -> None:
        if process := self._one([each for each in self._world.processes if each.session is not None]):
            self._world.change_replica(process, self._chance.randrange(2))

    def notice(self) -> None:
        if self._world.links:
            self._world.notice(self._chance.randrange(len(self._world.links)))

    def lose(self) -> None:
        if link := self._one(self._world.links):
            self._world.lose(link[0], to_server=self._chance.random() < 0.5)

    def double(self) -> None:
        if link := self._one(self._world.links):
            self._world.double(link[0], to_server=self._chance.random() < 0.5)

    def slow_down(self) -> None:
        self._world.slow_down(self._chance.randrange(3))

    def sever(self) -> None:
        if statement := self._one(self._world.model.asked):
            self._world.sever(statement)

    def give_up(self) -> None:
        if statement := self._one(self._world.model.asked):
            self._world.give_up(statement)

    def undo(self) -> None:
        if statement := self._one(self._world.model.asked):
            self._world.undo(statement)

    def kill_replica(self) -> None:
        self._world.kill_replica(self._chance.randrange(2))

    def kill(self) -> None:
        if process := self._one(self._world.processes):
            self._world.kill(process, self._chance.randint(0, 100))

    def damage(self) -> None:
        if writer := self._one([each for each in self._world.writers if not each.logged_to and each.steps]):
            writer.damage(self._chance.randrange(100), self._chance.randrange(100), self._chance.randint(1, 255))

    def _one(self, of: Sequence[T]) -> T | None:
        return self._chance.choice(of) if of else None


def search(wrong: Wrong | None, examples: int, steps: int, *, as_ci: bool = True) -> None:
    """Looks for a history that breaks the promise, `as_ci` the same way each time. Raises Broken."""

    class Searched(Protocol):
        pass

    Searched.wrong = staticmethod(wrong) if wrong is not None else None
    run_state_machine_as_test(
        Searched,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=as_ci,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_record_once() -> None:
    search(None, 200, 60, as_ci=settings().derandomize)


@pytest.mark.parametrize("name", WRONG)
def test_the_search_finds_what_is_wrong(name: str) -> None:
    with pytest.raises(Broken):
        search(WRONG[name], 2_000, 50)  # some hundred do for the best hidden of them
