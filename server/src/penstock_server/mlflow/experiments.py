"""Experiments, as MLflow's clients know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock_server.core.experiments import Experiments
from penstock_server.mlflow import filters, ids, locations, pages
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.mlflow.errors import MlflowError, missing
from penstock_server.model.access import Caller, Permission, Resource
from penstock_server.model.errors import InvalidArgument, NotActive, NotFound
from penstock_server.model.experiments import Experiment
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.metrics import check_key

_HERE = "2.0/mlflow/experiments"
STAGE = {Lifecycle.ACTIVE: "active", Lifecycle.DELETED: "deleted"}


class ExperimentEndpoints:
    """The endpoints of experiments."""

    def __init__(self, experiments: Experiments) -> None:
        self._experiments = experiments

    def __iter__(self) -> Iterator[Endpoint]:
        read, write = Permission.READ, Permission.WRITE
        yield Endpoint("POST", f"{_HERE}/create", self._create, write)
        yield Endpoint("GET", f"{_HERE}/get", self._get, read, Resource.EXPERIMENT, "experiment_id")
        yield Endpoint("GET", f"{_HERE}/get-by-name", self._get_by_name, read)
        yield Endpoint("GET", f"{_HERE}/search", self._search, read)
        yield Endpoint("POST", f"{_HERE}/search", self._search, read)
        for name, answer in (
            ("update", self._update),
            ("delete", self._delete),
            ("restore", self._restore),
            ("set-experiment-tag", self._set_tag),
            ("delete-experiment-tag", self._delete_tag),
        ):
            yield Endpoint("POST", f"{_HERE}/{name}", answer, write, Resource.EXPERIMENT, "experiment_id")

    async def _create(self, caller: Caller, arguments: Arguments) -> Answer:
        tags = arguments.pairs("tags")
        for key in tags:
            check_key("tag key", key)
        location = locations.check(arguments.text("artifact_location"))
        made = await self._experiments.create(caller, arguments.required("name"), tags, artifact_location=location)
        return {"experiment_id": str(made.id)}

    async def _get(self, caller: Caller, arguments: Arguments) -> Answer:
        return {"experiment": shown(await self._experiments.get(caller, ids.experiment_id(arguments)))}

    async def _get_by_name(self, caller: Caller, arguments: Arguments) -> Answer:
        name = arguments.required("experiment_name")
        try:
            return {"experiment": shown(await self._experiments.get_by_name(caller, name))}
        except (NotFound, InvalidArgument):  # nor can there be one of a name that is none
            raise missing(f"Could not find experiment with name '{name}'") from None

    async def _search(self, caller: Caller, arguments: Arguments) -> Answer:
        found, token = await self._experiments.find(
            caller,
            filters.experiments(arguments.text("filter"), arguments.texts("order_by")),
            page_size=pages.size(arguments),
            page_token=arguments.text("page_token"),
            view=pages.view(arguments, "view_type"),
        )
        answer: dict[str, Any] = {"experiments": list(map(shown, found))} if found else {}
        return {**answer, "next_page_token": token} if token else answer

    async def _update(self, caller: Caller, arguments: Arguments) -> Answer:
        experiment_id, name = ids.experiment_id(arguments), arguments.required("new_name")
        try:
            await self._experiments.rename(caller, experiment_id, name)
        except NotActive:
            raise MlflowError("INVALID_STATE", "Cannot rename a non-active experiment.") from None
        return {}

    async def _delete(self, caller: Caller, arguments: Arguments) -> Answer:
        experiment_id = ids.experiment_id(arguments)
        # Clients have no word for force; what models' versions lose is told in the registry's history.
        if not await self._experiments.delete(caller, experiment_id, force=True):
            raise NotFound("experiment", str(experiment_id))
        return {}

    async def _restore(self, caller: Caller, arguments: Arguments) -> Answer:
        experiment_id = ids.experiment_id(arguments)
        if not await self._experiments.restore(caller, experiment_id):
            raise NotFound("experiment", str(experiment_id))
        return {}

    async def _set_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        key = check_key("tag key", arguments.required("key"))
        await self._experiments.set_tags(caller, ids.experiment_id(arguments), {key: arguments.text("value")})
        return {}

    async def _delete_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        await self._experiments.delete_tags(caller, ids.experiment_id(arguments), [arguments.required("key")])
        return {}


def shown(experiment: Experiment) -> dict[str, Any]:
    """An experiment as it goes out."""
    answer: dict[str, Any] = {
        "experiment_id": str(experiment.id),
        "name": experiment.name,
        "artifact_location": locations.of_experiment(experiment.id, experiment.artifact_location),
        "lifecycle_stage": STAGE[experiment.lifecycle],
        "last_update_time": experiment.updated_ms,
        "creation_time": experiment.created_ms,
        "workspace": "default",
    }
    if experiment.tags:
        answer["tags"] = pairs(experiment.tags)
    return answer


def pairs(texts: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags and the like as they go out."""
    return [{"key": key, "value": value} for key, value in texts.items()]
