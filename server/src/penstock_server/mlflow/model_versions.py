"""Versions of registered models, as MLflow's clients know them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from penstock_server.core.model_versions import ModelVersions
from penstock_server.mlflow import pages, prompts, version_sources
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.mlflow.errors import invalid
from penstock_server.mlflow.experiments import pairs
from penstock_server.model.access import Caller, Permission, Resource
from penstock_server.model.errors import NotFound
from penstock_server.model.logged_models import format_model_id
from penstock_server.model.metrics import check_key
from penstock_server.model.pages import SIZE_LIMIT
from penstock_server.model.registry import (
    VERSION_MAX,
    ModelVersion,
    Stage,
    VersionStatus,
    is_of_run,
    parse_logged_model_source,
)
from penstock_server.model.runs import format_run_id

_HERE = "2.0/mlflow/model-versions"
_PAGE = 10_000
_PAGE_LIMIT = 200_000
_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,100}\s*")
_STATUS = {
    VersionStatus.PENDING: "PENDING_REGISTRATION",
    VersionStatus.READY: "READY",
    VersionStatus.FAILED: "FAILED_REGISTRATION",
}


class ModelVersionEndpoints:
    """The endpoints of versions."""

    def __init__(self, versions: ModelVersions) -> None:
        self._versions = versions

    def __iter__(self) -> Iterator[Endpoint]:
        read, write, model = Permission.READ, Permission.WRITE, (Resource.REGISTERED_MODEL, "name")
        yield Endpoint("POST", f"{_HERE}/create", self._create, write, *model)
        yield Endpoint("GET", f"{_HERE}/get", self._get, read, *model)
        yield Endpoint("PATCH", f"{_HERE}/update", self._update, write, *model)
        yield Endpoint("POST", f"{_HERE}/transition-stage", self._move, write, *model)
        yield Endpoint("DELETE", f"{_HERE}/delete", self._delete, write, *model)
        yield Endpoint("GET", f"{_HERE}/search", self._search, read)
        yield Endpoint("GET", f"{_HERE}/get-download-uri", self._location, read, *model)
        yield Endpoint("POST", f"{_HERE}/set-tag", self._set_tag, write, *model)
        yield Endpoint("DELETE", f"{_HERE}/delete-tag", self._delete_tag, write, *model)

    async def _create(self, caller: Caller, arguments: Arguments) -> Answer:
        new = await version_sources.read(caller, arguments, self._versions)
        return {"model_version": shown(await self._versions.create(caller, new))}

    async def _get(self, caller: Caller, arguments: Arguments) -> Answer:
        return {"model_version": shown(await self._one(caller, arguments))}

    async def _update(self, caller: Caller, arguments: Arguments) -> Answer:
        name = arguments.required("name")
        description = arguments.text("description")
        changed = await self._versions.update(caller, name, number(arguments, name), description)
        return {"model_version": shown(changed)}

    async def _move(self, caller: Caller, arguments: Arguments) -> Answer:
        name = arguments.required("name")
        to = stage(arguments.required("stage"))
        archive = arguments.flag("archive_existing_versions")
        moved = await self._versions.move_stage(caller, name, number(arguments, name), to, archive_others=archive)
        return {"model_version": shown(moved)}

    async def _delete(self, caller: Caller, arguments: Arguments) -> Answer:
        name = arguments.required("name")
        await self._versions.delete(caller, name, number(arguments, name))
        return {}

    async def _search(self, caller: Caller, arguments: Arguments) -> Answer:
        query = prompts.versions(arguments.text("filter"), arguments.texts("order_by"))
        size = min(pages.size(arguments, _PAGE, _PAGE_LIMIT), SIZE_LIMIT)
        found, token = await self._versions.find(caller, query, page_size=size, page_token=arguments.text("page_token"))
        return pages.page("model_versions", map(shown, found), token)

    async def _location(self, caller: Caller, arguments: Arguments) -> Answer:
        version = await self._one(caller, arguments)
        of_run = version.run_id if is_of_run(version.source) else None
        home = await self._versions.home(caller, of_run, parse_logged_model_source(version.source))
        return {"artifact_uri": version_sources.location(version, home)}

    async def _set_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        name, key = arguments.required("name"), check_key("tag key", arguments.required("key"))
        await self._versions.set_tags(caller, name, number(arguments, name), {key: arguments.text("value")})
        return {}

    async def _delete_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        name, key = arguments.required("name"), check_key("tag key", arguments.required("key"))
        with absent_is_deleted("tag"):
            await self._versions.delete_tags(caller, name, number(arguments, name), [key])
        return {}

    async def _one(self, caller: Caller, arguments: Arguments) -> ModelVersion:
        name = arguments.required("name")
        return await self._versions.get(caller, name, number(arguments, name))


def shown(version: ModelVersion) -> dict[str, Any]:
    """A version as it goes out."""
    answer: dict[str, Any] = {
        "name": version.name,
        "version": str(version.version),
        "creation_timestamp": version.created_ms,
        "last_updated_timestamp": version.updated_ms,
        "current_stage": version.stage.label,
        "description": version.description,
        "source": version.given_source or version.source,
        "run_id": format_run_id(version.run_id) if version.run_id else "",
        "run_link": version.run_link,
        "status": _STATUS[version.status],
    }
    if version.status_message:
        answer["status_message"] = version.status_message
    if version.logged_model_id is not None:
        answer["model_id"] = format_model_id(version.logged_model_id)
    if version.tags:
        answer["tags"] = pairs(version.tags)
    if version.aliases:
        answer["aliases"] = version.aliases
    return answer


def number(arguments: Arguments, name: str) -> int:
    """The number of the version that a request is about, which MLflow has as text. Raises MlflowError, NotFound."""
    text = arguments.required("version")
    if not _NUMBER.fullmatch(text):
        raise invalid(f"Parameter 'version' must be an integer, got '{text[:256]}'.")
    found = int(text)
    if not 1 <= found <= VERSION_MAX:
        raise NotFound("model version", f"{name}/{found}")
    return found


def stage(text: str) -> Stage:
    """A stage by its name, in any case. Raises MlflowError."""
    found = Stage.called(text)
    if found is None:
        labels = ", ".join(each.label for each in Stage)
        raise invalid(f"Invalid Model Version stage: {text[:256]}. Value must be one of {labels}.")
    return found


@contextmanager
def absent_is_deleted(kind: str) -> Iterator[None]:
    """That there is no such alias or tag is no error to one who deletes it."""
    try:
        yield
    except NotFound as error:
        if error.kind != kind:
            raise
