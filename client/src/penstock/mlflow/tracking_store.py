"""MLflow's tracking on a Penstock server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow.entities import LifecycleStage, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND
from mlflow.protos.service_pb2 import MlflowService
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.rest_utils import _REST_API_PATH_PREFIX, MlflowHostCreds, extract_api_info_for_service

from penstock.mlflow.door import Door, verify
from penstock.mlflow.writers import writers_of

_WIDEST = 1_000  # metrics in a record
_ENDPOINTS = extract_api_info_for_service(MlflowService, _REST_API_PATH_PREFIX)


class TrackingStore(RestStore):  # type: ignore[misc]  # MLflow has no types here
    """MLflow's own store for a server, whose requests go by gRPC, and metrics of runs in the background.

    What is read of a run, and what ends it, waits until the metrics that were logged to it here are committed. Params
    and tags do not go that way: they are few, MLflow says at once when a param has another value already, and some
    tags mean more than they say.
    """

    supports_workspaces = False  # MLflow's; ours is PENSTOCK_WORKSPACE

    def __init__(self, store_uri: str, artifact_uri: str | None = None, **_: object) -> None:
        super().__init__(lambda: MlflowHostCreds(store_uri))
        self._door = Door(store_uri)
        self._writers = writers_of(self._door.address)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None = None,
        endpoint: str | None = None,
        retry_timeout_seconds: int | None = None,
        response_proto: Any = None,
        **_: object,
    ) -> Any:
        newer = api in getattr(self, "_V3_APIS", ())
        path, method = (self._V3_METHOD_TO_INFO if newer else _ENDPOINTS)[api]
        return self._door.ask(method, endpoint or path, json_body, response_proto or api.Response())

    # Metrics.

    def log_metric(self, run_id: str, metric: Any) -> None:
        """In the background; those of models and datasets are not."""
        if not (_is_plain(metric) and self._writers.log(run_id, (metric,), self._is_active)):
            super().log_metric(run_id, metric)

    def log_batch(self, run_id: str, metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]) -> None:
        """Params and tags at once, metrics in the background."""
        if params or tags:
            super().log_batch(run_id, [], params, tags)
        left = []
        for group in _together(metrics):
            if not (_is_plain(group[0]) and self._writers.log(run_id, group, self._is_active)):
                left += group
        if left or not (metrics or params or tags):
            super().log_batch(run_id, left, [], [])

    # What reads metrics, or ends runs.

    def create_run(self, *args: Any, **kwargs: Any) -> Any:
        """A run."""
        run = super().create_run(*args, **kwargs)
        self._writers.know(run.info.run_id)
        return run

    def get_run(self, run_id: str) -> Any:
        """With all that was logged to it here."""
        self._writers.flush(run_id)
        return super().get_run(run_id)

    def _is_active(self, run_id: str) -> bool:
        try:
            run = super().get_run(run_id)
        except MlflowException:  # what is logged tells, in the words that are right for it
            return False
        return bool(run.info.lifecycle_stage == LifecycleStage.ACTIVE)

    def get_metric_history(self, run_id: str, *args: Any, **kwargs: Any) -> Any:
        """With all that was logged here."""
        self._writers.flush(run_id)
        return super().get_metric_history(run_id, *args, **kwargs)

    def _search_runs(self, *args: Any, **kwargs: Any) -> Any:
        self._writers.flush()
        return super()._search_runs(*args, **kwargs)

    def update_run_info(self, run_id: str, run_status: Any, *args: Any, **kwargs: Any) -> Any:
        """A run that ends has all that was logged to it here."""
        if run_status is not None and RunStatus.is_terminated(run_status):
            self._writers.end(run_id)
        return super().update_run_info(run_id, run_status, *args, **kwargs)

    def delete_run(self, run_id: str) -> None:
        """With all that was logged to it here."""
        self._writers.forget(run_id)
        super().delete_run(run_id)

    def delete_experiment(self, experiment_id: str) -> None:
        """With all that was logged to its runs here."""
        self._writers.forget_all()
        super().delete_experiment(experiment_id)

    # What MLflow asks servers without `_call_endpoint`.

    def log_spans(self, location: str, spans: list[Any], tracking_uri: str | None = None) -> list[Any]:
        """As OpenTelemetry's exporters send them. Raises NotImplementedError where this MLflow cannot."""
        try:
            from mlflow.tracing.utils.otlp import (  # noqa: PLC0415  MLflow 2 has none
                MLFLOW_EXPERIMENT_ID_HEADER,
                OTLP_TRACES_PATH,
                resource_to_otel_proto,
            )
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415
                ExportTraceServiceRequest,
            )
        except ImportError as error:
            raise NotImplementedError("this MLflow does not send spans by themselves") from error
        if spans:
            request = ExportTraceServiceRequest()
            sent = request.resource_spans.add()
            sent.resource.CopyFrom(resource_to_otel_proto(getattr(spans[0]._span, "resource", None)))
            sent.scope_spans.add().spans.extend(span.to_otel_proto() for span in spans)
            reply = self._door.call(
                "POST",
                OTLP_TRACES_PATH,
                body=request.SerializeToString(),
                content_type="application/x-protobuf",
                headers={MLFLOW_EXPERIMENT_ID_HEADER.lower(): location},
            )
            verify(reply, OTLP_TRACES_PATH)
        return spans

    def _mcp_request(
        self, method: str, path: str, json: Mapping[str, Any] | None = None, params: Mapping[str, Any] | None = None
    ) -> Any:
        raise _not_served("MCP servers")

    def upsert_online_scoring_config(self, *_: object, **__: object) -> Any:
        """Raises MlflowException."""
        raise _not_served("online scoring")

    def get_online_scoring_configs(self, *_: object, **__: object) -> Any:
        """Raises MlflowException."""
        raise _not_served("online scoring")


def _together(metrics: Sequence[Any]) -> Iterator[list[Any]]:
    """Those that were logged at once, each name once; and each that is not plain by itself."""
    group: list[Any] = []
    names: set[str] = set()
    at = None
    for metric in metrics:
        where = (metric.step, metric.timestamp) if _is_plain(metric) else None
        if group and (where is None or where != at or metric.key in names or len(group) == _WIDEST):
            yield group
            group, names = [], set()
        group.append(metric)
        names.add(metric.key)
        at = where
    if group:
        yield group


def _is_plain(metric: Any) -> bool:
    """Whether it is of nothing but its run."""
    return not (
        getattr(metric, "model_id", None)
        or getattr(metric, "dataset_name", None)
        or getattr(metric, "dataset_digest", None)
    )


def _not_served(what: str) -> MlflowException:
    return MlflowException(f"Penstock has no {what}", error_code=ENDPOINT_NOT_FOUND)
