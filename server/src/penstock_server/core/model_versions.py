"""The use cases of versions of registered models, and of the stages and aliases that say which is which."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

from penstock_server.core import model_sources
from penstock_server.model import pages, search
from penstock_server.model.access import Caller
from penstock_server.model.errors import FailedPrecondition, InvalidArgument
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.limits import check_text
from penstock_server.model.registry import (
    DESCRIPTION_LIMIT,
    LINK_LIMIT,
    MESSAGE_LIMIT,
    Happening,
    ModelRef,
    ModelVersion,
    NewVersion,
    Ref,
    Stage,
    VersionStatus,
    check_alias,
    check_alias_form,
    check_all_tags,
    check_keys,
    check_name,
    check_tags,
    check_version,
)
from penstock_server.model.runs import REQUEST_ID_LIMIT, RunId
from penstock_server.model.search_tree import Query
from penstock_server.postgres import model_sources as sources
from penstock_server.postgres import model_versions, registry, registry_events
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search_registry import search_versions


class ModelVersions:
    """Makes, finds and changes versions. Everything may raise InvalidArgument, NotFound and Unavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, caller: Caller, new: NewVersion) -> ModelVersion:
        """Makes the next version of a model, or returns the one that the same request id made before.

        Raises NotFound of the model, the run, the artifact, or what the source refers to; NotActive of the run.
        """
        check_name(new.name)
        check_text("description", new.description, DESCRIPTION_LIMIT)
        check_tags(new.tags)
        check_text("request_id", new.request_id, REQUEST_ID_LIMIT)
        check_text("run_link", new.run_link, LINK_LIMIT)
        new = model_sources.read(new)
        async with self._db.waiting() as conn:
            if made := await _made_before(conn, caller, new):
                return made
            model, happened = await _lock_or_add(conn, caller, new)
            if made := await _made_before(conn, caller, new):  # by another in the meantime
                return made
            new = await model_sources.hold(conn, caller, new)
            number, added = await model_versions.add(conn, caller, model, new)
            happened += added
            if new.tags:
                version = await model_versions.load_one(conn, model, number)
                happened += await model_versions.put_tags(conn, model.workspace_id, version, new.tags)
            return await _record(conn, caller, model, number, happened)

    async def get(self, caller: Caller, name: str, version: int) -> ModelVersion:
        """One version by its number."""
        return await self.resolve(caller, Ref(check_name(name), version=check_version(version)))

    async def resolve(self, caller: Caller, ref: Ref) -> ModelVersion:
        """The version that is meant."""
        async with self._db.connection() as conn:
            return await model_sources.resolve(conn, caller.workspace_id, ref)

    async def home(
        self, caller: Caller, run_id: RunId | None, logged_model_id: uuid.UUID | None
    ) -> tuple[ExperimentId, str] | None:
        """The experiment of a logged model, if one is told, or of a run, and its artifact_location; None when unknown.

        That is where the files are of a version whose source is one of them.
        """
        if run_id is None and logged_model_id is None:
            return None
        async with self._db.connection() as conn:
            return await sources.home(conn, caller.workspace_id, run_id, logged_model_id)

    async def latest(self, caller: Caller, name: str, stages: Collection[Stage] = ()) -> list[ModelVersion]:
        """The newest version in each of these stages (none: in each), sorted by stage."""
        check_name(name)
        async with self._db.connection() as conn:
            model = await registry.locate(conn, caller.workspace_id, name)
            found = await model_versions.latest(conn, caller.workspace_id, [model.model_id])
        return [version for version in found if not stages or version.stage in stages]

    async def search(
        self,
        caller: Caller,
        *,
        filter: str = "",  # noqa: A002  # as the protocol calls it
        order_by: Sequence[str] = (),
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[ModelVersion], str]:
        """One page of those that a filter selects, and the next's token. Raises InvalidFilter, InvalidPageToken."""
        query = search.parse_versions(filter, order_by)
        return await self.find(caller, query, page_size=page_size, page_token=page_token)

    async def find(
        self, caller: Caller, query: Query, *, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[ModelVersion], str]:
        """One page of those that `query` selects, and the next's token. Raises InvalidPageToken."""
        limit = pages.check_size(page_size)
        async with self._db.transaction(snapshot=True, read_only=True) as conn:
            ids, token = await search_versions(conn, caller.workspace_id, query, limit, page_token)
            return await model_versions.load(conn, caller.workspace_id, ids), token

    async def update(
        self,
        caller: Caller,
        name: str,
        version: int,
        description: str | None = None,
        status: VersionStatus | None = None,
        status_message: str | None = None,
    ) -> ModelVersion:
        """Changes what is not None. Raises FailedPrecondition when it is to be pending again, NotActive of its run.

        One that is to be ready needs its artifact.
        """
        check_name(name)
        check_version(version)
        if description is not None:
            check_text("description", description, DESCRIPTION_LIMIT)
        if status_message is not None:
            check_text("status_message", status_message, MESSAGE_LIMIT)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            old = await model_versions.load_one(conn, model, version)
            if status is VersionStatus.READY and old.status is not status:
                await model_sources.hold_bytes(conn, caller, old)
            status = old.status if status is None else status
            if status is VersionStatus.PENDING and old.status is not VersionStatus.PENDING:
                raise FailedPrecondition(f"{name} version {version} is {old.status.label} and never pending again")
            happened = await model_versions.update(
                conn,
                old,
                old.description if description is None else description,
                status,
                old.status_message if status_message is None else status_message,
            )
            return await _record(conn, caller, model, version, happened)

    async def delete(self, caller: Caller, name: str, version: int) -> None:
        """Removes a version with its tags and aliases; what asks for its promotion becomes void."""
        check_name(name)
        check_version(version)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            happened = await model_versions.delete(conn, model, version)
            await registry_events.add(conn, caller, model.model_id, name, happened)

    async def set_tags(self, caller: Caller, name: str, version: int, tags: dict[str, str]) -> None:
        """Sets tags of a version, replacing those of the same key."""
        check_name(name)
        check_version(version)
        check_tags(tags)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            old = await model_versions.load_one(conn, model, version)
            check_all_tags({**old.tags, **tags})
            happened = await model_versions.put_tags(conn, model.workspace_id, old, tags)
            await registry_events.add(conn, caller, model.model_id, name, happened)

    async def delete_tags(self, caller: Caller, name: str, version: int, keys: Sequence[str]) -> None:
        """Removes tags of a version; none when one of them is not there."""
        check_name(name)
        check_version(version)
        check_keys(keys)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            old = await model_versions.load_one(conn, model, version)
            happened = await model_versions.drop_tags(conn, old, keys)
            await registry_events.add(conn, caller, model.model_id, name, happened)

    async def move_stage(
        self, caller: Caller, name: str, version: int, stage: Stage, *, archive_others: bool = False
    ) -> ModelVersion:
        """Brings a version into a stage, and archives the others there if asked to. Raises Guarded."""
        check_name(name)
        check_version(version)
        if archive_others and stage not in (Stage.STAGING, Stage.PRODUCTION):
            raise InvalidArgument("archive_others", f"goes with Staging and Production, not with {stage.label}")
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            old = await model_versions.load_one(conn, model, version)
            if old.stage is not stage:
                await registry.check_unguarded(conn, model, stage.label)
            happened = await model_versions.move_stage(conn, model, old, stage, archive_others=archive_others)
            return await _record(conn, caller, model, version, happened)

    async def set_alias(self, caller: Caller, name: str, alias: str, version: int, expected: int | None = None) -> int:
        """Has an alias name a version: the one that it named before, 0 for none. Raises Guarded.

        Raises AliasMoved when it does not name `expected` (0: none; None: whatever it names).
        """
        check_name(name)
        check_alias(alias)
        check_version(version)
        _check_expected(expected)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            await registry.check_unguarded(conn, model, f"@{alias}")
            wanted = await model_versions.load_one(conn, model, version)
            previous, happened = await model_versions.move_alias(conn, caller, model, alias, wanted, expected)
            await registry_events.add(conn, caller, model.model_id, name, happened)
            return previous

    async def delete_alias(self, caller: Caller, name: str, alias: str, expected: int | None = None) -> int:
        """Has an alias name nothing: the version that it named. Raises AliasMoved as `set_alias` does."""
        check_name(name)
        check_alias_form(alias)
        _check_expected(expected)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            previous, happened = await model_versions.drop_alias(conn, model, alias, expected)
            await registry_events.add(conn, caller, model.model_id, name, happened)
            return previous


def _check_expected(expected: int | None) -> None:
    if expected:
        check_version(expected, "expected")


async def _made_before(conn: Connection, caller: Caller, new: NewVersion) -> ModelVersion | None:
    """The version that an earlier request with the same id made, whatever its model is called by now."""
    if not new.request_id:
        return None
    made = await model_versions.requested(conn, caller.workspace_id, new.request_id)
    found = [] if made is None else await model_versions.load(conn, caller.workspace_id, [made])
    return found[0] if found else None


async def _lock_or_add(conn: Connection, caller: Caller, new: NewVersion) -> tuple[ModelRef, list[Happening]]:
    """The model, locked; made when there is none and that is wanted. Raises NotFound."""
    if new.create_model and (made := await registry.add(conn, caller, new.name)):
        return made
    return await registry.lock(conn, caller.workspace_id, new.name), []


async def _record(
    conn: Connection, caller: Caller, model: ModelRef, version: int, happened: Sequence[Happening]
) -> ModelVersion:
    """Writes the history; the version as it is then."""
    await registry_events.add(conn, caller, model.model_id, model.name, happened)
    return await model_versions.load_one(conn, model, version)
