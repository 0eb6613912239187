"""MetricService, but for its stream: what its messages say, to core, and back.

Points go out in columns: numpy's bytes are put into messages whose column fields are `bytes`, which is the same
on the wire as the packed numbers that the protocol promises.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.columns import by_bytes
from penstock.v1 import metrics_pb2 as pb
from penstock_server.core.metrics import Metrics
from penstock_server.core.streams import Streams
from penstock_server.model.access import Caller
from penstock_server.model.metrics import Point
from penstock_server.model.runs import format_run_id, parse_run_id
from penstock_server.rpc import runs, streams
from penstock_server.rpc.calls import Send

_Points = by_bytes(pb.MetricPoints)
_History = by_bytes(pb.GetMetricHistoryResponse)
_HistoryPart = by_bytes(pb.StreamMetricHistoryResponse)
_SeriesOfOne = by_bytes(pb.MetricSeries)
_SeriesOfAll = by_bytes(pb.GetMetricSeriesResponse)

# A streamed history goes out in messages of so many points, of 24 bytes each, or a quarter of what a message may have.
_PART_POINTS = 100_000
_POINT_BYTES = 24


class MetricService:
    """The methods of penstock.v1.MetricService."""

    def __init__(self, metrics: Metrics, open_streams: Streams, max_message_bytes: int) -> None:
        self._metrics = metrics
        self._streams = open_streams
        self._max_message_bytes = max_message_bytes
        self._part_points = min(_PART_POINTS, max_message_bytes // 4 // _POINT_BYTES)

    async def stream_metrics(self, caller: Caller, first: Any, messages: AsyncIterator[Any], send: Send) -> None:
        """The acknowledged stream of one writer."""
        stream = await self._streams.open(caller, streams.hello(first))
        await streams.converse(stream, messages, send, self._max_message_bytes)

    async def log_batch(self, caller: Caller, request: pb.LogBatchRequest) -> pb.LogBatchResponse:
        """Logs metrics, params and tags: all or nothing."""
        now_ms = time.time_ns() // 1_000_000
        points = [Point(each.name, each.value, each.step, each.time_ms or now_ms) for each in request.metrics]
        run_id = parse_run_id(request.run_id)
        await self._metrics.log_batch(
            caller, run_id, points, dict(request.params), dict(request.tags), request.request_id
        )
        return pb.LogBatchResponse()

    async def get_metric_history(self, caller: Caller, request: pb.GetMetricHistoryRequest) -> Any:
        """A page of one metric's points."""
        run_id = parse_run_id(request.run_id)
        page = (request.page_size, request.page_token)
        points, token = await self._metrics.history(caller, run_id, request.name, *_steps(request), *page)
        return _History(points=_points(points), next_page_token=token)

    async def stream_metric_history(self, caller: Caller, request: pb.StreamMetricHistoryRequest) -> AsyncIterator[Any]:
        """All points of some metrics."""
        run_id = parse_run_id(request.run_id)
        async for name, points in self._metrics.stream_history(caller, run_id, list(request.names), *_steps(request)):
            for start in range(0, len(points.steps), self._part_points):
                part = slice(start, start + self._part_points)
                yield _HistoryPart(name=name, points=_points(points, part))

    async def get_metric_series(self, caller: Caller, request: pb.GetMetricSeriesRequest) -> Any:
        """Metrics reduced for a chart."""
        run_ids = [parse_run_id(text, "run_ids") for text in request.run_ids]
        found = await self._metrics.series(caller, run_ids, list(request.names), *_steps(request), request.width)
        return _SeriesOfAll(series=map(_series, found))

    async def get_metric_summaries(
        self, caller: Caller, request: pb.GetMetricSummariesRequest
    ) -> pb.GetMetricSummariesResponse:
        """The summaries of many runs' metrics."""
        run_ids = [parse_run_id(text, "run_ids") for text in request.run_ids]
        found = await self._metrics.summaries(caller, run_ids, list(request.names))
        return pb.GetMetricSummariesResponse(
            runs=(
                pb.RunMetrics(run_id=format_run_id(run_id), metrics=map(runs.summary, metrics))
                for run_id, metrics in found
            )
        )


def _steps(request: Any) -> tuple[int | None, int | None]:
    """The range of steps that a request names."""
    return (
        request.start_step if request.HasField("start_step") else None,
        request.end_step if request.HasField("end_step") else None,
    )


def _points(points: Any, part: slice = slice(None)) -> Any:
    """Columns of core, or a part of them, as columns of a message."""
    return _Points(
        steps=_column(points.steps[part], "<i8"),
        times_ms=_column(points.times_ms[part], "<i8"),
        values=_column(points.values[part], "<f8"),
    )


def _series(series: Any) -> Any:
    return _SeriesOfOne(
        run_id=format_run_id(series.run_id),
        name=series.name,
        first_steps=_column(series.first_steps, "<i8"),
        last_steps=_column(series.last_steps, "<i8"),
        counts=_column(series.counts, "<u8"),
        mins=_column(series.mins, "<f8"),
        maxs=_column(series.maxs, "<f8"),
        means=_column(series.means, "<f8"),
    )


def _column(numbers: NDArray[Any], kind: str) -> list[bytes]:
    """One packed run of numbers; none for no numbers, as protobuf would have it."""
    return [np.ascontiguousarray(numbers, kind).tobytes()] if len(numbers) else []
