"""Answers searches of traces: of each experiment the first of a page by an index, and of these the first.

Tags and metadata are in the trace's row. What is asked of spans by one AND is asked of one and the same span.
"""

# ruff: noqa: S608 — statements are put together from constants; values are parameters.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import asyncpg

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.search_tree import (
    And,
    Comparison,
    Condition,
    Entity,
    Field,
    Membership,
    Operator,
    Order,
    Presence,
    Query,
    Type,
)
from penstock_server.postgres.database import Connection
from penstock_server.postgres.search import fetch, token_after
from penstock_server.postgres.search_conditions import COLUMN_TYPES, Conditions, Leaf, Noun, Parameters
from penstock_server.postgres.search_order import ABSENT, THERE, Column, decode, entered_after, nothing

# What a search may take, in ms: regular expressions and texts in spans may take any time.
_LONGEST_MS = 10_000

_NEWEST = Order(Field(Entity.ATTRIBUTE, "timestamp_ms", Type.TIME), descending=True)
_TAIL = (_NEWEST, Order(Field(Entity.ATTRIBUTE, "request_id", Type.TEXT)))
_NAME = "mlflow.traceName"
_RUN = "mlflow.sourceRun"
_DOCUMENTS = {Entity.TAG: "t.tags", Entity.METADATA: "t.metadata"}
_IN_DOCUMENTS = {"name": ("t.tags", _NAME), "run_id": ("t.metadata", _RUN)}  # attributes
_TRACES = Noun(
    row="t",
    table="traces",
    owner="trace",
    keyed={},
    attributes={
        "timestamp_ms": "t.request_ms",
        "execution_time_ms": "t.execution_ms",
        "end_time_ms": "(t.request_ms + coalesce(t.execution_ms, 0))",
        "status": "t.state",
        "name": f"(t.tags ->> '{_NAME}')",
        "request_id": "t.trace_id",
        "client_request_id": "t.client_request_id",
        "experiment_id": "t.experiment_id",
        "run_id": f"(t.metadata ->> '{_RUN}')",
    },
    required=frozenset(("timestamp_ms", "end_time_ms", "status", "request_id", "experiment_id")),
)
_OF_SPAN = {"name": "s.name", "type": "s.type", "status": "s.status"}
_CONTENT = "concat_ws(' ', s.name, s.attributes, s.events)"
_SAID = {Entity.FEEDBACK: "feedback", Entity.EXPECTATION: "expectation", Entity.ISSUE: "issue"}
_NUMERIC = frozenset((Operator.GT, Operator.GE, Operator.LT, Operator.LE))
_EXPRESSIONS = {Operator.RLIKE: "~", Operator.NOT_RLIKE: "!~"}


class _Conditions(Conditions):
    """On traces."""

    def sql(self, condition: Condition, *, under_not: bool = False) -> str:
        """True for the traces that meet it. Never NULL under a NOT."""
        if isinstance(condition, And):
            spans = [part for part in condition.parts if isinstance(part, Comparison | Membership) and _of_span(part)]
            if len(spans) > 1:
                rest = [part for part in condition.parts if part not in spans]
                each = [self._span(spans), *(self.sql(part, under_not=under_not) for part in rest)]
                return f"({' AND '.join(each)})"
        return super().sql(condition, under_not=under_not)

    def column(self, subject: Field) -> str:
        """The value of a field that is in the trace's row; NULL where there is none."""
        if subject.entity in _DOCUMENTS:
            return f"({_DOCUMENTS[subject.entity]} ->> {self.parameters.add(subject.key)})"
        return self.noun.attributes[subject.key]

    def test(self, leaf: Comparison | Membership, column: str) -> str:
        """The test on a value; NULL where there is none."""
        if isinstance(leaf, Comparison) and leaf.operator in _EXPRESSIONS:
            return f"{column} {_EXPRESSIONS[leaf.operator]} {self.parameters.add(leaf.value)}"
        return super().test(leaf, column)

    def _at_hand(self, subject: Field) -> bool:
        return subject.entity in _DOCUMENTS or (
            subject.entity is Entity.ATTRIBUTE and subject.key not in ("prompt", "text")
        )

    def _own(self, leaf: Leaf) -> str:
        if isinstance(leaf, Comparison) and leaf.operator is Operator.EQ and (found := self._found(leaf)):
            return found
        column = self.column(leaf.field)
        if isinstance(leaf, Presence):
            return f"{column} IS {'NOT ' if leaf.present else ''}NULL"
        return self.test(leaf, column)

    def _found(self, leaf: Comparison) -> str:
        """What an index finds: a value in a document. Empty when it is in none."""
        key = leaf.field.key
        document = _DOCUMENTS.get(leaf.field.entity)
        if leaf.field.entity is Entity.ATTRIBUTE and key in _IN_DOCUMENTS:
            document, key = _IN_DOCUMENTS[key]
        if document is None:
            return ""
        value = self.parameters.add(leaf.value)
        has = f"{document} @> jsonb_build_object({self.parameters.add(key)}::text, {value}::text)"
        # A run's traces are those that were made in it and those that were linked to it.
        return f"({has} OR t.run_ids @> ARRAY[{value}::text])" if key == _RUN else has

    def _probe(self, leaf: Leaf) -> str:
        if leaf.field.entity in _SAID:
            return self._said(leaf)
        if leaf.field.key == "prompt" and leaf.field.entity is Entity.ATTRIBUTE:
            if isinstance(leaf, Presence):
                return f"t.prompts {'<>' if leaf.present else '='} '{{}}'"
            return f"EXISTS (SELECT FROM unnest(t.prompts) x (prompt) WHERE {self.test(leaf, 'x.prompt')})"
        if isinstance(leaf, Presence):
            present = (
                f"EXISTS (SELECT FROM trace_spans s WHERE s.trace = t.id AND {self._of_span(leaf.field)} IS NOT NULL)"
            )
            return present if leaf.present else f"NOT {present}"
        return self._span([leaf])

    def _span(self, leaves: Sequence[Comparison | Membership]) -> str:
        """That one span meets all of these."""
        tests = " AND ".join(self.test(leaf, self._of_span(leaf.field)) for leaf in leaves)
        return f"EXISTS (SELECT FROM trace_spans s WHERE s.trace = t.id AND {tests})"

    def _of_span(self, subject: Field) -> str:
        if subject.key in ("text", "content"):
            return _CONTENT
        return _OF_SPAN.get(subject.key) or f"(s.attributes ->> {self.parameters.add(subject.key.partition('.')[2])})"

    def _said(self, leaf: Leaf) -> str:
        """That one assessment that nobody has overridden meets it."""
        where = f"a.trace = t.id AND a.kind = '{_SAID[leaf.field.entity]}' AND a.valid"
        if leaf.field.entity is Entity.ISSUE:
            test = "true" if isinstance(leaf, Presence) else self.test(leaf, "a.name")
        else:
            where += f" AND a.name = {self.parameters.add(leaf.field.key)}"
            test = "true" if isinstance(leaf, Presence) else self._value(leaf)
        absent = isinstance(leaf, Presence) and not leaf.present
        return f"{'NOT ' if absent else ''}EXISTS (SELECT FROM trace_assessments a WHERE {where} AND {test})"

    def _value(self, leaf: Comparison | Membership) -> str:
        """The test on an assessment's value: numbers by size, all else as the text that JSON has for it."""
        number = "CASE WHEN json_typeof(a.value) = 'number' THEN (a.value #>> '{}')::float8 END"
        if isinstance(leaf, Membership):
            numbers = self.parameters.add([value for value in leaf.values if isinstance(value, float)])
            texts = self.parameters.add([str(value) for value in leaf.values if not isinstance(value, float)])
            either = (
                f"coalesce({number} = ANY({numbers}::float8[]), false) OR (a.value #>> '{{}}') = ANY({texts}::text[])"
            )
            return f"{'NOT ' if leaf.negated else ''}({either})"
        if leaf.operator in _NUMERIC or isinstance(leaf.value, float):
            if leaf.operator is Operator.NE:
                return f"({number}) IS DISTINCT FROM {self.parameters.add(leaf.value)}::float8"
            return f"({number}) {leaf.operator.value} {self.parameters.add(_number(leaf.value))}::float8"
        return self.test(replace(leaf, field=replace(leaf.field, type=Type.TEXT)), "(a.value #>> '{}')")


def _of_span(leaf: Comparison | Membership) -> bool:
    return leaf.field.entity is Entity.SPAN or leaf.field == Field(Entity.ATTRIBUTE, "text", Type.TEXT)


def _number(value: object) -> float | None:
    """A number that may be written as text; None, which compares with nothing, when it is none."""
    try:
        return float(str(value))
    except ValueError:
        return None


def _columns(order: Sequence[Order], conditions: _Conditions) -> list[Column]:
    """What is sorted by: for what may be absent, whether it is, before its value."""
    result: list[Column] = []
    for key in order:
        kind = COLUMN_TYPES[key.field.type]
        value, collate = conditions.column(key.field), ' COLLATE "C"' if kind == "text" else ""
        if key.field.entity is Entity.ATTRIBUTE and key.field.key in _TRACES.required:
            result.append(Column(f"{value}{collate}", kind, key.descending))
            continue
        result.append(Column(f"CASE WHEN {value} IS NULL THEN {ABSENT} ELSE {THERE} END", "int8"))
        result.append(Column(f"coalesce({value}, {nothing(kind)}){collate}", kind, key.descending))
    return result


async def search_traces(
    conn: Connection,
    workspace_id: WorkspaceId,
    experiment_ids: Sequence[ExperimentId],
    query: Query,
    limit: int,
    page_token: str,
) -> tuple[list[str], str]:
    """The ids of the traces that `query` selects of these experiments, and the token of the next page.

    There are `limit` at most, and the token is "" after the last. Raises InvalidPageToken. In a transaction of its own.
    """
    within = sorted(set(experiment_ids))
    asked = ("traces", workspace_id, within, repr(query))
    parameters = Parameters()
    workspace, experiments = parameters.add(workspace_id), parameters.add(within)
    conditions = _Conditions(_TRACES, parameters)
    sorted_by = _columns((*query.order, *(key for key in _TAIL if not _sorts(query, key))), conditions)
    where = [f"t.workspace_id = {workspace} AND t.experiment_id = e.id"]
    if query.where is not None:
        where.append(conditions.sql(query.where))
    if page_token:
        key = decode(asked, sorted_by, page_token)
        where.append(entered_after(sorted_by, key, parameters))
    need = parameters.add(limit + 1)
    shown = ", ".join(f"{column.sql} AS k{index}" for index, column in enumerate(sorted_by))
    inner = ", ".join(f"{column.sql} {column.direction}" for column in sorted_by)
    outer = ", ".join(f"f.k{index} {column.direction}" for index, column in enumerate(sorted_by))
    await conn.execute(f"SET LOCAL statement_timeout = {_LONGEST_MS}")
    sql = (
        f"SELECT f.* FROM unnest({experiments}::bigint[]) e (id) CROSS JOIN LATERAL"
        f" (SELECT t.trace_id, {shown} FROM traces t WHERE {' AND '.join(where)} ORDER BY {inner} LIMIT {need}) f"
        f" ORDER BY {outer} LIMIT {need}"
    )
    try:
        rows = await fetch(conn, sql, parameters)
    except asyncpg.InvalidRegularExpressionError as error:
        raise InvalidArgument("filter", f"PostgreSQL does not take its regular expression: {error}") from None
    except asyncpg.QueryCanceledError:
        # The same would take as long again.
        problem = f"takes more than {_LONGEST_MS // 1000} s; narrow it by a time, or by a tag"
        raise InvalidArgument("filter", problem) from None
    limit = await _how_many(conn, workspace_id, [row[0] for row in rows[:limit]])
    return [row[0] for row in rows[:limit]], token_after(asked, rows, limit)


# What a page of traces may take in memory, about.
_PAGE_BYTES = 8 << 20
_FITTING = """
SELECT count(*) FROM (
    SELECT sum(size) OVER (ORDER BY position) - size AS before_it
      FROM (SELECT w.position, octet_length(t.tags::text) + octet_length(t.metadata::text)
                   + coalesce(octet_length(t.request_preview), 0) + coalesce(octet_length(t.response_preview), 0)
                   + coalesce((SELECT sum(octet_length(a.value::text) + coalesce(octet_length(a.error::text), 0)
                                          + coalesce(octet_length(a.rationale), 0) + octet_length(a.metadata::text))
                                 FROM trace_assessments a WHERE a.trace = t.id), 0) AS size
              FROM unnest($2::text[]) WITH ORDINALITY AS w (trace_id, position)
              JOIN traces t ON t.workspace_id = $1 AND t.trace_id = w.trace_id) s) s
 WHERE before_it < $3
"""


async def _how_many(conn: Connection, workspace_id: WorkspaceId, trace_ids: Sequence[str]) -> int:
    """How many of these, from the first on, can be loaded at once; one anyhow."""
    found: int = await conn.fetchval(_FITTING, workspace_id, trace_ids, _PAGE_BYTES)
    return found


def _sorts(query: Query, key: Order) -> bool:
    return any(each.field == key.field for each in query.order)
