"""Each method's obvious failures: the status, the sentence and the facts that a caller gets."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import grpc
import pytest
from failing_calls import FAILURES as OTHERS
from failing_calls import INVALID, MISSING, Failure, World, fail
from failing_registry_calls import MODEL, REGISTRY_FAILURES
from writers import Conversation

from penstock.v1 import artifacts_pb2 as ar
from penstock.v1 import experiments_pb2 as ex
from penstock.v1 import metrics_pb2 as me
from penstock.v1 import registry_pb2 as rg
from penstock.v1 import runs_pb2 as ru
from penstock.v1.artifacts_pb2_grpc import ArtifactServiceStub
from penstock.v1.experiments_pb2_grpc import ExperimentServiceStub
from penstock.v1.metrics_pb2_grpc import MetricServiceStub
from penstock.v1.registry_pb2_grpc import RegistryServiceStub
from penstock.v1.runs_pb2_grpc import RunServiceStub
from penstock_server.rpc.server import SERVICES
from servers import ServerProcess

FAILURES = [*OTHERS, *REGISTRY_FAILURES]
STUBS = (ExperimentServiceStub, RunServiceStub, MetricServiceStub, ArtifactServiceStub, RegistryServiceStub)


@pytest.fixture(scope="module")
def world(
    channel: grpc.Channel, experiments: ExperimentServiceStub, runs: RunServiceStub, metrics: MetricServiceStub
) -> World:
    def experiment(name: str) -> str:
        return experiments.CreateExperiment(ex.CreateExperimentRequest(name=name)).experiment.experiment_id

    def run(**fields: Any) -> str:
        return runs.CreateRun(ru.CreateRunRequest(**fields)).run.run_id

    made = World(experiment("status"), experiment("status deleted"), "status", run(params={"lr": "0.1"}), run())
    experiments.DeleteExperiment(ex.DeleteExperimentRequest(experiment_id=made.deleted_experiment))
    runs.DeleteRun(ru.DeleteRunRequest(run_id=made.deleted_run))
    artifact = ar.UploadHeader(run_id=made.run, path="dir/file", sha256=hashlib.sha256().digest())
    ArtifactServiceStub(channel).UploadArtifact(iter([ar.UploadArtifactRequest(header=artifact)]))
    metrics.LogBatch(me.LogBatchRequest(run_id=made.run, metrics=[me.Metric(name="there", value=1, step=1)]))
    version = rg.CreateModelVersionRequest(name=MODEL, source="s3://bucket/model", create_model=True)
    RegistryServiceStub(channel).CreateModelVersion(version)
    return made


@pytest.fixture(scope="module")
def methods(channel: grpc.Channel) -> dict[str, Any]:
    return {name: method for stub in STUBS for name, method in vars(stub(channel)).items()}


@pytest.mark.parametrize("failure", FAILURES, ids=[f"{n}-{failure[0]}" for n, failure in enumerate(FAILURES)])
def test_a_failure_is_told(failure: Failure, methods: dict[str, Any], world: World) -> None:
    name, request, status, sentence, facts = failure
    error = fail(methods[name], request(world))
    assert (error.code(), sentence in error.details()) == (status, True), error.details()
    told = dict(error.trailing_metadata())
    assert told["penstock-error"]
    assert told["x-request-id"]
    assert facts.items() <= told.items(), told
    assert not re.search(r"SELECT|INSERT|asyncpg|Traceback", error.details())


def test_every_method_has_a_failure_here() -> None:
    elsewhere = {"StreamMetrics", "CallMlflow"}  # test_writer_streams.py, test_mlflow_over_grpc.py
    assert {method.name for service in SERVICES for method in service.methods} - elsewhere == {f[0] for f in FAILURES}


def test_the_failed_calls_changed_nothing(runs: RunServiceStub, world: World) -> None:
    found = runs.GetRun(ru.GetRunRequest(run_id=world.run)).run
    assert dict(found.params) == {"lr": "0.1"}
    assert [metric.name for metric in found.metrics] == ["there"]


@pytest.mark.parametrize("name", ["GetExperiment", "SearchRuns", "WatchRuns"])
def test_an_unknown_workspace(name: str, methods: dict[str, Any]) -> None:
    requests = {
        "GetExperiment": ex.GetExperimentRequest(experiment_id="0"),
        "SearchRuns": ru.SearchRunsRequest(),
        "WatchRuns": ru.WatchRunsRequest(),
    }
    error = fail(methods[name], requests[name], metadata=[("penstock-workspace", "nowhere")])
    assert (error.code(), error.details()) == (MISSING, "workspace 'nowhere' does not exist")


def test_a_page_token_is_of_one_query(runs: RunServiceStub, world: World) -> None:
    for _ in range(2):
        runs.CreateRun(ru.CreateRunRequest(experiment_id=world.experiment))
    request = ru.SearchRunsRequest(experiment_ids=[world.experiment], page_size=1)
    token = runs.SearchRuns(request).next_page_token
    assert token
    tampered = token[:-1] + ("A" if token[-1] != "A" else "B")
    for other in (
        ru.SearchRunsRequest(experiment_ids=[world.experiment], page_size=1, page_token=tampered),
        ru.SearchRunsRequest(
            experiment_ids=[world.experiment], page_size=1, page_token=token, filter="status = 'RUNNING'"
        ),
        ru.SearchRunsRequest(experiment_ids=["0"], page_size=1, page_token=token),
    ):
        error = fail(runs.SearchRuns, other)
        assert error.code() is INVALID
        assert dict(error.trailing_metadata())["penstock-error"] == "InvalidPageToken"


def test_bytes_that_are_no_message(channel: grpc.Channel) -> None:
    method = channel.unary_unary("/penstock.v1.ExperimentService/GetExperiment")
    error = fail(method, b"\x0a\x03\xff\xfe\xfd")  # a text field that is not UTF-8
    assert error.code() is INVALID
    assert "are no message penstock.v1.GetExperimentRequest" in error.details()


def test_a_method_that_is_not_there(channel: grpc.Channel) -> None:
    error = fail(channel.unary_unary("/penstock.v1.ExperimentService/Nothing"), b"")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_request_over_the_limit(experiments: ExperimentServiceStub) -> None:
    limit = 16 << 20
    error = fail(experiments.CreateExperiment, ex.CreateExperimentRequest(name="x" * limit))
    assert error.code() is INVALID
    assert error.details() == f"request: the message has {limit + 5} bytes and may have {limit}; send it in parts"
    # One of just the limit is read: what is wrong with it then is the name.
    fits = fail(experiments.CreateExperiment, ex.CreateExperimentRequest(name="x" * (limit - 5)))
    assert fits.details().startswith("name: is 16777211 characters long")


def test_a_request_far_over_the_limit_is_not_read(experiments: ExperimentServiceStub) -> None:
    error = fail(experiments.CreateExperiment, ex.CreateExperimentRequest(name="x" * (21 << 20)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "penstock-error" not in dict(error.trailing_metadata())


def test_a_streamed_history_is_cut_to_the_limit(postgres: Any, data_dir: Any) -> None:
    dsn = postgres.create(template="penstock_template")
    limit, batch, batches = 1 << 20, 25_000, 3
    with ServerProcess(data_dir, "--max-message-bytes", str(limit), dsn=dsn) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            run_id = RunServiceStub(channel).CreateRun(ru.CreateRunRequest()).run.run_id
            writer = Conversation(channel, run_id).first(list(range(batch)))
            for n in range(1, batches):
                writer.batch(1 + n * batch, list(range(n * batch, (n + 1) * batch)))
            writer.say(finish=me.Finish(last_seq=batches * batch)).hear_all()
            stub = MetricServiceStub(channel)
            parts = list(stub.StreamMetricHistory(me.StreamMetricHistoryRequest(run_id=run_id)))
            assert max(part.ByteSize() for part in parts) <= limit // 4 + 100
            assert [step for part in parts for step in part.points.steps] == list(range(batches * batch))
            assert [value for part in parts for value in part.points.values] == list(range(batches * batch))
    postgres.drop(dsn)


def test_pages_end_early_at_the_limit_and_lose_nothing(postgres: Any, data_dir: Any) -> None:
    dsn = postgres.create(template="penstock_template")
    limit = 1 << 20
    with ServerProcess(data_dir, "--max-message-bytes", str(limit), dsn=dsn) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            stub = RunServiceStub(channel)
            tags = {f"t{n}": "x" * 8_000 for n in range(20)}
            made = [stub.CreateRun(ru.CreateRunRequest(tags=tags)).run.run_id for _ in range(16)]
            found, token = [], ""
            pages = 0
            while pages == 0 or token:
                pages += 1
                answer = stub.SearchRuns(ru.SearchRunsRequest(page_token=token))
                assert 0 < answer.ByteSize() <= limit
                found += [run.run_id for run in answer.runs]
                token = answer.next_page_token
            assert pages > 1
            assert sorted(found) == sorted(made)
            assert len(stub.SearchRuns(ru.SearchRunsRequest(detail=ru.RUN_DETAIL_INFO)).runs) == 16
            # One that fits into no message is told, and not looked for again and again.
            for batch in range(8):
                more = {f"{batch}.{n}": "x" * 8_000 for n in range(20)}
                stub.SetRunTags(ru.SetRunTagsRequest(run_id=made[0], tags=more))
            error = fail(stub.GetRun, ru.GetRunRequest(run_id=made[0]))
            assert error.code() is INVALID
            assert f"a message at most {limit}" in error.details()
    postgres.drop(dsn)
