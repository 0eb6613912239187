"""Metrics, as MLflow's clients log and read them, and the batches of them with params and tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock_server.core.logged_models import LoggedModels
from penstock_server.core.metrics import CHRONOLOGY_LIMIT, Columns, Metrics
from penstock_server.core.runs import Runs
from penstock_server.mlflow import ids, points, run_texts
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.mlflow.errors import MlflowError, invalid
from penstock_server.model.access import Caller, Permission, Resource
from penstock_server.model.limits import check_text
from penstock_server.model.runs import NAME_LIMIT, RunId

_HERE = "2.0/mlflow/metrics/get-history"

# What a batch has at most: of metrics, params and tags, and of all together.
BATCH_METRICS = 1_000
BATCH_TEXTS = 100
BATCH_ALL = 1_000

BULK_RUNS = 100
BULK_POINTS = 25_000
INTERVAL_POINTS = 2_500


class MetricEndpoints:
    """The endpoints of metrics."""

    def __init__(self, metrics: Metrics, runs: Runs, models: LoggedModels) -> None:
        self._metrics = metrics
        self._runs = runs
        self._models = models

    def __iter__(self) -> Iterator[Endpoint]:
        read, write, run = Permission.READ, Permission.WRITE, Resource.RUN
        yield Endpoint("POST", "2.0/mlflow/runs/log-metric", self._log_metric, write, run, "run_id")
        yield Endpoint("POST", "2.0/mlflow/runs/log-batch", self._log_batch, write, run, "run_id")
        yield Endpoint("GET", _HERE, self._history, read, run, "run_id")
        yield Endpoint("GET", f"{_HERE}-bulk", self._bulk, read, run, "run_id")
        yield Endpoint("GET", f"{_HERE}-bulk-interval", self._interval, read, run, "run_ids")

    async def _log_metric(self, caller: Caller, arguments: Arguments) -> Answer:
        run_id = ids.run_id(arguments)
        names, columns = points.one_by_one([arguments])
        await self._log_of_models(caller, run_id, [arguments], names, columns)
        await self._metrics.log_columns(caller, run_id, names, columns, {}, {})
        return {}

    async def _log_batch(self, caller: Caller, arguments: Arguments) -> Answer:
        names, columns = points.batch(arguments)
        params = [run_texts.param(each) for each in arguments.messages("params")]
        tags, run_name = run_texts.tags(arguments)
        _check_sizes(len(names), len(params), len(tags) + bool(run_name))
        _check_distinct([key for key, _ in params])
        check_text(f"value of tag {run_texts.RUN_NAME!r}", run_name, NAME_LIMIT)
        run_id = ids.run_id(arguments)
        if any("model_id" in each or "modelId" in each for each in arguments.get("metrics") or ()):
            await self._log_of_models(caller, run_id, list(arguments.messages("metrics")), names, columns)
        await self._metrics.log_columns(caller, run_id, names, columns, dict(params), tags)
        if run_name:
            await self._runs.update(caller, run_id, run_name)
        return {}

    async def _log_of_models(
        self, caller: Caller, run_id: RunId, metrics: Sequence[Arguments], names: Sequence[str], columns: Columns
    ) -> None:
        """Records the points that are of logged models with these, first: it is they that may not be there."""
        if of_models := points.of_models(metrics, names, columns):
            await self._models.log_metrics(caller, run_id, of_models)

    async def _history(self, caller: Caller, arguments: Arguments) -> Answer:
        run_id = arguments.text("run_id") or arguments.text("run_uuid") or arguments.required("run_id")
        key = arguments.required("metric_key")
        size = arguments.integer("max_results", CHRONOLOGY_LIMIT)
        if size <= 0:
            raise invalid(f"Invalid value {size} for parameter 'max_results' supplied. It must be a positive integer.")
        token = arguments.text("page_token")
        for possible in _all_possible([run_id]):
            found, token = await self._metrics.chronology(caller, possible, key, size, token)
            if len(found):
                more = b',"next_page_token":"%b"' % token.encode() if token else b""
                return b'{"metrics":[%b]%b}' % (points.written(key, found), more)
        return {}

    async def _bulk(self, caller: Caller, arguments: Arguments) -> Answer:
        run_ids, key = arguments.texts("run_id"), arguments.optional("metric_key")
        if not run_ids:
            raise invalid("GetMetricHistoryBulk request must specify at least one run_id.")
        if len(run_ids) > BULK_RUNS:
            raise invalid(
                f"GetMetricHistoryBulk request cannot specify more than {BULK_RUNS} run_ids. "
                f"Received {len(run_ids)} run_ids."
            )
        if key is None:
            raise invalid("GetMetricHistoryBulk request must specify a metric_key.")
        left = min(arguments.integer("max_results", BULK_POINTS, low=0), BULK_POINTS)
        parts = []
        for run_id in _all_possible(sorted(set(run_ids))):
            if not left:
                break
            found, _ = await self._metrics.chronology(caller, run_id, key, left)
            if len(found):
                left -= len(found)
                parts.append(points.written(key, found, run_id.hex))
        return b'{"metrics":[%b]}' % b",".join(parts)

    async def _interval(self, caller: Caller, arguments: Arguments) -> Answer:
        run_ids = arguments.texts("run_ids")
        if not run_ids:
            raise arguments.lacking("run_ids")
        if len(run_ids) > BULK_RUNS:
            raise invalid(
                f"GetMetricHistoryBulkInterval request must specify at most {BULK_RUNS} run_ids. "
                f"Received {len(run_ids)} run_ids."
            )
        key = arguments.required("metric_key")
        width = arguments.integer("max_results", INTERVAL_POINTS)
        if not 1 <= width <= INTERVAL_POINTS:
            raise invalid(f"max_results must be between 1 and {INTERVAL_POINTS}.")
        first, last = (arguments.integer(name) if name in arguments else None for name in ("start_step", "end_step"))
        if (first is None) != (last is None):
            raise invalid("If either start step or end step are specified, both must be specified.")
        if first is not None and last is not None and first > last:
            raise invalid(f"end_step must be greater than start_step. Found start_step={first} and end_step={last}.")
        sampled = self._metrics.sampled(caller, list(_all_possible(run_ids)), key, first, last, width)
        parts = [points.written(key, found, run_id.hex) async for run_id, found in sampled if len(found)]
        return b'{"metrics":[%b]}' % b",".join(parts) if parts else {}


def _check_sizes(metrics: int, params: int, tags: int) -> None:
    for what, limit, given in (
        ("metrics", BATCH_METRICS, metrics),
        ("params", BATCH_TEXTS, params),
        ("tags", BATCH_TEXTS, tags),
        ("metrics, params, and tags", BATCH_ALL, metrics + params + tags),
    ):
        if given > limit:
            raise invalid(
                f"A batch logging request can contain at most {limit} {what}. Got {given} {what}. "
                f"Please split up {what} across multiple requests and try again."
            )


def _check_distinct(keys: Sequence[str]) -> None:
    twice = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
    if twice:
        raise invalid(
            f"Duplicate parameter keys have been submitted: {twice}. "
            "Please ensure the request contains only one param value per param key."
        )


def _all_possible(texts: Sequence[str]) -> Iterator[RunId]:
    """Those run ids that can be ours; of others there are no points."""
    for text in texts:
        try:
            yield ids.parse_run_id(text)
        except MlflowError:
            continue
