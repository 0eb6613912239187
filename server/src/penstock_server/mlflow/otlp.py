"""Spans as OpenTelemetry's exporters send them: OTLP over HTTP, of protocol buffers or of JSON.

The ids of traces follow from those of OpenTelemetry, whatever else a client says they are.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict
from google.protobuf.json_format import ParseError as JsonParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as PbResource
from opentelemetry.proto.trace.v1 import trace_pb2 as pb

from penstock_server.core.traces import Told, Traces
from penstock_server.mlflow import ids, previews
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import RawEndpoint, Reply, Request
from penstock_server.mlflow.errors import invalid
from penstock_server.mlflow.trace_infos import HERE, SPANS
from penstock_server.model.access import Caller, Need, Permission, Resource
from penstock_server.model.traces import KEY_LIMIT, Span, SpanStatus

PATH = "/v1/traces"
# Of an export, when it is unpacked: a small one can be made to unpack to any size.
UNPACKED_LIMIT = 64 << 20

_EXPERIMENT, _RUN = "x-mlflow-experiment-id", "x-mlflow-run-id"
_PROTOBUF, _JSON = "application/x-protobuf", "application/json"
# An export that is longer is read in a thread, so that the others need not wait for it; a few such at once, since one
# takes many times its bytes.
_LONG = 256 << 10
_LONG_AT_ONCE = 2
_TRACE_ID_BYTES = 16
_SPAN_ID_BYTES = 64
_REQUEST_ID = "mlflow.traceRequestId"
_TYPE = "mlflow.spanType"
_INPUTS, _OUTPUTS = "mlflow.spanInputs", "mlflow.spanOutputs"
_TAG = "mlflow.traceTag."
_SESSION, _SESSIONS = "mlflow.trace.session", ("session.id", "gen_ai.conversation.id")
_USER, _USERS = "mlflow.trace.user", "user.id"
_OWN = ("telemetry.sdk.", "mlflow.")  # attributes of a resource that are no tags


class Otlp:
    """The endpoint of exporters."""

    def __init__(self, traces: Traces) -> None:
        self._traces = traces
        self._long = asyncio.Semaphore(_LONG_AT_ONCE)

    def __iter__(self) -> Iterator[RawEndpoint]:
        yield RawEndpoint("POST", PATH, self._receive, _need)

    async def _receive(self, caller: Caller, request: Request) -> Reply:
        """Keeps all the spans of an export or, when one of them cannot be kept, none. Raises MlflowError."""
        experiment_id = ids.experiment_id(Arguments({"experiment_id": request.headers.get(_EXPERIMENT)}))
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (_PROTOBUF, _JSON):
            raise invalid(f"Invalid Content-Type: {media_type[:100]}. Expected: {_PROTOBUF} or {_JSON}")
        encoding = request.headers.get("content-encoding", "").lower()
        run_id = request.headers.get(_RUN, "")
        if len(request.body) > _LONG or encoding:
            async with self._long:
                spans, told = await asyncio.to_thread(_read, request.body, encoding, media_type)
                await self._traces.add_spans(caller, experiment_id, spans, told, run_id)
        else:
            spans, told = _read(request.body, encoding, media_type)
            await self._traces.add_spans(caller, experiment_id, spans, told, run_id)
        return Reply(200, b"{}" if media_type == _JSON else b"", media_type=media_type)


def _need(request: Request) -> Need:
    experiment_id = request.headers.get(_EXPERIMENT, "")
    return Need(Permission.WRITE, Resource.EXPERIMENT, (experiment_id,) if experiment_id else ())


def _read(body: bytes, encoding: str, media_type: str) -> tuple[list[Span], dict[str, Told]]:
    export = _parsed(_unpacked(body, encoding), media_type)
    if not export.resource_spans:
        raise invalid("Invalid OpenTelemetry format - no spans found")
    spans: list[Span] = []
    told: dict[str, Told] = {}
    for group in export.resource_spans:
        of_resource = _tags_of(group.resource)
        for scope in group.scope_spans:
            for each in scope.spans:
                span = _span(each)
                spans.append(span)
                told[span.trace_id] = _joined(told.get(span.trace_id), span, of_resource)
    return spans, told


def _unpacked(body: bytes, encoding: str) -> bytes:
    if not encoding or encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise invalid(f"Unsupported Content-Encoding: {encoding[:100]}")
    # Both headers, and for `deflate` none at all as well, which some clients send.
    for window in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS) if encoding == "deflate" else (zlib.MAX_WBITS | 16,):
        unpacking = zlib.decompressobj(window)
        try:
            unpacked = unpacking.decompress(body, UNPACKED_LIMIT + 1)
        except zlib.error:
            continue
        if len(unpacked) > UNPACKED_LIMIT:
            raise invalid(f"the body has more than {UNPACKED_LIMIT} bytes when it is unpacked")
        if unpacking.eof:
            return unpacked
    raise invalid(f"Failed to decompress {encoding} payload")


def _parsed(body: bytes, media_type: str) -> ExportTraceServiceRequest:
    export = ExportTraceServiceRequest()
    try:
        if media_type == _PROTOBUF:
            export.ParseFromString(body)
        else:
            ParseDict(_with_base64(orjson.loads(body)), export, ignore_unknown_fields=True)
    except (DecodeError, JsonParseError, ValueError, TypeError, AttributeError, RecursionError):
        raise invalid("Invalid OpenTelemetry format") from None
    return export


def _with_base64(export: dict[str, Any]) -> dict[str, Any]:
    """OTLP's JSON with its ids as protocol buffers have bytes: they are hexadecimal there."""
    for group in export.get("resourceSpans", []):
        for scope in group.get("scopeSpans", []):
            for span in scope.get("spans", []):
                for each in (span, *span.get("links", [])):
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if digits := each.get(name):
                            each[name] = b64encode(bytes.fromhex(digits)).decode()
    return export


def _span(found: pb.Span) -> Span:
    if not 0 < len(found.trace_id) <= _TRACE_ID_BYTES or not 0 < len(found.span_id) <= _SPAN_ID_BYTES:
        raise invalid("Cannot convert OpenTelemetry span to MLflow span: it needs a traceId and a spanId")
    trace_id = _trace_id(found.trace_id)
    attributes = _values(found.attributes) | {_REQUEST_ID: trace_id}
    kind = attributes.get(_TYPE)
    return Span(
        trace_id=trace_id,
        span_id=_digits(found.span_id, 8),
        parent_id=_digits(found.parent_span_id, 8) if found.parent_span_id else None,
        name=found.name.replace("\0", "\ufffd"),
        type=kind.replace("\0", "\ufffd") if isinstance(kind, str) else "UNKNOWN",
        status=SpanStatus(found.status.code) if found.status.code in (1, 2) else SpanStatus.UNSET,
        status_message=found.status.message.replace("\0", "\ufffd"),
        start_ns=found.start_time_unix_nano,
        end_ns=found.end_time_unix_nano or None,
        attributes=attributes,
        events=[
            {"name": event.name, "time_unix_nano": event.time_unix_nano, "attributes": _values(event.attributes)}
            for event in found.events
        ],
        links=[
            {
                "trace_id": _trace_id(link.trace_id),
                "span_id": _digits(link.span_id, 8),
                "attributes": _values(link.attributes) or None,
            }
            for link in found.links
        ],
    )


def _trace_id(raw: bytes) -> str:
    return "tr-" + _digits(raw, _TRACE_ID_BYTES)


def _digits(raw: bytes, least: int) -> str:
    return raw.rjust(least, b"\0").hex()


def _joined(told: Told | None, span: Span, of_resource: Mapping[str, str]) -> Told:
    """What is told of a trace, with what this span tells."""
    before = told or Told({SPANS: HERE, **of_resource})
    metadata = dict(before.metadata)
    session = next((found for name in _SESSIONS if (found := span.attributes.get(name))), None)
    for key, value in ((_SESSION, session), (_USER, span.attributes.get(_USERS))):
        if value:
            metadata.setdefault(key, previews.text(value))
    if span.parent_id is not None:
        return Told(before.tags, metadata, before.request_preview, before.response_preview)
    tags = {
        key.removeprefix(_TAG): previews.text(value)
        for key, value in span.attributes.items()
        if key.startswith(_TAG) and _is_key(key.removeprefix(_TAG))
    }
    return Told(
        {**before.tags, **tags},
        metadata,
        previews.of(span.attributes.get(_INPUTS), "user"),
        previews.of(span.attributes.get(_OUTPUTS), "assistant"),
    )


def _tags_of(resource: PbResource) -> dict[str, str]:
    found = _values(resource.attributes)
    return {key: previews.text(value) for key, value in found.items() if not key.startswith(_OWN) and _is_key(key)}


def _is_key(key: str) -> bool:
    """Whether a trace may have a tag of this key; one that it may not have is no reason to lose the trace."""
    return 0 < len(key) <= KEY_LIMIT and "\0" not in key


def _values(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {found.key: _value(found.value) for found in pairs}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(each) for each in value.array_value.values]
        case "kvlist_value":
            return _values(value.kvlist_value.values)
        case "bytes_value":
            return b64encode(value.bytes_value).decode()
        case "double_value" if not math.isfinite(value.double_value):
            return str(value.double_value)
        case name:
            return getattr(value, name)
