"""Curves in a terminal, drawn with braille: each character cell has two by four dots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.metrics import History, Series

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_COLOURS = (36, 33, 35, 32, 34, 31)


@dataclass(frozen=True, slots=True)
class _Bucket:
    """What a curve does over some steps; of a single point all are the same."""

    step: float
    least: float
    greatest: float
    mean: float


@dataclass(frozen=True, slots=True)
class _Frame:
    """What part of the world is shown, and on how many dots."""

    columns: int
    rows: int
    left: float
    right: float
    bottom: float
    top: float

    def x(self, step: float) -> int:
        """The dot's column, from the left."""
        return round((step - self.left) / (self.right - self.left) * (self.columns - 1))

    def y(self, value: float) -> int:
        """The dot's row, from the top."""
        return round((self.top - value) / (self.top - self.bottom) * (self.rows - 1))


def plot(*curves: History | Series, width: int = 80, height: int = 16, colour: bool = False) -> str:
    """Curves over steps, `width` by about `height` characters. With `colour` in one plot, else one below the other."""
    if not colour and len(curves) > 1:
        return "\n\n".join(plot(curve, width=width, height=height) for curve in curves)
    buckets = [list(_buckets(curve)) for curve in curves]
    every = [bucket for each in buckets for bucket in each]
    if not every:
        return "no numbers to plot: " + ", ".join(curve.name for curve in curves)
    bottom, top = _apart(min(each.least for each in every), max(each.greatest for each in every))
    scale = (top - bottom) / max(1, height - 1)
    labels = [f"{top - scale * row:.4g}" if row % 5 == 0 or row == height - 1 else "" for row in range(height)]
    margin = max(map(len, labels))
    cells = max(8, width - margin - 2)
    left, right = _apart(min(each.step for each in every), max(each.step for each in every))
    frame = _Frame(2 * cells, 4 * height, left, right, bottom, top)

    canvas = [[0] * cells for _ in range(height)]
    painted = [[0] * cells for _ in range(height)]
    for number, each in enumerate(buckets):
        for x, y in _dots(each, frame):
            canvas[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
            painted[y // 4][x // 2] = _COLOURS[number % len(_COLOURS)]

    lines = [
        "  ".join(
            _paint(_title(curve, curves), _COLOURS[at % len(_COLOURS)], colour) for at, curve in enumerate(curves)
        )
    ]
    for row in range(height):
        dots = "".join(
            _paint(chr(0x2800 + dots), paint, colour and dots > 0)
            for dots, paint in zip(canvas[row], painted[row], strict=True)
        )
        lines.append(f"{labels[row]:>{margin}} {'┤' if labels[row] else '│'}{dots}")
    first, last = f"{left:.0f}", f"{right:.0f}"
    lines.append(f"{'':>{margin}} └{'─' * cells}")
    lines.append(f"{'':>{margin}}  {first}{'step':^{max(4, cells - len(first) - len(last))}}{last}")
    return "\n".join(lines)


def _buckets(curve: History | Series) -> Iterator[_Bucket]:
    """In the order of steps, without what is no finite number."""
    if isinstance(curve, History):
        for step, value in zip(curve.steps, curve.values, strict=True):
            if math.isfinite(value):
                yield _Bucket(step, value, value, value)
        return
    spans = zip(curve.first_steps, curve.last_steps, curve.mins, curve.maxs, curve.means, strict=True)
    for first, last, least, greatest, mean in spans:
        if math.isfinite(least) and math.isfinite(greatest):
            yield _Bucket((first + last) / 2, least, greatest, mean if math.isfinite(mean) else least)


def _apart(low: float, high: float) -> tuple[float, float]:
    """Two numbers that differ, so that there is a scale between them."""
    if high > low:
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def _dots(buckets: list[_Bucket], frame: _Frame) -> Iterator[tuple[int, int]]:
    before: tuple[int, int] | None = None
    for each in buckets:
        x, mean = frame.x(each.step), frame.y(each.mean)
        for y in range(frame.y(each.greatest), frame.y(each.least) + 1):
            yield x, y
        if before is not None:
            yield from _line(before, (x, mean))
        before = x, mean


def _line(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    for at in range(length + 1):
        part = at / length if length else 0.0
        yield round(start[0] + part * (end[0] - start[0])), round(start[1] + part * (end[1] - start[1]))


def _title(curve: History | Series, curves: Sequence[History | Series]) -> str:
    """The metric's name; with the run's where there are several."""
    several = len({each.run_id for each in curves}) > 1
    return f"{curve.name} ({curve.run_id})" if several else curve.name


def _paint(text: str, paint: int, colour: bool) -> str:
    return f"\x1b[{paint}m{text}\x1b[0m" if colour else text
