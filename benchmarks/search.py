"""How long searches take over many runs: fills a database, times the queries, prints a table.

    python -m benchmarks.search --runs 100000 --metrics 20 --params 10

Without --database-url it starts a PostgreSQL of its own in a temporary directory and removes it after.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import tempfile
import time
from pathlib import Path

import asyncpg

import penstock_server.postgres
from penstock_server.model.access import WorkspaceId
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.lifecycle import View
from penstock_server.model.search import parse_runs
from penstock_server.postgres.embedded import Embedded
from penstock_server.postgres.search import search_runs

SCHEMA = Path(penstock_server.postgres.__path__[0]) / "migrations" / "0001_tracking.sql"

# Every metric has its own range, as real ones do: what planners' statistics of a shared column cannot know.
FILL = """
INSERT INTO experiments (id, workspace_id, name, created_ms, updated_ms)
SELECT 1, 1, 'search', 0, 0;

INSERT INTO runs (id, workspace_id, experiment_id, name, status, start_ms, end_ms, created_ms, updated_ms, user_name,
                  git_commit, lifecycle)
SELECT ('01890000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 1, 1, 'run-' || i, 1 + i % 5, 1700000000000 + i,
       CASE WHEN i % 5 <> 0 THEN 1700000100000 + i END, 0, 0, 'user' || i % 50, md5((i % 400)::text),
       CASE WHEN i % 100 = 99 THEN 2 ELSE 1 END
FROM generate_series(1, {runs}) i;

INSERT INTO run_metrics (run_id, workspace_id, experiment_id, metric_id, name, count, last_value, min_value, max_value)
SELECT r.id, 1, 1, m, CASE m WHEN 0 THEN 'acc' WHEN 1 THEN 'loss' WHEN 2 THEN 'epoch' ELSE 'metric_' || m END, 100,
       CASE m WHEN 0 THEN CASE WHEN hashtext(r.name) % 50 = 0 THEN 'NaN' ELSE random() END
              WHEN 1 THEN -ln(random() + 1e-9) WHEN 2 THEN 100 ELSE random() * 10 ^ (m % 5) END, 0, 0
FROM runs r, generate_series(0, {metrics} - 1) m
WHERE r.experiment_id = 1 AND (m <> 3 OR r.start_ms % 10 <> 0);

INSERT INTO run_params (run_id, workspace_id, experiment_id, key, value)
SELECT r.id, 1, 1, CASE p WHEN 0 THEN 'lr' WHEN 1 THEN 'seed' ELSE 'param_' || p END,
       CASE p WHEN 0 THEN (ARRAY['0.1', '0.01', '0.001', '0.3', '0.03', '0.003', '0.5', '0.05', '0.005', '1'])
                          [1 + r.start_ms % 10]
              WHEN 1 THEN (r.start_ms % 2000)::text ELSE (hashtext(r.name || p) % 100)::text END
FROM runs r, generate_series(0, {params} - 1) p
WHERE r.experiment_id = 1;

INSERT INTO run_tags (run_id, workspace_id, experiment_id, key, value)
SELECT r.id, 1, 1, t, CASE t WHEN 'team' THEN 'team-' || r.start_ms % 7 ELSE 'note of ' || r.name END
FROM runs r, unnest(ARRAY['team', 'note']) t
WHERE r.experiment_id = 1 AND (t = 'team' OR r.start_ms % 20 = 0);
"""

# What it asks, the filter, the order.
QUERIES: list[tuple[str, str, list[str]]] = [
    ("metric and param, ordered by the metric", "metrics.acc > 0.9 AND params.lr = '0.1'", ["metrics.acc DESC"]),
    ("the same, ascending", "metrics.acc > 0.9 AND params.lr = '0.1'", ["metrics.acc ASC"]),
    ("ordered by another metric", "metrics.acc > 0.9 AND params.lr = '0.1'", ["metrics.loss ASC"]),
    ("ordered by start time", "metrics.acc > 0.9 AND params.lr = '0.1'", []),
    ("selective param (50 runs)", "params.seed = '42'", ["metrics.acc DESC"]),
    ("selective metric (10 runs)", "metrics.acc > 0.9999", ["metrics.loss ASC"]),
    ("metric range of 1 %", "metrics.acc > 0.99", ["metrics.loss ASC"]),
    ("metric range of 3 %, ordered by another", "metrics.acc > 0.97", ["metrics.loss ASC"]),
    ("two metrics, 1 % together", "metrics.acc > 0.9 AND metrics.metric_4 < 1000", ["metrics.loss ASC"]),
    (
        "three conditions, few together",
        "params.lr = '0.1' AND params.param_2 = '7' AND metrics.acc > 0.9",
        ["metrics.acc DESC"],
    ),
    ("no filter, ordered by a metric", "", ["metrics.acc DESC"]),
    ("no filter, ordered by a metric, ascending", "", ["metrics.acc ASC"]),
    ("no filter, default order", "", []),
    ("no filter, oldest first", "", ["start_time ASC"]),
    ("ordered by a metric that is the same everywhere", "", ["metrics.epoch DESC"]),
    ("ordered by a param", "", ["params.lr ASC"]),
    ("ordered by a param of many values", "", ["params.seed ASC"]),
    ("ordered by two metrics", "", ["metrics.loss ASC", "metrics.acc DESC"]),
    ("ordered by name", "", ["run_name ASC"]),
    ("tag of 14 %", "tags.team = 'team-3'", ["metrics.acc DESC"]),
    ("tag prefix", "tags.note LIKE 'note of run-998%'", ["metrics.acc DESC"]),
    ("tag ILIKE anywhere", "tags.note ILIKE '%RUN-998%'", []),
    ("metric absent (10 %)", "metrics.metric_3 IS NULL", ["metrics.acc DESC"]),
    ("metric absent (none)", "metrics.acc IS NULL", []),
    ("tag present (5 %)", "tags.note IS NOT NULL", []),
    ("OR of selective ones", "metrics.acc > 0.9999 OR params.seed = '42'", ["metrics.acc DESC"]),
    ("OR of common ones", "params.lr = '0.1' OR metrics.loss < 0.05", ["metrics.acc DESC"]),
    ("NOT", "NOT (params.lr = '0.1' OR metrics.loss < 0.5)", ["metrics.acc DESC"]),
    ("status and user", "status = 'FAILED' AND user_id = 'user3'", []),
    ("run ids (3)", "run_id IN ('01890000000070008000000000000007', '01890000000070008000000000000008', 'x')", []),
    ("commit prefix, 1 in 400", "git_commit LIKE 'c4ca%'", ["metrics.acc DESC"]),
    ("nothing found", "metrics.acc > 2", ["metrics.loss"]),
]
DEEP = [("", ["metrics.acc DESC"]), ("metrics.acc > 0.5", ["metrics.loss ASC"]), ("", []), ("", ["params.lr ASC"])]


async def fill(connection: asyncpg.Connection, arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    await connection.execute(FILL.format(runs=arguments.runs, metrics=arguments.metrics, params=arguments.params))
    print(f"filled in {time.perf_counter() - started:.1f} s")
    if arguments.analyze:
        for table in ("runs", "run_metrics", "run_params", "run_tags"):
            await connection.execute(f"VACUUM ANALYZE {table}")


async def measure(connection: asyncpg.Connection, arguments: argparse.Namespace) -> None:
    async def search(filter_text: str, order: list[str], token: str = "") -> tuple[int, str]:
        query = parse_runs(filter_text, order)
        runs, following = await search_runs(
            connection, WorkspaceId(1), [ExperimentId(1)], query, View.ACTIVE, arguments.limit, token
        )
        return len(runs), following

    async def timed(filter_text: str, order: list[str], token: str = "") -> tuple[float, float, int]:
        times: list[float] = []
        found = 0
        for _ in range(arguments.repeat + 1):
            started = time.perf_counter()
            found, _following = await search(filter_text, order, token)
            times.append((time.perf_counter() - started) * 1000)
        times = sorted(times[1:])  # the first one warms up
        return statistics.median(times), times[math.ceil(len(times) * 0.95) - 1], found

    print("| search | filter | order by | found | median ms | p95 ms |\n|---|---|---|---:|---:|---:|")
    for label, filter_text, order in QUERIES:
        median, p95, found = await timed(filter_text, order)
        row(label, filter_text, order, found, median, p95)
    for filter_text, order in DEEP:
        token = ""
        for _ in range(arguments.deep):
            _found, token = await search(filter_text, order, token)
        median, p95, found = await timed(filter_text, order, token)
        row(f"page {arguments.deep + 1}", filter_text, order, found, median, p95)


def row(label: str, filter_text: str, order: list[str], found: int, *times: float) -> None:
    asked = f"{label} | `{filter_text or ' '}` | `{', '.join(order) or ' '}`"
    print(f"| {asked} | {found} | {' | '.join(f'{each:.1f}' for each in times)} |", flush=True)


async def run(dsn: str, arguments: argparse.Namespace) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        if not await connection.fetchval("SELECT to_regclass('runs') IS NOT NULL"):
            await connection.execute(SCHEMA.read_text())
            await fill(connection, arguments)
        await measure(connection, arguments)
    finally:
        await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--metrics", type=int, default=20, help="per run")
    parser.add_argument("--params", type=int, default=10, help="per run")
    parser.add_argument("--limit", type=int, default=100, help="page size")
    parser.add_argument("--deep", type=int, default=200, help="which page the deep ones ask for")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument(
        "--no-analyze", dest="analyze", action="store_false", help="leave the planner without statistics"
    )
    parser.add_argument("--database-url", help="an empty database, or one that this program filled before")
    arguments = parser.parse_args()
    if arguments.database_url:
        asyncio.run(run(arguments.database_url, arguments))
        return
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        Path(directory).chmod(0o755)  # PostgreSQL runs as another user when we are root
        server = Embedded(Path(directory) / "postgres")
        server.start()
        try:
            asyncio.run(run(server.dsn, arguments))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
