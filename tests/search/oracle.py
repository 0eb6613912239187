"""What a search must answer, in plain Python: the meaning of a tree, and the order."""

from __future__ import annotations

import math
import operator
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock_server.model.lifecycle import Lifecycle, View
from penstock_server.model.runs import RunStatus
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

COMPARE = {
    Operator.EQ: operator.eq,
    Operator.NE: operator.ne,
    Operator.GT: operator.gt,
    Operator.GE: operator.ge,
    Operator.LT: operator.lt,
    Operator.LE: operator.le,
}


@dataclass
class Thing:
    """What is searched, by the names that searches use; an attribute that it may have several of is a list."""

    id: uuid.UUID | int
    newest: tuple[Any, ...]  # what breaks ties, ascending
    lifecycle: Lifecycle
    attributes: dict[str, Value | list[Value] | None]
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def get(self, subject: Field) -> Value | list[Value] | None:
        match subject.entity:
            case Entity.METRIC:
                return self.metrics.get(subject.key)
            case Entity.PARAM:
                return self.params.get(subject.key)
            case Entity.TAG:
                return self.tags.get(subject.key)
            case Entity.ATTRIBUTE:
                return self.attributes[subject.key]


def status_name(number: int) -> str:
    return RunStatus(number).name


def meets(thing: Thing, condition: Condition | None) -> bool:
    match condition:
        case None:
            return True
        case And(parts):
            return all(meets(thing, part) for part in parts)
        case Or(parts):
            return any(meets(thing, part) for part in parts)
        case Not(part):
            return not meets(thing, part)
        case Presence(subject, present):
            return bool(there(thing, subject)) is present
        case Membership(subject, values, negated):
            return any((found in values) is not negated for found in there(thing, subject))
        case Comparison(subject, how, value):
            return any(compares(found, how, value, subject.type) for found in there(thing, subject))


def there(thing: Thing, subject: Field) -> list[Value]:
    found = thing.get(subject)
    if isinstance(found, list):
        return found
    return [] if found is None else [found]


def compares(found: Value, how: Operator, value: Value, kind: Type) -> bool:
    if how in COMPARE:
        return bool(COMPARE[how](found, value))
    any_case = how in (Operator.ILIKE, Operator.NOT_ILIKE) or kind in NAMED
    return like(str(found), str(value), any_case) is (how in (Operator.LIKE, Operator.ILIKE))


def like(text: str, pattern: str, any_case: bool) -> bool:
    parts: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            parts.append(re.escape(next(characters)))
        else:
            parts.append({"%": ".*", "_": "."}.get(character) or re.escape(character))
    return re.fullmatch("".join(parts), text, re.DOTALL | (re.IGNORECASE if any_case else 0)) is not None


def rank(value: Value | None) -> int:
    if value is None:
        return 2
    return 1 if isinstance(value, float) and math.isnan(value) else 0


def answer(
    things: Sequence[Thing], where: Condition | None, order: Sequence[Order], view: View
) -> list[uuid.UUID | int]:
    stages = {View.ACTIVE: [Lifecycle.ACTIVE], View.DELETED: [Lifecycle.DELETED], View.ALL: list(Lifecycle)}[view]
    found = sorted(
        (thing for thing in things if thing.lifecycle in stages and meets(thing, where)), key=lambda thing: thing.newest
    )
    for key in reversed(order):  # sorting is stable, so the least important comes first

        def value(thing: Thing, key: Order = key) -> Value:
            return thing.get(key.field)  # type: ignore[return-value]

        groups: list[list[Thing]] = [[], [], []]
        for thing in found:
            groups[rank(value(thing))].append(thing)
        groups[0].sort(key=value, reverse=key.descending)
        found = [thing for group in groups for thing in group]
    return [thing.id for thing in found]
