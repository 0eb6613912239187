"""The use cases of logged models. Those of their files are core/artifacts.py and core/uploads.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from penstock_server.core import model_sources
from penstock_server.model import pages, search
from penstock_server.model.access import Caller
from penstock_server.model.errors import InvalidArgument, NotFound, ParamChanged
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.limits import check_text
from penstock_server.model.logged_models import (
    KEY_LIMIT,
    DatasetFilter,
    LoggedModel,
    LoggedModelId,
    LoggedModelStatus,
    ModelOrder,
    ModelPoint,
    NewLoggedModel,
    check_pairs,
    check_point,
    format_model_id,
    parse_model_id,
)
from penstock_server.model.runs import RunId, made_up_name
from penstock_server.model.search_tree import Entity, Field, Order, Type
from penstock_server.postgres import experiments, logged_models, runs
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search_logged_models import search_logged_models

# What the entries of a page may take in memory is limited in postgres/search_logged_models.py, too.
PAGE_LIMIT = 1_000


class LoggedModels:
    """Makes, finds and changes logged models. Everything may raise InvalidArgument and Unavailable.

    One that is deleted can still be changed, as whoever logs it may not know; it is not found any more.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, caller: Caller, new: NewLoggedModel) -> LoggedModel:
        """Makes a model whose files are still to come. Raises NotFound and NotActive of its experiment."""
        new.check()
        new = replace(new, name=new.name or made_up_name())
        async with self._db.waiting() as conn:
            await experiments.hold_active(conn, caller.workspace_id, new.experiment_id)
            model_id = await logged_models.add(conn, caller.workspace_id, new)
            return await _load_one(conn, caller, model_id)

    async def get(self, caller: Caller, model_id: LoggedModelId, *, deleted: bool = False) -> LoggedModel:
        """One model, also a deleted one if `deleted`. Raises NotFound."""
        async with self._db.connection() as conn:
            return await _load_one(conn, caller, model_id, deleted=deleted)

    async def search(
        self,
        caller: Caller,
        experiment_ids: Sequence[ExperimentId],
        *,
        filter: str = "",  # noqa: A002  # as the protocol calls it
        order_by: Sequence[ModelOrder] = (),
        datasets: Sequence[DatasetFilter] = (),
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[LoggedModel], str]:
        """One page of those in these experiments that a filter selects, and the token of the next.

        With `datasets` only metrics on these count, and models without any are left out. A page has 1,000 at most.
        Raises InvalidArgument, InvalidFilter, InvalidPageToken.
        """
        for dataset in (*datasets, *(each.dataset for each in order_by)):
            dataset.check()
        query = search.parse_logged_models(filter)
        order = _sorted_by(order_by)
        limit = min(pages.check_size(page_size), PAGE_LIMIT)
        if not experiment_ids:
            return [], ""
        async with self._db.transaction(snapshot=True, read_only=True) as conn:
            ids, token = await search_logged_models(
                conn, caller.workspace_id, experiment_ids, query.where, order, datasets, limit, page_token
            )
            return await logged_models.load(conn, caller.workspace_id, ids), token

    async def finalize(self, caller: Caller, model_id: LoggedModelId, status: LoggedModelStatus) -> LoggedModel:
        """Says whether a model's files are complete. Raises NotFound."""
        async with self._db.transaction() as conn:
            if not await logged_models.set_status(conn, caller.workspace_id, model_id, status):
                raise _missing(model_id)
            return await _load_one(conn, caller, model_id, deleted=True)

    async def delete(self, caller: Caller, model_id: LoggedModelId, *, force: bool = False) -> None:
        """Marks a model deleted, which cannot be taken back. Deleting twice is fine. Raises NotFound.

        Raises FailedPrecondition when versions of registered models stand on it, unless `force`.
        """
        async with self._db.waiting() as conn:
            if force:
                await model_sources.lock_models_of_logged_model(conn, caller, model_id)
            was_active = await logged_models.delete(conn, caller.workspace_id, model_id)
            if was_active is None:
                raise _missing(model_id)
            if was_active:
                await model_sources.leave_logged_model(conn, caller, model_id, force=force)

    async def set_tags(self, caller: Caller, model_id: LoggedModelId, tags: Mapping[str, str]) -> None:
        """Sets tags of a model, replacing those of the same key. Raises NotFound."""
        check_pairs("tag", tags)
        async with self._db.transaction() as conn:
            await _lock(conn, caller, model_id)
            await logged_models.put_tags(conn, model_id, tags)

    async def delete_tag(self, caller: Caller, model_id: LoggedModelId, key: str) -> None:
        """Removes a tag of a model. Raises NotFound, of the model or of the tag."""
        check_text("tag key", key, KEY_LIMIT)
        async with self._db.transaction() as conn:
            await _lock(conn, caller, model_id)
            if not await logged_models.drop_tag(conn, model_id, key):
                raise NotFound("tag", key, f"{format_model_id(model_id)} has none of that key")

    async def log_params(self, caller: Caller, model_id: LoggedModelId, params: Mapping[str, str]) -> None:
        """Records params of a model; none of them when one has another value already.

        Raises NotFound, ParamChanged.
        """
        check_pairs("param", params)
        async with self._db.transaction() as conn:
            await _lock(conn, caller, model_id)
            recorded = await logged_models.add_params(conn, model_id, params)
            for key, value in params.items():
                if recorded[key] != value:
                    raise ParamChanged(key, recorded[key], value)

    async def log_metrics(self, caller: Caller, run_id: RunId, points: Sequence[ModelPoint]) -> None:
        """Records points of models' metrics that an active run has measured; what is recorded already is so once.

        None of them is recorded when one is of a model that is not there, which raises InvalidArgument. Raises
        NotFound and NotActive of the run.
        """
        by_model: dict[LoggedModelId, list[ModelPoint]] = {}
        for point in points:
            check_point(point)
            model_id = parse_model_id(point.model_id)
            if model_id is None:
                raise _no_such(point.model_id)
            by_model.setdefault(model_id, []).append(point)
        async with self._db.transaction() as conn:
            await runs.locate_active(conn, caller.workspace_id, run_id)
            there = await logged_models.lock(conn, caller.workspace_id, list(by_model))
            for model_id in by_model:
                if model_id not in there:
                    raise _no_such(format_model_id(model_id))
            for model_id, own in by_model.items():
                await logged_models.add_metrics(conn, model_id, run_id, own)


def _sorted_by(order_by: Sequence[ModelOrder]) -> list[tuple[Order, DatasetFilter]]:
    """What logged models are sorted by, each field once. Raises InvalidArgument."""
    if len(order_by) > search.ORDER_LIMIT:
        raise InvalidArgument("order_by", f"has {len(order_by)} keys; the limit is {search.ORDER_LIMIT}")
    found: dict[tuple[Field, DatasetFilter], Order] = {}
    for each in order_by:
        word, _, key = check_text("order_by", each.field, KEY_LIMIT).partition(".")
        if word == "metrics" and key:
            subject = Field(Entity.METRIC, key, Type.NUMBER)
        else:
            name = search.LOGGED_MODELS.aliases.get(each.field, each.field)
            if name not in search.LOGGED_MODELS.attributes:
                raise InvalidArgument("order_by", f"{each.field!r} is neither an attribute nor metrics.<key>")
            subject = Field(Entity.ATTRIBUTE, name, search.LOGGED_MODELS.attributes[name])
        found.setdefault((subject, each.dataset), Order(subject, each.descending))
    return [(order, dataset) for (_, dataset), order in found.items()]


async def _load_one(conn: Connection, caller: Caller, model_id: LoggedModelId, *, deleted: bool = False) -> LoggedModel:
    found = await logged_models.load(conn, caller.workspace_id, [model_id], deleted=deleted)
    if not found:
        raise _missing(model_id)
    return found[0]


async def _lock(conn: Connection, caller: Caller, model_id: LoggedModelId) -> None:
    if not await logged_models.lock(conn, caller.workspace_id, [model_id]):
        raise _missing(model_id)


def _missing(model_id: LoggedModelId) -> NotFound:
    return NotFound("logged model", format_model_id(model_id))


def _no_such(model_id: str) -> InvalidArgument:
    return InvalidArgument("model_id", f"there is no logged model {model_id[:80]!r}")
