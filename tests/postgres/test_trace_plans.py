"""Traces are found by the indexes made for them, and a deep page costs no more than the first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from penstock_server.model.access import WorkspaceId
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.search import parse_traces
from penstock_server.postgres import search_traces, spans, traces
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search_conditions import Parameters

WORKSPACE = WorkspaceId(1)
TABLES = {"traces", "trace_spans", "trace_assessments"}

# Ten experiments of 2,000 traces of two spans; in each experiment one trace of each rare kind.
FILL = """
INSERT INTO experiments (id, workspace_id, name, created_ms, updated_ms)
SELECT e, 1, 'e' || e, 0, 0 FROM generate_series(1, 10) e;
INSERT INTO traces (workspace_id, experiment_id, trace_id, request_ms, execution_ms, state, told, tags, metadata,
                    run_ids)
SELECT 1, 1 + i % 10, 'tr-' || lpad(to_hex(i), 32, '0'), i, i * 7919 % 1000, 'OK', true,
       jsonb_build_object('team', 'team-' || i / 10 % 2000, 'mlflow.traceName', 'agent'),
       jsonb_build_object('mlflow.sourceRun', 'run-' || i / 10 % 2000, 'mlflow.user', 'ann'),
       CASE WHEN i % 100 < 10 THEN ARRAY['linked-' || i / 100] ELSE '{}' END
  FROM generate_series(1, 20000) i;
INSERT INTO trace_spans (trace, span_id, parent_id, name, type, status, status_message, start_ns, end_ns, attributes,
                         events, links)
SELECT id, s, NULL, CASE WHEN request_ms % 500 < 10 THEN 'rare' ELSE 'root' END, 'LLM', 'OK', '', 0, 1,
       '{"model": "gpt"}', '[]', '[]' FROM traces, generate_series(1, 2) s;
INSERT INTO trace_assessments (trace, assessment_id, kind, name, value, source_type, source_id, metadata, valid,
                               created_ms, updated_ms)
SELECT id, 'a-1', 'feedback', 'good', '1', 'HUMAN', 'ann', '{}', true, 0, 0 FROM traces;
VACUUM ANALYZE traces; VACUUM ANALYZE trace_spans; VACUUM ANALYZE trace_assessments;
"""


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


@pytest.fixture
def filled(db: Database, run: Any) -> Database:
    async def fill() -> None:
        async with db.connection() as conn:
            for statement in filter(str.strip, FILL.split(";")):
                await conn.execute(statement)

    run(fill())
    return db


async def used(conn: Connection, sql: str, values: list[Any]) -> tuple[set[str], int]:
    """The indexes that a statement goes by, and how many rows of our tables it reads; it reads none of them whole."""
    plan = json.loads(await conn.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", *values))
    found: set[str] = set()
    read = 0
    for node in nodes(plan[0]["Plan"]):
        ours = node.get("Relation Name") in TABLES
        assert not (ours and node["Node Type"] == "Seq Scan"), sql
        if "Index Name" in node:
            found.add(node["Index Name"])
        if ours:
            read += int((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
    return found, read


NEWEST, BY_TAG = "traces_newest", "traces_tags"
SEARCHES: list[tuple[str, tuple[str, ...], set[str], int]] = [
    ("", (), {NEWEST}, 25),
    ("timestamp > 10000 AND status = 'OK'", (), {NEWEST}, 25),
    ("", ("timestamp_ms ASC",), {NEWEST}, 25),
    ("tags.team = 'team-7'", (), {BY_TAG}, 40),
    ("run_id = 'run-7'", (), {"traces_metadata", "traces_runs"}, 40),
    ("run_id = 'linked-7'", (), {"traces_metadata", "traces_runs"}, 40),
    ("metadata.`mlflow.sourceRun` = 'run-7' AND name = 'agent'", (), {"traces_metadata"}, 40),
    ("span.name = 'root'", (), {NEWEST, "trace_spans_pkey"}, 60),
]


async def test_searches(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, list[object]]] = []
    fetch = search_traces.fetch

    async def recorded(conn: Connection, sql: str, parameters: Parameters) -> Any:
        made.append((sql, parameters.values))
        return await fetch(conn, sql, parameters)

    monkeypatch.setattr(search_traces, "fetch", recorded)
    for filter_text, order, indexes, most in SEARCHES:
        experiments = [ExperimentId(3), ExperimentId(4)] if order else [ExperimentId(3)]
        query = parse_traces(filter_text, order)
        token = ""
        async with filled.transaction() as conn:
            for _ in range(2):  # the second page costs no more
                found, token = await search_traces.search_traces(conn, WORKSPACE, experiments, query, 10, token)
                assert found
                by, read = await used(conn, *made[-1])
                assert indexes <= by, (filter_text, by)
                assert read <= most * len(experiments), (filter_text, read)
                if not token:
                    break


async def test_traces_and_spans_are_read_by_their_ids(filled: Database) -> None:
    wanted = [f"tr-{number:032x}" for number in (7, 8, 9)]
    async with filled.connection() as conn:
        by, read = await used(conn, traces._LOAD, [WORKSPACE, wanted, None])
        assert ({"traces_workspace_id_trace_id_key", "trace_assessments_pkey"} <= by, read) == (True, 6)
        by, read = await used(conn, spans._LOAD, [WORKSPACE, wanted])
        assert ("trace_spans_pkey" in by, read) == (True, 9)


async def test_the_oldest_are_removed_without_looking_at_the_others(filled: Database) -> None:
    async with filled.transaction() as conn:
        by, read = await used(conn, traces._DROP, [WORKSPACE, 3, 15_000, None, 10])
    assert NEWEST in by
    assert read <= 100
