"""What is told to those who watch: which run changed, and what of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from penstock_server.model.access import WorkspaceId
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.runs import RunId


@dataclass(frozen=True, slots=True)
class RunRef:
    """A run and where it belongs."""

    workspace_id: WorkspaceId
    experiment_id: ExperimentId
    run_id: RunId


class RunChange(enum.IntEnum):
    """What of a run has changed; the numbers of the protocol."""

    SNAPSHOT = 1  # nothing is known to have changed: the state as it is
    RUN = 2  # its own fields, params or tags; a new run
    METRICS = 3


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit changed: a run, or with `run_id` None all runs of an experiment."""

    kind: RunChange
    workspace_id: WorkspaceId
    experiment_id: ExperimentId
    run_id: RunId | None
