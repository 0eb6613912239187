"""RunService: what its messages say, to core, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator

from penstock.v1 import runs_pb2 as pb
from penstock_server.core.changes import Changes, RunChanged
from penstock_server.core.runs import Runs
from penstock_server.model.access import Caller
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.experiments import parse_experiment_id
from penstock_server.model.metrics import MetricSummary
from penstock_server.model.runs import NewRun, Run, RunId, RunStatus, format_run_id, parse_run_id
from penstock_server.rpc import pages
from penstock_server.rpc.experiments import view


class RunService:
    """The methods of penstock.v1.RunService."""

    def __init__(self, runs: Runs, changes: Changes, max_message_bytes: int) -> None:
        self._runs = runs
        self._changes = changes
        self._max_message_bytes = max_message_bytes

    async def create_run(self, caller: Caller, request: pb.CreateRunRequest) -> pb.CreateRunResponse:
        """Makes a run, or returns the one that was made by the same request."""
        return pb.CreateRunResponse(run=message(await self._runs.create(caller, new_run(request))))

    async def get_run(self, caller: Caller, request: pb.GetRunRequest) -> pb.GetRunResponse:
        """One by its id."""
        return pb.GetRunResponse(run=message(await self._runs.get(caller, parse_run_id(request.run_id))))

    async def search_runs(self, caller: Caller, request: pb.SearchRunsRequest) -> pb.SearchRunsResponse:
        """A page of those that a filter selects, as many as one message holds."""
        experiment_ids = [parse_experiment_id(text, "experiment_ids") for text in request.experiment_ids]
        stages = view(request.view)

        async def page(size: int, token: str) -> tuple[list[pb.Run], str]:
            found, next_token = await self._runs.search(
                caller,
                experiment_ids=experiment_ids,
                experiment_names=list(request.experiment_names),
                filter=request.filter,
                order_by=list(request.order_by),
                page_size=size,
                page_token=token,
                view=stages,
                info_only=request.detail == pb.RUN_DETAIL_INFO,
            )
            return [message(run) for run in found], next_token

        runs, token = await pages.fitting(page, request.page_size, request.page_token, self._max_message_bytes)
        return pb.SearchRunsResponse(runs=runs, next_page_token=token)

    async def update_run(self, caller: Caller, request: pb.UpdateRunRequest) -> pb.UpdateRunResponse:
        """Changes name, status or end."""
        changed = await self._runs.update(
            caller,
            parse_run_id(request.run_id),
            name=request.name if request.HasField("name") else None,
            status=status(request.status),
            end_ms=request.end_time_ms if request.HasField("end_time_ms") else None,
        )
        return pb.UpdateRunResponse(run=message(changed))

    async def log_params(self, caller: Caller, request: pb.LogParamsRequest) -> pb.LogParamsResponse:
        """Records params."""
        await self._runs.log_params(caller, parse_run_id(request.run_id), dict(request.params))
        return pb.LogParamsResponse()

    async def set_run_tags(self, caller: Caller, request: pb.SetRunTagsRequest) -> pb.SetRunTagsResponse:
        """Sets tags."""
        await self._runs.set_tags(caller, parse_run_id(request.run_id), dict(request.tags))
        return pb.SetRunTagsResponse()

    async def delete_run_tags(self, caller: Caller, request: pb.DeleteRunTagsRequest) -> pb.DeleteRunTagsResponse:
        """Removes tags."""
        await self._runs.delete_tags(caller, parse_run_id(request.run_id), list(request.keys))
        return pb.DeleteRunTagsResponse()

    async def delete_run(self, caller: Caller, request: pb.DeleteRunRequest) -> pb.DeleteRunResponse:
        """Marks one deleted."""
        await self._runs.delete(caller, parse_run_id(request.run_id), force=request.force)
        return pb.DeleteRunResponse()

    async def restore_run(self, caller: Caller, request: pb.RestoreRunRequest) -> pb.RestoreRunResponse:
        """Takes a deletion back."""
        await self._runs.restore(caller, parse_run_id(request.run_id))
        return pb.RestoreRunResponse()

    async def watch_runs(self, caller: Caller, request: pb.WatchRunsRequest) -> AsyncIterator[pb.WatchRunsResponse]:
        """The state of runs, then their changes."""
        experiment_ids = [parse_experiment_id(text, "experiment_ids") for text in request.experiment_ids]
        run_ids = [parse_run_id(text, "run_ids") for text in request.run_ids]
        async for event in self._changes.watch(caller, experiment_ids, run_ids, request.changes_only):
            if isinstance(event, RunChanged):
                yield pb.WatchRunsResponse(
                    changes=sorted(event.changes),  # type: ignore[arg-type]  # the same numbers
                    run=message(event.run),
                )
            else:
                yield pb.WatchRunsResponse(synced=True)


def new_run(request: pb.CreateRunRequest) -> NewRun:
    """What a request, or a Hello, says of a run to be made. Raises InvalidArgument."""
    return NewRun(
        run_id=_run_id(request.run_id, "run_id"),
        experiment_id=parse_experiment_id(request.experiment_id) if request.experiment_id else None,
        experiment_name=request.experiment_name,
        name=request.name,
        status=status(request.status) or RunStatus.RUNNING,
        user=request.user,
        source_name=request.source_name,
        git_commit=request.git_commit,
        parent_run_id=_run_id(request.parent_run_id, "parent_run_id"),
        start_ms=request.start_time_ms,
        params=dict(request.params),
        tags=dict(request.tags),
        request_id=request.request_id,
    )


def status(number: int) -> RunStatus | None:
    """The status that a request names, None when none. Raises InvalidArgument."""
    try:
        return RunStatus(number) if number else None
    except ValueError:
        raise InvalidArgument("status", f"{number} is none of this server's statuses") from None


def message(run: Run) -> pb.Run:
    """A run as it goes out."""
    return pb.Run(
        run_id=format_run_id(run.id),
        experiment_id=str(run.experiment_id),
        name=run.name,
        status=run.status.value,  # type: ignore[arg-type]  # the same numbers
        lifecycle_stage=run.lifecycle.value,  # type: ignore[arg-type]  # the same numbers
        user=run.user,
        source_name=run.source_name,
        git_commit=run.git_commit,
        parent_run_id=format_run_id(run.parent_run_id) if run.parent_run_id else "",
        start_time_ms=run.start_ms,
        end_time_ms=run.end_ms,
        update_time_ms=run.updated_ms,
        params=run.params,
        tags=run.tags,
        metrics=map(summary, run.metrics),
        refused_records=run.refused_records,
        lost_records=run.lost_records,
    )


def summary(metric: MetricSummary) -> pb.MetricSummary:
    """A metric's summary as it goes out."""
    return pb.MetricSummary(
        name=metric.name,
        count=metric.count,
        last_step=metric.last_step,
        last_time_ms=metric.last_time_ms,
        last_value=metric.last_value,
        min_value=metric.min_value,
        max_value=metric.max_value,
    )


def _run_id(text: str, where: str) -> RunId | None:
    return parse_run_id(text, where) if text else None
