"""Runs that go on, end, are taken over or deleted under their writers, and what writers say they could not keep."""

from __future__ import annotations

import grpc
import pytest
from writers import Conversation

from penstock.v1 import metrics_pb2 as me
from penstock.v1 import runs_pb2 as ru
from penstock.v1.runs_pb2_grpc import RunServiceStub
from servers import ServerProcess

ENDED = [ru.RUN_STATUS_FINISHED, ru.RUN_STATUS_FAILED, ru.RUN_STATUS_KILLED]


@pytest.fixture
def run_id(runs: RunServiceStub) -> str:
    return runs.CreateRun(ru.CreateRunRequest()).run.run_id


def read(runs: RunServiceStub, run_id: str) -> ru.Run:
    return runs.GetRun(ru.GetRunRequest(run_id=run_id)).run


def finish(writer: Conversation, last_seq: int = 0, **fields: object) -> None:
    assert writer.say(finish=me.Finish(last_seq=last_seq, **fields)).hear_all()[-1].HasField("finish_ack")


@pytest.mark.parametrize("status", ENDED)
def test_a_run_that_has_ended_goes_on(channel: grpc.Channel, runs: RunServiceStub, run_id: str, status: int) -> None:
    finish(Conversation(channel, run_id), status=status, end_time_ms=77)
    watch = runs.WatchRuns(ru.WatchRunsRequest(run_ids=[run_id], changes_only=True), timeout=60)
    assert next(watch).synced
    looking = Conversation(channel, run_id)
    looking.hear()
    assert (read(runs, run_id).status, read(runs, run_id).end_time_ms) == (status, 77)
    writer = Conversation(channel, run_id, resume=True)
    assert writer.hear().HasField("welcome")
    found = read(runs, run_id)
    assert (found.status, found.HasField("end_time_ms")) == (ru.RUN_STATUS_RUNNING, False)
    assert any(message.run.status == ru.RUN_STATUS_RUNNING for message in watch)  # of its end it may still be told
    watch.cancel()
    finish(writer, status=ru.RUN_STATUS_FINISHED)
    assert read(runs, run_id).end_time_ms > 77
    looking.cancel()


def test_an_end_from_before_does_not_end_it(
    server: ServerProcess, channel: grpc.Channel, runs: RunServiceStub, run_id: str
) -> None:
    """It was in the spool of the process that had the run before, and comes late."""
    create = ru.CreateRunRequest(run_id=run_id, start_time_ms=1000)
    writer = Conversation(channel, run_id, resume=True, create_run=create)
    assert writer.hear().HasField("welcome")
    finish(Conversation(channel, run_id), status=ru.RUN_STATUS_FAILED, end_time_ms=999, refused=3)
    found = read(runs, run_id)
    assert (found.status, found.HasField("end_time_ms")) == (ru.RUN_STATUS_RUNNING, False)
    assert found.refused_records == 3
    (told,) = [
        event for event in server.events if event["event"].startswith("a late end") and event["run_id"] == run_id
    ]
    assert told["status"] == "FAILED"
    finish(Conversation(channel, run_id), status=ru.RUN_STATUS_RUNNING)
    # Its own end is one, whatever its clock does.
    finish(writer, status=ru.RUN_STATUS_FINISHED, end_time_ms=500)
    assert read(runs, run_id).end_time_ms == 500


def test_of_two_who_go_on_the_later_tells_which_ends_are_late(
    channel: grpc.Channel, runs: RunServiceStub, run_id: str
) -> None:
    for start_ms in (2000, 1000):
        create = ru.CreateRunRequest(run_id=run_id, start_time_ms=start_ms)
        assert Conversation(channel, run_id, resume=True, create_run=create).hear().HasField("welcome")
    finish(Conversation(channel, run_id), status=ru.RUN_STATUS_FAILED, end_time_ms=1500)
    assert read(runs, run_id).status == ru.RUN_STATUS_RUNNING


def test_an_end_that_comes_after_ends_it(channel: grpc.Channel, runs: RunServiceStub, run_id: str) -> None:
    create = ru.CreateRunRequest(run_id=run_id, start_time_ms=1000)
    assert Conversation(channel, run_id, resume=True, create_run=create).hear().HasField("welcome")
    finish(Conversation(channel, run_id), status=ru.RUN_STATUS_FAILED, end_time_ms=1001)
    assert read(runs, run_id).status == ru.RUN_STATUS_FAILED


@pytest.mark.parametrize("status", [ru.RUN_STATUS_RUNNING, ru.RUN_STATUS_SCHEDULED])
def test_a_run_that_has_not_ended_stays_as_it_is(
    channel: grpc.Channel, runs: RunServiceStub, run_id: str, status: ru.RunStatus
) -> None:
    runs.UpdateRun(ru.UpdateRunRequest(run_id=run_id, status=status))
    before = read(runs, run_id)
    writer = Conversation(channel, run_id, resume=True)
    writer.hear()
    assert read(runs, run_id) == before
    writer.cancel()


def test_a_deleted_run_does_not_go_on(channel: grpc.Channel, runs: RunServiceStub, run_id: str) -> None:
    runs.UpdateRun(ru.UpdateRunRequest(run_id=run_id, status=ru.RUN_STATUS_FINISHED))
    runs.DeleteRun(ru.DeleteRunRequest(run_id=run_id))
    error = Conversation(channel, run_id, resume=True).error()
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert read(runs, run_id).status == ru.RUN_STATUS_FINISHED


def test_who_is_fenced_does_not_make_a_run_go_on(channel: grpc.Channel, runs: RunServiceStub, run_id: str) -> None:
    writer = Conversation(channel, run_id, epoch=7)
    finish(writer, status=ru.RUN_STATUS_FINISHED)
    error = Conversation(channel, run_id, writer_id=writer.writer_id, epoch=6, resume=True, refused=5).error()
    assert error.code() is grpc.StatusCode.ABORTED
    assert dict(error.trailing_metadata())["penstock-epoch"] == "7"
    assert (read(runs, run_id).status, read(runs, run_id).refused_records) == (ru.RUN_STATUS_FINISHED, 0)


def test_what_writers_refused_is_on_the_run(channel: grpc.Channel, runs: RunServiceStub, run_id: str) -> None:
    writer = Conversation(channel, run_id, refused=3)
    writer.hear()
    assert read(runs, run_id).refused_records == 3
    finish(writer, refused=10)
    assert read(runs, run_id).refused_records == 10
    other = Conversation(channel, run_id, refused=1)
    other.hear()
    assert read(runs, run_id).refused_records == 11
    finish(other, refused=1)
    # Said again, and less than before, as by a process that does not know all: it never goes down.
    finish(Conversation(channel, run_id, writer_id=writer.writer_id, epoch=2, refused=10), refused=4)
    assert read(runs, run_id).refused_records == 11
    (found,) = runs.SearchRuns(ru.SearchRunsRequest(detail=ru.RUN_DETAIL_INFO, filter=f"run_id = '{run_id}'")).runs
    assert (found.run_id, found.refused_records) == (run_id, 11)


def test_figures_beyond_all_bounds_stop_there(channel: grpc.Channel, runs: RunServiceStub, run_id: str) -> None:
    for _ in range(2):
        finish(Conversation(channel, run_id, refused=2**63 - 1))
    assert read(runs, run_id).refused_records == 2**63 - 1
    error = Conversation(channel, run_id, refused=2**63).error()
    assert (error.code(), "hello.refused" in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_what_is_lost_is_on_the_run(channel: grpc.Channel, runs: RunServiceStub, run_id: str) -> None:
    writer = Conversation(channel, run_id).first([1, 2])
    writer.say(batch=me.Batch(first_seq=3, count=40, lost=True)).batch(43, [3])
    finish(writer, 43)
    found = read(runs, run_id)
    assert (found.lost_records, [metric.count for metric in found.metrics]) == (40, [3])


def test_an_idle_stream_ends_when_its_run_is_deleted(channel: grpc.Channel, runs: RunServiceStub, run_id: str) -> None:
    writer = Conversation(channel, run_id)
    writer.hear()
    runs.DeleteRun(ru.DeleteRunRequest(run_id=run_id))
    error = writer.error()
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert dict(error.trailing_metadata())["penstock-error"] == "NotActive"
