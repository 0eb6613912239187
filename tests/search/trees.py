"""Random searches: trees of model/search_tree.py, and the texts that a person might write for them."""

from __future__ import annotations

from hypothesis import strategies as st

from penstock_server.model.search import EXPERIMENTS, MODEL_VERSIONS, MODELS, RUNS, Schema
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
    Type,
    Value,
)

ORDERED = (Operator.EQ, Operator.NE, Operator.GT, Operator.GE, Operator.LT, Operator.LE)
PATTERNS = (Operator.LIKE, Operator.NOT_LIKE, Operator.ILIKE, Operator.NOT_ILIKE)
WORDS = {
    Entity.METRIC: ("metrics", "metric", "Metrics"),
    Entity.PARAM: ("params", "param", "parameters", "parameter"),
    Entity.TAG: ("tags", "tag"),
    Entity.ATTRIBUTE: ("attributes", "attribute", "attr"),
}
storable = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
any_key = storable.filter(bool)


def whole_pattern(pattern: str) -> bool:
    """Whether its last backslash has something to stand before."""
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 0


def fields(schema: Schema, keys: st.SearchStrategy[str], *, sortable: bool = False) -> st.SearchStrategy[Field]:
    """Any field of a noun; with `sortable` of those that it is sorted by."""
    entities = schema.sortable if sortable else set(schema.entities.values())
    keyed = sorted(entities - {Entity.ATTRIBUTE}, key=str)
    attributes = [
        Field(Entity.ATTRIBUTE, name, kind)
        for name, kind in schema.attributes.items()
        if not (sortable and name in schema.many)
    ]
    types = {Entity.METRIC: Type.NUMBER, Entity.PARAM: Type.TEXT, Entity.TAG: Type.TEXT}
    return st.one_of(
        *(keys.map(lambda key, entity=entity: Field(entity, key, types[entity])) for entity in keyed),
        st.sampled_from(attributes),
    )


def values(kind: Type, texts: st.SearchStrategy[str], numbers: st.SearchStrategy[float]) -> st.SearchStrategy[Value]:
    match kind:
        case Type.NUMBER:
            return numbers
        case Type.TIME:
            return st.integers(-1, 6) | st.sampled_from([2**63 - 1, -(2**63)])
        case Type.EXPERIMENT_ID:
            return st.integers(0, 4)
        case Type.STATUS:
            return st.sampled_from(["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"])
        case Type.LIFECYCLE:
            return st.sampled_from(["ACTIVE", "DELETED"])
        case Type.VERSION:
            return st.integers(0, 4) | st.just(2**40)
        case Type.VERSION_STATUS:
            return st.sampled_from(["PENDING", "READY", "FAILED"])
        case Type.STAGE:
            return st.sampled_from(["NONE", "STAGING", "PRODUCTION", "ARCHIVED"])
        case Type.MODEL_STATUS:
            return st.sampled_from(["PENDING", "READY", "UPLOAD_FAILED"])
        case Type.RUN_ID:
            return st.integers(0, 30).map(lambda number: f"{number:032x}") | st.sampled_from(["", "abc", "7"])
        case Type.TEXT:
            return texts


@st.composite
def leaves(draw, schema, keys, texts, numbers) -> Condition:  # type: ignore[no-untyped-def]
    subject = draw(fields(schema, keys))
    kind = subject.type
    of_kind = values(kind, texts, numbers)
    shape = draw(st.sampled_from(["compare", "compare", "in", "null", "like"]))
    if shape == "null":
        return Presence(subject, draw(st.booleans()))
    if shape == "in":
        return Membership(subject, tuple(draw(st.lists(of_kind, min_size=1, max_size=3))), draw(st.booleans()))
    if shape == "like" and kind in (Type.TEXT, Type.RUN_ID, *NAMED):
        wild = st.sampled_from(["%", "_", "%a", "a%", "R%", "%n%", "%1%", "0%", "x\\%", "x\\%%", "\\\\%", "____"])
        return Comparison(subject, draw(st.sampled_from(PATTERNS)), draw(wild | texts.filter(whole_pattern)))
    operators = ORDERED if kind in (Type.NUMBER, Type.TIME, Type.VERSION) else ORDERED[:2]
    return Comparison(subject, draw(st.sampled_from(operators)), draw(of_kind))


def conditions(
    schema: Schema, keys: st.SearchStrategy[str], texts: st.SearchStrategy[str], numbers: st.SearchStrategy[float]
) -> st.SearchStrategy[Condition]:
    return st.recursive(
        leaves(schema, keys, texts, numbers),
        lambda inner: st.one_of(
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts))),
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts))),
            inner.map(Not),
        ),
        max_leaves=6,
    )


def orders(schema: Schema, keys: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[Order, ...]]:
    item = st.builds(Order, fields(schema, keys, sortable=True), st.booleans())
    return st.lists(item, max_size=3, unique_by=lambda each: each.field).map(tuple)


def write(condition: Condition, pick: st.DataObject) -> str:
    """A text for the tree; parentheses where the tree has them, and here and there where it needs none."""

    def draw(*options: str) -> str:
        return str(pick.draw(st.sampled_from(options)))

    def word(text: str) -> str:
        return draw(text, text.lower(), text.title())

    def inner(part: Condition) -> str:
        text = write(part, pick)
        return f"({text})" if isinstance(part, And | Or) or draw("", "(") else text

    match condition:
        case And(parts):
            return f" {word('AND')} ".join(inner(part) for part in parts)
        case Or(parts):
            return f" {word('OR')} ".join(inner(part) for part in parts)
        case Not(part):
            return f"{word('NOT')} {inner(part)}"
        case Presence(subject, present):
            return f"{write_field(subject, pick)} {word('IS NOT NULL' if present else 'IS NULL')}"
        case Membership(subject, values, negated):
            comma = draw(",", " , ", ",\n")
            listed = comma.join(write_value(subject, value, pick) for value in values) + draw("", ",")
            return f"{write_field(subject, pick)} {word('NOT IN' if negated else 'IN')}{draw('', ' ')}({listed})"
        case Comparison(subject, operator, value):
            space = " " if operator in PATTERNS else draw("", " ", "\t")
            value_text = quote(str(value), draw("'", '"')) if operator in PATTERNS else None
            sign = word(operator.value)
            return f"{write_field(subject, pick)}{space}{sign}{space}{value_text or write_value(subject, value, pick)}"


def write_field(subject: Field, pick: st.DataObject) -> str:
    entity = pick.draw(st.sampled_from(WORDS[subject.entity]))
    plain = subject.key.replace("_", "").isalnum() and subject.key.isascii()
    key = quote(subject.key, pick.draw(st.sampled_from(['"', "`"])))
    if plain and pick.draw(st.booleans()):
        key = subject.key
    if subject.entity is Entity.ATTRIBUTE and pick.draw(st.booleans()):
        return key
    return f"{entity}.{key}"


def write_value(subject: Field, value: Value, pick: st.DataObject) -> str:
    if subject.type in (Type.EXPERIMENT_ID, Type.VERSION) and pick.draw(st.booleans()):
        return f"'{value}'"
    if isinstance(value, str):
        return quote(value, pick.draw(st.sampled_from(["'", '"'])))
    return repr(value)


def quote(text: str, mark: str) -> str:
    return mark + text.replace(mark, mark * 2) + mark


def write_order(order: Order, pick: st.DataObject) -> str:
    direction = " DESC" if order.descending else pick.draw(st.sampled_from(["", " ASC", " asc"]))
    return write_field(order.field, pick) + direction


SCHEMAS = (RUNS, EXPERIMENTS, MODELS, MODEL_VERSIONS)
