"""Spans of traces in PostgreSQL: an export is one statement, with the traces that it begins or goes on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from penstock_server.model.access import WorkspaceId
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.traces import Span, SpanStatus, Trace
from penstock_server.postgres.database import Connection
from penstock_server.postgres.documents import document
from penstock_server.postgres.traces import bounded

# The traces in order, so that two exports never wait for each other; who has a trace's row has its spans. What a client
# told of a trace stays as it is, but for the end of one that was still going on.
_PUT = """
WITH put AS (
    INSERT INTO traces AS t (workspace_id, experiment_id, trace_id, request_ms, execution_ms, state, told,
                             request_preview, response_preview, tags, metadata)
    SELECT e.workspace_id, e.id, g.trace_id, g.request_ms, g.execution_ms, g.state, false,
           g.request_preview, g.response_preview, g.tags::jsonb, g.metadata::jsonb
      FROM experiments e,
           unnest($3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
               AS g (trace_id, request_ms, execution_ms, state, request_preview, response_preview, tags, metadata)
     WHERE e.workspace_id = $1 AND e.id = $2 AND e.lifecycle = 1 ORDER BY g.trace_id
    ON CONFLICT (workspace_id, trace_id) DO UPDATE SET
        request_ms = CASE WHEN t.told THEN t.request_ms ELSE least(t.request_ms, excluded.request_ms) END,
        execution_ms = CASE WHEN t.told THEN t.execution_ms ELSE
            greatest(t.request_ms + t.execution_ms, excluded.request_ms + excluded.execution_ms)
            - least(t.request_ms, excluded.request_ms) END,
        state = CASE WHEN t.state IN ('IN_PROGRESS', 'STATE_UNSPECIFIED') AND excluded.state <> 'IN_PROGRESS'
                     THEN excluded.state ELSE t.state END,
        request_preview = coalesce(t.request_preview, excluded.request_preview),
        response_preview = coalesce(t.response_preview, excluded.response_preview),
        tags = t.tags || excluded.tags, metadata = excluded.metadata || t.metadata
    RETURNING id, trace_id),
spans AS (
    INSERT INTO trace_spans (trace, span_id, parent_id, name, type, status, status_message, start_ns, end_ns,
                             attributes, events, links)
    SELECT put.id, s.span_id, s.parent_id, s.name, s.type, s.status, s.status_message, s.start_ns, s.end_ns,
           s.attributes::json, s.events::json, s.links::json
      FROM unnest($11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[],
                  $18::bigint[], $19::bigint[], $20::text[], $21::text[], $22::text[])
               AS s (trace_id, span_id, parent_id, name, type, status, status_message, start_ns, end_ns, attributes,
                     events, links)
      JOIN put USING (trace_id)
    ON CONFLICT (trace, span_id) DO UPDATE SET
        parent_id = excluded.parent_id, name = excluded.name, type = excluded.type, status = excluded.status,
        status_message = excluded.status_message, start_ns = excluded.start_ns, end_ns = excluded.end_ns,
        attributes = excluded.attributes, events = excluded.events, links = excluded.links)
SELECT EXISTS (SELECT FROM put)
"""


async def put(
    conn: Connection,
    workspace_id: WorkspaceId,
    experiment_id: ExperimentId,
    traces: Sequence[Trace],
    spans: Sequence[Span],
) -> bool:
    """Keeps spans, each once, and their traces, as they follow from these spans. False: no active experiment."""
    rows = [
        (
            trace.trace_id,
            trace.request_ms,
            trace.execution_ms,
            trace.state.name,
            trace.request_preview,
            trace.response_preview,
            document(trace.tags),
            document(trace.metadata),
        )
        for trace in traces
    ]
    steps = [
        (
            span.trace_id,
            span.span_id,
            span.parent_id,
            span.name,
            span.type,
            span.status.name,
            span.status_message,
            span.start_ns,
            span.end_ns,
            document(span.attributes),
            document(span.events),
            document(span.links),
        )
        for span in spans
    ]
    columns = [list(column) for column in (*zip(*rows, strict=True), *zip(*steps, strict=True))]
    with bounded():
        done: bool = await conn.fetchval(_PUT, workspace_id, experiment_id, *columns)
    return done


_SIZE = """
SELECT coalesce(sum(octet_length(s.attributes::text) + octet_length(s.events::text) + octet_length(s.links::text)),
                0)::bigint
  FROM traces t JOIN trace_spans s ON s.trace = t.id WHERE t.workspace_id = $1 AND t.trace_id = ANY($2)
"""


async def size(conn: Connection, workspace_id: WorkspaceId, trace_ids: Sequence[str]) -> int:
    """How many bytes the spans of these traces have, about."""
    found: int = await conn.fetchval(_SIZE, workspace_id, trace_ids)
    return found


_LOAD = """
SELECT t.trace_id, s.span_id, s.parent_id, s.name, s.type, s.status, s.status_message, s.start_ns, s.end_ns,
       s.attributes, s.events, s.links
  FROM traces t JOIN trace_spans s ON s.trace = t.id
 WHERE t.workspace_id = $1 AND t.trace_id = ANY($2) ORDER BY s.parent_id IS NOT NULL, s.start_ns, s.span_id
"""


async def load(conn: Connection, workspace_id: WorkspaceId, trace_ids: Sequence[str]) -> Mapping[str, list[Span]]:
    """The spans of these traces: the root first, then as they began."""
    found: dict[str, list[Span]] = {}
    for row in await conn.fetch(_LOAD, workspace_id, trace_ids):
        trace_id, span_id, parent_id, name, kind, status, message, start, end, attributes, events, links = row
        span = Span(
            trace_id,
            span_id,
            parent_id,
            name,
            kind,
            SpanStatus[status],
            message,
            start,
            end,
            orjson.loads(attributes),
            orjson.loads(events),
            orjson.loads(links),
        )
        found.setdefault(trace_id, []).append(span)
    return found
