"""What PostgreSQL answers of models and versions is what plain Python answers, page by page."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from oracle import Thing, answer
from trees import conditions, orders

from penstock_server.model import pages
from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import InvalidPageToken
from penstock_server.model.lifecycle import Lifecycle, View
from penstock_server.model.registry import Stage, VersionStatus
from penstock_server.model.search import MODEL_VERSIONS, MODELS, Query, parse_models, parse_versions
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search_registry import search_models, search_versions

WORKSPACE = WorkspaceId(1)
LONG = "x" * 128
TEXTS = ["", "a", "A", "ab", "a%", "x%", "\\", "水", "R", LONG, LONG + "1", LONG + "2"]

keys = st.sampled_from(["a", "b"])
texts = st.sampled_from(TEXTS)
numbers = st.just(0.0)
tags = st.dictionaries(keys, texts)
versions = st.fixed_dictionaries(
    {
        "run": st.none() | st.integers(0, 3),
        "path": st.sampled_from(["", "a"]),
        "source": texts,
        "given": st.none() | texts,
        "status": st.sampled_from(VersionStatus),
        "stage": st.sampled_from(Stage),
        "description": st.sampled_from(["", "", "ab"]),
        "by": st.sampled_from(["a", "R"]),
        "created": st.integers(0, 3),
        "updated": st.integers(0, 3),
        "tags": tags,
        "aliases": st.sets(st.sampled_from(["a", "A", "ab", "x", "R"]), max_size=2),
    }
)
models = st.lists(
    st.fixed_dictionaries(
        {
            "workspace": st.sampled_from([1, 1, 1, 2]),
            "description": st.sampled_from(["", "", "a"]),
            "by": st.sampled_from(["a", "R"]),
            "created": st.integers(0, 3),
            "updated": st.integers(0, 3),
            "tags": tags,
            "versions": st.lists(versions, max_size=4),
        }
    ),
    min_size=2,
    max_size=7,
)


def searches(schema: Any) -> st.SearchStrategy[Any]:
    return st.lists(
        st.tuples(
            st.none() | conditions(schema, keys, texts, numbers), orders(schema, keys), st.sampled_from([1, 2, 3, 100])
        ),
        min_size=8,
        max_size=8,
    )


def a_version(**given: Any) -> dict[str, Any]:
    """A version of nothing special but what is given."""
    plain = {"run": None, "path": "", "source": "s", "given": None, "status": VersionStatus.READY}
    plain |= {
        "stage": Stage.NONE,
        "description": "",
        "by": "a",
        "created": 1,
        "updated": 1,
        "tags": {},
        "aliases": set(),
    }
    return plain | given


def a_model(*versions: dict[str, Any], **given: Any) -> dict[str, Any]:
    """A model of nothing special but what is given."""
    plain = {"workspace": 1, "description": "", "by": "a", "created": 1, "updated": 1, "tags": {}}
    return plain | {"versions": list(versions)} | given


async def insert(conn: Connection, rows: Sequence[dict[str, Any]]) -> tuple[list[Thing], list[Thing]]:
    """The models and their versions; those in our workspace as the oracle has them."""
    await conn.execute("INSERT INTO workspaces (id, name) OVERRIDING SYSTEM VALUE VALUES (2, 'other')")
    found_models: list[Thing] = []
    found_versions: list[Thing] = []
    for number, row in enumerate(rows):
        name = row.get("name") or f"{'aAR水'[number % 4]}{number}"
        model_id = await conn.fetchval(
            "INSERT INTO registered_models (workspace_id, name, description, created_by, created_ms, updated_ms)"
            " VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            row["workspace"], name, row["description"], row["by"], row["created"], row["updated"],
        )  # fmt: skip
        await conn.executemany(
            "INSERT INTO registered_model_tags (model_id, workspace_id, key, value) VALUES ($1, $2, $3, $4)",
            [(model_id, row["workspace"], *each) for each in row["tags"].items()],
        )
        taken: set[str] = set()
        theirs: list[Thing] = []
        for index, version in enumerate(row["versions"]):
            # An alias names one version of a model.
            aliases = sorted(version["aliases"] - taken)
            taken.update(aliases)
            theirs.append(await insert_version(conn, row["workspace"], model_id, name, index + 1, version, aliases))
        if row["workspace"] != 1:
            continue
        found_versions += theirs
        found_models.append(
            Thing(
                id=model_id,
                newest=(-model_id,),
                lifecycle=Lifecycle.ACTIVE,
                attributes={
                    "name": name,
                    "description": row["description"] or None,
                    "created_by": row["by"],
                    "creation_time": row["created"],
                    "last_update_time": row["updated"],
                    "alias": sorted(taken),
                    **{
                        each: [of for of in (thing.attributes[each] for thing in theirs) if of is not None]  # type: ignore[misc]
                        for each in ("stage", "run_id", "source")
                    },
                },
                tags=row["tags"],
            )
        )
    return found_models, found_versions


async def insert_version(
    conn: Connection,
    workspace: int,
    model_id: int,
    name: str,
    number: int,
    version: dict[str, Any],
    aliases: Sequence[str],
) -> Thing:
    run_id = None if version["run"] is None else uuid.UUID(int=version["run"])
    version_id = await conn.fetchval(
        "INSERT INTO model_versions (model_id, workspace_id, version, run_id, path, source, status, stage, description,"
        " created_by, created_ms, updated_ms, given_source)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING id",
        model_id, workspace, number, run_id, version["path"], version["source"], version["status"], version["stage"],
        version["description"], version["by"], version["created"], version["updated"],
        version["given"],
    )  # fmt: skip
    await conn.executemany(
        "INSERT INTO model_version_tags (version_id, workspace_id, key, value) VALUES ($1, $2, $3, $4)",
        [(version_id, workspace, *each) for each in version["tags"].items()],
    )
    await conn.executemany(
        "INSERT INTO model_aliases (model_id, workspace_id, alias, version_id, moved_by, moved_ms)"
        " VALUES ($1, $2, $3, $4, '', 0)",
        [(model_id, workspace, alias, version_id) for alias in aliases],
    )
    return Thing(
        id=version_id,
        newest=(-version_id,),
        lifecycle=Lifecycle.ACTIVE,
        attributes={
            "name": name,
            "version": number,
            "run_id": run_id and run_id.hex,
            "source": version["source"],
            "source_path": version["source"] if version["given"] is None else version["given"],
            "path": version["path"] or None,
            "stage": version["stage"].name,
            "status": version["status"].name,
            "alias": list(aliases),
            "description": version["description"] or None,
            "created_by": version["by"],
            "creation_time": version["created"],
            "last_update_time": version["updated"],
        },
        tags=version["tags"],
    )


async def all_pages(
    search: Callable[..., Awaitable[tuple[Sequence[int], str]]], conn: Connection, query: Query, limit: int
) -> list[int]:
    found: list[int] = []
    token = ""
    while True:
        page, token = await search(conn, WORKSPACE, query, limit, token)
        found += page
        if not token:
            return found
        assert len(page) == limit


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), phases=[Phase.reuse, Phase.generate])
@given(rows=models, of_models=searches(MODELS), of_versions=searches(MODEL_VERSIONS))
def test_models_and_versions_are_those_that_python_finds(
    db: Database, run: Any, rows: Any, of_models: Any, of_versions: Any
) -> None:
    async def check() -> None:
        async with db.connection() as conn:
            transaction = conn.transaction()
            await transaction.start()
            try:
                all_models, all_versions = await insert(conn, rows)
                for things, search, default, asked in (
                    (all_models, search_models, parse_models("", ["name"]), of_models),
                    (all_versions, search_versions, parse_versions("", ["last_update_time DESC"]), of_versions),
                ):
                    for where, order, limit in asked:
                        expected = answer(things, where, order or default.order, View.ACTIVE)
                        found = await all_pages(search, conn, Query(where, order), limit)
                        assert found == expected, (where, order, limit)
            finally:
                await transaction.rollback()

    run(check())


async def test_of_several_one_is_enough(db: Database) -> None:
    async with db.connection() as conn:
        # The first is champion and best, the second best only, the third nothing.
        first = a_version(aliases={"champion", "best"}, stage=Stage.PRODUCTION)
        _, versions = await insert(
            conn,
            [a_model(first, a_version(stage=Stage.ARCHIVED)), a_model(a_version(aliases={"best"})), a_model()],
        )
        one, two, three = (each.id for each in versions)
        for filter_text, expected in {
            "alias = 'champion'": {one},
            "alias != 'champion'": {one, three},
            "NOT alias = 'champion'": {two, three},
            "NOT alias != 'champion'": {two},
            "alias NOT IN ('champion', 'best')": set(),
            "alias LIKE 'b%'": {one, three},
            "alias IS NULL": {two},
            "alias IS NOT NULL AND NOT alias IN ('champion')": {three},
        }.items():
            found, _ = await search_versions(conn, WORKSPACE, parse_versions(filter_text), 10, "")
            assert set(found) == expected, filter_text
        for filter_text, expected_models in {
            "stage = 'Production'": 1,
            "stage != 'Production'": 2,
            "stage = 'Production' AND stage = 'Archived'": 1,
            "stage IS NULL": 1,
            "NOT stage = 'Production'": 2,
            "alias = 'best'": 2,
        }.items():
            of_models, _ = await search_models(conn, WORKSPACE, parse_models(filter_text), 10, "")
            assert len(of_models) == expected_models, filter_text


@pytest.mark.parametrize("value", ["'; DROP TABLE runs; --", "$1", "%s", "{x}", "\\'", "' OR 'a' = 'a", "a\nb", '"'])
async def test_names_and_values_are_never_sql(db: Database, value: str) -> None:
    key, text = f"`{value}`", "'" + value.replace("'", "''") + "'"
    like = "'" + value.replace("'", "''").replace("\\", "\\\\") + "%'"
    version = a_version(path=value, source=value, description=value, by=value, tags={value: value}, aliases={value})
    model = a_model(version, a_version(), name=value, description=value, by=value, tags={value: value})
    async with db.connection() as conn:
        [thing, *_], [wanted, _] = await insert(conn, [model, a_model()])
        shared = [f"tags.{key} IN ({text})", f"source LIKE {like}", f"source = {text}", f"alias = {text}"]
        shared += [f"created_by = {text}", f"description LIKE {like}"]
        for filter_text in shared:
            of_models = parse_models(f"name = {text} AND {filter_text}")
            assert await search_models(conn, WORKSPACE, of_models, 10, "") == ([thing.id], ""), filter_text
            of_versions = parse_versions(f"path = {text} AND {filter_text}", ["name", "path DESC", "source"])
            assert await search_versions(conn, WORKSPACE, of_versions, 10, "") == ([wanted.id], ""), filter_text
            other = parse_versions(filter_text.replace(text, "'other'").replace(like, "'o%'"))
            assert await search_versions(conn, WORKSPACE, other, 10, "") == ([], ""), filter_text


async def test_a_token_is_of_its_query_alone(db: Database) -> None:
    async with db.connection() as conn:
        await insert(conn, [a_model(*[a_version()] * 3), a_model()])
        query = parse_versions("", ["name"])
        _, token = await search_versions(conn, WORKSPACE, query, 1, "")
        page, _ = await search_versions(conn, WORKSPACE, query, 5, token)
        assert len(page) == 2  # the page size may change
        for bad in (token[:-4], token + "AAAA", "x", "é"):
            with pytest.raises(InvalidPageToken):
                await search_versions(conn, WORKSPACE, query, 1, bad)
        for workspace, other in (
            (WorkspaceId(2), query),
            (WORKSPACE, parse_versions("", ["name DESC"])),
            (WORKSPACE, parse_versions("version > 0", ["name"])),
        ):
            with pytest.raises(InvalidPageToken):
                await search_versions(conn, workspace, other, 1, token)
        with pytest.raises(InvalidPageToken):
            await search_models(conn, WORKSPACE, parse_models("", ["name"]), 1, token)


@pytest.mark.parametrize("key", [[], ["a"], ["a", "1"], [1, 1], ["a", 2**63], ["\0", 1], ["\ud800", 1], ["a", 1, 1]])
async def test_a_forged_token_is_refused_not_obeyed(db: Database, key: list[pages.Key]) -> None:
    query = parse_models("", ["name"])
    token = pages.encode(("registered_models", WORKSPACE, repr(query)), key)
    async with db.connection() as conn:
        with pytest.raises(InvalidPageToken):
            await search_models(conn, WORKSPACE, query, 1, token)
