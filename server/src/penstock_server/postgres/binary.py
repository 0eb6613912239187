"""PostgreSQL's binary formats, written and read by whole arrays: COPY rows in, `array_send` out.

asyncpg makes a Python object of every element of an array. A chunk has 4,096 of them, so the arrays
of the metric store go through numpy instead: an element on the wire is its length (int32) and its
big-endian value, which a structured dtype describes exactly.
Source: PostgreSQL manual, "COPY – Binary Format"; src/backend/utils/adt/arrayfuncs.c, array_send.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]

Piece = bytes | memoryview
# A field is its bytes in pieces, so that large columns are never joined; None is NULL.
Field = Sequence[Piece] | None

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_WRITE_BYTES = 1 << 18

_OIDS = {"i4": 23, "i8": 20, "f4": 700, "f8": 701}
_ELEMENTS = {kind: np.dtype([("length", ">i4"), ("value", f">{kind}")]) for kind in _OIDS}
_ARRAY_HEADER = struct.Struct(">iiiii")  # dimensions, has NULLs, element type, length, lower bound


def int4(value: int) -> Field:
    """An integer."""
    return (struct.pack(">i", value),)


def int8(value: int) -> Field:
    """A bigint."""
    return (struct.pack(">q", value),)


def float8(value: float) -> Field:
    """A double precision."""
    return (struct.pack(">d", value),)


def uuid_(value: uuid.UUID) -> Field:
    """A uuid."""
    return (value.bytes,)


def array(values: NDArray[np.int32] | NDArray[np.int64] | NDArray[np.float32] | NDArray[np.float64]) -> Field:
    """A one-dimensional array without NULLs, of the type that the dtype says."""
    kind = values.dtype.str[1:]
    elements = np.empty(len(values), _ELEMENTS[kind])
    elements["length"] = values.dtype.itemsize
    elements["value"] = values
    return (_ARRAY_HEADER.pack(1, 0, _OIDS[kind], len(values), 1), elements.tobytes())


def read_int4s(sent: bytes) -> Int32s:
    """What `array_send` gave of an integer[] without NULLs."""
    return _elements(sent, "i4").astype(np.int32)


def read_int8s(sent: bytes) -> Int64s:
    """What `array_send` gave of a bigint[] without NULLs."""
    return _elements(sent, "i8").astype(np.int64)


def read_float8s(sent: bytes) -> Float64s:
    """What `array_send` gave of a double precision[] without NULLs."""
    return _elements(sent, "f8").astype(np.float64)


def read_float4s(sent: bytes) -> Float64s:
    """What `array_send` gave of a real[] without NULLs, as doubles."""
    return _elements(sent, "f4").astype(np.float64)


def _elements(sent: bytes, kind: str) -> NDArray[np.generic]:
    if len(sent) < _ARRAY_HEADER.size:  # an empty array has no dimension
        return np.empty(0, kind)
    return np.frombuffer(sent, _ELEMENTS[kind], offset=_ARRAY_HEADER.size)["value"]


async def rows(fields: Iterable[Sequence[Field]]) -> AsyncIterator[bytes]:
    """The rows as COPY … (FORMAT binary) wants them, in writes of a sensible size."""
    pending: list[Piece] = [_SIGNATURE]
    size = 0
    for row in fields:
        pending.append(struct.pack(">h", len(row)))
        for field in row:
            if field is None:
                pending.append(_NULL)
                continue
            length = sum(map(len, field))
            pending.append(struct.pack(">i", length))
            pending.extend(field)
            size += length
        if size >= _WRITE_BYTES:
            yield b"".join(pending)
            pending, size = [], 0
    pending.append(_TRAILER)
    yield b"".join(pending)
