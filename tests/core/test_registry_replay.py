"""The history replays to the state: whatever is done, in vain or not, by one or by many on two replicas.

More of it: REPLAY_SCALE=20 REPLAY_SEED=1 make test ARGS=tests/core/test_registry_replay.py
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import groupby

import pytest
from handling import Act, Ground, Hand
from registering import ANN, Desk
from replaying import Model, answered, answered_one_by_one, replay

from penstock_server.model.registry import Event, EventKind
from penstock_server.postgres.database import Database

SCALE = int(os.environ.get("REPLAY_SCALE", "1"))
SEED = int(os.environ.get("REPLAY_SEED", "20261121"))
ROUNDS = 7
STEPS = 150
MOST = 50  # events of one thing that is done
TASKS = 50
ACTS = 10
END = "the end"

# Of which nothing is seen but in the history.
_UNSEEN = {EventKind.SOURCE_DELETED, EventKind.PROMOTED}


class Chronicle:
    """The state that the history has led to so far."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.models: dict[str, Model] = {}
        self.last = 0
        self.told = set[EventKind | str]()

    async def go_on(self) -> list[Event]:
        """Takes in what has happened since."""
        newest, _ = await self.desk.events.list(ANN, page_size=MOST)
        events = [event for event in reversed(newest) if event.id > self.last]
        assert len(events) < MOST
        replay(events, self.models)
        self.last = events[-1].id if events else self.last
        self.told.update(event.what.kind for event in events)
        self.told.update(event.what.key for event in events if event.what.kind is EventKind.STAGE_CHANGED)
        return events


@pytest.mark.timeout(120 * SCALE)
async def test_one_who_does_anything(db: Database) -> None:
    desk = Desk(db)
    chronicle = Chronicle(desk)
    for seed in range(SEED, SEED + ROUNDS * SCALE):
        ground = await Ground.lay(desk)
        await chronicle.go_on()
        done: list[Act] = []
        try:
            await do_anything(chronicle, Hand(desk, ground, random.Random(seed)), done)
        except AssertionError as error:
            raise AssertionError("\n".join([f"REPLAY_SEED={seed}:", *map(str, done)])) from error
    assert chronicle.told == {kind for kind in EventKind if kind > 0} | {"", "archived", "promoted"}


async def do_anything(chronicle: Chronicle, hand: Hand, done: list[Act]) -> None:
    """Adds to what is done. Fails after the first thing that the history tells otherwise than the registry answers."""
    before = await answered(hand.desk)
    for _ in range(STEPS):
        done.append(act := await hand.act())
        events = await chronicle.go_on()
        assert {(event.by, event.request_id) for event in events} <= {(act.caller.user, act.caller.request_id)}
        if act.error:  # had it changed something, the next comparison would tell
            assert not events
            continue
        now = await answered(hand.desk)
        assert chronicle.models == now
        assert events or now == before  # nothing changes without a word
        assert now != before or {event.what.kind for event in events} <= _UNSEEN  # nor is a word about nothing
        before = now
    assert chronicle.models == await answered(hand.desk)
    await answered_one_by_one(hand.desk)


@asynccontextmanager
async def replica(dsn: str) -> AsyncIterator[Desk]:
    """A server's registry, on a pool of its own, that hears what others commit."""
    db = await Database.open(dsn)
    desk = Desk(db)
    listening = asyncio.create_task(desk.events.run())
    try:
        yield desk
    finally:
        desk.events.stop()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await db.close()


async def followed(desk: Desk) -> list[Event]:
    """What a watcher is told from the beginning to the end."""
    found: list[Event] = []
    async with aclosing(desk.events.watch(ANN, after=0)) as watch:  # type: ignore[type-var]
        async for each in watch:
            if isinstance(each, Event):
                found.append(each)
                if each.name == END:
                    break
    return found


@pytest.mark.timeout(120 * SCALE)
@pytest.mark.parametrize("seed", range(SEED, SEED + SCALE))
async def test_many_who_do_anything_on_two_replicas(dsn: str, seed: int) -> None:
    async with replica(dsn) as one, replica(dsn) as two:
        ground = await Ground.lay(one)

        async def work(number: int) -> list[Act]:
            hand = Hand((one, two)[number % 2], ground, random.Random(seed * TASKS + number))
            return [await hand.act() for _ in range(ACTS)]

        watching = [asyncio.create_task(followed(desk)) for desk in (one, two)]
        acts = [act for done in await asyncio.gather(*map(work, range(TASKS))) for act in done]
        await one.models.create(ANN, END)
        async with asyncio.timeout(60):
            histories = await asyncio.gather(*watching)
        history = await one.history()
        assert histories == [history, history]  # each event once, in the order of ids
        models = replay(history)
        assert models == await answered(one) == await answered(two)
        await answered_one_by_one(two)
        assert sum(act.error is None for act in acts) > len(acts) / 5
        _compare_calls(acts, history)


def _compare_calls(acts: list[Act], history: list[Event]) -> None:
    """Fails where somebody was told otherwise than the history tells."""
    by_request = {act.caller.request_id: act for act in acts}
    seen = Counter(request for request, _ in groupby(history, lambda event: event.request_id) if request in by_request)
    assert set(seen.values()) == {1}  # what a transaction does is told without a break
    assert not [act for request, act in by_request.items() if act.error and request in seen]
    made = {
        event.request_id: (event.name, event.what.version)
        for event in history
        if event.what.kind is EventKind.VERSION_CREATED and event.request_id in by_request
    }
    created = [act for act in acts if act.made_version]
    assert {request: (by_request[request].answer.name, by_request[request].answer.version) for request in made} == made
    assert len({act.answer.id for act in created}) == len(made)  # no number was given to two
