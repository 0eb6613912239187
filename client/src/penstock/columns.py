"""Messages with their packed columns as bytes, so that no point becomes a Python object.

On the wire a packed `repeated double` is a length-delimited run of little-endian doubles, which is
exactly what a `bytes` field is. `by_bytes` gives, for a generated message class, a twin of the same
wire format in which each repeated fixed-width field is `repeated bytes`: one entry per packed run,
normally one. Join the entries, and read them with `array`, `memoryview.cast` or `numpy.frombuffer`.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_FIXED_WIDTH = frozenset((_FIELD.TYPE_DOUBLE, _FIELD.TYPE_FIXED32, _FIELD.TYPE_FIXED64, _FIELD.TYPE_SFIXED64))

# Apart from the default pool: the twins bear the names of the originals.
_pool = descriptor_pool.DescriptorPool()
_added: set[str] = set()


def by_bytes(cls: type[message.Message]) -> Any:
    """The twin of the generated message class `cls`: a message class of the same wire format."""
    _add(cls.DESCRIPTOR.file)
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(cls.DESCRIPTOR.full_name))


def _add(file: Any) -> None:
    if file.name in _added:
        return
    for dependency in file.dependencies:
        _add(dependency)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    for kind in proto.message_type:
        for field in kind.field:
            if field.label == _FIELD.LABEL_REPEATED and field.type in _FIXED_WIDTH:
                field.type = _FIELD.TYPE_BYTES
    _pool.Add(proto)
    _added.add(file.name)
