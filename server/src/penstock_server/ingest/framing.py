"""Points of a single batch, as columns, put into frames: those of one step and time that follow each other are one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from penstock_server.ingest.frames import Frames
from penstock_server.ingest.ingest import Ingest
from penstock_server.ingest.shapes import Shape
from penstock_server.model.runs import RunId


async def framed(
    ingest: Ingest,
    run_id: RunId,
    names: Sequence[str],
    steps: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    values: NDArray[np.float64],
) -> Frames:
    """The frames of at least one point, in the order of the points. Raises InvalidArgument of a name, NotFound."""
    moved = np.flatnonzero((steps[1:] != steps[:-1]) | (times_ms[1:] != times_ms[:-1])) + 1
    groups: list[tuple[str, ...]] = []
    starts: list[int] = []
    for start, end in pairwise([0, *moved.tolist(), len(names)]):
        group = tuple(names[start:end])
        parts = [group] if len(set(group)) == len(group) else _distinct(group)
        for part in parts:
            starts.append(start)
            groups.append(part)
            start += len(part)  # noqa: PLW2901  # where the next one begins
    shapes = await ingest.shapes(run_id, groups)
    kinds: dict[Shape, int] = {}
    numbers = [kinds.setdefault(shape, len(kinds)) for shape in shapes]
    return Frames(
        len(groups),
        list(kinds),
        np.array(numbers, np.int32) if len(kinds) > 1 else None,
        steps[starts],
        times_ms[starts],
        values,
    )


def _distinct(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The names in parts, none of which has one twice."""
    parts: list[tuple[str, ...]] = []
    part: dict[str, None] = {}
    for name in names:
        if name in part:
            parts.append(tuple(part))
            part = {}
        part[name] = None
    return [*parts, tuple(part)]
