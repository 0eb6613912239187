"""A search's tree as SQL: the condition on one row, and where an index can find all rows that may meet it.

Values are parameters, always; tables and columns are constants of this file. Conditions are two-valued: what
is not there makes a comparison false, never NULL, so that NOT is the complement.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock_server.model.search_tree import (
    NAMED,
    And,
    Comparison,
    Condition,
    Entity,
    Field,
    Membership,
    Not,
    Operator,
    Or,
    Presence,
    Type,
)

Leaf = Comparison | Membership | Presence

# The indexes on values hold this many characters of each.
PREFIX = 128


@dataclass(frozen=True, slots=True)
class Many:
    """Where the values are of an attribute that one thing may have several of."""

    table: str
    owner: str  # the column by which it names whose they are
    column: str


@dataclass(frozen=True, slots=True)
class Noun:
    """Where one noun's fields are. `row` is the alias of its table in every statement."""

    row: str
    table: str
    owner: str  # the column by which the tables of keyed values name it
    keyed: Mapping[Entity, str]
    attributes: Mapping[str, str]
    many: Mapping[str, Many] = field(default_factory=dict)
    # Attributes that nothing is without, so that a search may take the order of an index on them.
    required: frozenset[str] = frozenset()
    # Attributes of which an index holds the first PREFIX characters.
    prefixed: frozenset[str] = frozenset()


# As mlflow/locations.py makes it.
_ARTIFACT_URI = r"""(
    SELECT regexp_replace(coalesce(nullif(e.artifact_location, ''), 'mlflow-artifacts:/' || e.id), '/*(\?.*)?$',
                          '/' || replace(r.id::text, '-', '') || '/artifacts\1')
      FROM experiments e WHERE e.id = r.experiment_id)"""

RUNS = Noun(
    row="r",
    table="runs",
    owner="run_id",
    keyed={Entity.METRIC: "run_metrics", Entity.PARAM: "run_params", Entity.TAG: "run_tags"},
    attributes={
        "run_id": "r.id",
        "run_name": "r.name",
        "status": "r.status",
        "start_time": "r.start_ms",
        "end_time": "r.end_ms",
        "user_id": "nullif(r.user_name, '')",
        "experiment_id": "r.experiment_id",
        "parent_run_id": "r.parent_run_id",
        "git_commit": "nullif(r.git_commit, '')",
        "source_name": "nullif(r.source_name, '')",
        "artifact_uri": _ARTIFACT_URI,
        "lifecycle": "r.lifecycle",
    },
    many={
        "dataset_name": Many("run_datasets", "run_id", "name"),
        "dataset_digest": Many("run_datasets", "run_id", "digest"),
        "dataset_context": Many("run_datasets", "run_id", "context"),
    },
)
EXPERIMENTS = Noun(
    row="e",
    table="experiments",
    owner="experiment_id",
    keyed={Entity.TAG: "experiment_tags"},
    attributes={
        "name": "e.name",
        "experiment_id": "e.id",
        "creation_time": "e.created_ms",
        "last_update_time": "e.updated_ms",
        "lifecycle": "e.lifecycle",
    },
)
MODELS = Noun(
    row="m",
    table="registered_models",
    owner="model_id",
    keyed={Entity.TAG: "registered_model_tags"},
    attributes={
        "name": "m.name",
        "description": "nullif(m.description, '')",
        "created_by": "m.created_by",
        "creation_time": "m.created_ms",
        "last_update_time": "m.updated_ms",
    },
    many={
        "alias": Many("model_aliases", "model_id", "alias"),
        "stage": Many("model_versions", "model_id", "stage"),
        "run_id": Many("model_versions", "model_id", "run_id"),
        "source": Many("model_versions", "model_id", "source"),
    },
    required=frozenset(("name", "created_by", "creation_time", "last_update_time")),
    prefixed=frozenset(("source",)),
)
# The name is that of the model, `m`.
MODEL_VERSIONS = Noun(
    row="v",
    table="model_versions",
    owner="version_id",
    keyed={Entity.TAG: "model_version_tags"},
    attributes={
        "name": "m.name",
        "version": "v.version",
        "run_id": "v.run_id",
        "source": "v.source",
        "source_path": "coalesce(v.given_source, v.source)",
        "path": "nullif(v.path, '')",
        "stage": "v.stage",
        "status": "v.status",
        "description": "nullif(v.description, '')",
        "created_by": "v.created_by",
        "creation_time": "v.created_ms",
        "last_update_time": "v.updated_ms",
    },
    many={"alias": Many("model_aliases", "version_id", "alias")},
    required=frozenset(
        (
            "name",
            "version",
            "source",
            "source_path",
            "stage",
            "status",
            "created_by",
            "creation_time",
            "last_update_time",
        )
    ),
    prefixed=frozenset(("source", "source_path")),
)


class Parameters:
    """The parameters of one statement, numbered as they come."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def add(self, value: object) -> str:
        """The placeholder that stands for `value`."""
        self.values.append(value)
        return f"${len(self.values)}"


class State(enum.Enum):
    """What is known of one field in all the rows that a statement looks at."""

    THERE = "there, and no NaN"
    NAN = "there, and NaN"
    ABSENT = "not there"


def assume(condition: Condition, subject: Field, state: State) -> Condition | bool:
    """What is left of `condition` where `subject` is known to be in `state`; a bool when nothing is open."""
    match condition:
        case Comparison() | Membership() | Presence():
            return _assume_leaf(condition, subject, state)
        case Not(part):
            inner = assume(part, subject, state)
            return not inner if isinstance(inner, bool) else Not(inner)
        case And(parts) | Or(parts):
            decisive = isinstance(condition, Or)
            left: list[Condition] = []
            for part in parts:
                rest = assume(part, subject, state)
                if rest is decisive:
                    return decisive
                if not isinstance(rest, bool):
                    left.append(rest)
            if not left:
                return not decisive
            return left[0] if len(left) == 1 else type(condition)(tuple(left))


def _assume_leaf(leaf: Leaf, subject: Field, state: State) -> Condition | bool:
    if leaf.field != subject:
        return leaf
    if isinstance(leaf, Presence):
        return leaf.present is (state is not State.ABSENT)
    if state is State.ABSENT:
        return False
    if state is State.NAN:
        return leaf.negated if isinstance(leaf, Membership) else leaf.operator is Operator.NE
    return leaf


def conjuncts(condition: Condition | None) -> list[Condition]:
    """The conditions that must all hold."""
    if condition is None:
        return []
    if isinstance(condition, And):
        return [each for part in condition.parts for each in conjuncts(part)]
    return [condition]


@dataclass(slots=True)
class Conditions:
    """Makes the SQL of conditions on one noun's row."""

    noun: Noun
    parameters: Parameters
    # " AND …" that ties the row {x} of a table of keyed values to what is searched. Empty where rows are probed one
    # by one: the primary key does it then, and must be the only index that the planner can take.
    scope: str = ""
    # SQL by which the statement has the values of some fields at hand.
    known: dict[Field, str] = field(default_factory=dict)

    def sql(self, condition: Condition, *, under_not: bool = False) -> str:
        """True for the rows that meet it. Never NULL under a NOT."""
        match condition:
            case And(parts):
                return "(" + " AND ".join(self.sql(part, under_not=under_not) for part in parts) + ")"
            case Or(parts):
                return "(" + " OR ".join(self.sql(part, under_not=under_not) for part in parts) + ")"
            case Not(part):
                return f"NOT {self.sql(part, under_not=True)}"
            case Comparison() | Membership() | Presence():
                if self._at_hand(condition.field):
                    test = self._own(condition)
                    return f"(({test}) IS TRUE)" if under_not else f"({test})"
                return self._probe(condition)

    def _at_hand(self, subject: Field) -> bool:
        """Whether the row itself, or the statement, has the field's value."""
        return (subject.entity is Entity.ATTRIBUTE and subject.key not in self.noun.many) or subject in self.known

    def _own(self, leaf: Leaf) -> str:
        column = self.known.get(leaf.field) or self.noun.attributes[leaf.field.key]
        if isinstance(leaf, Presence):
            return f"{column} IS {'NOT ' if leaf.present else ''}NULL"
        return self._attribute_test(leaf, column)

    def _attribute_test(self, leaf: Comparison | Membership, column: str) -> str:
        return (self._prefix_test if leaf.field.key in self.noun.prefixed else self.test)(leaf, column)

    def _probe(self, leaf: Leaf) -> str:
        absent = isinstance(leaf, Presence) and not leaf.present
        if leaf.field.entity is Entity.ATTRIBUTE:
            rows = self._many(leaf, self.noun.many[leaf.field.key])
        else:
            rows = self.rows(leaf, "x", f"x.{self.noun.owner} = {self.noun.row}.id" + self.scope.format(x="x"))
        return f"{'NOT ' if absent else ''}EXISTS (SELECT FROM {rows})"

    def _many(self, leaf: Leaf, many: Many) -> str:
        """FROM and WHERE, less the keywords: the values of the row that are there and meet `leaf`."""
        column = f"x.{many.column}"
        own = f"x.{many.owner} = {self.noun.row}.id" + self.scope.format(x="x")
        test = f"{column} IS NOT NULL" if isinstance(leaf, Presence) else self._attribute_test(leaf, column)
        return f"{many.table} x WHERE {own} AND {test}"

    def rows(self, leaf: Leaf, x: str, scope: str) -> str:
        """FROM and WHERE, less the keywords: the keyed values, as `x`, that are there and meet `leaf`."""
        where = [scope, self.key(leaf.field, x)]
        if not isinstance(leaf, Presence):
            where.append(self.keyed_test(leaf, x))
        return f"{self.noun.keyed[leaf.field.entity]} {x} WHERE {' AND '.join(where)}"

    def key(self, subject: Field, x: str) -> str:
        """Of the rows `x` those of this key."""
        if subject.entity is Entity.METRIC:
            return f"{x}.name = {self.parameters.add(subject.key)} AND {x}.count > 0"
        return f"{x}.key = {self.parameters.add(subject.key)}"

    def keyed_test(self, leaf: Comparison | Membership, x: str) -> str:
        """The test on a row `x` of a table of keyed values; what an index can find, by the index's expression."""
        if leaf.field.entity is Entity.METRIC:
            return self.test(leaf, f"{x}.last_value")
        return self._prefix_test(leaf, f"{x}.value")

    def _prefix_test(self, leaf: Comparison | Membership, column: str) -> str:
        """The test on text of which an index holds the first PREFIX characters."""
        indexed = f'left({column}, {PREFIX}) COLLATE "C"'
        if isinstance(leaf, Comparison) and leaf.operator is Operator.EQ and len(str(leaf.value)) < PREFIX:
            return f"{indexed} = {self.parameters.add(leaf.value)}"
        exact = self.test(leaf, column)
        match leaf:
            case Comparison(_, Operator.EQ, str(value)):
                return f"{indexed} = {self.parameters.add(value[:PREFIX])} AND {exact}"
            case Comparison(_, Operator.LIKE, str(pattern)) if start := literal_start(pattern):
                return f"{indexed} LIKE {self.parameters.add(_starting(start[:PREFIX]))} AND {exact}"
            case Membership(_, values, False):
                starts = [str(value)[:PREFIX] for value in values]
                return f"{indexed} = ANY({self.parameters.add(starts)}::text[]) AND {exact}"
        return exact

    def test(self, leaf: Comparison | Membership, column: str) -> str:
        """The test on a value; NULL where there is none."""
        kind = leaf.field.type
        if isinstance(leaf, Membership):
            values = [value for value in (_stored(kind, value) for value in leaf.values) if value is not None]
            if not values:  # NULL <> ALL of nothing would be true
                return f"{column} IS NOT NULL" if leaf.negated else "false"
            array = f"{self.parameters.add(values)}::{_STORED_TYPES[kind]}[]"
            return f"{column} <> ALL({array})" if leaf.negated else f"{column} = ANY({array})"
        operator = leaf.operator
        if operator in _PATTERNS:
            text = f"encode(uuid_send({column}), 'hex')" if kind is Type.RUN_ID else shown(kind, column)
            if kind in NAMED:
                operator = _ANY_CASE.get(operator, operator)
            return f"{text} {operator.value} {self.parameters.add(leaf.value)}"
        value = _stored(kind, leaf.value)
        if value is None:
            return "false" if operator is Operator.EQ else f"{column} IS NOT NULL"
        sign = "<>" if operator is Operator.NE else operator.value
        test = f"{column} {sign} {self.parameters.add(value)}::{_STORED_TYPES[kind]}"
        if kind is Type.NUMBER and operator in (Operator.GT, Operator.GE):
            return f"{test} AND {column} < 'NaN'"  # which PostgreSQL has above all numbers
        return test


# What a search sorts by.
COLUMN_TYPES = {
    Type.NUMBER: "float8",
    Type.TEXT: "text",
    Type.TIME: "int8",
    Type.RUN_ID: "uuid",
    Type.EXPERIMENT_ID: "int8",
    Type.VERSION: "int8",
    **dict.fromkeys(NAMED, "text"),
}
_STORED_TYPES = COLUMN_TYPES | dict.fromkeys(NAMED, "int2")
_PATTERNS = frozenset((Operator.LIKE, Operator.NOT_LIKE, Operator.ILIKE, Operator.NOT_ILIKE))
_ANY_CASE = {Operator.LIKE: Operator.ILIKE, Operator.NOT_LIKE: Operator.NOT_ILIKE}


def shown(kind: Type, column: str) -> str:
    """What a column of this type has, as it is sorted by and as patterns see it: names, not their numbers 1, 2, …"""
    if kind not in NAMED:
        return column
    names = ", ".join(f"'{each.name}'" for each in sorted(NAMED[kind]))
    return f"(ARRAY[{names}])[{column}]"


def _stored(kind: Type, value: object) -> object:
    """The value as its column has it; None for text that can be no run's id."""
    if kind in NAMED:
        return NAMED[kind][str(value)].value
    if kind is not Type.RUN_ID:
        return value
    try:
        return uuid.UUID(str(value))
    except ValueError:
        return None


def literal_start(pattern: str) -> str:
    """What every text that is LIKE the pattern begins with."""
    start: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character in "%_":
            break
        start.append(next(characters) if character == "\\" else character)
    return "".join(start)


def _starting(start: str) -> str:
    """The LIKE pattern of what begins with `start`."""
    return "".join(f"\\{character}" if character in "%_\\" else character for character in start) + "%"
