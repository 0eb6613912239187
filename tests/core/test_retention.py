"""Removal for good: what was deleted long ago goes with all it had, whoever falls in between, and nothing else goes."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from uploading import CALLER, PART, Place, content, execute, place

from penstock_server.blobs import S3Options, Store, open_store
from penstock_server.core.experiments import Experiments
from penstock_server.core.logged_models import LoggedModels
from penstock_server.core.retention import Removal, Retention
from penstock_server.core.runs import Runs
from penstock_server.model.artifacts import LocalRoot
from penstock_server.model.errors import FailedPrecondition, NotFound, StoreRefused, Unavailable
from penstock_server.model.experiments import DEFAULT_EXPERIMENT, ExperimentId
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.logged_models import LoggedModel, ModelPoint, NewLoggedModel, format_model_id
from penstock_server.model.owners import Owner, OwnerKind
from penstock_server.model.runs import NewRun, RunId
from penstock_server.postgres import retention, segments, sweep
from penstock_server.postgres.database import Database

MINUTE, DAY = 60_000, 86_400_000
NOTHING = Removal()

# More of each than one statement takes, of those that are removed in pieces.
_ROWS = (
    "INSERT INTO run_params SELECT $1, 1, 0, 'p' || n, 'v' FROM generate_series(1, 30) n",
    "INSERT INTO run_tags SELECT $1, 1, 0, 't' || n, 'v' FROM generate_series(1, 30) n",
    "INSERT INTO run_metrics (run_id, workspace_id, experiment_id, metric_id, name, count)"
    " SELECT $1, 1, 0, n, 'm' || n, 7 FROM generate_series(1, 30) n",
    "INSERT INTO writers (id, run_id, workspace_id, principal, epoch, created_ms)"
    " SELECT gen_random_uuid(), $1, 1, 'tester', 1, 0 FROM generate_series(1, 30) n",
    "INSERT INTO logged_models (id, workspace_id, experiment_id, name, created_ms, updated_ms)"
    " SELECT md5($1::uuid::text)::uuid, 1, 0, 'm', 0, 0",
    "INSERT INTO logged_model_metrics (model_id, workspace_id, experiment_id, run_id, key, time_ms, step, value)"
    " SELECT md5($1::uuid::text)::uuid, 1, 0, $1, 'acc', 0, n, 0 FROM generate_series(1, 30) n",
    "INSERT INTO run_datasets (run_id, workspace_id, experiment_id, name, digest, tag_keys, tag_values)"
    " SELECT $1, 1, 0, 'd', n, '{}', '{}' FROM generate_series(1, 30) n",
    "INSERT INTO run_models (run_id, workspace_id, output, model_id)"
    " SELECT $1, 1, true, n FROM generate_series(1, 30) n",
    "INSERT INTO metric_segments (run_id, workspace_id, frames, min_step, max_step, shape_sizes, metric_ids, steps,"
    " times_ms, metric_values) SELECT $1, 1, 1, 0, 0, '{1}', '{1}', 'x', 'x', 'x' FROM generate_series(1, 30) n",
    "INSERT INTO metric_chunks (run_id, metric_id, workspace_id, points, min_step, max_step, first_time, last_time,"
    " min_value, max_value, sum_value, nans, block_steps, block_mins, block_maxs, block_sums, step_deltas, time_deltas)"
    " SELECT $1, n, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, '{}', '{}', '{}', '{}', '{}', '{}' FROM generate_series(1, 30) n",
)
TABLES = (*retention._BULKS, "artifacts", "artifact_blobs")
_OWNED = {"artifacts": "owner_id", "artifact_blobs": "owner_id"}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch, small_parts: None) -> None:
    pieces = [(retention._TAKE.format(table, table, 10), 10) for table in retention._BULKS]
    monkeypatch.setattr(retention, "_DELETES", pieces)
    monkeypatch.setattr(sweep, "_FILES", 2)


async def filled(db: Database, store: Store) -> Place:
    """A run with some of all there is: 210 points, 5 files of 100 bytes, one replaced, and an upload that broke off."""
    spot = await place(db, store)
    async with db.connection() as conn:
        for rows in _ROWS:
            await conn.execute(rows, spot.run_id)
    await spot.upload("0", b"replaced")
    for number in range(5):
        await spot.upload(f"{number}", b"." * 100)
    await spot.broken("big", content(2 * PART), 1, PART)
    return spot


async def delete(spot: Place, ago_ms: int = 2 * DAY) -> None:
    await Runs(spot.db, lambda _: None).delete(CALLER, spot.run_id)
    await age(spot.db, ago_ms)


async def age(db: Database, ms: int) -> None:
    await execute(db, "UPDATE runs SET deleted_ms = deleted_ms - $1", ms)
    await execute(db, "UPDATE experiments SET updated_ms = updated_ms - $1 WHERE lifecycle = 2", ms)


async def rows(db: Database, run_id: RunId) -> dict[str, int]:
    """What tables have of a run."""
    counts = {}
    for table in TABLES:
        (row,) = await execute(db, f"SELECT count(*) FROM {table} WHERE {_OWNED.get(table, 'run_id')} = $1", run_id)
        counts[table] = row[0]
    counts["runs"] = len(await execute(db, "SELECT FROM runs WHERE id = $1", run_id))
    return {table: count for table, count in counts.items() if count}


async def remove(spot: Place, store: Store | None = None, age_ms: int = DAY) -> Removal:
    return await Retention(spot.db, age_ms).remove(store or spot.store, DAY)


async def test_all_of_a_run_goes_and_nothing_of_another(db: Database, store: Store) -> None:
    gone, kept = await filled(db, store), await filled(db, store)
    keys = [row[0] for row in await execute(db, "SELECT key FROM artifact_blobs WHERE owner_id = $1", gone.run_id)]
    before = await rows(db, kept.run_id)
    await delete(gone)
    assert await Retention(db, DAY).survey() == Removal(runs=1, points=210, files=5, bytes=500)
    assert (await rows(db, gone.run_id)).keys() == {*TABLES, "runs"}
    # What was replaced has its hour, and what broke off some minutes.
    await execute(db, "UPDATE artifact_blobs SET touched_ms = 0 WHERE state <> 2 AND owner_id = $1", gone.run_id)
    assert await remove(gone) == Removal(runs=1, points=210, files=5, bytes=500)
    assert await rows(db, gone.run_id) == {}
    assert [await store.size(key) for key in keys] == [None] * 7
    assert await rows(db, kept.run_id) == before
    assert await kept.read("0") == b"." * 100
    assert len([each async for each in store.begun()]) == 1
    assert await Retention(db, DAY).survey() == NOTHING
    assert await remove(gone) == NOTHING
    with pytest.raises(FailedPrecondition, match="was removed for good; take another id"):
        await Runs(db, lambda _: None).create(CALLER, NewRun(run_id=gone.run_id))


@pytest.mark.parametrize(("age_ms", "ago_ms"), [(DAY, DAY - MINUTE), (0, 30_000)])
async def test_what_was_deleted_later_stays(db: Database, local: Store, age_ms: int, ago_ms: int) -> None:
    spot = await filled(db, local)
    await delete(spot, ago_ms)
    before = await rows(db, spot.run_id)
    assert await Retention(db, age_ms).survey() == NOTHING
    assert await remove(spot, age_ms=age_ms) == NOTHING
    assert await rows(db, spot.run_id) == before
    await age(db, 2 * MINUTE)
    assert (await Retention(db, age_ms).survey()).runs == 1


async def test_a_run_that_is_restored_meanwhile_stays(
    db: Database, local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spot = await filled(db, local)
    await delete(spot)
    before = await rows(db, spot.run_id)
    mark = retention.mark

    async def restored_first(*args: Any) -> bool:
        await Runs(db, lambda _: None).restore(CALLER, spot.run_id)
        return await mark(*args)

    monkeypatch.setattr(retention, "mark", restored_first)
    assert await remove(spot) == NOTHING
    assert await rows(db, spot.run_id) == before
    assert await spot.read("1") == b"." * 100


class FellError(Exception):
    """The process ended here."""


@pytest.mark.parametrize("step", [1, 5, 10, 20, 26])
async def test_what_was_begun_is_found_again_and_cannot_be_restored(
    db: Database, local: Store, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    spot = await filled(db, local)
    await delete(spot)
    count, left = retention._count, step

    def fall(tag: str) -> int:
        nonlocal left
        left -= 1
        if not left:
            raise FellError
        return count(tag)

    with monkeypatch.context() as patched:
        patched.setattr(retention, "_count", fall)
        patched.setattr(sweep, "_count", fall)
        with pytest.raises(FellError):
            await remove(spot)
    assert (await rows(db, spot.run_id))["runs"] == 1
    runs, experiments = Runs(db, lambda _: None), Experiments(db)
    with pytest.raises(NotFound):
        await runs.restore(CALLER, spot.run_id)
    await experiments.delete(CALLER, DEFAULT_EXPERIMENT)
    await experiments.restore(CALLER, DEFAULT_EXPERIMENT)
    assert (await runs.get(CALLER, spot.run_id)).lifecycle is Lifecycle.DELETED
    await age(db, -3 * DAY)  # it is found by what was begun, not by its age
    assert (await remove(spot)).runs == 1
    assert (await rows(db, spot.run_id)).keys() <= {"artifact_blobs"}  # what was replaced, which has its hour


async def test_what_is_compacted_meanwhile_goes_too(db: Database, local: Store) -> None:
    """The compaction has read the segments before, and commits their points after all seems to be gone."""
    spot = await filled(db, local)
    await delete(spot)
    async with db.transaction() as conn:
        assert await segments.lock(conn, spot.run_id)
        await conn.execute(_ROWS[-1], spot.run_id)
        removing = asyncio.create_task(remove(spot))
        async with asyncio.timeout(20):
            while not await execute(db, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                await asyncio.sleep(0.01)
    assert (await removing).runs == 1
    assert (await rows(db, spot.run_id)).keys() <= {"artifact_blobs"}


async def test_two_at_once(db: Database, local: Store) -> None:
    spots = [await filled(db, local) for _ in range(4)]
    for spot in spots:
        await delete(spot)
    removed = await asyncio.gather(remove(spots[0]), remove(spots[0]))
    assert sum(each.runs for each in removed) == 4
    for spot in spots:
        assert (await rows(db, spot.run_id)).keys() <= {"artifact_blobs"}
    assert await Retention(db, DAY).survey() == NOTHING


async def test_experiments_go_when_they_are_empty(db: Database, local: Store) -> None:
    experiments, runs = Experiments(db), Runs(db, lambda _: None)
    old = await experiments.create(CALLER, "old", {"a": "b"})
    late = await experiments.create(CALLER, "late")
    for experiment in (old, late):
        await runs.create(CALLER, NewRun(experiment_id=experiment.id))
    await experiments.delete(CALLER, old.id)
    await experiments.delete(CALLER, DEFAULT_EXPERIMENT)
    await age(db, 2 * DAY)
    (run,) = (await runs.search(CALLER, experiment_ids=[late.id]))[0]
    await runs.delete(CALLER, run.id)
    await age(db, 2 * DAY)
    await experiments.delete(CALLER, late.id)
    assert await Retention(db, DAY).survey() == Removal(runs=2, experiments=1)
    assert await Retention(db, DAY).remove(local, DAY) == Removal(runs=2, experiments=1)
    with pytest.raises(NotFound):
        await experiments.get(CALLER, old.id)
    for kept in (late.id, DEFAULT_EXPERIMENT):
        await experiments.restore(CALLER, kept)
    assert (await experiments.create(CALLER, "old")).id != old.id


async def test_files_that_the_store_keeps_for_now_go_later(db: Database, local: Store, tmp_path: Path) -> None:
    spot = await filled(db, local)
    await delete(spot)
    root = tmp_path / "artifacts"
    shutil.move(root, tmp_path / "away")
    removed = await remove(spot)
    assert isinstance(removed.trouble, StoreRefused)
    assert (removed.runs, removed.files) == (1, 5)
    assert (await rows(db, spot.run_id)).keys() == {"artifact_blobs"}
    shutil.move(tmp_path / "away", root)
    await execute(db, "UPDATE artifact_blobs SET touched_ms = 0")
    assert await remove(spot) == NOTHING
    assert await rows(db, spot.run_id) == {}
    assert [path for path in root.rglob("*") if path.is_file()] == []


async def test_where_the_files_never_were_nothing_is_removed(db: Database, local: Store, tmp_path: Path) -> None:
    """As when `gc` runs with the settings of another machine."""
    spot = await filled(db, local)
    await delete(spot)
    elsewhere = await open_store(LocalRoot(str(tmp_path / "nowhere" / "artifacts")), S3Options())
    removed = await remove(spot, elsewhere)
    await elsewhere.close()
    assert isinstance(removed.trouble, StoreRefused)
    assert (await rows(db, spot.run_id)).keys() == {"artifact_blobs"}
    assert not (tmp_path / "nowhere").exists()


async def test_a_database_that_is_away_is_told(db: Database, local: Store) -> None:
    spot = await filled(db, local)
    await delete(spot)
    await db.close()
    with pytest.raises(Unavailable):
        await remove(spot)


async def logged(spot: Place, name: str, experiment_id: ExperimentId = DEFAULT_EXPERIMENT) -> tuple[LoggedModel, Place]:
    """A logged model with some of all there is: 2 points, and 2 files of 100 bytes."""
    models = LoggedModels(spot.db)
    model = await models.create(CALLER, NewLoggedModel(experiment_id, name, params={"a": "b"}, tags={"c": "d"}))
    points = [ModelPoint(format_model_id(model.id), "acc", 0.5, 0, step) for step in range(2)]
    await models.log_metrics(CALLER, spot.run_id, points)
    files = spot.another()
    files.owner = Owner(OwnerKind.LOGGED_MODEL, model.id)
    for path in ("MLmodel", "model.pkl"):
        await files.upload(path, b"." * 100)
    return model, files


async def test_logged_models_go_with_their_files(
    db: Database, local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_METRICS_AT_ONCE", 1)
    spot = await place(db, local)
    models, experiments = LoggedModels(db), Experiments(db)
    dropped = await experiments.create(CALLER, "dropped")
    (kept, files), (late, _), (gone, _) = [await logged(spot, name) for name in ("kept", "late", "gone")]
    await logged(spot, "of an experiment", dropped.id)
    for each in (gone, late):
        await models.delete(CALLER, each.id)
    await experiments.delete(CALLER, dropped.id)
    await age(db, 2 * DAY)
    await execute(db, "UPDATE logged_models SET deleted_ms = deleted_ms - $1 WHERE name = 'gone'", 2 * DAY)
    all_of_two = Removal(models=2, experiments=1, points=4, files=4, bytes=400)
    assert await Retention(db, DAY).survey() == all_of_two
    assert await remove(spot) == all_of_two
    assert await Retention(db, DAY).survey() == NOTHING
    for table in ("params", "tags", "metrics"):
        assert {row[0] for row in await execute(db, f"SELECT model_id FROM logged_model_{table}")} == {kept.id, late.id}
    with pytest.raises(NotFound):
        await models.get(CALLER, gone.id, deleted=True)
    with pytest.raises(NotFound):
        await experiments.get(CALLER, dropped.id)
    assert (await models.get(CALLER, kept.id)).metrics != []
    assert (await models.get(CALLER, late.id, deleted=True)).name == "late"
    assert await files.read("MLmodel") == b"." * 100
    left = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file() and path.stat().st_size == 100]
    assert len(left) == 4


async def test_a_model_of_an_experiment_that_is_restored_meanwhile_stays(
    db: Database, local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spot = await place(db, local)
    experiments = Experiments(db)
    experiment = await experiments.create(CALLER, "restored")
    model, files = await logged(spot, "stays", experiment.id)
    await experiments.delete(CALLER, experiment.id)
    await age(db, 2 * DAY)
    extent = retention.extent_of_model

    async def restored_first(*args: Any) -> Any:
        await experiments.restore(CALLER, experiment.id)
        return await extent(*args)

    monkeypatch.setattr(retention, "extent_of_model", restored_first)
    assert await remove(spot) == NOTHING
    assert len((await LoggedModels(db).get(CALLER, model.id)).metrics) == 2
    assert await files.read("MLmodel") == b"." * 100
