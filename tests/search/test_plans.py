"""The hot searches find their rows by the indexes made for them; no plan reads a whole table of many experiments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from penstock_server.model.access import WorkspaceId
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.lifecycle import View
from penstock_server.model.search import parse_runs
from penstock_server.postgres import search
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search_conditions import Parameters

# Ten experiments of 2,000 runs.
FILL = """
INSERT INTO experiments (id, workspace_id, name, created_ms, updated_ms)
SELECT e, 1, 'e' || e, 0, 0 FROM generate_series(1, 10) e;
INSERT INTO runs (id, workspace_id, experiment_id, name, status, parent_run_id, start_ms, created_ms, updated_ms)
SELECT lpad(to_hex(i), 32, '0')::uuid, 1, 1 + i % 10, 'r' || i, 1, lpad(to_hex(i / 100), 32, '0')::uuid, i, 0, 0
FROM generate_series(1, 20000) i;
INSERT INTO run_metrics (run_id, workspace_id, experiment_id, metric_id, name, count, last_value)
SELECT id, 1, experiment_id, m, (ARRAY['acc', 'loss', 'lr'])[1 + m], 1, (start_ms * (7 + m) % 1000) / 1000.0
FROM runs, generate_series(0, 2) m;
INSERT INTO run_params (run_id, workspace_id, experiment_id, key, value)
SELECT id, 1, experiment_id, k, (start_ms / 10 % CASE k WHEN 'lr' THEN 4 ELSE 500 END)::text
FROM runs, unnest(ARRAY['lr', 'seed']) k;
INSERT INTO run_tags (run_id, workspace_id, experiment_id, key, value)
SELECT id, 1, experiment_id, 'team', 'team-' || start_ms / 10 % 5 FROM runs;
INSERT INTO run_datasets (run_id, workspace_id, experiment_id, name, digest, context, tag_keys, tag_values)
SELECT id, 1, experiment_id, 'set-' || start_ms / 10 % 500, d, d, '{}', '{}' FROM runs, unnest(ARRAY['one', 'two']) d;
VACUUM ANALYZE run_datasets;
VACUUM ANALYZE runs; VACUUM ANALYZE run_metrics; VACUUM ANALYZE run_params; VACUUM ANALYZE run_tags;
"""
_PARENT = f"{7:032x}"
_CHILDREN = (
    f"tags.mlflow.parentRunId = '{_PARENT}' OR (tags.mlflow.parentRunId IS NULL AND parent_run_id = '{_PARENT}')"
)
TABLES = {"runs", "run_metrics", "run_params", "run_tags", "run_datasets"}


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


async def test_hot_searches_go_by_index(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    # A hundredth of the data that the thresholds are made for.
    for name, value in {"_FEW": 100, "_FIRST_STRETCH": 50, "_WALK": 300, "_FEW_IN_COMMON": 300}.items():
        monkeypatch.setattr(search, name, value)
    made: list[tuple[str, list[object]]] = []
    fetch = search.fetch

    async def recorded(conn: Connection, sql: str, parameters: Parameters) -> Any:
        made.append((sql, parameters.values))
        return await fetch(conn, sql, parameters)

    monkeypatch.setattr(search, "fetch", recorded)
    metrics, params, newest = "run_metrics_search", "run_params_search", "runs_newest"
    by_id = "run_metrics_run_id_name_key"
    hot: list[tuple[str, list[str], set[str]]] = [
        ("metrics.acc > 0.5 AND params.lr = '1'", ["metrics.acc DESC"], {metrics, "run_params_pkey", "runs_pkey"}),
        ("metrics.acc > 0.5 AND params.lr = '1'", ["metrics.loss"], {metrics, by_id, "run_params_pkey"}),
        ("metrics.acc > 0.5 AND params.lr = '1'", [], {newest, by_id, "run_params_pkey"}),
        ("params.seed = '42'", ["metrics.acc DESC"], {params, "runs_pkey", by_id}),
        ("metrics.acc > 0.99", ["metrics.loss"], {metrics, "runs_pkey", by_id}),
        ("tags.team LIKE 'team-3%'", ["metrics.acc"], {"run_tags_search", metrics, "run_tags_pkey"}),
        ("", ["metrics.acc DESC"], {metrics, "runs_pkey"}),
        ("", ["params.seed"], {params, "runs_pkey"}),
        ("", [], {newest}),
        ("datasets.name = 'set-42'", ["metrics.acc"], {"run_datasets_name", "runs_pkey", by_id}),
        ("datasets.context = 'one'", [], {newest, "run_datasets_pkey"}),
        ("metrics.acc > 0.998 OR params.seed = '42'", ["metrics.acc"], {metrics, params, "runs_pkey"}),
        # the children of a run, as MLflow's clients ask for them
        (_CHILDREN, [], {"run_tags_search", "runs_children", "runs_pkey"}),
    ]
    async with filled.connection() as conn:
        for filter_text, order, indexes in hot:
            made.clear()
            query = parse_runs(filter_text, order)
            found, _ = await search.search_runs(conn, WorkspaceId(1), [ExperimentId(3)], query, View.ACTIVE, 10, "")
            assert found
            used: set[str] = set()
            for sql, values in made:
                plan = json.loads(await conn.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *values))
                for node in nodes(plan[0]["Plan"]):
                    read_whole = node["Node Type"] == "Seq Scan" and node.get("Relation Name") in TABLES
                    assert not read_whole, (filter_text, order, sql)
                    used.add(node.get("Index Name", ""))
            assert indexes <= used, (filter_text, order, used)
