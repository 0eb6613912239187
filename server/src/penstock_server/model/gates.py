"""Gates: filters that a version must pass to be promoted, and what came of them.

A gate is written in the search grammar (model/search.py), where a value may be that of another version. Where nothing
is missing it means what it means in a search (postgres/search_conditions.py; a test compares the two). A comparison
with something that is missing is neither true nor false, as in SQL, and so is its NOT: only what is true passes.
Where no version ever was what a gate refers to, it passes if that is the very target of the promotion: the first has
nothing to be compared with.
"""

from __future__ import annotations

import math
import operator
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock_server.model.errors import InvalidArgument
from penstock_server.model.like import like
from penstock_server.model.limits import check_text
from penstock_server.model.registry import Stage
from penstock_server.model.search import parse_gate
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
    Reference,
    Type,
    Value,
)

GATES_LIMIT = 50
GATE_LIMIT = 1_000
# Of all gates of a request, or of a policy, together, in characters.
GATES_TEXT_LIMIT = 20_000
# What LIKE may look at in the gates of one promotion: characters of a value, times those of the pattern and some more
# for each value that is looked at. That is less than 0.1 s, and a tag of 100,000 characters once.
LIKE_LIMIT = 10_000_000
_LIKE_BASE = 50

# What a version has itself; the other attributes, metrics and params are of its run.
_OF_THE_VERSION = frozenset(("version", "stage"))
_REASON_LIMIT = 2_000
_VALUE_LIMIT = 250
_SHORT = 60


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate: as it was written, as it was read, and whether it stands in a policy."""

    text: str
    condition: Condition
    stored: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What gates can see of one version. `label` is what a reason calls it.

    `unknown` says why nothing of a run is known, as it goes on after the label; "" when it is.
    """

    version: int
    label: str
    values: Mapping[Field, Value] = field(default_factory=dict)
    unknown: str = ""

    def knows(self, subject: Field) -> bool:
        """Whether it is known if the version has this field."""
        own = subject.entity is Entity.TAG or (subject.entity is Entity.ATTRIBUTE and subject.key in _OF_THE_VERSION)
        return own or not self.unknown


@dataclass(frozen=True, slots=True)
class GateValue:
    """A value that a gate was about, as text; None where there is none. `version` 0: no version ever had it."""

    field: str
    value: str | None
    version: int


@dataclass(frozen=True, slots=True)
class GateResult:
    """What came of one gate. `reason` says why it does not hold, or holds where there is nothing to compare with."""

    gate: str
    passed: bool
    values: tuple[GateValue, ...]
    reason: str
    stored: bool


@dataclass(slots=True)
class Effort:
    """What LIKE may still look at; see LIKE_LIMIT."""

    left: int = LIKE_LIMIT

    def spend(self, text: str, pattern: str) -> bool:
        """Whether there is enough left to try a pattern on a text, which is taken from it then."""
        needed = len(text) * (len(pattern) + _LIKE_BASE)
        if needed > self.left:
            return False
        self.left -= needed
        return True


def parse_gates(texts: Sequence[str], *, stored: bool = False) -> list[Gate]:
    """Gates as a request or a policy has them. Raises InvalidArgument, and InvalidFilter of `gates[i]`."""
    if len(texts) > GATES_LIMIT:
        raise InvalidArgument("gates", f"{len(texts)} are too many; the limit is {GATES_LIMIT}")
    if (length := sum(map(len, texts))) > GATES_TEXT_LIMIT:
        raise InvalidArgument("gates", f"have {length:,} characters together; the limit is {GATES_TEXT_LIMIT:,}")
    gates = []
    for index, text in enumerate(texts):
        name = f"gates[{index}]"
        gates.append(Gate(check_text(name, text, GATE_LIMIT, empty=False), parse_gate(text, name), stored))
    return gates


def needed(gates: Sequence[Gate]) -> dict[str, set[Field]]:
    """The fields that gates are about, by whose they are: "" the version's, others by what a reference names."""
    fields: dict[str, set[Field]] = {"": set()}
    for gate in gates:
        for leaf in _leaves(gate.condition):
            fields[""].add(leaf.field)
            if isinstance(leaf, Comparison) and isinstance(leaf.value, Reference):
                fields.setdefault(leaf.value.holder, set()).add(leaf.value.field)
    return fields


def evaluate(
    gate: Gate,
    subject: Facts,
    holders: Mapping[str, Facts | None],
    *,
    target: str = "",
    model: str = "the model",
    effort: Effort | None = None,
) -> GateResult:
    """What comes of a gate for a version of a model that is to be promoted to a target.

    `holders` has the version that each reference means, None where no version ever was it. `effort` is what there
    is left for all gates of the promotion.
    """
    evaluation = _Evaluation(subject, holders, target, model, effort or Effort())
    truth, reasons = evaluation.meets(gate.condition, wanted=True)
    passed = truth is True
    told = dict.fromkeys(each.text for each in reasons if not passed or each.hollow)
    return GateResult(
        gate.text, passed, tuple(evaluation.values.values()), _cut("; ".join(told), _REASON_LIMIT), gate.stored
    )


def written(subject: Field | Reference) -> str:
    """A field as gates write it."""
    if isinstance(subject, Reference):
        name = subject.holder.removeprefix("@")
        if name != subject.holder and Stage.called(name) is not None:
            name = subject.holder  # an alias that is called as a stage is
        plain = re.fullmatch(r"-?[^\W\d][\w-]*", name) is not None
        prefix = "attributes." if subject.field.entity is Entity.ATTRIBUTE else ""
        return f"{name if plain else f'`{name}`'}.{prefix}{written(subject.field)}"
    if subject.entity is Entity.ATTRIBUTE:
        return subject.key
    plain = re.fullmatch(r"[\w./:\-]+", subject.key) is not None
    return f"{subject.entity.value}.{subject.key if plain else '`' + subject.key.replace('`', '``') + '`'}"


def _leaves(condition: Condition) -> Iterator[Comparison | Membership | Presence]:
    match condition:
        case And(parts) | Or(parts):
            for part in parts:
                yield from _leaves(part)
        case Not(part):
            yield from _leaves(part)
        case leaf:
            yield leaf


@dataclass(frozen=True, slots=True)
class _Reason:
    """Why a condition holds or does not; `hollow` when it holds for want of something to compare with."""

    text: str
    hollow: bool = False


# True, false, or unknown for want of something.
_Truth = bool | None


class _Evaluation:
    """One gate looked at for one version; gathers the values that it is about."""

    def __init__(
        self, subject: Facts, holders: Mapping[str, Facts | None], target: str, model: str, effort: Effort
    ) -> None:
        self.subject = subject
        self.holders = holders
        self.target = target
        self.model = model
        self.effort = effort
        self.values: dict[str, GateValue] = {}

    def meets(self, condition: Condition, *, wanted: bool) -> tuple[_Truth, list[_Reason]]:
        """Whether the condition holds, and why; `wanted` is what helps the gate to pass."""
        match condition:
            case And(parts) | Or(parts):
                outcomes = [self.meets(part, wanted=wanted) for part in parts]
                holds = _together([held for held, _ in outcomes], decisive=isinstance(condition, Or))
                helps = holds is wanted
                return holds, [reason for held, reasons in outcomes if (held is wanted) is helps for reason in reasons]
            case Not(part):
                held, reasons = self.meets(part, wanted=not wanted)
                return None if held is None else not held, reasons
            case Comparison() | Membership() | Presence():
                held, reason = self._leaf(condition, wanted)
                return held, [reason]

    def _leaf(self, leaf: Comparison | Membership | Presence, wanted: bool) -> tuple[_Truth, _Reason]:
        name, subject = written(leaf.field), self.subject
        found = self._value(name, leaf.field, subject)
        other = self._other(leaf.value) if isinstance(leaf, Comparison) else None  # named by the gate, so among values
        if isinstance(leaf, Comparison) and isinstance(leaf.value, Reference) and self._unknown(leaf.value):
            return None, self._never(leaf.value)
        if found is None and not subject.knows(leaf.field):
            return None, _Reason(f"{subject.label} {subject.unknown}, which {name} would be of")
        if isinstance(leaf, Presence):
            text = f"{subject.label} has no {name}" if found is None else f"{name} is {_short(found)}"
            return (found is not None) is leaf.present, _Reason(text)
        if found is None:
            return None, _Reason(f"{subject.label} has no {name}")
        it_is = f"{name} is {_short(found)}, which is"
        if isinstance(leaf, Membership):
            among = any(_compare(leaf.field.type, found, Operator.EQ, value) for value in leaf.values)
            listed = _cut(", ".join(map(_short, leaf.values)), _VALUE_LIMIT)
            return among is not leaf.negated, _Reason(f"{it_is} {'one' if among else 'none'} of {listed}")
        if isinstance(leaf.value, Reference):
            return self._against(leaf, leaf.value, found, other, wanted)
        if leaf.operator not in _COMPARE and not self.effort.spend(str(found), str(leaf.value)):
            long = f"{name} has {len(str(found)):,} characters"
            return None, _Reason(f"{long}, which is more than LIKE may still look at in the gates of one promotion")
        holds = _compare(leaf.field.type, found, leaf.operator, leaf.value)
        return holds, _Reason(f"{it_is} {_sign(leaf.operator, holds)} {_short(leaf.value)}")

    def _against(
        self, leaf: Comparison, reference: Reference, found: Value, other: Value | None, wanted: bool
    ) -> tuple[_Truth, _Reason]:
        name = written(reference)
        holder = self.holders[reference.holder]
        if holder is None:
            return wanted, self._never(reference)
        if other is None and not holder.knows(reference.field):
            return None, _Reason(f"{holder.label} {holder.unknown}, which {name} would be of")
        if other is None:
            return None, _Reason(f"{holder.label} has no {written(reference.field)}")
        holds = _compare(leaf.field.type, found, leaf.operator, other)
        relation = f"{_sign(leaf.operator, holds)} {name}, {_short(other)} of {holder.label}"
        return holds, _Reason(f"{written(leaf.field)} is {_short(found)}, which is {relation}")

    def _unknown(self, reference: Reference) -> bool:
        """Whether no version ever was it, nor is one to be now."""
        return self.holders[reference.holder] is None and reference.holder != self.target

    def _never(self, reference: Reference) -> _Reason:
        return _Reason(f"no version of {self.model} was ever {reference.holder.removeprefix('@')}", hollow=True)

    def _other(self, value: Value | Reference) -> Value | None:
        if isinstance(value, Reference):
            return self._value(written(value), value.field, self.holders[value.holder])
        return None

    def _value(self, name: str, subject: Field, facts: Facts | None) -> Value | None:
        value = None if facts is None else facts.values.get(subject)
        told = None if value is None else _cut(_text(subject.type, value), _VALUE_LIMIT)
        self.values.setdefault(name, GateValue(name, told, 0 if facts is None else facts.version))
        return value


def _together(parts: Sequence[_Truth], *, decisive: bool) -> _Truth:
    """Of OR, where one that is true decides, or of AND, where one that is false does."""
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive


_COMPARE: Mapping[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQ: operator.eq,
    Operator.NE: operator.ne,  # which NaN meets, and no other
    Operator.GT: operator.gt,
    Operator.GE: operator.ge,
    Operator.LT: operator.lt,
    Operator.LE: operator.le,
}
_OPPOSITE = {Operator.EQ: Operator.NE, Operator.LIKE: Operator.NOT_LIKE, Operator.ILIKE: Operator.NOT_ILIKE}
_OPPOSITE |= {no: yes for yes, no in _OPPOSITE.items()}


def _compare(kind: Type, found: Value, how: Operator, value: Value) -> bool:
    if how in _COMPARE:
        return _COMPARE[how](found, _run_id(str(value)) if kind is Type.RUN_ID else value)
    any_case = how in (Operator.ILIKE, Operator.NOT_ILIKE) or kind in NAMED
    return like(str(found), str(value), any_case=any_case) is (how in (Operator.LIKE, Operator.ILIKE))


def _run_id(text: str) -> str:
    """As run ids are kept; what can be no run's id as it is."""
    try:
        return uuid.UUID(text).hex
    except ValueError:
        return text


def _sign(how: Operator, holds: bool) -> str:
    if holds:
        return how.value
    return _OPPOSITE[how].value if how in _OPPOSITE else f"not {how.value}"


def _text(kind: Type, value: Value) -> str:
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else repr(value)
    return str(value).capitalize() if kind is Type.STAGE else str(value)


def _short(value: Value) -> str:
    return repr(_cut(value, _SHORT)) if isinstance(value, str) else _text(Type.NUMBER, value)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
