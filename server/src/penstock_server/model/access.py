"""Who calls, in which workspace, and what may be asked of whom."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NewType

WorkspaceId = NewType("WorkspaceId", int)

DEFAULT_WORKSPACE = "default"


class Permission(enum.IntEnum):
    """What a method needs; the numbers of the protocol, each including those before it."""

    READ = 1
    WRITE = 2
    MANAGE = 3
    ADMIN = 4


class Resource(enum.IntEnum):
    """What permissions are given on; the numbers of the protocol."""

    WORKSPACE = 1
    EXPERIMENT = 2
    RUN = 3
    REGISTERED_MODEL = 4


@dataclass(frozen=True, slots=True)
class Need:
    """What one call needs: `permission` on each of `ids`, or on the workspace when there are none."""

    permission: Permission
    resource: Resource
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """The authorised caller of one request. Every use case takes one, first.

    `user` is who is behind it, for histories: as the client tells, until there are accounts.
    """

    principal: str
    workspace_id: WorkspaceId
    user: str = "anonymous"
    request_id: str = ""
