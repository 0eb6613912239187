"""One import: experiments with their runs and logged models, then the registry.

A run and all that is in it but for its files are written in one transaction, with a mark; its files come after that,
and then the mark says so. So whatever ends an import, the next goes on with it, and nothing is there twice.
"""

from __future__ import annotations

import asyncio
import enum
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from penstock_server.importing import registry
from penstock_server.importing.files import Files, is_elsewhere
from penstock_server.importing.source import Source, is_served
from penstock_server.importing.tally import Tally
from penstock_server.model.access import Caller
from penstock_server.model.changes import RunRef
from penstock_server.model.datasets import ModelOutput
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.experiments import ExperimentId, check_name
from penstock_server.model.experiments import check_tags as check_experiment_tags
from penstock_server.model.imports import Arrival, ImportedExperiment, ImportedModel, ImportedRun
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.limits import TIME_MS_MAX
from penstock_server.model.logged_models import check_pairs
from penstock_server.model.metrics import check_key
from penstock_server.model.owners import Owner, OwnerKind, of_run
from penstock_server.model.runs import check_params, check_tags
from penstock_server.postgres import changes, datasets, imports
from penstock_server.postgres.database import Database
from penstock_server.postgres.points import Columns

_T = TypeVar("_T")

_PAGE = 100  # runs between two checks of what is here
_AT_ONCE = 4  # runs that are being read
_Found = tuple[Arrival, int, int]


class FilesMode(enum.Enum):
    """What becomes of files: brought into our store, left where they are and told of, or left out."""

    COPY = "copy"
    REFERENCE = "reference"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to import: only experiments of these names or ids, where any are named, and then without the registry.

    `source` is how the source is told, without secrets. With `dry_run` nothing is written.
    """

    source: str
    experiments: list[str]
    files: FilesMode
    dry_run: bool


class Import:
    """Brings a source in, and counts. Raises Unavailable when that is to be tried again."""

    def __init__(
        self, db: Database, source: Source, files: Files, plan: Plan, tally: Tally, told: Callable[[str, int], None]
    ) -> None:
        """`told` is called with what was brought in and how many more of it."""
        self._db = db
        self._source = source
        self._files = files
        self._plan = plan
        self._tally = tally
        self._told = told
        self._run_uris: dict[str, str] = {}
        self._model_uris: dict[str, uuid.UUID] = {}

    async def run(self, caller: Caller) -> None:
        """All of it, in turn."""
        experiments = await asyncio.to_thread(self._source.experiments, self._plan.experiments)
        named = {each.name for each in experiments} | {each.source_id for each in experiments}
        for name in self._plan.experiments:
            if name not in named:
                self._tally.missing(f"experiment {name!r}", "the source has none of that name or id")
        for experiment in experiments:
            await self._experiment(caller, experiment)
        if not self._plan.experiments:
            models = self._source.registered_models(self._run_uris, self._model_uris)
            async for page in _in_thread(models, 10):
                for model in page:
                    if self._plan.dry_run:
                        of_it = {"versions": len(model.versions), "aliases": len(model.aliases)}
                        self._tally.source.update({"registered models": 1, **of_it})
                    else:
                        await registry.bring_in(self._db, caller, model, self._tally)
                    self._told("registered models", 1)

    async def _experiment(self, caller: Caller, given: ImportedExperiment) -> None:
        what = f"experiment {given.name!r}"
        self._told(given.name, 0)
        self._tally.source["experiments"] += 1
        id_ = ExperimentId(-1)
        if not self._plan.dry_run:
            try:
                check_name(given.name)
                check_experiment_tags(given.tags)
            except InvalidArgument as error:
                self._tally.missing(what, error)
                return
            location = self._location(given)
            async with self._db.transaction() as conn:
                id_, there = await imports.experiment(
                    conn, caller.workspace_id, replace(given, artifact_location=location)
                )
            if there != location:
                kept = f"is here already, with its files in {there or 'the store'}, and not where --artifacts says"
                self._tally.missing(what, kept)
            self._tally.here["experiments"] += 1
        async for runs in _in_thread(self._source.runs(given.source_id), _PAGE):
            await self._runs(RunRef(caller.workspace_id, id_, runs[0].id), caller, runs)
        async for models in _in_thread(self._source.logged_models(given.source_id), _PAGE):
            await self._models(caller, id_, models)

    def _location(self, given: ImportedExperiment) -> str:
        """Where the files of the experiment's runs are from now on; empty: in our store."""
        what, location = f"files of experiment {given.name!r}", given.artifact_location
        if self._plan.files is FilesMode.COPY and is_elsewhere(location):
            self._tally.note(f"{what}: {location} is not on this machine, so if there are any, they were not copied")
        if self._plan.files is not FilesMode.REFERENCE:
            return ""
        if is_served(location):
            self._tally.missing(what, f"{location} means something to its own server only; --artifacts copy brings it")
            return ""
        return location

    async def _runs(self, place: RunRef, caller: Caller, runs: Sequence[ImportedRun]) -> None:
        ids = [run.id for run in runs]
        async with self._db.connection() as conn:
            found = await imports.arrivals(conn, caller.workspace_id, ids)
        room = asyncio.Semaphore(_AT_ONCE)
        counted: dict[str, int] = {"points": 0, "files": 0}

        async def one(run: ImportedRun) -> None:
            async with room:
                points, files = await self._run(
                    RunRef(place.workspace_id, place.experiment_id, run.id), caller, run, found[run.id]
                )
            counted["points"] += points
            counted["files"] += files
            self._told("runs", 1)

        for run in runs:
            if run.id.hex != run.source_id.lower():
                self._tally.note(f"run {run.source_id} is {run.id.hex} here: ids are 32 hexadecimal digits")
        self._run_uris.update((run.source_id, run.artifact_uri) for run in runs)
        try:
            async with asyncio.TaskGroup() as group:
                for run in runs:
                    group.create_task(one(run))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        source = {
            "runs": len(runs),
            "params": sum(len(run.params) for run in runs),
            "tags": sum(len(run.tags) for run in runs),
            "metrics": sum(len(run.metrics) for run in runs),
            "inputs": sum(len({(each.dataset.name, each.dataset.digest) for each in run.inputs}) for run in runs),
            **counted,
        }
        ours = [run.id for run in runs if found[run.id][0] is not Arrival.ANOTHER]
        await self._compare(f"runs {runs[0].source_id} to {runs[-1].source_id}", source, ours)

    async def _compare(self, where: str, source: dict[str, int], ids: Sequence[uuid.UUID]) -> None:
        if self._plan.dry_run:
            self._tally.source.update(source)
            return
        async with self._db.connection() as conn:
            here = await imports.counts(conn, ids)
        here["logged models"] = here.pop("models")
        self._tally.compare(where, source, here)

    async def _run(self, ref: RunRef, caller: Caller, run: ImportedRun, found: _Found) -> tuple[int, int]:
        """Brings in what is not here of a run: how many points and files the source has."""
        arrival, points, files = found
        what = f"run {run.source_id}"
        if arrival is Arrival.ANOTHER:
            self._tally.missing(what, "something of that id is here that was not imported, or it was removed for good")
            return 0, 0
        if self._plan.dry_run:
            return points, files
        if arrival is Arrival.NOTHING:
            histories = [(name, await asyncio.to_thread(self._source.history, run, name)) for name in run.metrics]
            points = sum(len(columns) for _, columns in histories)
            kept, storable = self._storable(what, run, histories)
            async with self._db.transaction() as conn:
                await imports.add_run(conn, ref, kept, self._plan.source, points)
                await imports.add_metrics(conn, ref, storable)
                if kept.inputs:
                    await datasets.add_inputs(conn, ref, kept.inputs)
                if kept.models:
                    await datasets.put_models(conn, ref, list(map(ModelOutput, kept.models)), output=False)
                if kept.outputs:
                    await datasets.put_models(conn, ref, kept.outputs, output=True)
                await changes.notify_run(conn, ref)
        if arrival is not Arrival.WHOLE:
            files = await self._finish(caller, of_run(run.id), run.artifact_uri, run.lifecycle)
        return points, files

    async def _finish(self, caller: Caller, owner: Owner, uri: str, lifecycle: Lifecycle = Lifecycle.ACTIVE) -> int:
        """Copies the files of a run or a logged model, if that is wanted, and marks it whole: how many there are."""
        count: int | None = 0
        if self._plan.files is FilesMode.COPY and uri:
            if lifecycle is Lifecycle.DELETED:  # by an import without files
                async with self._db.transaction() as conn:
                    await imports.reopen(conn, owner.id)
            count = await self._files.copy(caller, owner, uri)
        whole = count is not None and self._plan.files is not FilesMode.NONE
        async with self._db.transaction() as conn:
            await imports.done(conn, owner.id, count or 0, lifecycle, whole=whole)
        return count or 0

    async def _models(self, caller: Caller, id_: ExperimentId, models: Sequence[ImportedModel]) -> None:
        async with self._db.connection() as conn:
            found = await imports.arrivals(conn, caller.workspace_id, [model.id for model in models])
        files = 0
        for model in models:
            self._model_uris[model.artifact_uri] = model.id
            files += await self._model(caller, id_, model, found[model.id])
            self._told("logged models", 1)
        ours = [model.id for model in models if found[model.id][0] is not Arrival.ANOTHER]
        where = f"logged models {models[0].source_id} to {models[-1].source_id}"
        await self._compare(where, {"logged models": len(models), "files": files}, ours)

    async def _model(self, caller: Caller, id_: ExperimentId, model: ImportedModel, found: _Found) -> int:
        """Brings in what is not here of a logged model: how many files the source has."""
        arrival, _, files = found
        what = f"logged model {model.source_id}"
        if arrival is Arrival.ANOTHER:
            self._tally.missing(what, "something of that id is here that was not imported")
            return 0
        if self._plan.dry_run or arrival is Arrival.WHOLE:
            return files
        if arrival is Arrival.NOTHING:
            try:
                check_pairs("param", model.params)
                check_pairs("tag", model.tags)
            except InvalidArgument as error:
                self._tally.missing(what, error)
                return 0
            async with self._db.transaction() as conn:
                await imports.add_model(conn, caller.workspace_id, id_, model, self._plan.source)
        return await self._finish(caller, Owner(OwnerKind.LOGGED_MODEL, model.id), model.artifact_uri)

    def _storable(
        self, what: str, run: ImportedRun, histories: Sequence[tuple[str, Columns]]
    ) -> tuple[ImportedRun, list[tuple[str, Columns]]]:
        """A run and its points without what cannot be kept here, which is told."""
        kept = replace(
            run,
            params=self._good(what, run.params, check_params),
            tags=self._good(what, run.tags, check_tags),
            inputs=[each for each in run.inputs if self._checked(what, each.check)],
        )
        points = []
        for name, columns in histories:
            if self._checked(what, partial(check_key, "metric", name)):
                there = columns.take((columns.times_ms >= 0) & (columns.times_ms <= TIME_MS_MAX))
                if len(there) < len(columns):
                    self._tally.missing(what, f"points of {name!r} have times before 1970")
                if len(there):
                    points.append((name, there))
        return replace(kept, metrics=[name for name, _ in points]), points

    def _good(
        self, what: str, pairs: dict[str, str], check: Callable[[dict[str, str]], dict[str, str]]
    ) -> dict[str, str]:
        return {key: value for key, value in pairs.items() if self._checked(what, partial(check, {key: value}))}

    def _checked(self, what: str, check: Callable[[], object]) -> bool:
        try:
            check()
        except InvalidArgument as error:
            self._tally.missing(what, error)
            return False
        return True


async def _in_thread(items: Iterator[_T], size: int) -> AsyncIterator[list[_T]]:
    """So many of them at a time, read in a thread."""
    while page := await asyncio.to_thread(lambda: list(islice(items, size))):
        yield page
