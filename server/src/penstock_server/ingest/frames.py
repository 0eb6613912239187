"""A batch's frames, checked once and then carried as they came: no point becomes a Python object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.ingest.shapes import Shape
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.limits import TIME_MS_MAX
from penstock_server.model.streams import Batch


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames in turn. `kinds` are the distinct shapes; `kind_of` tells each frame's, None when there is only one."""

    count: int
    kinds: Sequence[Shape]
    kind_of: NDArray[np.int32] | None
    steps: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def points(self) -> int:
        """How many points: one a value."""
        return len(self.values)


def read(batch: Batch, shapes: Sequence[Shape | InvalidArgument]) -> Frames:
    """The frames of a batch, its shape numbers looked up in `shapes`. Raises InvalidArgument.

    A shape that was refused when the stream defined it stands in `shapes` as its error.
    """
    steps = _column("steps", batch.steps, batch.count, "<i8")
    times_ms = _column("times_ms", batch.times_ms, batch.count, "<i8")
    numbers = _column("shapes", batch.shapes, batch.count, "<u4")
    if len(batch.values) % 8:
        raise InvalidArgument("values", f"{len(batch.values)} bytes are no whole number of doubles; send them packed")
    values = np.frombuffer(batch.values, "<f8")
    if int(times_ms.min()) < 0 or int(times_ms.max()) > TIME_MS_MAX:
        raise InvalidArgument("times_ms", f"a time is not in ms since 1970 (0 to {TIME_MS_MAX})")
    highest = int(numbers.max())
    if highest >= len(shapes):
        raise InvalidArgument(
            "shapes",
            f"shape {highest} is not defined: this stream has defined {len(shapes)}; define shapes anew on each",
        )
    kind_of: NDArray[np.int32] | None = None
    if int(numbers.min()) == highest:
        kinds = [_usable(shapes[highest])]
        expected = batch.count * len(kinds[0])
    else:
        used, inverse = np.unique(numbers, return_inverse=True)
        kinds = [_usable(shapes[number]) for number in used.tolist()]
        kind_of = inverse.astype(np.int32)
        expected = int(np.array([len(kind) for kind in kinds])[kind_of].sum())
    if len(values) != expected:
        raise InvalidArgument("values", f"{len(values)} values for frames that have {expected} by their shapes")
    return Frames(batch.count, kinds, kind_of, steps, times_ms, values)


def without_first(batch: Batch, skip: int, shapes: Sequence[Shape | InvalidArgument]) -> Batch:
    """The batch without its first records, which are committed or on their way."""
    start = 0
    if not batch.updates:
        numbers = np.frombuffer(batch.shapes[: 4 * skip], "<u4").tolist()
        start = sum(len(shape) for n in numbers if n < len(shapes) and isinstance(shape := shapes[n], Shape))
    return Batch(
        batch.first_seq + skip,
        batch.count - skip,
        batch.new_shapes,
        batch.shapes[4 * skip :],
        batch.steps[8 * skip :],
        batch.times_ms[8 * skip :],
        batch.values[8 * start :],
        batch.updates[skip:],
    )


def _column(name: str, column: bytes, count: int, kind: str) -> NDArray[np.int64]:
    width = int(kind[-1])
    if len(column) != width * count:
        raise InvalidArgument(
            name, f"{len(column) / width:g} entries for {count} frames; columns have one entry per frame, sent packed"
        )
    return np.frombuffer(column, kind)


def _usable(shape: Shape | InvalidArgument) -> Shape:
    if isinstance(shape, InvalidArgument):
        raise shape
    return shape
