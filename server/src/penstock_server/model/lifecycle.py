"""In use or marked deleted: what experiments, runs and models share."""

from __future__ import annotations

import enum


class Lifecycle(enum.IntEnum):
    """The numbers of the protocol and of the tables."""

    ACTIVE = 1
    DELETED = 2


class View(enum.IntEnum):
    """Which lifecycle stages a search looks at; the numbers of the protocol."""

    ACTIVE = 1
    DELETED = 2
    ALL = 3
