"""What is said of traces, in PostgreSQL. Every function works in the caller's transaction."""

# ruff: noqa: S608 — statements are put together from constants; values are parameters.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import AlreadyExists, InvalidArgument, NotFound
from penstock_server.model.traces import ASSESSMENTS_LIMIT, SAID_LIMIT, Assessment, AssessmentKind
from penstock_server.postgres.database import Connection
from penstock_server.postgres.documents import document

# Each column, with its type as a parameter.
_COLUMNS = {
    "assessment_id": "text",
    "kind": "text",
    "name": "text",
    "value": "json",
    "source_type": "text",
    "source_id": "text",
    "created_ms": "bigint",
    "updated_ms": "bigint",
    "error": "json",
    "rationale": "text",
    "metadata": "json",
    "span_id": "text",
    "overrides": "text",
    "valid": "boolean",
}
_NAMES = ", ".join(_COLUMNS)
_REPLACED = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name != "assessment_id")


def _unnested(first: int) -> str:
    # Of json as text: PostgreSQL unnests arrays of both, but asyncpg takes the elements of one kind alone.
    arrays = ", ".join(
        f"${number}::{'text' if kind == 'json' else kind}[]" for number, kind in enumerate(_COLUMNS.values(), first)
    )
    return f"unnest({arrays}) AS a ({_NAMES})"


_SELECTED = ", ".join(f"a.{name}::json" if kind == "json" else f"a.{name}" for name, kind in _COLUMNS.items())


def put_statement(trace: str, source: str, first: int) -> str:
    """Puts assessments whose columns are parameters from `first` on; may stand in another statement.

    `trace` is the id, `source` where it comes from, with a comma behind it.
    """
    return (
        f"INSERT INTO trace_assessments (trace, {_NAMES}) SELECT {trace}, {_SELECTED} FROM {source}"
        f"{_unnested(first)} ON CONFLICT (trace, assessment_id) DO UPDATE SET {_REPLACED}"
    )


# All of a trace `t`, as one JSON text; NULL when there are none.
OF_TRACE = f"""(SELECT json_agg(json_build_array({", ".join(f"a.{name}" for name in _COLUMNS)})
                        ORDER BY a.created_ms, a.assessment_id)
          FROM trace_assessments a WHERE a.trace = t.id)"""


def columns(said: Sequence[Assessment]) -> list[list[Any]]:
    """The parameters of `put_statement`. Raises InvalidArgument."""
    rows = [
        (
            each.assessment_id,
            each.kind.value,
            each.name,
            _limited("value", each.value),
            each.source_type,
            each.source_id,
            each.created_ms,
            each.updated_ms,
            None if each.error is None else _limited("error", each.error),
            each.rationale,
            document(each.metadata),
            each.span_id,
            each.overrides,
            each.valid,
        )
        for each in said
    ]
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in _COLUMNS]


def _limited(where: str, value: Any) -> str:
    text = document(value)
    if len(text) > SAID_LIMIT:
        raise InvalidArgument(where, f"is {len(text)} characters of JSON; the limit is {SAID_LIMIT}")
    return text


def parsed(text: str | None) -> list[Assessment]:
    """What OF_TRACE gave."""
    return [] if text is None else [_assessment(row) for row in orjson.loads(text)]


def _assessment(row: Sequence[Any]) -> Assessment:
    assessment_id, kind, *others = row
    return Assessment(assessment_id, AssessmentKind(kind), *others)


_NUMBER = """
SELECT count(*) FROM traces t JOIN trace_assessments a ON a.trace = t.id WHERE t.workspace_id = $1 AND t.trace_id = $2
"""


async def check_number(conn: Connection, workspace_id: WorkspaceId, trace_id: str) -> None:
    """That not too much is said of a trace, after some more was. Raises InvalidArgument."""
    number = await conn.fetchval(_NUMBER, workspace_id, trace_id)
    if number > ASSESSMENTS_LIMIT:
        raise InvalidArgument("assessments", f"the trace would have {number}; the limit is {ASSESSMENTS_LIMIT}")


_LOCATE = "SELECT id FROM traces WHERE workspace_id = $1 AND trace_id = $2 FOR KEY SHARE"


async def locate(conn: Connection, workspace_id: WorkspaceId, trace_id: str) -> UUID:
    """A trace that is to be assessed. Raises NotFound."""
    found: UUID | None = await conn.fetchval(_LOCATE, workspace_id, trace_id)
    if found is None:
        raise NotFound("trace", trace_id)
    return found


_ADD = (
    f"INSERT INTO trace_assessments (trace, {_NAMES}) SELECT $1, {_SELECTED} FROM {_unnested(2)}"
    " ON CONFLICT DO NOTHING RETURNING 1"
)
_OVERRIDE = "UPDATE trace_assessments SET valid = false WHERE trace = $1 AND assessment_id = $2 RETURNING 1"


async def add(conn: Connection, trace: UUID, assessment: Assessment) -> None:
    """Says something of a trace. Raises NotFound of what it overrides, AlreadyExists."""
    if assessment.overrides is not None and not await conn.fetchval(_OVERRIDE, trace, assessment.overrides):
        raise NotFound("assessment", assessment.overrides)
    if await conn.fetchval(_ADD, trace, *columns([assessment])) is None:
        raise AlreadyExists("assessment", assessment.assessment_id)


_FIND = f"""
SELECT CASE WHEN a.trace IS NOT NULL THEN json_build_array({", ".join(f"a.{name}" for name in _COLUMNS)}) END
  FROM traces t LEFT JOIN trace_assessments a ON a.trace = t.id AND a.assessment_id = $3
 WHERE t.workspace_id = $1 AND t.trace_id = $2
"""


async def find(conn: Connection, workspace_id: WorkspaceId, trace_id: str, assessment_id: str) -> Assessment:
    """One of a trace. Raises NotFound of the trace, and of the assessment."""
    row = await conn.fetchrow(_FIND, workspace_id, trace_id, assessment_id)
    if row is None or row[0] is None:
        raise NotFound("trace", trace_id) if row is None else NotFound("assessment", assessment_id)
    return _assessment(orjson.loads(row[0]))


_GET = f"SELECT json_build_array({_NAMES}) FROM trace_assessments WHERE trace = $1 AND assessment_id = $2 FOR UPDATE"


async def lock(conn: Connection, trace: UUID, assessment_id: str) -> Assessment:
    """An assessment, which nobody else changes until the transaction ends. Raises NotFound."""
    found = await conn.fetchval(_GET, trace, assessment_id)
    if found is None:
        raise NotFound("assessment", assessment_id)
    return _assessment(orjson.loads(found))


_REPLACE = put_statement("$1::uuid", "", 2)


async def replace(conn: Connection, trace: UUID, assessment: Assessment) -> None:
    """Keeps another state of it."""
    await conn.execute(_REPLACE, trace, *columns([assessment]))


_DROP = "DELETE FROM trace_assessments WHERE trace = $1 AND assessment_id = $2 RETURNING overrides"
_HOLD = "SELECT FROM trace_assessments WHERE trace = $1 AND assessment_id = $2 FOR UPDATE"
_RESTORE = """
UPDATE trace_assessments SET valid = true WHERE trace = $1 AND assessment_id = $2
   AND NOT EXISTS (SELECT FROM trace_assessments other WHERE other.trace = $1 AND other.overrides = $2)
"""


async def drop(conn: Connection, trace: UUID, assessment_id: str) -> None:
    """Takes it back; what it alone overrode is valid again. One that is not there is fine."""
    overridden = await conn.fetchval(_DROP, trace, assessment_id)
    if overridden is not None:
        # A statement of its own: of two that overrode the same and go at once, the second sees that the first is gone.
        await conn.execute(_HOLD, trace, overridden)
        await conn.execute(_RESTORE, trace, overridden)
