"""The hot statements of artifacts go by index, and a listing looks at what it gives only."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from penstock_server.core.runs import Runs
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.experiments import DEFAULT_EXPERIMENT
from penstock_server.model.owners import OwnerKind, OwnerRef, of_run
from penstock_server.model.runs import NewRun, RunId
from penstock_server.postgres import artifacts, owners, uploads
from penstock_server.postgres.database import Connection, Database

FILES = 20_000

# Half of the files are in one directory of many, and each of the others is alone in one.
FILL = f"""
WITH files AS (
    SELECT gen_random_uuid() AS id, CASE WHEN n % 2 = 0 THEN 'many/' || n ELSE 'd' || n || '/f' END AS path
      FROM generate_series(1, {FILES}) n),
blobs AS (
    INSERT INTO artifact_blobs (id, workspace_id, experiment_id, owner_id, path, key, state, size, sha256, media_type,
                                part_bytes, touched_ms, created_ms)
    SELECT id, 1, 0, $1, path, path, 2, 1, '', '', 1, 1, 1 FROM files)
INSERT INTO artifacts SELECT $1, path, 1, 0, id, 1, '', '', 1 FROM files
"""


@pytest.fixture
def run_id(db: Database, run: Any) -> RunId:
    """A run with many artifacts."""

    async def make() -> RunId:
        made = await Runs(db, lambda _: None).create(Caller("tester", WorkspaceId(1)), NewRun())
        async with db.connection() as conn:
            await conn.execute(FILL, made.id)
            await conn.execute("ANALYZE")
        return made.id

    made: RunId = run(make())
    return made


SOME = uuid.uuid4()
DIGEST = b"x" * 32


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (artifacts._FIND, ("many/2", 1)),
        (artifacts._HAS, ("d3",)),
        (artifacts._FILES, ("many/", "many0", 100)),
        (artifacts._CHILDREN, ("many/", "many0", 100, 5)),
        (artifacts._DELETE, ("many/2", 1)),
        (uploads._LOOK, (["many/2", "many", "x", "x/y"],)),
        (uploads._SETTLE, ([SOME], [1], [1], [DIGEST])),
        (uploads._OFFER, ("many/2", 1, SOME)),
    ],
)
async def test_goes_by_index(db: Database, run_id: RunId, statement: str, arguments: tuple[object, ...]) -> None:
    assert "Seq Scan" not in await plan(db, statement, run_id, *arguments)


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (uploads._TAKE_OVER, (SOME, SOME)),
        (uploads._OPEN, (SOME, SOME)),
        (uploads._MADE_OF, (SOME, SOME)),
        (uploads._PARTS, (SOME,)),
        (uploads._RECORD, (SOME, 1, 1, 1, "", None)),
        (uploads._TOUCH, (256 * [SOME], 256 * [1], True)),
        (uploads._DROP, ([SOME], None)),
        *(
            (statement, (1, SOME if kind is not OwnerKind.TRACE else "tr-"))
            for kind, statement in owners._HOLD_FILES.items()
        ),
    ],
)
async def test_goes_by_the_id(db: Database, run_id: RunId, statement: str, arguments: tuple[object, ...]) -> None:
    # The parts of uploads are few, so their table may be read as a whole.
    assert "Seq Scan on artifact_blobs" not in await plan(db, statement, *arguments)
    assert "Seq Scan on artifacts" not in await plan(db, statement, *arguments)


async def plan(db: Database, statement: str, *arguments: object) -> str:
    async with db.connection() as conn:
        # Of tables this small the planner may read all where it is asked for a handful.
        lines = await conn.fetch("EXPLAIN " + statement, *arguments)
        return "\n".join(row[0] for row in lines if "Seq Scan on artifact_parts" not in row[0])


async def pages_read(conn: Connection, statement: str, *arguments: object) -> int:
    """How many pages of 8 KiB a statement looks at."""
    answer = json.loads(await conn.fetchval("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, *arguments))
    found = answer[0]["Plan"]
    return int(found["Shared Hit Blocks"]) + int(found["Shared Read Blocks"])


async def test_a_page_costs_what_it_has(db: Database, run_id: RunId) -> None:
    run = OwnerRef(WorkspaceId(1), DEFAULT_EXPERIMENT, of_run(run_id), run_id)
    async with db.connection() as conn:
        found = await artifacts.children(conn, run, "", None, FILES)
        assert len(found) == FILES // 2 + 1
        assert found[-1].path == "many"
        # Behind the last directory is `many`, with half of all files in it, which are passed over.
        read = await pages_read(conn, artifacts._CHILDREN, run_id, "m", "n", 10, 0)
        assert read < 30
        read = await pages_read(conn, artifacts._CHILDREN, run_id, "", artifacts._LAST, 100, 0)
        assert read < 100 * 10
