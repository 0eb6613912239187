"""What a version that is ready stands on is not replaced by other content, however it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from registering import ANN, ELSEWHERE, Desk
from uploading import CALLER, Place, content, place, sha256

from penstock_server.blobs import Store
from penstock_server.core.ledger import Ledger
from penstock_server.model.artifacts import Artifact
from penstock_server.model.errors import FailedPrecondition
from penstock_server.model.registry import EventKind, NewVersion, VersionStatus
from penstock_server.model.runs import format_run_id
from penstock_server.model.uploads import SmallFile
from penstock_server.postgres import model_sources
from penstock_server.postgres.database import Database

OLD, NEW = b"the bytes that were approved", b"others"
REFUSED = (
    "iris version 1 stands on 'model/w', so it is not replaced by other content; "
    "log it under another path, or delete it by force first"
)


@pytest.fixture
def here(db: Database, local: Store, run: Any) -> Place:
    """A run with files."""

    async def make() -> Place:
        made = await place(db, local)
        for path in ("model/w", "other"):
            await made.upload(path, OLD)
        return made

    made: Place = run(make())
    return made


async def register(here: Place, path: str, **fields: Any) -> None:
    await Desk(here.db).versions.create(
        ANN, NewVersion("iris", run_id=here.run_id, path=path, create_model=True, **fields)
    )


@pytest.mark.parametrize("path", ["", "model", "model/w"])
async def test_other_content_is_refused_before_its_bytes_are_sent(here: Place, path: str) -> None:
    await register(here, path)
    before = await here.states()
    with pytest.raises(FailedPrecondition, match=REFUSED):
        await here.begin("model/w", len(NEW))
    with pytest.raises(FailedPrecondition, match=REFUSED):
        await here.begin("model/w", len(OLD), sha256=sha256(b"of the same length"))
    _, task = here.open("model/w", NEW)
    with pytest.raises(FailedPrecondition, match=REFUSED):
        await task  # nothing was put into the stream
    assert await here.states() == before
    assert await here.read("model/w") == OLD


async def test_other_content_of_the_same_size_is_refused_at_the_end(here: Place) -> None:
    await register(here, "model")
    other = OLD.upper()
    with pytest.raises(FailedPrecondition, match=REFUSED):
        await here.upload("model/w", other)
    with pytest.raises(FailedPrecondition, match=REFUSED):
        await here.upload("model/w", NEW, size=None)
    assert await here.read("model/w") == OLD
    assert sorted(await here.states()) == [("model/w", 2), ("model/w", 3), ("model/w", 3), ("other", 2)]


async def test_an_upload_under_way_when_the_version_is_made_is_refused(here: Place) -> None:
    stream, task = here.open("model/w", NEW)
    await stream.put(NEW[:1], NEW[1:])
    await register(here, "model/w")
    await stream.put(None)
    with pytest.raises(FailedPrecondition, match=REFUSED):
        await task
    assert await here.read("model/w") == OLD


async def test_in_a_batch_the_others_come_in(here: Place) -> None:
    await register(here, "model")
    files = [
        SmallFile(path, data) for path, data in (("model/w", NEW), ("model/w", OLD), ("model/x", NEW), ("other", NEW))
    ]
    refused, same, beside, elsewhere = await here.uploads.batches.receive(CALLER, here.owner, files)
    assert isinstance(refused, FailedPrecondition)
    assert str(refused) == REFUSED
    assert all(isinstance(each, Artifact) for each in (same, beside, elsewhere))
    assert [await here.read(path) for path in ("model/w", "model/x", "other")] == [OLD, NEW, NEW]


async def test_a_direct_upload_is_refused(db: Database, here: Place) -> None:
    direct = here.another(direct=True)
    plan = await direct.begin("model/w", len(OLD))
    assert plan.upload is not None
    Path(plan.file_uri.removeprefix("file://")).write_bytes(OLD.upper())
    await register(here, "model")
    with pytest.raises(FailedPrecondition, match=REFUSED):
        await direct.uploads.direct.complete(CALLER, here.owner, plan.upload.id, sha256(OLD.upper()), [])
    with pytest.raises(FailedPrecondition, match=REFUSED):
        await direct.begin("model/w", 1)
    assert await here.read("model/w") == OLD


async def test_by_force_it_is_replaced_and_that_is_told(here: Place) -> None:
    await register(here, "model")
    desk = Desk(here.db)
    before = len(await desk.history())
    await here.upload("model/w", OLD, force=True)  # the same again
    assert len(await desk.history()) == before
    await here.upload("model/w", NEW, force=True)
    await here.upload("model/new", NEW, force=True)
    assert await here.read("model/w") == NEW
    told = (await desk.history())[before:]
    assert [event.what.kind for event in told] == [EventKind.SOURCE_DELETED]
    assert told[0].what.before == {"path": "model/w", "run_id": format_run_id(here.run_id)}
    assert told[0].what.after == {"sha256": sha256(NEW).hex()}


async def test_by_force_it_is_replaced_straight_in_the_store(db: Database, here: Place) -> None:
    await register(here, "model")
    direct = here.another(direct=True)
    plan = await direct.begin("model/w", len(OLD), force=True)
    assert plan.upload is not None
    Path(plan.file_uri.removeprefix("file://")).write_bytes(OLD.upper())
    await direct.uploads.direct.complete(CALLER, here.owner, plan.upload.id, b"", [], force=True)
    assert await here.read("model/w") == OLD.upper()


async def test_what_nothing_ready_stands_on_is_replaced(here: Place) -> None:
    await register(here, "model", status=VersionStatus.PENDING)
    await register(here, "other")
    await Desk(here.db).version(source=ELSEWHERE)
    await here.upload("model/w", NEW)
    assert await here.read("model/w") == NEW
    await here.upload("model/w", NEW)
    await here.artifacts.delete(ANN, here.owner, "other", force=True)
    await here.upload("other", NEW)
    assert await here.read("other") == NEW


async def test_the_registry_is_asked_only_where_something_is_replaced(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_sources, "_STANDING", None)
    await here.upload("new/file", content(10))
    await here.upload("model/w", OLD)
    assert await Ledger(here.db).claim(CALLER.workspace_id, here.new("model/w", OLD, sha256=sha256(OLD)))
