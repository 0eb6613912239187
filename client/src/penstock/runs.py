"""Runs as the server has them: one training job each, with params, tags and the summaries of its metrics."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.calls import RUNS, Flow, Request, as_texts, listed, need, request
from penstock.experiments import View
from penstock.metrics import MetricSummary, summary
from penstock.v1 import experiments_pb2
from penstock.v1 import runs_pb2 as pb

_PAGE = 1_000


class RunStatus(enum.IntEnum):
    """Where a run stands. The numbers are those of the protocol."""

    RUNNING = 1
    SCHEDULED = 2
    FINISHED = 3
    FAILED = 4
    KILLED = 5

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)

    @property
    def wire(self) -> str:
        """As in the protocol."""
        return f"RUN_STATUS_{self.name}"

    @property
    def ended(self) -> bool:
        """Whether a run of this status logs no more."""
        return self in (RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED)

    @classmethod
    def of(cls, told: RunStatus | str | int) -> RunStatus:
        """By its name in any case, or its number. Raises ValueError."""
        if isinstance(told, str):
            if told.upper() not in cls.__members__:
                raise ValueError(f"{told!r} is no status of a run; there are {', '.join(cls.__members__)}")
            return cls[told.upper()]
        return cls(told)


@dataclass(frozen=True, slots=True)
class Run:
    """One training job. Times are ms since 1970 UTC."""

    id: str
    experiment_id: str
    name: str
    status: RunStatus
    active: bool
    user: str
    source_name: str
    git_commit: str
    parent_run_id: str | None
    start_time_ms: int
    end_time_ms: int | None
    update_time_ms: int
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, MetricSummary] = field(default_factory=dict)
    refused_records: int = 0  # values, params and tags that its writers could not take in
    lost_records: int = 0  # that its writers had taken in, and had no more when they were to be sent


class Runs(list[Run]):
    """What a search has found, in its order. `next_page_token` goes on where `limit` ended it; empty: that was all."""

    def __init__(self, runs: Sequence[Run] = (), next_page_token: str = "") -> None:
        super().__init__(runs)
        self.next_page_token = next_page_token

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row per run: its own fields, `params.…`, `tags.…`, and `metrics.…`, the latest."""
        pandas = need("pandas", "to_pandas")
        rows = [
            {
                "run_id": run.id,
                "experiment_id": run.experiment_id,
                "name": run.name,
                "status": run.status.name,
                "start_time": pandas.Timestamp(run.start_time_ms, unit="ms", tz="UTC"),
                "end_time": pandas.NaT
                if run.end_time_ms is None
                else pandas.Timestamp(run.end_time_ms, unit="ms", tz="UTC"),
                **{f"metrics.{name}": metric.last_value for name, metric in run.metrics.items()},
                **{f"params.{key}": value for key, value in run.params.items()},
                **{f"tags.{key}": value for key, value in run.tags.items()},
            }
            for run in self
        ]
        return pandas.DataFrame(rows)


@dataclass(frozen=True, slots=True)
class RunChanged:
    """What WatchRuns tells: the run as it is now, and what has changed of it (`snapshot`, `run`, `metrics`).

    `run` is None in the one message that says that the state as it was has been told, and changes follow.
    """

    run: Run | None
    changes: frozenset[str]


def run_of(message: pb.Run) -> Run:
    """From the wire."""
    return Run(
        id=message.run_id,
        experiment_id=message.experiment_id,
        name=message.name,
        status=RunStatus(message.status),
        active=message.lifecycle_stage == experiments_pb2.LIFECYCLE_STAGE_ACTIVE,
        user=message.user,
        source_name=message.source_name,
        git_commit=message.git_commit,
        parent_run_id=message.parent_run_id or None,
        start_time_ms=message.start_time_ms,
        end_time_ms=message.end_time_ms if message.HasField("end_time_ms") else None,
        update_time_ms=message.update_time_ms,
        params=dict(message.params),
        tags=dict(message.tags),
        metrics={each.name: summary(each) for each in message.metrics},
        refused_records=message.refused_records,
        lost_records=message.lost_records,
    )


def create_run(
    experiment: str | None = None,
    name: str = "",
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    *,
    experiment_id: str | None = None,
    run_id: str | None = None,
    parent: str | None = None,
    status: RunStatus | str = RunStatus.RUNNING,
    start_time_ms: int = 0,
) -> Flow[Run]:
    """Make a run, or get the one that is there with this `run_id`. `experiment` is a name, made when there is none."""
    message = pb.CreateRunRequest(
        run_id=run_id or "",
        experiment_id=experiment_id or "",
        experiment_name=experiment or "",
        name=name,
        status=RunStatus.of(status).wire,
        parent_run_id=parent or "",
        start_time_ms=start_time_ms,
        params=as_texts(params),
        tags=as_texts(tags),
        request_id=uuid.uuid4().hex,
    )
    return run_of((yield request(RUNS, "CreateRun", message)).run)


def get_run(run_id: str) -> Flow[Run]:
    """One run. Raises NotFound."""
    return run_of((yield request(RUNS, "GetRun", pb.GetRunRequest(run_id=run_id))).run)


def search_runs(
    experiments: Sequence[str] = (),
    filter: str = "",  # noqa: A002  the word of the API
    order_by: Sequence[str] = (),
    limit: int | None = 100,
    *,
    experiment_ids: Sequence[str] = (),
    view: View | str = View.ACTIVE,
    info_only: bool = False,
    page_token: str = "",
) -> Flow[Runs]:
    """The runs that a filter selects, in order; at most `limit`, None: all.

    `experiments` are names; without any, nor ids, the whole workspace is searched. `info_only` leaves out params,
    tags and metrics. `page_token` goes on where the `next_page_token` of the same search says. Raises InvalidFilter.
    """
    found = Runs(next_page_token=page_token)
    while limit is None or len(found) < limit:
        message = pb.SearchRunsRequest(
            experiment_ids=listed(experiment_ids),
            experiment_names=listed(experiments),
            filter=filter,
            order_by=listed(order_by),
            page_size=_PAGE if limit is None else min(_PAGE, limit - len(found)),
            page_token=found.next_page_token,
            view=View(view).wire,
            detail=pb.RUN_DETAIL_INFO if info_only else pb.RUN_DETAIL_FULL,
        )
        page = yield request(RUNS, "SearchRuns", message)
        found += map(run_of, page.runs)
        found.next_page_token = page.next_page_token
        if not page.next_page_token:
            break
    return found


def update_run(
    run_id: str,
    *,
    name: str | None = None,
    status: RunStatus | str | None = None,
    end_time_ms: int | None = None,
) -> Flow[Run]:
    """Change an active run; None leaves as it is. Returns it without params, tags and metrics."""
    wire = None if status is None else RunStatus.of(status).wire
    message = pb.UpdateRunRequest(run_id=run_id, name=name, status=wire, end_time_ms=end_time_ms)
    return run_of((yield request(RUNS, "UpdateRun", message)).run)


def log_params(run_id: str, params: Mapping[str, object]) -> Flow[None]:
    """Record params, as text. Raises AlreadyExists, and records none, when one has another value already."""
    yield request(RUNS, "LogParams", pb.LogParamsRequest(run_id=run_id, params=as_texts(params)))


def set_tags(run_id: str, tags: Mapping[str, object]) -> Flow[None]:
    """Set tags, as text, replacing those of the same key."""
    yield request(RUNS, "SetRunTags", pb.SetRunTagsRequest(run_id=run_id, tags=as_texts(tags)))


def delete_tags(run_id: str, keys: Sequence[str]) -> Flow[None]:
    """Remove tags. Raises NotFound, and removes none, when one of them is not there."""
    yield request(RUNS, "DeleteRunTags", pb.DeleteRunTagsRequest(run_id=run_id, keys=listed(keys)))


def delete_run(run_id: str, *, force: bool = False) -> Flow[None]:
    """Mark a run deleted: it refuses further logging.

    Raises FailedPrecondition when versions of registered models stand on it, unless `force`.
    """
    yield request(RUNS, "DeleteRun", pb.DeleteRunRequest(run_id=run_id, force=force))


def restore_run(run_id: str) -> Flow[None]:
    """Take a deletion back."""
    yield request(RUNS, "RestoreRun", pb.RestoreRunRequest(run_id=run_id))


def watch_runs(
    experiment_ids: Sequence[str] = (), run_ids: Sequence[str] = (), *, changes_only: bool = False
) -> tuple[Request, Callable[[Any], RunChanged]]:
    """The state of the runs now, then their changes as they are committed, without end. Neither ids: all runs."""
    message = pb.WatchRunsRequest(
        experiment_ids=listed(experiment_ids), run_ids=listed(run_ids), changes_only=changes_only
    )
    return request(RUNS, "WatchRuns", message), _changed


def _changed(message: pb.WatchRunsResponse) -> RunChanged:
    names = (pb.RunChange.Name(change).removeprefix("RUN_CHANGE_").lower() for change in message.changes)
    return RunChanged(run_of(message.run) if message.HasField("run") else None, frozenset(names))
