"""Reading a metric's points in order, out of both levels, a page at a time.

A page is one snapshot. It takes chunks in the order of their first steps until enough points are
certain to come before everything that is not taken, adds the segments that reach into that range,
and sorts. Ordered data never overlap, so a page reads what it returns and little more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from penstock_server.model.runs import RunId
from penstock_server.postgres import chunks, segments
from penstock_server.postgres.chunks import Wanted
from penstock_server.postgres.database import Database
from penstock_server.postgres.points import Columns, by_metric, concatenate


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the last point's step and time, and how many points with just these were given so far."""

    step: int
    time_ms: int
    given: int


@dataclass(frozen=True, slots=True)
class Page:
    """Points in order; `end` is None when there are no more."""

    points: Columns
    end: Position | None


async def read_page(
    db: Database, run_id: RunId, metric_id: int, low: int, high: int, after: Position | None, limit: int
) -> Page:
    """Up to `limit` points of a metric with steps from `low` to `high`, from `after` on. A page may be shorter."""
    start = (low, 0) if after is None else (after.step, after.time_ms)
    given = 0 if after is None else after.given
    async with db.transaction(snapshot=True, read_only=True) as conn:
        outlines = await chunks.outlines(conn, [Wanted(run_id, metric_id, start[0], high)])
        outlines = [chunk for chunk in outlines if chunk.last >= start]
        taken, frontier = enough(outlines, start, limit + given)
        level1 = await chunks.points(conn, taken)
        level0 = await segments.overlapping(
            conn, [run_id], start[0], high if frontier is None else frontier[0], [metric_id]
        )
    parts = [level1[chunk.id] for chunk in sorted(taken, key=lambda chunk: chunk.id)]
    fresh = by_metric(level0, [metric_id]).get(metric_id)
    if fresh is not None:
        parts.append(fresh)
    points = concatenate(parts)
    wanted = ~points.before(start) & (points.steps <= high)
    if frontier is not None:
        wanted &= points.before(frontier)
    points = points.take(wanted).in_order().take(slice(given, None))
    if len(points) <= limit and frontier is None:
        return Page(points, None)
    points = points.take(slice(limit))
    end = points.key(-1)
    same = int(np.count_nonzero((points.steps == end[0]) & (points.times_ms == end[1])))
    return Page(points, Position(*end, same + (given if end == start else 0)))


class _Span(Protocol):
    """Points that lie between two keys; of which it is known how many there are."""

    @property
    def first(self) -> tuple[int, int]:
        """No point is before this."""
        ...

    @property
    def last(self) -> tuple[int, int]:
        """No point is after this."""
        ...

    @property
    def points(self) -> int:
        """How many points."""
        ...


S = TypeVar("S", bound=_Span)


def enough(spans: Sequence[S], start: tuple[int, int], wanted: int) -> tuple[Sequence[S], tuple[int, int] | None]:
    """The first spans that hold more than `wanted` points from `start` on and before all other spans, and where the
    others begin; None when all are taken.

    `spans` come by their first points. What is before the first point of one that is not taken is in those that are
    (or in segments).
    """
    certain = 0
    reaching: list[S] = []
    for position, span in enumerate(spans):
        certain += sum(other.points for other in reaching if other.first >= start and other.last < span.first)
        if certain > wanted:
            return spans[:position], span.first
        reaching = [other for other in reaching if other.last >= span.first]
        reaching.append(span)
    return spans, None
