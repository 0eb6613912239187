"""The PostgreSQL of all campaigns: an embedded one of our own, so that we may harm it; and its databases."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import psutil

from penstock_server.postgres import migrations
from penstock_server.postgres.embedded import Embedded

T = TypeVar("T")
_TEMPLATE = "template_of_faults"
_ROLE = "faults"  # the servers': no superuser, who could not be locked out
_SECONDS = 120


class Ground:
    """Starts with `start`; `close` stops it. `directory` is its own."""

    def __init__(self, directory: Path) -> None:
        self._embedded = Embedded(directory)
        self._pid_file = directory / "data" / "postmaster.pid"
        self._log = directory / "log"
        self._numbers = itertools.count(1)
        self._runner = asyncio.Runner()

    def start(self) -> Ground:
        """Starts it, with a migrated database to copy."""
        self._embedded.start()
        self.execute(f"CREATE ROLE {_ROLE} LOGIN")
        self.execute(f"CREATE DATABASE {_TEMPLATE} OWNER {_ROLE}")
        self.run(migrations.migrate(self.dsn(_TEMPLATE)))
        return self

    def close(self) -> None:
        """Stops it."""
        self._mend()
        self._embedded.stop()
        self._runner.close()

    def dsn(self, database: str, user: str = _ROLE) -> str:
        """The address of one of its databases."""
        return self._embedded.dsn.replace("postgres@/postgres?", f"{user}@/{database}?")

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A database for one campaign: its name."""
        name = f"faults_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {_ROLE} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
        try:
            yield name
        finally:
            self._mend()
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs it to its end."""
        return self._runner.run(coroutine)

    def execute(self, sql: str, database: str = "postgres") -> None:
        """Runs a statement."""

        async def execute() -> None:
            conn = await asyncpg.connect(self.dsn(database, "postgres"))
            try:
                await conn.execute(sql)
            finally:
                await conn.close()

        self.run(execute())

    # Harm.

    def die(self, *, kill: bool) -> None:
        """Immediate shutdown, or SIGKILL of the postmaster."""
        pid = self._postmaster
        os.kill(pid, signal.SIGKILL if kill else signal.SIGQUIT)
        deadline = time.monotonic() + _SECONDS
        while _lives(pid):
            assert time.monotonic() < deadline, "PostgreSQL does not stop"
            time.sleep(0.01)

    def revive(self) -> None:
        """Starts it again: it recovers from its log."""
        self._embedded.start()

    def stand_still(self) -> None:
        """Stops all of its processes where they are, until `go_on`."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def go_on(self) -> None:
        """Lets them run again."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def disconnect(self, database: str) -> None:
        """Ends all connections to a database."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    def read_only(self, database: str, *, on: bool) -> None:
        """Makes it refuse all changes, as a standby does, or take them again."""
        self.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = {'on' if on else 'off'}")
        self.disconnect(database)

    def let_in(self, connections: int) -> None:
        """Lets the servers have so many connections, and no more; -1: all that they want."""
        self.execute(f"ALTER ROLE {_ROLE} CONNECTION LIMIT {connections}")

    @contextlib.contextmanager
    def locked(self, database: str, table: str) -> Iterator[None]:
        """Inside, nobody can write to a table."""
        conn = self.run(asyncpg.connect(self.dsn(database, "postgres")))
        try:
            self.run(conn.execute(f"BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE"))
            yield
        finally:
            self.run(conn.close())

    def _mend(self) -> None:
        """Takes back whatever harm a campaign that was broken off has left."""
        self.go_on()
        self.revive()
        self.let_in(-1)

    @property
    def log(self) -> str:
        """The end of what PostgreSQL has logged."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:]) if self._log.exists() else ""

    @property
    def _postmaster(self) -> int:
        return int(self._pid_file.read_text().split(maxsplit=1)[0])

    def _processes(self) -> list[psutil.Process]:
        try:
            postmaster = psutil.Process(self._postmaster)
            return [postmaster, *postmaster.children(recursive=True)]
        except (OSError, psutil.NoSuchProcess):
            return []


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
