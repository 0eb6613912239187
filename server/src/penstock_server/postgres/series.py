"""Reading metrics for charts: buckets of consecutive steps, each from the coarsest detail that is fine enough.

A chunk, or a block of a chunk, that is at most half a bucket wide is counted whole by its stored
summary; only what is wider is read point by point. So a million points are drawn from their blocks,
ten million from their chunks, and a spike is in every summary that covers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from penstock_server.model.access import WorkspaceId
from penstock_server.model.limits import INT64_MAX, INT64_MIN
from penstock_server.model.runs import RunId
from penstock_server.postgres import chunks, metrics, segments
from penstock_server.postgres.binary import Float64s, Int64s
from penstock_server.postgres.chunks import BLOCK_POINTS, Blocks, Outline, Wanted
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.points import Columns, by_metric
from penstock_server.postgres.segments import Segment

# Points that are read at a time, of several metrics; and how many one metric has at most that are read one by one,
# at a width of 1,000 (its blocks would be wider than half a bucket).
_GROUP_POINTS = 1_000_000
_MOST_READ = 256_000


@dataclass(frozen=True, slots=True)
class Series:
    """A metric of a run as columns, one entry per bucket that has points."""

    run_id: RunId
    name: str
    first_steps: Int64s
    last_steps: Int64s
    counts: Int64s
    mins: Float64s
    maxs: Float64s
    means: Float64s


@dataclass(frozen=True, slots=True)
class _Metric:
    """One metric of one run, while it is being read: its range of steps and the width of a bucket in steps."""

    want: Wanted
    outlines: list[Outline]
    bucket: float


async def read(
    db: Database,
    workspace_id: WorkspaceId,
    run_ids: Sequence[RunId],
    names: Sequence[str],
    low: int | None,
    high: int | None,
    width: int,
) -> list[Series]:
    """The series of these metrics of these runs, of those that have points in the range; run after run."""
    low, high = INT64_MIN if low is None else low, INT64_MAX if high is None else high
    found: dict[tuple[RunId, str], Series] = {}
    async with db.transaction(snapshot=True, read_only=True) as conn:
        ids = await metrics.find(conn, workspace_id, run_ids, names)
        wanted = {(key[0], metric_id): (Wanted(key[0], metric_id, low, high), key[1]) for key, metric_id in ids.items()}
        outlines: dict[tuple[RunId, int], list[Outline]] = {key: [] for key in wanted}
        for chunk in await chunks.outlines(conn, [want for want, _ in wanted.values()]):
            outlines[chunk.run_id, chunk.metric_id].append(chunk)
        for group in _groups(outlines):
            part = {key: outlines[key] for key in group}
            for series in await _read(conn, [wanted[key] for key in group], part, width):
                found[series.run_id, series.name] = series
    return [found[run_id, name] for run_id in run_ids for name in names if (run_id, name) in found]


def _groups(outlines: dict[tuple[RunId, int], list[Outline]]) -> Iterator[list[tuple[RunId, int]]]:
    """Metrics to be read at a time: as many as have few points to read together."""
    group: list[tuple[RunId, int]] = []
    size = 0
    for key, found in outlines.items():
        points = min(_MOST_READ, 1 + sum(chunk.points for chunk in found))
        if group and size + points > _GROUP_POINTS:
            yield group
            group, size = [], 0
        group.append(key)
        size += points
    if group:
        yield group


async def _read(
    conn: Connection,
    wanted: Sequence[tuple[Wanted, str]],
    outlines: dict[tuple[RunId, int], list[Outline]],
    width: int,
) -> list[Series]:
    wants = [want for want, _ in wanted]
    low, high = wants[0].low, wants[0].high
    level0 = await segments.overlapping(
        conn, list({want.run_id for want in wants}), low, high, list({want.metric_id for want in wants})
    )
    fresh = await asyncio.to_thread(_fresh, level0, wants)
    pending = {
        key: _plan(want, outlines[key], fresh, width) for want in wants for key in [(want.run_id, want.metric_id)]
    }
    by_blocks, by_points = _depths(list(pending.values()))
    blocks = await chunks.blocks(conn, by_blocks)
    by_points.extend(c for c in by_blocks if _too_coarse(blocks[c.id], pending[c.run_id, c.metric_id]))
    points = await chunks.points(conn, by_points)

    def reduce() -> list[Series]:
        found = []
        for want, name in wanted:
            metric = pending[want.run_id, want.metric_id]
            parts = [_of_outlines([c for c in metric.outlines if c.id not in blocks and c.id not in points])]
            parts += [blocks[c.id] for c in metric.outlines if c.id in blocks and c.id not in points]
            details = [points[c.id] for c in metric.outlines if c.id in points]
            if (want.run_id, want.metric_id) in fresh:
                details.append(fresh[want.run_id, want.metric_id])
            parts += [_of_points(_within(columns, metric.want)) for columns in details]
            series = _series(want.run_id, name, parts, metric, width)
            if series is not None:
                found.append(series)
        return found

    return await asyncio.to_thread(reduce)


def _fresh(level0: Sequence[Segment], wanted: Sequence[Wanted]) -> dict[tuple[RunId, int], Columns]:
    """The points of level 0, by run and metric."""
    by_run: dict[RunId, list[Segment]] = {}
    for segment in level0:
        by_run.setdefault(segment.run_id, []).append(segment)
    metric_ids: dict[RunId, list[int]] = {}
    for want in wanted:
        metric_ids.setdefault(want.run_id, []).append(want.metric_id)
    return {
        (run_id, metric_id): columns
        for run_id, run_segments in by_run.items()
        for metric_id, columns in by_metric(run_segments, metric_ids[run_id]).items()
    }


def _plan(want: Wanted, outlines: list[Outline], fresh: dict[tuple[RunId, int], Columns], width: int) -> _Metric:
    """Where the metric's points lie within the range, and so how wide a bucket is."""
    lows = [chunk.min_step for chunk in outlines]
    highs = [chunk.max_step for chunk in outlines]
    columns = fresh.get((want.run_id, want.metric_id))
    if columns is not None:
        lows.append(columns.key(0)[0])
        highs.append(columns.key(-1)[0])
    low, high = max(want.low, min(lows, default=0)), min(want.high, max(highs, default=0))
    return _Metric(Wanted(want.run_id, want.metric_id, low, high), outlines, max(1.0, (high - low + 1) / width))


def _depths(pending: Sequence[_Metric]) -> tuple[list[Outline], list[Outline]]:
    """Which chunks to read by blocks, and which by points. Those whose own summary is fine enough are in neither."""
    by_blocks: list[Outline] = []
    by_points: list[Outline] = []
    for metric in pending:
        want = metric.want
        for chunk in metric.outlines:
            extent = chunk.max_step - chunk.min_step
            inside = chunk.min_step >= want.low and chunk.max_step <= want.high
            if inside and extent <= metric.bucket / 2:
                continue
            fine = extent * BLOCK_POINTS / chunk.points <= metric.bucket / 2
            (by_blocks if inside and fine else by_points).append(chunk)
    return by_blocks, by_points


def _too_coarse(blocks: Blocks, metric: _Metric) -> bool:
    """Whether the steps lie so unevenly that a block is wider than it may be, although their mean is not."""
    return bool(np.any(blocks.last_steps - blocks.first_steps > metric.bucket))


def _within(columns: Columns, want: Wanted) -> Columns:
    return columns.take((columns.steps >= want.low) & (columns.steps <= want.high))


def _of_outlines(outlines: Sequence[Outline]) -> Blocks:
    return Blocks(
        np.array([chunk.min_step for chunk in outlines], np.int64),
        np.array([chunk.max_step for chunk in outlines], np.int64),
        np.array([chunk.points for chunk in outlines], np.int64),
        np.array([chunk.min_value for chunk in outlines], np.float64),
        np.array([chunk.max_value for chunk in outlines], np.float64),
        np.array([chunk.sum_value for chunk in outlines], np.float64),
        np.array([chunk.nans for chunk in outlines], np.int64),
    )


def _of_points(columns: Columns) -> Blocks:
    missing = np.isnan(columns.values)
    return Blocks(
        columns.steps,
        columns.steps,
        np.ones(len(columns), np.int64),
        columns.values,
        columns.values,
        np.where(missing, 0.0, columns.values),
        missing.astype(np.int64),
    )


def _series(run_id: RunId, name: str, parts: Sequence[Blocks], metric: _Metric, width: int) -> Series | None:
    """Blocks of any size, each counted in the bucket in which it begins."""
    first_steps = np.concatenate([part.first_steps for part in parts])
    if not len(first_steps):
        return None
    bucket = ((first_steps.astype(np.float64) - metric.want.low) / metric.bucket).astype(np.int64).clip(0, width - 1)
    order = np.argsort(bucket, kind="stable")
    starts = np.flatnonzero(np.diff(bucket[order], prepend=-1))

    def gathered(column: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.concatenate([getattr(part, column) for part in parts])[order]

    counts = np.add.reduceat(gathered("counts"), starts)
    numbers = counts - np.add.reduceat(gathered("nans"), starts)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        means = np.add.reduceat(gathered("sums"), starts) / numbers  # 0 / 0 is NaN, which is what it means
    return Series(
        run_id,
        name,
        np.minimum.reduceat(first_steps[order], starts),
        np.maximum.reduceat(gathered("last_steps"), starts),
        counts,
        np.fmin.reduceat(gathered("mins"), starts),
        np.fmax.reduceat(gathered("maxs"), starts),
        means,
    )
