"""Points of one metric as columns, and how the frames of level 0 come apart into them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.postgres.binary import Float64s, Int64s
from penstock_server.postgres.segments import Segment


@dataclass(frozen=True, slots=True)
class Columns:
    """Points as columns of equal length: steps, times in ms since 1970 UTC, values."""

    steps: Int64s
    times_ms: Int64s
    values: Float64s

    def __len__(self) -> int:
        return len(self.steps)

    def key(self, index: int) -> tuple[int, int]:
        """Step and time of one point."""
        return int(self.steps[index]), int(self.times_ms[index])

    def before(self, key: tuple[int, int]) -> NDArray[np.bool_]:
        """Which points are before a step and time."""
        step, time_ms = key
        before: NDArray[np.bool_] = (self.steps < step) | ((self.steps == step) & (self.times_ms < time_ms))
        return before

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Columns:
        """The points that `index` selects."""
        return Columns(self.steps[index], self.times_ms[index], self.values[index])

    def in_order(self) -> Columns:
        """Sorted by (step, time); points equal in both stay in their order, which is that of arrival."""
        order = _order(self.steps, self.times_ms)
        return self if order is None else self.take(order)


NO_POINTS = Columns(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def concatenate(parts: Sequence[Columns]) -> Columns:
    """All the points, part after part."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NO_POINTS
    return Columns(
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.times_ms for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


class _Part(NamedTuple):
    """Frames of one shape, in the order of arrival: `values` is frames × metrics."""

    steps: Int64s
    times_ms: Int64s
    arrivals: Int64s
    values: Float64s


def by_metric(segments: Sequence[Segment], wanted: Collection[int] | None = None) -> dict[int, Columns]:
    """The points of one run's segments, metric by metric, each in order. `wanted`: only these metrics.

    Frames of one shape are put in order once for all their metrics. A metric that several shapes have is
    put together from them by (step, time, arrival).
    """
    # By all metrics of a shape, wanted or not: parts of one shape follow each other in the order of arrival.
    shapes: dict[bytes, tuple[NDArray[np.int32], list[_Part]]] = {}
    arrived = 0
    for segment in segments:
        for ids, frames, values in segment.by_shape():
            if wanted is not None:
                chosen = np.flatnonzero(np.isin(ids, list(wanted)))
                values = values[:, chosen]  # noqa: PLW2901
            part = _Part(segment.steps[frames], segment.times_ms[frames], arrived + frames, values)
            shapes.setdefault(ids.tobytes(), (ids if wanted is None else ids[chosen], []))[1].append(part)
        arrived += len(segment.steps)
    found: dict[int, list[tuple[Columns, Int64s]]] = {}
    for ids, parts in shapes.values():
        if not len(ids):
            continue
        steps, times, arrivals, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = _order(steps, times)
        if order is not None:
            steps, times, arrivals, values = steps[order], times[order], arrivals[order], values[order]
        by_column = np.ascontiguousarray(values.T)
        for position, metric in enumerate(ids.tolist()):
            found.setdefault(metric, []).append((Columns(steps, times, by_column[position]), arrivals))
    return {metric: _together(columns) for metric, columns in found.items()}


def _together(parts: Sequence[tuple[Columns, Int64s]]) -> Columns:
    points = concatenate([columns for columns, _ in parts])
    if len(parts) == 1:
        return points
    arrivals = np.concatenate([arrivals for _, arrivals in parts])
    return points.take(np.lexsort((arrivals, points.times_ms, points.steps)))


def _order(steps: Int64s, times: Int64s) -> NDArray[np.intp] | None:
    """How to sort by (step, time) with equal points left in their order; None when they are in order."""
    if bool(np.all((steps[1:] > steps[:-1]) | ((steps[1:] == steps[:-1]) & (times[1:] >= times[:-1])))):
        return None
    return np.lexsort((times, steps))
