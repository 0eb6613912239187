"""What runs take in and bring forth, as MLflow's clients know it: datasets and logged models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock_server.core.datasets import Datasets
from penstock_server.mlflow import ids
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.mlflow.errors import invalid
from penstock_server.mlflow.experiments import pairs
from penstock_server.model.access import Caller, Permission, Resource
from penstock_server.model.datasets import Dataset, DatasetInput, Lineage, ModelOutput

_EXPERIMENTS_LIMIT = 20


class DatasetEndpoints:
    """The endpoints of what runs take in and bring forth."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    def __iter__(self) -> Iterator[Endpoint]:
        yield Endpoint("POST", "2.0/mlflow/runs/log-inputs", self._inputs, Permission.WRITE, Resource.RUN, "run_id")
        yield Endpoint("POST", "2.0/mlflow/runs/outputs", self._outputs, Permission.WRITE, Resource.RUN, "run_id")
        yield Endpoint(
            "POST",
            "2.0/mlflow/experiments/search-datasets",
            self._search,
            Permission.READ,
            Resource.EXPERIMENT,
            "experiment_ids",
        )

    async def _inputs(self, caller: Caller, arguments: Arguments) -> Answer:
        run_id = ids.run_id(arguments)
        inputs = [_input(each) for each in arguments.messages("datasets")]
        models = [each.required("model_id") for each in arguments.messages("models")]
        await self._datasets.log_inputs(caller, run_id, inputs, models)
        return {}

    async def _outputs(self, caller: Caller, arguments: Arguments) -> Answer:
        run_id = ids.run_id(arguments)
        if "models" not in arguments:
            raise arguments.lacking("models")
        models = [ModelOutput(each.required("model_id"), each.integer("step")) for each in arguments.messages("models")]
        await self._datasets.log_outputs(caller, run_id, models)
        return {}

    async def _search(self, caller: Caller, arguments: Arguments) -> Answer:
        asked = arguments.texts("experiment_ids")
        if not asked:
            raise invalid("SearchDatasets request must specify at least one experiment_id.")
        if len(asked) > _EXPERIMENTS_LIMIT:
            raise invalid(
                f"SearchDatasets request cannot specify more than {_EXPERIMENTS_LIMIT} experiment_ids. "
                f"Received {len(asked)} experiment_ids."
            )
        found = await self._datasets.summaries(caller, ids.experiment_ids(arguments))
        if not found:
            return {}
        summaries = [
            {"experiment_id": str(each.experiment_id), "name": each.name, "digest": each.digest}
            | ({} if each.context is None else {"context": each.context})
            for each in found
        ]
        return {"dataset_summaries": summaries}


def _input(arguments: Arguments) -> DatasetInput:
    given = arguments.message("dataset")
    if given is None:
        raise arguments.lacking("dataset")
    dataset = Dataset(
        given.required("name"),
        given.required("digest"),
        given.text("source_type"),
        given.text("source"),
        given.optional("schema"),
        given.optional("profile"),
    )
    return DatasetInput(dataset, arguments.pairs("tags"))


def shown(lineage: Lineage | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's inputs and outputs as they go out; None: it has neither."""
    inputs: dict[str, Any] = {}
    if lineage is None:
        return inputs, {}
    if lineage.datasets:
        inputs["dataset_inputs"] = [_shown_input(each) for each in lineage.datasets]
    if lineage.models:
        inputs["model_inputs"] = [{"model_id": each} for each in lineage.models]
    if not lineage.outputs:
        return inputs, {}
    return inputs, {"model_outputs": [{"model_id": each.model_id, "step": each.step} for each in lineage.outputs]}


def _shown_input(taken: DatasetInput) -> dict[str, Any]:
    dataset = taken.dataset
    fields = {
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type,
        "source": dataset.source,
    }
    if dataset.schema is not None:
        fields["schema"] = dataset.schema
    if dataset.profile is not None:
        fields["profile"] = dataset.profile
    return {"tags": pairs(taken.tags), "dataset": fields} if taken.tags else {"dataset": fields}
