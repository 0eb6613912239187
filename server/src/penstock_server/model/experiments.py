"""Experiments: named groups of runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NewType

from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.limits import check_text, parse_decimal

ExperimentId = NewType("ExperimentId", int)

DEFAULT_EXPERIMENT = ExperimentId(0)

NAME_LIMIT = 500
TAG_KEY_LIMIT = 250
TAG_VALUE_LIMIT = 20_000
LOCATION_LIMIT = 2_048


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named group of runs. Times are ms since 1970 UTC.

    `artifact_location` is where MLflow's clients write its runs' files by themselves; empty: in our store.
    """

    id: ExperimentId
    name: str
    lifecycle: Lifecycle
    created_ms: int
    updated_ms: int
    tags: dict[str, str] = field(default_factory=dict)
    artifact_location: str = ""


def parse_experiment_id(text: str, where: str = "experiment_id") -> ExperimentId:
    """The id that a request carries as text. Raises InvalidArgument."""
    return ExperimentId(parse_decimal(text, where))


def check_name(name: str) -> str:
    """An experiment's name: 1 to 500 characters. Raises InvalidArgument."""
    return check_text("name", name, NAME_LIMIT, empty=False)


def check_tags(tags: dict[str, str]) -> dict[str, str]:
    """An experiment's tags. Raises InvalidArgument."""
    for key, value in tags.items():
        check_text("tag key", key, TAG_KEY_LIMIT, empty=False)
        check_text(f"value of tag {key!r}", value, TAG_VALUE_LIMIT)
    return tags
