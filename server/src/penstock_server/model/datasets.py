"""What runs take in and bring forth: datasets, each known by its name and digest, and logged models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock_server.model.errors import InvalidArgument
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.limits import INT64_MAX, INT64_MIN, check_text

NAME_LIMIT = 500
DIGEST_LIMIT = 36
SOURCE_TYPE_LIMIT = 250
SOURCE_LIMIT = 65_535
SCHEMA_LIMIT = 1_048_575
PROFILE_LIMIT = 16_777_215
TAG_KEY_LIMIT = 255
TAG_VALUE_LIMIT = 500
TAGS_LIMIT = 100
MODEL_ID_LIMIT = 250
AT_ONCE = 1_000  # datasets, or models, in one request

# The tag that says what a run took a dataset for, such as "train".
CONTEXT = "mlflow.data.context"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset: where it comes from and what is in it, as its client says."""

    name: str
    digest: str
    source_type: str = ""
    source: str = ""
    schema: str | None = None
    profile: str | None = None

    def check(self) -> None:
        """Raises InvalidArgument."""
        check_text("name", self.name, NAME_LIMIT, empty=False)
        check_text("digest", self.digest, DIGEST_LIMIT, empty=False)
        check_text("source_type", self.source_type, SOURCE_TYPE_LIMIT)
        check_text("source", self.source, SOURCE_LIMIT)
        check_text("schema", self.schema or "", SCHEMA_LIMIT)
        check_text("profile", self.profile or "", PROFILE_LIMIT)


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """A dataset that a run takes in, and tags of its doing so."""

    dataset: Dataset
    tags: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raises InvalidArgument."""
        self.dataset.check()
        if len(self.tags) > TAGS_LIMIT:
            raise InvalidArgument("tags", f"{len(self.tags)} of one dataset; the limit is {TAGS_LIMIT}")
        for key, value in self.tags.items():
            check_text("tag key", key, TAG_KEY_LIMIT, empty=False)
            check_text(f"value of tag {key!r}", value, TAG_VALUE_LIMIT)


class ModelOutput(NamedTuple):
    """A logged model that a run brought forth, and at which step."""

    model_id: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Lineage:
    """What one run took in and brought forth."""

    datasets: list[DatasetInput] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    outputs: list[ModelOutput] = field(default_factory=list)


class DatasetSummary(NamedTuple):
    """A dataset that some run of an experiment took in, and for what; None: it did not say."""

    experiment_id: ExperimentId
    name: str
    digest: str
    context: str | None


def check_models(models: Sequence[ModelOutput]) -> None:
    """Models that a run takes in or brings forth. Raises InvalidArgument."""
    if len(models) > AT_ONCE:
        raise InvalidArgument("models", f"{len(models)} at once; the limit is {AT_ONCE}")
    for model_id, step in models:
        check_text("model_id", model_id, MODEL_ID_LIMIT, empty=False)
        if not INT64_MIN <= step <= INT64_MAX:
            raise InvalidArgument("step", f"{step} is no int64")


def check_inputs(inputs: Sequence[DatasetInput]) -> None:
    """Datasets that a run takes in. Raises InvalidArgument."""
    if len(inputs) > AT_ONCE:
        raise InvalidArgument("datasets", f"{len(inputs)} at once; the limit is {AT_ONCE}")
    for each in inputs:
        each.check()
