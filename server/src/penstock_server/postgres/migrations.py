"""The schema's history: numbered SQL files, each applied once, in order, and never edited afterwards."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock_server.model.errors import FailedPrecondition
from penstock_server.postgres import database
from penstock_server.postgres.database import Connection

DIRECTORY = Path(__file__).parent / "migrations"
COMMAND = "penstock-server migrate"

# Any number, the same for ever: whoever holds this lock migrates, the others wait and find it done.
_LOCK = "SELECT pg_advisory_lock(7364627309)"
# Bounds the wait for another who migrates, and for the tables that a running server holds.
_PATIENCE = "SET lock_timeout = '120s'"
_TABLE = """
CREATE TABLE IF NOT EXISTS migrations (
    name       text PRIMARY KEY,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_EXISTS = "SELECT to_regclass('migrations') IS NOT NULL"
_APPLIED = "SELECT name, sha256 FROM migrations ORDER BY name"
_RECORD = "INSERT INTO migrations (name, sha256) VALUES ($1, $2)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: "0001_tracking", its SQL, and the checksum of that."""

    name: str
    sql: str
    sha256: str

    @property
    def number(self) -> int:
        """Its place in the order."""
        return _number(self.name)


def known(directory: Path = DIRECTORY) -> list[Migration]:
    """The migrations of this server, in order. Raises FailedPrecondition when two have one number."""
    found: list[Migration] = []
    for path in sorted(directory.glob("[0-9][0-9][0-9][0-9]_*.sql")):
        sql = path.read_text(encoding="utf-8")  # line ends of any system are the same text
        found.append(Migration(path.stem, sql, hashlib.sha256(sql.encode()).hexdigest()))
    for before, after in itertools.pairwise(found):
        if before.number == after.number:
            raise FailedPrecondition(f"{before.name} and {after.name} have one number: give the newer the next")
    return found


async def migrate(dsn: str, directory: Path = DIRECTORY) -> list[str]:
    """Applies what is missing, each file in a transaction, and returns the names. Nothing to do is fine.

    Raises FailedPrecondition when the database's history is not ours, Unavailable when it does not answer.
    """
    migrations = known(directory)
    conn = await database.connect(dsn, statement_seconds=None)
    try:
        with database.translated():
            await conn.execute(_PATIENCE)
            await conn.execute(_LOCK)
            await conn.execute(_TABLE)
            applied = dict(await conn.fetch(_APPLIED))
            _compare(migrations, applied)
            missing = [migration for migration in migrations if migration.name not in applied]
            for migration in missing:
                async with conn.transaction():
                    await conn.execute(migration.sql)
                    await conn.execute(_RECORD, migration.name, migration.sha256)
            return [migration.name for migration in missing]
    finally:
        await conn.close(timeout=5)  # gives the lock up


async def check(dsn: str, directory: Path = DIRECTORY) -> None:
    """Returns when the database has just our migrations. Raises FailedPrecondition saying what to do, Unavailable."""
    migrations = known(directory)
    conn = await database.connect(dsn)
    try:
        with database.translated():
            applied = await _applied(conn)
    finally:
        await conn.close(timeout=5)
    _compare(migrations, applied)
    missing = [migration.name for migration in migrations if migration.name not in applied]
    if missing:
        raise FailedPrecondition(f"the database lacks {', '.join(missing)}; run: {COMMAND}")


async def _applied(conn: Connection) -> Mapping[str, str]:
    if not await conn.fetchval(_EXISTS):
        return {}
    return dict(await conn.fetch(_APPLIED))


def _compare(migrations: list[Migration], applied: Mapping[str, str]) -> None:
    """Refuses a database that has what we do not know, has it differently, or lacks what goes before what it has."""
    ours = {migration.name: migration.sha256 for migration in migrations}
    newer = sorted(applied.keys() - ours.keys())
    if newer:
        raise FailedPrecondition(
            f"the database has {', '.join(newer)}, which this server does not know: "
            "it was migrated by a newer release; run that or a later one"
        )
    edited = sorted(name for name in applied if applied[name] != ours[name])
    if edited:
        raise FailedPrecondition(
            f"{', '.join(edited)} was edited after it was applied to this database: put the file back as it was "
            f"released, put the change into a new migration, and run: {COMMAND}"
        )
    latest = max(map(_number, applied), default=0)
    passed_over = [each.name for each in migrations if each.name not in applied and each.number < latest]
    if passed_over:
        raise FailedPrecondition(
            f"the database lacks {', '.join(passed_over)}, yet has later migrations: the files are not those of a "
            f"release; number what is new above {latest:04}"
        )


def _number(name: str) -> int:
    return int(name[:4])
