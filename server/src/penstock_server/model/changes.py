"""What is told to those who watch: which run changed, and what of it."""

from __future__ import annotations

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
