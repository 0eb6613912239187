"""Traces: what happened inside of one request of an application, step by step, and what is said of it."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock_server.model.errors import InvalidArgument
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.limits import check_text

ID_LIMIT = 250
KEY_LIMIT = 250
VALUE_LIMIT = 8_000
PREVIEW_LIMIT = 10_000
PAIRS_LIMIT = 1_000
PAIRS_CHARACTERS = 250_000  # in all: a page has up to 500 traces
RATIONALE_LIMIT = 65_535
SAID_LIMIT = 65_535  # characters of JSON that the value of an assessment has, or its error
ASSESSMENTS_LIMIT = 1_000  # of a trace
GET_LIMIT = 500  # traces that are read at once
SPANS_BYTES = 64 << 20  # of spans that are read at once, when they are of several traces
LINK_LIMIT = 100  # traces that are linked at once
DELETE_LIMIT = 1_000  # traces that one transaction removes

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class TraceState(enum.Enum):
    """How a trace ended, by the number that JSON may have instead of the name."""

    STATE_UNSPECIFIED = 0
    OK = 1
    ERROR = 2
    IN_PROGRESS = 3


class SpanStatus(enum.Enum):
    """How a span ended, by OpenTelemetry's number."""

    UNSET = 0
    OK = 1
    ERROR = 2


class AssessmentKind(enum.Enum):
    """What an assessment is."""

    FEEDBACK = "feedback"
    EXPECTATION = "expectation"
    ISSUE = "issue"


@dataclass(frozen=True, slots=True)
class Span:
    """One step. `parent_id` is None of the root; times are ns since 1970; ids are hexadecimal."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    type: str
    status: SpanStatus
    status_message: str
    start_ns: int
    end_ns: int | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    links: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Assessment:
    """What somebody says of a trace. Times are ms since 1970."""

    assessment_id: str
    kind: AssessmentKind
    name: str
    value: Any
    source_type: str
    source_id: str
    created_ms: int
    updated_ms: int
    error: Mapping[str, Any] | None = None
    rationale: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    span_id: str | None = None
    overrides: str | None = None
    valid: bool = True


@dataclass(frozen=True, slots=True)
class Trace:
    """One request of an application, without its spans. Times are ms since 1970.

    `artifact_location` is its experiment's. `told` says that its client has told all of it; else times and the like
    follow from its spans, too.
    """

    trace_id: str
    experiment_id: ExperimentId
    request_ms: int
    execution_ms: int | None
    state: TraceState
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    told: bool = True
    artifact_location: str = ""
    assessments: Sequence[Assessment] = ()


def check_trace_id(trace_id: str, where: str = "trace_id") -> str:
    """A trace's id. Raises InvalidArgument."""
    return check_text(where, trace_id, ID_LIMIT, empty=False)


def check_pairs(where: str, pairs: Mapping[str, str]) -> dict[str, str]:
    """Tags or metadata, as they can be kept: what is too long of a value is cut off. Raises InvalidArgument."""
    if len(pairs) > PAIRS_LIMIT:
        raise InvalidArgument(where, f"has {len(pairs)} entries; the limit is {PAIRS_LIMIT}")
    for key in pairs:
        check_text(f"key of {where}", key, KEY_LIMIT, empty=False)
    kept = {key: storable(value)[:VALUE_LIMIT] for key, value in pairs.items()}
    if (characters := sum(map(len, kept.values()))) > PAIRS_CHARACTERS:
        raise InvalidArgument(where, f"has {characters} characters; the limit is {PAIRS_CHARACTERS}")
    return kept


def storable(text: str) -> str:
    """The text, with U+FFFD for what PostgreSQL has no place for: what a model has answered is not lost for a NUL."""
    return _UNSTORABLE.sub("\ufffd", text) if "\0" in text or not text.isascii() else text
