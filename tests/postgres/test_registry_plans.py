"""Searches of models and versions go by the indexes made for them, and a deep page costs no more than the first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from penstock_server.model.access import WorkspaceId
from penstock_server.model.search import parse_models, parse_versions
from penstock_server.postgres import model_versions, registry, search_registry
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search_conditions import Parameters
from penstock_server.postgres.search_registry import search_models, search_versions

WORKSPACE = WorkspaceId(1)

# 4,000 models of five versions, the last of each in production and champion, but of a few.
FILL = """
INSERT INTO registered_models (workspace_id, name, created_by, created_ms, updated_ms)
SELECT 1, 'team-' || i % 50 || '-model-' || i, 'ann', i, i * 7919 % 4000 FROM generate_series(1, 4000) i;
INSERT INTO registered_model_tags (model_id, workspace_id, key, value)
SELECT id, 1, 'owner', 'owner-' || id % 400 FROM registered_models;
INSERT INTO model_versions (model_id, workspace_id, version, run_id, source, status, stage, created_by, created_ms,
                            updated_ms)
SELECT m.id, 1, v, md5(m.id || '/' || v)::uuid, 's3://' || m.name || '/' || v, 2,
       CASE WHEN v = 5 THEN 3 WHEN v = 1 AND m.id % 80 = 0 THEN 2 ELSE 1 END, 'ann',
       m.id * 31 % 4000, v * 4000 + m.id * 7919 % 4000
FROM registered_models m, generate_series(1, 5) v;
INSERT INTO model_version_tags (version_id, workspace_id, key, value)
SELECT id, 1, k, k || id % 400 FROM model_versions, unnest(ARRAY['dataset', 'note']) k;
INSERT INTO model_aliases (model_id, workspace_id, alias, version_id, moved_by, moved_ms)
SELECT model_id, 1, CASE WHEN model_id % 400 = 0 THEN 'rare' ELSE 'champion' END, id, 'ann', 0
FROM model_versions WHERE version = 5;
VACUUM ANALYZE registered_models; VACUUM ANALYZE registered_model_tags; VACUUM ANALYZE model_versions;
VACUUM ANALYZE model_version_tags; VACUUM ANALYZE model_aliases;
"""


@pytest.fixture
def filled(db: Database, run: Any) -> Database:
    async def fill() -> None:
        async with db.connection() as conn:
            for statement in filter(str.strip, FILL.split(";")):
                await conn.execute(statement)

    run(fill())
    return db


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[object]]]:
    """The statements of searches, as they come."""
    statements: list[tuple[str, list[object]]] = []
    fetch = search_registry.fetch

    async def recorded(conn: Connection, sql: str, parameters: Parameters) -> Any:
        statements.append((sql, parameters.values))
        return await fetch(conn, sql, parameters)

    monkeypatch.setattr(search_registry, "fetch", recorded)
    return statements


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


BY_NAME = "registered_models_workspace_id_name_key"
NEWEST = "model_versions_newest"


# The filter, the order, and the indexes by which it is answered.
Asked = tuple[str, list[str], set[str]]
NO_PROMPT = "NOT tags.`mlflow.prompt.is_prompt` = 'true'"  # of all that MLflow's clients ask
VERSIONS: list[Asked] = [
    ("", [], {NEWEST}),
    ("", ["creation_time DESC"], {"model_versions_created"}),
    ("", ["name", "version DESC"], {BY_NAME}),
    ("name = 'team-7-model-7'", [], {BY_NAME}),
    ("name LIKE 'team-7-%'", ["name"], {BY_NAME}),
    ("tags.dataset = 'dataset7'", [], {"model_version_tags_search", "model_versions_pkey"}),
    ("run_id = '{run}'", [], {"model_versions_run"}),
    ("source = 's3://team-7-model-7/3'", [], {"model_versions_source"}),
    ("source LIKE 's3://team-7-model-7/%'", ["version"], {"model_versions_source"}),
    ("source IN ('s3://team-7-model-7/3', 'x')", [], {"model_versions_source"}),
    ("source_path LIKE 's3://team-7-model-7/%'", [], {"model_versions_source_path"}),
    ("stage = 'Staging'", [], {"model_versions_stage"}),
    ("alias = 'rare'", [], {"model_aliases_search", "model_versions_pkey"}),
    ("NOT alias = 'rare' AND created_by = 'ann'", [], {NEWEST}),
    (NO_PROMPT, [], {NEWEST}),
]
MODELS: list[Asked] = [
    (NO_PROMPT, [], {BY_NAME}),
    ("", [], {BY_NAME}),
    ("", ["last_update_time DESC"], {"registered_models_newest"}),
    ("name LIKE 'team-7-%'", [], {BY_NAME}),
    ("tags.owner = 'owner-7'", [], {"registered_model_tags_search", "registered_models_pkey"}),
    ("alias = 'rare'", [], {"model_aliases_search", "registered_models_pkey"}),
    ("run_id = '{run}'", [], {"model_versions_run", "registered_models_pkey"}),
    ("source LIKE 's3://team-7-model-7/%'", [], {"model_versions_source", "registered_models_pkey"}),
]


async def test_searches_go_by_index(filled: Database, made: list[tuple[str, list[object]]]) -> None:
    async with filled.connection() as conn:
        run_id = await conn.fetchval("SELECT replace(run_id::text, '-', '') FROM model_versions WHERE id = 7")
        for text, order, indexes in VERSIONS:
            found, _ = await search_versions(conn, WORKSPACE, parse_versions(text.format(run=run_id), order), 10, "")
            assert found
            await check(conn, made, indexes)
        for text, order, indexes in MODELS:
            of_models, _ = await search_models(conn, WORKSPACE, parse_models(text.format(run=run_id), order), 10, "")
            assert of_models
            await check(conn, made, indexes)


async def check(conn: Connection, made: list[tuple[str, list[object]]], indexes: set[str]) -> None:
    """That the one statement that was made uses these, and reads no table as a whole."""
    [(sql, values)] = made
    made.clear()
    plan = json.loads(await conn.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *values))
    used = list(nodes(plan[0]["Plan"]))
    assert not [node for node in used if node["Node Type"] == "Seq Scan"], plan
    assert indexes <= {node.get("Index Name") for node in used}, plan


async def test_a_model_is_found_by_one_statement(filled: Database) -> None:
    """MLflow's clients ask for a model before each change of it."""
    asked: list[Any] = []
    async with filled.connection() as conn:
        await registry.load_one(conn, WORKSPACE, "team-7-model-7")  # the first time, asyncpg asks about types, too
        with conn.query_logger(asked.append):
            found = await registry.load_one(conn, WORKSPACE, "team-7-model-7")
            await asyncio.sleep(0)  # the logger comes to it
        assert [each.version for each in found.latest] == [4, 5]
        assert (found.tags, found.aliases) == ({"owner": "owner-7"}, {"champion": 5})
        [logged] = asked
        indexes = {BY_NAME, "model_versions_latest", "registered_model_tags_pkey", "model_aliases_pkey"}
        await check(conn, [(logged.query, logged.args)], indexes)


async def test_a_deep_page_costs_what_the_first_does(filled: Database, made: list[tuple[str, list[object]]]) -> None:
    async with filled.connection() as conn:
        for text, order in (("", []), ("", ["creation_time"]), ("", ["name"]), ("tags.dataset != 'dataset7'", [])):
            query = parse_versions(text, order)
            token = ""
            for _ in range(4):
                _, token = await search_versions(conn, WORKSPACE, query, 4000, token)
            made.clear()
            await search_versions(conn, WORKSPACE, query, 10, token)
            [(sql, values)] = made
            answer = json.loads(await conn.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *values))
            plan = answer[0]["Plan"]
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200, answer


async def test_a_page_is_loaded_by_as_many_statements_as_one_thing(filled: Database) -> None:
    asked: list[str] = []

    async def statements(count: int) -> tuple[int, int]:
        async with filled.connection() as conn:
            models, _ = await search_models(conn, WORKSPACE, parse_models(""), count, "")
            versions, _ = await search_versions(conn, WORKSPACE, parse_versions(""), count, "")
            with conn.query_logger(lambda logged: asked.append(logged.query)):
                assert len(await registry.load(conn, WORKSPACE, models)) == count
                of_models = len(asked)
                assert len(await model_versions.load(conn, WORKSPACE, versions)) == count
            taken = of_models, len(asked) - of_models
            asked.clear()
            return taken

    await statements(1)  # the first time, asyncpg asks about types, too
    assert await statements(1) == await statements(300)
