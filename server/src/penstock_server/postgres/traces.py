"""Traces in PostgreSQL, but for their spans and what is said of them. A trace is written by one statement.

Nothing is held of its experiment: what commits while that is being deleted came before the deletion.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import UUID

import asyncpg
import orjson

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import InvalidArgument, NotFound
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.traces import Trace, TraceState
from penstock_server.postgres import assessments
from penstock_server.postgres.database import Connection, Row
from penstock_server.postgres.documents import document


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, a trace whose tags or metadata become too many is refused: InvalidArgument."""
    try:
        yield
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != "traces_fit":
            raise
        raise InvalidArgument("tags", "or metadata of the trace would have more than 1 MiB") from None


# What was not told stays; of tags and metadata those of the same key are replaced.
_PUT = f"""
WITH put AS (
    INSERT INTO traces AS t (workspace_id, experiment_id, trace_id, request_ms, execution_ms, state, told,
                             client_request_id, request_preview, response_preview, tags, metadata)
    SELECT e.workspace_id, e.id, $3, $4, $5, $6, $7, $8, $9, $10, $11::jsonb, $12::jsonb
      FROM experiments e WHERE e.workspace_id = $1 AND e.id = $2 AND e.lifecycle = 1
    ON CONFLICT (workspace_id, trace_id) DO UPDATE SET
        experiment_id = excluded.experiment_id, request_ms = excluded.request_ms,
        execution_ms = excluded.execution_ms, state = excluded.state, told = t.told OR excluded.told,
        client_request_id = excluded.client_request_id,
        request_preview = coalesce(excluded.request_preview, t.request_preview),
        response_preview = coalesce(excluded.response_preview, t.response_preview),
        tags = t.tags || excluded.tags, metadata = t.metadata || excluded.metadata
    RETURNING id, xmax = 0 AS fresh),
said AS ({assessments.put_statement("put.id", "put, ", 13)})
SELECT put.fresh, e.artifact_location FROM put, experiments e WHERE e.id = $2
"""  # noqa: S608  # only constants are put together


async def put(conn: Connection, workspace_id: WorkspaceId, trace: Trace) -> tuple[bool, str] | None:
    """Keeps what a client tells of a trace: whether nothing was known of it, and its experiment's location.

    None: no active experiment.
    """
    with bounded():
        made = await conn.fetchrow(
            _PUT,
            workspace_id,
            trace.experiment_id,
            trace.trace_id,
            trace.request_ms,
            trace.execution_ms,
            trace.state.name,
            trace.told,
            trace.client_request_id,
            trace.request_preview,
            trace.response_preview,
            document(trace.tags),
            document(trace.metadata),
            *assessments.columns(trace.assessments),
        )
    return None if made is None else (made[0], made[1])


_FIELDS = f"""t.trace_id, t.experiment_id, t.request_ms, t.execution_ms, t.state, t.client_request_id,
       t.request_preview, t.response_preview, t.tags, t.metadata, t.told, e.artifact_location, {assessments.OF_TRACE}"""
_LOAD = f"""
SELECT {_FIELDS}
  FROM unnest($2::text[]) WITH ORDINALITY AS wanted (trace_id, position)
  JOIN traces t ON t.workspace_id = $1 AND t.trace_id = wanted.trace_id JOIN experiments e ON e.id = t.experiment_id
 WHERE $3::bigint[] IS NULL OR t.experiment_id = ANY($3) ORDER BY wanted.position
"""  # noqa: S608  # only constants are put together


async def load(
    conn: Connection,
    workspace_id: WorkspaceId,
    trace_ids: Sequence[str],
    within: Collection[ExperimentId] | None = None,
) -> list[Trace]:
    """These traces, in this order, without those that do not exist or are in no experiment of `within`."""
    rows = await conn.fetch(_LOAD, workspace_id, trace_ids, None if within is None else list(within))
    return [_trace(row) for row in rows]


def _trace(row: Row) -> Trace:
    trace_id, experiment_id, begin, took, state, client, request, response, tags, metadata, told, place, said = row
    return Trace(
        trace_id,
        experiment_id,
        begin,
        took,
        TraceState[state],
        client,
        request,
        response,
        orjson.loads(tags),
        orjson.loads(metadata),
        told,
        place,
        assessments.parsed(said),
    )


_END = """
UPDATE traces SET execution_ms = greatest($3 - request_ms, 0), state = $4, tags = tags || $5::jsonb,
                  metadata = metadata || $6::jsonb
 WHERE workspace_id = $1 AND trace_id = $2 RETURNING id
"""


async def end(
    conn: Connection,
    workspace_id: WorkspaceId,
    trace_id: str,
    end_ms: int,
    state: TraceState,
    tags: Mapping[str, str],
    metadata: Mapping[str, str],
) -> None:
    """A trace has ended. Raises NotFound."""
    arguments = (end_ms, state.name, document(tags), document(metadata))
    with bounded():
        if await conn.fetchval(_END, workspace_id, trace_id, *arguments) is None:
            raise NotFound("trace", trace_id)


_SET_TAG = """
UPDATE traces SET tags = tags || jsonb_build_object($3::text, $4::text) WHERE workspace_id = $1 AND trace_id = $2
RETURNING id
"""


async def set_tag(conn: Connection, workspace_id: WorkspaceId, trace_id: str, key: str, value: str) -> None:
    """Sets a tag. Raises NotFound of the trace."""
    with bounded():
        if await conn.fetchval(_SET_TAG, workspace_id, trace_id, key, value) is None:
            raise NotFound("trace", trace_id)


_DROP_TAG = """
WITH had AS (SELECT id, tags ? $3 AS had FROM traces WHERE workspace_id = $1 AND trace_id = $2 FOR UPDATE)
UPDATE traces t SET tags = t.tags - $3 FROM had WHERE t.id = had.id RETURNING had.had
"""


async def drop_tag(conn: Connection, workspace_id: WorkspaceId, trace_id: str, key: str) -> None:
    """Removes a tag. Raises NotFound of the trace, and of the tag."""
    had = await conn.fetchval(_DROP_TAG, workspace_id, trace_id, key)
    if not had:
        raise NotFound("trace", trace_id) if had is None else NotFound("trace tag", key)


_LINK = """
UPDATE traces SET {column} = {column} || ARRAY(SELECT unnest($3::text[]) EXCEPT SELECT unnest({column}))
 WHERE id = ANY(ARRAY(SELECT id FROM traces WHERE workspace_id = $1 AND trace_id = ANY($2) AND NOT {column} @> $3
                       ORDER BY trace_id FOR UPDATE))
"""
_LINK_RUN, _LINK_PROMPTS = _LINK.format(column="run_ids"), _LINK.format(column="prompts")


async def link_run(conn: Connection, workspace_id: WorkspaceId, trace_ids: Sequence[str], run_id: str) -> None:
    """Links those traces that there are to a run."""
    await conn.execute(_LINK_RUN, workspace_id, trace_ids, [run_id])


async def link_prompts(conn: Connection, workspace_id: WorkspaceId, trace_id: str, prompts: Sequence[str]) -> None:
    """Links a trace to versions of prompts, written name/version. Raises NotFound."""
    if await conn.fetchval("SELECT id FROM traces WHERE workspace_id = $1 AND trace_id = $2", workspace_id, trace_id):
        await conn.execute(_LINK_PROMPTS, workspace_id, [trace_id], prompts)
    else:
        raise NotFound("trace", trace_id)


# Chosen by their age, but locked in the order in which all lock traces, so that nobody waits in a circle. What another
# experiment has meanwhile stays.
_DROP = """
DELETE FROM traces WHERE id = ANY(ARRAY(
    SELECT id FROM traces WHERE experiment_id = $2 AND id = ANY(ARRAY(
        SELECT id FROM traces
         WHERE workspace_id = $1 AND experiment_id = $2 AND ($3::bigint IS NULL OR request_ms <= $3)
           AND ($4::text[] IS NULL OR trace_id = ANY($4)) ORDER BY request_ms, trace_id LIMIT $5))
     ORDER BY trace_id FOR UPDATE))
RETURNING id
"""


async def drop(
    conn: Connection,
    workspace_id: WorkspaceId,
    experiment_id: ExperimentId,
    until_ms: int | None,
    trace_ids: Sequence[str] | None,
    limit: int,
) -> list[UUID]:
    """Removes traces of an experiment, the oldest first, and returns by what their files are known."""
    return [row[0] for row in await conn.fetch(_DROP, workspace_id, experiment_id, until_ms, trace_ids, limit)]


_DROP_DELETED = """
DELETE FROM traces WHERE id = ANY(ARRAY(
    SELECT id FROM traces WHERE experiment_id = $1 AND id = ANY(ARRAY(
        SELECT t.id FROM traces t JOIN experiments e ON e.id = t.experiment_id AND e.workspace_id = t.workspace_id
         WHERE e.id = $1 AND e.lifecycle = 2 AND e.updated_ms < $2 LIMIT $3))
     ORDER BY trace_id FOR UPDATE))
RETURNING id
"""


async def drop_of_deleted(conn: Connection, experiment_id: ExperimentId, before_ms: int, limit: int) -> list[UUID]:
    """Removes traces of an experiment that was deleted before that time; returns by what their files are known."""
    return [row[0] for row in await conn.fetch(_DROP_DELETED, experiment_id, before_ms, limit)]
