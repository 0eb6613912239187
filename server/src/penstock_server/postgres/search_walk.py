"""Walks along the indexes that have a search's order, for the search to look at the runs on the way.

$1 is the workspace, $2 the experiments.
"""

# ruff: noqa: S608 — statements are put together from constants; values are parameters.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_server.model.search_tree import And, Comparison, Condition, Entity, Membership, Order, Presence, Query
from penstock_server.postgres.search_conditions import COLUMN_TYPES, PREFIX, Conditions, State, assume, conjuncts
from penstock_server.postgres.search_order import ABSENT, NAN, THERE, Column, Key, nothing

_STATES = {THERE: State.THERE, NAN: State.NAN, ABSENT: State.ABSENT}


@dataclass(frozen=True, slots=True)
class Phase:
    """A walk over the runs for which the first key of the order has one rank; `where` is what that leaves open.

    As `w` it gives run_id, the column `at` that the walk is sorted by, and `value`, what the key sorts by.
    """

    order: Order
    rank: int
    where: Condition | None

    @property
    def leading(self) -> list[Column]:
        """The columns of the first key."""
        subject = self.order.field
        kind = COLUMN_TYPES[subject.type]
        value = "w.value" if self.rank == THERE else nothing(kind)
        return [Column(f"{self.rank}::int8", "int8"), Column(value, kind, self.order.descending)]

    @property
    def sort(self) -> list[str]:
        """What the walk comes sorted by and then the value; the rest of the order follows."""
        direction = self._direction
        return [f"w.at {direction}", f"w.value {direction}"] if self.rank == THERE else [f"w.at {direction}"]

    @property
    def _direction(self) -> str:
        return "DESC" if self.rank == ABSENT or self.order.descending else "ASC"

    def source(self, conditions: Conditions, experiments: int, key: Sequence[Key] | None, length: int) -> str:
        """The first `length` rows and those that tie with the last: never half of what is equal."""
        limit = f"FETCH FIRST ({conditions.parameters.add(length)}) ROWS WITH TIES"
        if experiments == 1:
            return self._inner(conditions, "($2::bigint[])[1]", key, limit)
        inner = self._inner(conditions, "e.id", key, limit)
        return (
            f"SELECT i.* FROM unnest($2::bigint[]) e(id) CROSS JOIN LATERAL ({inner}) i"
            f" ORDER BY i.at {self._direction} {limit}"
        )

    def _inner(self, conditions: Conditions, experiment: str, key: Sequence[Key] | None, limit: str) -> str:
        """The walk through one experiment."""
        subject = self.order.field
        where = [f"m.workspace_id = $1 AND m.experiment_id = {experiment}"]
        if self.rank == ABSENT or subject.entity is Entity.ATTRIBUTE:
            table, run_id, at, value = "runs", "m.id", "m.start_ms", "m.start_ms"
        else:
            table, run_id = conditions.noun.keyed[subject.entity], "m.run_id"
            at = value = "m.last_value"
            where.append(conditions.key(subject, "m"))
            if subject.entity is Entity.METRIC:
                where.append("m.last_value < 'NaN'" if self.rank == THERE else "m.last_value = 'NaN'")
            else:
                at, value = f'left(m.value, {PREFIX}) COLLATE "C"', 'm.value COLLATE "C"'
        if self.rank == THERE:
            where += self._pushed(conditions)
        bound = self._bound(key)
        if bound is not None:
            sign = "<=" if self._direction == "DESC" else ">="
            where.append(f"{at} {sign} {conditions.parameters.add(bound)}")
        return (
            f"SELECT {run_id} AS run_id, {at} AS at, {value} AS value FROM {table} m WHERE {' AND '.join(where)}"
            f" ORDER BY {at} {self._direction} {limit}"
        )

    def _pushed(self, conditions: Conditions) -> list[str]:
        """The conditions that all must meet and that the walk itself can test."""
        subject = self.order.field
        leaves = [leaf for leaf in conjuncts(self.where) if isinstance(leaf, Comparison | Membership)]
        own = [leaf for leaf in leaves if leaf.field == subject]
        if subject.entity is Entity.ATTRIBUTE:
            return [f"({conditions.test(leaf, 'm.start_ms')})" for leaf in own]
        return [f"({conditions.keyed_test(leaf, 'm')})" for leaf in own]

    def _bound(self, key: Sequence[Key] | None) -> Key | None:
        """What the walk resumes at, of the row whose columns are `key`."""
        if key is None or key[0] != self.rank or self.rank == NAN:
            return None
        if self.rank == ABSENT:
            return key[2]  # the start: a walk over absent ones has no further keys
        value = key[1]
        return value[:PREFIX] if isinstance(value, str) else value


def phases(query: Query, order: Sequence[Order], key: Sequence[Key] | None) -> list[Phase | None]:
    """The walks that give the order, one after another; None for rows that no index has in order."""
    first = order[0]
    if first.field.entity is Entity.ATTRIBUTE:
        walkable = first.field.key == "start_time"
        return [Phase(first, THERE, query.where) if walkable else None]
    ranks = (THERE, NAN, ABSENT) if first.field.entity is Entity.METRIC else (THERE, ABSENT)
    result: list[Phase | None] = []
    for rank in ranks:
        where = True if query.where is None else assume(query.where, first.field, _STATES[rank])
        if where is False or (key is not None and rank < key[0]):  # type: ignore[operator]
            continue
        rest = None if where is True else where
        if rank == ABSENT:
            absent = Presence(first.field, present=False)
            rest = absent if rest is None else And((absent, rest))
        result.append(None if rank == ABSENT and len(order) > 1 else Phase(first, rank, rest))
    return result
