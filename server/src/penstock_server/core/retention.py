"""Removes for good what was deleted long ago: runs and logged models with all they have, their files, and experiments
that are empty.

It may be ended at any point and begun again, and servers may run beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from penstock_server.blobs.store import Store
from penstock_server.core.sweep import Sweeper
from penstock_server.model.errors import PenstockError
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.logged_models import LoggedModelId
from penstock_server.model.runs import RunId
from penstock_server.postgres import retention
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.retention import Extent

# What is committed when a run is deleted may have begun before; it has ended by then.
SHORTEST_MS = 60_000

_PAGE = 200


@dataclass(slots=True)
class Removal:
    """How much is to be removed, or was. `trouble`: why there still are files in the store, where there are.

    `versions` of models lose their files: their runs were deleted by force.
    """

    runs: int = 0
    models: int = 0
    traces: int = 0
    experiments: int = 0
    points: int = 0
    files: int = 0
    bytes: int = 0
    trouble: PenstockError | None = None
    versions: list[str] = field(default_factory=list)

    def add(self, runs: int, extent: Extent, versions: list[str]) -> None:
        """With what there is in them, and what stands on them."""
        self.versions += versions
        self.runs += runs
        self._add(extent)

    def add_model(self, extent: Extent) -> None:
        """One logged model, with what there is in it."""
        self.models += 1
        self._add(extent)

    def add_traces(self, traces: int, extent: Extent) -> None:
        """Traces of an experiment, with what there is in them."""
        self.traces += traces
        self._add(extent)

    def _add(self, extent: Extent) -> None:
        self.points += extent.points
        self.files += extent.files
        self.bytes += extent.bytes


class Retention:
    """What was deleted longer ago than `age_ms`, a minute at least. Everything may raise Unavailable."""

    def __init__(self, db: Database, age_ms: int) -> None:
        self._db = db
        self._age_ms = max(age_ms, SHORTEST_MS)

    async def survey(self) -> Removal:
        """What would be removed."""
        found = Removal()
        async with self._db.connection() as conn:
            before_ms = await retention.before_ms(conn, self._age_ms)
            async for run_ids in self._runs(conn, before_ms):
                versions = await retention.versions(conn, run_ids)
                found.add(len(run_ids), await retention.extent(conn, run_ids), versions)
            async for model_id in self._models(conn, before_ms):
                found.add_model(await retention.extent_of_model(conn, model_id))
            for experiment_id in await retention.experiments(conn, before_ms):
                found.add_traces(*await retention.extent_of_traces(conn, experiment_id))
                found.experiments += 1
        return found

    async def remove(self, store: Store, resume_ms: int) -> Removal:
        """Removes it. Of files that the store keeps for now, it or any server will try again to remove them.

        As servers do, it also removes from the store what was replaced, and uploads that broke off `resume_ms` ago.
        """
        removed = Removal()
        async with self._db.connection() as conn:
            before_ms = await retention.before_ms(conn, self._age_ms)
            async for run_ids in self._runs(conn, before_ms):
                for run_id in run_ids:
                    await self._remove_run(conn, run_id, before_ms, removed)
            async for model_id in self._models(conn, before_ms):
                extent = await retention.extent_of_model(conn, model_id)
                if await retention.remove_model(conn, model_id, before_ms):
                    removed.add_model(extent)
            for experiment_id in await retention.experiments(conn, before_ms):
                await self._remove_traces(conn, experiment_id, before_ms, removed)
                removed.experiments += await retention.drop_experiment(conn, experiment_id, before_ms)
        try:
            await Sweeper(self._db, store, resume_ms).sweep()
        except PenstockError as error:
            removed.trouble = error
        return removed

    async def _remove_run(self, conn: Connection, run_id: RunId, before_ms: int, removed: Removal) -> None:
        if not await retention.mark(conn, run_id, before_ms):
            return
        extent, versions = await retention.extent(conn, [run_id]), await retention.versions(conn, [run_id])
        await retention.empty(conn, run_id)
        async with conn.transaction():
            dropped = await retention.drop(conn, run_id)
        if dropped:
            removed.add(1, extent, versions)

    async def _remove_traces(
        self, conn: Connection, experiment_id: ExperimentId, before_ms: int, removed: Removal
    ) -> None:
        traces, extent = await retention.extent_of_traces(conn, experiment_id)
        while await retention.remove_traces(conn, experiment_id, before_ms, _PAGE) == _PAGE:
            pass
        removed.add_traces(traces, extent)

    async def _runs(self, conn: Connection, before_ms: int) -> AsyncIterator[list[RunId]]:
        after: RunId | None = None
        while page := await retention.runs(conn, before_ms, after, _PAGE):
            yield page
            after = page[-1]

    async def _models(self, conn: Connection, before_ms: int) -> AsyncIterator[LoggedModelId]:
        after: LoggedModelId | None = None
        while page := await retention.models(conn, before_ms, after, _PAGE):
            for after in page:
                yield after
