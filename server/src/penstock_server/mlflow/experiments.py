"""Experiments, as MLflow's clients know them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock_server.core.experiments import Experiments
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.model.access import Caller, Permission, Resource
from penstock_server.model.experiments import Experiment, parse_experiment_id
from penstock_server.model.lifecycle import Lifecycle

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

    async def _create(self, caller: Caller, arguments: Arguments) -> Answer:
        made = await self._experiments.create(caller, arguments.required("name"), arguments.pairs("tags"))
        return {"experiment_id": str(made.id)}

    async def _get(self, caller: Caller, arguments: Arguments) -> Answer:
        experiment_id = parse_experiment_id(arguments.required("experiment_id"))
        return {"experiment": shown(await self._experiments.get(caller, experiment_id))}


def shown(experiment: Experiment) -> dict[str, Any]:
    """An experiment as it goes out."""
    answer: dict[str, Any] = {
        "experiment_id": str(experiment.id),
        "name": experiment.name,
        "artifact_location": f"mlflow-artifacts:/{experiment.id}",
        "lifecycle_stage": STAGE[experiment.lifecycle],
        "last_update_time": experiment.updated_ms,
        "creation_time": experiment.created_ms,
    }
    if experiment.tags:
        answer["tags"] = pairs(experiment.tags)
    return answer


def pairs(texts: dict[str, str]) -> list[dict[str, str]]:
    """Tags and the like as they go out."""
    return [{"key": key, "value": value} for key, value in texts.items()]
