"""Spans as OpenTelemetry's exporters send them."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from asking import Asking, Told
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1 import trace_pb2 as pb

from penstock_server.mlflow.otlp import UNPACKED_LIMIT

PROTOBUF, JSON = "application/x-protobuf", "application/json"
HERE = "/api/3.0/mlflow/traces"
SECOND = 1_000_000_000


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def trace_bytes(number: int) -> bytes:
    return number.to_bytes(16, "big")


def named(number: int) -> str:
    return f"tr-{trace_bytes(number).hex()}"


def root(number: int, **fields: Any) -> pb.Span:
    return pb.Span(
        trace_id=trace_bytes(number),
        span_id=b"\1" * 8,
        name="root",
        start_time_unix_nano=SECOND,
        end_time_unix_nano=3 * SECOND,
        **fields,
    )


def export(*spans: pb.Span, resource: list[KeyValue] | None = None) -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(resource or [])
    group.scope_spans.add().spans.extend(spans)
    return request.SerializeToString()


def send(ask: Asking, body: bytes, media_type: str = PROTOBUF, **headers: str) -> Told:
    named_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"content-type": media_type, "x-mlflow-experiment-id": "0", **named_headers}
    return ask.request("POST", "/v1/traces", body, sent)


def test_what_is_sent_is_read(ask: Asking) -> None:
    child = pb.Span(
        trace_id=trace_bytes(1),
        span_id=b"\2" * 8,
        parent_span_id=b"\1" * 8,
        name="child",
        start_time_unix_nano=2 * SECOND,
        end_time_unix_nano=2 * SECOND + 1,
        attributes=[
            text("mlflow.spanType", "LLM"),
            KeyValue(key="none", value=AnyValue()),
            KeyValue(key="whole", value=AnyValue(int_value=7)),
            KeyValue(key="real", value=AnyValue(double_value=1.0)),
            KeyValue(key="yes", value=AnyValue(bool_value=True)),
            KeyValue(key="list", value=AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="ü")]))),
            KeyValue(key="map", value=AnyValue(kvlist_value=KeyValueList(values=[text("zeta", "1"), text("a", "2")]))),
        ],
        status=pb.Status(code=pb.Status.STATUS_CODE_ERROR, message="no"),
        events=[pb.Span.Event(name="seen", time_unix_nano=2 * SECOND, attributes=[text("e", "f")])],
        links=[pb.Span.Link(trace_id=trace_bytes(9), span_id=b"\3" * 8)],
    )
    attributes = [text("mlflow.spanInputs", "question"), text("mlflow.traceTag.team", "vision"), text("user.id", "ann")]
    resource = [text("service.name", "shop"), text("telemetry.sdk.name", "otel")]
    told = send(ask, export(child, root(1, attributes=attributes), resource=resource))
    assert (told.status, told.body, told.headers["content-type"]) == (200, b"", PROTOBUF)
    trace = ask.read(f"{HERE}/get", trace_id=named(1))["trace"]
    info = trace["trace_info"]
    assert (info["request_time"], info["execution_duration"]) == ("1970-01-01T00:00:01Z", "2s")
    assert (info["state"], info["request_preview"]) == ("OK", '"question"')
    tags = {"mlflow.trace.spansLocation": "TRACKING_STORE", "service.name": "shop", "team": "vision"}
    assert info["tags"].items() >= tags.items()
    assert "telemetry.sdk.name" not in info["tags"]
    assert info["trace_metadata"] == {"mlflow.trace.user": "ann"}
    first, second = trace["spans"]
    assert (first["name"], "parent_span_id" in first) == ("root", False)
    assert second == {
        "trace_id": "AAAAAAAAAAAAAAAAAAAAAQ==",
        "span_id": "AgICAgICAgI=",
        "parent_span_id": "AQEBAQEBAQE=",
        "name": "child",
        "start_time_unix_nano": 2 * SECOND,
        "end_time_unix_nano": 2 * SECOND + 1,
        "attributes": [
            {"key": "mlflow.spanType", "value": {"string_value": "LLM"}},
            {"key": "none", "value": {}},
            {"key": "whole", "value": {"int_value": 7}},
            {"key": "real", "value": {"double_value": 1.0}},
            {"key": "yes", "value": {"bool_value": True}},
            {"key": "list", "value": {"array_value": {"values": [{"string_value": "ü"}]}}},
            {
                "key": "map",
                "value": {
                    "kvlist_value": {
                        "values": [
                            {"key": "zeta", "value": {"string_value": "1"}},
                            {"key": "a", "value": {"string_value": "2"}},
                        ]
                    }
                },
            },
            {"key": "mlflow.traceRequestId", "value": {"string_value": named(1)}},
        ],
        "events": [
            {
                "time_unix_nano": 2 * SECOND,
                "name": "seen",
                "attributes": [{"key": "e", "value": {"string_value": "f"}}],
            }
        ],
        "links": [{"trace_id": "AAAAAAAAAAAAAAAAAAAACQ==", "span_id": "AwMDAwMDAwM=", "attributes": []}],
        "status": {"code": "STATUS_CODE_ERROR", "message": "no"},
    }
    assert ask.read(f"{HERE}/batchGet", trace_ids=[named(1)]) == {"traces": [trace]}
    file = ask.get("/ajax-api/2.0/mlflow/get-trace-artifact", request_id=named(1))
    assert file.headers["content-disposition"] == 'attachment; filename="traces.json"'
    assert file.json["spans"][1]["attributes"]["map"] == '{"zeta":"1","a":"2"}'


def test_json_has_hexadecimal_ids(ask: Asking) -> None:
    span = {"traceId": trace_bytes(2).hex(), "spanId": "01" * 8, "name": "root", "startTimeUnixNano": "1000000000"}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{**span, "unknown": 1}]}]}]}).encode()
    told = send(ask, body, f"{JSON}; charset=utf-8")
    assert (told.status, told.json) == (200, {})
    [trace] = ask.read(f"{HERE}/batchGet", trace_ids=[named(2)])["traces"]
    assert trace["spans"][0]["span_id"] == "AQEBAQEBAQE="


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw"])
def test_packed(ask: Asking, encoding: str) -> None:
    number = {"gzip": 31, "deflate": 32, "raw": 33}[encoding]
    body = export(root(number))
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = {"gzip": gzip.compress(body), "deflate": zlib.compress(body), "raw": raw.compress(body) + raw.flush()}
    told = send(ask, packed[encoding], content_encoding="deflate" if encoding == "raw" else encoding)
    assert told.status == 200
    assert ask.get(f"{HERE}/{named(number)}").status == 200


def test_a_bomb_is_refused(ask: Asking) -> None:
    told = send(ask, gzip.compress(bytes(UNPACKED_LIMIT + 1)), content_encoding="gzip")
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "when it is unpacked" in told.json["message"]


def test_all_or_nothing(ask: Asking) -> None:
    told = send(ask, export(root(41), pb.Span(name="no ids")))
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")
    assert ask.get(f"{HERE}/{named(41)}").status == 404


def test_what_cannot_be_read(ask: Asking) -> None:
    for body, media_type, headers in (
        (b"", PROTOBUF, {}),
        (b"zzzz", PROTOBUF, {}),
        (b"{", JSON, {}),
        (b"[1]", JSON, {}),
        (b'{"resourceSpans": 1}', JSON, {}),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}', JSON, {}),
        (export(root(5)), "text/plain", {}),
        (export(root(5)), PROTOBUF, {"content_encoding": "br"}),
        (export(root(5)), PROTOBUF, {"content_encoding": "gzip"}),
        (gzip.compress(export(root(5)))[:-9], PROTOBUF, {"content_encoding": "gzip"}),
        (export(root(5)), PROTOBUF, {"x_mlflow_experiment_id": "abc"}),
        (export(root(5)), PROTOBUF, {"x_mlflow_experiment_id": ""}),
    ):
        told = send(ask, body, media_type, **headers)
        assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE"), (body, media_type, headers)
    told = send(ask, export(root(5)), x_mlflow_experiment_id="99")
    assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert ask.get(f"{HERE}/{named(5)}").status == 404


def test_linked_to_a_run(ask: Asking) -> None:
    run_id = ask.ok("runs/create", experiment_id="0")["run"]["info"]["run_id"]
    assert send(ask, export(root(6), root(7)), x_mlflow_run_id=run_id).status == 200
    place = {"mlflow_experiment": {"experiment_id": "0"}}
    linked = ask.ok(f"{HERE}/search", locations=[place], filter=f"run_id = '{run_id}'")["traces"]
    assert [each["trace_id"] for each in linked] == [named(6), named(7)]


def test_spans_that_are_still_on_their_way(ask: Asking) -> None:
    sizes = {"mlflow.trace.sizeStats": json.dumps({"num_spans": 2})}
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    ask.ok(HERE, trace={"trace_info": {"trace_id": named(8), "trace_location": place, "trace_metadata": sizes}})
    assert send(ask, export(root(8))).status == 200
    assert ask.read(f"{HERE}/batchGet", trace_ids=[named(8)]) == {}
    assert len(ask.read(f"{HERE}/get", trace_id=named(8), allow_partial="true")["trace"]["spans"]) == 1
    told = ask.get(f"{HERE}/get", trace_id=named(8))
    assert (told.status, told.code) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_chats_are_shown_by_what_was_said_last(ask: Asking) -> None:
    said = [("system", "be kind"), ("user", "hello"), ("assistant", "hi")]
    messages = [
        AnyValue(kvlist_value=KeyValueList(values=[text("role", role), text("content", content)]))
        for role, content in said
    ]
    values = KeyValueList(values=[KeyValue(key="messages", value=AnyValue(array_value=ArrayValue(values=messages)))])
    inputs = KeyValue(key="mlflow.spanInputs", value=AnyValue(kvlist_value=values))
    outputs = text("mlflow.spanOutputs", "x" * 2_000)
    assert send(ask, export(root(10, attributes=[inputs, outputs]))).status == 200
    info = ask.read(f"{HERE}/{named(10)}")["trace"]["trace_info"]
    assert info["request_preview"] == "hello"
    assert info["response_preview"] == '"' + "x" * 996 + "..."
