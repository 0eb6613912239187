"""The acknowledged stream as its writers see it: in good order, in disorder, and beside others in disorder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import grpc
import pytest
from writers import Conversation

from penstock.v1 import experiments_pb2 as ex
from penstock.v1 import metrics_pb2 as me
from penstock.v1 import runs_pb2 as ru
from penstock.v1.experiments_pb2_grpc import ExperimentServiceStub
from penstock.v1.metrics_pb2_grpc import MetricServiceStub
from penstock.v1.runs_pb2_grpc import RunServiceStub

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def run_id(runs: RunServiceStub) -> str:
    return runs.CreateRun(ru.CreateRunRequest()).run.run_id


@pytest.fixture
def other(channel: grpc.Channel, runs: RunServiceStub) -> Iterator[Conversation]:
    """Another writer, of another run, whom nothing here may disturb."""
    writer = Conversation(channel, runs.CreateRun(ru.CreateRunRequest()).run.run_id)
    writer.first([1])
    writer.hear_until("ack")
    yield writer
    writer.batch(2, [2, 3]).say(finish=me.Finish(last_seq=3))
    assert writer.hear_all()[-1].finish_ack.hwm == 3


def steps(metrics: MetricServiceStub, run_id: str, name: str = "loss") -> list[int]:
    return list(metrics.GetMetricHistory(me.GetMetricHistoryRequest(run_id=run_id, name=name)).points.steps)


def test_from_hello_to_finish(
    channel: grpc.Channel, run_id: str, metrics: MetricServiceStub, runs: RunServiceStub
) -> None:
    writer = Conversation(channel, run_id)
    welcome = writer.hear().welcome
    assert (welcome.hwm, welcome.max_message_bytes) == (0, 16 << 20)
    assert welcome.window_bytes >= 1 << 20
    writer.first([3, 1, 2])
    assert writer.hear().ack.hwm == 3
    updates = [me.RunUpdate(param=me.KeyValue(key="lr", value="1")), me.RunUpdate(tag=me.KeyValue(key="t", value="x"))]
    writer.say(batch=me.Batch(first_seq=4, count=2, updates=updates))
    assert writer.hear().ack.hwm == 5
    writer.say(finish=me.Finish(last_seq=5, status=ru.RUN_STATUS_FINISHED, end_time_ms=77, refused=2))
    assert [message.finish_ack.hwm for message in writer.hear_all()] == [5]
    stored = runs.GetRun(ru.GetRunRequest(run_id=run_id)).run
    assert (stored.status, stored.end_time_ms) == (ru.RUN_STATUS_FINISHED, 77)
    assert (dict(stored.params), dict(stored.tags)) == ({"lr": "1"}, {"t": "x"})
    assert steps(metrics, run_id) == [1, 2, 3]


def test_hello_can_make_the_run(channel: grpc.Channel, runs: RunServiceStub) -> None:
    run_id = os.urandom(16).hex()
    writer = Conversation(channel, run_id, create_run=ru.CreateRunRequest(name="made", experiment_name="by hello"))
    assert writer.hear().HasField("welcome")
    writer.leave()
    assert writer.hear_all() == []
    assert runs.GetRun(ru.GetRunRequest(run_id=run_id)).run.name == "made"


def test_who_comes_again_is_told_the_mark(channel: grpc.Channel, run_id: str, metrics: MetricServiceStub) -> None:
    writer = Conversation(channel, run_id).first([1, 2])
    writer.hear_until("ack")
    writer.cancel()
    again = Conversation(channel, run_id, writer_id=writer.writer_id, epoch=2)
    assert again.hear().welcome.hwm == 2
    # It sends from the beginning all the same: what is known is dropped, the rest is taken.
    again.batch(1, [1, 2, 3], new_shapes=[me.Shape(names=["loss"])]).leave()
    assert [message.ack.hwm for message in again.hear_all()] == [3]
    assert steps(metrics, run_id) == [1, 2, 3]


def test_who_leaves_without_finish_is_acknowledged_first(
    channel: grpc.Channel, run_id: str, runs: RunServiceStub
) -> None:
    heard = Conversation(channel, run_id).first([1, 2]).batch(3, [3]).leave().hear_all()
    assert heard[-1].ack.hwm == 3
    assert runs.GetRun(ru.GetRunRequest(run_id=run_id)).run.status == ru.RUN_STATUS_RUNNING


def test_everything_refused_is_told_before_finish_is_acknowledged(channel: grpc.Channel, run_id: str) -> None:
    writer = Conversation(channel, run_id).first([1])
    for seq in range(2, 40):
        writer.batch(seq, [seq], shapes=[seq % 2 * 9])
    heard = writer.say(finish=me.Finish(last_seq=39)).hear_all()
    rejected = [message.reject.first_seq for message in heard if message.HasField("reject")]
    assert rejected == list(range(3, 40, 2))
    assert heard[-1].finish_ack.hwm == 39


BAD_HELLO = [
    ({"protocol": 2}, INVALID, "hello.protocol: 2 is not spoken here, only 1"),
    ({"run_id": "no id"}, INVALID, "hello.run_id: 'no id' is not a run id"),
    ({"run_id": "0" * 32}, grpc.StatusCode.NOT_FOUND, "does not exist"),
    ({"writer_id": b"short"}, INVALID, "hello.writer_id: has 5 bytes; it must be 16"),
    ({"epoch": 0}, INVALID, "hello.epoch: 0 is not within"),
    ({"epoch": 2**31}, INVALID, "hello.epoch: 2147483648 is not within"),
    ({"attributes": me.WriterAttributes(host="h\0")}, INVALID, "hello.attributes.host: has a NUL"),
    ({"create_run": ru.CreateRunRequest(run_id="f" * 32)}, INVALID, "is another run than hello.run_id"),
    ({"create_run": ru.CreateRunRequest(name="x" * 501)}, INVALID, "name: is 501 characters long"),
]


@pytest.mark.parametrize(("fields", "status", "sentence"), BAD_HELLO, ids=[sentence for *_, sentence in BAD_HELLO])
def test_a_bad_hello(channel, run_id, other, fields, status, sentence) -> None:
    error = Conversation(channel, run_id, **fields).error()
    assert (error.code(), sentence in error.details()) == (status, True), error.details()


def test_a_deleted_run_takes_no_writer(channel: grpc.Channel, run_id: str, runs: RunServiceStub) -> None:
    runs.DeleteRun(ru.DeleteRunRequest(run_id=run_id))
    error = Conversation(channel, run_id).error()
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "is deleted; restore it first" in error.details()


def test_a_stream_begins_with_hello(channel: grpc.Channel, run_id: str, other: Conversation) -> None:
    error = Conversation(channel, run_id, hello=False).first([1]).error()
    assert (error.code(), error.details()) == (
        INVALID,
        "hello: is missing; the first message of a stream must be Hello",
    )
    error = Conversation(channel, run_id, hello=False).leave().error()
    assert (error.code(), error.details()) == (INVALID, "request: the stream ended before its first message")
    error = Conversation(channel, run_id).say(hello=me.Hello()).error()
    assert (error.code(), error.details()) == (INVALID, "hello: came twice; a stream has one, at its beginning")
    error = Conversation(channel, run_id).say().error()
    assert error.code() is INVALID


def test_a_gap_ends_the_stream_and_says_what_was_expected(
    channel: grpc.Channel, run_id: str, other: Conversation, metrics: MetricServiceStub
) -> None:
    writer = Conversation(channel, run_id).first([1, 2])
    writer.hear_until("ack")
    error = writer.batch(9, [9]).error()
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    assert dict(error.trailing_metadata())["penstock-expected-seq"] == "3"
    assert steps(metrics, run_id) == [1, 2]


def test_a_finish_beyond_the_last_record_is_a_gap(channel: grpc.Channel, run_id: str) -> None:
    error = Conversation(channel, run_id).first([1]).say(finish=me.Finish(last_seq=5)).error()
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    assert dict(error.trailing_metadata())["penstock-expected-seq"] == "2"


def test_a_lower_epoch_is_fenced(channel: grpc.Channel, run_id: str, other: Conversation) -> None:
    writer = Conversation(channel, run_id, epoch=5)
    writer.hear()
    error = Conversation(channel, run_id, writer_id=writer.writer_id, epoch=4).error()
    assert error.code() is grpc.StatusCode.ABORTED
    assert dict(error.trailing_metadata())["penstock-error"] == "Fenced"
    writer.cancel()


def test_a_writer_belongs_to_its_run(channel: grpc.Channel, run_id: str, other: Conversation) -> None:
    error = Conversation(channel, run_id, writer_id=other.writer_id, epoch=1).error()
    assert error.code() is INVALID
    assert "belongs to another run" in error.details()


BAD_BATCHES = {
    "a shape that is not defined": ({"shapes": [7, 7]}, 3),
    "fewer values": ({"values": [1.0]}, 3),
    "more values": ({"values": [1.0, 2.0, 3.0]}, 3),
    "fewer steps": ({"steps": [1]}, 3),
    "fewer times": ({"times_ms": [1]}, 3),
    "fewer shapes": ({"shapes": [0]}, 3),
    "a time before 1970": ({"times_ms": [-1, -1]}, 3),
    "more frames than records": ({"count": 1}, 3),
    "frames and updates": ({"updates": [me.RunUpdate(tag=me.KeyValue(key="a", value="b"))] * 2}, 3),
}


@pytest.mark.parametrize("name", list(BAD_BATCHES))
def test_a_bad_batch_is_refused_alone(channel, run_id, other, metrics, name) -> None:
    fields, code = BAD_BATCHES[name]
    count = fields.get("count", 2)
    writer = Conversation(channel, run_id).first([1])
    writer.batch(2, [2, 3], **fields).batch(2 + count, [4]).say(finish=me.Finish(last_seq=2 + count))
    heard = writer.hear_all()
    (reject,) = [message.reject for message in heard if message.HasField("reject")]
    assert (reject.first_seq, reject.last_seq, reject.code) == (2, 1 + count, code)
    assert reject.reason
    assert heard[-1].finish_ack.hwm == 2 + count
    assert steps(metrics, run_id) == [1, 4]


@pytest.mark.parametrize("metric", ["", "a\0b", "x" * 251, "../up", "a//b"])
def test_a_bad_name_refuses_what_uses_it(channel, run_id, other, metrics, metric) -> None:
    writer = Conversation(channel, run_id).first([1])
    writer.batch(2, [2], new_shapes=[me.Shape(names=[metric])], shapes=[1]).batch(3, [3])
    heard = writer.say(finish=me.Finish(last_seq=3)).hear_all()
    (reject,) = [message.reject for message in heard if message.HasField("reject")]
    assert (reject.first_seq, reject.last_seq, reject.code) == (2, 2, 3)
    assert steps(metrics, run_id) == [1, 3]


def test_a_param_that_changes_is_refused_alone(channel, run_id, other, runs) -> None:
    runs.LogParams(ru.LogParamsRequest(run_id=run_id, params={"lr": "1"}))
    writer = Conversation(channel, run_id).first([1])
    changed = me.RunUpdate(param=me.KeyValue(key="lr", value="2"))
    writer.say(batch=me.Batch(first_seq=2, count=1, updates=[changed])).batch(3, [3])
    heard = writer.say(finish=me.Finish(last_seq=3)).hear_all()
    (reject,) = [message.reject for message in heard if message.HasField("reject")]
    assert (reject.first_seq, reject.code) == (2, 6)
    assert "params are written once" in reject.reason
    assert dict(runs.GetRun(ru.GetRunRequest(run_id=run_id)).run.params) == {"lr": "1"}


def test_an_update_that_is_nothing(channel, run_id, other) -> None:
    error = Conversation(channel, run_id).say(batch=me.Batch(first_seq=1, count=1, updates=[me.RunUpdate()])).error()
    assert (error.code(), error.details()) == (INVALID, "updates: has one that is neither a param nor a tag")


def test_an_empty_batch(channel, run_id, other) -> None:
    error = Conversation(channel, run_id).say(batch=me.Batch(first_seq=1)).error()
    assert (error.code(), error.details()) == (INVALID, "batch.count: is 0; a batch has at least one record")


def test_a_batch_over_the_message_limit(channel, run_id, other, metrics) -> None:
    writer = Conversation(channel, run_id).first([1])
    writer.hear_until("ack")
    error = writer.batch(2, list(range(650_000))).error()
    assert (error.code(), f"may have {16 << 20}; send it in parts" in error.details()) == (INVALID, True)
    assert dict(error.trailing_metadata())["penstock-error"] == "InvalidArgument"
    assert steps(metrics, run_id) == [1]


def test_values_of_every_kind_come_back_as_they_went(channel, run_id, metrics) -> None:
    values = [0.0, -0.0, float("inf"), float("-inf"), 5e-324, 1.7976931348623157e308, float("nan")]
    far = [-(2**63), -1, 0, 1, 2**40, 2**62, 2**63 - 1]
    writer = Conversation(channel, run_id).first(far, values=values)
    writer.say(finish=me.Finish(last_seq=7)).hear_all()
    points = metrics.GetMetricHistory(me.GetMetricHistoryRequest(run_id=run_id, name="loss")).points
    assert list(points.steps) == far
    assert [value.hex() for value in points.values] == [value.hex() for value in values]


def test_histories_series_and_summaries_of_what_was_streamed(channel, run_id, metrics) -> None:
    count = 5_000
    shape = me.Shape(names=["a", "b"])
    writer = Conversation(channel, run_id)
    values = [number for step in range(count) for number in (step, -step)]
    writer.batch(1, list(range(count)), new_shapes=[shape], values=values)
    writer.say(finish=me.Finish(last_seq=count)).hear_all()

    pages, token = [], ""
    while not pages or token:
        request = me.GetMetricHistoryRequest(run_id=run_id, name="b", page_size=1_999, page_token=token)
        answer = metrics.GetMetricHistory(request)
        pages.append(list(answer.points.values))
        token = answer.next_page_token
    assert [len(page) for page in pages] == [1_999, 1_999, 1_002]
    assert list(itertools.chain(*pages)) == [-step for step in range(count)]

    parts: dict[str, list[float]] = {}
    for part in metrics.StreamMetricHistory(me.StreamMetricHistoryRequest(run_id=run_id, start_step=10, end_step=19)):
        parts.setdefault(part.name, []).extend(part.points.values)
    assert parts == {"a": list(range(10, 20)), "b": [-step for step in range(10, 20)]}

    request = me.GetMetricSeriesRequest(run_ids=[run_id], names=["b", "nothing", "a"], width=10)
    b, a = metrics.GetMetricSeries(request).series
    assert (b.name, a.name, a.run_id) == ("b", "a", run_id)
    assert sum(a.counts) == count
    assert (min(b.mins), max(a.maxs)) == (1 - count, count - 1)
    assert len(a.first_steps) == len(a.last_steps) == len(a.means) == 10

    (found,) = metrics.GetMetricSummaries(me.GetMetricSummariesRequest(run_ids=[run_id], names=["a"])).runs
    (summary,) = found.metrics
    assert (summary.name, summary.count, summary.last_step, summary.max_value) == ("a", count, count - 1, count - 1)


def test_a_time_of_zero_is_now(run_id: str, metrics: MetricServiceStub, experiments: ExperimentServiceStub) -> None:
    before = experiments.CreateExperiment(ex.CreateExperimentRequest(name="a clock")).experiment.create_time_ms
    metrics.LogBatch(me.LogBatchRequest(run_id=run_id, metrics=[me.Metric(name="loss", value=1)]))
    (time_ms,) = metrics.GetMetricHistory(me.GetMetricHistoryRequest(run_id=run_id, name="loss")).points.times_ms
    assert 0 <= time_ms - before < 60_000
