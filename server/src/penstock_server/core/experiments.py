"""The use cases of experiments."""

from __future__ import annotations

from collections.abc import Sequence

from penstock_server.core import model_sources
from penstock_server.model import pages, search
from penstock_server.model.access import Caller
from penstock_server.model.errors import AlreadyExists, NotFound
from penstock_server.model.experiments import (
    LOCATION_LIMIT,
    TAG_KEY_LIMIT,
    Experiment,
    ExperimentId,
    check_name,
    check_tags,
)
from penstock_server.model.lifecycle import Lifecycle, View
from penstock_server.model.limits import check_text
from penstock_server.model.runs import REQUEST_ID_LIMIT
from penstock_server.model.search_tree import Query
from penstock_server.postgres import changes, experiments
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search import search_experiments


class Experiments:
    """Makes, finds and changes experiments. Everything may raise InvalidArgument and Unavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self,
        caller: Caller,
        name: str,
        tags: dict[str, str] | None = None,
        request_id: str = "",
        artifact_location: str = "",
    ) -> Experiment:
        """Makes an experiment, or returns the one that the same request id made before. Raises AlreadyExists."""
        check_name(name)
        check_tags(tags or {})
        check_text("request_id", request_id, REQUEST_ID_LIMIT)
        check_text("artifact_location", artifact_location, LOCATION_LIMIT)
        workspace_id = caller.workspace_id
        async with self._db.transaction() as conn:
            experiment_id = await experiments.add(conn, workspace_id, name, tags or {}, request_id, artifact_location)
            if experiment_id is None:
                experiment_id = await self._made_before(conn, caller, name, request_id)
            return await experiments.load_one(conn, workspace_id, experiment_id)

    async def _made_before(self, conn: Connection, caller: Caller, name: str, request_id: str) -> ExperimentId:
        if request_id:
            experiment_id = await experiments.requested(conn, caller.workspace_id, request_id)
            if experiment_id is not None:
                return experiment_id
        taken = await experiments.load(
            conn, caller.workspace_id, await experiments.named(conn, caller.workspace_id, [name])
        )
        deleted = any(experiment.lifecycle is Lifecycle.DELETED for experiment in taken)
        raise AlreadyExists("experiment", name, "it is deleted: restore it, or take another name" if deleted else "")

    async def get(self, caller: Caller, experiment_id: ExperimentId) -> Experiment:
        """One experiment, whatever its stage. Raises NotFound."""
        async with self._db.connection() as conn:
            return await experiments.load_one(conn, caller.workspace_id, experiment_id)

    async def get_by_name(self, caller: Caller, name: str) -> Experiment:
        """One experiment by its exact name, whatever its stage. Raises NotFound."""
        check_name(name)
        async with self._db.connection() as conn:
            ids = await experiments.named(conn, caller.workspace_id, [name])
            found = await experiments.load(conn, caller.workspace_id, ids)
        if not found:
            raise NotFound("experiment", name)
        return found[0]

    async def search(
        self,
        caller: Caller,
        *,
        filter: str = "",  # noqa: A002  # as the protocol calls it
        order_by: Sequence[str] = (),
        page_size: int = 0,
        page_token: str = "",
        view: View = View.ACTIVE,
    ) -> tuple[list[Experiment], str]:
        """One page of those that a filter selects, and the next's token. Raises InvalidFilter, InvalidPageToken."""
        query = search.parse_experiments(filter, order_by)
        return await self.find(caller, query, page_size=page_size, page_token=page_token, view=view)

    async def find(
        self, caller: Caller, query: Query, *, page_size: int = 0, page_token: str = "", view: View = View.ACTIVE
    ) -> tuple[list[Experiment], str]:
        """One page of those that `query` selects, and the next's token. Raises InvalidPageToken."""
        limit = pages.check_size(page_size)
        async with self._db.transaction(snapshot=True, read_only=True) as conn:
            ids, token = await search_experiments(conn, caller.workspace_id, query, view, limit, page_token)
            return await experiments.load(conn, caller.workspace_id, ids), token

    async def rename(self, caller: Caller, experiment_id: ExperimentId, name: str) -> Experiment:
        """Renames an active experiment. Raises NotFound, NotActive, AlreadyExists."""
        check_name(name)
        async with self._db.transaction() as conn:
            await experiments.lock_active(conn, caller.workspace_id, experiment_id)
            await experiments.rename(conn, caller.workspace_id, experiment_id, name)
            return await experiments.load_one(conn, caller.workspace_id, experiment_id)

    async def set_tags(self, caller: Caller, experiment_id: ExperimentId, tags: dict[str, str]) -> None:
        """Sets tags of an active experiment, replacing those of the same key. Raises NotFound, NotActive."""
        check_tags(tags)
        async with self._db.transaction() as conn:
            await experiments.lock_active(conn, caller.workspace_id, experiment_id)
            if tags:
                await experiments.put_tags(conn, caller.workspace_id, experiment_id, tags)

    async def delete_tags(self, caller: Caller, experiment_id: ExperimentId, keys: Sequence[str]) -> None:
        """Removes tags of an active experiment; none when one of them is not there. Raises NotFound, NotActive."""
        for key in keys:
            check_text("tag key", key, TAG_KEY_LIMIT, empty=False)
        async with self._db.transaction() as conn:
            await experiments.lock_active(conn, caller.workspace_id, experiment_id)
            if keys:
                await experiments.drop_tags(conn, caller.workspace_id, experiment_id, keys)

    async def delete(self, caller: Caller, experiment_id: ExperimentId, *, force: bool = False) -> bool:
        """Marks an experiment and its runs deleted. Whether it was active: deleting twice is fine. Raises NotFound.

        Raises FailedPrecondition when versions of models stand on one of the runs, unless `force`.
        """
        async with self._db.waiting() as conn:
            if force:
                await model_sources.lock_models_of_experiment(conn, caller, experiment_id)
            deleted = await experiments.set_lifecycle(conn, caller.workspace_id, experiment_id, Lifecycle.DELETED)
            if deleted:
                await model_sources.leave_experiment(conn, caller, experiment_id, force=force)
                await changes.notify_experiment(conn, caller.workspace_id, experiment_id)
            return deleted

    async def restore(self, caller: Caller, experiment_id: ExperimentId) -> bool:
        """Takes a deletion back, for all runs of the experiment too. Whether it was deleted. Raises NotFound."""
        async with self._db.transaction() as conn:
            restored = await experiments.set_lifecycle(conn, caller.workspace_id, experiment_id, Lifecycle.ACTIVE)
            if restored:
                await changes.notify_experiment(conn, caller.workspace_id, experiment_id)
            return restored
