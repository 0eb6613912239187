"""ExperimentService: what its messages say, to core, and back."""

from __future__ import annotations

from penstock.v1 import experiments_pb2 as pb
from penstock_server.core.experiments import Experiments
from penstock_server.model.access import Caller
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.experiments import Experiment, parse_experiment_id
from penstock_server.model.lifecycle import View
from penstock_server.rpc import pages


class ExperimentService:
    """The methods of penstock.v1.ExperimentService."""

    def __init__(self, experiments: Experiments, max_message_bytes: int) -> None:
        self._experiments = experiments
        self._max_message_bytes = max_message_bytes

    async def create_experiment(
        self, caller: Caller, request: pb.CreateExperimentRequest
    ) -> pb.CreateExperimentResponse:
        """Makes an experiment."""
        made = await self._experiments.create(caller, request.name, dict(request.tags), request.request_id)
        return pb.CreateExperimentResponse(experiment=message(made))

    async def get_experiment(self, caller: Caller, request: pb.GetExperimentRequest) -> pb.GetExperimentResponse:
        """One by its id."""
        found = await self._experiments.get(caller, parse_experiment_id(request.experiment_id))
        return pb.GetExperimentResponse(experiment=message(found))

    async def get_experiment_by_name(
        self, caller: Caller, request: pb.GetExperimentByNameRequest
    ) -> pb.GetExperimentByNameResponse:
        """One by its name."""
        found = await self._experiments.get_by_name(caller, request.name)
        return pb.GetExperimentByNameResponse(experiment=message(found))

    async def search_experiments(
        self, caller: Caller, request: pb.SearchExperimentsRequest
    ) -> pb.SearchExperimentsResponse:
        """A page of those that a filter selects, as many as one message holds."""
        stages = view(request.view)

        async def page(size: int, token: str) -> tuple[list[pb.Experiment], str]:
            found, next_token = await self._experiments.search(
                caller,
                filter=request.filter,
                order_by=list(request.order_by),
                page_size=size,
                page_token=token,
                view=stages,
            )
            return [message(experiment) for experiment in found], next_token

        found, token = await pages.fitting(page, request.page_size, request.page_token, self._max_message_bytes)
        return pb.SearchExperimentsResponse(experiments=found, next_page_token=token)

    async def update_experiment(
        self, caller: Caller, request: pb.UpdateExperimentRequest
    ) -> pb.UpdateExperimentResponse:
        """Renames one."""
        changed = await self._experiments.rename(caller, parse_experiment_id(request.experiment_id), request.name)
        return pb.UpdateExperimentResponse(experiment=message(changed))

    async def set_experiment_tags(
        self, caller: Caller, request: pb.SetExperimentTagsRequest
    ) -> pb.SetExperimentTagsResponse:
        """Sets tags."""
        await self._experiments.set_tags(caller, parse_experiment_id(request.experiment_id), dict(request.tags))
        return pb.SetExperimentTagsResponse()

    async def delete_experiment_tags(
        self, caller: Caller, request: pb.DeleteExperimentTagsRequest
    ) -> pb.DeleteExperimentTagsResponse:
        """Removes tags."""
        await self._experiments.delete_tags(caller, parse_experiment_id(request.experiment_id), list(request.keys))
        return pb.DeleteExperimentTagsResponse()

    async def delete_experiment(
        self, caller: Caller, request: pb.DeleteExperimentRequest
    ) -> pb.DeleteExperimentResponse:
        """Marks one deleted."""
        await self._experiments.delete(caller, parse_experiment_id(request.experiment_id), force=request.force)
        return pb.DeleteExperimentResponse()

    async def restore_experiment(
        self, caller: Caller, request: pb.RestoreExperimentRequest
    ) -> pb.RestoreExperimentResponse:
        """Takes a deletion back."""
        await self._experiments.restore(caller, parse_experiment_id(request.experiment_id))
        return pb.RestoreExperimentResponse()


def message(experiment: Experiment) -> pb.Experiment:
    """An experiment as it goes out."""
    return pb.Experiment(
        experiment_id=str(experiment.id),
        name=experiment.name,
        lifecycle_stage=experiment.lifecycle.value,  # type: ignore[arg-type]  # the same numbers
        create_time_ms=experiment.created_ms,
        update_time_ms=experiment.updated_ms,
        tags=experiment.tags,
    )


def view(number: int) -> View:
    """Which lifecycle stages a search names. Raises InvalidArgument."""
    try:
        return View(number or pb.VIEW_ACTIVE)
    except ValueError:
        raise InvalidArgument("view", f"{number} is none of this server's views") from None
