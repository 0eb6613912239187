"""Logged models: what MLflow 3 makes when a model is logged, with params, tags, and metrics that runs measure of it."""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, NewType

from penstock_server.model.datasets import DIGEST_LIMIT as DATASET_DIGEST_LIMIT
from penstock_server.model.datasets import NAME_LIMIT as DATASET_NAME_LIMIT
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.limits import check_text, check_time_ms
from penstock_server.model.metrics import check_key
from penstock_server.model.runs import RunId

LoggedModelId = NewType("LoggedModelId", uuid.UUID)

NAME_LIMIT = 500
TYPE_LIMIT = 500
RUN_LIMIT = 250
KEY_LIMIT = 255
VALUE_LIMIT = 65_535
PAIRS_LIMIT = 1_000  # params or tags at once

_ID = re.compile("m-[0-9a-f]{32}")
_NOT_IN_NAMES = "/:.%\"'"


class LoggedModelStatus(enum.IntEnum):
    """The numbers of MLflow and of the tables, and the names that MLflow has for them besides."""

    PENDING = 1
    READY = 2
    UPLOAD_FAILED = 3
    FAILED = UPLOAD_FAILED
    LOGGED_MODEL_PENDING = PENDING
    LOGGED_MODEL_READY = READY
    LOGGED_MODEL_UPLOAD_FAILED = UPLOAD_FAILED


class ModelPoint(NamedTuple):
    """A point of a metric of a model, as a run logs it; on a dataset, unless that is empty."""

    model_id: str
    key: str
    value: float
    time_ms: int
    step: int
    dataset_name: str = ""
    dataset_digest: str = ""


class ModelMetric(NamedTuple):
    """A point of a metric of a model, and the run that has logged it."""

    run_id: RunId
    key: str
    value: float
    time_ms: int
    step: int
    dataset_name: str
    dataset_digest: str


@dataclass(frozen=True, slots=True)
class DatasetFilter:
    """Of metrics those that were measured on this dataset; on any of that name when it has no digest."""

    name: str
    digest: str = ""

    def check(self) -> None:
        """Raises InvalidArgument."""
        check_text("dataset_name", self.name, DATASET_NAME_LIMIT)
        check_text("dataset_digest", self.digest, DATASET_DIGEST_LIMIT)


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """What logged models are sorted by: an attribute, or ``metrics.<key>``, on a dataset where there is one."""

    field: str
    descending: bool = False
    dataset: DatasetFilter = DatasetFilter("")


@dataclass(frozen=True, slots=True)
class NewLoggedModel:
    """What a caller says of a model to be made. An empty name: one is made up."""

    experiment_id: ExperimentId
    name: str = ""
    model_type: str = ""
    source_run_id: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raises InvalidArgument."""
        check_text("name", self.name, NAME_LIMIT)
        if any(character in _NOT_IN_NAMES for character in self.name):
            raise InvalidArgument("name", f"{self.name!r} has one of {' '.join(_NOT_IN_NAMES)}")
        check_text("model_type", self.model_type, TYPE_LIMIT)
        check_text("source_run_id", self.source_run_id, RUN_LIMIT)
        check_pairs("param", self.params)
        check_pairs("tag", self.tags)


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A logged model. Times are ms since 1970 UTC; `artifact_location` is that of its experiment.

    Of metrics it has the newest 10,000 points.
    """

    id: LoggedModelId
    experiment_id: ExperimentId
    name: str
    model_type: str
    status: LoggedModelStatus
    source_run_id: str
    created_ms: int
    updated_ms: int
    artifact_location: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[ModelMetric]


def parse_model_id(text: str) -> LoggedModelId | None:
    """The id that a request carries as text; None when no model can have it."""
    return LoggedModelId(uuid.UUID(text[2:])) if _ID.fullmatch(text) else None


def format_model_id(model_id: uuid.UUID) -> str:
    """The id as requests and answers carry it."""
    return f"m-{model_id.hex}"


def check_pairs(what: str, pairs: Mapping[str, str]) -> None:
    """A model's params or tags. Raises InvalidArgument."""
    if len(pairs) > PAIRS_LIMIT:
        raise InvalidArgument(f"{what}s", f"{len(pairs)} at once; the limit is {PAIRS_LIMIT}")
    for key, value in pairs.items():
        check_text(f"{what} key", key, KEY_LIMIT, empty=False)
        check_text(f"value of {what} {key!r}", value, VALUE_LIMIT)


def check_point(point: ModelPoint) -> None:
    """A point of a model's metric. Raises InvalidArgument."""
    check_key("metric key", point.key)
    check_time_ms("timestamp", point.time_ms)
    check_text("dataset_name", point.dataset_name, DATASET_NAME_LIMIT)
    check_text("dataset_digest", point.dataset_digest, DATASET_DIGEST_LIMIT)
