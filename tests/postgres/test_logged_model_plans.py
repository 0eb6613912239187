"""What is asked of logged models and of runs' inputs again and again goes by the indexes made for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from penstock_server.model.access import WorkspaceId
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.logged_models import DatasetFilter
from penstock_server.model.search import parse_logged_models
from penstock_server.model.search_tree import Entity, Field, Order, Type
from penstock_server.postgres import datasets, logged_models, search_logged_models
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search_conditions import Parameters

WORKSPACE = WorkspaceId(1)

# Ten experiments of 1,000 models, with three metrics of two points each and with params and tags; as many runs.
FILL = """
INSERT INTO experiments (id, workspace_id, name, created_ms, updated_ms)
SELECT e, 1, 'e' || e, 0, 0 FROM generate_series(1, 10) e;
INSERT INTO logged_models (id, workspace_id, experiment_id, name, source_run_id, created_ms, updated_ms)
SELECT md5(i::text)::uuid, 1, 1 + i % 10, 'model-' || i / 10 % 200, md5('run' || i / 20), i, i
FROM generate_series(1, 10000) i;
INSERT INTO logged_model_params (model_id, workspace_id, experiment_id, key, value)
SELECT id, 1, experiment_id, k, (created_ms / 10 % 500)::text FROM logged_models, unnest(ARRAY['lr', 'seed']) k;
INSERT INTO logged_model_tags (model_id, workspace_id, experiment_id, key, value)
SELECT id, 1, experiment_id, 'team', 'team-' || created_ms / 10 % 400 FROM logged_models;
INSERT INTO logged_model_metrics
       (model_id, workspace_id, experiment_id, run_id, key, time_ms, step, value, dataset_name)
SELECT id, 1, experiment_id, md5('run' || created_ms)::uuid, k, s, s, (created_ms * 7 % 10007) / 10007.0, 'd' || s
FROM logged_models, unnest(ARRAY['acc', 'loss', 'f1']) k, generate_series(1, 2) s;
INSERT INTO runs (id, workspace_id, experiment_id, name, status, start_ms, created_ms, updated_ms)
SELECT id, 1, experiment_id, 'r', 1, created_ms, 0, 0 FROM logged_models;
INSERT INTO datasets (experiment_id, name, digest, workspace_id, source_type, source)
SELECT e, 'd', i, 1, '', '' FROM generate_series(1, 10) e, generate_series(1, 1000) i;
INSERT INTO run_datasets (run_id, workspace_id, experiment_id, name, digest, tag_keys, tag_values)
SELECT id, 1, experiment_id, 'd', 1 + created_ms % 1000, '{}', '{}' FROM logged_models;
INSERT INTO run_models (run_id, workspace_id, output, model_id) SELECT id, 1, true, 'm-' || id FROM logged_models;
VACUUM ANALYZE logged_models; VACUUM ANALYZE logged_model_params; VACUUM ANALYZE logged_model_tags;
VACUUM ANALYZE logged_model_metrics; VACUUM ANALYZE datasets; VACUUM ANALYZE run_datasets; VACUUM ANALYZE run_models;
"""


@pytest.fixture
def filled(db: Database, run: Any) -> Database:
    async def fill() -> None:
        async with db.connection() as conn:
            for statement in filter(str.strip, FILL.split(";")):
                await conn.execute(statement)

    run(fill())
    return db


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


async def check(conn: Connection, indexes: set[str], sql: str, *values: object) -> dict[str, Any]:
    """That a statement uses these, and reads no table as a whole. Its plan, as it was carried out."""
    plan = json.loads(await conn.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *values))[0]["Plan"]
    used = {node.get("Index Name", "") for node in nodes(plan)}
    whole = [node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"]
    assert indexes <= used, (sql, used)
    assert set(whole) <= {"experiments"}, (sql, whole)
    return plan


ACC = Field(Entity.METRIC, "acc", Type.NUMBER)
NEWEST, LAST = "logged_models_newest", "logged_model_metrics_latest"
SEARCHES: list[tuple[str, list[tuple[Order, DatasetFilter]], set[str]]] = [
    ("", [], {NEWEST}),
    ("name = 'model-7'", [], {"logged_models_name"}),
    ("source_run_id = '{run}'", [], {"logged_models_run"}),
    ("metrics.acc > 0.99", [], {"logged_model_metrics_search", "logged_models_pkey"}),
    ("params.seed = '42'", [], {"logged_model_params_search", "logged_models_pkey"}),
    ("tags.team = 'team-7'", [], {"logged_model_tags_search", "logged_models_pkey"}),
    ("params.seed = '42'", [(Order(ACC, descending=True), DatasetFilter("d1"))], {"logged_model_params_search", LAST}),
]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[object]]]:
    """The statements of searches, as they come."""
    statements: list[tuple[str, list[object]]] = []
    fetch = search_logged_models.fetch

    async def recorded(conn: Connection, sql: str, parameters: Parameters) -> Any:
        statements.append((sql, parameters.values))
        return await fetch(conn, sql, parameters)

    monkeypatch.setattr(search_logged_models, "fetch", recorded)
    return statements


async def test_searches_go_by_index(filled: Database, made: list[tuple[str, list[object]]]) -> None:
    async with filled.connection() as conn:
        run_id = await conn.fetchval("SELECT source_run_id FROM logged_models WHERE created_ms = 7002")
        for text, order, indexes in SEARCHES:
            where = parse_logged_models(text.format(run=run_id)).where
            made.clear()
            found, _ = await search_logged_models.search_logged_models(
                conn, WORKSPACE, [ExperimentId(3)], where, order, [], 1, ""
            )
            assert found, text
            [(sql, values)] = made
            await check(conn, indexes, sql, *values)


async def test_a_deep_page_costs_what_the_first_does(filled: Database, made: list[tuple[str, list[object]]]) -> None:
    async with filled.connection() as conn:
        token = ""
        for limit in (1, 900, 1):
            made.clear()
            _, token = await search_logged_models.search_logged_models(
                conn, WORKSPACE, [ExperimentId(3)], None, [], [], limit, token
            )
        [(sql, values)] = made
        plan = await check(conn, {NEWEST}, sql, *values)
        assert all(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= 3 for node in nodes(plan)), plan


async def test_one_model_and_the_inputs_of_runs_are_found_by_their_keys(filled: Database) -> None:
    async with filled.connection() as conn:
        ids = [row[0] for row in await conn.fetch("SELECT id FROM logged_models WHERE created_ms < 5")]
        of_model = {"logged_models_pkey", LAST, "logged_model_params_pkey", "logged_model_tags_pkey"}
        await check(conn, of_model, logged_models._LOAD, WORKSPACE, ids[:1], False)
        for run_ids in (ids[:1], ids):
            await check(conn, {"run_datasets_pkey", "run_models_pkey"}, datasets._OF_RUNS, run_ids, WORKSPACE)
        known = [3, 4], ["d", "d"], ["7", "8"]
        await check(conn, {"datasets_pkey"}, datasets._DATASETS, *known)
        await check(conn, set(), datasets._SUMMARIES, WORKSPACE, [3])
