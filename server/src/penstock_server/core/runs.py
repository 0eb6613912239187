"""The use cases of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from penstock_server.core import model_sources
from penstock_server.model import pages, search
from penstock_server.model.access import Caller
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ParamChanged
from penstock_server.model.experiments import DEFAULT_EXPERIMENT, ExperimentId
from penstock_server.model.experiments import check_name as check_experiment_name
from penstock_server.model.lifecycle import Lifecycle, View
from penstock_server.model.limits import check_text, check_time_ms
from penstock_server.model.metrics import KEY_LIMIT
from penstock_server.model.runs import (
    COMMIT_LIMIT,
    NAME_LIMIT,
    REQUEST_ID_LIMIT,
    SOURCE_LIMIT,
    USER_LIMIT,
    NewRun,
    Run,
    RunId,
    RunStatus,
    check_params,
    check_tags,
    format_run_id,
    made_up_name,
    new_run_id,
)
from penstock_server.model.search_tree import Query
from penstock_server.postgres import changes, experiments, metrics, runs
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search import search_runs


class Runs:
    """Makes, finds and changes runs. Everything may raise InvalidArgument and Unavailable."""

    def __init__(self, db: Database, run_ended: Callable[[RunId], None]) -> None:
        """`run_ended` is told of each run that gets a status of an end, after that is committed."""
        self._db = db
        self._run_ended = run_ended

    async def create(self, caller: Caller, new: NewRun) -> Run:
        """Makes a run, or returns the one that the same run id or request id made before, as it stands.

        Raises NotFound and NotActive of its experiment, NotFound of its parent, AlreadyExists when that run is in
        another experiment than the one given by id, and FailedPrecondition when it was removed for good.
        """
        _check(new)
        run_id = new.run_id or new_run_id()
        new = replace(new, name=new.name or made_up_name())
        async with self._db.waiting() as conn:
            made = await _made_before(conn, caller, run_id, new)
            if made is None:
                ref = RunRef(caller.workspace_id, await _hold_experiment(conn, caller, new), run_id)
                if new.parent_run_id is not None:
                    await runs.locate(conn, caller.workspace_id, new.parent_run_id)
                if await runs.add(conn, ref, new):
                    await changes.notify_run(conn, ref)
                    made = run_id
                else:  # another made it in the meantime, and has committed it
                    made = await _made_before(conn, caller, run_id, new)
            if made is None and await runs.removed(conn, run_id):
                raise FailedPrecondition(f"run {format_run_id(run_id)} was removed for good; take another id")
            if made is None:
                raise AlreadyExists("run", format_run_id(run_id))
            run = await runs.load_one(conn, caller.workspace_id, made)
        # Who may write into the one experiment is not shown a run of another. A name is no such claim: it is looked up
        # in the workspace, and may be another by the time that a writer sends the same again.
        if new.experiment_id not in (None, run.experiment_id):
            raise AlreadyExists("run", format_run_id(made), "it is in another experiment")
        return run

    async def get(self, caller: Caller, run_id: RunId) -> Run:
        """One run with all there is of it, whatever its stage. Raises NotFound."""
        async with self._db.connection() as conn:
            return await runs.load_one(conn, caller.workspace_id, run_id)

    async def search(
        self,
        caller: Caller,
        *,
        experiment_ids: Sequence[ExperimentId] = (),
        experiment_names: Sequence[str] = (),
        filter: str = "",  # noqa: A002  # as the protocol calls it
        order_by: Sequence[str] = (),
        page_size: int = 0,
        page_token: str = "",
        view: View = View.ACTIVE,
        info_only: bool = False,
    ) -> tuple[list[Run], str]:
        """One page of those that a filter selects, and the token of the next.

        In these experiments, by id and by name; in all when there are neither. Unknown ones select nothing.
        Raises InvalidFilter, InvalidPageToken.
        """
        query = search.parse_runs(filter, order_by)
        limit = pages.check_size(page_size)
        for name in experiment_names:
            check_experiment_name(name)
        workspace_id = caller.workspace_id
        async with self._db.transaction(snapshot=True, read_only=True) as conn:
            within: list[ExperimentId] | None = list(experiment_ids)
            if experiment_names:
                within = sorted({*experiment_ids, *await experiments.named(conn, workspace_id, experiment_names)})
                if not within:
                    return [], ""
            ids, token = await search_runs(conn, workspace_id, within or None, query, view, limit, page_token)
            return await runs.load(conn, workspace_id, ids, info_only=info_only), token

    async def find(
        self,
        caller: Caller,
        query: Query,
        experiment_ids: Sequence[ExperimentId],
        *,
        page_size: int = 0,
        page_token: str = "",
        view: View = View.ACTIVE,
    ) -> tuple[list[RunId], str]:
        """One page of those that `query` selects in these experiments, and the token of the next.

        Raises InvalidPageToken.
        """
        limit = pages.check_size(page_size)
        async with self._db.transaction(snapshot=True, read_only=True) as conn:
            return await search_runs(conn, caller.workspace_id, experiment_ids, query, view, limit, page_token)

    async def load(self, caller: Caller, run_ids: Sequence[RunId]) -> list[tuple[Run, str]]:
        """These runs, in this order, without those that do not exist.

        Without their metrics; but with the last point of each as JSON, as metrics.last_points() has it, "" when there
        is none.
        """
        async with self._db.connection() as conn:
            found = await runs.load(conn, caller.workspace_id, run_ids, summaries=False)
            points = await metrics.last_points(conn, caller.workspace_id, run_ids)
        return [(run, points.get(run.id, "")) for run in found]

    async def update(
        self,
        caller: Caller,
        run_id: RunId,
        name: str | None = None,
        status: RunStatus | None = None,
        end_ms: int | None = None,
    ) -> Run:
        """Changes what is not None of an active run; returns its own fields. Raises NotFound, NotActive.

        A status of an end sets the end to now, unless the run has one or `end_ms` says otherwise; another status takes
        the end back.
        """
        if name is not None:
            check_text("name", name, NAME_LIMIT, empty=False)
        if end_ms is not None:
            check_time_ms("end_time_ms", end_ms)
        async with self._db.waiting() as conn:
            ref = await runs.lock_active(conn, caller.workspace_id, run_id)
            run = await runs.update(conn, ref, name, status, end_ms)
            await changes.notify_run(conn, ref)
        if status is not None and status.ended:
            self._run_ended(run_id)
        return run

    async def log_params(self, caller: Caller, run_id: RunId, params: dict[str, str]) -> None:
        """Records params of an active run; none of them when one has another value already.

        Raises NotFound, NotActive, ParamChanged.
        """
        check_params(params)
        async with self._db.waiting() as conn:
            ref = await runs.lock_active(conn, caller.workspace_id, run_id)
            recorded = await runs.add_params(conn, ref, params)
            for key, value in params.items():
                if recorded[key] != value:
                    raise ParamChanged(key, recorded[key], value)
            await changes.notify_run(conn, ref)

    async def set_tags(self, caller: Caller, run_id: RunId, tags: dict[str, str]) -> None:
        """Sets tags of an active run, replacing those of the same key. Raises NotFound, NotActive."""
        check_tags(tags)
        async with self._db.waiting() as conn:
            ref = await runs.lock_active(conn, caller.workspace_id, run_id)
            await runs.put_tags(conn, ref, tags)
            await changes.notify_run(conn, ref)

    async def change_tag(self, caller: Caller, run_id: RunId, key: str, change: Callable[[str | None], str]) -> None:
        """Sets a tag of an active run to what `change` makes of its value, None when it is not there.

        Raises NotFound, NotActive.
        """
        async with self._db.waiting() as conn:
            ref = await runs.lock_active(conn, caller.workspace_id, run_id)
            value = change(await runs.tag(conn, ref, key))
            await runs.put_tags(conn, ref, check_tags({key: value}))
            await changes.notify_run(conn, ref)

    async def delete_tags(self, caller: Caller, run_id: RunId, keys: Sequence[str]) -> None:
        """Removes tags of an active run; none when one of them is not there. Raises NotFound, NotActive."""
        for key in keys:
            check_text("tag key", key, KEY_LIMIT, empty=False)
        async with self._db.waiting() as conn:
            ref = await runs.lock_active(conn, caller.workspace_id, run_id)
            await runs.drop_tags(conn, ref, keys)
            await changes.notify_run(conn, ref)

    async def delete(self, caller: Caller, run_id: RunId, *, force: bool = False) -> None:
        """Marks a run deleted; it refuses logging from now on. Deleting twice is fine. Raises NotFound.

        Raises FailedPrecondition when versions of models stand on it, unless `force`.
        """
        async with self._db.waiting() as conn:
            if force:
                await model_sources.lock_models_of_run(conn, caller, run_id)
            ref = await runs.locate(conn, caller.workspace_id, run_id)
            if await runs.set_lifecycle(conn, ref, Lifecycle.DELETED):
                await model_sources.leave_run(conn, caller, run_id, force=force)
                await changes.notify_run(conn, ref)

    async def restore(self, caller: Caller, run_id: RunId) -> None:
        """Takes a deletion back. Restoring twice is fine. Raises NotFound, and NotActive of its experiment."""
        async with self._db.waiting() as conn:
            ref = await runs.locate(conn, caller.workspace_id, run_id)
            await experiments.hold_active(conn, caller.workspace_id, ref.experiment_id)
            if await runs.set_lifecycle(conn, ref, Lifecycle.ACTIVE):
                await changes.notify_run(conn, ref)


async def _made_before(conn: Connection, caller: Caller, run_id: RunId, new: NewRun) -> RunId | None:
    """The run that an earlier request with the same id or request id made. Raises AlreadyExists."""
    if new.run_id is None and not new.request_id:
        return None
    made = await runs.made(conn, caller.workspace_id, run_id, new.request_id)
    if made is None:
        return None
    made_id, ours = made
    if not ours:
        raise AlreadyExists("run", format_run_id(run_id), "take another id")
    return made_id


async def _hold_experiment(conn: Connection, caller: Caller, new: NewRun) -> ExperimentId:
    """The new run's experiment, kept active until the transaction ends; made when it is named and there is none."""
    if not new.experiment_name:
        experiment_id = DEFAULT_EXPERIMENT if new.experiment_id is None else new.experiment_id
    else:
        found = await experiments.named(conn, caller.workspace_id, [new.experiment_name])
        if not found:
            made = await experiments.add(conn, caller.workspace_id, new.experiment_name)
            # None: another made it in the meantime, and has committed it.
            found = [made] if made else await experiments.named(conn, caller.workspace_id, [new.experiment_name])
        if not found:
            raise NotFound("experiment", new.experiment_name)
        experiment_id = found[0]
    await experiments.hold_active(conn, caller.workspace_id, experiment_id)
    return experiment_id


def _check(new: NewRun) -> None:
    if new.experiment_name:
        check_experiment_name(new.experiment_name)
        if new.experiment_id is not None:
            raise InvalidArgument("experiment_name", "not together with experiment_id; give one of them")
    check_text("name", new.name, NAME_LIMIT)
    check_text("user", new.user, USER_LIMIT)
    check_text("source_name", new.source_name, SOURCE_LIMIT)
    check_text("git_commit", new.git_commit, COMMIT_LIMIT)
    check_text("request_id", new.request_id, REQUEST_ID_LIMIT)
    check_time_ms("start_time_ms", new.start_ms)
    check_params(new.params)
    check_tags(new.tags)
