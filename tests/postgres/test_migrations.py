"""Migrations: from nothing, once each, and refused when the history is another."""

from __future__ import annotations

import asyncio
import re
import shutil
import uuid
from pathlib import Path

import pytest

from penstock_server.model.errors import FailedPrecondition
from penstock_server.postgres import migrations
from penstock_server.postgres.database import Database, connect

FIRST = "CREATE TABLE first (id integer);"
SECOND = "CREATE TABLE second (id integer);"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text(FIRST)
    return tmp_path


async def tables(dsn: str) -> set[str]:
    conn = await connect(dsn)
    try:
        rows = await conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await conn.close()
    return {row[0] for row in rows}


async def test_from_empty(empty_dsn: str) -> None:
    applied = await migrations.migrate(empty_dsn)
    assert applied == [migration.name for migration in migrations.known()]
    assert {"workspaces", "experiments", "runs", "writers", "metric_chunks"} <= await tables(empty_dsn)
    await migrations.check(empty_dsn)
    assert await migrations.migrate(empty_dsn) == []


def test_files_are_numbered_without_gaps() -> None:
    names = [path.name for path in sorted(migrations.DIRECTORY.iterdir())]
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z_]+\.sql", name) for name in names)
    assert [migration.name + ".sql" for migration in migrations.known()] == names


async def test_check_tells_what_is_missing_and_the_command(empty_dsn: str, files: Path) -> None:
    with pytest.raises(FailedPrecondition, match="lacks 0001_first; run: penstock-server migrate"):
        await migrations.check(empty_dsn, files)
    await migrations.migrate(empty_dsn, files)
    (files / "0002_second.sql").write_text(SECOND)
    with pytest.raises(FailedPrecondition, match="lacks 0002_second; run"):
        await migrations.check(empty_dsn, files)
    assert await migrations.migrate(empty_dsn, files) == ["0002_second"]
    await migrations.check(empty_dsn, files)


async def test_an_edited_file_is_refused(empty_dsn: str, files: Path) -> None:
    await migrations.migrate(empty_dsn, files)
    (files / "0001_first.sql").write_text(FIRST + " -- harmless")
    (files / "0002_second.sql").write_text(SECOND)
    with pytest.raises(FailedPrecondition, match="0001_first was edited after it was applied"):
        await migrations.check(empty_dsn, files)
    with pytest.raises(FailedPrecondition, match="0001_first was edited"):
        await migrations.migrate(empty_dsn, files)
    assert "second" not in await tables(empty_dsn)


async def test_other_line_ends_are_no_edit(empty_dsn: str, files: Path) -> None:
    (files / "0001_first.sql").write_bytes(b"-- two\nCREATE TABLE first (id integer);\n")
    await migrations.migrate(empty_dsn, files)
    (files / "0001_first.sql").write_bytes(b"-- two\r\nCREATE TABLE first (id integer);\r\n")
    await migrations.check(empty_dsn, files)


async def test_a_newer_database_is_refused(empty_dsn: str, files: Path) -> None:
    (files / "0002_second.sql").write_text(SECOND)
    await migrations.migrate(empty_dsn, files)
    (files / "0002_second.sql").unlink()
    with pytest.raises(FailedPrecondition, match=r"0002_second, which this server does not know.*newer release"):
        await migrations.check(empty_dsn, files)
    with pytest.raises(FailedPrecondition, match="newer release"):
        await migrations.migrate(empty_dsn, files)


async def test_a_file_below_one_that_is_applied_is_refused(empty_dsn: str, files: Path) -> None:
    (files / "0003_third.sql").write_text("CREATE TABLE third (id integer);")
    await migrations.migrate(empty_dsn, files)
    (files / "0002_second.sql").write_text(SECOND)
    for trial in (migrations.check, migrations.migrate):
        with pytest.raises(FailedPrecondition, match=r"lacks 0002_second, yet has later.*above 0003"):
            await trial(empty_dsn, files)
    assert "second" not in await tables(empty_dsn)


async def test_two_files_with_one_number_are_refused(empty_dsn: str, files: Path) -> None:
    (files / "0001_again.sql").write_text(SECOND)
    for trial in (migrations.check, migrations.migrate):
        with pytest.raises(FailedPrecondition, match="0001_again and 0001_first have one number"):
            await trial(empty_dsn, files)
    assert await tables(empty_dsn) == set()


async def test_concurrent_migrators_apply_each_file_once(empty_dsn: str) -> None:
    results = await asyncio.gather(*(migrations.migrate(empty_dsn) for _ in range(8)))
    assert sorted(results, key=len)[:-1] == [[]] * 7
    assert sorted(results, key=len)[-1] == [migration.name for migration in migrations.known()]


async def test_a_file_that_fails_leaves_nothing(empty_dsn: str, files: Path) -> None:
    (files / "0002_second.sql").write_text(SECOND + "SELECT 1/0;")
    with pytest.raises(Exception, match="division by zero"):
        await migrations.migrate(empty_dsn, files)
    assert await tables(empty_dsn) == {"first", "migrations"}
    (files / "0002_second.sql").write_text(SECOND)
    assert await migrations.migrate(empty_dsn, files) == ["0002_second"]


async def test_the_default_workspace_and_experiment_are_there(db: Database) -> None:
    async with db.connection() as conn:
        row = await conn.fetchrow(
            "SELECT e.id, e.name, w.name FROM experiments e JOIN workspaces w ON w.id = e.workspace_id"
        )
    assert tuple(row) == (0, "Default", "default")


async def test_what_writers_refused_before_is_on_their_runs(empty_dsn: str, tmp_path: Path) -> None:
    """0002 on a database of the release before, whose servers go on writing to it."""
    shutil.copy(migrations.DIRECTORY / "0001_tracking.sql", tmp_path)
    await migrations.migrate(empty_dsn, tmp_path)
    run_id, quiet = uuid.uuid4(), uuid.uuid4()
    add_run = (
        "INSERT INTO runs (id, workspace_id, experiment_id, name, status, start_ms, created_ms, updated_ms) "
        "VALUES ($1, 1, 0, 'old', 1, 0, 0, 0)"
    )
    add_writer = (
        "INSERT INTO writers (id, run_id, workspace_id, principal, epoch, created_ms, refused) "
        "VALUES ($1, $2, 1, 'x', 1, 0, $3)"
    )
    conn = await connect(empty_dsn)
    try:
        await conn.executemany(add_run, [(run_id,), (quiet,)])
        await conn.executemany(add_writer, [(uuid.uuid4(), run_id, refused) for refused in (3, 0, 4)])
        assert await migrations.migrate(empty_dsn) == [each.name for each in migrations.known()][1:]
        await conn.execute(add_run, uuid.uuid4())
        await conn.execute(add_writer, uuid.uuid4(), quiet, 0)
        rows = await conn.fetch(
            "SELECT id, refused_records, lost_records FROM runs WHERE id = ANY($1)", [run_id, quiet]
        )
        assert {tuple(row) for row in rows} == {(run_id, 7, 0), (quiet, 0, 0)}
    finally:
        await conn.close()
