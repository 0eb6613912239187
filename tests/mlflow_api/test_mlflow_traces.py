"""Traces over MLflow's REST API."""

from __future__ import annotations

from typing import Any

from asking import Asking, Told

HERE = "/api/3.0/mlflow/traces"
OLD = "/api/2.0/mlflow/traces"
PLACE = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}


def info(number: int, **fields: Any) -> dict[str, Any]:
    told = {
        "trace_id": f"tr-{number:032x}",
        "trace_location": PLACE,
        "request_time": "2026-01-31T12:00:00.250Z",
        "execution_duration": "1.500s",
        "state": "OK",
    }
    return {**told, **fields}


def start(ask: Asking, number: int, **fields: Any) -> Any:
    return ask.ok(HERE, trace={"trace_info": info(number, **fields)})["trace"]["trace_info"]


def refused(told: Told) -> tuple[int, str]:
    return told.status, told.code


def searched(ask: Asking, **fields: Any) -> Any:
    return ask.ok(f"{HERE}/search", locations=[PLACE], **fields)


def test_told_and_read(ask: Asking) -> None:
    said = {
        "assessment_name": "good",
        "source": {"source_type": "HUMAN", "source_id": "ann"},
        "create_time": "2026-01-31T12:00:01Z",
        "feedback": {"value": 0.5},
    }
    made = start(
        ask,
        1,
        client_request_id="c",
        request_preview="?",
        response_preview="!",
        tags={"team": "vision"},
        trace_metadata={"m": "n"},
        assessments=[said],
    )
    assessment_id = made["assessments"][0]["assessment_id"]
    assert made == info(
        1,
        client_request_id="c",
        request_preview="?",
        response_preview="!",
        tags={"team": "vision", "mlflow.artifactLocation": f"mlflow-artifacts:/0/traces/tr-{1:032x}/artifacts"},
        trace_metadata={"m": "n", "mlflow.trace.infoFinalized": "true"},
        assessments=[
            {
                **said,
                "assessment_id": assessment_id,
                "trace_id": f"tr-{1:032x}",
                "last_update_time": "2026-01-31T12:00:01Z",
                "valid": True,
            }
        ],
    )
    assert ask.read(f"{HERE}/tr-{1:032x}") == {"trace": {"trace_info": made}}
    assert ask.ok(f"{HERE}/batchGetInfos", trace_ids=[f"tr-{1:032x}", "tr-none"]) == {"trace_infos": [made]}
    elsewhere = ask.ok(f"{HERE}/batchGetInfos", trace_ids=[f"tr-{1:032x}"], experiment_ids=["7"])
    assert elsewhere == {}


def test_times_and_durations(ask: Asking) -> None:
    made = start(ask, 2, request_time="2026-01-31T13:00:00+01:00", execution_duration="61s", state=3)
    assert made["request_time"] == "2026-01-31T12:00:00Z"
    assert made["execution_duration"] == "61s"
    assert made["state"] == "IN_PROGRESS"
    assert start(ask, 2, execution_duration="-0.5s")["execution_duration"] == "-0.500s"


def test_what_cannot_be_told(ask: Asking) -> None:
    for fields in (
        {},
        {"trace": {"trace_info": info(3, request_time="yesterday")}},
        {"trace": {"trace_info": info(3, execution_duration="long")}},
        {"trace": {"trace_info": info(3, state="FINE")}},
        {"trace": {"trace_info": info(3, tags=["a"])}},
        {"trace": {"trace_info": info(3, trace_location={})}},
        {"trace": {"trace_info": info(3, trace_location={"type": "INFERENCE_TABLE"})}},
        {"trace": {"trace_info": info(3, assessments=[{"assessment_name": "empty"}])}},
    ):
        assert refused(ask.post(HERE, **fields)) == (400, "INVALID_PARAMETER_VALUE"), fields
    elsewhere = {"mlflow_experiment": {"experiment_id": "99"}}
    told = ask.post(HERE, trace={"trace_info": info(3, trace_location=elsewhere)})
    assert refused(told) == (404, "RESOURCE_DOES_NOT_EXIST")
    told = ask.get(f"{HERE}/tr-none")
    assert refused(told) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert told.json["message"] == "Trace with ID 'tr-none' not found."


def test_searched_page_by_page(ask: Asking) -> None:
    for number in (40, 41, 42):
        start(ask, number, tags={"set": "pages"}, request_time=f"2026-02-{number - 20}T00:00:00Z")
    asked = {"filter": "tags.`set` = 'pages'", "max_results": 2}
    first = searched(ask, **asked)
    assert [each["trace_id"] for each in first["traces"]] == [f"tr-{number:032x}" for number in (42, 41)]
    rest = searched(ask, **asked, page_token=first["next_page_token"])
    assert [each["trace_id"] for each in rest["traces"]] == [f"tr-{40:032x}"]
    assert "next_page_token" not in rest
    oldest = searched(ask, **asked | {"order_by": ["timestamp_ms ASC"]})
    assert oldest["traces"][0]["trace_id"] == f"tr-{40:032x}"
    assert searched(ask, filter="tags.`set` = 'none'") == {}
    assert ask.ok(f"{HERE}/search", locations=[]) == {}


def test_searches_that_cannot_be(ask: Asking) -> None:
    for fields in (
        {"filter": "foo"},
        {"max_results": 501},
        {"max_results": 0},
        {"page_token": "nonsense"},
        {"order_by": ["span.name"]},
        {"filter": "name RLIKE '('"},
    ):
        told = ask.post(f"{HERE}/search", locations=[PLACE], **fields)
        assert refused(told) == (400, "INVALID_PARAMETER_VALUE"), fields
    assert refused(ask.post(f"{HERE}/search")) == (400, "INVALID_PARAMETER_VALUE")


def test_tags(ask: Asking) -> None:
    start(ask, 5)
    for here in (HERE, OLD):
        path = f"{here}/tr-{5:032x}/tags"
        assert ask.json("PATCH", path, {"key": "a", "value": "b"}).json == {}
        assert ask.read(f"{HERE}/tr-{5:032x}")["trace"]["trace_info"]["tags"]["a"] == "b"
        assert ask.json("DELETE", path, {"key": "a"}).json == {}
        assert refused(ask.json("DELETE", path, {"key": "a"})) == (404, "RESOURCE_DOES_NOT_EXIST")
        ours = {"key": "mlflow.trace.spansLocation", "value": "elsewhere"}
        assert refused(ask.json("PATCH", path, ours)) == (400, "INVALID_PARAMETER_VALUE")
        assert refused(ask.json("DELETE", path, ours)) == (400, "INVALID_PARAMETER_VALUE")
    assert refused(ask.json("PATCH", f"{HERE}/tr-none/tags", {"key": "a"})) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_deleted(ask: Asking) -> None:
    place = {"mlflow_experiment": {"experiment_id": ask.ok("experiments/create", name="deleted")["experiment_id"]}}
    experiment_id = place["mlflow_experiment"]["experiment_id"]
    for number in (60, 61, 62):
        start(ask, number, trace_location=place, request_time=f"1970-01-01T00:00:{number - 60:02}Z")
    delete = f"{HERE}/delete-traces"
    assert ask.ok(delete, experiment_id=experiment_id, max_timestamp_millis=1_000, max_traces=1) == {
        "traces_deleted": 1
    }
    gone = ask.ok(f"{OLD}/delete-traces", experiment_id=experiment_id, request_ids=[f"tr-{62:032x}", "tr-none"])
    assert gone == {"traces_deleted": 1}
    left = ask.ok(f"{HERE}/search", locations=[place])["traces"]
    assert [each["trace_id"] for each in left] == [f"tr-{61:032x}"]
    for fields in (
        {},
        {"request_ids": ["a"], "max_timestamp_millis": 1},
        {"request_ids": ["a"], "max_traces": 1},
        {"max_timestamp_millis": 1, "max_traces": 0},
    ):
        told = ask.post(delete, experiment_id=experiment_id, **fields)
        assert refused(told) == (400, "INVALID_PARAMETER_VALUE")


def test_linked(ask: Asking) -> None:
    start(ask, 7)
    run_id = ask.ok("runs/create", experiment_id="0")["run"]["info"]["run_id"]
    assert ask.ok(f"{OLD}/link-to-run", trace_ids=[f"tr-{7:032x}"], run_id=run_id) == {}
    versions = [{"name": "p", "version": "1"}]
    assert ask.ok(f"{OLD}/link-prompts", trace_id=f"tr-{7:032x}", prompt_versions=versions) == {}
    for filter_text in (f"run_id = '{run_id}'", f"metadata.`mlflow.sourceRun` = '{run_id}'", "prompt = 'p/1'"):
        assert [each["trace_id"] for each in searched(ask, filter=filter_text)["traces"]] == [f"tr-{7:032x}"]
    many = [f"tr-{number}" for number in range(101)]
    told = ask.post(f"{OLD}/link-to-run", trace_ids=many, run_id=run_id)
    assert refused(told) == (400, "INVALID_PARAMETER_VALUE")
    told = ask.post(f"{OLD}/link-prompts", trace_id="tr-none", prompt_versions=versions)
    assert refused(told) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_assessed(ask: Asking) -> None:
    start(ask, 8)
    here = f"{HERE}/tr-{8:032x}/assessments"
    feedback = {"assessment_name": "good", "feedback": {"value": 1}, "metadata": {"a": "1"}}
    made = ask.ok(here, assessment=feedback)["assessment"]
    path = f"{here}/{made['assessment_id']}"
    assert ask.read(path) == {"assessment": made}
    change = {"assessment": {"feedback": {"value": "no"}, "rationale": "hm", "metadata": {"b": "2"}}}
    changed = ask.json("PATCH", path, {**change, "update_mask": "feedback,rationale,metadata"}).json["assessment"]
    assert (changed["feedback"], changed["rationale"]) == ({"value": "no"}, "hm")
    assert changed["metadata"] == {"a": "1", "b": "2"}
    other = {"assessment": {"expectation": {"value": 1}}, "update_mask": "expectation"}
    assert refused(ask.json("PATCH", path, other)) == (400, "INVALID_PARAMETER_VALUE")
    over = ask.ok(here, assessment={**feedback, "overrides": made["assessment_id"]})["assessment"]
    assert ask.read(path)["assessment"]["valid"] is False
    for _ in range(2):
        assert ask.json("DELETE", f"{here}/{over['assessment_id']}", {}).json == {}
    assert ask.read(path)["assessment"]["valid"] is True
    assert refused(ask.get(f"{here}/a-none")) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_expectations_of_more_than_one_value_are_json_in_json(ask: Asking) -> None:
    start(ask, 9)
    value = {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": '{"zeta":1,"a":[2]}'}}
    made = ask.ok(f"{HERE}/tr-{9:032x}/assessments", assessment={"assessment_name": "expected", "expectation": value})
    assert made["assessment"]["expectation"] == value


def test_no_spans_here(ask: Asking) -> None:
    start(ask, 10)
    wanted = f"tr-{10:032x}"
    assert refused(ask.get(f"{HERE}/get", trace_id=wanted)) == (400, "INVALID_STATE")
    assert ask.read(f"{HERE}/batchGet", trace_ids=[wanted, "tr-none"]) == {}
    told = ask.get("/ajax-api/3.0/mlflow/get-trace-artifact", request_id=wanted)
    assert refused(told) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert refused(ask.get("/ajax-api/2.0/mlflow/get-trace-artifact")) == (400, "BAD_REQUEST")


def test_a_file_that_is_too_large_is_not_answered_at_once(ask: Asking) -> None:
    start(ask, 13)
    wanted = f"tr-{13:032x}"
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/traces/{wanted}/artifacts/traces.json"
    assert ask.request("PUT", path, b"{}").status == 200
    assert ask.get("/ajax-api/2.0/mlflow/get-trace-artifact", request_id=wanted).body == b"{}"
    assert ask.request("PUT", path, b" " * ((64 << 20) + 1)).status == 200
    told = ask.get("/ajax-api/2.0/mlflow/get-trace-artifact", request_id=wanted)
    assert refused(told) == (400, "INVALID_PARAMETER_VALUE")


def test_of_mlflow_2(ask: Asking) -> None:
    pair = {"key": "team", "value": "old"}
    begun = ask.ok(OLD, experiment_id="0", timestamp_ms=1_000, tags=[pair], request_metadata=[pair])["trace_info"]
    wanted = begun["request_id"]
    place = {"key": "mlflow.artifactLocation", "value": f"mlflow-artifacts:/0/traces/{wanted}/artifacts"}
    assert begun == {
        "request_id": wanted,
        "experiment_id": "0",
        "timestamp_ms": 1_000,
        "execution_time_ms": 0,
        "status": "IN_PROGRESS",
        "request_metadata": [pair],
        "tags": [place, pair],
    }
    ended = ask.json("PATCH", f"{OLD}/{wanted}", {"timestamp_ms": 1_250, "status": "OK"}).json["trace_info"]
    assert (ended["status"], ended["execution_time_ms"]) == ("OK", 250)
    assert ask.read(f"{OLD}/{wanted}/info") == {"trace_info": ended}
    assert ask.read(OLD, experiment_ids=["0"], filter="tags.team = 'old'", max_results=5) == {"traces": [ended]}
    told = ask.json("PATCH", f"{OLD}/tr-none", {"timestamp_ms": 1, "status": "OK"})
    assert refused(told) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_times_of_assessments_that_cannot_be(ask: Asking) -> None:
    start(ask, 11)
    path = f"{HERE}/tr-{11:032x}"
    for time in ("0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00", "1969-12-31T23:59:59Z"):
        for name in ("create_time", "last_update_time"):
            said = {"assessment_name": "a", "feedback": {"value": 1}, name: time}
            told = ask.post(f"{path}/assessments", assessment=said)
            assert refused(told) == (400, "INVALID_PARAMETER_VALUE")
            told = ask.post(HERE, trace={"trace_info": info(11, assessments=[said])})
            assert refused(told) == (400, "INVALID_PARAMETER_VALUE")
    assert "assessments" not in ask.read(path)["trace"]["trace_info"]


def test_assessments_that_come_with_their_trace(ask: Asking) -> None:
    said = {"assessment_id": "a-1", "assessment_name": "a", "feedback": {"value": 1}}
    for fields in ({"assessment_name": "a\0"}, {"assessment_id": "x" * 9_000}, {"rationale": "x" * 70_000}):
        told = ask.post(HERE, trace={"trace_info": info(12, assessments=[{**said, **fields}])})
        assert refused(told) == (400, "INVALID_PARAMETER_VALUE"), fields
    twice = start(ask, 12, assessments=[said, {**said, "feedback": {"value": 2}}])["assessments"]
    assert [each["feedback"] for each in twice] == [{"value": 2}]
