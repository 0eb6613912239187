from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Permission(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PERMISSION_UNSPECIFIED: _ClassVar[Permission]
    PERMISSION_READ: _ClassVar[Permission]
    PERMISSION_WRITE: _ClassVar[Permission]
    PERMISSION_MANAGE: _ClassVar[Permission]
    PERMISSION_ADMIN: _ClassVar[Permission]

class Resource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESOURCE_UNSPECIFIED: _ClassVar[Resource]
    RESOURCE_WORKSPACE: _ClassVar[Resource]
    RESOURCE_EXPERIMENT: _ClassVar[Resource]
    RESOURCE_RUN: _ClassVar[Resource]
    RESOURCE_REGISTERED_MODEL: _ClassVar[Resource]
PERMISSION_UNSPECIFIED: Permission
PERMISSION_READ: Permission
PERMISSION_WRITE: Permission
PERMISSION_MANAGE: Permission
PERMISSION_ADMIN: Permission
RESOURCE_UNSPECIFIED: Resource
RESOURCE_WORKSPACE: Resource
RESOURCE_EXPERIMENT: Resource
RESOURCE_RUN: Resource
RESOURCE_REGISTERED_MODEL: Resource
ACCESS_FIELD_NUMBER: _ClassVar[int]
access: _descriptor.FieldDescriptor

class Access(_message.Message):
    __slots__ = ("permission", "resource", "field", "also")
    class Target(_message.Message):
        __slots__ = ("resource", "field")
        RESOURCE_FIELD_NUMBER: _ClassVar[int]
        FIELD_FIELD_NUMBER: _ClassVar[int]
        resource: Resource
        field: str
        def __init__(self, resource: _Optional[_Union[Resource, str]] = ..., field: _Optional[str] = ...) -> None: ...
    PERMISSION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    permission: Permission
    resource: Resource
    field: str
    also: _containers.RepeatedCompositeFieldContainer[Access.Target]
    def __init__(self, permission: _Optional[_Union[Permission, str]] = ..., resource: _Optional[_Union[Resource, str]] = ..., field: _Optional[str] = ..., also: _Optional[_Iterable[_Union[Access.Target, _Mapping]]] = ...) -> None: ...
