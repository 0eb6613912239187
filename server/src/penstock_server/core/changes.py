"""Watching runs: their state as it is, then what any replica commits of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass

from penstock_server.model.access import Caller
from penstock_server.model.changes import Change, RunChange, RunRef
from penstock_server.model.errors import InvalidArgument, Unavailable
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.runs import Run, RunId
from penstock_server.postgres import runs
from penstock_server.postgres.changes import listener, locate_all, require_all
from penstock_server.postgres.database import Database

# The most experiments and the most runs that one watch may name; who wants more watches them all.
MOST_IDS = 10_000

# Loaded at once for one watcher.
_PAGE = 100
# After telling a watcher, changes gather for so long, in seconds.
_GATHER = 0.05


@dataclass(frozen=True, slots=True)
class RunChanged:
    """A run as it is now, and what of it has changed."""

    changes: frozenset[RunChange]
    run: Run


@dataclass(frozen=True, slots=True)
class Synced:
    """The state is told; every change committed from here on will be."""


class Changes:
    """Tells watchers what changes. Each has its own account of what it was not told yet, so none waits for another."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._listener = listener(db, self._heard, self._connected)
        self._watchers: set[_Watcher] = set()
        self._stopped = False

    async def run(self) -> None:
        """Listens to what replicas commit, until it is cancelled."""
        await self._listener.run()

    def stop(self) -> None:
        """Ends every watch with Unavailable, so that watchers go to another replica. May be called again."""
        self._stopped = True
        for watcher in self._watchers:
            watcher.stop()

    async def watch(
        self,
        caller: Caller,
        experiment_ids: Collection[ExperimentId] = (),
        run_ids: Collection[RunId] = (),
        changes_only: bool = False,
    ) -> AsyncIterator[RunChanged | Synced]:
        """These experiments' runs and these runs (neither: the workspace's): first all, then what changes of them.

        Raises InvalidArgument when they are too many, NotFound when one of them does not exist, Unavailable when the
        watch cannot go on: watch again then.
        """
        for field, ids in (("experiment_ids", experiment_ids), ("run_ids", run_ids)):
            if len(ids) > MOST_IDS:
                raise InvalidArgument(field, f"at most {MOST_IDS:,}, found {len(ids):,}; name the experiments, or none")
        watcher = _Watcher(caller, frozenset(experiment_ids), frozenset(run_ids))
        self._watchers.add(watcher)  # before the state is read: what is committed meanwhile is told after it
        try:
            if self._stopped:
                watcher.stop()
            await self._check(watcher)
            if not changes_only:
                async for event in self._tell(watcher, await self._state(watcher, Lifecycle.ACTIVE)):
                    yield event
            yield Synced()
            while True:
                await watcher.something()
                async for event in self._tell(watcher, await self._news(watcher)):
                    yield event
                await asyncio.sleep(_GATHER)
        finally:
            self._watchers.discard(watcher)

    async def _check(self, watcher: _Watcher) -> None:
        async with self._db.connection() as conn:
            await require_all(conn, watcher.workspace_id, watcher.experiment_ids)
            watcher.locate(await locate_all(conn, watcher.workspace_id, watcher.run_ids))

    async def _news(self, watcher: _Watcher) -> dict[RunId, set[RunChange]]:
        """What the watcher was not told yet."""
        if watcher.missed:
            watcher.missed = False
            watcher.take()
            # What changed while nobody listened is not known. It may be that runs were deleted.
            return await self._state(watcher, None)
        pending, stale = watcher.take()
        if stale:
            async with self._db.connection() as conn:
                for run_id in await runs.ids(conn, watcher.workspace_id, stale, None):
                    pending.setdefault(run_id, set()).add(RunChange.RUN)
        return pending

    async def _state(self, watcher: _Watcher, lifecycle: Lifecycle | None) -> dict[RunId, set[RunChange]]:
        """All that is watched; of experiments the runs in this stage (None: in any)."""
        found: list[RunId] = []
        if watcher.experiment_ids or not watcher.run_ids:
            async with self._db.connection() as conn:
                found = await runs.ids(conn, watcher.workspace_id, watcher.experiment_ids or None, lifecycle)
        return {run_id: {RunChange.SNAPSHOT} for run_id in [*watcher.run_ids, *found]}

    async def _tell(self, watcher: _Watcher, news: dict[RunId, set[RunChange]]) -> AsyncIterator[RunChanged]:
        """The runs as they are now, a few at a time so that none is old when it is told."""
        ids = list(news)
        for start in range(0, len(ids), _PAGE):
            async with self._db.connection() as conn:
                page = await runs.load(conn, watcher.workspace_id, ids[start : start + _PAGE])
            for run in page:
                watcher.check()
                yield RunChanged(frozenset(news[run.id]), run)

    def _heard(self, change: Change) -> None:
        for watcher in self._watchers:
            watcher.hear(change)

    def _connected(self) -> None:
        for watcher in self._watchers:
            watcher.miss()


class _Watcher:
    """What one watch is about, and what it was not told yet: an entry a run, however often that changes."""

    def __init__(self, caller: Caller, experiment_ids: frozenset[ExperimentId], run_ids: frozenset[RunId]) -> None:
        self.workspace_id = caller.workspace_id
        self.experiment_ids = experiment_ids
        self.run_ids = run_ids
        self.missed = False
        self._everything = not (experiment_ids or run_ids)
        self._run_ids_of: dict[ExperimentId, list[RunId]] = {}
        self._pending: dict[RunId, set[RunChange]] = {}
        self._stale: set[ExperimentId] = set()
        self._stopped = False
        self._some = asyncio.Event()

    def locate(self, found: Iterable[RunRef]) -> None:
        """Notes where the runs belong. What was heard of their experiments before is in the state read after."""
        for run in found:
            self._run_ids_of.setdefault(run.experiment_id, []).append(run.run_id)

    def hear(self, change: Change) -> None:
        """Notes a change if it is about what is watched."""
        if change.workspace_id != self.workspace_id:
            return
        wide = self._everything or change.experiment_id in self.experiment_ids
        if change.run_id is None:
            if wide:
                self._stale.add(change.experiment_id)
            for run_id in self._run_ids_of.get(change.experiment_id, ()):
                self._pending.setdefault(run_id, set()).add(change.kind)
        elif wide or change.run_id in self.run_ids:
            self._pending.setdefault(change.run_id, set()).add(change.kind)
        if self._pending or self._stale:
            self._some.set()

    def miss(self) -> None:
        """Notes that changes may not have been heard."""
        self.missed = True
        self._some.set()

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped = True
        self._some.set()

    def check(self) -> None:
        """Raises Unavailable when the watch is to end."""
        if self._stopped:
            raise Unavailable("the server is stopping; another will answer", 0.5)

    async def something(self) -> None:
        """Waits until there is something to tell. Raises Unavailable when the watch is to end."""
        await self._some.wait()
        self.check()

    def take(self) -> tuple[dict[RunId, set[RunChange]], Sequence[ExperimentId]]:
        """What is noted, which is then no longer noted."""
        pending, self._pending = self._pending, {}
        stale, self._stale = self._stale, set()
        self._some.clear()
        return pending, list(stale)
