"""What is brought in from another server as it was there, with its own times and its own stage."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass, field

from penstock_server.model.datasets import DatasetInput, ModelOutput
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.logged_models import LoggedModelId, LoggedModelStatus, ModelMetric
from penstock_server.model.registry import Stage, VersionStatus
from penstock_server.model.runs import RunId, RunStatus

# Ids that are no UUIDs become one made of this and of them: always the same.
_IDS = uuid.UUID("0d2f2f5c-6a0e-4a3e-8d43-6f6c1d1a7b52")


class Arrival(enum.IntEnum):
    """How much of a run or a logged model is here; the numbers of the table."""

    NOTHING = 0
    WITHOUT_FILES = 1
    WHOLE = 2
    ANOTHER = 3  # something of that id that was not imported


@dataclass(frozen=True, slots=True)
class ImportedExperiment:
    """An experiment of the source. `source_id` is its id there; times are ms since 1970 UTC."""

    source_id: str
    name: str
    lifecycle: Lifecycle
    created_ms: int
    updated_ms: int
    artifact_location: str
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """A run of the source, without its points. `source_id` is its id there; times are ms since 1970 UTC."""

    source_id: str
    id: RunId
    name: str
    status: RunStatus
    lifecycle: Lifecycle
    user: str
    source_name: str
    git_commit: str
    parent_run_id: RunId | None
    start_ms: int
    end_ms: int | None
    artifact_uri: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[str]
    inputs: list[DatasetInput]
    models: list[str]
    outputs: list[ModelOutput]


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A logged model of the source. `source_id` is its id there; times are ms since 1970 UTC."""

    source_id: str
    id: LoggedModelId
    name: str
    model_type: str
    status: LoggedModelStatus
    source_run_id: str
    created_ms: int
    updated_ms: int
    artifact_uri: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[ModelMetric]


@dataclass(frozen=True, slots=True)
class ImportedVersion:
    """A version of a registered model of the source. Times are ms since 1970 UTC."""

    version: int
    source: str
    run_id: RunId | None
    path: str
    logged_model_id: uuid.UUID | None
    run_link: str
    status: VersionStatus
    status_message: str
    stage: Stage
    description: str
    created_by: str
    created_ms: int
    updated_ms: int
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class ImportedRegisteredModel:
    """A registered model of the source with all its versions. Times are ms since 1970 UTC."""

    name: str
    description: str
    created_ms: int
    updated_ms: int
    tags: dict[str, str]
    aliases: dict[str, int]
    versions: list[ImportedVersion]


def imported_id(text: str) -> uuid.UUID:
    """The id here of what has this one in the source: the same where it is 32 hexadecimal digits."""
    if len(text) == 32:
        try:
            return uuid.UUID(text)
        except ValueError:
            pass
    return uuid.uuid5(_IDS, text)
