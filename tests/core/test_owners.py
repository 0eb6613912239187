"""Files of logged models and of traces: all that holds for those of runs holds for them."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from uploading import CALLER, Place, execute, place

from penstock_server.blobs import Store
from penstock_server.core.runs import Runs
from penstock_server.core.sweep import Sweeper
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.errors import AlreadyExists, InvalidArgument, NotActive, NotFound, UploadGone
from penstock_server.model.owners import Owner, OwnerKind, parse_owner
from penstock_server.model.runs import NewRun, RunId
from penstock_server.postgres import sweep
from penstock_server.postgres.database import Database

MODEL = Owner(OwnerKind.LOGGED_MODEL, uuid.UUID(int=7))
TRACE = Owner(OwnerKind.TRACE, uuid.UUID(int=8))
_MODEL = """
INSERT INTO logged_models (id, workspace_id, experiment_id, name, created_ms, updated_ms) VALUES ($1, 1, 0, 'm', 0, 0)
"""
_DASHED = "00000000-0000-0000-0000-000000000001"
_TRACE = """
INSERT INTO traces (id, workspace_id, experiment_id, trace_id, request_ms, state, told, tags, metadata)
VALUES ($1, 1, 0, $2, 0, $$OK$$, true, $${}$$, $${}$$)
"""


@pytest.fixture(params=[MODEL, TRACE], ids=str)
def there(request: pytest.FixtureRequest, run: Any, db: Database, local: Store) -> Place:
    """On a logged model, then on a trace."""

    async def make() -> Place:
        made = await place(db, local)
        made.owner = request.param
        await execute(db, _MODEL, MODEL.id)
        await execute(db, _TRACE, uuid.UUID(int=9), str(TRACE))
        return made

    made: Place = run(make())
    return made


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0" * 31 + "1", OwnerKind.RUN),
        (_DASHED, OwnerKind.RUN),
        ("m-" + "0" * 31 + "1", OwnerKind.LOGGED_MODEL),
        ("tr-" + "0" * 31 + "1", OwnerKind.TRACE),
    ],
)
def test_read(text: str, kind: OwnerKind) -> None:
    assert parse_owner(text) == Owner(kind, uuid.UUID(int=1))
    assert parse_owner(str(parse_owner(text))) == parse_owner(text)


@pytest.mark.parametrize(
    "text", ["", "m-", "tr-1", "x-" + "0" * 32, "m-00000000-0000-0000-0000-000000000001", "z" * 32]
)
def test_not_read(text: str) -> None:
    with pytest.raises(InvalidArgument, match="run_id"):
        parse_owner(text)


async def test_comes_in_is_replaced_and_goes(there: Place) -> None:
    await there.upload("a/b", b"1")
    await there.upload("a/b", b"22")
    assert await there.read("a/b") == b"22"
    assert [each.path for each in (await there.artifacts.list(CALLER, there.owner))[0]] == ["a"]
    assert await there.states() == [("a/b", 2), ("a/b", 3)]
    assert await there.artifacts.delete(CALLER, there.owner, "a", force=True) == 1
    assert await there.read("a/b") is None


async def test_lies_where_its_name_says(there: Place) -> None:
    await there.upload("a", b"1")
    await there.upload("a", b"2")
    keys = [row[0] for row in await execute(there.db, "SELECT key FROM artifact_blobs ORDER BY created_ms, key")]
    above = f"0/models/{MODEL}" if there.owner == MODEL else f"0/traces/tr-{uuid.UUID(int=9).hex}"
    assert keys[0] == f"{above}/artifacts/a"
    assert keys[1].startswith(f"{above}/versions/")


async def test_is_gone_on_with(there: Place, small_parts: None) -> None:
    data = b"x" * 300_000
    upload_id = await there.broken("a", data, 2, 64 << 10)
    await there.upload("a", data, upload_id=upload_id, offset=2 * (64 << 10))
    assert await there.read("a") == data


async def test_of_another_workspace_or_none(there: Place) -> None:
    await there.upload("a", b"1")
    stranger = Caller("tester", WorkspaceId(2))
    for doing in (
        there.artifacts.list(stranger, there.owner),
        there.artifacts.stat(CALLER, Owner(there.owner.kind, uuid.UUID(int=99)), "a"),
        there.artifacts.stat(CALLER, Owner(OwnerKind.RUN, there.owner.id), "a"),
    ):
        with pytest.raises(NotFound):
            await doing


async def test_a_deleted_model_takes_no_files(there: Place) -> None:
    await there.upload("a", b"1")
    await execute(there.db, "UPDATE logged_models SET lifecycle = 2")
    if there.owner == MODEL:
        with pytest.raises(NotActive, match="m-0"):
            await there.upload("b", b"1")
    assert await there.read("a") == b"1"


async def test_of_one_that_goes_all_goes(there: Place) -> None:
    await there.upload("a", b"1")
    stream, uploading = there.open("b", b"22")
    await stream.put(b"2", b"2")  # the first is taken
    table, id_ = ("logged_models", MODEL.id) if there.owner == MODEL else ("traces", uuid.UUID(int=9))
    async with there.db.transaction() as conn:
        await conn.execute(f"DELETE FROM {table} WHERE id = $1", id_)
        await sweep.release(conn, [id_])
    await stream.put(None)
    with pytest.raises((NotFound, UploadGone)):
        await uploading
    await execute(there.db, "UPDATE artifact_blobs SET touched_ms = 0")
    await Sweeper(there.db, there.store, 0).sweep()
    assert await execute(there.db, "SELECT FROM artifacts") == []
    assert await there.states() == []


async def test_none_goes_while_its_files_are_entered(there: Place) -> None:
    from penstock_server.postgres import owners

    table = "logged_models" if there.owner == MODEL else "traces"
    async with there.db.transaction() as conn:
        await owners.hold_files(conn, CALLER.workspace_id, there.owner)
        deletion = asyncio.create_task(execute(there.db, f"DELETE FROM {table}"))
        await asyncio.wait([deletion], timeout=0.2)
        assert not deletion.done()
    await deletion


async def test_no_run_is_made_with_the_id_of_another_owner(there: Place) -> None:
    for taken in (MODEL.id, uuid.UUID(int=9)):
        with pytest.raises(AlreadyExists):
            await Runs(there.db, lambda _: None).create(CALLER, NewRun(run_id=RunId(taken)))
