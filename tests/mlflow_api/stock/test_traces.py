"""Traces of functions, and prompts that are kept in the registry."""

from __future__ import annotations

import time
from collections.abc import Callable

import mlflow
import pytest
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Experiment, SpanType, Trace

THREE = int(mlflow.__version__.partition(".")[0]) >= 3


@mlflow.trace(name="answer", span_type=SpanType.CHAIN, attributes={"kind": "test"})
def answer(question: str) -> str:
    with mlflow.start_span("find", span_type=SpanType.RETRIEVER) as span:
        span.set_inputs({"question": question})
        span.set_outputs(["one", "two"])
        span.set_attribute("found", 2)
    if question == "fail":
        raise ValueError("asked for it")
    mlflow.update_current_trace(tags={"question": question})
    return question.upper()


def traced(experiment: Experiment, filter_string: str | None = None, order_by: list[str] | None = None) -> list[Trace]:
    """What a search finds, once what is sent behind our back has been sent."""
    if hasattr(mlflow, "flush_trace_async_logging"):
        mlflow.flush_trace_async_logging()
    client = MlflowClient()
    where = {"locations": [experiment.experiment_id]} if THREE else {"experiment_ids": [experiment.experiment_id]}
    return list(client.search_traces(filter_string=filter_string, order_by=order_by, **where))


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_a_function_is_traced(client: MlflowClient, experiment: Experiment) -> None:
    for question in ("a", "b", "c"):
        answer(question)
    with pytest.raises(ValueError, match="asked for it"):
        answer("fail")
    until(lambda: len(traced(experiment)) == 4)
    found = {trace.info.tags.get("question", "fail"): trace for trace in traced(experiment)}
    assert set(found) == {"a", "b", "c", "fail"}
    assert [str(found[question].info.status).rpartition(".")[2] for question in ("a", "fail")] == ["OK", "ERROR"]
    trace = client.get_trace(found["b"].info.request_id)
    root, find = trace.data.spans
    assert (root.name, root.span_type, root.inputs, root.outputs) == ("answer", "CHAIN", {"question": "b"}, "B")
    assert root.attributes["kind"] == "test"
    assert (find.name, find.parent_id, find.outputs) == ("find", root.span_id, ["one", "two"])
    assert find.attributes["found"] == 2
    assert find.start_time_ns <= find.end_time_ns <= root.end_time_ns
    failed = found["fail"].data.spans[0]
    assert failed.status.status_code.name == "ERROR"
    assert "asked for it" in str(failed.events[0].attributes)


def test_traces_are_searched(client: MlflowClient, experiment: Experiment) -> None:
    for question in ("a", "b", "c"):
        answer(question)
    until(lambda: len(traced(experiment)) == 3)
    assert [trace.info.tags["question"] for trace in traced(experiment, "tags.question = 'b'")] == ["b"]
    in_order = traced(experiment, "name = 'answer'", ["timestamp_ms ASC"])
    assert [trace.info.tags["question"] for trace in in_order] == ["a", "b", "c"]
    assert traced(experiment, "status = 'ERROR'") == []
    assert len(traced(experiment, "status = 'OK' AND timestamp_ms > 1700000000000")) == 3
    client.set_trace_tag(in_order[0].info.request_id, "seen", "yes")
    assert len(traced(experiment, "tags.seen = 'yes'")) == 1
    client.delete_trace_tag(in_order[0].info.request_id, "seen")
    assert traced(experiment, "tags.seen = 'yes'") == []
    where = {"locations" if THREE else "experiment_ids": [experiment.experiment_id]}
    page = client.search_traces(max_results=2, **where)
    rest = client.search_traces(max_results=2, page_token=page.token, **where)
    assert (len(page), len(rest), rest.token) == (2, 1, None)
    table = mlflow.search_traces(**where)
    assert len(table) == 3


def test_traces_of_a_run(experiment: Experiment) -> None:
    answer("outside")
    with mlflow.start_run() as run:
        answer("inside")
    until(lambda: len(traced(experiment)) == 2)
    assert [trace.info.tags["question"] for trace in traced(experiment, f"run_id = '{run.info.run_id}'")] == ["inside"]


def test_traces_are_deleted(client: MlflowClient, experiment: Experiment) -> None:
    for question in ("a", "b", "c"):
        answer(question)
    until(lambda: len(traced(experiment)) == 3)
    ids = [trace.info.request_id for trace in traced(experiment, order_by=["timestamp_ms ASC"])]
    assert client.delete_traces(experiment.experiment_id, **{"trace_ids" if THREE else "request_ids": ids[:1]}) == 1
    assert {trace.info.request_id for trace in traced(experiment)} == set(ids[1:])
    now = int(time.time() * 1000) + 60_000
    assert client.delete_traces(experiment.experiment_id, max_timestamp_millis=now, max_traces=10) == 2
    assert traced(experiment) == []


def test_spans_that_are_made_by_hand(client: MlflowClient, experiment: Experiment) -> None:
    if THREE:
        root = mlflow.start_span_no_context("root", inputs={"x": 1}, tags={"by": "hand"})
        child = mlflow.start_span_no_context("child", parent_span=root)
        child.end(outputs={"y": 2})
        root.end(outputs={"z": 3})
    else:
        root = client.start_trace("root", inputs={"x": 1}, tags={"by": "hand"}, experiment_id=experiment.experiment_id)
        child = client.start_span("child", root.request_id, root.span_id)
        client.end_span(root.request_id, child.span_id, outputs={"y": 2})
        client.end_trace(root.request_id, outputs={"z": 3})
    until(lambda: len(traced(experiment)) == 1)
    (trace,) = traced(experiment)
    assert trace.info.tags["by"] == "hand"
    assert {span.name: span.outputs for span in trace.data.spans} == {"root": {"z": 3}, "child": {"y": 2}}


def test_prompts(client: MlflowClient, name: str) -> None:
    # Prompts have moved, from mlflow to mlflow.genai.
    api = mlflow.genai if THREE else mlflow
    first = api.register_prompt(name, "Say {{word}}.", commit_message="how it began", tags={"by": "me"})
    second = api.register_prompt(name, "Please say {{word}}.")
    assert (int(first.version), int(second.version)) == (1, 2)
    loaded = api.load_prompt(f"prompts:/{name}/1")
    assert (loaded.template, loaded.format(word="it"), loaded.commit_message) == (
        "Say {{word}}.",
        "Say it.",
        "how it began",
    )
    api.set_prompt_alias(name, "production", 2)
    assert api.load_prompt(f"prompts:/{name}@production").template == "Please say {{word}}."
    api.set_prompt_alias(name, "production", 1)
    assert int(api.load_prompt(f"prompts:/{name}@production").version) == 1
    api.delete_prompt_alias(name, "production")
    with pytest.raises(MlflowException):
        api.load_prompt(f"prompts:/{name}@production")
    # They are no models.
    assert client.search_registered_models(f"name = '{name}'") == []
    if THREE:
        assert [found.name for found in api.search_prompts(f"name = '{name}'")] == [name]
