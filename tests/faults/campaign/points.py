"""What PostgreSQL has of a run, read from the tables themselves and not by the server's code."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 4_000_000  # points, in memory

_CHUNKS = """
SELECT metric_id, array_send(step_deltas), array_send(time_deltas), array_send(values_f4), array_send(values_f8)
  FROM metric_chunks WHERE run_id = $1 AND metric_id = ANY($2) ORDER BY metric_id, id
"""
_SEGMENTS = """
SELECT shape_sizes, metric_ids, shapes, steps, times_ms, metric_values
  FROM metric_segments WHERE run_id = $1 ORDER BY id
"""
_SUMMARIES = """
SELECT metric_id, name, count, last_step, last_time_ms, last_value, min_value, max_value
  FROM run_metrics WHERE run_id = $1 AND count > 0 ORDER BY metric_id
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a run: its points by (step, time, arrival), and the summary that stands beside them."""

    name: str
    steps: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    count: int
    last: tuple[int, int, float]
    min_value: float
    max_value: float


class _Heap:
    """Points of metrics, in the order of their arrival."""

    def __init__(self) -> None:
        self._parts: dict[int, list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]] = {}

    def add(self, metric: int, steps: NDArray[Any], times: NDArray[Any], values: NDArray[Any]) -> None:
        self._parts.setdefault(metric, []).append((steps, times, values))

    def take(self, metric: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """One metric's, in order."""
        parts = self._parts.pop(metric, [])
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)
        steps, times, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((times, steps))  # stable: what is equal stays in the order of arrival
        return steps[order], times[order], values[order]


async def read(conn: asyncpg.Connection, run_id: str) -> AsyncIterator[Metric]:
    """All metrics of a run, as one snapshot has them: `conn` is in a transaction that repeats its reads."""
    run = uuid.UUID(run_id)
    rows = await conn.fetch(_SUMMARIES, run)
    segments = [_segment(row) for row in await conn.fetch(_SEGMENTS, run)]
    most = max((row["count"] for row in rows), default=0)
    group = max(1, _AT_ONCE // max(1, most))
    for at in range(0, len(rows), group):
        here = rows[at : at + group]
        ids = [row["metric_id"] for row in here]
        heap = _Heap()
        for metric, steps, times, narrow, wide in await conn.fetch(_CHUNKS, run, ids):
            values = _array(wide, ">f8") if narrow is None else _array(narrow, ">f4").astype(np.float64)
            heap.add(metric, np.cumsum(_array(steps, ">i8")), np.cumsum(_array(times, ">i8")), values)
        # A compaction takes the oldest segments: what is left of them has come later than any chunk.
        for found in segments:
            for metric in found.keys() & set(ids):
                for part in found[metric]:
                    heap.add(metric, *part)
        for row in here:
            last = (row["last_step"], row["last_time_ms"], row["last_value"])
            columns = heap.take(row["metric_id"])
            yield Metric(row["name"], *columns, row["count"], last, row["min_value"], row["max_value"])


_Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def _segment(row: asyncpg.Record) -> dict[int, list[_Columns]]:
    """The points of a segment, metric by metric; of a metric that several shapes have, in the order of the frames."""
    sizes, ids = np.array(row["shape_sizes"]), row["metric_ids"]
    steps, times = np.frombuffer(row["steps"], "<i8"), np.frombuffer(row["times_ms"], "<i8")
    values = np.frombuffer(row["metric_values"], "<f8")
    shapes = np.zeros(len(steps), np.int32) if row["shapes"] is None else np.frombuffer(row["shapes"], "<i4")
    if len(sizes) == 1:
        table = values.reshape(len(steps), -1)
        return {metric: [(steps, times, table[:, position])] for position, metric in enumerate(ids)}
    begins = np.concatenate(([0], np.cumsum(sizes)))
    offsets = np.cumsum(sizes[shapes]) - sizes[shapes]
    assert offsets[-1] + sizes[shapes[-1]] == len(values)
    found: dict[int, list[_Columns]] = {}
    for metric in set(ids):
        at = np.full(len(sizes), -1)  # of each shape: where the metric stands in it
        for shape in range(len(sizes)):
            inside = ids[begins[shape] : begins[shape + 1]]
            if metric in inside:
                at[shape] = inside.index(metric)
        frames = np.flatnonzero(at[shapes] >= 0)
        column = values[offsets[frames] + at[shapes[frames]]]
        found[metric] = [(steps[frames], times[frames], column)]
    return found


def _array(sent: bytes, kind: str) -> NDArray[Any]:
    """The elements of a one-dimensional array without NULLs, as array_send gives it."""
    # dimensions, flags, type, length, lower bound; then for each element its length and itself.
    dimensions = int.from_bytes(sent[:4], "big")
    if not dimensions:
        return np.empty(0, np.dtype(kind).newbyteorder("="))
    rows = np.frombuffer(sent, np.dtype([("length", ">i4"), ("it", kind)]), offset=20)
    return rows["it"].astype(np.dtype(kind).newbyteorder("="))
