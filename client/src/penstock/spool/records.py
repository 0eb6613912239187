"""The records of a spool as bytes: how each is written, and how it is told whole from damaged.

    magic 2 | kind 1 | version 1 | length u32 | seq u64 | … what the kind has … | crc32 u32

All numbers are little-endian. `length` is of the whole record, and the checksum is of all before it: zlib's CRC-32,
because the standard library has it. So much is so in every version. Frames, params and tags are numbered; `seq` is
their number, and that of the next numbered record in the others.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from penstock.address import Address
from penstock.batches import Names, Update
from penstock.v1 import metrics_pb2, runs_pb2

MAGIC = b"\xa5P"
VERSION = 1

HEAD, SHAPE, FRAME, PARAM, TAG, FINISH = 1, 2, 3, 4, 5, 6
NUMBERED = frozenset((FRAME, PARAM, TAG))
# The first four bytes of a frame, as one number: that is packed quicker.
FRAME_MARK = int.from_bytes(MAGIC + bytes((FRAME, VERSION)), "little")

PREFIX = struct.Struct("<2sBBIQ")
# A frame: its shape's number, its step, its time; then the values, as doubles.
FRAME_PREFIX = struct.Struct("<IIQIqq")
CHECK = struct.Struct("<I")
_NUMBER = struct.Struct("<I")

LEAST = PREFIX.size + CHECK.size
FRAME_BYTES = FRAME_PREFIX.size + CHECK.size
# Longer than any record can be: a frame has 10,000 values, a shape 256 KiB of names.
MOST = 16 << 20


@dataclass(frozen=True, slots=True)
class Head:
    """What every segment begins with: all that is needed to send it, by whoever finds it. The last one counts.

    Records are sent under their number less `base`: those up to there went out as another writer's.
    """

    run_id: str
    writer_id: bytes
    address: Address
    create_run: runs_pb2.CreateRunRequest
    attributes: metrics_pb2.WriterAttributes
    base: int = 0

    def pack(self, seq: int) -> bytes:
        """The record, in a segment whose first record is number `seq`."""
        told = {
            "run_id": self.run_id,
            "writer_id": self.writer_id.hex(),
            "base": self.base,
            "target": self.address.target,
            "tls": self.address.tls,
            "workspace": self.address.workspace,
            "create_run": base64.b64encode(self.create_run.SerializeToString()).decode(),
            "attributes": base64.b64encode(self.attributes.SerializeToString()).decode(),
        }
        return pack(HEAD, seq, json.dumps(told).encode())

    @classmethod
    def unpack(cls, payload: bytes) -> Head:
        """Raises ValueError for what is none."""
        told = json.loads(payload)
        try:
            create_run = runs_pb2.CreateRunRequest.FromString(base64.b64decode(told["create_run"]))
            attributes = metrics_pb2.WriterAttributes.FromString(base64.b64decode(told["attributes"]))
            address = Address(told["target"], told["tls"], told["workspace"])
            writer_id = bytes.fromhex(told["writer_id"])
            return cls(told["run_id"], writer_id, address, create_run, attributes, told["base"])
        except (KeyError, TypeError, DecodeError) as error:
            raise ValueError(f"no head of a spool: {error}") from error


def pack(kind: int, seq: int, payload: bytes) -> bytes:
    """A record of any kind."""
    body = PREFIX.pack(MAGIC, kind, VERSION, LEAST + len(payload), seq) + payload
    return body + CHECK.pack(zlib.crc32(body))


def pack_shape(seq: int, number: int, names: Names) -> bytes:
    """Defines what frames of shape `number` are names of."""
    return pack(SHAPE, seq, _NUMBER.pack(number) + "\0".join(names).encode())


def unpack_shape(payload: bytes) -> tuple[int, Names]:
    """The number of a shape and its names."""
    return _NUMBER.unpack_from(payload)[0], tuple(payload[_NUMBER.size :].decode().split("\0"))


def pack_update(seq: int, update: Update) -> bytes:
    """A param or tag."""
    key = update.key.encode()
    return pack(PARAM if update.is_param else TAG, seq, _NUMBER.pack(len(key)) + key + update.value.encode())


def unpack_update(kind: int, payload: bytes) -> Update:
    """The param or tag of a record of that kind."""
    begin = _NUMBER.size
    end = begin + _NUMBER.unpack_from(payload)[0]
    return Update(kind == PARAM, payload[begin:end].decode(), payload[end:].decode())


def pack_finish(seq: int, finish: metrics_pb2.Finish) -> bytes:
    """The writer has no more records."""
    return pack(FINISH, seq, finish.SerializeToString())


def unpack_finish(payload: bytes) -> metrics_pb2.Finish:
    """What the writer had to say at its end. Raises ValueError."""
    try:
        return metrics_pb2.Finish.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"no end of a spool: {error}") from error


def _swapped(values: array[float]) -> bytes:
    values = values[:]
    values.byteswap()
    return values.tobytes()


# Doubles as they stand in a record.
little: Callable[[array[float]], bytes] = array.tobytes if sys.byteorder == "little" else _swapped


def whole(data: bytes, at: int, of_version: int = VERSION) -> int:
    """The length of the record at `at`; 0 when there is none that is whole and sound."""
    if len(data) - at < LEAST:
        return 0
    magic, _, found, length, _ = PREFIX.unpack_from(data, at)
    if magic != MAGIC or found != of_version or not LEAST <= length <= min(MOST, len(data) - at):
        return 0
    end = at + length - CHECK.size
    sound = CHECK.unpack_from(data, end)[0] == zlib.crc32(memoryview(data)[at:end])
    return length if sound else 0


def claimed(data: bytes, at: int) -> int:
    """The length that the record at `at` says it has, sound or not; 0 when no record can begin there."""
    if len(data) - at < PREFIX.size:
        return 0
    magic, _, found, length, _ = PREFIX.unpack_from(data, at)
    return length if magic == MAGIC and found == VERSION and LEAST <= length <= MOST else 0


def kind(data: bytes, at: int) -> int:
    """The kind of the record at `at`."""
    return data[at + len(MAGIC)]


def version(data: bytes, at: int) -> int:
    """The version of the record at `at`; 0 when there is none."""
    return data[at + len(MAGIC) + 1] if len(data) - at >= LEAST else 0


def next_whole(data: bytes, at: int) -> int:
    """Where the next sound record begins, from `at` on; -1 when there is none."""
    while (at := data.find(MAGIC, at)) >= 0:
        if whole(data, at):
            return at
        at += 1
    return -1
