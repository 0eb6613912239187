"""The search grammar: MLflow's filter language with OR, NOT and parentheses, as a typed tree.

    filter     = any
    any        = all { OR all }
    all        = one { AND one }
    one        = NOT one | "(" any ")" | field test
    test       = ( = | != | > | >= | < | <= ) ( value | reference )
               | [NOT] ( LIKE | ILIKE | RLIKE ) string | [NOT] IN "(" value { "," value } [","] ")" | IS [NOT] NULL
    field      = metrics.key | params.key | tags.key | [attributes.]name | datasets.name
               | metadata.key | span.name | span.attributes.key | feedback.key | expectation.key | issue.id    of traces
    reference  = (alias | stage | `@alias`) "." ( metrics.key | params.key | tags.key | attributes.name )  in gates only

docs/search.md tells users what each of them means; model/search_tree.py has the
tree, model/search_tokens.py the words, model/search_schemas.py each noun's fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from penstock_server.model.errors import InvalidArgument, InvalidFilter
from penstock_server.model.limits import INT64_MAX, INT64_MIN
from penstock_server.model.registry import Stage, check_alias
from penstock_server.model.search_schemas import (
    EXPERIMENTS,
    GATES,
    LOGGED_MODELS,
    MLFLOW_RUNS,
    MODEL_VERSIONS,
    MODELS,
    RUNS,
    TRACES,
    Schema,
)
from penstock_server.model.search_tokens import Kind, Token, tokens
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
    Order,
    Presence,
    Query,
    Reference,
    Type,
    Value,
)

__all__ = [
    "CONDITION_LIMIT",
    "DEPTH_LIMIT",
    "EXPERIMENTS",
    "LOGGED_MODELS",
    "MODELS",
    "MODEL_VERSIONS",
    "ORDER_LIMIT",
    "RUNS",
    "TRACES",
    "Query",
    "Schema",
    "parse_experiments",
    "parse_gate",
    "parse_logged_models",
    "parse_mlflow_runs",
    "parse_models",
    "parse_runs",
    "parse_traces",
    "parse_versions",
]

DEPTH_LIMIT = 50  # parentheses and NOTs inside one another
CONDITION_LIMIT = 100
ORDER_LIMIT = 10
EXPRESSION_LIMIT = 1_000  # characters

_ORDERED = frozenset((Operator.EQ, Operator.NE, Operator.GT, Operator.GE, Operator.LT, Operator.LE))
_IN_ORDER = (Type.NUMBER, Type.TIME, Type.VERSION)
_EQUAL = frozenset((Operator.EQ, Operator.NE))
_LIKE = {"LIKE": (Operator.LIKE, Operator.NOT_LIKE), "ILIKE": (Operator.ILIKE, Operator.NOT_ILIKE)}
_NO_PATTERNS = (*_IN_ORDER, Type.EXPERIMENT_ID)


def parse_runs(filter: str, order_by: Sequence[str] = ()) -> Query:  # noqa: A002
    """A search of runs. Raises InvalidFilter."""
    return _parse(RUNS, filter, order_by)


def parse_mlflow_runs(filter: str, order_by: Sequence[str] = ()) -> Query:  # noqa: A002
    """A search of runs, which MLflow's clients know by their artifacts' URI too. Raises InvalidFilter."""
    return _parse(MLFLOW_RUNS, filter, order_by)


def parse_experiments(filter: str, order_by: Sequence[str] = ()) -> Query:  # noqa: A002
    """A search of experiments. Raises InvalidFilter."""
    return _parse(EXPERIMENTS, filter, order_by)


def parse_models(filter: str, order_by: Sequence[str] = ()) -> Query:  # noqa: A002
    """A search of registered models. Raises InvalidFilter."""
    return _parse(MODELS, filter, order_by)


def parse_versions(filter: str, order_by: Sequence[str] = ()) -> Query:  # noqa: A002
    """A search of model versions. Raises InvalidFilter."""
    return _parse(MODEL_VERSIONS, filter, order_by)


def parse_logged_models(filter: str) -> Query:  # noqa: A002
    """A search of logged models, but for its order. Raises InvalidFilter."""
    return _parse(LOGGED_MODELS, filter, ())


def parse_traces(filter: str, order_by: Sequence[str] = ()) -> Query:  # noqa: A002
    """A search of traces. Raises InvalidFilter."""
    return _parse(TRACES, filter, order_by)


def parse_gate(text: str, name: str) -> Condition:
    """A gate, whose values may be references. Raises InvalidFilter, of the request's field `name`."""
    parser = _Parser(GATES, name, text)
    condition = parser.filter()
    if condition is None:
        raise InvalidFilter(name, text, 0, "a condition")
    return condition


def _parse(schema: Schema, text: str, order_by: Sequence[str]) -> Query:
    if len(order_by) > ORDER_LIMIT:
        extra = order_by[ORDER_LIMIT]
        raise InvalidFilter(f"order_by[{ORDER_LIMIT}]", extra, 0, f"at most {ORDER_LIMIT} keys")
    where = _Parser(schema, "filter", text).filter()
    order: list[Order] = []
    for index, item in enumerate(order_by):
        name = f"order_by[{index}]"
        parsed = _Parser(schema, name, item).order()
        if any(parsed.field == other.field for other in order):
            raise InvalidFilter(name, item, 0, "a key that no earlier one repeats")
        order.append(parsed)
    return Query(where, tuple(order))


# What only takes time without end in a regular expression, or near it.
_BACKREFERENCE = re.compile(r"\\[1-9]")


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, schema: Schema, name: str, text: str) -> None:
        self.schema = schema
        self.name = name
        self.text = text
        self.tokens = list(tokens(name, text))
        self.at = 0
        self.depth = 0
        self.conditions = 0

    def filter(self) -> Condition | None:
        """All of the text as a filter; None when there is none."""
        if len(self.tokens) == 1:
            return None
        condition = self._any()
        if self.here.kind is not Kind.END:
            raise self._error("AND, OR or the end")
        return condition

    def order(self) -> Order:
        """All of the text as one key of order_by."""
        key = self._field()
        if key.entity not in self.schema.sortable:
            raise self._error(f"an attribute: {self.schema.noun} are not sorted by {key.entity.value}", self.tokens[0])
        if key.entity is Entity.ATTRIBUTE and key.key in self.schema.many:
            expected = f"an attribute of one value: {self.schema.noun} may have several of {key.key}"
            raise self._error(expected, self.tokens[0])
        descending = self._word("DESC")
        if not descending:
            self._word("ASC")
        if self.here.kind is not Kind.END:
            raise self._error("ASC, DESC or the end")
        return Order(key, descending)

    def _any(self) -> Condition:
        return self._chain("OR", self._all, Or)

    def _all(self) -> Condition:
        return self._chain("AND", self._one, And)

    def _chain(
        self, word: str, part: Callable[[], Condition], join: Callable[[tuple[Condition, ...]], Condition]
    ) -> Condition:
        parts = [part()]
        while self._word(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else join(tuple(parts))

    def _one(self) -> Condition:
        if self._word("NOT"):
            return self._nested(lambda: Not(self._one()))
        if self._mark("("):
            inner = self._nested(self._any)
            if not self._mark(")"):
                raise self._error("AND, OR or )")
            return inner
        self.conditions += 1
        if self.conditions > CONDITION_LIMIT:
            raise self._error(f"the end: the limit is {CONDITION_LIMIT} conditions")
        return self._test(self._field())

    def _nested(self, parse: Callable[[], Condition]) -> Condition:
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise self._error(f"no deeper nesting: the limit is {DEPTH_LIMIT}")
        inner = parse()
        self.depth -= 1
        return inner

    def _test(self, subject: Field) -> Condition:
        start = self.here
        if start.kind is Kind.OPERATOR:
            allowed = _ORDERED if subject.type in (*_IN_ORDER, Type.JSON) else _EQUAL
            operator = next((each for each in allowed if each.value == start.text), None)
            if operator is None:
                raise self._error(self._tests(subject))
            self.at += 1
            return Comparison(subject, operator, self._reference(subject) or self._value(subject))
        if self._word("IS"):
            present = self._word("NOT")
            if not self._word("NULL"):
                raise self._error("NULL" if present else "NULL or NOT NULL")
            return Presence(subject, present)
        negated = self._word("NOT")
        if self._word("IN"):
            return Membership(subject, self._list(subject), negated)
        for word, operators in _LIKE.items():
            if subject.type not in _NO_PATTERNS and self._word(word):
                return Comparison(subject, operators[negated], self._pattern())
        if self.schema.expressions and subject.type not in _NO_PATTERNS and self._word("RLIKE"):
            return Comparison(subject, Operator.NOT_RLIKE if negated else Operator.RLIKE, self._expression())
        raise self._error("IN, LIKE or ILIKE" if negated else self._tests(subject))

    def _tests(self, subject: Field) -> str:
        if subject.type in _IN_ORDER:
            return "=, !=, >, >=, <, <=, [NOT] IN or IS [NOT] NULL"
        if subject.type in _NO_PATTERNS:
            return "=, !=, [NOT] IN or IS [NOT] NULL"
        return "=, !=, [NOT] LIKE, [NOT] ILIKE, [NOT] IN or IS [NOT] NULL"

    def _list(self, subject: Field) -> tuple[Value, ...]:
        if not self._mark("("):
            raise self._error("( and a list of values")
        values = [self._value(subject)]
        while not self._mark(")"):
            if not self._mark(","):
                raise self._error(", or )")
            if self.here.text != ")":  # Python prints a tuple of one as ('a',)
                values.append(self._value(subject))
        return tuple(values)

    def _pattern(self) -> str:
        token = self.here
        if token.kind is not Kind.STRING:
            raise self._error("a quoted pattern")
        if (len(token.value) - len(token.value.rstrip("\\"))) % 2:
            raise self._error("a pattern with a character after its last backslash")
        self.at += 1
        return token.value

    def _expression(self) -> str:
        token = self.here
        if token.kind is not Kind.STRING or len(token.value) > EXPRESSION_LIMIT or _BACKREFERENCE.search(token.value):
            expected = f"a quoted regular expression of at most {EXPRESSION_LIMIT} characters, without back references"
            raise self._error(expected)
        self.at += 1
        return token.value

    def _value(self, subject: Field) -> Value:
        token = self.here
        value = _convert(subject.type, token)
        if value is None:
            raise self._error(f"{subject.type.value} to compare {subject.entity.value}.{subject.key[:80]} with")
        self.at += 1
        return value

    def _reference(self, subject: Field) -> Reference | None:
        """What a gate compares with of another version; None when a value stands here."""
        first = self.here
        if not self.schema.references or (first.kind is not Kind.QUOTED_NAME and "." not in first.text):
            return None
        if first.kind is Kind.NAME:
            holder, _, field = first.text.partition(".")
        elif first.kind is Kind.QUOTED_NAME:
            holder, field = first.value, self._after_dot()
        else:
            return None
        stage = Stage.called(holder)
        try:
            if stage is Stage.NONE:
                raise InvalidArgument("stage", "None is nothing to compare with")
            # In backticks an alias may have its @: that is how one is meant which is called as a stage is.
            named = stage.label if stage else "@" + check_alias(holder.removeprefix("@"))
        except InvalidArgument:
            raise self._error("an alias or a stage before the first '.'", first) from None
        if "." not in field:
            raise self._error(f"a field such as metrics.<key> after '{holder}.'")
        found = self._dotted(self.here, field)
        if found.type is not subject.type:
            raise self._error(f"{subject.type.value} to compare {subject.entity.value}.{subject.key[:80]} with", first)
        return Reference(named, found)

    def _after_dot(self) -> str:
        """The field after a holder in backticks; its token is the one that comes next."""
        self.at += 1
        if not self._mark("."):
            raise self._error("'.' and a field such as metrics.<key>")
        return self.here.text if self.here.kind is Kind.NAME else ""

    def _field(self) -> Field:
        token = self.here
        if token.kind is Kind.NAME and "." in token.text:
            return self._dotted(token, token.text)
        if token.kind is Kind.NAME or (token.kind in (Kind.QUOTED_NAME, Kind.STRING) and token.text[0] != "'"):
            self.at += 1
            return self._attribute(token, token.value)
        raise self._error(self._fields())

    def _dotted(self, token: Token, text: str) -> Field:
        """The field that `text`, all of the next token or its end, begins."""
        word, _, key = text.partition(".")
        group = self.schema.groups.get(word.lower(), "")
        entity = Entity.ATTRIBUTE if group else self.schema.entities.get(word.lower())
        if entity is None:
            raise self._error(self._fields())
        self.at += 1
        if not key:
            key = self._quoted_key(token)
        keys = self.schema.keys.get(entity)
        if keys is not None and entity is Entity.SPAN and key.startswith("attributes."):
            key = key if key != "attributes." else key + self._quoted_key(token)
        elif keys is not None and key not in keys:
            raise self._error(self._fields(), token)
        return self._attribute(token, group + key) if entity is Entity.ATTRIBUTE else _keyed(entity, key)

    def _quoted_key(self, before: Token) -> str:
        token = self.here
        if token.kind not in (Kind.QUOTED_NAME, Kind.STRING) or token.start != before.end or not token.value:
            raise InvalidFilter(self.name, self.text, before.end, f"a key right after {before.text!r}")
        self.at += 1
        return token.value

    def _attribute(self, token: Token, name: str) -> Field:
        # MLflow knows run_name as "Run name" too, with or without quotes.
        if name.lower() == "run" and "run_name" in self.schema.attributes and self._word("NAME"):
            name = "run_name"
        name = name.lower().replace(" ", "_")
        name = self.schema.aliases.get(name, name)
        if name in self.schema.refused:
            raise self._error(self.schema.refused[name], token)
        if name not in self.schema.attributes:
            raise self._error(self._fields(), token)
        return Field(Entity.ATTRIBUTE, name, self.schema.attributes[name])

    def _fields(self) -> str:
        keyed = {entity for entity in self.schema.entities.values() if entity is not Entity.ATTRIBUTE}
        return ", ".join([*sorted(f"{entity.value}.<key>" for entity in keyed), *self.schema.attributes])

    @property
    def here(self) -> Token:
        """The token that comes next."""
        return self.tokens[self.at]

    def _word(self, word: str) -> bool:
        found = self.here.kind is Kind.NAME and self.here.text.upper() == word
        self.at += found
        return found

    def _mark(self, mark: str) -> bool:
        found = self.here.kind is Kind.PUNCTUATION and self.here.text == mark
        self.at += found
        return found

    def _error(self, expected: str, token: Token | None = None) -> InvalidFilter:
        return InvalidFilter(self.name, self.text, (token or self.here).start, expected)


def _keyed(entity: Entity, key: str) -> Field:
    if entity in (Entity.FEEDBACK, Entity.EXPECTATION):
        return Field(entity, key, Type.JSON)
    return Field(entity, key, Type.NUMBER if entity is Entity.METRIC else Type.TEXT)


def _convert(kind: Type, token: Token) -> Value | None:
    """The token as a value of this type; None when it is not one."""
    if kind is Type.NUMBER or (kind is Type.JSON and token.kind is Kind.NUMBER):
        return _number(token)
    if kind is Type.TIME:
        return _integer(token) if token.kind is Kind.NUMBER else None
    if kind in (Type.EXPERIMENT_ID, Type.VERSION):
        digits = token.kind is Kind.STRING and token.value.isascii() and token.value.isdigit()
        return _integer(token) if digits or token.kind is Kind.NUMBER else None
    if token.kind is not Kind.STRING:
        return None
    if kind in NAMED:
        name = token.value.upper()
        return name if name in NAMED[kind].__members__ else None
    return token.value.lower().replace("-", "") if kind is Type.RUN_ID else token.value


def _number(token: Token) -> float | None:
    infinite = token.kind is Kind.NAME and token.text.lower().lstrip("+-") in ("inf", "infinity")
    if token.kind is not Kind.NUMBER and not infinite:
        return None
    return float(token.text)


def _integer(token: Token) -> int | None:
    try:
        value = float(token.value)
        if not math.isfinite(value) or not value.is_integer():
            return None
        # Digits alone keep their precision beyond 2^53; 1.7e12 is whole as well.
        whole = int(token.value) if token.value.lstrip("+-").isdecimal() and len(token.value) < 25 else int(value)
    except ValueError:
        return None
    return whole if INT64_MIN <= whole <= INT64_MAX else None
