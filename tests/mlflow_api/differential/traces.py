"""Random requests about traces: what is told of them, not their spans."""

from __future__ import annotations

from hypothesis import strategies as st

from differential.acts import Trace, act, experiment, fields, one_of, orders, sizes, some

_HERE = "/api/3.0/mlflow/traces"
trace = st.builds(Trace, st.integers(0, 3))
texts_by_key = st.dictionaries(
    one_of("a", "b", "c d", "e/f", "x" * 250, ""), one_of("x", "y", "", "Größe", "a'b"), max_size=2
)
place = fields(type="MLFLOW_EXPERIMENT", mlflow_experiment=fields(experiment_id=experiment))
info = fields(
    trace_id=trace,
    trace_location=place,
    request_time=one_of("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.250Z", "2026-02-01T00:00:00+02:00", "x"),
    execution_duration=one_of("1s", "1.500s", "0s", None),
    state=one_of("OK", "ERROR", "IN_PROGRESS", "STATE_UNSPECIFIED", None),
    client_request_id=one_of(None, "c1"),
    request_preview=one_of(None, "asked"),
    response_preview=one_of(None, "said"),
    trace_metadata=texts_by_key,
    tags=texts_by_key,
)
keys = one_of("a", "b", "c d", "e/f", "", "x" * 250, "x" * 251, "mlflow.traceName")
conditions = one_of(
    *(None, "", "tags.a = 'x'", "tag.a != 'x'", "tags.`c d` LIKE '%ö%'", "tags.a ILIKE 'X'", "tags.a IS NULL"),
    *(
        "metadata.a = 'x'",
        "request_metadata.b != 'y'",
        "status = 'OK'",
        "attributes.status != 'ERROR'",
        "trace.status IN ('OK')",
    ),
    *(
        "timestamp > 5",
        "timestamp_ms <= 1769860800000",
        "execution_time_ms = 1000",
        "execution_time >= 0",
        "execution_time = 'x'",
    ),
    *(
        "client_request_id = 'c1'",
        "request_id LIKE 'tr-%'",
        "name = 'n'",
        "status > 'OK'",
        "nothing = 'x'",
        "tags.a",
        "'",
    ),
    *("tags.a = 'x' AND metadata.a = 'x'", "status = 'OK' AND timestamp > 0 AND tags.a != 'y'"),
)
TRACES = [
    act("POST", _HERE, trace=fields(trace_info=info)),
    act("POST", _HERE, trace=fields(trace_info=info)),
    act("GET", f"{_HERE}/{{trace}}", trace=trace),
    act("PATCH", f"{_HERE}/{{trace}}/tags", trace=trace, key=keys, value=one_of("x", "y", "", "Größe")),
    act("DELETE", f"{_HERE}/{{trace}}/tags", trace=trace, key=keys),
    act("POST", f"{_HERE}/batchGetInfos", trace_ids=some(trace)),
    act(
        *("POST", f"{_HERE}/search"),
        locations=some(place, 2),
        filter=conditions,
        order_by=orders("timestamp_ms", "timestamp DESC", "execution_time_ms", "status", "x", "tags.a"),
        max_results=sizes,
    ),
    act(
        *("POST", f"{_HERE}/delete-traces"),
        experiment_id=experiment,
        max_timestamp_millis=one_of(None, 1_769_860_800_000, 1_769_860_800_250, 0),
        max_traces=one_of(None, 1, 0, 5),
        request_ids=one_of(None, [], ["no"]),
    ),
    act("POST", f"{_HERE}/delete-traces", experiment_id=experiment, request_ids=some(trace, 2)),
    act("POST", "experiments/delete", experiment_id=experiment),
    act("POST", "experiments/restore", experiment_id=experiment),
    act("GET", "/api/2.0/mlflow/traces/{trace}/info", trace=trace),
]
