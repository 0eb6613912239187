"""Versions of registered models that are of logged models: what they come from, and what they stand on."""

from __future__ import annotations

import uuid

import pytest
from registering import ANN, BOB, Desk, told

from penstock_server.blobs import Store
from penstock_server.core.artifacts import Artifacts
from penstock_server.core.logged_models import LoggedModels
from penstock_server.core.promotions import Promotions
from penstock_server.ingest.precedence import Precedence
from penstock_server.model.errors import FailedPrecondition, InvalidArgument, NotFound
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.logged_models import LoggedModelId, NewLoggedModel, format_model_id
from penstock_server.model.owners import Owner, OwnerKind, OwnerRef
from penstock_server.model.promotions import Wish
from penstock_server.model.registry import EventKind
from penstock_server.model.runs import format_run_id
from penstock_server.postgres import model_sources
from penstock_server.postgres.database import Database

HERE = ExperimentId(0)
_BLOB = """
INSERT INTO artifact_blobs (id, workspace_id, experiment_id, owner_id, path, key, state, media_type, part_bytes,
                            touched_ms, created_ms)
VALUES ($1, 1, 0, $2, $3, $1::uuid::text, 2, 'text/plain', 1, 0, 0)
"""
_ARTIFACT = """
INSERT INTO artifacts (owner_id, path, workspace_id, experiment_id, blob_id, size, sha256, media_type, updated_ms)
VALUES ($2, $3, 1, 0, $1, 1, '', 'text/plain', 0)
"""


@pytest.fixture
def desk(db: Database) -> Desk:
    return Desk(db)


@pytest.fixture
def models(db: Database) -> LoggedModels:
    return LoggedModels(db)


async def logged(models: LoggedModels, run_id: str = "") -> LoggedModelId:
    return (await models.create(ANN, NewLoggedModel(HERE, "m", source_run_id=run_id))).id


async def put(db: Database, model_id: LoggedModelId, path: str) -> None:
    async with db.transaction() as conn:
        blob_id = uuid.uuid4()
        await conn.execute(_BLOB, blob_id, model_id, path)
        await conn.execute(_ARTIFACT, blob_id, model_id, path)


async def test_the_run_of_the_logged_model_is_the_versions(desk: Desk, models: LoggedModels) -> None:
    run = await desk.run()
    of_run = await logged(models, format_run_id(run.id))
    of_none = [await logged(models), await logged(models, "no run of ours")]
    source = f"models:/{format_model_id(of_run)}"
    for fields in ({"source": source}, {"source": "", "logged_model_id": of_run, "path": "a/b"}):
        made = await desk.version(**fields)
        assert (made.run_id, made.logged_model_id, made.source, made.source_problem) == (run.id, of_run, source, "")
        assert made.path == fields.get("path", "")
        kind, number, _, _, after = await desk.last()
        assert (kind, number) == (EventKind.VERSION_CREATED, made.version)
        assert (after["run_id"], after["logged_model_id"]) == (format_run_id(run.id), format_model_id(of_run))
        copy = await desk.version(source=f"models:/iris/{made.version}")
        assert (copy.run_id, copy.logged_model_id, copy.source, copy.path) == (run.id, of_run, source, made.path)
        assert copy.given_source == f"models:/iris/{made.version}"
    for each in of_none:
        assert (await desk.version(source=f"models:/{format_model_id(each)}")).run_id is None
    other = await desk.run()
    elsewhere = await desk.version(
        run_id=other.id, logged_model_id=of_run
    )  # it comes from the model, and lies not there
    assert (elsewhere.run_id, elsewhere.source) == (other.id, "s3://bucket/model")


async def test_a_logged_model_must_be_there(desk: Desk, models: LoggedModels) -> None:
    gone = await logged(models)
    await models.delete(ANN, gone)
    for model_id in (gone, uuid.UUID(int=5)):
        with pytest.raises(NotFound, match=f"logged model 'm-{model_id.hex}'"):
            await desk.version(source=f"models:/m-{model_id.hex}")
    with pytest.raises(InvalidArgument, match=r"^model_id: "):
        await desk.version(source=f"models:/m-{gone.hex}", logged_model_id=uuid.UUID(int=5))


async def test_a_logged_model_with_versions_is_deleted_by_force(desk: Desk, models: LoggedModels) -> None:
    run = await desk.run()
    model_id = await logged(models, format_run_id(run.id))
    await desk.version(source=f"models:/{format_model_id(model_id)}")
    count = await desk.count()
    with pytest.raises(FailedPrecondition, match=rf"^iris version 1 stands on logged model m-{model_id.hex}"):
        await models.delete(ANN, model_id)
    await models.get(ANN, model_id)
    for _ in range(2):
        await models.delete(BOB, model_id, force=True)
    assert [told(event) for event in (await desk.history())[count:]] == [
        (
            EventKind.SOURCE_DELETED,
            1,
            "logged_model",
            {"logged_model_id": format_model_id(model_id), "run_id": format_run_id(run.id)},
            {},
        )
    ]
    assert (await desk.versions.get(ANN, "iris", 1)).source_problem == "its logged model is deleted"
    with pytest.raises(FailedPrecondition, match="has no bytes: its logged model is deleted"):
        await Promotions(desk.db).promote(ANN, Wish("iris", 1, "@champion"))
    async with desk.db.connection() as conn:
        await conn.execute("DELETE FROM logged_models")
    assert (await desk.versions.get(ANN, "iris", 1)).source_problem == "its logged model was removed for good"


async def test_files_that_a_version_stands_on(desk: Desk, models: LoggedModels, local: Store) -> None:
    model_id = await logged(models)
    for path in ("model/weights", "notes"):
        await put(desk.db, model_id, path)
    await desk.version(source="", logged_model_id=model_id, path="model")
    artifacts = Artifacts(desk.db, local, Precedence(), direct=False, nudge=lambda: None)
    owner = Owner(OwnerKind.LOGGED_MODEL, model_id)
    async with desk.db.connection() as conn:
        ref = OwnerRef(ANN.workspace_id, HERE, owner, model_id)
        assert set(await model_sources.refusals(conn, ref, ["model/weights", "model", "notes"])) == {
            "model/weights",
            "model",
        }
    await artifacts.delete(ANN, owner, "notes")
    with pytest.raises(FailedPrecondition, match="iris version 1 stands on artifact 'model/weights'"):
        await artifacts.delete(ANN, owner, "model/weights")
    await artifacts.delete(BOB, owner, "model/weights", force=True)
    before = {"path": "model/weights", "logged_model_id": format_model_id(model_id)}
    assert await desk.last() == (EventKind.SOURCE_DELETED, 1, "artifact", before, {})
