"""What a search asks, as a typed tree: what model/search.py reads and postgres/search.py answers."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.logged_models import LoggedModelStatus
from penstock_server.model.registry import Stage, VersionStatus
from penstock_server.model.runs import RunStatus

Value = str | int | float


class Entity(enum.Enum):
    """Where a field's value is kept."""

    METRIC = "metrics"
    PARAM = "params"
    TAG = "tags"
    ATTRIBUTE = "attributes"
    METADATA = "metadata"
    SPAN = "span"
    FEEDBACK = "feedback"
    EXPECTATION = "expectation"
    ISSUE = "issue"


class Type(enum.Enum):
    """What a field's values are."""

    NUMBER = "a number"
    TEXT = "a quoted string"
    JSON = "a quoted string or a number"
    TIME = "a whole number of ms since 1970"
    RUN_ID = "a quoted run id"
    EXPERIMENT_ID = "an experiment id"
    STATUS = "one of " + ", ".join(f"'{status.name}'" for status in RunStatus)
    LIFECYCLE = "one of " + ", ".join(f"'{stage.name}'" for stage in Lifecycle)
    VERSION = "a version's number"
    VERSION_STATUS = "one of " + ", ".join(f"'{status.name}'" for status in VersionStatus)
    STAGE = "one of " + ", ".join(f"'{stage.label}'" for stage in Stage)
    MODEL_STATUS = "one of " + ", ".join(f"'{status.name}'" for status in LoggedModelStatus)


# The types whose values are the names of numbers.
NAMED: Mapping[Type, type[enum.IntEnum]] = {
    Type.STATUS: RunStatus,
    Type.LIFECYCLE: Lifecycle,
    Type.VERSION_STATUS: VersionStatus,
    Type.STAGE: Stage,
    Type.MODEL_STATUS: LoggedModelStatus,
}


class Operator(enum.Enum):
    """How a field is compared."""

    EQ = "="
    NE = "!="
    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="
    LIKE = "LIKE"
    NOT_LIKE = "NOT LIKE"
    ILIKE = "ILIKE"
    NOT_ILIKE = "NOT ILIKE"
    RLIKE = "RLIKE"
    NOT_RLIKE = "NOT RLIKE"


@dataclass(frozen=True, slots=True)
class Field:
    """A metric, param or tag by its key, or an attribute by the one name we have for it."""

    entity: Entity
    key: str
    type: Type


@dataclass(frozen=True, slots=True)
class Reference:
    """A field of the version that an alias or a stage names: `holder` is @alias or a stage's label. In gates only."""

    holder: str
    field: Field


@dataclass(frozen=True, slots=True)
class Comparison:
    """The field is there and compares so. LIKE takes % and _, and a backslash before those that are meant.

    RLIKE takes a regular expression.
    """

    field: Field
    operator: Operator
    value: Value | Reference


@dataclass(frozen=True, slots=True)
class Membership:
    """The field is there and is one, or none, of the values."""

    field: Field
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Presence:
    """The field is there, or is not."""

    field: Field
    present: bool


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of two or more."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The complement: whatever `part` does not select, for want of the field or otherwise."""

    part: Condition


Condition = Comparison | Membership | Presence | And | Or | Not


@dataclass(frozen=True, slots=True)
class Order:
    """A field to sort by. Whatever the direction: numbers, then NaN, then those without the field."""

    field: Field
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A whole search. No `where`: everything. After the fields of `order`, the newest first."""

    where: Condition | None = None
    order: tuple[Order, ...] = ()
