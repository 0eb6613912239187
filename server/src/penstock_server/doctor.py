"""What `penstock-server doctor` looks at: will a server start here, and if not, what is to be done."""

from __future__ import annotations

import enum
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from penstock_server import app, ports
from penstock_server.blobs import check
from penstock_server.config import CONNECTIONS_BESIDE_POOL, Address, Settings
from penstock_server.model.errors import PenstockError
from penstock_server.postgres import fitness, migrations
from penstock_server.postgres.embedded import Embedded, EmbeddedError


class Verdict(enum.Enum):
    """How it stands."""

    GOOD = "ok"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` says what to do, where something is to be done."""

    verdict: Verdict
    subject: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"\n{'':<10}{'':<16}→ {self.remedy}" if self.remedy else ""
        return f"{self.verdict.value:<10}{self.subject:<16}{self.found}{remedy}"


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Looks at everything, and leaves nothing changed."""
    running = _held(settings.data_dir)
    yield _data_dir(settings.data_dir, running=running)
    for finding in _ports(settings, running=running):
        yield finding
    async for finding in _artifacts(settings):
        yield finding
    if settings.database_url is not None:
        async for finding in _database(settings, settings.database_url.get_secret_value(), settings.database):
            yield finding
        return
    try:
        embedded = Embedded(settings.data_dir / "postgres")
        yield Finding(Verdict.GOOD, "database", embedded.describe())
        if embedded.accepts():
            async for finding in _database(settings, embedded.dsn, "embedded PostgreSQL"):
                yield finding
    except EmbeddedError as error:
        yield Finding(Verdict.BAD, "database", str(error))


def _data_dir(path: Path, *, running: bool) -> Finding:
    if running:
        remedy = "stop it before another starts on this directory, or give that one its own with --data-dir"
        return Finding(Verdict.WARNING, "data directory", f"{path} is in use by a server that runs now", remedy)
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        remedy = "change its owner or mode, or choose another with --data-dir"
        return Finding(Verdict.BAD, "data directory", f"{existing} cannot be written to", remedy)
    return Finding(Verdict.GOOD, "data directory", f"{path}{'' if path.exists() else ', will be made'}")


def _ports(settings: Settings, *, running: bool) -> Iterator[Finding]:
    named: list[tuple[str, str, Address]] = [
        ("gRPC", "grpc_address", settings.grpc_address),
        ("HTTP", "http_address", settings.http_address),
    ]
    for subject, setting, address in named:
        try:
            ports.check(setting, address)
        except ports.PortError as error:
            if running:
                yield Finding(Verdict.GOOD, subject, f"{address}, in use by the server that runs now, presumably")
            else:
                yield Finding(Verdict.BAD, subject, *str(error).split("; ", 1))
        else:
            open_to_all = "" if address.loopback else "open to others, and there are no accounts yet"
            remedy = (
                f"listen on 127.0.0.1, or let only those reach it whom you trust ({setting})" if open_to_all else ""
            )
            verdict = Verdict.WARNING if open_to_all else Verdict.GOOD
            yield Finding(
                verdict, subject, f"{address} is free" + (f", but {open_to_all}" if open_to_all else ""), remedy
            )


async def _artifacts(settings: Settings) -> AsyncIterator[Finding]:
    options = replace(app.s3_options(settings), attempts=2)  # who waits here looks at it
    async for sight in check.examine(settings.store, options, direct=settings.artifacts_mode == "direct"):
        bad = Verdict.BAD if sight.grave else Verdict.WARNING
        yield Finding(bad if sight.remedy else Verdict.GOOD, sight.subject, sight.found, sight.remedy)


async def _database(settings: Settings, dsn: str, name: str) -> AsyncIterator[Finding]:
    try:
        found = await fitness.examine(dsn)
    except PenstockError as error:
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        yield Finding(Verdict.BAD, "database", f"{name}: {error}{cause}", "start it, or correct database_url")
        return
    yield Finding(Verdict.GOOD, "database", f"{name} answers: PostgreSQL {found.version}, user {found.username}")
    if found.read_only:
        yield Finding(Verdict.BAD, "database", "is read-only", "point database_url at the primary")
    # Whether synchronous_commit is off, the connection has asked already.
    if found.fsync:
        yield Finding(Verdict.GOOD, "durability", f"fsync on, synchronous_commit {found.synchronous_commit}")
    else:
        lost = "fsync is off: a crash of the machine would lose acknowledged points, or the database"
        yield Finding(Verdict.BAD, "durability", lost, "ALTER SYSTEM SET fsync = on, then reload")
    needed = settings.workers * (settings.database_connections + CONNECTIONS_BESIDE_POOL)
    if needed > found.max_connections:
        few = f"{found.max_connections} allowed, up to {needed} needed"
        yield Finding(Verdict.WARNING, "connections", few, "raise max_connections there, or lower database_connections")
    else:
        yield Finding(Verdict.GOOD, "connections", f"{found.max_connections} allowed, up to {needed} needed")
    yield await _revision(dsn, may_create=found.may_create)
    if found.forbidden:
        tables = ", ".join(found.forbidden)
        yield Finding(
            Verdict.BAD,
            "permissions",
            f"{found.username} may not read and change: {tables}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA … TO {found.username}",
        )
    else:
        yield Finding(Verdict.GOOD, "permissions", f"{found.username} may read and change every table")


async def _revision(dsn: str, *, may_create: bool) -> Finding:
    try:
        await migrations.check(dsn)
    except PenstockError as error:
        said, _, command = str(error).partition("; run: ")
        remedy = f"run: {command}" if command else ""
        if command and not may_create:
            remedy += ", as a user who may create tables: this one may not"
        return Finding(Verdict.BAD, "migrations", said, remedy)
    return Finding(Verdict.GOOD, "migrations", "all applied, none edited")


def _held(path: Path) -> bool:
    """Whether a server holds the directory's lock."""
    try:
        descriptor = os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
