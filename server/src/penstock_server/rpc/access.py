"""What a method needs of its caller, read from the `access` option beside the method, and from the request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from penstock.v1 import access_pb2
from penstock_server.model.access import Need, Permission, Resource


class UndeclaredAccessError(Exception):
    """A method does not say what it needs, or says what its request does not have: the server must not start."""


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of resource, and the path to the field of the request that names some."""

    resource: Resource
    path: tuple[str, ...] = ()

    @property
    def within(self) -> tuple[str, ...]:
        """The path to the message that the field stands in."""
        return self.path[:-1]


@dataclass(frozen=True, slots=True)
class Declared:
    """What one method declares: `permission` on all that `targets` lead to. Those within one message stand together."""

    permission: Permission
    targets: tuple[Target, ...]

    def needs(self, request: Message) -> list[Need]:
        """What this very request needs; one need at least."""
        workspace = Need(self.permission, Resource.WORKSPACE)
        needs: list[Need] = []
        for within, targets in groupby(self.targets, key=lambda target: target.within):
            message = _message(request, within)
            if message is not None:
                named = [self._need(target, ids) for target in targets if (ids := _ids(message, target))]
                needs += named or [workspace]
        return needs or [workspace]

    def _need(self, target: Target, ids: tuple[str, ...]) -> Need:
        # What is looked up in the workspace is no workspace's id.
        return Need(self.permission, target.resource, () if target.resource is Resource.WORKSPACE else ids)


def declared(method: MethodDescriptor) -> Declared:
    """What the method declares. Raises UndeclaredAccessError."""
    options: Any = method.GetOptions()  # the stubs of generated extensions and those of protobuf disagree
    if not options.HasExtension(access_pb2.access):
        raise UndeclaredAccessError(f"{method.full_name} has no (penstock.v1.access) option")
    access: access_pb2.Access = options.Extensions[access_pb2.access]
    fields: list[access_pb2.Access | access_pb2.Access.Target] = [access, *access.also]
    if not access.permission or not all(field.resource for field in fields):
        raise UndeclaredAccessError(f"{method.full_name}: its access option lacks the permission or a resource")
    if not all(also.field for also in access.also):
        raise UndeclaredAccessError(f"{method.full_name}: its access option does not say which other field has ids")
    targets = sorted((_target(method, field) for field in fields), key=lambda target: target.within)
    return Declared(Permission(access.permission), tuple(targets))


def _target(method: MethodDescriptor, declared: access_pb2.Access | access_pb2.Access.Target) -> Target:
    path = tuple(declared.field.split(".")) if declared.field else ()
    if not path and declared.resource != access_pb2.RESOURCE_WORKSPACE:
        raise UndeclaredAccessError(f"{method.full_name}: its access option does not say which field has the id")
    _check_path(method, method.input_type, path)
    return Target(Resource(declared.resource), path)


def _check_path(method: MethodDescriptor, message: Descriptor | None, path: Sequence[str]) -> None:
    for name in path:
        field = message.fields_by_name.get(name) if message is not None else None
        if field is None:
            raise UndeclaredAccessError(f"{method.full_name}: its request has no field {'.'.join(path)}")
        message = field.message_type
    if path and (message is not None or field is None or field.type != FieldDescriptor.TYPE_STRING):
        raise UndeclaredAccessError(f"{method.full_name}: {'.'.join(path)} is not text")


def _message(request: Message, path: Sequence[str]) -> Message | None:
    """The message that the path leads to; None when it, or one on the way, is absent."""
    message = request
    for name in path:
        if not message.HasField(name):
            return None
        message = getattr(message, name)
    return message


def _ids(message: Message, target: Target) -> tuple[str, ...]:
    if not target.path:
        return ()
    value: str | Sequence[str] = getattr(message, target.path[-1])
    return tuple(value) if not isinstance(value, str) else (value,) if value else ()
