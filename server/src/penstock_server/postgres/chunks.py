"""Level 1 of the metric store: up to 4,096 consecutive points of one metric, sorted by (step, time, arrival).

Three depths of detail, so that a chart reads no more than it can draw: the chunk's own summary, the
summaries of its blocks of 128 points, and the points. Steps and times are stored as differences,
which PostgreSQL's compressor turns into almost nothing; values are uncompressed, as float32 where
that holds every one of them exactly. docs/adr/0001 has the measurements.

Chunks of one metric may overlap in steps when points come out of order; readers sort. Where two
points agree in step and time, the chunk with the lower id has the one that arrived first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from penstock_server.model.access import WorkspaceId
from penstock_server.model.runs import RunId
from penstock_server.postgres import binary
from penstock_server.postgres.binary import Float64s, Int64s
from penstock_server.postgres.copying import copy
from penstock_server.postgres.database import Connection, Row
from penstock_server.postgres.points import Columns

CHUNK_POINTS = 4096
BLOCK_POINTS = 128


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of a chunk without reading its arrays."""

    run_id: RunId
    metric_id: int
    id: int
    points: int
    min_step: int
    max_step: int
    first_time: int
    last_time: int
    min_value: float
    max_value: float
    sum_value: float
    nans: int
    least_time: int | None  # None: an earlier release wrote it, and did not say
    greatest_time: int | None

    @property
    def first(self) -> tuple[int, int]:
        """Step and time of its first point."""
        return self.min_step, self.first_time

    @property
    def last(self) -> tuple[int, int]:
        """Step and time of its last point."""
        return self.max_step, self.last_time


@dataclass(frozen=True, slots=True)
class Blocks:
    """The summaries of consecutive points: of each, the first and last step, the count, and of its values that are
    not NaN the least, the greatest and the sum."""

    first_steps: Int64s
    last_steps: Int64s
    counts: Int64s
    mins: Float64s
    maxs: Float64s
    sums: Float64s
    nans: Int64s


_COLUMNS = (
    "run_id",
    "metric_id",
    "workspace_id",
    "points",
    "min_step",
    "max_step",
    "first_time",
    "last_time",
    "min_value",
    "max_value",
    "sum_value",
    "nans",
    "least_time",
    "greatest_time",
    "block_steps",
    "block_mins",
    "block_maxs",
    "block_sums",
    "block_nans",
    "step_deltas",
    "time_deltas",
    "values_f4",
    "values_f8",
)


def row(workspace_id: WorkspaceId, run_id: RunId, metric_id: int, points: Columns) -> Sequence[binary.Field]:
    """The COPY row of a chunk of these points, which are in order, not empty, and whose step range `fits`."""
    values = points.values
    starts = np.arange(0, len(values), BLOCK_POINTS)
    missing = np.isnan(values)
    has_nans = bool(missing.any())
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are values: their sums may be infinite or NaN
        sums = np.add.reduceat(np.where(missing, 0.0, values) if has_nans else values, starts)
        total = float(sums.sum())
    mins = np.fmin.reduceat(values, starts)
    maxs = np.fmax.reduceat(values, starts)
    block_nans = np.add.reduceat(missing, starts, dtype=np.int32)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
    exact = np.array_equal(narrow.astype(np.float64).view(np.int64), values.view(np.int64))
    return (
        binary.uuid_(run_id),
        binary.int4(metric_id),
        binary.int4(workspace_id),
        binary.int4(len(values)),
        binary.int8(int(points.steps[0])),
        binary.int8(int(points.steps[-1])),
        binary.int8(int(points.times_ms[0])),
        binary.int8(int(points.times_ms[-1])),
        binary.float8(float(np.fmin.reduce(mins))),
        binary.float8(float(np.fmax.reduce(maxs))),
        binary.float8(total),
        binary.int4(int(block_nans.sum())),
        binary.int8(int(points.times_ms.min())),
        binary.int8(int(points.times_ms.max())),
        binary.array(points.steps[starts]),
        binary.array(mins),
        binary.array(maxs),
        binary.array(sums),
        binary.array(block_nans) if has_nans else None,
        binary.array(np.diff(points.steps, prepend=0)),
        binary.array(np.diff(points.times_ms, prepend=0)),
        binary.array(narrow) if exact else None,
        None if exact else binary.array(values),
    )


def split(points: Columns) -> list[Columns]:
    """Points in order, cut into chunks. A difference of steps must fit into int64, or a chunk ends early."""
    cuts = list(range(CHUNK_POINTS, len(points), CHUNK_POINTS))
    steps = points.steps
    if len(steps) and int(steps[-1]) - int(steps[0]) >= 2**63:
        # Ascending steps whose difference wraps around to a negative number are too far apart.
        cuts = sorted({*cuts, *(np.flatnonzero(np.diff(steps) < 0) + 1).tolist()})
    bounds = [0, *cuts, len(points)]
    return [points.take(slice(a, b)) for a, b in pairwise(bounds) if b > a]


async def append(conn: Connection, rows: Sequence[Sequence[binary.Field]]) -> None:
    """Writes chunks made by `row`, in order."""
    await copy(conn, "metric_chunks", _COLUMNS, binary.rows(rows))


_OUTLINE = """c.run_id, c.metric_id, c.id, c.points, c.min_step, c.max_step, c.first_time, c.last_time,
       c.min_value, c.max_value, c.sum_value, c.nans, c.least_time, c.greatest_time"""
# The pairs come as two arrays of equal length.
_OUTLINES = f"""
SELECT {_OUTLINE}
  FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[]) AS p (run_id, metric_id, low, high)
  JOIN metric_chunks c
    ON c.run_id = p.run_id AND c.metric_id = p.metric_id AND c.min_step <= p.high AND c.max_step >= p.low
 ORDER BY c.run_id, c.metric_id, c.min_step, c.first_time, c.id
"""  # noqa: S608  # only constants are put together
_SINCE = f"""
SELECT {_OUTLINE}
  FROM metric_chunks c
 WHERE c.run_id = $1 AND c.metric_id = $2 AND (c.greatest_time >= $3 OR c.greatest_time IS NULL)
"""  # noqa: S608
_TAILS = f"""
SELECT {_OUTLINE}
  FROM unnest($2::integer[]) AS p (metric_id)
 CROSS JOIN LATERAL (
       SELECT * FROM metric_chunks c WHERE c.run_id = $1 AND c.metric_id = p.metric_id ORDER BY id DESC LIMIT $3) c
 ORDER BY c.metric_id, c.id
"""  # noqa: S608
_BY_ID = """
  FROM unnest($1::uuid[], $2::integer[], $3::bigint[]) AS p (run_id, metric_id, id)
  JOIN metric_chunks c ON c.run_id = p.run_id AND c.metric_id = p.metric_id AND c.id = p.id
"""
_BLOCKS = (
    """
SELECT c.id, c.points, c.max_step, array_send(c.block_steps), array_send(c.block_mins), array_send(c.block_maxs),
       array_send(c.block_sums), array_send(c.block_nans)"""
    + _BY_ID
)
_POINTS = (
    """
SELECT c.id, array_send(c.step_deltas), array_send(c.time_deltas), array_send(c.values_f4), array_send(c.values_f8)"""
    + _BY_ID
)
_DELETE = "DELETE FROM metric_chunks WHERE run_id = $1 AND metric_id = ANY($2) AND id = ANY($3)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A metric of a run, in a range of steps, both ends included."""

    run_id: RunId
    metric_id: int
    low: int
    high: int


async def outlines(conn: Connection, wanted: Sequence[Wanted]) -> list[Outline]:
    """The chunks with steps in these ranges; of each metric in the order of their first steps."""
    return [Outline(*row) for row in await conn.fetch(_OUTLINES, *_ranges(wanted))]


async def outlines_since(conn: Connection, run_id: RunId, metric_id: int, time_ms: int) -> list[Outline]:
    """The chunks of a metric that can have points of this time or later, in any order."""
    return [Outline(*row) for row in await conn.fetch(_SINCE, run_id, metric_id, time_ms)]


async def tails(conn: Connection, run_id: RunId, metric_ids: Sequence[int], length: int) -> list[Outline]:
    """Of each of these metrics the last `length` chunks written, in the order of their ids."""
    return [Outline(*row) for row in await conn.fetch(_TAILS, run_id, metric_ids, length)]


async def blocks(conn: Connection, chunks: Sequence[Outline]) -> dict[int, Blocks]:
    """The blocks of these chunks, by chunk id."""
    return {row[0]: _blocks(row) for row in await conn.fetch(_BLOCKS, *_ids(chunks))} if chunks else {}


async def points(conn: Connection, chunks: Sequence[Outline]) -> dict[int, Columns]:
    """The points of these chunks, by chunk id."""
    return {row[0]: _points(row) for row in await conn.fetch(_POINTS, *_ids(chunks))} if chunks else {}


async def delete(conn: Connection, run_id: RunId, chunks: Sequence[Outline]) -> None:
    """Removes chunks of one run, whose points stand in others now."""
    await conn.execute(_DELETE, run_id, list({chunk.metric_id for chunk in chunks}), [chunk.id for chunk in chunks])


def _ranges(wanted: Sequence[Wanted]) -> tuple[list[RunId], list[int], list[int], list[int]]:
    return (
        [want.run_id for want in wanted],
        [want.metric_id for want in wanted],
        [want.low for want in wanted],
        [want.high for want in wanted],
    )


def _ids(chunks: Sequence[Outline]) -> tuple[list[RunId], list[int], list[int]]:
    return [chunk.run_id for chunk in chunks], [chunk.metric_id for chunk in chunks], [chunk.id for chunk in chunks]


def _blocks(row: Row) -> Blocks:
    _, count, max_step, steps, mins, maxs, sums, nans = row
    first_steps = binary.read_int8s(steps)
    counts = np.full(len(first_steps), BLOCK_POINTS, np.int64)
    counts[-1] = count - BLOCK_POINTS * (len(first_steps) - 1)
    # A block's last step is not stored: the next block's first is at most one step too far.
    return Blocks(
        first_steps,
        np.append(first_steps[1:], max_step),
        counts,
        binary.read_float8s(mins),
        binary.read_float8s(maxs),
        binary.read_float8s(sums),
        np.zeros(len(first_steps), np.int64) if nans is None else binary.read_int4s(nans).astype(np.int64),
    )


def _points(row: Row) -> Columns:
    _, steps, times, narrow, wide = row
    return Columns(
        np.cumsum(binary.read_int8s(steps)),
        np.cumsum(binary.read_int8s(times)),
        binary.read_float8s(wide) if narrow is None else binary.read_float4s(narrow),
    )
