"""The connections: what they refuse, what they are set to, and that errors leave them in our words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from penstock_server.model.errors import FailedPrecondition, NotFound, Unavailable
from penstock_server.postgres import database
from penstock_server.postgres.database import Connection, Database, connect

# Waits for each to be gone.
CUT = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1"


@pytest.fixture
def administrator(postgres: Any, run: Any) -> Iterator[Connection]:
    """A connection to another database of the same server."""
    conn = run(asyncpg.connect(postgres.dsn("postgres")))
    yield conn
    run(conn.close())


async def open_and_close(dsn: str) -> None:
    await (await Database.open(dsn)).close()


async def test_synchronous_commit_off_is_refused(dsn: str, db: Database) -> None:
    async with db.connection() as conn:
        name = await conn.fetchval("SELECT current_database()")
        await conn.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    for opening in (open_and_close(dsn), connect(dsn)):
        with pytest.raises(FailedPrecondition, match=r"synchronous_commit is off.*SET synchronous_commit = on"):
            await opening


async def test_synchronous_commit_off_later_is_for_a_while(db: Database) -> None:
    async def another() -> None:
        async with db.connection(), db.connection():
            pass

    async with db.connection() as conn:
        name = await conn.fetchval("SELECT current_database()")
        await conn.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    for opening in (db.connect(), another()):
        with pytest.raises(Unavailable, match="synchronous_commit is off"):
            await opening
    async with db.connection() as conn:
        await conn.execute(f"ALTER DATABASE {name} RESET synchronous_commit")
    await (await db.connect()).close()
    await another()


async def test_a_database_that_is_not_there_for_a_while(dsn: str, db: Database, administrator: Connection) -> None:
    name = dsn.partition("?")[0].rpartition("/")[2]
    await administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await administrator.execute(CUT, name)
    await administrator.execute(f"ALTER DATABASE {name} RENAME TO {name}_away")
    with pytest.raises(Unavailable, match="away") as caught:
        await db.connect()
    assert isinstance(caught.value.__cause__, asyncpg.InvalidCatalogNameError)
    await administrator.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")
    await administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await (await db.connect()).close()


async def test_an_old_postgresql_is_refused(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "OLDEST", 99)
    with pytest.raises(FailedPrecondition, match="Penstock needs 99 or later"):
        await Database.open(dsn)


def test_another_encoding_is_refused(postgres: Any, run: Any) -> None:
    name = "test_latin1"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with pytest.raises(FailedPrecondition, match="encoding is LATIN1"):
            run(Database.open(postgres.dsn(name)))
    finally:
        postgres.drop(postgres.dsn(name))


async def test_a_wrong_address_is_told(postgres: Any, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="nowhere"):
        await Database.open(postgres.dsn("nowhere"))
    with pytest.raises(FailedPrecondition, match="database_url"):
        await Database.open("http://localhost/x")
    with pytest.raises(Unavailable):
        await Database.open(f"postgresql://postgres:@/postgres?host={tmp_path}")
    with pytest.raises(Unavailable):
        await Database.open("postgresql://postgres@127.0.0.1:1/postgres")


async def test_connections_are_set(db: Database) -> None:
    async with db.connection() as conn:
        assert await conn.fetchval("SHOW application_name") == "penstock"
        assert await conn.fetchval("SHOW statement_timeout") == "30s"
        assert await conn.fetchval("SHOW lock_timeout") == "3s"
    conn = await db.connect(statement_seconds=90)
    try:
        assert await conn.fetchval("SHOW application_name") == "penstock"
        assert await conn.fetchval("SHOW statement_timeout") == "90s"
    finally:
        await conn.close()


async def test_a_connection_that_is_cut_is_replaced(db: Database) -> None:
    async def cut() -> None:
        async with db.transaction() as conn:
            async with db.connection() as other:
                await other.fetchval("SELECT pg_terminate_backend($1, 10000)", conn.get_server_pid())
            await conn.execute("SELECT")

    with pytest.raises(Unavailable):
        await cut()
    async with db.connection() as conn:
        assert await conn.fetchval("SELECT 1") == 1


async def test_a_statement_that_takes_too_long_is_cancelled(db: Database) -> None:
    async def dawdle() -> None:
        async with db.transaction() as conn:
            await conn.execute("SET LOCAL statement_timeout = 1")
            await conn.execute("SELECT pg_sleep(60)")

    with pytest.raises(Unavailable, match="too long"):
        await dawdle()


async def test_a_transaction_is_all_or_nothing(db: Database) -> None:
    async def add(name: str, error: Exception | None) -> None:
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO workspaces (name) VALUES ($1)", name)
            if error is not None:
                raise error

    with pytest.raises(NotFound):
        await add("rolled back", NotFound("thing", "x"))
    await add("kept", None)
    async with db.connection() as conn:
        assert [row[0] for row in await conn.fetch("SELECT name FROM workspaces ORDER BY id")] == ["default", "kept"]


async def test_a_snapshot_sees_one_state(db: Database) -> None:
    count = "SELECT count(*) FROM workspaces"
    async with db.transaction(snapshot=True) as conn, db.connection() as other:
        assert await conn.fetchval(count) == 1
        await other.execute("INSERT INTO workspaces (name) VALUES ('later')")
        assert await conn.fetchval(count) == 1
        assert await other.fetchval(count) == 2


async def test_a_clash_of_snapshots_may_be_tried_again(db: Database) -> None:
    async def clash() -> None:
        async with db.transaction(snapshot=True) as conn, db.connection() as other:
            await conn.fetch("SELECT FROM workspaces")
            await other.execute("UPDATE workspaces SET name = 'first'")
            await conn.execute("UPDATE workspaces SET name = 'second'")

    with pytest.raises(Unavailable, match="another request"):
        await clash()


async def test_what_is_the_statements_fault_leaves_as_it_is(db: Database) -> None:
    with pytest.raises(asyncpg.UniqueViolationError) as caught:
        async with db.connection() as conn:
            await conn.execute("INSERT INTO workspaces (name) VALUES ('default')")
    assert caught.value.constraint_name == "workspaces_name_key"


async def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(Unavailable, match="read-only"):
        async with db.transaction(read_only=True) as conn:
            await conn.execute("INSERT INTO workspaces (name) VALUES ('x')")


async def test_a_pool_that_is_busy_says_so(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_ACQUIRE_SECONDS", 0.05)
    db = await Database.open(dsn, max_connections=1)
    async with db.connection():
        with pytest.raises(Unavailable, match="busy"):
            async with db.connection():
                pass
        await db.ready()  # nothing is wrong with the database
    await db.close()


async def test_readiness_is_asked_again_when_the_database_is_back(
    dsn: str, db: Database, administrator: Connection
) -> None:
    name = dsn.partition("?")[0].rpartition("/")[2]
    await db.ready()
    await administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await administrator.execute(CUT, name)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await db.ready()
    await administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await asyncio.gather(*(db.ready() for _ in range(5)))
    await db.close()
    with pytest.raises(Unavailable):
        await db.ready()
    left = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'"
    async with asyncio.timeout(30):
        while await administrator.fetchval(left, name):
            await asyncio.sleep(0.02)


async def test_closing_is_bounded_and_may_be_repeated(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_CLOSE_SECONDS", 0.05)
    db = await Database.open(dsn)
    entered = asyncio.Event()

    async def linger() -> None:
        async with db.connection() as conn:
            entered.set()
            await conn.execute("SELECT pg_sleep(60)")

    lingering = asyncio.create_task(linger())
    await entered.wait()
    await db.close()
    await db.close()
    with pytest.raises(Unavailable):
        await lingering
    with pytest.raises(Unavailable):
        await db.ready()


@pytest.mark.parametrize("argument", [2**70, "text"])
async def test_a_connection_is_given_back_outside_of_any_transaction(dsn: str, argument: object) -> None:
    """asyncpg refuses an argument after it has had the statement parsed, which leaves a transaction open."""
    one = await Database.open(dsn, max_connections=1)
    try:
        with pytest.raises(asyncpg.DataError):
            async with one.connection() as conn:
                await conn.fetch("SELECT $1::bigint", argument)
        async with one.transaction(snapshot=True, read_only=True) as conn:
            assert await conn.fetchval("SELECT 1") == 1
    finally:
        await one.close()


async def test_so_it_is_when_whoever_had_it_was_cancelled(dsn: str) -> None:
    one = await Database.open(dsn, max_connections=1)
    prepared = asyncio.Event()

    async def work() -> None:
        async with one.connection() as conn:
            with contextlib.suppress(asyncpg.DataError):
                await conn.fetch("SELECT $1::bigint", 2**70)
            prepared.set()
            await asyncio.Event().wait()

    try:
        task = asyncio.create_task(work())
        await prepared.wait()
        task.cancel()
        await asyncio.wait([task])
        async with one.transaction(snapshot=True) as conn:
            assert await conn.fetchval("SELECT 1") == 1
    finally:
        await one.close()
