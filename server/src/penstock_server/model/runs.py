"""Runs: one training job each."""

from __future__ import annotations

import enum
import os
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import NewType

from penstock_server.model.errors import InvalidArgument
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.limits import check_text
from penstock_server.model.metrics import MetricSummary, check_key

RunId = NewType("RunId", uuid.UUID)

NAME_LIMIT = 500
USER_LIMIT = 250
SOURCE_LIMIT = 500
COMMIT_LIMIT = 100
PARAM_VALUE_LIMIT = 6_000
TAG_VALUE_LIMIT = 8_000
REQUEST_ID_LIMIT = 250


class RunStatus(enum.IntEnum):
    """The numbers of the protocol and of the tables."""

    RUNNING = 1
    SCHEDULED = 2
    FINISHED = 3
    FAILED = 4
    KILLED = 5

    @property
    def ended(self) -> bool:
        """Whether a run of this status logs no more."""
        return self in (RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED)


@dataclass(frozen=True, slots=True)
class Run:
    """One training job. Times are ms since 1970 UTC. `artifact_location` is its experiment's."""

    id: RunId
    experiment_id: ExperimentId
    name: str
    status: RunStatus
    lifecycle: Lifecycle
    user: str
    source_name: str
    git_commit: str
    parent_run_id: RunId | None
    start_ms: int
    end_ms: int | None
    updated_ms: int
    refused_records: int = 0  # by its writers, before they were numbered
    lost_records: int = 0  # by its writers, after that
    artifact_location: str = ""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[MetricSummary] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a caller says of a run to be made; see CreateRunRequest. Checked by `check`."""

    run_id: RunId | None = None
    experiment_id: ExperimentId | None = None
    experiment_name: str = ""
    name: str = ""
    status: RunStatus = RunStatus.RUNNING
    user: str = ""
    source_name: str = ""
    git_commit: str = ""
    parent_run_id: RunId | None = None
    start_ms: int = 0
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    request_id: str = ""


def parse_run_id(text: str, where: str = "run_id") -> RunId:
    """The UUID that a request carries as text, with or without dashes. Raises InvalidArgument."""
    try:
        if len(text) not in (32, 36):
            raise ValueError
        return RunId(uuid.UUID(text))
    except ValueError:
        raise InvalidArgument(where, f"{text[:40]!r} is not a run id (32 hexadecimal digits)") from None


def format_run_id(run_id: uuid.UUID) -> str:
    """The run id as requests and answers carry it."""
    return run_id.hex


def new_run_id(now_ms: int | None = None) -> RunId:
    """A UUIDv7: 48 bits of ms since 1970, then 74 random bits. Runs made one after another lie side by side."""
    ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    bits = (ms & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    return RunId(uuid.UUID(int=bits & ~(0x3 << 62) | 0x2 << 62))


def check_params(params: dict[str, str]) -> dict[str, str]:
    """A run's params. Raises InvalidArgument."""
    for key, value in params.items():
        check_key("param key", key)
        check_text(f"value of param {key!r}", value, PARAM_VALUE_LIMIT)
    return params


def check_tags(tags: dict[str, str]) -> dict[str, str]:
    """A run's tags. Raises InvalidArgument."""
    for key, value in tags.items():
        check_key("tag key", key)
        check_text(f"value of tag {key!r}", value, TAG_VALUE_LIMIT)
    return tags


_FIRST = (
    *("able", "bold", "brisk", "calm", "clear", "deft", "eager", "fair", "fleet", "gentle"),
    *("grand", "keen", "kind", "lively", "lucid", "merry", "noble", "proud", "quick", "swift"),
)
_SECOND = (
    *("brook", "cascade", "channel", "creek", "current", "delta", "eddy", "falls", "fjord", "ford"),
    *("mill", "rapids", "reach", "river", "sluice", "spring", "stream", "tide", "wave", "weir"),
)


def made_up_name() -> str:
    """A name for a run that was given none, such as "swift-weir-412"."""
    return f"{random.choice(_FIRST)}-{random.choice(_SECOND)}-{random.randrange(1000)}"
