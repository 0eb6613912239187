"""The use cases of what runs take in and bring forth."""

from __future__ import annotations

from collections.abc import Sequence

from penstock_server.model.access import Caller
from penstock_server.model.datasets import (
    DatasetInput,
    DatasetSummary,
    Lineage,
    ModelOutput,
    check_inputs,
    check_models,
)
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.runs import RunId
from penstock_server.postgres import datasets, runs
from penstock_server.postgres.database import Database


class Datasets:
    """Records what runs take in and bring forth. Everything may raise InvalidArgument and Unavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def log_inputs(
        self, caller: Caller, run_id: RunId, inputs: Sequence[DatasetInput], models: Sequence[str] = ()
    ) -> None:
        """An active run takes in these datasets and logged models; what it has already stays as it is.

        Of two datasets with one name and digest it is the first. Raises NotFound, NotActive.
        """
        check_inputs(inputs)
        taken = [ModelOutput(model_id) for model_id in models]
        check_models(taken)
        async with self._db.transaction() as conn:
            run = await runs.locate_active(conn, caller.workspace_id, run_id)
            if inputs:
                await datasets.add_inputs(conn, run, inputs)
            if taken:
                await datasets.put_models(conn, run, taken, output=False)

    async def log_outputs(self, caller: Caller, run_id: RunId, models: Sequence[ModelOutput]) -> None:
        """An active run brings forth these logged models; of one told again, the step that is told last.

        Raises NotFound, NotActive.
        """
        check_models(models)
        async with self._db.transaction() as conn:
            run = await runs.locate_active(conn, caller.workspace_id, run_id)
            if models:
                await datasets.put_models(conn, run, models, output=True)

    async def of_runs(self, caller: Caller, run_ids: Sequence[RunId]) -> dict[RunId, Lineage]:
        """What each of these runs took in and brought forth; runs without any are not among them."""
        async with self._db.connection() as conn:
            return await datasets.of_runs(conn, caller.workspace_id, run_ids)

    async def summaries(self, caller: Caller, experiment_ids: Sequence[ExperimentId]) -> list[DatasetSummary]:
        """The datasets that runs of these experiments took in, 1,000 of them at most."""
        async with self._db.connection() as conn:
            return await datasets.summaries(conn, caller.workspace_id, experiment_ids)
