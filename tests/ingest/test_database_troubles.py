"""A database in trouble: what is accepted waits within its bounds, and is all there once the trouble is over."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from frames import CALLER, Sender, expected, hello, logs, make_run, plain_sql, working

from penstock_server.core.metrics import Metrics
from penstock_server.ingest.ingest import Ingest
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import ParamChanged, PenstockError, Unavailable
from penstock_server.model.metrics import Point
from penstock_server.model.streams import Update
from penstock_server.postgres import migrations
from penstock_server.postgres.database import Database
from penstock_server.postgres.embedded import Embedded

BUDGET = 100_000
COUNT = 3_000
CUT = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"


class Writing:
    """A client that puts `COUNT` records, a few at a time, and opens again whenever its stream ends."""

    def __init__(self, ingest: Ingest, run: RunRef) -> None:
        self.acknowledged = 0
        self._ingest = ingest
        self._run = run
        self._opening = hello(run)
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self.acknowledged < COUNT:
            with suppress(PenstockError):
                writer = await self._ingest.open(CALLER, self._run, self._opening)
                self.acknowledged = writer.hwm
                sender = Sender(seq=writer.hwm + 1)
                for first in range(writer.hwm, COUNT, 10):
                    await writer.put(sender.batch(logs(first, min(10, COUNT - first))))
                    self.acknowledged = writer.hwm
                    await asyncio.sleep(0.002)
                await writer.reached(COUNT)
                self.acknowledged = writer.hwm
            await asyncio.sleep(0.05)

    async def reached(self, count: int) -> None:
        async with asyncio.timeout(30):
            while self.acknowledged < count:
                await asyncio.sleep(0.005)

    async def stuck(self) -> None:
        """Until the buffer is as full as it gets, or nothing has come through for a while."""
        async with asyncio.timeout(30):
            while True:
                before = self.acknowledged
                await asyncio.sleep(0.5)
                if self.acknowledged == before < COUNT:
                    return

    async def done(self) -> None:
        await self._task


async def exact(db: Database, run: RunRef) -> None:
    shown = await plain_sql(db, run.run_id)
    assert {name: sorted(points) for name, points in shown.items()} == expected(logs(0, COUNT))
    async with db.connection() as conn:
        rows = await conn.fetch("SELECT count, last_step FROM run_metrics WHERE run_id = $1", run.run_id)
    assert [tuple(row) for row in rows] == [(COUNT, COUNT - 1)] * 2


def name_of(dsn: str) -> str:
    return dsn.partition("?")[0].rpartition("/")[2]


@pytest.fixture
def administrator(postgres: Any, run: Any) -> Iterator[asyncpg.Connection]:
    """A connection to another database of the same server, which no trouble reaches."""
    conn = run(asyncpg.connect(postgres.dsn("postgres")))
    yield conn
    run(conn.close())


async def test_a_database_that_is_read_only_for_a_while(
    dsn: str, db: Database, administrator: asyncpg.Connection
) -> None:
    name, run = name_of(dsn), await make_run(db)
    async with working(db, BUDGET) as ingest:
        writing = Writing(ingest, run)
        await writing.reached(100)
        await administrator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await administrator.execute(CUT, name)
        await writing.stuck()
        assert ingest._budget.used <= BUDGET
        await administrator.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await writing.done()  # connections that were made meanwhile are read-only for ever: none of them is kept
        assert ingest.problem is None
    await exact(db, run)


async def test_who_waits_for_nothing_is_not_called_failing(
    dsn: str, db: Database, administrator: asyncpg.Connection
) -> None:
    """Single batches are given up. A server that is not ready gets no more of them, and must come back by itself."""
    name, run = name_of(dsn), await make_run(db)
    async with working(db, BUDGET) as ingest:
        metrics = Metrics(db, ingest)
        await metrics.log_batch(CALLER, run.run_id, [Point("loss", 1.0, 0, 5)], {}, {})
        await administrator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await administrator.execute(CUT, name)
        with pytest.raises(Unavailable):
            await metrics.log_batch(CALLER, run.run_id, [Point("loss", 2.0, 1, 5)], {}, {})
        await administrator.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        async with asyncio.timeout(30):
            while ingest.problem is not None:
                await asyncio.sleep(0.02)


async def test_a_batch_that_is_refused_once_the_database_is_back_is_the_end_of_failing(
    dsn: str, db: Database, administrator: asyncpg.Connection
) -> None:
    name, run = name_of(dsn), await make_run(db)
    async with working(db, BUDGET) as ingest:
        await ingest.log(CALLER, run, [], [Update(True, "a", "1")], None)
        await administrator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await administrator.execute(CUT, name)
        clashing = asyncio.create_task(ingest.log(CALLER, run, [], [Update(True, "a", "2")], None))
        async with asyncio.timeout(30):
            while "failing" not in (ingest.problem or ""):
                await asyncio.sleep(0.01)
        await administrator.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        with pytest.raises(ParamChanged):
            await clashing
        assert ingest.problem is None


async def test_a_database_that_is_out_of_connections(
    postgres: Any, dsn: str, db: Database, administrator: asyncpg.Connection
) -> None:
    name, run = name_of(dsn), await make_run(db)
    await administrator.execute(f"CREATE ROLE few_{name} LOGIN CONNECTION LIMIT 30")
    async with db.connection() as conn:
        await conn.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO few_{name}")
    poor = await Database.open(dsn.replace("postgres:@", f"few_{name}@", 1), max_connections=4)
    try:
        async with working(poor, BUDGET) as ingest:
            writing = Writing(ingest, run)
            await writing.reached(100)
            await administrator.execute(f"ALTER ROLE few_{name} CONNECTION LIMIT 0")
            await administrator.execute(CUT, name)
            await writing.stuck()
            assert ingest._budget.used <= BUDGET
            # Not `ingest.problem`: when the connection is cut in a commit, nobody is left who waits for a flush.
            await administrator.execute(f"ALTER ROLE few_{name} CONNECTION LIMIT 30")
            await writing.done()
        await exact(db, run)
    finally:
        await poor.close()
        async with db.connection() as conn:
            await conn.execute(f"DROP OWNED BY few_{name}")
        await administrator.execute(CUT, name)
        await administrator.execute(f"DROP ROLE few_{name}")


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 8 MB; the test is skipped where none can be mounted."""
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "penstock", str(directory)], check=False)
    if mounted.returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


async def test_a_disk_that_is_full(dsn: str, db: Database, administrator: asyncpg.Connection) -> None:
    """The points' own disk, in a tablespace of theirs. What else PostgreSQL writes has room."""
    run = await make_run(db)
    data = Path(await administrator.fetchval("SHOW data_directory"))
    with small_disk(data.parent / f"small-{name_of(dsn)}") as disk:
        os.chown(disk, data.stat().st_uid, -1)
        await administrator.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        try:
            async with db.connection() as conn:
                await conn.execute("ALTER TABLE metric_segments SET TABLESPACE small")
            async with working(db, BUDGET) as ingest:
                writing = Writing(ingest, run)
                await writing.reached(100)
                with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                    while True:
                        filler.write(bytes(4096))
                await writing.stuck()
                assert ingest._budget.used <= BUDGET
                assert "failing" in (ingest.problem or "")
                (disk / "filler").unlink()
                await writing.done()
                assert ingest.problem is None
            await exact(db, run)
        finally:
            (disk / "filler").unlink(missing_ok=True)
            async with db.connection() as conn:
                await conn.execute("ALTER TABLE metric_segments SET TABLESPACE pg_default")
            await administrator.execute("DROP TABLESPACE small")


@asynccontextmanager
async def own_postgresql(directory: Path) -> AsyncIterator[tuple[Embedded, Database]]:
    """A PostgreSQL of the test's own, with our tables."""
    server = Embedded(directory)
    await asyncio.to_thread(server.start)
    try:
        await migrations.migrate(server.dsn)
        db = await Database.open(server.dsn)
        yield server, db
        await db.close()
    finally:
        await asyncio.to_thread(server.stop)


async def test_postgresql_is_stopped_at_once_in_mid_transaction_again_and_again(tmp_path: Path) -> None:
    async with own_postgresql(tmp_path / "pg") as (server, db):
        run = await make_run(db)
        async with working(db, BUDGET) as ingest:
            writing = Writing(ingest, run)
            for times in range(1, 5):
                await writing.reached(COUNT // 6 * times)
                async with db.connection() as conn:
                    # Its flush stands in the middle of its transaction when the end comes.
                    holding = conn.transaction()
                    await holding.start()
                    await conn.execute("SELECT FROM run_metrics WHERE run_id = $1 FOR UPDATE", run.run_id)
                    await in_transaction(server)
                    postmaster = psutil.Process(int((tmp_path / "pg/data/postmaster.pid").read_text().split()[0]))
                    postmaster.send_signal(3)  # SIGQUIT: immediate shutdown
                    await gone(postmaster)
                    with suppress(PenstockError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                        await holding.rollback()
                await asyncio.sleep(0.5)
                assert ingest._budget.used <= BUDGET
                await asyncio.to_thread(server.start)
                ingest.database_answers()
            await writing.done()
        await exact(db, run)


async def gone(process: psutil.Process) -> None:
    """Until it has ended; whoever is its parent by now may not have looked yet."""
    with suppress(psutil.NoSuchProcess):
        async with asyncio.timeout(60):
            while process.status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.02)


async def in_transaction(server: Embedded) -> None:
    """Until somebody waits for a lock."""
    conn = await asyncpg.connect(server.dsn)
    try:
        async with asyncio.timeout(30):
            while not await conn.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                await asyncio.sleep(0.01)
    finally:
        conn.terminate()
