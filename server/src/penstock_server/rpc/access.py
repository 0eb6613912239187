"""What a method needs of its caller, read from the `access` option beside the method, and from the request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from penstock.v1 import access_pb2
from penstock_server.model.access import Need, Permission, Resource


class UndeclaredAccessError(Exception):
    """A method does not say what it needs, or says what its request does not have: the server must not start."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What one method declares: `permission` on the resources that `path` leads to in the request."""

    permission: Permission
    resource: Resource
    path: tuple[str, ...]

    def needs(self, request: Message) -> list[Need]:
        """What this very request needs."""
        needs = [Need(self.permission, self.resource, tuple(_ids(request, self.path)))]
        if self.path == ("hello", "run_id") and request.hello.HasField("create_run"):  # type: ignore[attr-defined]
            # The run may not be there yet, and then there is only its experiment to ask about.
            experiment = _ids(request, ("hello", "create_run", "experiment_id"))
            needs.append(Need(self.permission, Resource.EXPERIMENT, tuple(experiment)))
        return needs


def declared(method: MethodDescriptor) -> Declared:
    """What the method declares. Raises UndeclaredAccessError."""
    options: Any = method.GetOptions()  # the stubs of generated extensions and those of protobuf disagree
    if not options.HasExtension(access_pb2.access):
        raise UndeclaredAccessError(f"{method.full_name} has no (penstock.v1.access) option")
    access: access_pb2.Access = options.Extensions[access_pb2.access]
    if not access.permission or not access.resource:
        raise UndeclaredAccessError(f"{method.full_name}: its access option lacks the permission or the resource")
    path = tuple(access.field.split(".")) if access.field else ()
    if not path and access.resource != access_pb2.RESOURCE_WORKSPACE:
        raise UndeclaredAccessError(f"{method.full_name}: its access option does not say which field has the id")
    _check_path(method, method.input_type, path)
    return Declared(Permission(access.permission), Resource(access.resource), path)


def _check_path(method: MethodDescriptor, message: Descriptor | None, path: Sequence[str]) -> None:
    for name in path:
        field = message.fields_by_name.get(name) if message is not None else None
        if field is None:
            raise UndeclaredAccessError(f"{method.full_name}: its request has no field {'.'.join(path)}")
        message = field.message_type
    if path and (message is not None or field is None or field.type != FieldDescriptor.TYPE_STRING):
        raise UndeclaredAccessError(f"{method.full_name}: {'.'.join(path)} is not text")


def _ids(message: Message, path: Sequence[str]) -> Iterator[str]:
    if not path:
        return
    value: Any = message
    for name in path:
        value = getattr(value, name)
    # Absent is no id: the need is then on the workspace.
    yield from ([value] if value else []) if isinstance(value, str) else value
