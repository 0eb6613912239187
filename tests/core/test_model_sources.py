"""What versions stand on is deleted only by force."""

from __future__ import annotations

import asyncio

import pytest
from registering import ANN, BOB, Desk, told

from penstock_server.blobs import Store
from penstock_server.core.artifacts import Artifacts
from penstock_server.core.promotions import Promotions
from penstock_server.ingest.precedence import Precedence
from penstock_server.model.errors import FailedPrecondition, NotActive, NotFound
from penstock_server.model.owners import of_run
from penstock_server.model.promotions import Wish
from penstock_server.model.registry import EventKind
from penstock_server.model.runs import format_run_id
from penstock_server.postgres import retention
from penstock_server.postgres.database import Database


@pytest.fixture
def desk(db: Database) -> Desk:
    return Desk(db)


@pytest.fixture
def artifacts(db: Database, local: Store) -> Artifacts:
    return Artifacts(db, local, Precedence(), direct=False, nudge=lambda: None)


async def test_a_run_with_versions_is_deleted_by_force(desk: Desk) -> None:
    run = await desk.run("model")
    for _ in range(5):
        await desk.of_run(run)
    count = await desk.count()
    problem = r"iris version 1, iris version 2, iris version 3 and 2 more stand on run .*; delete those versions first"
    with pytest.raises(FailedPrecondition, match=problem):
        await desk.runs.delete(ANN, run.id)
    await desk.runs.set_tags(ANN, run.id, {"it": "is active"})
    assert await desk.count() == count
    await desk.runs.delete(BOB, run.id, force=True)
    with pytest.raises(NotActive):
        await desk.runs.set_tags(ANN, run.id, {"it": "is not active"})
    events = (await desk.history())[count:]
    assert [told(event) for event in events] == [
        (EventKind.SOURCE_DELETED, number, "run", {"run_id": format_run_id(run.id)}, {}) for number in range(1, 6)
    ]
    assert {event.by for event in events} == {"bob"}
    await desk.runs.delete(BOB, run.id)  # it is deleted already
    assert await desk.count() == count + 5
    assert (await desk.versions.get(ANN, "iris", 1)).run_id == run.id


async def test_a_run_without_versions_is_deleted(desk: Desk) -> None:
    run, other = await desk.run("model"), await desk.run("model")
    await desk.of_run(run)
    await desk.of_run(other)
    await desk.versions.delete(ANN, "iris", 1)
    await desk.runs.delete(ANN, run.id)
    with pytest.raises(FailedPrecondition, match=r"iris version 2 stands on run .*; delete that version first, or"):
        await desk.runs.delete(ANN, other.id)


async def test_an_experiment_with_versions_is_deleted_by_force(desk: Desk) -> None:
    experiment = await desk.experiments.create(ANN, "digits")
    runs = [await desk.run("model", experiment_id=experiment.id) for _ in range(2)]
    elsewhere = await desk.run("model")
    for name, run in (("lily", runs[0]), ("iris", runs[1]), ("iris", elsewhere)):
        await desk.of_run(run, name=name)
    count = await desk.count()
    problem = f"iris version 1, lily version 1 stand on experiment {experiment.id}; delete those"
    with pytest.raises(FailedPrecondition, match=problem):
        await desk.experiments.delete(ANN, experiment.id)
    await desk.runs.set_tags(ANN, runs[0].id, {"it": "is active"})
    await desk.experiments.delete(ANN, experiment.id, force=True)
    found = {(event.name, *told(event)[1:3], event.what.before["run_id"]) for event in (await desk.history())[count:]}
    assert found == {
        ("lily", 1, "experiment", format_run_id(runs[0].id)),
        ("iris", 1, "experiment", format_run_id(runs[1].id)),
    }
    assert (await desk.history())[-1].what.before["experiment_id"] == str(experiment.id)
    with pytest.raises(NotActive):
        await desk.runs.set_tags(ANN, runs[0].id, {"it": "is not active"})
    await desk.experiments.delete(ANN, experiment.id)
    assert await desk.count() == count + 2


async def test_what_was_deleted_by_force_is_not_asked_for_again_with_its_experiment(desk: Desk) -> None:
    experiment = await desk.experiments.create(ANN, "digits")
    gone, there = [await desk.run("model", experiment_id=experiment.id) for _ in range(2)]
    for run in (gone, there):
        await desk.of_run(run)
    await desk.runs.delete(ANN, gone.id, force=True)
    with pytest.raises(FailedPrecondition, match=r"^iris version 2 stands on experiment"):
        await desk.experiments.delete(ANN, experiment.id)
    count = await desk.count()
    await desk.experiments.delete(ANN, experiment.id, force=True)
    assert [told(event)[1] for event in (await desk.history())[count:]] == [2]
    # Restored, it stands as it did before any deletion.
    await desk.experiments.restore(ANN, experiment.id)
    with pytest.raises(FailedPrecondition, match=r"^iris version 1, iris version 2 stand on experiment"):
        await desk.experiments.delete(ANN, experiment.id)
    for run in (gone, there):
        await desk.runs.delete(ANN, run.id, force=True)
    count = await desk.count()
    await desk.experiments.delete(ANN, experiment.id)
    assert await desk.count() == count


@pytest.mark.parametrize(
    ("path", "deleted", "stands"),
    [
        ("model/weights", "model/weights", True),
        ("model/weights", "model", True),
        ("model", "model/weights", True),
        ("", "model/weights", True),
        ("model", "model2", False),
        ("model/weights", "model/config", False),
        ("model/weights", "model/weights2", False),
        ("m_del", "model", False),
    ],
)
async def test_an_artifact_with_versions_is_deleted_by_force(
    desk: Desk, artifacts: Artifacts, path: str, deleted: str, stands: bool
) -> None:
    run = await desk.run("model/weights", "model/weights2", "model/config", "model2", "m_del")
    other = await desk.run("model/weights")
    await desk.of_run(run, path)
    await desk.of_run(other, "")
    await desk.version(run_id=run.id)  # it comes from the run, but its bytes are elsewhere
    count = await desk.count()
    if stands:
        with pytest.raises(FailedPrecondition, match=rf"^iris version 1 stands on artifact '{deleted}'; "):
            await artifacts.delete(ANN, of_run(run.id), deleted)
        await artifacts.stat(ANN, of_run(run.id), deleted)
        assert await artifacts.delete(BOB, of_run(run.id), deleted, force=True) > 0
        gone = {"run_id": format_run_id(run.id), "path": deleted}
        assert await desk.last() == (EventKind.SOURCE_DELETED, 1, "artifact", gone, {})
    else:
        assert await artifacts.delete(ANN, of_run(run.id), deleted) > 0
    with pytest.raises(NotFound):
        await artifacts.stat(ANN, of_run(run.id), deleted)
    assert await desk.count() == count + stands


async def test_of_a_version_and_a_deletion_at_once_one_fails(desk: Desk, artifacts: Artifacts) -> None:
    """Whichever comes first: there is no version without its artifact, nor of a run that is deleted."""
    outcomes = []
    for number in range(10):
        run = await desk.run("model")
        deletion = artifacts.delete(ANN, of_run(run.id), "model") if number % 2 else desk.runs.delete(ANN, run.id)
        work = [desk.of_run(run), deletion] if number % 3 else [deletion, desk.of_run(run)]
        failed = [each for each in await asyncio.gather(*work, return_exceptions=True) if isinstance(each, Exception)]  # type: ignore[arg-type]
        assert len(failed) == 1
        assert isinstance(failed[0], FailedPrecondition | NotFound)
        outcomes.append(failed[0])
    assert len(outcomes) == 10


async def test_a_version_that_is_still_to_come_keeps_its_run_as_well(desk: Desk) -> None:
    run = await desk.run()
    await desk.pending(run)
    with pytest.raises(FailedPrecondition, match="iris version 1 stands on run"):
        await desk.runs.delete(ANN, run.id)


async def test_what_has_lost_its_bytes_says_so_and_is_not_promoted(desk: Desk, artifacts: Artifacts) -> None:
    run = await desk.run("model/a", "other")
    await desk.of_run(run)
    await desk.of_run(run, "other")
    await desk.version(run_id=run.id)
    promotions = Promotions(desk.db)

    async def problems() -> list[str]:
        found = [await desk.versions.get(ANN, "iris", number) for number in (1, 2, 3)]
        for version in found:
            wish = Wish("iris", version.version, "@champion")
            if version.source_problem:
                with pytest.raises(FailedPrecondition, match=f"has no bytes: {version.source_problem}"):
                    await promotions.promote(ANN, wish)
            else:
                assert (await promotions.promote(ANN, wish)).promoted
        return [version.source_problem for version in found]

    assert await problems() == ["", "", ""]
    await artifacts.delete(ANN, of_run(run.id), "model/a", force=True)
    assert await problems() == ["its artifacts are deleted", "", ""]
    await desk.runs.delete(ANN, run.id, force=True)
    assert await problems() == ["its run is deleted", "its run is deleted", ""]
    await desk.runs.restore(ANN, run.id)
    assert await problems() == ["its artifacts are deleted", "", ""]
    await desk.runs.delete(ANN, run.id, force=True)
    async with desk.db.connection() as conn:
        await conn.execute("UPDATE runs SET deleted_ms = 0")
        assert await retention.versions(conn, [run.id]) == ["iris/1", "iris/2"]
        await desk.versions.set_alias(ANN, "iris", "champion", 2)
        assert await retention.mark(conn, run.id, 1)
        assert await problems() == ["its run is being removed for good"] * 2 + [""]
        await desk.versions.set_alias(ANN, "iris", "champion", 2)
        assert await retention.versions(conn, [run.id]) == ["iris/1", "iris/2 @champion"]
        await conn.execute("DELETE FROM artifacts")
        await conn.execute("DELETE FROM runs WHERE id = $1", run.id)
    assert await problems() == ["its run was removed for good"] * 2 + [""]
