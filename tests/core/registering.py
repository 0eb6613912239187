"""Somebody who registers models through core, and looks at what their histories say."""

from __future__ import annotations

import uuid
from typing import Any

from penstock_server.core.experiments import Experiments
from penstock_server.core.model_versions import ModelVersions
from penstock_server.core.registry import Registry
from penstock_server.core.registry_events import RegistryEvents
from penstock_server.core.runs import Runs
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.registry import Event, EventKind, ModelVersion, NewVersion, VersionStatus
from penstock_server.model.runs import NewRun, Run, RunId
from penstock_server.postgres.database import Database

ANN = Caller("tester", WorkspaceId(1), "ann", "request-of-ann")
BOB = Caller("tester", WorkspaceId(1), "bob", "request-of-bob")
ELSEWHERE = "s3://bucket/model"

_BLOB = """
INSERT INTO artifact_blobs (id, workspace_id, experiment_id, owner_id, path, key, state, media_type, part_bytes,
                            touched_ms, created_ms)
SELECT $1, workspace_id, experiment_id, id, $3, $1::uuid::text, 2, 'text/plain', 1, 0, 0 FROM runs WHERE id = $2
"""
_ARTIFACT = """
INSERT INTO artifacts (owner_id, path, workspace_id, experiment_id, blob_id, size, sha256, media_type, updated_ms)
SELECT id, $3, workspace_id, experiment_id, $1, 1, '', 'text/plain', 0 FROM runs WHERE id = $2
"""


class Desk:
    """The registry of one server process, and runs that models come from."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.models = Registry(db)
        self.versions = ModelVersions(db)
        self.events = RegistryEvents(db)
        self.runs = Runs(db, lambda run_id: None)
        self.experiments = Experiments(db)

    async def run(self, *paths: str, **fields: Any) -> Run:
        """A run with artifacts at these paths, of which nothing is in a store."""
        run = await self.runs.create(ANN, NewRun(**fields))
        await self.put(run.id, *paths)
        return run

    async def put(self, run_id: RunId, *paths: str) -> None:
        async with self.db.transaction() as conn:
            for path in paths:
                blob_id = uuid.uuid4()
                await conn.execute(_BLOB, blob_id, run_id, path)
                await conn.execute(_ARTIFACT, blob_id, run_id, path)

    async def version(self, name: str = "iris", caller: Caller = ANN, **fields: Any) -> ModelVersion:
        """The next version of a model, which is made if need be."""
        fields = {"source": ELSEWHERE} | fields
        return await self.versions.create(caller, NewVersion(name, create_model=True, **fields))

    async def of_run(self, run: Run, path: str = "model", name: str = "iris", **fields: Any) -> ModelVersion:
        """A version of what a run has."""
        new = NewVersion(name, run_id=run.id, path=path, create_model=True, **fields)
        return await self.versions.create(ANN, new)

    async def pending(self, run: Run, path: str = "model", name: str = "iris") -> ModelVersion:
        return await self.of_run(run, path, name, status=VersionStatus.PENDING)

    async def history(self, name: str = "", **filters: Any) -> list[Event]:
        """All of it, the oldest first."""
        found, token = await self.events.list(ANN, name, oldest_first=True, page_size=50_000, **filters)
        assert token == ""
        return found

    async def last(self, name: str = "iris") -> tuple[EventKind, int, str, dict[str, str], dict[str, str]]:
        """What has happened last."""
        return told((await self.history(name))[-1])

    async def count(self) -> int:
        """How many events there are."""
        return len(await self.history())


def told(event: Event) -> tuple[EventKind, int, str, dict[str, str], dict[str, str]]:
    what = event.what
    return what.kind, what.version, what.key, dict(what.before), dict(what.after)
