"""Registered models, as MLflow's clients know them, with the aliases and the newest versions that they lead to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock_server.core.model_versions import ModelVersions
from penstock_server.core.registry import Registry
from penstock_server.mlflow import model_versions, pages, prompts
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.mlflow.errors import invalid
from penstock_server.mlflow.experiments import pairs
from penstock_server.model.access import Caller, Permission, Resource
from penstock_server.model.errors import NotFound
from penstock_server.model.metrics import check_key
from penstock_server.model.registry import LATEST, Ref, RegisteredModel, check_alias, check_alias_form, check_name

_HERE = "2.0/mlflow/registered-models"
_PAGE = 100
_PAGE_LIMIT = 1_000


class RegisteredModelEndpoints:
    """The endpoints of registered models."""

    def __init__(self, registry: Registry, versions: ModelVersions) -> None:
        self._registry = registry
        self._versions = versions

    def __iter__(self) -> Iterator[Endpoint]:
        read, write, model = Permission.READ, Permission.WRITE, (Resource.REGISTERED_MODEL, "name")
        yield Endpoint("POST", f"{_HERE}/create", self._create, write)
        yield Endpoint("GET", f"{_HERE}/get", self._get, read, *model)
        yield Endpoint("POST", f"{_HERE}/rename", self._rename, write, *model)
        yield Endpoint("PATCH", f"{_HERE}/update", self._update, write, *model)
        yield Endpoint("DELETE", f"{_HERE}/delete", self._delete, write, *model)
        yield Endpoint("GET", f"{_HERE}/search", self._search, read)
        yield Endpoint("POST", f"{_HERE}/get-latest-versions", self._latest, read, *model)
        yield Endpoint("GET", f"{_HERE}/get-latest-versions", self._latest, read, *model)
        yield Endpoint("POST", f"{_HERE}/set-tag", self._set_tag, write, *model)
        yield Endpoint("DELETE", f"{_HERE}/delete-tag", self._delete_tag, write, *model)
        yield Endpoint("POST", f"{_HERE}/alias", self._set_alias, write, *model)
        yield Endpoint("GET", f"{_HERE}/alias", self._named, read, *model)
        yield Endpoint("DELETE", f"{_HERE}/alias", self._delete_alias, write, *model)

    async def _create(self, caller: Caller, arguments: Arguments) -> Answer:
        name, tags = arguments.required("name"), arguments.pairs("tags")
        for key in tags:
            check_key("tag key", key)
        made = await self._registry.create(caller, name, arguments.text("description"), tags)
        return {"registered_model": shown(made)}

    async def _get(self, caller: Caller, arguments: Arguments) -> Answer:
        return {"registered_model": shown(await self._registry.get(caller, arguments.required("name")))}

    async def _rename(self, caller: Caller, arguments: Arguments) -> Answer:
        name, new_name = arguments.required("name"), arguments.required("new_name")
        return {"registered_model": shown(await self._registry.update(caller, name, new_name))}

    async def _update(self, caller: Caller, arguments: Arguments) -> Answer:
        name, description = arguments.required("name"), arguments.text("description")
        return {"registered_model": shown(await self._registry.update(caller, name, description=description))}

    async def _delete(self, caller: Caller, arguments: Arguments) -> Answer:
        await self._registry.delete(caller, arguments.required("name"))
        return {}

    async def _search(self, caller: Caller, arguments: Arguments) -> Answer:
        query = prompts.models(arguments.text("filter"), arguments.texts("order_by"))
        size, token = pages.size(arguments, _PAGE, _PAGE_LIMIT), arguments.text("page_token")
        found, token = await self._registry.find(caller, query, page_size=size, page_token=token)
        return pages.page("registered_models", map(shown, found), token)

    async def _latest(self, caller: Caller, arguments: Arguments) -> Answer:
        stages = [model_versions.stage(text) for text in arguments.texts("stages")]
        found = await self._versions.latest(caller, arguments.required("name"), stages)
        return pages.page("model_versions", map(model_versions.shown, found))

    async def _set_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        name, key = arguments.required("name"), check_key("tag key", arguments.required("key"))
        await self._registry.set_tags(caller, name, {key: arguments.text("value")})
        return {}

    async def _delete_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        name, key = arguments.required("name"), check_key("tag key", arguments.required("key"))
        with model_versions.absent_is_deleted("tag"):
            await self._registry.delete_tags(caller, name, [key])
        return {}

    async def _set_alias(self, caller: Caller, arguments: Arguments) -> Answer:
        name, alias = arguments.required("name"), check_alias(arguments.required("alias"))
        await self._versions.set_alias(caller, name, alias, model_versions.number(arguments, name))
        return {}

    async def _named(self, caller: Caller, arguments: Arguments) -> Answer:
        name, alias = check_name(arguments.required("name")), check_alias_form(arguments.required("alias"))
        ref = Ref(name) if alias.lower() == LATEST else Ref(name, alias=alias)
        try:
            return {"model_version": model_versions.shown(await self._versions.resolve(caller, ref))}
        except NotFound as error:
            if error.kind != "alias":
                raise
            raise invalid(f"Registered model alias {alias} not found.") from None

    async def _delete_alias(self, caller: Caller, arguments: Arguments) -> Answer:
        name, alias = arguments.required("name"), arguments.required("alias")
        with model_versions.absent_is_deleted("alias"):
            await self._versions.delete_alias(caller, name, alias)
        return {}


def shown(model: RegisteredModel) -> dict[str, Any]:
    """A model as it goes out."""
    answer: dict[str, Any] = {
        "name": model.name,
        "creation_timestamp": model.created_ms,
        "last_updated_timestamp": model.updated_ms,
    }
    if model.description:
        answer["description"] = model.description
    if model.latest:
        answer["latest_versions"] = [model_versions.shown(each) for each in model.latest]
    if model.tags:
        answer["tags"] = pairs(model.tags)
    if model.aliases:
        answer["aliases"] = [{"alias": alias, "version": str(number)} for alias, number in model.aliases.items()]
    return answer
