"""The rules of experiments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from penstock_server.core.experiments import Experiments
from penstock_server.core.runs import Runs
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.errors import AlreadyExists, InvalidArgument, NotActive, NotFound
from penstock_server.model.experiments import DEFAULT_EXPERIMENT, Experiment, ExperimentId
from penstock_server.model.lifecycle import Lifecycle, View
from penstock_server.model.runs import NewRun
from penstock_server.postgres import experiments as store
from penstock_server.postgres.database import Database

CALLER = Caller("tester", WorkspaceId(1))


@pytest.fixture
def experiments(db: Database) -> Experiments:
    return Experiments(db)


@pytest.fixture
def runs(db: Database) -> Runs:
    return Runs(db, lambda run_id: None)


async def execute(db: Database, sql: str, *args: object) -> None:
    async with db.connection() as conn:
        await conn.execute(sql, *args)


async def waiting(db: Database, count: int = 1) -> None:
    """Until so many others wait for a lock."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30), db.connection() as conn:
        while await conn.fetchval(sql) < count:
            await asyncio.sleep(0.005)


async def test_an_experiment_has_what_it_was_given(experiments: Experiments) -> None:
    tags = {"team": "vision", "größe": "ü" * 20_000}
    made = await experiments.create(CALLER, "d" * 500, tags)
    assert made == Experiment(made.id, "d" * 500, Lifecycle.ACTIVE, made.created_ms, made.created_ms, tags)
    assert await experiments.get(CALLER, made.id) == made
    assert await experiments.get_by_name(CALLER, made.name) == made


async def test_the_default_experiment_is_there(experiments: Experiments) -> None:
    assert (await experiments.get(CALLER, DEFAULT_EXPERIMENT)).name == "Default"


async def test_a_name_is_taken_once_deleted_or_not(experiments: Experiments) -> None:
    made = await experiments.create(CALLER, "digits", {"a": "1"})
    with pytest.raises(AlreadyExists, match=r"'digits' already exists$"):
        await experiments.create(CALLER, "digits", {"a": "2"})
    await experiments.delete(CALLER, made.id)
    with pytest.raises(AlreadyExists, match="is deleted: restore it"):
        await experiments.create(CALLER, "digits")
    assert (await experiments.get(CALLER, made.id)).tags == {"a": "1"}
    await experiments.create(CALLER, "Digits")  # another name


async def test_the_same_name_in_another_workspace_is_another(experiments: Experiments, db: Database) -> None:
    await execute(db, "INSERT INTO workspaces (name) VALUES ('other')")
    other = Caller("tester", WorkspaceId(2))
    theirs = await experiments.create(other, "digits", request_id="r")
    ours = await experiments.create(CALLER, "digits", request_id="r")
    assert theirs.id != ours.id
    calls: list[Awaitable[Any]] = [
        experiments.get(CALLER, theirs.id),
        experiments.rename(CALLER, theirs.id, "mine"),
        experiments.set_tags(CALLER, theirs.id, {"a": "b"}),
        experiments.delete_tags(CALLER, theirs.id, ["a"]),
        experiments.delete(CALLER, theirs.id),
        experiments.restore(CALLER, theirs.id),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            await call
    assert await experiments.get(other, theirs.id) == theirs


async def test_racers_with_one_request_id_make_one_experiment(experiments: Experiments) -> None:
    racers = [experiments.create(CALLER, f"race {n}", {"n": str(n)}, "request") for n in range(20)]
    made = await asyncio.gather(*racers)
    assert len({experiment.id for experiment in made}) == 1
    assert made[0].tags == {"n": made[0].name.removeprefix("race ")}
    assert len((await experiments.search(CALLER))[0]) == 2


async def test_of_racers_for_a_name_one_wins(experiments: Experiments) -> None:
    results = await asyncio.gather(*(experiments.create(CALLER, "race") for _ in range(20)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["AlreadyExists"] * 19 + ["Experiment"]


async def test_a_repeated_request_returns_the_experiment_as_it_stands(experiments: Experiments) -> None:
    made = await experiments.create(CALLER, "digits", {"a": "1"}, "request")
    renamed = await experiments.rename(CALLER, made.id, "renamed")
    assert await experiments.create(CALLER, "digits", {"a": "2"}, "request") == renamed
    with pytest.raises(AlreadyExists):
        await experiments.create(CALLER, "renamed", {}, "another request")


BAD: list[tuple[str, dict[str, str], str]] = [
    ("", {}, ""),
    ("x" * 501, {}, ""),
    ("a\0b", {}, ""),
    ("a", {"": "v"}, ""),
    ("a", {"k" * 251: "v"}, ""),
    ("a", {"k\0": "v"}, ""),
    ("a", {"k": "v" * 20_001}, ""),
    ("a", {"k": "\0"}, ""),
    ("a", {}, "r" * 251),
    ("a", {}, "\0"),
]


async def test_bad_text_is_refused(experiments: Experiments) -> None:
    for name, tags, request_id in BAD:
        with pytest.raises(InvalidArgument):
            await experiments.create(CALLER, name, tags, request_id)
    assert len((await experiments.search(CALLER))[0]) == 1


async def test_rename(experiments: Experiments) -> None:
    made = await experiments.create(CALLER, "before", {"a": "1"})
    await experiments.create(CALLER, "taken")
    renamed = await experiments.rename(CALLER, made.id, "after")
    assert (renamed.name, renamed.tags) == ("after", {"a": "1"})
    with pytest.raises(AlreadyExists, match="'taken'"):
        await experiments.rename(CALLER, made.id, "taken")
    assert (await experiments.rename(CALLER, made.id, "after")).name == "after"
    for bad in ("", "x" * 501, "\0"):
        with pytest.raises(InvalidArgument):
            await experiments.rename(CALLER, made.id, bad)
    with pytest.raises(NotFound, match="'before'"):
        await experiments.get_by_name(CALLER, "before")


async def test_tags_are_set_and_deleted(experiments: Experiments) -> None:
    made = await experiments.create(CALLER, "e", {"a": "1"})
    await experiments.set_tags(CALLER, made.id, {"a": "2", "b": "", "c": "3"})
    await experiments.delete_tags(CALLER, made.id, ["a", "b"])
    with pytest.raises(NotFound, match="tag 'a'"):
        await experiments.delete_tags(CALLER, made.id, ["c", "a"])
    assert (await experiments.get(CALLER, made.id)).tags == {"c": "3"}
    with pytest.raises(InvalidArgument):
        await experiments.delete_tags(CALLER, made.id, ["\0"])


async def test_a_deleted_experiment_refuses_writes_until_it_is_restored(experiments: Experiments, runs: Runs) -> None:
    made = await experiments.create(CALLER, "e", {"t": "1"})
    writes: list[Callable[[], Awaitable[Any]]] = [
        lambda: experiments.rename(CALLER, made.id, "f"),
        lambda: experiments.set_tags(CALLER, made.id, {"t": "2"}),
        lambda: experiments.delete_tags(CALLER, made.id, ["t"]),
        lambda: runs.create(CALLER, NewRun(experiment_id=made.id)),
        lambda: runs.create(CALLER, NewRun(experiment_name=made.name)),
    ]
    for _ in range(2):
        await experiments.delete(CALLER, made.id)
    gone = await experiments.get(CALLER, made.id)
    assert (gone.lifecycle, gone.name) == (Lifecycle.DELETED, "e")
    for write in writes:
        with pytest.raises(NotActive, match=f"experiment {made.id} is deleted"):
            await write()
    for _ in range(2):
        await experiments.restore(CALLER, made.id)
    assert (await experiments.get(CALLER, made.id)).tags == {"t": "1"}
    for write in writes[:-1]:
        await write()


async def test_runs_are_deleted_and_restored_with_their_experiment(experiments: Experiments, runs: Runs) -> None:
    made = await experiments.create(CALLER, "e")
    first, second = [await runs.create(CALLER, NewRun(experiment_id=made.id)) for _ in range(2)]
    elsewhere = await runs.create(CALLER, NewRun())
    await runs.delete(CALLER, first.id)
    await experiments.restore(CALLER, made.id)  # it was active: nothing to restore
    assert (await runs.get(CALLER, first.id)).lifecycle is Lifecycle.DELETED

    await experiments.delete(CALLER, made.id)
    for run in (first, second):
        assert (await runs.get(CALLER, run.id)).lifecycle is Lifecycle.DELETED
        with pytest.raises(NotActive):
            await runs.set_tags(CALLER, run.id, {"a": "b"})
        with pytest.raises(NotActive, match=f"experiment {made.id}"):
            await runs.restore(CALLER, run.id)
    assert (await runs.get(CALLER, elsewhere.id)).lifecycle is Lifecycle.ACTIVE

    await experiments.restore(CALLER, made.id)
    for run in (first, second):  # all of them, that which was deleted before too
        assert (await runs.get(CALLER, run.id)).lifecycle is Lifecycle.ACTIVE
        await runs.set_tags(CALLER, run.id, {"a": "b"})


async def test_no_run_slips_into_an_experiment_that_is_being_deleted(
    experiments: Experiments, runs: Runs, db: Database
) -> None:
    made = await experiments.create(CALLER, "e")
    async with db.transaction() as conn:
        await store.set_lifecycle(conn, CALLER.workspace_id, made.id, Lifecycle.DELETED)
        creating = asyncio.create_task(runs.create(CALLER, NewRun(experiment_id=made.id)))
        await waiting(db)
    with pytest.raises(NotActive):
        await creating


async def test_a_deletion_takes_along_the_run_that_is_being_made(
    experiments: Experiments, runs: Runs, db: Database
) -> None:
    made = await experiments.create(CALLER, "e")
    async with db.transaction() as conn:
        await store.hold_active(conn, CALLER.workspace_id, made.id)
        deleting = asyncio.create_task(experiments.delete(CALLER, made.id))
        await waiting(db)
        await conn.execute(
            """INSERT INTO runs (id, workspace_id, experiment_id, name, status, start_ms, created_ms, updated_ms)
               VALUES (gen_random_uuid(), 1, $1, 'late', 1, 0, 0, 0)""",
            made.id,
        )
    await deleting
    late = (await runs.search(CALLER, view=View.ALL))[0][0]
    assert (late.name, late.lifecycle) == ("late", Lifecycle.DELETED)


async def test_update_time_moves_with_every_change(experiments: Experiments, db: Database) -> None:
    made = await experiments.create(CALLER, "e", {"t": "1"})
    moving: list[Callable[[], Awaitable[Any]]] = [
        lambda: experiments.rename(CALLER, made.id, "f"),
        lambda: experiments.set_tags(CALLER, made.id, {"t": "2"}),
        lambda: experiments.delete_tags(CALLER, made.id, ["t"]),
        lambda: experiments.delete(CALLER, made.id),
        lambda: experiments.restore(CALLER, made.id),
    ]
    for number, change in enumerate(moving):
        await execute(db, "UPDATE experiments SET updated_ms = 7")
        await change()
        assert (await experiments.get(CALLER, made.id)).updated_ms >= made.created_ms, number


async def test_search_loads_whole_experiments_in_order(experiments: Experiments) -> None:
    made = [await experiments.create(CALLER, f"e{n}", {"n": str(n)}) for n in range(5)]
    await experiments.delete(CALLER, made[4].id)
    first, token = await experiments.search(CALLER, filter="name LIKE 'e%'", order_by=["name"], page_size=3)
    assert first == made[:3]
    rest, token = await experiments.search(
        CALLER, filter="name LIKE 'e%'", order_by=["name"], page_size=3, page_token=token
    )
    assert (rest, token) == ([made[3]], "")
    gone, _ = await experiments.search(CALLER, view=View.DELETED)
    assert [experiment.id for experiment in gone] == [made[4].id]
    with pytest.raises(InvalidArgument, match="page_size"):
        await experiments.search(CALLER, page_size=-1)


async def test_unknown_experiments_are_not_found(experiments: Experiments) -> None:
    unknown = ExperimentId(2**63 - 1)
    calls: list[Awaitable[Any]] = [
        experiments.get(CALLER, unknown),
        experiments.get_by_name(CALLER, "unknown"),
        experiments.rename(CALLER, unknown, "x"),
        experiments.set_tags(CALLER, unknown, {"a": "b"}),
        experiments.delete_tags(CALLER, unknown, ["a"]),
        experiments.delete(CALLER, unknown),
        experiments.restore(CALLER, unknown),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            await call
