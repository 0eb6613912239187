"""What is known of a trace, and what is said of it, as MLflow's clients write and read it."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from penstock_server.mlflow import ids, json_texts, locations
from penstock_server.mlflow.arguments import Arguments, integer
from penstock_server.mlflow.errors import invalid
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.traces import Assessment, AssessmentKind, Trace, TraceState

ARTIFACTS = "mlflow.artifactLocation"
SPANS = "mlflow.trace.spansLocation"
HERE = "TRACKING_STORE"  # the value of SPANS: the server has them
SIZES = "mlflow.trace.sizeStats"
_EXPERIMENT = "MLFLOW_EXPERIMENT"
_TOLD = "mlflow.trace.infoFinalized"

# What answers cut values off at.
_TAG_SHOWN = 4_096
_METADATA_SHOWN = 250

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s")


def read(info: Arguments) -> Trace:
    """A trace as a client tells of it. Raises MlflowError."""
    place = info.message("trace_location") or Arguments({})
    if place.text("type", _EXPERIMENT) != _EXPERIMENT:
        raise invalid(
            f"Trace location type {place.text('type')[:100]} is none of this server: it has {_EXPERIMENT} alone"
        )
    return Trace(
        trace_id=info.required("trace_id"),
        experiment_id=experiment_of(place),
        request_ms=_time_ms(info, "request_time", 0),
        execution_ms=_duration_ms(info, "execution_duration"),
        state=state(info, "state"),
        client_request_id=info.optional("client_request_id"),
        request_preview=info.optional("request_preview"),
        response_preview=info.optional("response_preview"),
        tags=texts(info, "tags"),
        metadata=texts(info, "trace_metadata"),
        assessments=[read_assessment(each) for each in info.messages("assessments")],
    )


def experiment_of(location: Arguments) -> ExperimentId:
    """The experiment that a place of traces is. Raises MlflowError."""
    return ids.experiment_id(location.message("mlflow_experiment") or Arguments({}, "mlflow_experiment."))


def state(arguments: Arguments, name: str, unspecified: str = "STATE_UNSPECIFIED") -> TraceState:
    """A state by its name or its number. Raises MlflowError."""
    value = arguments.get(name)
    for each in TraceState:
        if value in (each.name, each.value) or (each is TraceState.STATE_UNSPECIFIED and value in (None, unspecified)):
            return each
    raise arguments.wrong(name, value, "Value must be one of " + ", ".join(each.name for each in TraceState))


def texts(arguments: Arguments, name: str) -> dict[str, str]:
    """A map of texts. Raises MlflowError."""
    value = arguments.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise arguments.wrong(name, value, "Value must be an object of strings")
    return value


def shown(trace: Trace) -> dict[str, Any]:
    """A trace as it goes out."""
    answer: dict[str, Any] = {"trace_id": trace.trace_id}
    if trace.client_request_id is not None:
        answer["client_request_id"] = trace.client_request_id
    place = {"experiment_id": str(trace.experiment_id)}
    answer["trace_location"] = {"type": _EXPERIMENT, "mlflow_experiment": place}
    answer["request_time"] = shown_time(trace.request_ms)
    if trace.execution_ms is not None:
        answer["execution_duration"] = _shown_duration(trace.execution_ms)
    answer["state"] = trace.state.name
    if metadata := shown_metadata(trace):
        answer["trace_metadata"] = metadata
    if trace.assessments:
        answer["assessments"] = [shown_assessment(trace.trace_id, each) for each in trace.assessments]
    answer["tags"] = shown_tags(trace)
    if trace.request_preview is not None:
        answer["request_preview"] = trace.request_preview
    if trace.response_preview is not None:
        answer["response_preview"] = trace.response_preview
    return answer


def shown_tags(trace: Trace) -> dict[str, str]:
    """Its tags as they go out, with where its files are."""
    place = locations.of_experiment(trace.experiment_id, trace.artifact_location)
    tags = {ARTIFACTS: locations.below(place, f"traces/{trace.trace_id}/artifacts"), **trace.tags}
    return {key: value[:_TAG_SHOWN] for key, value in tags.items()}


def shown_metadata(trace: Trace) -> dict[str, str]:
    """Its metadata as they go out."""
    metadata = {key: value[:_METADATA_SHOWN] for key, value in trace.metadata.items()}
    return {**metadata, _TOLD: "true"} if trace.told else metadata


def read_assessment(said: Arguments, assessment_id: str = "") -> Assessment:
    """What a client says of a trace; with an id made up when it gives none. Raises MlflowError."""
    now_ms = time.time_ns() // 1_000_000
    kind, value, error = read_value(said)
    source = said.message("source") or Arguments({})
    created_ms = _time_ms(said, "create_time", now_ms)
    return Assessment(
        assessment_id=assessment_id or said.text("assessment_id") or f"a-{uuid.uuid4().hex}",
        kind=kind,
        name=said.text("assessment_name"),
        value=value,
        error=error,
        source_type=source.text("source_type", "SOURCE_TYPE_UNSPECIFIED"),
        source_id=source.text("source_id"),
        created_ms=created_ms,
        updated_ms=_time_ms(said, "last_update_time", created_ms),
        rationale=said.optional("rationale"),
        metadata=texts(said, "metadata"),
        span_id=said.text("span_id") or None,
        overrides=said.text("overrides") or None,
        valid=said.flag("valid", default=True),
    )


def read_value(said: Arguments) -> tuple[AssessmentKind, Any, dict[str, Any] | None]:
    """What kind of assessment it is, its value and, of feedback, the error instead. Raises MlflowError."""
    if (found := said.message("expectation")) is not None:
        serialized = found.message("serialized_value")
        if serialized is None:
            return AssessmentKind.EXPECTATION, found.get("value"), None
        try:
            return AssessmentKind.EXPECTATION, json_texts.read(serialized.text("value")), None
        except ValueError:
            raise invalid("The value of an expectation must be JSON.") from None
    if (found := said.message("feedback")) is not None:
        return AssessmentKind.FEEDBACK, found.get("value"), found.get("error")
    if (found := said.message("issue")) is not None:
        return AssessmentKind.ISSUE, found.text("issue_name"), None
    raise invalid("Unknown assessment type: None")


def shown_assessment(trace_id: str, said: Assessment) -> dict[str, Any]:
    """An assessment as it goes out."""
    answer: dict[str, Any] = {
        "assessment_id": said.assessment_id,
        "assessment_name": said.name,
        "trace_id": trace_id,
        "source": {"source_type": said.source_type} | ({"source_id": said.source_id} if said.source_id else {}),
        "create_time": shown_time(said.created_ms),
        "last_update_time": shown_time(said.updated_ms),
    }
    if said.kind is AssessmentKind.ISSUE:
        answer["issue"] = {"issue_name": said.value}
    elif said.kind is AssessmentKind.FEEDBACK:
        answer["feedback"] = {"value": said.value} | ({} if said.error is None else {"error": said.error})
    elif isinstance(said.value, (dict, list)):
        text = orjson.dumps(said.value).decode()
        answer["expectation"] = {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": text}}
    else:
        answer["expectation"] = {"value": said.value}
    more = {
        "rationale": said.rationale,
        "metadata": said.metadata or None,
        "span_id": said.span_id,
        "overrides": said.overrides,
        "valid": said.valid,
    }
    return answer | {name: value for name, value in more.items() if value is not None}


def shown_time(time_ms: int) -> str:
    """A time in ms since 1970, as JSON of protocol buffers has it."""
    text = (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds").removesuffix("+00:00")
    return text.removesuffix(".000") + "Z"


def _shown_duration(duration_ms: int) -> str:
    seconds, rest = divmod(abs(duration_ms), 1000)
    return f"{'-' if duration_ms < 0 else ''}{seconds}{f'.{rest:03}' if rest else ''}s"


def _time_ms(arguments: Arguments, name: str, default: int) -> int:
    text = arguments.text(name)
    if not text:
        return default
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise arguments.wrong(name, text, "Value must be a time such as 2026-01-31T12:00:00.000Z") from None
    moment = found if found.tzinfo else found.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _duration_ms(arguments: Arguments, name: str) -> int | None:
    text = arguments.text(name)
    if not text:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise arguments.wrong(name, text, "Value must be a duration such as 1.5s")
    whole = int(found[2]) * 1000 + int((found[3] or "").ljust(3, "0")[:3])
    return -whole if found[1] else whole


def expected_spans(metadata: Mapping[str, str]) -> int:
    """How many spans its client said that a trace has; 0 when it did not."""
    try:
        sizes = orjson.loads(metadata.get(SIZES, "{}"))
        number = integer(sizes.get("num_spans", 0))
    except (orjson.JSONDecodeError, AttributeError):
        return 0
    return number or 0
