"""How long the model registry takes to resolve an alias and to search, over gRPC, with many models and versions.

    python -m benchmarks.registry [--models 10000] [--versions 10] [--page 100]

A call's time is the caller's: request, server, PostgreSQL, answer. Beside it stands what the same search takes that is
asked of PostgreSQL directly, which gives ids only.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import grpc

from benchmarks.serving import median, percentile, server
from penstock.v1 import registry_pb2 as pb
from penstock_server.model.access import WorkspaceId
from penstock_server.model.search import parse_models, parse_versions
from penstock_server.postgres.search_registry import search_models, search_versions

SERVICE = "/penstock.v1.RegistryService/"

# The last version of each model is in production, the one before it in staging; the last but two are archived.
FILL = """
INSERT INTO registered_models (workspace_id, name, description, last_version, created_by, created_ms, updated_ms)
SELECT 1, 'team-' || i % 50 || '-model-' || lpad(i::text, 5, '0'), 'no. ' || i, {versions}, 'user' || i % 40,
       1700000000000 + i, 1700000000000 + {versions} * {models} + i * 7919 % {models}
FROM generate_series(1, {models}) i;

INSERT INTO registered_model_tags (model_id, workspace_id, key, value)
SELECT id, 1, k, CASE k WHEN 'task' THEN (ARRAY['detect', 'rank', 'classify', 'generate'])[1 + id % 4]
                        ELSE 'owner-' || id % 1000 END
FROM registered_models, unnest(ARRAY['task', 'owner']) k;

INSERT INTO model_versions (model_id, workspace_id, version, run_id, path, source, status, stage, description,
                            created_by, created_ms, updated_ms)
SELECT m.id, 1, v, r.id, CASE WHEN r.id IS NULL THEN '' ELSE 'model' END,
       coalesce('runs:/' || replace(r.id::text, '-', '') || '/model', 's3://models/' || m.name || '/' || v),
       CASE WHEN hashint8(m.id * 100 + v) % 50 = 0 THEN 3 ELSE 2 END,
       CASE v WHEN {versions} THEN 3 WHEN {versions} - 1 THEN 2 WHEN {versions} - 2 THEN 1 ELSE 4 END,
       '', 'user' || m.id % 40, 1700000000000 + v * {models} + m.id * 31 % {models},
       1700000000000 + v * {models} + m.id * 7919 % {models}
FROM registered_models m, generate_series(1, {versions}) v,
     LATERAL (SELECT CASE WHEN v % 5 <> 0 THEN md5(m.id || '/' || v)::uuid END AS id) r;

INSERT INTO model_version_tags (version_id, workspace_id, key, value)
SELECT id, 1, k, CASE k WHEN 'validated' THEN CASE WHEN hashint8(id) % 3 = 0 THEN 'no' ELSE 'yes' END
                        WHEN 'dataset' THEN 'data-' || hashint8(id) % 500
                        ELSE 'note of ' || id END
FROM model_versions, unnest(ARRAY['validated', 'dataset', 'note']) k
WHERE k <> 'note' OR id % 100 = 0;

INSERT INTO model_aliases (model_id, workspace_id, alias, version_id, moved_by, moved_ms)
SELECT model_id, 1, a, id, created_by, updated_ms
FROM model_versions, unnest(ARRAY['champion', 'challenger', 'rollback']) a
WHERE CASE a WHEN 'champion' THEN version = {versions} WHEN 'challenger' THEN version = {versions} - 1
             ELSE version = {versions} - 2 AND model_id % 100 = 0 END;
"""
TABLES = ["registered_models", "registered_model_tags", "model_versions", "model_version_tags", "model_aliases"]

# What is searched, the filter, the order.
Asked = tuple[str, str, list[str]]
VERSIONS: list[Asked] = [
    ("no filter", "", []),
    ("versions of a model", "name = 'team-42-model-00042'", ["version DESC"]),
    ("name LIKE, its beginning", "name LIKE 'team-7-%'", []),
    ("name LIKE, its beginning, by name", "name LIKE 'team-7-%'", ["name", "version DESC"]),
    ("name LIKE, anywhere", "name LIKE '%-00042%'", []),
    ("name ILIKE, anywhere, 1 %", "name ILIKE '%MODEL-%77'", ["creation_time"]),
    ("common tag", "tags.validated = 'yes'", []),
    ("tag of 1 in 500", "tags.dataset = 'data-42'", []),
    ("tag of 1 in 500, by creation", "tags.dataset = 'data-42'", ["creation_time DESC"]),
    ("tag that nothing has", "tags.validated = 'perhaps'", []),
    ("tag absent", "tags.note IS NULL", ["creation_time"]),
    ("tag LIKE, its beginning", "tags.note LIKE 'note of 99%'", []),
    ("run", "run_id = 'c4ca4238a0b923820dcc509a6f75849b' OR run_id = '{run}'", []),
    ("source", "source = 's3://models/team-42-model-00042/5'", []),
    ("source LIKE, its beginning", "source LIKE 's3://models/team-7-%'", []),
    ("stage", "stage = 'Production'", []),
    ("stage, by name", "stage = 'Production'", ["name"]),
    ("stage, by creation", "stage = 'Staging'", ["creation_time DESC"]),
    ("stage and tag", "stage = 'Production' AND tags.validated = 'yes'", ["last_update_time DESC"]),
    ("two that exclude one another", "stage = 'Production' AND alias = 'challenger'", []),
    ("two tags that exclude one another", "tags.validated = 'no' AND tags.validated != 'no'", []),
    ("not archived", "stage NOT IN ('Archived', 'None')", ["creation_time DESC"]),
    ("status", "status = 'FAILED'", []),
    ("alias, one in each model", "alias = 'champion'", []),
    ("alias, by name", "alias = 'champion'", ["name"]),
    ("alias of 1 % of models", "alias = 'rollback'", []),
    ("another alias than", "alias != 'champion'", []),
    ("no alias", "alias IS NULL", []),
    ("OR", "alias = 'rollback' OR tags.dataset = 'data-42'", []),
    ("NOT", "NOT (stage = 'Archived' OR tags.validated = 'yes')", []),
    ("who made it", "created_by = 'user7'", []),
    ("by name", "", ["name", "version DESC"]),
    ("by source", "", ["source"]),
    ("by description, which none has", "", ["description"]),
]
MODELS: list[Asked] = [
    ("no filter", "", []),
    ("last changed first", "", ["last_update_time DESC"]),
    ("name LIKE, its beginning", "name LIKE 'team-7-%'", []),
    ("name ILIKE, anywhere", "name ILIKE '%MODEL-00042%'", []),
    ("common tag", "tags.task = 'rank'", []),
    ("tag of 1 in 1,000", "tags.owner = 'owner-42'", []),
    ("alias of all of them", "alias = 'champion'", []),
    ("alias of 1 %", "alias = 'rollback'", ["last_update_time DESC"]),
    ("stage", "stage = 'Production'", ["last_update_time DESC"]),
    ("run of a version", "run_id = '{run}'", []),
    ("source of a version", "source LIKE 's3://models/team-7-%'", []),
    ("no version in production", "NOT stage = 'Production'", []),
    ("alias absent", "alias IS NULL", []),
]
# Of these the second page is asked for, too, and of the first three one far behind it.
PAGED = ["no filter", "common tag", "by name", "stage", "stage, by name", "name LIKE, its beginning"]


async def fill(connection: asyncpg.Connection, arguments: argparse.Namespace) -> str:
    """Fills the tables; a run that one version has."""
    await connection.execute(FILL.format(models=arguments.models, versions=arguments.versions))
    for table in TABLES:
        await connection.execute(f"VACUUM ANALYZE {table}")
    return str(await connection.fetchval("SELECT replace(md5('42/1')::uuid::text, '-', '')"))


async def timed(call: Callable[[], Awaitable[Any]], repeat: int) -> tuple[list[float], Any]:
    """The milliseconds of each call, after one that warms up, and the last answer."""
    answer = await call()
    times: list[float] = []
    for _ in range(repeat):
        started = time.perf_counter()
        answer = await call()
        times.append((time.perf_counter() - started) * 1000)
    return times, answer


def row(what: str, times: list[float], limit: list[float] | None, found: int) -> None:
    """A line of the table."""
    beside = f"PostgreSQL {median(limit):.1f} ms; " if limit else ""
    measured = f"p50 {median(times):.2f} ms, p95 {percentile(times, 0.95):.2f} ms"
    print(f"| {what} | {measured} | {beside}{found:,} found |", flush=True)


class Registry:
    """The calls that are measured."""

    def __init__(
        self, channel: grpc.aio.Channel, connection: asyncpg.Connection, arguments: argparse.Namespace
    ) -> None:
        self._connection = connection
        self._page = arguments.page
        self._repeat = arguments.repeat
        self._resolve = channel.unary_unary(
            SERVICE + "ResolveModelVersion",
            pb.ResolveModelVersionRequest.SerializeToString,
            pb.ResolveModelVersionResponse.FromString,
        )
        self._versions = channel.unary_unary(
            SERVICE + "SearchModelVersions",
            pb.SearchModelVersionsRequest.SerializeToString,
            pb.SearchModelVersionsResponse.FromString,
        )
        self._models = channel.unary_unary(
            SERVICE + "SearchRegisteredModels",
            pb.SearchRegisteredModelsRequest.SerializeToString,
            pb.SearchRegisteredModelsResponse.FromString,
        )

    async def resolve(self, ref: str) -> None:
        """One reference, many times."""
        request = pb.ResolveModelVersionRequest(ref=ref)
        times, _ = await timed(lambda: self._resolve(request), 50 * self._repeat)
        row(f"resolve `{ref}`", times, None, 1)

    async def versions(self, asked: Asked, token: str = "", page: str = "") -> str:
        """One search of versions; the token of the next page."""
        what, text, order = asked
        request = pb.SearchModelVersionsRequest(filter=text, order_by=order, page_size=self._page, page_token=token)
        query = parse_versions(text, order)
        times, answer = await timed(lambda: self._versions(request), self._repeat)
        limit, _ = await timed(
            lambda: search_versions(self._connection, WorkspaceId(1), query, self._page, token), self._repeat
        )
        row(f"versions: {what}{described(text, order)}{page}", times, limit, len(answer.versions))
        return str(answer.next_page_token)

    async def models(self, asked: Asked, token: str = "", page: str = "") -> str:
        """One search of models; the token of the next page."""
        what, text, order = asked
        request = pb.SearchRegisteredModelsRequest(filter=text, order_by=order, page_size=self._page, page_token=token)
        query = parse_models(text, order)
        times, answer = await timed(lambda: self._models(request), self._repeat)
        limit, _ = await timed(
            lambda: search_models(self._connection, WorkspaceId(1), query, self._page, token), self._repeat
        )
        row(f"models: {what}{described(text, order)}{page}", times, limit, len(answer.models))
        return str(answer.next_page_token)

    async def deep(self, asked: Asked, pages: int) -> None:
        """A page of versions far behind the first."""
        query = parse_versions(asked[1], asked[2])
        token = ""
        for _ in range(pages):
            _, token = await search_versions(self._connection, WorkspaceId(1), query, self._page, token)
        await self.versions(asked, token, f", page {pages + 1}")


def described(text: str, order: list[str]) -> str:
    """The search as it is written."""
    return (f", `{text}`" if text else "") + (f" by `{', '.join(order)}`" if order else "")


async def measure(address: str, dsn: str, arguments: argparse.Namespace) -> None:
    """Fills the database, then asks."""
    connection = await asyncpg.connect(dsn)
    async with grpc.aio.insecure_channel(address) as channel:
        run_id = await fill(connection, arguments)
        registry = Registry(channel, connection, arguments)
        name = await connection.fetchval("SELECT name FROM registered_models WHERE id = 42")
        for ref in (
            f"models:/{name}@champion",
            f"models:/{name}/3",
            f"models:/{name}/Production",
            f"models:/{name}/latest",
        ):
            await registry.resolve(ref)
        for nouns, search in ((VERSIONS, registry.versions), (MODELS, registry.models)):
            for what, text, order in nouns:
                asked = (what, text.replace("{run}", run_id), order)
                token = await search(asked)
                if what in PAGED and token:
                    await search(asked, token, ", page 2")
        for asked in VERSIONS:
            if asked[0] in PAGED[:3]:
                await registry.deep(asked, arguments.deep)
    await connection.close()


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--versions", type=int, default=10, help="per model")
    parser.add_argument("--page", type=int, default=100, help="page size")
    parser.add_argument("--deep", type=int, default=200, help="which page the deep ones come after")
    parser.add_argument("--repeat", type=int, default=20)
    arguments = parser.parse_args()
    print("| what | measured | beside it |\n| --- | --- | --- |")
    with server() as started:
        asyncio.run(measure(started.grpc_address, started.dsn, arguments))


if __name__ == "__main__":
    main()
