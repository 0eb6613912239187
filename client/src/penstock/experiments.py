"""Experiments: named groups of runs."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.calls import EXPERIMENTS, Flow, as_texts, in_pages, listed, request
from penstock.v1 import experiments_pb2 as pb


class View(enum.StrEnum):
    """Which lifecycle stages a search looks at."""

    ACTIVE = "active"
    DELETED = "deleted"
    ALL = "all"

    @property
    def wire(self) -> str:
        """As in the protocol."""
        return f"VIEW_{self.name}"


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named group of runs. Times are ms since 1970 UTC."""

    id: str
    name: str
    active: bool
    create_time_ms: int
    update_time_ms: int
    tags: dict[str, str] = field(default_factory=dict)


def experiment(message: pb.Experiment) -> Experiment:
    """From the wire."""
    return Experiment(
        id=message.experiment_id,
        name=message.name,
        active=message.lifecycle_stage == pb.LIFECYCLE_STAGE_ACTIVE,
        create_time_ms=message.create_time_ms,
        update_time_ms=message.update_time_ms,
        tags=dict(message.tags),
    )


def create_experiment(name: str, tags: Mapping[str, object] | None = None) -> Flow[Experiment]:
    """Make an experiment. Raises AlreadyExists when there is one of that name, deleted ones included."""
    message = pb.CreateExperimentRequest(name=name, tags=as_texts(tags), request_id=uuid.uuid4().hex)
    return experiment((yield request(EXPERIMENTS, "CreateExperiment", message)).experiment)


def get_experiment(experiment_id: str) -> Flow[Experiment]:
    """One experiment by its id. Raises NotFound."""
    message = pb.GetExperimentRequest(experiment_id=experiment_id)
    return experiment((yield request(EXPERIMENTS, "GetExperiment", message)).experiment)


def get_experiment_by_name(name: str) -> Flow[Experiment]:
    """One experiment by its exact name. Raises NotFound."""
    message = pb.GetExperimentByNameRequest(name=name)
    return experiment((yield request(EXPERIMENTS, "GetExperimentByName", message)).experiment)


def search_experiments(
    filter: str = "",  # noqa: A002  the word of the API
    order_by: Sequence[str] = (),
    limit: int | None = None,
    view: View | str = View.ACTIVE,
) -> Flow[list[Experiment]]:
    """The experiments that a filter selects, in order; at most `limit`, None: all."""
    message = pb.SearchExperimentsRequest(filter=filter, order_by=listed(order_by), view=View(view).wire)
    return (
        yield from in_pages(
            EXPERIMENTS, "SearchExperiments", message, limit, lambda page: map(experiment, page.experiments)
        )
    )


def rename_experiment(experiment_id: str, name: str) -> Flow[None]:
    """Give an experiment another name. Raises NotFound, AlreadyExists."""
    yield request(EXPERIMENTS, "UpdateExperiment", pb.UpdateExperimentRequest(experiment_id=experiment_id, name=name))


def set_experiment_tags(experiment_id: str, tags: Mapping[str, object]) -> Flow[None]:
    """Set tags, replacing those of the same key."""
    message = pb.SetExperimentTagsRequest(experiment_id=experiment_id, tags=as_texts(tags))
    yield request(EXPERIMENTS, "SetExperimentTags", message)


def delete_experiment_tags(experiment_id: str, keys: Sequence[str]) -> Flow[None]:
    """Remove tags. Raises NotFound, and removes none, when one of them is not there."""
    message = pb.DeleteExperimentTagsRequest(experiment_id=experiment_id, keys=listed(keys))
    yield request(EXPERIMENTS, "DeleteExperimentTags", message)


def delete_experiment(experiment_id: str, *, force: bool = False) -> Flow[None]:
    """Mark an experiment and its runs deleted.

    Raises FailedPrecondition when versions of registered models stand on one of these, unless `force`.
    """
    message = pb.DeleteExperimentRequest(experiment_id=experiment_id, force=force)
    yield request(EXPERIMENTS, "DeleteExperiment", message)


def restore_experiment(experiment_id: str) -> Flow[None]:
    """Take a deletion back, for the experiment and all its runs."""
    yield request(EXPERIMENTS, "RestoreExperiment", pb.RestoreExperimentRequest(experiment_id=experiment_id))
