"""The registry's history, and the watch of it: each event once, in order, whichever replica commits it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import asyncpg
import pytest
from registering import ANN, BOB, Desk, told

from penstock_server.core import registry_events as core
from penstock_server.core.registry_events import RegistryEvents, Synced
from penstock_server.model.errors import InvalidArgument, InvalidPageToken, Unavailable
from penstock_server.model.registry import Event, EventKind, Happening
from penstock_server.postgres import registry, registry_events
from penstock_server.postgres.database import Database

Watch = AsyncIterator[Event | Synced]

CUT = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
 WHERE datname = current_database() AND query LIKE 'LISTEN%'
"""


class Observed(RegistryEvents):
    """Says when it has begun to listen."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self.connections: asyncio.Queue[None] = asyncio.Queue()

    def _wake(self) -> None:
        super()._wake()
        self.connections.put_nowait(None)


@asynccontextmanager
async def replica(dsn: str) -> AsyncIterator[Observed]:
    """A replica that listens, on a Database of its own."""
    db = await Database.open(dsn, max_connections=4)
    events = Observed(db)
    task = asyncio.create_task(events.run())
    try:
        await asyncio.wait_for(events.connections.get(), 30)
        yield events
    finally:
        events.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await db.close()


@pytest.fixture
def desk(db: Database) -> Desk:
    return Desk(db)


async def following(watch: Watch) -> Event | Synced:
    async with asyncio.timeout(30):
        return await anext(watch)


async def events_of(watch: Watch, count: int) -> list[Event]:
    """So many, whatever else is told."""
    found: list[Event] = []
    while len(found) < count:
        each = await following(watch)
        if isinstance(each, Event):
            found.append(each)
    return found


async def test_pages_go_either_way(desk: Desk) -> None:
    await desk.models.create(ANN, "iris", tags={str(number): "" for number in range(8)})
    everything = await desk.history()
    assert [event.id for event in everything] == sorted(event.id for event in everything)
    for oldest_first in (True, False):
        found: list[Event] = []
        token = ""
        while True:
            page, token = await desk.events.list(ANN, "iris", oldest_first=oldest_first, page_size=4, page_token=token)
            found += page
            if not token:
                break
            assert len(page) == 4
        assert found == (everything if oldest_first else everything[::-1])
    _, token = await desk.events.list(ANN, page_size=4)
    with pytest.raises(InvalidPageToken):
        await desk.events.list(ANN, "iris", page_size=4, page_token=token)


async def test_filters_of_the_list(desk: Desk) -> None:
    for name in ("iris", "lily"):
        await desk.version(name, tags={"a": "b"})
        await desk.version(name)
        await desk.versions.set_alias(ANN, name, "champion", 2)
    assert {event.name for event in await desk.history()} == {"iris", "lily"}
    assert {event.name for event in await desk.history("lily")} == {"lily"}
    assert [event.what.kind for event in await desk.history("lily", version=2)] == [
        EventKind.VERSION_CREATED,
        EventKind.ALIAS_SET,
    ]
    aliases = await desk.history(kinds=[EventKind.ALIAS_SET, EventKind.ALIAS_DELETED])
    assert [(event.name, event.what.key) for event in aliases] == [("iris", "champion"), ("lily", "champion")]
    assert [event.what.kind for event in await desk.history("iris", key="a")] == [EventKind.VERSION_TAG_SET]
    assert await desk.history("nobody") == []


async def test_bad_input(desk: Desk) -> None:
    for field, use in (
        ("name", desk.events.list(ANN, "a/b")),
        ("version", desk.events.list(ANN, version=-1)),
        ("key", desk.events.list(ANN, key="x" * 256)),
        ("page_size", desk.events.list(ANN, page_size=-1)),
    ):
        with pytest.raises(InvalidArgument, match=f"^{field}: "):
            await use
    for field, watch in (
        ("names", desk.events.watch(ANN, names=["a/b"])),
        ("names", desk.events.watch(ANN, names=["a"] * 1_001)),
        ("keys", desk.events.watch(ANN, keys=["x" * 256])),
        ("after_event_id", desk.events.watch(ANN, after=-1)),
    ):
        with pytest.raises(InvalidArgument, match=f"^{field}: "):
            await following(watch)


async def test_what_has_happened_cannot_be_changed(desk: Desk, db: Database) -> None:
    await desk.models.create(ANN, "iris")
    for sql in (
        "UPDATE registry_events SET made_by = 'nobody'",
        "DELETE FROM registry_events",
        "TRUNCATE registry_events",
    ):
        async with db.connection() as conn:
            with pytest.raises(asyncpg.RaiseError, match="never changed"):
                await conn.execute(sql)


async def test_what_a_newer_release_has_written_is_of_no_kind_that_this_one_knows(desk: Desk, db: Database) -> None:
    await desk.models.create(ANN, "iris")
    async with db.connection() as conn:
        await conn.execute(
            "INSERT INTO registry_events (workspace_id, model_id, kind, name, version, key, before, after, made_by,"
            " at_ms, request_id) SELECT 1, model_id, 32000, name, 7, 'k', '{}', '{\"a\": \"b\"}', 'new', 1, 'r'"
            " FROM registry_events"
        )
    events = await desk.history("iris")
    assert told(events[-1]) == (EventKind.UNSPECIFIED, 7, "k", {}, {"a": "b"})
    assert await events_of(desk.events.watch(ANN, after=0), 2) == events
    assert await desk.history(kinds=[EventKind.MODEL_CREATED]) == events[:1]


async def test_a_watch_from_an_event_that_has_not_happened_is_refused(desk: Desk) -> None:
    await desk.models.create(ANN, "iris")
    [last] = await desk.history("iris")
    with pytest.raises(InvalidArgument, match=rf"event {last.id + 1} .* this history ends with event {last.id};"):
        await following(desk.events.watch(ANN, after=last.id + 1))


async def test_what_is_rolled_back_has_not_happened(desk: Desk, db: Database) -> None:
    async with db.connection() as conn:
        transaction = conn.transaction()
        await transaction.start()
        made = await registry.add(conn, ANN, "iris")
        assert made is not None
        await registry_events.add(conn, ANN, made[0].model_id, "iris", made[1])
        await transaction.rollback()
    assert await desk.history() == []


async def test_ids_are_in_the_order_of_commits(desk: Desk, db: Database) -> None:
    """Who writes events later than another, of another model, waits for the other's commit."""
    first, second = [await desk.models.create(ANN, name) for name in ("iris", "lily")]
    happened = [Happening(EventKind.MODEL_UPDATED)]
    async with db.transaction() as conn:
        await registry_events.add(conn, ANN, first.id, "iris", happened)

        async def another() -> None:
            async with db.transaction() as other:
                await registry_events.add(other, BOB, second.id, "lily", happened)

        waiting = asyncio.create_task(another())
        async with db.connection() as looking:
            async with asyncio.timeout(30):
                while not await looking.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                    await asyncio.sleep(0.01)
            newest = await registry_events.newest(looking, ANN.workspace_id)
        assert not waiting.done()
    await waiting
    assert [event.name for event in await desk.history() if event.id > newest] == ["iris", "lily"]


async def test_a_watch_tells_what_another_replica_commits(dsn: str, desk: Desk) -> None:
    await desk.models.create(ANN, "before")
    async with replica(dsn) as one, replica(dsn) as two:
        watches = [each.watch(ANN) for each in (one, two)]
        for watch in watches:
            assert await following(watch) == Synced((await desk.history())[-1].id)
        await desk.version()
        await desk.versions.set_alias(BOB, "iris", "champion", 1)
        for watch in watches:
            assert await events_of(watch, 3) == await desk.history("iris")


async def test_only_what_is_watched_is_told(dsn: str, desk: Desk) -> None:
    async with replica(dsn) as events:
        by_name = events.watch(ANN, names=["iris"])
        by_kind = events.watch(ANN, kinds=[EventKind.ALIAS_SET], keys=["champion"])
        for watch in (by_name, by_kind):
            assert isinstance(await following(watch), Synced)
        await desk.version("lily")
        await desk.versions.set_alias(ANN, "lily", "beta", 1)
        await desk.versions.set_alias(ANN, "lily", "champion", 1)
        await desk.version("iris")
        assert [told(event)[0] for event in await events_of(by_name, 2)] == [
            EventKind.MODEL_CREATED,
            EventKind.VERSION_CREATED,
        ]
        (event,) = await events_of(by_kind, 1)
        assert (event.name, event.what.key) == ("lily", "champion")


async def test_a_watch_goes_on_after_an_event(dsn: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "_PAGE", 3)
    await desk.models.create(ANN, "iris", tags={str(number): "" for number in range(9)})
    history = await desk.history()
    async with replica(dsn) as events:
        for after in (0, history[0].id, history[5].id, history[6].id, history[-1].id):
            async with aclosing(events.watch(ANN, after=after)) as watch:  # type: ignore[type-var]
                expected = [event for event in history if event.id > after]
                assert await events_of(watch, len(expected)) == expected
                assert await following(watch) == Synced(history[-1].id)
        async with aclosing(events.watch(ANN, names=["nobody"], after=0)) as watch:  # type: ignore[type-var]
            assert await following(watch) == Synced(history[-1].id)


async def test_who_waits_for_one_thing_is_told_how_far_all_is(
    dsn: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "_SYNCED_SECONDS", 0.0)
    async with replica(dsn) as events:
        watch = events.watch(ANN, names=["nobody"])
        assert await following(watch) == Synced(0)
        await desk.models.create(ANN, "iris")
        assert await following(watch) == Synced((await desk.history())[-1].id)


async def test_nothing_is_missed_or_told_twice_while_many_write(dsn: str, desk: Desk, db: Database) -> None:
    async with replica(dsn) as events:
        watch = events.watch(ANN)
        assert await following(watch) == Synced(0)

        async def write(number: int) -> None:
            await desk.version(f"model {number % 4}", tags={"n": str(number)})

        writing = asyncio.gather(*map(write, range(40)))
        found = await events_of(watch, 20)
        async with db.connection() as conn:
            await conn.fetch(CUT)  # the listener connects again, and reads what it did not hear of
        await writing
        found += await events_of(watch, 4 + 40 + 40 - 20)
        assert found == await desk.history()


async def test_a_stopping_server_ends_its_watches(dsn: str, desk: Desk) -> None:
    async with replica(dsn) as events:
        watch = events.watch(ANN)
        assert isinstance(await following(watch), Synced)
        waiting = asyncio.create_task(following(watch))
        await asyncio.sleep(0)
        events.stop()
        events.stop()
        with pytest.raises(Unavailable, match="the server is stopping"):
            await waiting
        with pytest.raises(Unavailable, match="the server is stopping"):
            await following(events.watch(ANN))


async def test_a_name_has_the_history_of_all_that_were_called_so(desk: Desk) -> None:
    await desk.version("iris")
    await desk.models.update(ANN, "iris", new_name="old")
    await desk.version("old")  # under another name: none of the name's business
    await desk.version("iris")
    await desk.models.delete(ANN, "iris")
    gone = len(await desk.history("iris"))
    await desk.version("rose")
    await desk.models.update(ANN, "rose", new_name="iris")
    found = [(event.name, event.what.kind, event.what.version) for event in await desk.history("iris")]
    assert found == [
        ("iris", EventKind.MODEL_CREATED, 0),
        ("iris", EventKind.VERSION_CREATED, 1),
        ("iris", EventKind.MODEL_RENAMED, 0),
        ("iris", EventKind.MODEL_CREATED, 0),
        ("iris", EventKind.VERSION_CREATED, 1),
        ("iris", EventKind.VERSION_DELETED, 1),
        ("iris", EventKind.MODEL_DELETED, 0),
        ("rose", EventKind.MODEL_CREATED, 0),
        ("rose", EventKind.VERSION_CREATED, 1),
        ("rose", EventKind.MODEL_RENAMED, 0),
    ]
    assert gone == 7
    one_by_one = []
    token = ""
    while True:
        page, token = await desk.events.list(ANN, "iris", page_size=1, page_token=token)
        one_by_one += page
        if not token:
            break
    assert one_by_one == list(reversed(await desk.history("iris")))


async def test_long_events_come_a_few_at_a_time(desk: Desk) -> None:
    await desk.models.create(ANN, "iris")
    for letter in "abcdefghijklmnopqrst":
        await desk.models.set_tags(ANN, "iris", {"notes": letter * 100_000})
    counts, token = [], ""
    while not counts or token:
        page, token = await desk.events.list(ANN, "iris", oldest_first=True, page_token=token)
        counts.append(len(page))
    assert sum(counts) == 21
    assert max(counts) < 10
    watched = desk.events.watch(ANN, after=0)
    told = [event async for event in _until_synced(watched)]
    assert len(told) == 21


async def _until_synced(watched: AsyncIterator[Event | Synced]) -> AsyncIterator[Event]:
    async for each in watched:
        if isinstance(each, Synced):
            return
        yield each


async def test_a_watch_by_name_is_told_who_takes_the_name(desk: Desk) -> None:
    await desk.models.create(ANN, "prod")
    await desk.models.create(ANN, "next")
    await desk.models.update(ANN, "prod", new_name="was")
    await desk.models.update(ANN, "next", new_name="prod")
    found = [event async for event in _until_synced(desk.events.watch(ANN, names=["prod"], after=0))]
    assert [(event.name, event.what.kind) for event in found] == [
        ("prod", EventKind.MODEL_CREATED),
        ("prod", EventKind.MODEL_RENAMED),
        ("next", EventKind.MODEL_RENAMED),
    ]
