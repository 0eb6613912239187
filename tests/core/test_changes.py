"""Watching runs: the state, then what any replica commits, to each watcher at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from penstock_server.core import changes as core
from penstock_server.core.changes import Changes, RunChanged, Synced
from penstock_server.core.experiments import Experiments
from penstock_server.core.runs import Runs
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.changes import RunChange, RunRef
from penstock_server.model.errors import InvalidArgument, NotFound, Unavailable
from penstock_server.model.experiments import DEFAULT_EXPERIMENT, ExperimentId
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.runs import NewRun, Run, RunStatus, new_run_id
from penstock_server.postgres import changes as store
from penstock_server.postgres.database import Database

CALLER = Caller("tester", WorkspaceId(1))
Watch = AsyncIterator[RunChanged | Synced]

LISTENERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
 WHERE datname = current_database() AND query LIKE 'LISTEN%'
"""

MANY = """
INSERT INTO runs (id, workspace_id, experiment_id, name, status, start_ms, created_ms, updated_ms)
SELECT gen_random_uuid(), 1, 0, 'one of many', 1, 0, 0, 0 FROM generate_series(1, $1) RETURNING id
"""


class Observed(Changes):
    """Says when it has begun to listen."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self.connections: asyncio.Queue[None] = asyncio.Queue()

    def _connected(self) -> None:
        super()._connected()
        self.connections.put_nowait(None)


@asynccontextmanager
async def replica(dsn: str) -> AsyncIterator[Observed]:
    """A replica that listens."""
    db = await Database.open(dsn, max_connections=4)
    changes = Observed(db)
    task = asyncio.create_task(changes.run())
    try:
        await asyncio.wait_for(changes.connections.get(), 30)
        yield changes
    finally:
        changes.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await db.close()


@pytest.fixture
def runs(db: Database) -> Runs:
    """On a Database that is not the watching replica's: what is watched is what another commits."""
    return Runs(db, lambda run_id: None)


@pytest.fixture
def experiments(db: Database) -> Experiments:
    return Experiments(db)


async def following(watch: Watch) -> RunChanged | Synced:
    async with asyncio.timeout(30):
        return await anext(watch)


async def told(watch: Watch) -> tuple[set[RunChange], Run]:
    event = await following(watch)
    assert isinstance(event, RunChanged)
    return set(event.changes), event.run


async def state(watch: Watch) -> list[Run]:
    """What is told before the first Synced."""
    found = []
    while isinstance(event := await following(watch), RunChanged):
        assert event.changes == {RunChange.SNAPSHOT}
        found.append(event.run)
    return found


async def test_the_state_then_synced_then_what_another_replica_commits(dsn: str, runs: Runs) -> None:
    first = await runs.create(CALLER, NewRun(name="first", start_ms=1, params={"lr": "1"}))
    second = await runs.create(CALLER, NewRun(name="second", start_ms=2))
    async with replica(dsn) as changes:
        watch = changes.watch(CALLER)
        assert await state(watch) == [second, first]
        await runs.set_tags(CALLER, first.id, {"a": "b"})
        assert await told(watch) == ({RunChange.RUN}, await runs.get(CALLER, first.id))
        third = await runs.create(CALLER, NewRun(name="third", params={"p": "1"}, tags={"t": "1"}))
        assert await told(watch) == ({RunChange.RUN}, third)
        await runs.update(CALLER, third.id, status=RunStatus.FINISHED)
        kinds, run = await told(watch)
        assert (kinds, run.id, run.status) == ({RunChange.RUN}, third.id, RunStatus.FINISHED)


async def test_changes_only_begins_with_synced(dsn: str, runs: Runs) -> None:
    run = await runs.create(CALLER, NewRun())
    async with replica(dsn) as changes:
        watch = changes.watch(CALLER, changes_only=True)
        assert await following(watch) == Synced()
        await runs.log_params(CALLER, run.id, {"a": "b"})
        assert (await told(watch))[1].params == {"a": "b"}


async def test_what_is_committed_while_the_state_is_told_is_told_after_it(dsn: str, runs: Runs) -> None:
    made = [await runs.create(CALLER, NewRun(start_ms=n + 1)) for n in range(3)]
    async with replica(dsn) as changes:
        watch = changes.watch(CALLER)
        await following(watch)
        await runs.set_tags(CALLER, made[2].id, {"during": "state"})
        assert len(await state(watch)) == 2
        assert (await told(watch))[1].tags == {"during": "state"}


async def test_only_what_is_watched_is_told(dsn: str, runs: Runs, experiments: Experiments, db: Database) -> None:
    watched, other = [await experiments.create(CALLER, name) for name in ("watched", "other")]
    in_watched = await runs.create(CALLER, NewRun(experiment_id=watched.id))
    by_id, unwatched = [await runs.create(CALLER, NewRun(experiment_id=other.id)) for _ in range(2)]
    async with db.connection() as conn:
        await conn.execute("INSERT INTO workspaces (name) VALUES ('other')")
    elsewhere = Caller("tester", WorkspaceId(2))
    async with replica(dsn) as changes:
        watch = changes.watch(CALLER, [watched.id], [by_id.id])
        assert {run.id for run in await state(watch)} == {in_watched.id, by_id.id}
        await runs.set_tags(CALLER, unwatched.id, {"a": "1"})
        await runs.create(elsewhere, NewRun(experiment_name="watched"))
        for run in (in_watched, by_id):
            await runs.set_tags(CALLER, run.id, {"a": "1"})
            assert (await told(watch))[1].id == run.id
        made_later = await runs.create(CALLER, NewRun(experiment_id=watched.id))
        assert (await told(watch))[1].id == made_later.id


async def test_points_of_many_runs_are_announced_at_once(dsn: str, runs: Runs, db: Database) -> None:
    made = await asyncio.gather(*(runs.create(CALLER, NewRun()) for _ in range(250)))
    async with replica(dsn) as changes:
        watch = changes.watch(CALLER, changes_only=True)
        await following(watch)
        async with db.connection() as conn:
            await store.notify_points(conn, [RunRef(WorkspaceId(1), DEFAULT_EXPERIMENT, run.id) for run in made])
        heard = [await told(watch) for _ in made]
        assert {run.id for _, run in heard} == {run.id for run in made}
        assert all(kinds == {RunChange.METRICS} for kinds, _ in heard)


async def test_changes_that_fall_together_arrive_as_one(dsn: str, runs: Runs, db: Database) -> None:
    run, fence = await runs.create(CALLER, NewRun()), await runs.create(CALLER, NewRun())
    async with replica(dsn) as changes:
        watch, fences = [changes.watch(CALLER, run_ids=[watched.id], changes_only=True) for watched in (run, fence)]
        assert [await following(watch), await following(fences)] == [Synced(), Synced()]
        for n in range(50):
            await runs.set_tags(CALLER, run.id, {"n": str(n)})
        async with db.connection() as conn:
            await store.notify_points(conn, [RunRef(WorkspaceId(1), DEFAULT_EXPERIMENT, run.id)])
        await runs.set_tags(CALLER, fence.id, {"the": "end"})
        await told(fences)  # notifications come in the order of commits: all of the run's were heard
        kinds, now = await told(watch)
        assert (kinds, now.tags) == ({RunChange.RUN, RunChange.METRICS}, {"n": "49"})
        await runs.set_tags(CALLER, run.id, {"n": "last"})
        assert (await told(watch))[1].tags == {"n": "last"}


async def test_a_slow_watcher_does_not_hold_up_others(dsn: str, runs: Runs) -> None:
    run = await runs.create(CALLER, NewRun())
    async with replica(dsn) as changes:
        slow, quick = changes.watch(CALLER), changes.watch(CALLER)
        for watch in (slow, quick):
            await state(watch)
        for n in range(5):
            await runs.set_tags(CALLER, run.id, {"n": str(n)})
            assert (await told(quick))[1].tags == {"n": str(n)}
        assert (await told(slow))[1].tags == {"n": "4"}


async def test_an_experiments_deletion_is_told_of_its_runs(dsn: str, runs: Runs, experiments: Experiments) -> None:
    experiment = await experiments.create(CALLER, "e")
    made = [await runs.create(CALLER, NewRun(experiment_id=experiment.id)) for _ in range(3)]
    async with replica(dsn) as changes:
        watches = [
            (changes.watch(CALLER, changes_only=True), 3),
            (changes.watch(CALLER, [experiment.id], changes_only=True), 3),
            (changes.watch(CALLER, run_ids=[made[0].id], changes_only=True), 1),
        ]
        for watch, _ in watches:
            await following(watch)
        for lifecycle, change in ((Lifecycle.DELETED, experiments.delete), (Lifecycle.ACTIVE, experiments.restore)):
            await change(CALLER, experiment.id)
            for watch, count in watches:
                heard = [await told(watch) for _ in range(count)]
                assert {run.lifecycle for _, run in heard} == {lifecycle}
                assert len({run.id for _, run in heard}) == count


async def test_an_experiments_deletion_is_not_told_of_others_runs(
    dsn: str, runs: Runs, experiments: Experiments
) -> None:
    deleted, other = [await experiments.create(CALLER, name) for name in ("deleted", "other")]
    in_deleted, in_other = [await runs.create(CALLER, NewRun(experiment_id=each.id)) for each in (deleted, other)]
    async with replica(dsn) as changes:
        watch = changes.watch(CALLER, run_ids=[in_deleted.id, in_other.id], changes_only=True)
        await following(watch)
        await experiments.delete(CALLER, deleted.id)
        assert (await told(watch))[1].id == in_deleted.id
        await runs.set_tags(CALLER, in_other.id, {"the": "next"})
        assert await told(watch) == ({RunChange.RUN}, await runs.get(CALLER, in_other.id))
        await experiments.restore(CALLER, deleted.id)
        assert (await told(watch))[1].id == in_deleted.id


async def test_the_state_is_told_again_when_the_listener_was_cut_off(dsn: str, runs: Runs, db: Database) -> None:
    changed, deleted = await runs.create(CALLER, NewRun()), await runs.create(CALLER, NewRun())
    async with replica(dsn) as changes:
        watches = [
            changes.watch(CALLER),
            changes.watch(CALLER, [DEFAULT_EXPERIMENT], changes_only=True),
            changes.watch(CALLER, run_ids=[changed.id, deleted.id], changes_only=True),
        ]
        for watch in watches:
            await state(watch)
        async with db.connection() as conn:
            assert await conn.fetch(LISTENERS)
            # Without a notification: whoever is told of it has read it again.
            await conn.execute("UPDATE runs SET name = 'missed' WHERE id = $1", changed.id)
            await conn.execute("UPDATE runs SET lifecycle = 2 WHERE id = $1", deleted.id)
        await asyncio.wait_for(changes.connections.get(), 30)
        for watch in watches:
            heard = [await told(watch) for _ in range(2)]
            assert [kinds for kinds, _ in heard] == [{RunChange.SNAPSHOT}] * 2
            names = {run.id: (run.name, run.lifecycle) for _, run in heard}
            assert names[changed.id][0] == "missed"
            assert names[deleted.id][1] is Lifecycle.DELETED
        await runs.set_tags(CALLER, changed.id, {"heard": "again"})
        for watch in watches:
            kinds, run = await told(watch)
            assert (kinds, run.tags) == ({RunChange.RUN}, {"heard": "again"})


async def test_what_a_newer_release_tells_is_passed_over(dsn: str, runs: Runs, db: Database) -> None:
    run = await runs.create(CALLER, NewRun())
    async with replica(dsn) as changes:
        watch = changes.watch(CALLER)
        await state(watch)
        async with db.connection() as conn:
            for payload in ("", "9 1:0:" + run.id.hex, "2 1:0", "2 x:0:", "2 1:0:xyz"):
                await conn.execute("SELECT pg_notify($1, $2)", store.CHANNEL, payload)
        await runs.set_tags(CALLER, run.id, {"a": "b"})
        assert (await told(watch))[1].tags == {"a": "b"}


async def test_what_does_not_exist_cannot_be_watched(dsn: str) -> None:
    async with replica(dsn) as changes:
        with pytest.raises(NotFound, match="experiment '9'"):
            await following(changes.watch(CALLER, [ExperimentId(9)]))
        with pytest.raises(NotFound, match="run"):
            await following(changes.watch(CALLER, run_ids=[new_run_id()]))


async def test_many_are_looked_up_at_once_and_too_many_refused(dsn: str, db: Database) -> None:
    async with db.connection() as conn:
        ids = [row[0] for row in await conn.fetch(MANY, core.MOST_IDS)]
    async with replica(dsn) as changes:
        watch = changes.watch(CALLER, run_ids=ids, changes_only=True)
        assert await following(watch) == Synced()
        with pytest.raises(NotFound, match="run"):
            await following(changes.watch(CALLER, run_ids=[*ids[1:], new_run_id()]))
        with pytest.raises(InvalidArgument, match="run_ids: at most 10,000, found 10,001"):
            await following(changes.watch(CALLER, run_ids=[*ids, new_run_id()]))
        with pytest.raises(InvalidArgument, match="experiment_ids: at most"):
            await following(changes.watch(CALLER, [ExperimentId(n) for n in range(core.MOST_IDS + 1)]))


async def test_stopping_ends_watches_under_way_and_new_ones(dsn: str, runs: Runs) -> None:
    for _ in range(3):
        await runs.create(CALLER, NewRun())
    async with replica(dsn) as changes:
        idle, busy = changes.watch(CALLER), changes.watch(CALLER)
        await state(idle)
        await following(busy)
        waiting = asyncio.ensure_future(following(idle))
        await asyncio.sleep(0)
        changes.stop()
        changes.stop()
        for ended in (waiting, following(busy), following(changes.watch(CALLER))):
            with pytest.raises(Unavailable, match="stopping"):
                await ended
