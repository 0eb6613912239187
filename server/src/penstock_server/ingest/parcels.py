"""Parcels: what waits in the buffer, and what a flush makes of those it takes.

A parcel is one batch of a writer, or one unary batch. A flush is all that goes into one transaction.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_server.ingest.frames import Frames
from penstock_server.ingest.shapes import Shape
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import ParamChanged
from penstock_server.model.runs import RunId
from penstock_server.model.streams import Reject, Update, WriterId
from penstock_server.postgres.metrics import Growth
from penstock_server.postgres.segments import NewSegment

# One row holds the frames of many batches, but not more than readers like to take at once.
_SEGMENT_BYTES = 4 << 20


class Origin(Protocol):
    """Who brought a parcel and is to be told how it went."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more and the parcel must not be committed."""
        ...

    def committed(self, parcel: Parcel, clashes: Sequence[Clash]) -> None:
        """It is durable, but for its params that clash with recorded ones."""
        ...

    def failed(self, parcel: Parcel, error: Exception) -> None:
        """It is not, and will not be by this server."""
        ...

    def settle(self, parcel: Parcel) -> None:
        """It has left the pipeline, one way or the other."""
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """The move of a writer's mark that comes with a batch."""

    writer_id: WriterId
    epoch: int
    lo: int
    hi: int


@dataclass(frozen=True, slots=True, eq=False)  # a parcel is itself only
class Parcel:
    """What one batch brings, less what of it is refused: of that it brings the mark and the reason."""

    run: RunRef
    origin: Origin
    size: int
    mark: Mark | None = None
    frames: Sequence[Frames] = ()
    updates: Sequence[tuple[int, Update]] = ()  # with their positions in the batch
    refused: Sequence[Reject] = ()
    lost: int = 0  # how many records it brings nothing but the numbers of
    # A unary batch is all or nothing, so a param that clashes fails all of it; one with a request id is recorded once.
    unary: bool = False
    principal: str = ""
    request: uuid.UUID | None = None

    @property
    def points(self) -> int:
        """How many points."""
        return sum(frames.points for frames in self.frames)


@dataclass(frozen=True, slots=True)
class Clash:
    """An update of a parcel, by its position there, that clashes with what is recorded."""

    parcel: Parcel
    position: int
    error: ParamChanged


@dataclass(slots=True)
class RunPart:
    """What a flush brings for one run, in the order of arrival; updates with their positions in their parcels."""

    run: RunRef
    frames: list[Frames] = field(default_factory=list)
    updates: list[tuple[Parcel, int, Update]] = field(default_factory=list)
    lost: Counter[WriterId] = field(default_factory=Counter)


def by_run(parcels: Iterable[Parcel]) -> list[RunPart]:
    """The parcels' contents, run by run."""
    parts: dict[RunId, RunPart] = {}
    for parcel in parcels:
        part = parts.get(parcel.run.run_id)
        if part is None:
            part = parts[parcel.run.run_id] = RunPart(parcel.run)
        part.frames.extend(parcel.frames)
        part.updates.extend((parcel, position, update) for position, update in parcel.updates)
        if parcel.mark is not None and parcel.lost:
            part.lost[parcel.mark.writer_id] += parcel.lost
    return list(parts.values())


def segments(part: RunPart) -> list[NewSegment]:
    """The level-0 rows of a run's frames: one, unless they are very many."""
    rows: list[NewSegment] = []
    group: list[Frames] = []
    size = 0
    for frames in part.frames:
        if group and size + frames.values.nbytes > _SEGMENT_BYTES:
            rows.append(_segment(part.run, group))
            group, size = [], 0
        group.append(frames)
        size += frames.values.nbytes
    if group:
        rows.append(_segment(part.run, group))
    return rows


def _segment(run: RunRef, group: Sequence[Frames]) -> NewSegment:
    kinds: dict[Shape, int] = {}
    for frames in group:
        for kind in frames.kinds:
            kinds.setdefault(kind, len(kinds))
    shapes = None
    if len(kinds) > 1:
        shapes = np.concatenate([_numbered(frames, kinds) for frames in group])
    return NewSegment(
        run.workspace_id,
        run.run_id,
        sum(frames.count for frames in group),
        min(int(frames.steps.min()) for frames in group),
        max(int(frames.steps.max()) for frames in group),
        np.array([len(kind) for kind in kinds], np.int32),
        np.concatenate([kind.ids for kind in kinds]),
        shapes,
        [frames.steps.data.cast("B") for frames in group],
        [frames.times_ms.data.cast("B") for frames in group],
        [frames.values.data.cast("B") for frames in group],
    )


def _numbered(frames: Frames, kinds: dict[Shape, int]) -> NDArray[np.int32]:
    numbers = np.array([kinds[kind] for kind in frames.kinds], np.int32)
    return np.repeat(numbers, frames.count) if frames.kind_of is None else numbers[frames.kind_of]


@dataclass(slots=True)
class _Tally:
    """One shape's frames of one run, summed up: the summaries of its metrics side by side."""

    count: int
    mins: NDArray[np.float64]
    maxs: NDArray[np.float64]
    last: tuple[int, int]  # step, time
    last_values: NDArray[np.float64]  # of each metric the greatest of those at `last`


def growth(parts: Sequence[RunPart]) -> Growth | None:
    """What the flush adds to the summaries of its runs' metrics; None when it has no points."""
    run_ids: list[RunId] = []
    columns: list[tuple[NDArray[np.generic], ...]] = []
    for part in parts:
        tallies = _tally(part.frames)
        if tallies:
            grown = _merge(tallies)
            columns.append(grown)
            run_ids.extend([part.run.run_id] * len(grown[0]))
    if not columns:
        return None
    return Growth(run_ids, *(np.concatenate(column) for column in zip(*columns, strict=True)))


def _tally(run_frames: Sequence[Frames]) -> dict[Shape, _Tally]:
    tallies: dict[Shape, _Tally] = {}
    for frames in run_frames:
        for kind, chosen, matrix in _by_kind(frames):
            steps, times = (
                (frames.steps, frames.times_ms) if chosen is None else (frames.steps[chosen], frames.times_ms[chosen])
            )
            rows = _last(steps, times)
            last, last_values = (int(steps[rows[0]]), int(times[rows[0]])), _greatest(matrix[rows])
            # fmin and fmax pass over NaN, and give it only where there is nothing else.
            mins, maxs = np.fmin.reduce(matrix), np.fmax.reduce(matrix)
            tally = tallies.get(kind)
            if tally is None:
                tallies[kind] = _Tally(len(steps), mins, maxs, last, last_values)
                continue
            tally.count += len(steps)
            tally.mins, tally.maxs = np.fmin(tally.mins, mins), np.fmax(tally.maxs, maxs)
            if last == tally.last:
                tally.last_values = _greatest(np.stack([tally.last_values, last_values]))
            elif last > tally.last:
                tally.last, tally.last_values = last, last_values
    return tallies


def _by_kind(frames: Frames) -> Iterable[tuple[Shape, NDArray[np.intp] | None, NDArray[np.float64]]]:
    """For each shape: which frames have it (None: all), and their values, frames × metrics."""
    if frames.kind_of is None:
        yield frames.kinds[0], None, frames.values.reshape(frames.count, -1)
        return
    sizes = np.array([len(kind) for kind in frames.kinds])[frames.kind_of]
    offsets = np.cumsum(sizes) - sizes
    for number, kind in enumerate(frames.kinds):
        chosen = np.flatnonzero(frames.kind_of == number)
        yield kind, chosen, frames.values[offsets[chosen][:, None] + np.arange(len(kind))]


def _last(steps: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.intp]:
    """Which frames are the last by (step, time)."""
    rows = np.flatnonzero(steps == steps.max())
    if len(rows) > 1:
        rows = rows[times[rows] == times[rows].max()]
    return rows


def _greatest(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each column the greatest. NaN counts as 0; beside another 0 it gives way to that."""
    greatest: NDArray[np.float64] = matrix[0]
    if len(matrix) > 1:
        missing = np.isnan(matrix)
        values = np.where(missing, 0.0, matrix)
        greatest = values.max(axis=0)
        greatest[~((values == greatest) & ~missing).any(axis=0)] = np.nan
    return greatest


def _merge(tallies: dict[Shape, _Tally]) -> tuple[NDArray[np.generic], ...]:
    """The columns of `Growth` after the run's id, each metric once although several shapes may have it."""
    ids = np.concatenate([kind.ids for kind in tallies])
    widths = [len(kind) for kind in tallies]
    counts = np.repeat([tally.count for tally in tallies.values()], widths)
    steps = np.repeat([tally.last[0] for tally in tallies.values()], widths)
    times = np.repeat([tally.last[1] for tally in tallies.values()], widths)
    values = np.concatenate([tally.last_values for tally in tallies.values()])
    mins = np.concatenate([tally.mins for tally in tallies.values()])
    maxs = np.concatenate([tally.maxs for tally in tallies.values()])
    if len(tallies) > 1:
        missing = np.isnan(values)
        order = np.lexsort((~missing, np.where(missing, 0.0, values), times, steps, ids))
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
        ends = np.append(starts[1:], len(ids)) - 1
        last = order[ends]
        ids, steps, times, values = ids[last], steps[last], times[last], values[last]
        counts = np.add.reduceat(counts[order], starts)
        mins, maxs = np.fmin.reduceat(mins[order], starts), np.fmax.reduceat(maxs[order], starts)
    else:
        order = np.argsort(ids)
        ids, values, mins, maxs = ids[order], values[order], mins[order], maxs[order]
    return ids, counts, steps, times, values, mins, maxs
