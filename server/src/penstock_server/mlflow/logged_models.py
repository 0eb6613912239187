"""Logged models, as MLflow's clients know them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

from penstock_server.core.artifacts import Artifacts
from penstock_server.core.logged_models import PAGE_LIMIT, LoggedModels
from penstock_server.mlflow import ids, locations
from penstock_server.mlflow.arguments import Arguments, integer
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.mlflow.errors import invalid
from penstock_server.mlflow.experiments import pairs
from penstock_server.model.access import Caller, Permission, Resource
from penstock_server.model.errors import NotFound
from penstock_server.model.logged_models import (
    DatasetFilter,
    LoggedModel,
    LoggedModelId,
    LoggedModelStatus,
    ModelMetric,
    ModelOrder,
    NewLoggedModel,
    format_model_id,
    parse_model_id,
)
from penstock_server.model.owners import Owner, OwnerKind
from penstock_server.model.runs import format_run_id

_HERE = "2.0/mlflow/logged-models"
_PAGE = 100
_MAX = sys.float_info.max


class LoggedModelEndpoints:
    """The endpoints of logged models."""

    def __init__(self, models: LoggedModels, artifacts: Artifacts) -> None:
        self._models = models
        self._artifacts = artifacts

    def __iter__(self) -> Iterator[Endpoint]:
        read, write, one = Permission.READ, Permission.WRITE, f"{_HERE}/{{model_id}}"
        yield Endpoint("POST", _HERE, self._create, write, Resource.EXPERIMENT, "experiment_id")
        yield Endpoint("POST", f"{_HERE}/search", self._search, read, Resource.EXPERIMENT, "experiment_ids")
        yield Endpoint("GET", one, self._get, read)
        yield Endpoint("PATCH", one, self._finalize, write)
        yield Endpoint("DELETE", one, self._delete, write)
        yield Endpoint("PATCH", f"{one}/tags", self._set_tags, write)
        yield Endpoint("DELETE", f"{one}/tags/{{tag_key}}", self._delete_tag, write)
        yield Endpoint("POST", f"{one}/params", self._log_params, write)
        yield Endpoint("GET", f"{one}/artifacts/directories", self._list, read)

    async def _create(self, caller: Caller, arguments: Arguments) -> Answer:
        new = NewLoggedModel(
            ids.experiment_id(arguments),
            arguments.text("name"),
            arguments.text("model_type"),
            arguments.text("source_run_id"),
            arguments.pairs("params"),
            arguments.pairs("tags"),
        )
        return {"model": shown(await self._models.create(caller, new))}

    async def _search(self, caller: Caller, arguments: Arguments) -> Answer:
        if "experiment_ids" not in arguments:
            raise arguments.lacking("experiment_ids")
        found, token = await self._models.search(
            caller,
            ids.experiment_ids(arguments),
            filter=arguments.text("filter"),
            order_by=[
                ModelOrder(each.text("field_name"), not each.flag("ascending", default=True), _dataset(each))
                for each in arguments.messages("order_by")
            ],
            datasets=[_required_dataset(each) for each in arguments.messages("datasets")],
            # Clients take a page for what it is, so that one may have fewer than they ask for.
            page_size=min(arguments.integer("max_results", low=0) or _PAGE, PAGE_LIMIT),
            page_token=arguments.text("page_token"),
        )
        answer: dict[str, Any] = {}
        if found:
            answer["models"] = [shown(each) for each in found]
        if token:
            answer["next_page_token"] = token
        return answer

    async def _get(self, caller: Caller, arguments: Arguments) -> Answer:
        deleted = arguments.text("allow_deleted").lower() == "true"
        return {"model": shown(await self._models.get(caller, _model_id(arguments), deleted=deleted))}

    async def _finalize(self, caller: Caller, arguments: Arguments) -> Answer:
        model_id, status = _model_id(arguments), _status(arguments)
        return {"model": shown(await self._models.finalize(caller, model_id, status))}

    async def _delete(self, caller: Caller, arguments: Arguments) -> Answer:
        # Clients have no word for force; what models' versions lose is told in the registry's history.
        await self._models.delete(caller, _model_id(arguments), force=True)
        return {}

    async def _set_tags(self, caller: Caller, arguments: Arguments) -> Answer:
        await self._models.set_tags(caller, _model_id(arguments), arguments.pairs("tags"))
        return {}

    async def _delete_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        await self._models.delete_tag(caller, _model_id(arguments), arguments.required("tag_key"))
        return {}

    async def _log_params(self, caller: Caller, arguments: Arguments) -> Answer:
        await self._models.log_params(caller, _model_id(arguments), arguments.pairs("params"))
        return {}

    async def _list(self, caller: Caller, arguments: Arguments) -> Answer:
        model = await self._models.get(caller, _model_id(arguments))
        found, token = await self._artifacts.list(
            caller,
            Owner(OwnerKind.LOGGED_MODEL, model.id),
            arguments.text("artifact_directory_path"),
            page_token=arguments.text("page_token"),
        )
        answer: dict[str, Any] = {"root_uri": _artifact_uri(model)}
        if found:
            answer["files"] = [
                {"path": each.path, "is_dir": each.is_directory}
                | ({} if each.is_directory else {"file_size": each.size})
                for each in found
            ]
        if token:
            answer["next_page_token"] = token
        return answer


def _model_id(arguments: Arguments) -> LoggedModelId:
    """The model that a request is about; any text is an id in MLflow. Raises NotFound."""
    text = arguments.required("model_id")
    model_id = parse_model_id(text)
    if model_id is None:
        raise NotFound("logged model", text[:256])
    return model_id


def _status(arguments: Arguments) -> LoggedModelStatus:
    value = arguments.get("status")
    if value is None:
        raise arguments.lacking("status")
    if isinstance(value, str) and value in LoggedModelStatus.__members__:
        return LoggedModelStatus[value]
    number = integer(value)
    if number is None or number not in set(LoggedModelStatus):
        raise arguments.wrong("status", value, "Value must be a status that a model can have")
    return LoggedModelStatus(number)


def _dataset(arguments: Arguments) -> DatasetFilter:
    return DatasetFilter(arguments.text("dataset_name"), arguments.text("dataset_digest"))


def _required_dataset(arguments: Arguments) -> DatasetFilter:
    dataset = _dataset(arguments)
    if not dataset.name:
        raise invalid("`dataset_name` in the `datasets` clause must be specified.")
    return dataset


def _artifact_uri(model: LoggedModel) -> str:
    root = locations.of_experiment(model.experiment_id, model.artifact_location)
    return locations.below(root, f"models/{format_model_id(model.id)}/artifacts")


def shown(model: LoggedModel) -> dict[str, Any]:
    """A logged model as it goes out."""
    info: dict[str, Any] = {
        "model_id": format_model_id(model.id),
        "experiment_id": str(model.experiment_id),
        "name": model.name,
        "creation_timestamp_ms": model.created_ms,
        "last_updated_timestamp_ms": model.updated_ms,
        "artifact_uri": _artifact_uri(model),
        "status": f"LOGGED_MODEL_{model.status.name}",
        "model_type": model.model_type,
        "source_run_id": model.source_run_id,
    }
    if model.tags:
        info["tags"] = pairs(model.tags)
    data: dict[str, Any] = {}
    if model.params:
        data["params"] = pairs(model.params)
    if model.metrics:
        data["metrics"] = [_shown_metric(each, info["model_id"]) for each in model.metrics]
    return {"info": info, "data": data}


def _shown_metric(metric: ModelMetric, model_id: str) -> dict[str, Any]:
    fields = {
        "key": metric.key,
        "value": "NaN" if math.isnan(metric.value) else max(-_MAX, min(metric.value, _MAX)),
        "timestamp": metric.time_ms,
        "step": metric.step,
        "model_id": model_id,
        "run_id": format_run_id(metric.run_id),
    }
    if metric.dataset_name:
        fields["dataset_name"] = metric.dataset_name
    if metric.dataset_digest:
        fields["dataset_digest"] = metric.dataset_digest
    return fields
