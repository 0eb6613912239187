"""The rules of runs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from penstock_server.core.experiments import Experiments
from penstock_server.core.runs import Runs
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.errors import (
    AlreadyExists,
    InvalidArgument,
    NotActive,
    NotFound,
    ParamChanged,
    Unavailable,
)
from penstock_server.model.experiments import DEFAULT_EXPERIMENT, ExperimentId
from penstock_server.model.lifecycle import Lifecycle, View
from penstock_server.model.metrics import MetricSummary
from penstock_server.model.runs import NewRun, Run, RunId, RunStatus, new_run_id
from penstock_server.postgres.database import Database

CALLER = Caller("tester", WorkspaceId(1))


class Ended(list[RunId]):
    """The runs that `Runs` says have ended."""


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def runs(db: Database, ended: Ended) -> Runs:
    return Runs(db, ended.append)


@pytest.fixture
def experiments(db: Database) -> Experiments:
    return Experiments(db)


async def execute(db: Database, sql: str, *args: object) -> None:
    async with db.connection() as conn:
        await conn.execute(sql, *args)


async def forget_time(db: Database) -> None:
    await execute(db, "UPDATE runs SET updated_ms = 7")


async def test_a_run_has_what_it_was_given(runs: Runs, experiments: Experiments, db: Database) -> None:
    experiment = await experiments.create(CALLER, "digits")
    parent = await runs.create(CALLER, NewRun(name="parent"))
    run_id = new_run_id()
    new = NewRun(
        run_id=run_id,
        experiment_id=experiment.id,
        name="sgd",
        status=RunStatus.SCHEDULED,
        user="ada",
        source_name="train.py",
        git_commit="0a1b2c",
        parent_run_id=parent.id,
        start_ms=1_700_000_000_000,
        params={"lr": "0.1", "layers/0": ""},
        tags={"data": "digits", "größe": "ü" * 8000},
    )
    made = await runs.create(CALLER, new)
    assert made == Run(
        id=run_id,
        experiment_id=experiment.id,
        name="sgd",
        status=RunStatus.SCHEDULED,
        lifecycle=Lifecycle.ACTIVE,
        user="ada",
        source_name="train.py",
        git_commit="0a1b2c",
        parent_run_id=parent.id,
        start_ms=1_700_000_000_000,
        end_ms=None,
        updated_ms=made.updated_ms,
        params=new.params,
        tags=new.tags,
    )
    async with db.connection() as conn:
        assert await conn.fetchval("SELECT created_ms FROM runs WHERE id = $1", run_id) == made.updated_ms
    assert made.updated_ms > 1_700_000_000_000
    assert await runs.get(CALLER, run_id) == made


async def test_what_is_not_given_is_made_up(runs: Runs) -> None:
    run = await runs.create(CALLER, NewRun())
    assert run.experiment_id == DEFAULT_EXPERIMENT
    assert run.name
    assert run.status is RunStatus.RUNNING
    assert run.start_ms == run.updated_ms
    assert run.id.version == 7


async def test_a_run_made_as_ended_has_an_end(runs: Runs) -> None:
    run = await runs.create(CALLER, NewRun(status=RunStatus.FAILED))
    assert run.end_ms == run.start_ms


async def test_the_experiment_is_by_id_or_by_name(runs: Runs) -> None:
    with pytest.raises(NotFound, match="experiment '77'"):
        await runs.create(CALLER, NewRun(experiment_id=ExperimentId(77)))
    with pytest.raises(InvalidArgument, match="not together with experiment_id"):
        await runs.create(CALLER, NewRun(experiment_id=ExperimentId(0), experiment_name="x"))
    first = await runs.create(CALLER, NewRun(experiment_name="new"))
    second = await runs.create(CALLER, NewRun(experiment_name="new"))
    assert first.experiment_id == second.experiment_id != DEFAULT_EXPERIMENT


async def test_racers_make_one_experiment_by_name(runs: Runs, experiments: Experiments) -> None:
    made = await asyncio.gather(*(runs.create(CALLER, NewRun(experiment_name="race")) for _ in range(20)))
    assert len({run.id for run in made}) == 20
    assert {run.experiment_id for run in made} == {(await experiments.get_by_name(CALLER, "race")).id}


async def test_racers_with_one_request_id_make_one_run(runs: Runs) -> None:
    new = NewRun(experiment_name="race", request_id="job 17", params={"lr": "1"}, tags={"a": "b"})
    made = await asyncio.gather(*(runs.create(CALLER, new) for _ in range(20)))
    assert len({run.id for run in made}) == 1
    assert made[0].params == {"lr": "1"}
    assert len((await runs.search(CALLER))[0]) == 1


async def test_racers_with_one_run_id_make_one_run(runs: Runs) -> None:
    new = NewRun(run_id=RunId(uuid.uuid5(uuid.NAMESPACE_OID, "slurm 42")), experiment_name="race")
    made = await asyncio.gather(*(runs.create(CALLER, new) for _ in range(20)))
    assert {run.id for run in made} == {new.run_id}
    assert len({run.name for run in made}) == 1  # the one that the winner made up
    assert len((await runs.search(CALLER))[0]) == 1


async def test_a_repeated_create_returns_the_run_as_it_stands(runs: Runs) -> None:
    new = NewRun(run_id=new_run_id(), name="first", request_id="r", params={"lr": "1"})
    await runs.create(CALLER, new)
    await runs.update(CALLER, new.run_id, status=RunStatus.FINISHED)  # type: ignore[arg-type]
    for again in (new, NewRun(run_id=new.run_id, name="other"), NewRun(request_id="r", params={"lr": "2"})):
        run = await runs.create(CALLER, again)
        assert (run.id, run.name, run.status, run.params) == (new.run_id, "first", RunStatus.FINISHED, {"lr": "1"})


async def test_a_run_of_another_experiment_is_not_shown(runs: Runs, experiments: Experiments) -> None:
    here, there = [await experiments.create(CALLER, name) for name in ("here", "there")]
    made = await runs.create(CALLER, NewRun(run_id=new_run_id(), experiment_id=there.id, request_id="r"))
    assert await runs.create(CALLER, NewRun(run_id=made.id, experiment_id=there.id)) == made
    for again in (NewRun(run_id=made.id, experiment_id=here.id), NewRun(request_id="r", experiment_id=here.id)):
        with pytest.raises(AlreadyExists, match="another experiment"):
            await runs.create(CALLER, again)
    # A writer that comes again still says the name that the experiment had.
    await experiments.rename(CALLER, there.id, "elsewhere")
    assert await runs.create(CALLER, NewRun(run_id=made.id, experiment_name="there")) == made


async def test_a_run_id_of_another_workspace_is_taken(runs: Runs, db: Database) -> None:
    await execute(db, "INSERT INTO workspaces (name) VALUES ('other')")
    await execute(
        db, "INSERT INTO experiments (workspace_id, name, created_ms, updated_ms) VALUES (2, 'Default', 0, 0)"
    )
    other = Caller("tester", WorkspaceId(2))
    theirs = await runs.create(other, NewRun(run_id=new_run_id(), experiment_name="Default", request_id="same"))
    with pytest.raises(AlreadyExists):
        await runs.create(CALLER, NewRun(run_id=theirs.id))
    assert (await runs.create(CALLER, NewRun(request_id="same"))).id != theirs.id
    with pytest.raises(NotFound):
        await runs.get(CALLER, theirs.id)
    with pytest.raises(NotFound):
        await runs.set_tags(CALLER, theirs.id, {"a": "b"})
    with pytest.raises(NotFound):
        await runs.create(CALLER, NewRun(parent_run_id=theirs.id))
    with pytest.raises(NotFound):
        await runs.create(CALLER, NewRun(experiment_id=theirs.experiment_id))


async def test_a_parent_must_exist(runs: Runs) -> None:
    run_id = new_run_id()
    for parent in (new_run_id(), run_id):
        with pytest.raises(NotFound, match=parent.hex):
            await runs.create(CALLER, NewRun(run_id=run_id, parent_run_id=parent))
    with pytest.raises(NotFound):
        await runs.get(CALLER, run_id)


TOO_LONG = [
    NewRun(name="x" * 501),
    NewRun(user="x" * 251),
    NewRun(source_name="x" * 501),
    NewRun(git_commit="x" * 101),
    NewRun(request_id="x" * 251),
    NewRun(experiment_name="x" * 501),
    NewRun(params={"x" * 251: ""}),
    NewRun(params={"x": "x" * 6001}),
    NewRun(tags={"x" * 251: ""}),
    NewRun(tags={"x": "x" * 8001}),
]
NUL = [
    NewRun(name="a\0b"),
    NewRun(user="\0"),
    NewRun(source_name="\0"),
    NewRun(git_commit="\0"),
    NewRun(request_id="\0"),
    NewRun(experiment_name="\0"),
    NewRun(params={"a\0": ""}),
    NewRun(params={"a": "\0"}),
    NewRun(tags={"a\0": ""}),
    NewRun(tags={"a": "\0"}),
]


async def test_bad_text_is_refused_before_the_database_sees_it(runs: Runs) -> None:
    for new in [*TOO_LONG, *NUL, NewRun(start_ms=-1), NewRun(params={"": "1"}), NewRun(tags={"../a": "1"})]:
        with pytest.raises(InvalidArgument):
            await runs.create(CALLER, new)
    assert (await runs.search(CALLER))[0] == []


async def test_params_are_written_once(runs: Runs) -> None:
    run = await runs.create(CALLER, NewRun(params={"lr": "0.1"}))
    await runs.log_params(CALLER, run.id, {"lr": "0.1", "epochs": "3"})
    with pytest.raises(ParamChanged, match=r"'lr' is '0\.1' and cannot become '0\.2'"):
        await runs.log_params(CALLER, run.id, {"new": "1", "lr": "0.2"})
    assert (await runs.get(CALLER, run.id)).params == {"lr": "0.1", "epochs": "3"}


async def test_of_racers_for_a_param_one_wins(runs: Runs) -> None:
    run = await runs.create(CALLER, NewRun())
    racers = [runs.log_params(CALLER, run.id, {"seed": str(n), f"of {n}": ""}) for n in range(20)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert [type(result) for result in results].count(ParamChanged) == 19
    params = (await runs.get(CALLER, run.id)).params
    assert params == {"seed": params["seed"], f"of {params['seed']}": ""}
    assert results[int(params["seed"])] is None


async def test_tags_are_set_and_deleted(runs: Runs) -> None:
    run = await runs.create(CALLER, NewRun(tags={"a": "1"}))
    await runs.set_tags(CALLER, run.id, {"a": "2", "b": "", "c": "3"})
    assert (await runs.get(CALLER, run.id)).tags == {"a": "2", "b": "", "c": "3"}
    await runs.delete_tags(CALLER, run.id, ["a", "b"])
    assert (await runs.get(CALLER, run.id)).tags == {"c": "3"}
    with pytest.raises(NotFound, match="tag 'a'"):
        await runs.delete_tags(CALLER, run.id, ["c", "a"])
    assert (await runs.get(CALLER, run.id)).tags == {"c": "3"}
    with pytest.raises(InvalidArgument):
        await runs.delete_tags(CALLER, run.id, ["c\0"])


async def test_writers_of_one_tag_do_not_wait_crosswise(runs: Runs) -> None:
    run = await runs.create(CALLER, NewRun())
    orders = [{"a": "1", "b": "1"}, {"b": "2", "a": "2"}]
    await asyncio.gather(*(runs.set_tags(CALLER, run.id, tags) for tags in orders * 10))
    tags = (await runs.get(CALLER, run.id)).tags
    assert tags["a"] == tags["b"]


async def test_update_changes_what_is_given(runs: Runs, ended: Ended) -> None:
    run = await runs.create(CALLER, NewRun(name="before", params={"a": "1"}, tags={"b": "2"}))
    renamed = await runs.update(CALLER, run.id, name="after")
    assert (renamed.name, renamed.status, renamed.end_ms) == ("after", RunStatus.RUNNING, None)
    assert (renamed.params, renamed.tags) == ({}, {})
    assert ended == []
    done = await runs.update(CALLER, run.id, status=RunStatus.FINISHED)
    assert (done.name, done.status) == ("after", RunStatus.FINISHED)
    assert done.end_ms is not None
    assert done.end_ms >= run.start_ms
    assert ended == [run.id]
    assert await runs.update(CALLER, run.id, status=RunStatus.FINISHED, end_ms=5) == await _info(runs, run.id)
    assert (await runs.update(CALLER, run.id, status=RunStatus.KILLED)).end_ms == 5
    assert (await runs.update(CALLER, run.id, name="x")).end_ms == 5
    assert (await runs.update(CALLER, run.id, status=RunStatus.RUNNING)).end_ms is None
    for bad in ({"name": ""}, {"name": "x" * 501}, {"name": "\0"}, {"end_ms": -1}):
        with pytest.raises(InvalidArgument):
            await runs.update(CALLER, run.id, **bad)  # type: ignore[arg-type]


async def _info(runs: Runs, run_id: RunId) -> Run:
    found, _ = await runs.search(CALLER, filter=f"run_id = '{run_id.hex}'", info_only=True)
    return found[0]


async def test_update_time_moves_with_every_change_and_only_then(runs: Runs, db: Database) -> None:
    run = await runs.create(CALLER, NewRun(params={"p": "1"}, tags={"t": "1"}))
    moving: list[Callable[[], Awaitable[Any]]] = [
        lambda: runs.update(CALLER, run.id, name="x"),
        lambda: runs.log_params(CALLER, run.id, {"q": "1"}),
        lambda: runs.set_tags(CALLER, run.id, {"t": "2"}),
        lambda: runs.delete_tags(CALLER, run.id, ["t"]),
        lambda: runs.delete(CALLER, run.id),
        lambda: runs.restore(CALLER, run.id),
    ]
    for number, change in enumerate(moving):
        await forget_time(db)
        await change()
        assert (await runs.get(CALLER, run.id)).updated_ms >= run.start_ms, number
    await forget_time(db)
    await runs.log_params(CALLER, run.id, {"p": "1"})
    await runs.restore(CALLER, run.id)
    assert (await runs.get(CALLER, run.id)).updated_ms == 7


async def test_a_deleted_run_refuses_writes_until_it_is_restored(runs: Runs) -> None:
    run = await runs.create(CALLER, NewRun(tags={"t": "1"}))
    writes: list[Callable[[], Awaitable[Any]]] = [
        lambda: runs.update(CALLER, run.id, name="x"),
        lambda: runs.log_params(CALLER, run.id, {"p": "1"}),
        lambda: runs.set_tags(CALLER, run.id, {"t": "2"}),
        lambda: runs.delete_tags(CALLER, run.id, ["t"]),
    ]
    for _ in range(2):
        await runs.delete(CALLER, run.id)
        assert (await runs.get(CALLER, run.id)).lifecycle is Lifecycle.DELETED
    for write in writes:
        with pytest.raises(NotActive, match=run.id.hex):
            await write()
    unchanged = await runs.get(CALLER, run.id)
    assert (unchanged.name, unchanged.params, unchanged.tags) == (run.name, {}, {"t": "1"})
    for _ in range(2):
        await runs.restore(CALLER, run.id)
        assert (await runs.get(CALLER, run.id)).lifecycle is Lifecycle.ACTIVE
    for write in writes:
        await write()


async def test_a_write_that_meets_a_deletion_waits_for_it_and_is_refused(runs: Runs, db: Database) -> None:
    run = await runs.create(CALLER, NewRun(tags={"t": "1"}))
    writes = [
        runs.update(CALLER, run.id, name="x"),
        runs.log_params(CALLER, run.id, {"p": "1"}),
        runs.set_tags(CALLER, run.id, {"t": "2"}),
        runs.delete_tags(CALLER, run.id, ["t"]),
    ]
    async with db.transaction() as conn:
        await conn.execute("UPDATE runs SET lifecycle = 2 WHERE id = $1", run.id)
        writing = [asyncio.ensure_future(write) for write in writes]
        queued = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        async with asyncio.timeout(30), db.connection() as other:
            while await other.fetchval(queued) < len(writing):
                await asyncio.sleep(0.005)
    for write in writing:
        with pytest.raises(NotActive):
            await write
    unchanged = await runs.get(CALLER, run.id)
    assert (unchanged.name, unchanged.params, unchanged.tags) == (run.name, {}, {"t": "1"})


async def test_unknown_runs_are_not_found(runs: Runs) -> None:
    unknown = new_run_id()
    calls: list[Awaitable[Any]] = [
        runs.get(CALLER, unknown),
        runs.update(CALLER, unknown, name="x"),
        runs.log_params(CALLER, unknown, {"p": "1"}),
        runs.set_tags(CALLER, unknown, {"p": "1"}),
        runs.delete_tags(CALLER, unknown, ["p"]),
        runs.delete(CALLER, unknown),
        runs.restore(CALLER, unknown),
    ]
    for call in calls:
        with pytest.raises(NotFound, match=unknown.hex):
            await call


async def test_search_loads_whole_runs_in_order(runs: Runs, experiments: Experiments, db: Database) -> None:
    experiment = await experiments.create(CALLER, "e")
    made = [
        await runs.create(
            CALLER,
            NewRun(experiment_id=experiment.id, name=f"r{n}", start_ms=n + 1, params={"n": str(n)}, tags={"m": str(n)}),
        )
        for n in range(5)
    ]
    await runs.create(CALLER, NewRun(name="elsewhere"))
    await execute(
        db,
        """INSERT INTO run_metrics (run_id, workspace_id, experiment_id, metric_id, name, count,
                                    last_step, last_time_ms, last_value, min_value, max_value)
           VALUES ($1, 1, $2, 0, 'b', 2, 9, 10, 0.5, 0.25, 'Infinity'), ($1, 1, $2, 1, 'a', 1, 1, 1, 1, 1, 1),
                  ($1, 1, $2, 2, 'named only', 0, 0, 0, 'NaN', 'NaN', 'NaN')""",
        made[2].id,
        experiment.id,
    )
    page, token = await runs.search(CALLER, experiment_names=["e", "unknown"], order_by=["start_time"], page_size=3)
    assert [run.name for run in page] == ["r0", "r1", "r2"]
    assert [(run.params, run.tags) for run in page] == [({"n": str(n)}, {"m": str(n)}) for n in range(3)]
    assert page[1].metrics == []
    assert page[2].metrics == [
        MetricSummary("a", 1, 1, 1, 1.0, 1.0, 1.0),
        MetricSummary("b", 2, 9, 10, 0.5, 0.25, float("inf")),
    ]
    rest, token = await runs.search(
        CALLER, experiment_names=["e", "unknown"], order_by=["start_time"], page_size=3, page_token=token
    )
    assert [run.name for run in rest] == ["r3", "r4"]
    assert token == ""
    infos, _ = await runs.search(CALLER, experiment_ids=[experiment.id], info_only=True)
    assert [run.name for run in infos] == ["r4", "r3", "r2", "r1", "r0"]
    assert all(run.params == run.tags == {} and run.metrics == [] for run in infos)
    assert await runs.search(CALLER, experiment_names=["unknown"]) == ([], "")
    assert len((await runs.search(CALLER))[0]) == 6
    with pytest.raises(InvalidArgument, match="page_size"):
        await runs.search(CALLER, page_size=50_001)


async def test_search_sees_the_stages_it_is_asked_for(runs: Runs) -> None:
    kept, gone = await runs.create(CALLER, NewRun(start_ms=1)), await runs.create(CALLER, NewRun(start_ms=2))
    await runs.delete(CALLER, gone.id)
    for view, ids in ((View.ACTIVE, [kept.id]), (View.DELETED, [gone.id]), (View.ALL, [gone.id, kept.id])):
        assert [run.id for run in (await runs.search(CALLER, view=view))[0]] == ids


async def test_who_waits_for_a_run_that_somebody_holds_leaves_connections_to_the_others(
    runs: Runs, db: Database, dsn: str
) -> None:
    run, other = await runs.create(CALLER, NewRun()), await runs.create(CALLER, NewRun())
    holder = await asyncpg.connect(dsn)
    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM runs WHERE id = $1 FOR UPDATE", run.id)
            waiting = [asyncio.create_task(runs.set_tags(CALLER, run.id, {"a": "1"})) for _ in range(12)]
            await asyncio.sleep(0.2)
            assert (await runs.get(CALLER, other.id)).id == other.id
            assert not any(task.done() for task in waiting)
            with pytest.raises(Unavailable):
                await waiting[0]
        await asyncio.gather(*waiting[1:], return_exceptions=True)
    finally:
        await holder.close()
    await runs.set_tags(CALLER, run.id, {"a": "1"})
