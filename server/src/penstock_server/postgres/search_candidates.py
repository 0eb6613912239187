"""Where a search of runs may find all that can match, by an index: few candidates, to be looked at one by one.

$1 is the workspace, $2 the experiments.
"""

# ruff: noqa: S608 — statements are put together from constants; values are parameters.

from __future__ import annotations

from penstock_server.model.search_tree import (
    And,
    Comparison,
    Condition,
    Entity,
    Membership,
    Not,
    Operator,
    Or,
    Presence,
)
from penstock_server.postgres.search_conditions import PREFIX, Conditions, literal_start

SCOPE = " AND {x}.workspace_id = $1 AND {x}.experiment_id = ANY($2::bigint[])"

_RANGES = frozenset((Operator.EQ, Operator.GT, Operator.GE, Operator.LT, Operator.LE))
_EQUAL = frozenset((Operator.EQ,))
# The attributes that have indexes, and what these can find.
_FOUND_BY = {
    "run_id": _EQUAL,
    "parent_run_id": _EQUAL,
    "start_time": _RANGES,
    "dataset_name": _EQUAL,
    "dataset_digest": _EQUAL,
}


def findable(condition: Condition) -> bool:
    """Whether indexes can find the runs that meet `condition`, or a superset of them."""
    match condition:
        case Or(parts):
            return all(findable(part) for part in parts)
        case And(parts):
            return any(findable(part) for part in parts)
        case Not():
            return False
        case Presence(subject, present):
            return present and subject.entity is not Entity.ATTRIBUTE
        case Membership(subject, _, negated):
            return not negated and (subject.entity is not Entity.ATTRIBUTE or subject.key in _FOUND_BY)
        case Comparison(subject, operator, value):
            if subject.entity is Entity.ATTRIBUTE:
                return operator in _FOUND_BY.get(subject.key, ())
            return bool(literal_start(str(value))) if operator is Operator.LIKE else operator in _RANGES


def candidates(condition: Condition, conditions: Conditions, limit: str = "") -> str:
    """The runs among which are all that meet `condition`, which is findable; some more than once.

    With `limit`, as a rule, that many of each experiment at most.
    """
    match condition:
        case Or(parts):
            return " UNION ALL ".join(candidates(part, conditions, limit) for part in parts)
        case And(parts):
            return candidates(next(part for part in parts if findable(part)), conditions, limit)
    assert not isinstance(condition, Not)
    subject = condition.field
    if subject.entity is not Entity.ATTRIBUTE:
        where = [conditions.key(subject, "c")]
        if not isinstance(condition, Presence):
            where.append(conditions.keyed_test(condition, "c"))
        indexed = "c.last_value" if subject.entity is Entity.METRIC else f'left(c.value, {PREFIX}) COLLATE "C"'
        return _found("c.run_id", f"{conditions.noun.keyed[subject.entity]} c", " AND ".join(where), indexed, limit)
    assert not isinstance(condition, Presence)
    if subject.key in conditions.noun.many:
        many = conditions.noun.many[subject.key]
        column = f"c.{many.column}"
        return _found(f"c.{many.owner}", f"{many.table} c", conditions.test(condition, column), column, limit)
    test = conditions.test(condition, f"c.{_COLUMNS[subject.key]}")
    if subject.key != "start_time":
        return _found("c.id", "runs c", test, "", "")
    return _found("c.id", "runs c", test, "c.start_ms", limit)


_COLUMNS = {"run_id": "id", "parent_run_id": "parent_run_id", "start_time": "start_ms"}


def whole_scope(limit: str = "") -> str:
    """All runs that are searched."""
    return _found("c.id", "runs c", "true", "c.start_ms DESC, c.id", limit)


def _found(run_id: str, rows: str, where: str, indexed: str, limit: str) -> str:
    if not limit:
        return f"SELECT {run_id} AS run_id FROM {rows} WHERE {where}{SCOPE.format(x='c')}"
    # The order makes the planner take the index. It would scan a table where it expects enough to match soon.
    inner = f"SELECT {run_id} AS run_id FROM {rows} WHERE {where} AND c.workspace_id = $1 AND c.experiment_id = e.id"
    return (
        f"SELECT i.run_id FROM unnest($2::bigint[]) e(id)"
        f" CROSS JOIN LATERAL ({inner} ORDER BY {indexed} LIMIT {limit}) i"
    )
