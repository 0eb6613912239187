"""Answers searches: from the tree of model/search.py to the ids that it selects, in order, a page at a time.

Experiments are few: one statement. Of runs there may be millions, and no statistics tell the planner how the values
of *one* metric lie (they are gathered over all names together), so a search of runs looks before it leaps:

1. It counts, by index and up to a cap, what the whole scope and each condition that an index can find would leave.
   When one leaves few, these are fetched, looked at by primary key, and sorted.
2. Otherwise, when an index has the order, it walks along the index and looks at the run of each entry by primary key,
   until the page is full. A walk is bounded: where the filter rarely matches on the way, it is given up early.
   Metrics are walked in phases: numbers, then those that are NaN, then runs without the metric; the tree is simplified
   by what each phase knows, and a phase that cannot match is not walked.
3. Otherwise it fetches what the conditions that an index can find have in common; if that is little, on as in 1.
4. Otherwise the planner gets the whole question, and hashes.

All give the same rows in the same order, and page tokens fit them all.
"""

# ruff: noqa: S608 — statements are put together from constants; values are parameters.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from penstock_server.model import pages
from penstock_server.model.access import WorkspaceId
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.lifecycle import Lifecycle, View
from penstock_server.model.runs import RunId
from penstock_server.model.search_tree import Condition, Entity, Field, Order, Query, Type
from penstock_server.postgres.database import Connection
from penstock_server.postgres.search_candidates import SCOPE, candidates, findable, whole_scope
from penstock_server.postgres.search_conditions import EXPERIMENTS, RUNS, Conditions, Parameters, conjuncts
from penstock_server.postgres.search_order import THERE, Column, Key, after, columns, decode
from penstock_server.postgres.search_walk import Phase, phases

# Fewer candidates than this are looked at one by one, some 10 µs each;
_FEW = 3_500
# and fewer than this, where it took all conditions together to find them.
_FEW_IN_COMMON = 10_000
# How many entries of an index a walk looks at to see how it goes, and then at most.
_FIRST_STRETCH = 500
_WALK = 6_000
# A page longer than this is a scan, not a walk.
_LONG_PAGE = 5_000
# How many conditions are counted beforehand.
_COUNTED = 8

_NEWEST = Order(Field(Entity.ATTRIBUTE, "start_time", Type.TIME), descending=True)
_TAIL = [Column("r.start_ms", "int8", descending=True), Column("r.id", "uuid")]
_NEWEST_EXPERIMENT = Order(Field(Entity.ATTRIBUTE, "creation_time", Type.TIME), descending=True)
_EXPERIMENT_TAIL = [Column("e.id", "int8", descending=True)]

_STAGES = {
    View.ACTIVE: [Lifecycle.ACTIVE],
    View.DELETED: [Lifecycle.DELETED],
    View.ALL: [Lifecycle.ACTIVE, Lifecycle.DELETED],
}


async def search_experiments(
    connection: Connection, workspace_id: WorkspaceId, query: Query, view: View, limit: int, page_token: str
) -> tuple[list[ExperimentId], str]:
    """The experiments that `query` selects, and the token of the next page.

    There are `limit` at most, and the token is "" after the last. Raises InvalidPageToken.
    """
    asked = ("experiments", workspace_id, repr(query), view)
    parameters = Parameters()
    workspace, stages = parameters.add(workspace_id), parameters.add(_STAGES[view])
    conditions = Conditions(EXPERIMENTS, parameters, scope=f" AND {{x}}.workspace_id = {workspace}")
    keys, joins = columns(query.order or (_NEWEST_EXPERIMENT,), conditions)
    sorted_by = keys + _EXPERIMENT_TAIL
    where = [f"e.workspace_id = {workspace} AND e.lifecycle = ANY({stages}::smallint[])"]
    if query.where is not None:
        where.append(conditions.sql(query.where))
    if page_token:
        where.append(after(sorted_by, decode(asked, sorted_by, page_token), parameters))
    rows = await fetch(
        connection,
        f"SELECT e.id, {', '.join(column.sql for column in sorted_by)} FROM experiments e{joins}"
        f" WHERE {' AND '.join(where)} ORDER BY {', '.join(f'{column.sql} {column.direction}' for column in sorted_by)}"
        f" LIMIT {parameters.add(limit + 1)}",
        parameters,
    )
    return [ExperimentId(row[0]) for row in rows[:limit]], token_after(asked, rows, limit)


async def search_runs(
    connection: Connection,
    workspace_id: WorkspaceId,
    experiment_ids: Sequence[ExperimentId] | None,
    query: Query,
    view: View,
    limit: int,
    page_token: str,
) -> tuple[list[RunId], str]:
    """The runs that `query` selects of these experiments (None: of the workspace), and the token of the next page.

    There are `limit` at most, and the token is "" after the last. Raises InvalidPageToken.
    """
    experiments = None if experiment_ids is None else sorted(set(experiment_ids))
    asked = ("runs", workspace_id, experiments, repr(query), view)
    order = query.order or (_NEWEST,)
    sorted_by = columns(order, Conditions(RUNS, Parameters()))[0] + _TAIL
    key = decode(asked, sorted_by, page_token) if page_token else None
    if experiments is None:
        found = await connection.fetch("SELECT id FROM experiments WHERE workspace_id = $1 ORDER BY id", workspace_id)
        experiments = [row[0] for row in found]
    search = _Runs(connection, workspace_id, experiments, query, order, view, key)
    rows = await search.rows(limit + 1) if experiments else []
    return [RunId(row[0]) for row in rows[:limit]], token_after(asked, rows, limit)


def token_after(asked: Sequence[object], rows: Sequence[asyncpg.Record], limit: int) -> str:
    """The token of the page after the first `limit` rows, of an id and what it is sorted by; "" when that is all."""
    return pages.encode(asked, list(rows[limit - 1])[1:]) if len(rows) > limit else ""


async def fetch(connection: Connection, sql: str, parameters: Parameters) -> list[asyncpg.Record]:
    """The rows of a statement."""
    # Prepared anew, out of asyncpg's cache: so the plan is made for these very values. A plan for all values would
    # know neither how long the page is nor what a pattern begins with.
    statement = await connection.prepare(sql)
    rows: list[asyncpg.Record] = await statement.fetch(*parameters.values)
    return rows


@dataclass(frozen=True, slots=True)
class _Runs:
    """One search of runs: from the row after `key` on, if there is one."""

    connection: Connection
    workspace_id: WorkspaceId
    experiments: Sequence[int]
    query: Query
    order: Sequence[Order]
    view: View
    key: list[Key] | None

    async def rows(self, need: int) -> list[asyncpg.Record]:
        """The first `need` rows: the id, then the columns that they are sorted by."""
        indexed = [part for part in conjuncts(self.query.where) if findable(part)][:_COUNTED]
        sizes = await self._count(indexed)
        smallest = min(range(len(sizes)), key=sizes.__getitem__)
        if sizes[smallest] == 0:
            return []
        if sizes[smallest] < _FEW:
            return await self._look_at(indexed[smallest - 1] if smallest else None, need)
        if need <= _LONG_PAGE:
            walked = await self._walk(need)
            if walked is not None:
                return walked
        if indexed:
            common = await self._in_common(indexed)
            if len(common) < _FEW_IN_COMMON:
                conditions = Conditions(RUNS, self._parameters())
                source = f"SELECT unnest({conditions.parameters.add(common)}::uuid[]) AS run_id"
                return await self._select(conditions, need, source)
        return await self._select(Conditions(RUNS, self._parameters(), SCOPE), need)

    async def _count(self, indexed: Sequence[Condition]) -> list[int]:
        """How many runs the scope has and each condition leaves; from `_FEW` on it does not matter how many."""
        parameters = self._parameters()
        conditions = Conditions(RUNS, parameters)
        few = parameters.add(_FEW)
        sources = [whole_scope(few), *(candidates(part, conditions, few) for part in indexed)]
        counts = ", ".join(f"(SELECT count(*) FROM (SELECT FROM ({source}) a LIMIT {few}) b)" for source in sources)
        [row] = await fetch(self.connection, f"SELECT {counts}", parameters)
        return list(row)

    async def _look_at(self, condition: Condition | None, need: int) -> list[asyncpg.Record]:
        """The candidates by one condition, or the whole scope, each looked at by primary key."""
        conditions = Conditions(RUNS, self._parameters())
        source = whole_scope() if condition is None else candidates(condition, conditions)
        return await self._select(conditions, need, f"SELECT DISTINCT run_id FROM ({source}) a")

    async def _in_common(self, indexed: Sequence[Condition]) -> list[RunId]:
        """The candidates by all the conditions together, which may be few though each alone leaves many."""
        parameters = self._parameters()
        conditions = Conditions(RUNS, parameters)
        each = [f"SELECT DISTINCT run_id FROM ({candidates(part, conditions)}) a" for part in indexed]
        sql = f"SELECT run_id FROM ({' INTERSECT '.join(each)}) a LIMIT {parameters.add(_FEW_IN_COMMON)}"
        return [RunId(row[0]) for row in await fetch(self.connection, sql, parameters)]

    async def _walk(self, need: int) -> list[asyncpg.Record] | None:
        """Along indexes that have the order; None when there is no such index, or the way is long."""
        rows: list[asyncpg.Record] = []
        for phase in phases(self.query, self.order, self.key):
            found = await self._walk_phase(phase, need - len(rows)) if phase else None
            if found is None:
                return None
            rows += found
            if len(rows) >= need:
                break
        return rows

    async def _walk_phase(self, phase: Phase, need: int) -> list[asyncpg.Record] | None:
        """A first stretch tells how often the filter matches; the second goes as far as that takes, or is not gone."""
        length = max(_FIRST_STRETCH, 3 * need)
        rows = await self._step(phase, need, length)
        if len(rows) >= need or await self._walked(phase, length) < length:
            return rows
        length = int(1.5 * length * need / max(len(rows), 1))
        if length > max(_WALK, 5 * need):
            return None
        rows = await self._step(phase, need, length)
        if len(rows) >= need or await self._walked(phase, length) < length:
            return rows
        return None

    async def _walked(self, phase: Phase, length: int) -> int:
        """How much a walk of this length has before it."""
        parameters = self._parameters()
        source = phase.source(Conditions(RUNS, parameters), len(self.experiments), self.key, length)
        [row] = await fetch(self.connection, f"SELECT count(*) FROM ({source}) w", parameters)
        return int(row[0])

    async def _step(self, phase: Phase, need: int, length: int) -> list[asyncpg.Record]:
        parameters = self._parameters()
        conditions = Conditions(RUNS, parameters)
        source = phase.source(conditions, len(self.experiments), self.key, length)
        return await self._select(conditions, need, source, phase)

    async def _select(
        self, conditions: Conditions, need: int, source: str = "", phase: Phase | None = None
    ) -> list[asyncpg.Record]:
        """The rows, in order, of the runs in `source`; without one, of all in scope."""
        parameters = conditions.parameters
        leading = phase.leading if phase else []
        if phase and phase.rank == THERE:
            conditions.known[phase.order.field] = "w.value"
        keys, joins = columns(self.order[1:] if phase else self.order, conditions)
        inner = keys + _TAIL
        outer = leading + [Column(f"s.k{i}", column.type, column.descending) for i, column in enumerate(inner)]
        sort = (phase.sort if phase else []) + [f"{column.sql} {column.direction}" for column in outer[len(leading) :]]
        where = ["r.workspace_id = $1 AND r.experiment_id = ANY($2::bigint[])"]
        if source:
            where.append("r.id = w.run_id")
        where.append(f"r.lifecycle = ANY({parameters.add(_STAGES[self.view])}::smallint[])")
        condition = phase.where if phase else self.query.where
        if condition is not None:
            where.append(conditions.sql(condition))
        # OFFSET 0 keeps the planner from turning the order of things around.
        rows = (
            f"(SELECT r.id, {', '.join(f'{column.sql} AS k{i}' for i, column in enumerate(inner))} FROM runs r{joins}"
            f" WHERE {' AND '.join(where)} OFFSET 0) s"
        )
        sql = (
            f"SELECT s.id, {', '.join(column.sql for column in outer)}"
            f" FROM {f'({source}) w CROSS JOIN LATERAL ' if source else ''}{rows}"
            f"{f' WHERE {after(outer, self.key, parameters)}' if self.key else ''}"
            f" ORDER BY {', '.join(sort)} LIMIT {parameters.add(need)}"
        )
        return await fetch(self.connection, sql, parameters)

    def _parameters(self) -> Parameters:
        """With those that every statement has: $1 the workspace, $2 the experiments."""
        parameters = Parameters()
        parameters.add(self.workspace_id)
        parameters.add(list(self.experiments))
        return parameters
