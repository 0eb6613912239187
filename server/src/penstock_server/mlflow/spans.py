"""Spans as MLflow's clients read them: in a trace as OpenTelemetry's JSON, in a file as MLflow's own."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from penstock_server.mlflow.trace_infos import expected_spans
from penstock_server.model.traces import Span, Trace

_PREFIX = "tr-"


def shown(span: Span) -> dict[str, Any]:
    """A span in a trace."""
    answer: dict[str, Any] = {"trace_id": _id(span.trace_id), "span_id": _id(span.span_id)}
    if span.parent_id is not None:
        answer["parent_span_id"] = _id(span.parent_id)
    answer["name"] = span.name
    answer["start_time_unix_nano"] = span.start_ns
    if span.end_ns is not None:
        answer["end_time_unix_nano"] = span.end_ns
    answer["attributes"] = _pairs(span.attributes)
    if span.events:
        answer["events"] = [
            {
                "time_unix_nano": event["time_unix_nano"],
                "name": event["name"],
                "attributes": _pairs(event["attributes"]),
            }
            for event in span.events
        ]
    if span.links:
        answer["links"] = [
            {
                "trace_id": _id(link["trace_id"]),
                "span_id": _id(link["span_id"]),
                "attributes": _pairs(link["attributes"] or {}),
            }
            for link in span.links
        ]
    status = {"code": f"STATUS_CODE_{span.status.name}"} if span.status.value else {}
    answer["status"] = {**status, "message": span.status_message} if span.status_message else status
    return answer


def file(spans: Iterable[Span]) -> bytes:
    """What a trace's traces.json has: attributes are JSON in JSON there."""
    return orjson.dumps({"spans": [_filed(span) for span in spans]})


def whole(trace: Trace, spans: Sequence[Span]) -> bool:
    """Whether these are all the spans of a trace."""
    return bool(spans) and len(spans) >= expected_spans(trace.metadata)


def _filed(span: Span) -> dict[str, Any]:
    return {
        "trace_id": _id(span.trace_id),
        "span_id": _id(span.span_id),
        "parent_span_id": None if span.parent_id is None else _id(span.parent_id),
        "name": span.name,
        "start_time_unix_nano": span.start_ns,
        "end_time_unix_nano": span.end_ns,
        "events": span.events,
        "status": {"code": f"STATUS_CODE_{span.status.name}", "message": span.status_message},
        "attributes": {key: orjson.dumps(value).decode() for key, value in span.attributes.items()},
        "links": span.links,
    }


def _id(digits: str) -> str:
    """An id that is hexadecimal here."""
    return b64encode(bytes.fromhex(digits.removeprefix(_PREFIX))).decode()


def _pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: Any) -> dict[str, Any]:
    """A JSON value as OpenTelemetry's AnyValue."""
    match value:
        case None:
            return {}
        case bool():
            return {"bool_value": value}
        case str():
            return {"string_value": value}
        case int():
            return {"int_value": value}
        case float():
            return {"double_value": value}
        case list():
            return {"array_value": {"values": [_value(each) for each in value]} if value else {}}
        case _:
            return {"kvlist_value": {"values": _pairs(value)} if value else {}}
