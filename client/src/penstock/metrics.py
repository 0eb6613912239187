"""Metrics read back: histories, series for charts, summaries; and batches logged in one call."""

from __future__ import annotations

import sys
import time
import uuid
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.calls import METRICS, Flow, as_texts, listed, need, request
from penstock.columns import by_bytes
from penstock.v1 import metrics_pb2 as pb
from penstock.v1 import runs_pb2

_HistoryPart = by_bytes(pb.StreamMetricHistoryResponse)
_SeriesAnswer = by_bytes(pb.GetMetricSeriesResponse)
_RUNS_A_CALL = 10_000


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """What is known of one metric of one run without reading its points. Times are ms since 1970 UTC."""

    name: str
    count: int
    last_step: int
    last_time_ms: int
    last_value: float
    min_value: float
    max_value: float


@dataclass(frozen=True, slots=True)
class Point:
    """One point of one metric, for `log_batch`. Times are ms since 1970 UTC; 0 means now."""

    name: str
    value: float
    step: int = 0
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """All points of one metric, by (step, time, arrival), as columns of equal length. Times are ms since 1970 UTC."""

    run_id: str
    name: str
    steps: array[int]
    times_ms: array[int]
    values: array[float]

    def __len__(self) -> int:
        return len(self.values)

    def to_numpy(self) -> tuple[Any, Any, Any]:
        """Steps, times and values as numpy arrays (int64, int64, float64) on the same memory."""
        numpy = need("numpy", "to_numpy")
        return (
            numpy.frombuffer(self.steps, numpy.int64),
            numpy.frombuffer(self.times_ms, numpy.int64),
            numpy.frombuffer(self.values, numpy.float64),
        )

    def to_pandas(self) -> Any:
        """A pandas DataFrame with the columns `step`, `time` and `value`."""
        pandas = need("pandas", "to_pandas")
        steps, times_ms, values = self.to_numpy()
        when = pandas.to_datetime(times_ms, unit="ms", utc=True)
        return pandas.DataFrame({"step": steps, "time": when, "value": values})


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one run, reduced to buckets of consecutive steps, as columns of equal length."""

    run_id: str
    name: str
    first_steps: array[int]
    last_steps: array[int]
    counts: array[int]
    mins: array[float]
    maxs: array[float]
    means: array[float]

    def __len__(self) -> int:
        return len(self.counts)


def summary(message: runs_pb2.MetricSummary) -> MetricSummary:
    """From the wire."""
    return MetricSummary(
        name=message.name,
        count=message.count,
        last_step=message.last_step,
        last_time_ms=message.last_time_ms,
        last_value=message.last_value,
        min_value=message.min_value,
        max_value=message.max_value,
    )


def metric_history(run_id: str, name: str, start_step: int | None = None, end_step: int | None = None) -> Flow[History]:
    """All points of one metric, of the steps from `start_step` to `end_step`, both inclusive. Raises NotFound."""
    found = yield from metric_histories(run_id, [name], start_step, end_step)
    return found.get(name) or History(run_id, name, array("q"), array("q"), array("d"))


def metric_histories(
    run_id: str, names: Sequence[str] = (), start_step: int | None = None, end_step: int | None = None
) -> Flow[dict[str, History]]:
    """All points of some metrics by name, of those that have any; without names, of all. Raises NotFound."""
    message = pb.StreamMetricHistoryRequest(
        run_id=run_id, names=listed(names), start_step=start_step, end_step=end_step
    )
    found: dict[str, History] = {}
    for part in (yield request(METRICS, "StreamMetricHistory", message, _HistoryPart)):
        history = found.get(part.name)
        if history is None:
            history = found[part.name] = History(run_id, part.name, array("q"), array("q"), array("d"))
        _extend(history.steps, part.points.steps)
        _extend(history.times_ms, part.points.times_ms)
        _extend(history.values, part.points.values)
    return found


def metric_series(
    run_ids: Sequence[str],
    names: Sequence[str],
    *,
    width: int = 1_000,
    start_step: int | None = None,
    end_step: int | None = None,
) -> Flow[list[Series]]:
    """Metrics reduced to at most `width` buckets each: least, greatest, mean and count. No spike is sampled away."""
    message = pb.GetMetricSeriesRequest(
        run_ids=listed(run_ids), names=listed(names), width=width, start_step=start_step, end_step=end_step
    )
    answer = yield request(METRICS, "GetMetricSeries", message, _SeriesAnswer)
    return [
        Series(
            run_id=each.run_id,
            name=each.name,
            first_steps=_extend(array("q"), each.first_steps),
            last_steps=_extend(array("q"), each.last_steps),
            counts=_extend(array("Q"), each.counts),
            mins=_extend(array("d"), each.mins),
            maxs=_extend(array("d"), each.maxs),
            means=_extend(array("d"), each.means),
        )
        for each in answer.series
    ]


def metric_summaries(run_ids: Sequence[str], names: Sequence[str] = ()) -> Flow[dict[str, dict[str, MetricSummary]]]:
    """Latest, least, greatest and count of the metrics of many runs, by run id and name; without names, of all."""
    run_ids = listed(run_ids)
    found: dict[str, dict[str, MetricSummary]] = {}
    for begin in range(0, len(run_ids), _RUNS_A_CALL):
        message = pb.GetMetricSummariesRequest(run_ids=run_ids[begin : begin + _RUNS_A_CALL], names=listed(names))
        answer = yield request(METRICS, "GetMetricSummaries", message)
        for run in answer.runs:
            found[run.run_id] = {each.name: summary(each) for each in run.metrics}
    return found


def log_batch(
    run_id: str,
    metrics: Mapping[str, float] | Iterable[Point] = (),
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    *,
    step: int = 0,
) -> Flow[None]:
    """Log metrics, params and tags in one transaction: all or nothing, visible when it returns.

    `metrics` are numbers by name, logged at `step` now, or points. For a training loop `run.log` is cheaper by far.
    Raises TypeError for what is no number.
    """
    now_ms = time.time_ns() // 1_000_000
    points = [Point(name, value, step) for name, value in metrics.items()] if isinstance(metrics, Mapping) else metrics
    message = pb.LogBatchRequest(
        run_id=run_id,
        metrics=(
            pb.Metric(name=each.name, value=_number(each), step=each.step, time_ms=each.time_ms or now_ms)
            for each in points
        ),
        params=as_texts(params),
        tags=as_texts(tags),
        request_id=uuid.uuid4().hex,
    )
    yield request(METRICS, "LogBatch", message)


def _number(point: Point) -> float:
    try:
        return array("d", [point.value])[0]  # it takes whatever has a __float__, and no text
    except Exception as error:
        raise TypeError(f"metric {point.name!r}: {type(point.value).__name__} is no number ({error})") from error


def _extend(column: Any, runs: Iterable[bytes]) -> Any:
    """`column` with the little-endian numbers of some packed runs."""
    for each in runs:
        if sys.byteorder == "big":
            numbers = array(column.typecode, each)
            numbers.byteswap()
            column.extend(numbers)
        else:
            column.frombytes(each)
    return column
