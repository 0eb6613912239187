"""Level 0 of the metric store: what one flush brought for one run, in the form it came in.

A segment has frames in turn: a shape, a step and a time each, and as many values as the shape has
metrics. Its columns are little-endian numbers, as they were on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.model.access import WorkspaceId
from penstock_server.model.runs import RunId
from penstock_server.postgres import binary
from penstock_server.postgres.copying import copy
from penstock_server.postgres.database import Connection, Row

_COLUMNS = (
    "run_id",
    "workspace_id",
    "frames",
    "min_step",
    "max_step",
    "shape_sizes",
    "metric_ids",
    "shapes",
    "steps",
    "times_ms",
    "metric_values",
)


@dataclass(frozen=True, slots=True)
class NewSegment:
    """A segment to be written; its columns in pieces, one per batch."""

    workspace_id: WorkspaceId
    run_id: RunId
    frames: int
    min_step: int
    max_step: int
    shape_sizes: NDArray[np.int32]
    metric_ids: NDArray[np.int32]
    shapes: NDArray[np.int32] | None  # None when there is one shape only
    steps: Sequence[binary.Piece]
    times_ms: Sequence[binary.Piece]
    values: Sequence[binary.Piece]

    def row(self) -> Sequence[binary.Field]:
        """The fields of `_COLUMNS`."""
        return (
            binary.uuid_(self.run_id),
            binary.int4(self.workspace_id),
            binary.int4(self.frames),
            binary.int8(self.min_step),
            binary.int8(self.max_step),
            binary.array(self.shape_sizes),
            binary.array(self.metric_ids),
            None if self.shapes is None else (self.shapes.astype("<i4").tobytes(),),
            self.steps,
            self.times_ms,
            self.values,
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as read, with numpy's view of its columns."""

    run_id: RunId
    id: int
    workspace_id: WorkspaceId
    shape_sizes: NDArray[np.int32]
    metric_ids: NDArray[np.int32]
    shapes: NDArray[np.int32] | None
    steps: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    values: NDArray[np.float64]

    def by_shape(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]]]:
        """For each shape: its metric ids, the frames (by number) that have it, and their values (frames × metrics)."""
        starts = np.concatenate(([0], np.cumsum(self.shape_sizes)))
        if self.shapes is None:
            yield self.metric_ids, np.arange(len(self.steps)), self.values.reshape(len(self.steps), -1)
            return
        sizes = self.shape_sizes[self.shapes].astype(np.int64)
        offsets = np.cumsum(sizes) - sizes
        for shape in range(len(self.shape_sizes)):
            frames = np.flatnonzero(self.shapes == shape)
            ids = self.metric_ids[starts[shape] : starts[shape + 1]]
            yield ids, frames, self.values[offsets[frames][:, None] + np.arange(len(ids))]


async def append(conn: Connection, segments: Sequence[NewSegment]) -> None:
    """Writes the segments, in order."""
    await copy(conn, "metric_segments", _COLUMNS, binary.rows(segment.row() for segment in segments))


_COLUMNS_READ = """
run_id, id, workspace_id, array_send(shape_sizes), array_send(metric_ids), shapes, steps, times_ms, metric_values
"""
# Segments of some runs that have steps in a range; they are few, so they are looked through, not indexed.
_OVERLAPPING = f"""
SELECT {_COLUMNS_READ} FROM metric_segments
 WHERE run_id = ANY($1) AND min_step <= $3 AND max_step >= $2 AND metric_ids && $4
 ORDER BY run_id, id
"""  # noqa: S608  # only constants are put together
# The oldest segments of a run, up to about $2 bytes of them and at least one.
_OLDEST = f"""
SELECT {_COLUMNS_READ} FROM metric_segments
 WHERE run_id = $1 AND id IN (
       SELECT id FROM (SELECT id, sum(octet_length(metric_values) + 16 * frames) OVER (ORDER BY id)
                              - octet_length(metric_values) - 16 * frames AS before
                         FROM metric_segments WHERE run_id = $1) s WHERE before < $2)
 ORDER BY id
"""  # noqa: S608
_DELETE = "DELETE FROM metric_segments WHERE run_id = $1 AND id = ANY($2)"
# Held until the transaction ends. The key is half of the run's id; two runs that share it only wait for each other.
_LOCK = "SELECT pg_try_advisory_xact_lock($1)"
_HOLD = "SELECT pg_advisory_xact_lock($1)"
_ANY = "SELECT EXISTS (SELECT FROM metric_segments WHERE run_id = $1)"
_BACKLOG = """
SELECT s.run_id, s.segments, s.frames, s.bytes, r.status IN (3, 4, 5) AS ended
  FROM (SELECT run_id, count(*) AS segments, sum(frames) AS frames, sum(octet_length(metric_values))::bigint AS bytes
          FROM metric_segments GROUP BY run_id) s
  JOIN runs r ON r.id = s.run_id
"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much of a run is not compacted, and whether the run has ended."""

    run_id: RunId
    segments: int
    frames: int
    bytes: int
    ended: bool


async def overlapping(
    conn: Connection, run_ids: Sequence[RunId], min_step: int, max_step: int, metric_ids: Sequence[int]
) -> list[Segment]:
    """Segments of these runs with steps in the range and any of these metrics, in the order of their arrival."""
    rows = await conn.fetch(_OVERLAPPING, run_ids, min_step, max_step, metric_ids)
    return [_segment(row) for row in rows]


async def oldest(conn: Connection, run_id: RunId, limit_bytes: int) -> list[Segment]:
    """The run's oldest segments, as many as weigh about `limit_bytes`, at least one if there is one."""
    return [_segment(row) for row in await conn.fetch(_OLDEST, run_id, limit_bytes)]


async def delete(conn: Connection, run_id: RunId, ids: Sequence[int]) -> None:
    """Removes segments that have been compacted."""
    await conn.execute(_DELETE, run_id, ids)


async def lock(conn: Connection, run_id: RunId) -> bool:
    """Whether this transaction is now the only one that compacts the run."""
    return bool(await conn.fetchval(_LOCK, _half(run_id)))


async def hold(conn: Connection, run_id: RunId) -> None:
    """Waits for who compacts the run, and keeps others from it until the transaction ends."""
    await conn.execute(_HOLD, _half(run_id))


def _half(run_id: RunId) -> int:
    return (run_id.int & (1 << 64) - 1) - (1 << 63)


async def any_left(conn: Connection, run_id: RunId) -> bool:
    """Whether the run has segments."""
    return bool(await conn.fetchval(_ANY, run_id))


async def backlog(conn: Connection) -> list[Backlog]:
    """Every run with segments. Level 0 is small; this reads all of its rows, not its columns' contents."""
    return [Backlog(*row) for row in await conn.fetch(_BACKLOG)]


def _segment(row: Row) -> Segment:
    run_id, id_, workspace_id, sizes, ids, shapes, steps, times_ms, values = row
    return Segment(
        run_id,
        id_,
        workspace_id,
        binary.read_int4s(sizes),
        binary.read_int4s(ids),
        None if shapes is None else np.frombuffer(shapes, "<i4"),
        np.frombuffer(steps, "<i8"),
        np.frombuffer(times_ms, "<i8"),
        np.frombuffer(values, "<f8"),
    )
