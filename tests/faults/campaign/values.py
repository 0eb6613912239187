"""What is logged says where it comes from: writer, number of the call, position in the frame, in one exact float.

writer 12 bits | index 28 bits | position 12 bits
"""

from __future__ import annotations

WRITERS = 1 << 12
INDEXES = 1 << 28
POSITIONS = 1 << 12

_INDEX_SHIFT = 12
_WRITER_SHIFT = 40


def frame(writer: int, index: int, names: list[str]) -> dict[str, float]:
    """The metrics of one call."""
    first = float(writer << _WRITER_SHIFT | index << _INDEX_SHIFT)
    return {name: first + position for position, name in enumerate(names)}


def names(width: int) -> list[str]:
    """The metrics' names; the position stands in them."""
    return [f"m{position:04d}" for position in range(width)]


def position_of(name: str) -> int:
    """Where in the frame a metric of this name stands."""
    return int(name.removeprefix("m"))


def writer_of(coded: int) -> int:
    """Also of arrays."""
    return coded >> _WRITER_SHIFT


def index_of(coded: int) -> int:
    """Also of arrays."""
    return coded >> _INDEX_SHIFT & INDEXES - 1


def place_of(coded: int) -> int:
    """Also of arrays."""
    return coded & POSITIONS - 1


def param(writer: int, index: int) -> tuple[str, str]:
    """The param that is recorded before call `index`."""
    return f"p{writer}.{index}", str(index)


def tag(writer: int, life: int) -> str:
    """The tag that a life of a writer sets again and again, to its index."""
    return f"t{writer}.{life}"
