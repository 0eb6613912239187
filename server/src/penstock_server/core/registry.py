"""The use cases of registered models."""

from __future__ import annotations

from collections.abc import Sequence

from penstock_server.model import pages, search
from penstock_server.model.access import Caller
from penstock_server.model.errors import AlreadyExists, FailedPrecondition
from penstock_server.model.limits import check_text
from penstock_server.model.registry import (
    DESCRIPTION_LIMIT,
    RegisteredModel,
    check_all_tags,
    check_keys,
    check_name,
    check_tags,
)
from penstock_server.model.runs import REQUEST_ID_LIMIT
from penstock_server.model.search_tree import Query
from penstock_server.postgres import registry, registry_events
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search_registry import search_models


class Registry:
    """Makes, finds and changes registered models. Everything may raise InvalidArgument and Unavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self,
        caller: Caller,
        name: str,
        description: str = "",
        tags: dict[str, str] | None = None,
        request_id: str = "",
    ) -> RegisteredModel:
        """Makes a model, or returns the one that the same request id made before. Raises AlreadyExists."""
        check_name(name)
        check_text("description", description, DESCRIPTION_LIMIT)
        check_tags(tags or {})
        check_text("request_id", request_id, REQUEST_ID_LIMIT)
        async with self._db.waiting() as conn:
            made = await registry.add(conn, caller, name, description, request_id)
            if made is None:
                return await _made_before(conn, caller, name, request_id)
            model, happened = made
            happened += await registry.put_tags(conn, model, tags or {})
            await registry_events.add(conn, caller, model.model_id, name, happened)
            return await registry.load_one(conn, caller.workspace_id, name)

    async def get(self, caller: Caller, name: str) -> RegisteredModel:
        """One model by its name. Raises NotFound."""
        check_name(name)
        async with self._db.connection() as conn:
            return await registry.load_one(conn, caller.workspace_id, name)

    async def search(
        self,
        caller: Caller,
        *,
        filter: str = "",  # noqa: A002  # as the protocol calls it
        order_by: Sequence[str] = (),
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[RegisteredModel], str]:
        """One page of those that a filter selects, and the next's token. Raises InvalidFilter, InvalidPageToken."""
        query = search.parse_models(filter, order_by)
        return await self.find(caller, query, page_size=page_size, page_token=page_token)

    async def find(
        self, caller: Caller, query: Query, *, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[RegisteredModel], str]:
        """One page of those that `query` selects, and the next's token. Raises InvalidPageToken."""
        limit = pages.check_size(page_size)
        async with self._db.transaction(snapshot=True, read_only=True) as conn:
            ids, token = await search_models(conn, caller.workspace_id, query, limit, page_token)
            return await registry.load(conn, caller.workspace_id, ids), token

    async def update(
        self, caller: Caller, name: str, new_name: str | None = None, description: str | None = None
    ) -> RegisteredModel:
        """Renames a model with all it has, or changes its description: what is not None.

        Raises NotFound, AlreadyExists; FailedPrecondition when one that policies guard is to have another name.
        """
        check_name(name)
        if new_name is not None:
            check_name(new_name, "new_name")
        if description is not None:
            check_text("description", description, DESCRIPTION_LIMIT)
        async with self._db.waiting() as conn:
            model = await registry.lock_for_renaming(conn, caller.workspace_id, name, new_name or name)
            if new_name not in (None, name) and (guarded := await registry.guarded(conn, model)):
                # The policies would go along, and who follows the old name be sent to a model without any.
                raise FailedPrecondition(
                    f"{name!r} is guarded ({', '.join(guarded[:3])}{', …' if guarded[3:] else ''}): delete its policies"
                    " first, which takes PERMISSION_MANAGE, then rename it"
                )
            happened = await registry.update(conn, model, new_name, description)
            await registry_events.add(conn, caller, model.model_id, name, happened)
            return await registry.load_one(conn, caller.workspace_id, new_name or name)

    async def delete(self, caller: Caller, name: str) -> None:
        """Removes a model with all its versions. Raises NotFound."""
        check_name(name)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            happened = await registry.delete(conn, model)
            await registry_events.add(conn, caller, model.model_id, name, happened)

    async def set_tags(self, caller: Caller, name: str, tags: dict[str, str]) -> None:
        """Sets tags of a model, replacing those of the same key. Raises NotFound."""
        check_name(name)
        check_tags(tags)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            check_all_tags(tags, *await registry.tags_beside(conn, model, tags))
            happened = await registry.put_tags(conn, model, tags)
            await registry_events.add(conn, caller, model.model_id, name, happened)

    async def delete_tags(self, caller: Caller, name: str, keys: Sequence[str]) -> None:
        """Removes tags of a model; none when one of them is not there. Raises NotFound."""
        check_name(name)
        check_keys(keys)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            happened = await registry.drop_tags(conn, model, keys)
            await registry_events.add(conn, caller, model.model_id, name, happened)


async def _made_before(conn: Connection, caller: Caller, name: str, request_id: str) -> RegisteredModel:
    """The model that the same request id made. Raises AlreadyExists when it is the name that is taken."""
    if request_id:
        model_id = await registry.requested(conn, caller.workspace_id, request_id)
        if model_id is not None and (found := await registry.load(conn, caller.workspace_id, [model_id])):
            return found[0]
    raise AlreadyExists("registered model", name)
