"""A batch's frames, checked once and then carried as they came: no point becomes a Python object."""

from __future__ import annotations

import itertools
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


@dataclass(frozen=True, slots=True)
class BadShape:
    """A shape that was refused when its stream defined it. It keeps its number, and its frames are refused."""

    length: int
    error: InvalidArgument

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True, slots=True)
class Refusal:
    """Records of a batch, from `first` to `last` by position, that cannot be stored."""

    first: int
    last: int
    error: InvalidArgument


def read(batch: Batch, shapes: Sequence[Shape | BadShape]) -> tuple[Frames | None, list[Refusal]]:
    """The frames of a batch, its shape numbers looked up in `shapes`, and what of it is refused.

    Raises InvalidArgument where the columns do not fit together, so that no frame can be told from another.
    """
    steps = _column("steps", batch.steps, batch.count, "<i8")
    times_ms = _column("times_ms", batch.times_ms, batch.count, "<i8")
    numbers = _column("shapes", batch.shapes, batch.count, "<u4")
    if len(batch.values) % 8:
        raise InvalidArgument("values", f"{len(batch.values)} bytes are no whole number of doubles; send them packed")
    values = np.frombuffer(batch.values, "<f8")
    highest = int(numbers.max())
    if highest >= len(shapes):
        raise InvalidArgument(
            "shapes",
            f"shape {highest} is not defined: this stream has defined {len(shapes)}; define shapes anew on each",
        )
    alike = int(numbers.min()) == highest
    used = np.array([highest]) if alike else np.unique(numbers)
    kinds = [shapes[number] for number in used.tolist()]
    kind_of = None if alike else np.searchsorted(used, numbers).astype(np.int32)
    sizes = None if kind_of is None else np.array([len(kind) for kind in kinds])[kind_of]
    expected = batch.count * len(kinds[0]) if sizes is None else int(sizes.sum())
    if len(values) != expected:
        for kind in kinds:
            if isinstance(kind, BadShape):
                raise kind.error
        raise InvalidArgument("values", f"{len(values)} values for frames that have {expected} by their shapes")
    frames = Frames(batch.count, kinds, kind_of, steps, times_ms, values)
    timely = int(times_ms.min()) >= 0 and int(times_ms.max()) <= TIME_MS_MAX
    if timely and not any(isinstance(kind, BadShape) for kind in kinds):
        return frames, []
    return _sound(frames, kinds)


def _sound(frames: Frames, kinds: Sequence[Shape | BadShape]) -> tuple[Frames | None, list[Refusal]]:
    """Without the frames that are refused, each alone or with its like that stand beside it."""
    error_of: list[InvalidArgument | None] = [kind.error if isinstance(kind, BadShape) else None for kind in kinds]
    untimely = InvalidArgument("times_ms", f"a time is not in ms since 1970 (0 to {TIME_MS_MAX})")
    out_of_time = (frames.times_ms < 0) | (frames.times_ms > TIME_MS_MAX)
    kind_of = np.zeros(frames.count, np.int32) if frames.kind_of is None else frames.kind_of
    errors = [
        error_of[kind] or (untimely if late else None)
        for kind, late in zip(kind_of.tolist(), out_of_time.tolist(), strict=True)
    ]
    refusals = []
    position = 0
    for error, group in itertools.groupby(errors):
        length = len(list(group))
        if error is not None:
            refusals.append(Refusal(position, position + length - 1, error))
        position += length
    good = np.array([error is None for error in errors])
    if not good.any():
        return None, refusals
    sizes = np.array([len(kind) for kind in kinds])[kind_of]
    left = np.unique(kind_of[good])
    numbers = np.searchsorted(left, kind_of[good]).astype(np.int32)
    sound = Frames(
        int(good.sum()),
        [frames.kinds[number] for number in left.tolist()],
        numbers if len(left) > 1 else None,
        frames.steps[good],
        frames.times_ms[good],
        frames.values[np.repeat(good, sizes)],
    )
    return sound, refusals


def without_first(batch: Batch, skip: int, shapes: Sequence[Shape | BadShape]) -> Batch:
    """The batch without its first records, which are committed or on their way."""
    numbers = memoryview(batch.shapes)[: 4 * skip // 4 * 4].cast("I") if len(batch.shapes) >= 4 * skip else ()
    start = sum(len(shapes[number]) for number in numbers if number < len(shapes))
    return Batch(
        batch.first_seq + skip,
        batch.count - skip,
        batch.new_shapes,
        batch.shapes[4 * skip :],
        batch.steps[8 * skip :],
        batch.times_ms[8 * skip :],
        batch.values[8 * start :],
        batch.updates[skip:],
        batch.lost,
    )


def _column(name: str, column: bytes, count: int, kind: str) -> NDArray[np.int64]:
    width = int(kind[-1])
    if len(column) != width * count:
        raise InvalidArgument(
            name, f"{len(column) / width:g} entries for {count} frames; columns have one entry per frame, sent packed"
        )
    return np.frombuffer(column, kind)
