"""Calls that must fail: the method, the request, and what the caller is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from penstock.v1 import artifacts_pb2 as ar
from penstock.v1 import experiments_pb2 as ex
from penstock.v1 import metrics_pb2 as me
from penstock.v1 import runs_pb2 as ru

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS
STATE = grpc.StatusCode.FAILED_PRECONDITION
GONE = grpc.StatusCode.ABORTED

NO_RUN = "0" * 32
NO_EXPERIMENT = "987654321"


class World(NamedTuple):
    """What the failing calls refer to."""

    experiment: str
    deleted_experiment: str
    name: str
    run: str
    deleted_run: str


def fail(method: Any, request: Any, **options: Any) -> grpc.RpcError:
    """Calls, unary or streaming, and returns how it failed."""
    try:
        answer = method(request, **{"timeout": 20} | options)
        received = list(answer) if hasattr(answer, "__next__") else [answer]
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"it did not fail: {received}")


def metric(**fields: Any) -> me.Metric:
    return me.Metric(**{"name": "loss", "value": 1, "step": 1, "time_ms": 1} | fields)


def upload(*messages: Any, **header: Any) -> Any:
    """The messages of an upload of the path `new`, of one byte."""
    fields: dict[str, Any] = {"path": "new", "size": 1, "data": b"x"}
    first = ar.UploadArtifactRequest(header=ar.UploadHeader(**fields | header))
    return iter([first, *(ar.UploadArtifactRequest(**message) for message in messages)])


def uploads(run_id: str, *paths: str) -> ar.UploadArtifactsRequest:
    """Many files at once."""
    files = [ar.UploadArtifactsRequest.File(path=path) for path in paths]
    return ar.UploadArtifactsRequest(run_id=run_id, files=files)


# Method, request, status, a part of the sentence, facts beside the class of the error.
Failure = tuple[str, Callable[[World], Any], grpc.StatusCode, str, dict[str, str]]
BAD_RUN = "run_id: 'no id' is not a run id (32 hexadecimal digits)"
BAD_OWNER = "run_id: 'no id' is no id: a run's has 32 hexadecimal digits"
BAD_EXPERIMENT = "experiment_id: 'x' is not a decimal integer"
DELETED = "is deleted; restore it first"

FAILURES: list[Failure] = [
    # Experiments.
    (
        "CreateExperiment",
        lambda w: ex.CreateExperimentRequest(),
        INVALID,
        "name: must not be empty",
        {"penstock-field": "name"},
    ),
    (
        "CreateExperiment",
        lambda w: ex.CreateExperimentRequest(name="a\0b"),
        INVALID,
        "name: has a NUL character at position 1",
        {},
    ),
    (
        "CreateExperiment",
        lambda w: ex.CreateExperimentRequest(name="x" * 501),
        INVALID,
        "name: is 501 characters long; the limit is 500",
        {},
    ),
    (
        "CreateExperiment",
        lambda w: ex.CreateExperimentRequest(name=w.name),
        EXISTS,
        "experiment 'status' already exists",
        {"penstock-kind": "experiment"},
    ),
    ("CreateExperiment", lambda w: ex.CreateExperimentRequest(name="status deleted"), EXISTS, "restore it", {}),
    ("CreateExperiment", lambda w: ex.CreateExperimentRequest(name="y", tags={"k" * 251: ""}), INVALID, "tag key", {}),
    (
        "CreateExperiment",
        lambda w: ex.CreateExperimentRequest(name="y", tags={"k": "v" * 20_001}),
        INVALID,
        "limit is 20000",
        {},
    ),
    (
        "CreateExperiment",
        lambda w: ex.CreateExperimentRequest(name="y", request_id="r" * 251),
        INVALID,
        "request_id",
        {},
    ),
    ("GetExperiment", lambda w: ex.GetExperimentRequest(), INVALID, "experiment_id: '' is not", {}),
    (
        "GetExperiment",
        lambda w: ex.GetExperimentRequest(experiment_id="x"),
        INVALID,
        BAD_EXPERIMENT,
        {"penstock-field": "experiment_id"},
    ),
    (
        "GetExperiment",
        lambda w: ex.GetExperimentRequest(experiment_id="9" * 19),
        INVALID,
        "is not a decimal integer",
        {},
    ),
    (
        "GetExperiment",
        lambda w: ex.GetExperimentRequest(experiment_id=NO_EXPERIMENT),
        MISSING,
        "does not exist",
        {"penstock-kind": "experiment"},
    ),
    (
        "GetExperimentByName",
        lambda w: ex.GetExperimentByNameRequest(name="nobody"),
        MISSING,
        "experiment 'nobody' does not exist",
        {},
    ),
    ("GetExperimentByName", lambda w: ex.GetExperimentByNameRequest(name="\0"), INVALID, "NUL", {}),
    (
        "SearchExperiments",
        lambda w: ex.SearchExperimentsRequest(filter="name = "),
        INVALID,
        "filter: at position 7, expected",
        {"penstock-field": "filter", "penstock-position": "7"},
    ),
    ("SearchExperiments", lambda w: ex.SearchExperimentsRequest(order_by=["colour"]), INVALID, "order_by", {}),
    ("SearchExperiments", lambda w: ex.SearchExperimentsRequest(page_size=-1), INVALID, "page_size", {}),
    ("SearchExperiments", lambda w: ex.SearchExperimentsRequest(page_size=50_001), INVALID, "page_size", {}),
    (
        "SearchExperiments",
        lambda w: ex.SearchExperimentsRequest(page_token="forged"),
        INVALID,
        "page_token: not a token of this query",
        {"penstock-field": "page_token"},
    ),
    ("SearchExperiments", lambda w: ex.SearchExperimentsRequest(view=9), INVALID, "view: 9 is none", {}),
    (
        "UpdateExperiment",
        lambda w: ex.UpdateExperimentRequest(experiment_id="x", name="n"),
        INVALID,
        BAD_EXPERIMENT,
        {},
    ),
    (
        "UpdateExperiment",
        lambda w: ex.UpdateExperimentRequest(experiment_id=NO_EXPERIMENT, name="n"),
        MISSING,
        "does not exist",
        {},
    ),
    (
        "UpdateExperiment",
        lambda w: ex.UpdateExperimentRequest(experiment_id=w.experiment),
        INVALID,
        "name: must not be empty",
        {},
    ),
    (
        "UpdateExperiment",
        lambda w: ex.UpdateExperimentRequest(experiment_id=w.experiment, name="Default"),
        EXISTS,
        "already exists",
        {},
    ),
    (
        "UpdateExperiment",
        lambda w: ex.UpdateExperimentRequest(experiment_id=w.deleted_experiment, name="n"),
        STATE,
        DELETED,
        {"penstock-kind": "experiment"},
    ),
    (
        "SetExperimentTags",
        lambda w: ex.SetExperimentTagsRequest(experiment_id=NO_EXPERIMENT, tags={"k": "v"}),
        MISSING,
        "does not exist",
        {},
    ),
    (
        "SetExperimentTags",
        lambda w: ex.SetExperimentTagsRequest(experiment_id=w.deleted_experiment, tags={"k": "v"}),
        STATE,
        DELETED,
        {},
    ),
    (
        "SetExperimentTags",
        lambda w: ex.SetExperimentTagsRequest(experiment_id=w.experiment, tags={"": "v"}),
        INVALID,
        "tag key: must not be empty",
        {},
    ),
    (
        "DeleteExperimentTags",
        lambda w: ex.DeleteExperimentTagsRequest(experiment_id=w.experiment, keys=["gone"]),
        MISSING,
        "'gone'",
        {},
    ),
    (
        "DeleteExperimentTags",
        lambda w: ex.DeleteExperimentTagsRequest(experiment_id=NO_EXPERIMENT, keys=["k"]),
        MISSING,
        "does not exist",
        {},
    ),
    ("DeleteExperiment", lambda w: ex.DeleteExperimentRequest(experiment_id="x"), INVALID, BAD_EXPERIMENT, {}),
    (
        "DeleteExperiment",
        lambda w: ex.DeleteExperimentRequest(experiment_id=NO_EXPERIMENT),
        MISSING,
        "does not exist",
        {},
    ),
    (
        "RestoreExperiment",
        lambda w: ex.RestoreExperimentRequest(experiment_id=NO_EXPERIMENT),
        MISSING,
        "does not exist",
        {},
    ),
    # Runs.
    ("CreateRun", lambda w: ru.CreateRunRequest(run_id="no id"), INVALID, BAD_RUN, {"penstock-field": "run_id"}),
    (
        "CreateRun",
        lambda w: ru.CreateRunRequest(experiment_id=NO_EXPERIMENT),
        MISSING,
        "does not exist",
        {"penstock-kind": "experiment"},
    ),
    ("CreateRun", lambda w: ru.CreateRunRequest(experiment_id=w.deleted_experiment), STATE, DELETED, {}),
    (
        "CreateRun",
        lambda w: ru.CreateRunRequest(experiment_id=w.experiment, experiment_name="n"),
        INVALID,
        "experiment_name: not together",
        {},
    ),
    ("CreateRun", lambda w: ru.CreateRunRequest(experiment_name="x" * 501), INVALID, "limit is 500", {}),
    ("CreateRun", lambda w: ru.CreateRunRequest(name="a\0"), INVALID, "name: has a NUL", {}),
    ("CreateRun", lambda w: ru.CreateRunRequest(user="u" * 251), INVALID, "user: is 251", {}),
    (
        "CreateRun",
        lambda w: ru.CreateRunRequest(parent_run_id="no id"),
        INVALID,
        "parent_run_id: 'no id'",
        {"penstock-field": "parent_run_id"},
    ),
    (
        "CreateRun",
        lambda w: ru.CreateRunRequest(parent_run_id=NO_RUN),
        MISSING,
        "does not exist",
        {"penstock-kind": "run"},
    ),
    ("CreateRun", lambda w: ru.CreateRunRequest(status=9), INVALID, "status: 9 is none", {}),
    ("CreateRun", lambda w: ru.CreateRunRequest(start_time_ms=-1), INVALID, "start_time_ms", {}),
    ("CreateRun", lambda w: ru.CreateRunRequest(params={"a//b": "1"}), INVALID, "param key", {}),
    ("CreateRun", lambda w: ru.CreateRunRequest(params={"k": "v" * 6_001}), INVALID, "limit is 6000", {}),
    ("CreateRun", lambda w: ru.CreateRunRequest(tags={"k": "v" * 8_001}), INVALID, "limit is 8000", {}),
    ("GetRun", lambda w: ru.GetRunRequest(run_id="no id"), INVALID, BAD_RUN, {}),
    ("GetRun", lambda w: ru.GetRunRequest(run_id=NO_RUN), MISSING, "does not exist", {"penstock-kind": "run"}),
    (
        "SearchRuns",
        lambda w: ru.SearchRunsRequest(experiment_ids=["x"]),
        INVALID,
        "experiment_ids: 'x' is not",
        {"penstock-field": "experiment_ids"},
    ),
    (
        "SearchRuns",
        lambda w: ru.SearchRunsRequest(filter="metrics.loss < 'a'"),
        INVALID,
        "filter: at position 15, expected a number",
        {"penstock-field": "filter", "penstock-position": "15"},
    ),
    ("SearchRuns", lambda w: ru.SearchRunsRequest(order_by=["metrics.loss SIDEWAYS"]), INVALID, "order_by", {}),
    ("SearchRuns", lambda w: ru.SearchRunsRequest(page_size=50_001), INVALID, "page_size", {}),
    ("SearchRuns", lambda w: ru.SearchRunsRequest(page_token="AAAA"), INVALID, "page_token", {}),
    ("UpdateRun", lambda w: ru.UpdateRunRequest(run_id=NO_RUN, name="n"), MISSING, "does not exist", {}),
    (
        "UpdateRun",
        lambda w: ru.UpdateRunRequest(run_id=w.deleted_run, name="n"),
        STATE,
        DELETED,
        {"penstock-kind": "run"},
    ),
    ("UpdateRun", lambda w: ru.UpdateRunRequest(run_id=w.run, name=""), INVALID, "name: must not be empty", {}),
    ("UpdateRun", lambda w: ru.UpdateRunRequest(run_id=w.run, end_time_ms=-1), INVALID, "end_time_ms", {}),
    ("UpdateRun", lambda w: ru.UpdateRunRequest(run_id=w.run, status=77), INVALID, "status: 77 is none", {}),
    (
        "LogParams",
        lambda w: ru.LogParamsRequest(run_id=w.run, params={"lr": "0.2"}),
        EXISTS,
        "param 'lr' is '0.1' and cannot become '0.2'",
        {"penstock-kind": "param"},
    ),
    ("LogParams", lambda w: ru.LogParamsRequest(run_id=w.run, params={"a\0": "1"}), INVALID, "NUL", {}),
    ("LogParams", lambda w: ru.LogParamsRequest(run_id=w.deleted_run, params={"a": "1"}), STATE, DELETED, {}),
    ("LogParams", lambda w: ru.LogParamsRequest(run_id=NO_RUN, params={"a": "1"}), MISSING, "does not exist", {}),
    (
        "SetRunTags",
        lambda w: ru.SetRunTagsRequest(run_id=w.run, tags={"k": "a\0"}),
        INVALID,
        "value of tag 'k': has a NUL",
        {},
    ),
    ("SetRunTags", lambda w: ru.SetRunTagsRequest(run_id=w.deleted_run, tags={"k": "v"}), STATE, DELETED, {}),
    ("SetRunTags", lambda w: ru.SetRunTagsRequest(run_id=NO_RUN, tags={"k": "v"}), MISSING, "does not exist", {}),
    ("DeleteRunTags", lambda w: ru.DeleteRunTagsRequest(run_id=w.run, keys=["gone"]), MISSING, "'gone'", {}),
    ("DeleteRunTags", lambda w: ru.DeleteRunTagsRequest(run_id=NO_RUN, keys=["k"]), MISSING, "does not exist", {}),
    ("DeleteRun", lambda w: ru.DeleteRunRequest(run_id=NO_RUN), MISSING, "does not exist", {}),
    ("DeleteRun", lambda w: ru.DeleteRunRequest(run_id="no id"), INVALID, BAD_RUN, {}),
    ("RestoreRun", lambda w: ru.RestoreRunRequest(run_id=NO_RUN), MISSING, "does not exist", {}),
    ("WatchRuns", lambda w: ru.WatchRunsRequest(run_ids=["no id"]), INVALID, "run_ids: 'no id' is not", {}),
    ("WatchRuns", lambda w: ru.WatchRunsRequest(run_ids=[NO_RUN]), MISSING, "does not exist", {}),
    ("WatchRuns", lambda w: ru.WatchRunsRequest(experiment_ids=[NO_EXPERIMENT]), MISSING, "does not exist", {}),
    # Metrics.
    ("LogBatch", lambda w: me.LogBatchRequest(run_id=w.run), INVALID, "is empty; a batch has at least one", {}),
    ("LogBatch", lambda w: me.LogBatchRequest(run_id=NO_RUN, metrics=[metric()]), MISSING, "does not exist", {}),
    ("LogBatch", lambda w: me.LogBatchRequest(run_id=w.deleted_run, metrics=[metric()]), STATE, DELETED, {}),
    ("LogBatch", lambda w: me.LogBatchRequest(run_id=w.run, metrics=[metric(name="a\0b")]), INVALID, "NUL", {}),
    (
        "LogBatch",
        lambda w: me.LogBatchRequest(run_id=w.run, metrics=[metric(name="x" * 251)]),
        INVALID,
        "limit is 250",
        {},
    ),
    (
        "LogBatch",
        lambda w: me.LogBatchRequest(run_id=w.run, metrics=[metric(name="")]),
        INVALID,
        "must not be empty",
        {},
    ),
    (
        "LogBatch",
        lambda w: me.LogBatchRequest(run_id=w.run, metrics=[metric(name="../x")]),
        INVALID,
        "no plain relative path",
        {},
    ),
    (
        "LogBatch",
        lambda w: me.LogBatchRequest(run_id=w.run, metrics=[metric(), metric(time_ms=-1)]),
        INVALID,
        "metrics[1].time_ms",
        {},
    ),
    (
        "LogBatch",
        lambda w: me.LogBatchRequest(run_id=w.run, metrics=[metric()], params={"lr": "0.2"}),
        EXISTS,
        "cannot become",
        {"penstock-kind": "param"},
    ),
    (
        "LogBatch",
        lambda w: me.LogBatchRequest(run_id=w.run, metrics=[metric()], request_id="r" * 251),
        INVALID,
        "request_id",
        {},
    ),
    (
        "GetMetricHistory",
        lambda w: me.GetMetricHistoryRequest(run_id=NO_RUN, name="loss"),
        MISSING,
        "does not exist",
        {},
    ),
    (
        "GetMetricHistory",
        lambda w: me.GetMetricHistoryRequest(run_id=w.run, name="loss", page_size=100_001),
        INVALID,
        "page_size",
        {},
    ),
    (
        "GetMetricHistory",
        lambda w: me.GetMetricHistoryRequest(run_id=w.run, name="loss", page_token="x"),
        INVALID,
        "page_token",
        {},
    ),
    (
        "GetMetricHistory",
        lambda w: me.GetMetricHistoryRequest(run_id=w.run, name="there", start_step=2, end_step=1),
        INVALID,
        "start_step",
        {},
    ),
    ("StreamMetricHistory", lambda w: me.StreamMetricHistoryRequest(run_id=NO_RUN), MISSING, "does not exist", {}),
    ("StreamMetricHistory", lambda w: me.StreamMetricHistoryRequest(run_id="no id"), INVALID, BAD_RUN, {}),
    ("GetMetricSeries", lambda w: me.GetMetricSeriesRequest(names=["loss"]), INVALID, "run_ids: 1 to 200 runs", {}),
    ("GetMetricSeries", lambda w: me.GetMetricSeriesRequest(run_ids=[w.run]), INVALID, "names: 1 to 200 metrics", {}),
    (
        "GetMetricSeries",
        lambda w: me.GetMetricSeriesRequest(run_ids=[w.run], names=["loss"], width=10_001),
        INVALID,
        "width",
        {},
    ),
    (
        "GetMetricSeries",
        lambda w: me.GetMetricSeriesRequest(run_ids=["no id"], names=["loss"]),
        INVALID,
        "run_ids: 'no id'",
        {},
    ),
    ("GetMetricSummaries", lambda w: me.GetMetricSummariesRequest(), INVALID, "run_ids: 1 to 10000", {}),
    ("GetMetricSummaries", lambda w: me.GetMetricSummariesRequest(run_ids=["no id"]), INVALID, "run_ids: 'no id'", {}),
    # Artifacts.
    ("BeginUpload", lambda w: ar.BeginUploadRequest(run_id="no id", path="a"), INVALID, BAD_OWNER, {}),
    ("BeginUpload", lambda w: ar.BeginUploadRequest(run_id=NO_RUN, path="a"), MISSING, "does not exist", {}),
    ("BeginUpload", lambda w: ar.BeginUploadRequest(run_id=w.deleted_run, path="a"), STATE, DELETED, {}),
    ("BeginUpload", lambda w: ar.BeginUploadRequest(run_id=w.run, path="/a"), INVALID, "is absolute; write a", {}),
    ("BeginUpload", lambda w: ar.BeginUploadRequest(run_id=w.run, path="a", size=-1), INVALID, "size: -1 is not", {}),
    ("BeginUpload", lambda w: ar.BeginUploadRequest(run_id=w.run, path="a", sha256=b"x"), INVALID, "has 1 bytes", {}),
    ("BeginUpload", lambda w: ar.BeginUploadRequest(run_id=w.run, path="dir"), STATE, "'dir' is a directory", {}),
    (
        "BeginUpload",
        lambda w: ar.BeginUploadRequest(run_id=w.run, path="dir/file/x"),
        STATE,
        "'dir/file' is a file",
        {},
    ),
    ("UploadArtifact", lambda w: iter([]), INVALID, "the stream ended before its first message", {}),
    (
        "UploadArtifact",
        lambda w: iter([ar.UploadArtifactRequest(chunk=b"x")]),
        INVALID,
        "header: must be the first message",
        {"penstock-field": "header"},
    ),
    ("UploadArtifact", lambda w: upload(run_id=NO_RUN), MISSING, "does not exist", {"penstock-kind": "run"}),
    ("UploadArtifact", lambda w: upload(run_id=w.deleted_run), STATE, DELETED, {"penstock-kind": "run"}),
    ("UploadArtifact", lambda w: upload(run_id=w.run, path="a/../b"), INVALID, "has a . or .. in it", {}),
    ("UploadArtifact", lambda w: upload(run_id=w.run, path="dir/file/x"), STATE, "'dir/file' is a file", {}),
    ("UploadArtifact", lambda w: upload(run_id=w.run, size=None), INVALID, "trailer: must come where neither", {}),
    ("UploadArtifact", lambda w: upload({"header": {}}, run_id=w.run), INVALID, "comes a second time", {}),
    ("UploadArtifact", lambda w: upload({}, run_id=w.run), INVALID, "message: is empty", {}),
    (
        "UploadArtifact",
        lambda w: upload({"chunk": b"y"}, run_id=w.run),
        INVALID,
        "size: 1 bytes were told of 'new', and more have come",
        {"penstock-error": "ContentMismatch"},
    ),
    (
        "UploadArtifact",
        lambda w: upload(run_id=w.run, size=2),
        INVALID,
        "2 bytes were told of 'new', and 1 have come",
        {"penstock-error": "ContentMismatch"},
    ),
    (
        "UploadArtifact",
        lambda w: upload({"trailer": {"sha256": b"x" * 32}}, run_id=w.run),
        INVALID,
        "is not that of the bytes of 'new'",
        {"penstock-error": "ContentMismatch"},
    ),
    (
        "UploadArtifact",
        lambda w: upload({"trailer": {"sha256": b"x" * 32}}, run_id=w.run, sha256=b"y" * 32),
        INVALID,
        "is another in the trailer",
        {},
    ),
    (
        "UploadArtifact",
        lambda w: upload({"trailer": {"sha256": b"x" * 32}}, {"chunk": b"x"}, run_id=w.run, size=2),
        INVALID,
        "comes after the trailer",
        {},
    ),
    ("UploadArtifact", lambda w: upload(run_id=w.run, offset=8), INVALID, "offset: is for an upload that", {}),
    ("UploadArtifact", lambda w: upload(run_id=w.run, upload_id="x"), INVALID, "'x' is not an upload id", {}),
    (
        "UploadArtifact",
        lambda w: upload(run_id=w.run, upload_id=NO_RUN),
        GONE,
        "is not there any more",
        {"penstock-error": "UploadGone"},
    ),
    ("UploadArtifacts", lambda w: uploads("no id", "a"), INVALID, BAD_OWNER, {}),
    ("UploadArtifacts", lambda w: uploads(w.run), INVALID, "files: 1 to 256 can be sent at once", {}),
    ("UploadArtifacts", lambda w: uploads(w.run, *257 * "a"), INVALID, "and these are 257", {}),
    ("SignUploadParts", lambda w: ar.SignUploadPartsRequest(run_id=w.run, upload_id=NO_RUN), STATE, "itself; send", {}),
    ("CompleteUpload", lambda w: ar.CompleteUploadRequest(run_id=w.run, upload_id=NO_RUN), STATE, "itself; send", {}),
    ("AbortUpload", lambda w: ar.AbortUploadRequest(run_id=NO_RUN, upload_id=NO_RUN), MISSING, "does not exist", {}),
    ("DownloadArtifact", lambda w: ar.DownloadArtifactRequest(run_id=NO_RUN, path="a"), MISSING, "does not exist", {}),
    ("DownloadArtifact", lambda w: ar.DownloadArtifactRequest(run_id=w.run, path="dir"), MISSING, "artifact 'dir'", {}),
    (
        "DownloadArtifact",
        lambda w: ar.DownloadArtifactRequest(run_id=w.run, path="dir/file", offset=1),
        INVALID,
        "offset: 1 is not within 0 to 0",
        {},
    ),
    (
        "DownloadArtifact",
        lambda w: ar.DownloadArtifactRequest(run_id=w.run, path="dir/file", length=-1),
        INVALID,
        "length: -1 is less",
        {},
    ),
    (
        "DownloadArtifact",
        lambda w: ar.DownloadArtifactRequest(run_id=w.run, path="dir/file", sha256=b"x" * 32),
        GONE,
        "artifact 'dir/file' has been replaced",
        {"penstock-error": "Changed"},
    ),
    ("LocateArtifact", lambda w: ar.LocateArtifactRequest(run_id=w.run, path="dir"), MISSING, "artifact 'dir'", {}),
    ("ListArtifacts", lambda w: ar.ListArtifactsRequest(run_id=NO_RUN), MISSING, "does not exist", {}),
    (
        "ListArtifacts",
        lambda w: ar.ListArtifactsRequest(run_id=w.run, directory="a//b"),
        INVALID,
        "has an empty name",
        {"penstock-field": "directory"},
    ),
    ("ListArtifacts", lambda w: ar.ListArtifactsRequest(run_id=w.run, page_size=50_001), INVALID, "page_size", {}),
    ("ListArtifacts", lambda w: ar.ListArtifactsRequest(run_id=w.run, page_token="AAAA"), INVALID, "page_token", {}),
    ("StatArtifact", lambda w: ar.StatArtifactRequest(run_id=w.run, path="fil"), MISSING, "artifact 'fil'", {}),
    ("StatArtifact", lambda w: ar.StatArtifactRequest(run_id=w.run), INVALID, "path: must not be empty", {}),
    ("DeleteArtifact", lambda w: ar.DeleteArtifactRequest(run_id=w.run, path="di"), MISSING, "artifact 'di'", {}),
    ("DeleteArtifact", lambda w: ar.DeleteArtifactRequest(run_id=w.deleted_run, path="a"), STATE, DELETED, {}),
]
