"""Reading a metric's points by time, as MLflow's clients do: by (time, step, value), NaN as 0, and each point once.

A page takes the chunks that can hold its points, by the times and steps between which theirs are, as history.py does
by steps. A metric whose times rise with its steps is read as quickly; where they do not, more is read than is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.model.limits import INT64_MAX, INT64_MIN
from penstock_server.model.runs import RunId
from penstock_server.postgres import chunks, segments
from penstock_server.postgres.chunks import Outline
from penstock_server.postgres.database import Database
from penstock_server.postgres.history import enough
from penstock_server.postgres.points import Columns, by_metric, concatenate

_LAST = INT64_MAX, INT64_MAX


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a page ended: the last point. Of NaN the value is 0."""

    time_ms: int
    step: int
    value: float
    nan: bool


@dataclass(frozen=True, slots=True)
class _Span:
    """A chunk by time: its points are from `first` to `last`, each a time and a step."""

    chunk: Outline
    first: tuple[int, int]
    last: tuple[int, int]

    @property
    def points(self) -> int:
        """How many points."""
        return self.chunk.points


async def read_page(
    db: Database, run_id: RunId, metric_id: int, after: Moment | None, limit: int
) -> tuple[Columns, Moment | None]:
    """Up to `limit` points of a metric from `after` on, and where they end; None when there are no more."""
    wanted = limit
    while True:
        points, frontier = await _read(db, run_id, metric_id, after, wanted)
        if len(points) or frontier is None:
            break
        wanted *= 2  # all that was read are repetitions of the last point
    if len(points) <= limit and frontier is None:
        return points, None
    points = points.take(slice(limit))
    step, time_ms = points.key(-1)
    value, nan = float(points.values[-1]), bool(np.isnan(points.values[-1]))
    end = Moment(time_ms, step, 0.0 if nan else value, nan)
    return points, end


async def _read(
    db: Database, run_id: RunId, metric_id: int, after: Moment | None, wanted: int
) -> tuple[Columns, tuple[int, int] | None]:
    """The points after that one which come before all that is not read, and where that begins; None: all is read."""
    start = (INT64_MIN, INT64_MIN) if after is None else (after.time_ms, after.step)
    async with db.transaction(snapshot=True, read_only=True) as conn:
        found = map(_span, await chunks.outlines_since(conn, run_id, metric_id, start[0]))
        spans = sorted((span for span in found if span.last >= start), key=lambda span: (span.first, span.chunk.id))
        taken, frontier = enough(spans, start, wanted)
        level1 = await chunks.points(conn, [span.chunk for span in taken])
        level0 = await segments.overlapping(conn, [run_id], INT64_MIN, INT64_MAX, [metric_id])
    parts = list(level1.values())
    fresh = by_metric(level0, [metric_id]).get(metric_id)
    if fresh is not None:
        parts.append(fresh)
    points = concatenate(parts)
    times, steps = points.times_ms, points.steps
    if frontier is not None:
        points = points.take((times < frontier[0]) | ((times == frontier[0]) & (steps < frontier[1])))
    if after is not None:
        points = points.take(_later(points, after))
    return each_once(points, "time"), frontier


def _span(chunk: Outline) -> _Span:
    if chunk.least_time is None or chunk.greatest_time is None:
        return _Span(chunk, (INT64_MIN, INT64_MIN), _LAST)
    return _Span(chunk, (chunk.least_time, chunk.min_step), (chunk.greatest_time, chunk.max_step))


def _later(points: Columns, after: Moment) -> NDArray[np.bool_]:
    """Which points come after that one."""
    missing = np.isnan(points.values)
    values = np.where(missing, 0.0, points.values)
    later: NDArray[np.bool_] = (values > after.value) | ((values == after.value) & (missing > after.nan))
    for column, value in ((points.steps, after.step), (points.times_ms, after.time_ms)):
        later = (column > value) | ((column == value) & later)
    return later


def each_once(points: Columns, by: str) -> Columns:
    """The points by (time, step, value), or by (step, time, value) when `by` is "step", without repetitions."""
    minor, major = (points.steps, points.times_ms) if by == "time" else (points.times_ms, points.steps)
    rising = (major[1:] > major[:-1]) | ((major[1:] == major[:-1]) & (minor[1:] > minor[:-1]))
    if bool(rising.all()):
        return points
    missing = np.isnan(points.values)
    values = np.where(missing, 0.0, points.values)
    order = np.lexsort((missing, values, minor, major))
    points, missing, values = points.take(order), missing[order], values[order]
    columns = (points.times_ms, points.steps, values, missing)
    new = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return points if bool(new.all()) else points.take(np.concatenate(([True], new)))
