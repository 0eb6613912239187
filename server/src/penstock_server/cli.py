"""The command `penstock-server`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
import uvloop

from penstock_server import app, data_dir, doctor, failures, logs, supervisor
from penstock_server.config import FILE_VARIABLE, PREFIX, Address, ConfigError, Loaded, Settings, load
from penstock_server.core.retention import Retention
from penstock_server.importing.command import from_mlflow
from penstock_server.model.errors import FailedPrecondition
from penstock_server.postgres import migrations
from penstock_server.postgres.database import Database
from penstock_server.postgres.embedded import Embedded

log = structlog.get_logger(__name__)

_DESCRIPTION = "The Penstock server: experiment tracking over gRPC, on PostgreSQL."

_EPILOGUE = f"""\
Every setting is a flag, a variable ({PREFIX}DATA_DIR for --data-dir), and a key of a TOML file (data_dir).
Flags go over variables, variables over the file.

examples:
  penstock-server serve                               all under ./.penstock, for this machine only
  {PREFIX}DATABASE_URL=postgresql://… penstock-server migrate
  {PREFIX}DATABASE_URL=postgresql://… penstock-server serve --workers 4
  penstock-server serve --config penstock.toml
  penstock-server gc --older-than 30d                 what was deleted so long ago; with --yes it is removed

exit codes: 0 as asked, 1 it did not work, 2 the configuration or the command line is wrong, 70 a bug
"""

_COMMANDS = {
    "serve": "run the server until SIGTERM or Ctrl-C",
    "migrate": "bring the database to this server's revision; nothing happens when it is there",
    "check-config": "print every setting and where it comes from, or all that is wrong",
    "gc": "remove for good what was deleted longer ago than a retention period; without --yes, only say what that is",
    "import": "bring in what an MLflow server, database or mlruns directory has; again, and it goes on where it ended",
    "doctor": "look at configuration, data directory, ports, artifacts and database, and say what to fix",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command, and returns the exit code."""
    given = vars(_parser().parse_args(arguments))
    command, file = given.pop("command"), given.pop("config", None)
    wanted = {name: given.pop(name, None) for name in _IMPORT}
    age_ms, for_good = given.pop("older_than", _GC_AGE_MS), given.pop("yes", False)
    try:
        loaded = load(given, file)
    except ConfigError as error:
        print("The configuration cannot be used:", *error.problems, sep="\n  ", file=sys.stderr)
        return failures.USAGE
    settings = loaded.settings
    logs.configure(settings.log_format, settings.log_level)
    match command:
        case "serve":
            return failures.exit_code(lambda: _serve(loaded))
        case "migrate":
            return failures.exit_code(lambda: asyncio.run(_migrate(settings)))
        case "gc":
            return failures.exit_code(lambda: asyncio.run(_gc(settings, age_ms, for_good=for_good)))
        case "import":
            return failures.exit_code(lambda: asyncio.run(_import(settings, wanted)))
        case "doctor":
            return asyncio.run(_doctor(settings))
        case _:
            print(*loaded.lines(), sep="\n")
            return failures.OK


def _serve(loaded: Loaded) -> None:
    settings = loaded.settings
    log.debug("settings", settings=loaded.lines())
    for name in ("grpc_address", "http_address"):
        address: Address = getattr(settings, name)
        if not address.loopback:
            log.warning(
                "listening where others can reach it, and there are no accounts yet: whoever reaches this address can "
                "read, change and delete everything",
                setting=name,
                address=str(address),
            )
    with data_dir.hold(settings.data_dir, settings.drain_seconds) as lock:
        if settings.workers == 1:
            uvloop.run(app.run_alone(settings, lambda grpc, http: _announce(settings, grpc, http)))
        else:
            uvloop.run(supervisor.run_several(settings, lambda grpc, http: _announce(settings, grpc, http), lock))


def _announce(settings: Settings, grpc: Address, http: Address) -> None:
    """Says once that the server is there, and how to use it."""
    if not logs.for_people(settings.log_format):
        addresses = {"grpc_address": str(grpc), "http_address": str(http)}
        kept = {"data_dir": str(settings.data_dir), "artifacts": _artifacts(settings)}
        log.info("serving", **addresses, database=settings.database, **kept)
        return
    print(
        f"Penstock {version('penstock-server')} is ready.",
        f"  gRPC      {grpc}",
        f"  HTTP      http://{http.dial}  (/health /ready /metrics)",
        f"  database  {settings.database}",
        f"  data      {settings.data_dir}",
        f"  artifacts {_artifacts(settings)}",
        f"Clients find it with  export PENSTOCK_URL={grpc.dial}",
        "Ctrl-C stops it.",
        sep="\n",
        flush=True,
    )


def _artifacts(settings: Settings) -> str:
    only = " and nothing else" if settings.artifacts_only else ""
    return f"{settings.store.uri()} ({settings.artifacts_mode}{only})"


async def _migrate(settings: Settings) -> None:
    if settings.database_url is not None:
        applied = await migrations.migrate(settings.database_url.get_secret_value())
    else:
        with data_dir.hold(settings.data_dir, settings.drain_seconds):
            async with app.embedded(settings) as (_, applied):
                pass
    print(*(f"applied {name}" for name in applied) if applied else ("nothing to do",), sep="\n")


async def _gc(settings: Settings, age_ms: int, *, for_good: bool) -> None:
    async with _database(settings) as dsn, app.store(settings) as store:
        db = await Database.open(dsn, max_connections=2)
        try:
            retention = Retention(db, age_ms)
            if for_good:
                removal = await retention.remove(store, app.resume_ms(settings))
            else:
                removal = await retention.survey()
        finally:
            await db.close()
    things = [_count(removal.runs, "run"), *([_count(removal.models, "logged model")] if removal.models else ())]
    things += [_count(removal.traces, "trace")] if removal.traces else []
    print(
        f"{'removed' if for_good else 'to remove'}: {', '.join(things)} and "
        f"{_count(removal.experiments, 'experiment')}, with {_count(removal.points, 'point')} and "
        f"{_count(removal.files, 'file')} of {_size(removal.bytes)}"
    )
    if removal.versions:
        named = ", ".join(removal.versions[:_NAMED]) + (", …" if removal.versions[_NAMED:] else "")
        lost = "lost" if for_good else "would lose"
        print(f"{_count(len(removal.versions), 'version')} of models {lost} files: {named}")
    if removal.trouble is not None:
        print("files are left in the store; any server removes them later, and so does this command")
        raise removal.trouble
    if not for_good and (removal.runs or removal.models or removal.experiments):
        print("nothing is removed yet; the same with --yes removes it for good")


# What of an import is no setting.
_IMPORT = ("kind", "source", "registry", "experiments", "artifacts", "dry_run")


async def _import(settings: Settings, wanted: dict[str, Any]) -> None:
    async with _database(settings) as dsn, app.store(settings) as store:
        tally = await from_mlflow(
            dsn,
            store,
            wanted["source"],
            wanted["registry"],
            wanted["experiments"] or [],
            wanted["artifacts"] or "copy",
            dry_run=bool(wanted["dry_run"]),
        )
    print(*tally.lines(), sep="\n")
    if not wanted["dry_run"] and not tally.whole:
        raise FailedPrecondition("not all that is in the source is here; above stands what, and why")


_NAMED = 10


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[str]:
    """The address of the database, whether a server runs on it or not. An embedded one that is stopped is started."""
    running = Embedded(settings.data_dir / "postgres")
    if settings.database_url is not None or running.accepts():
        dsn = running.dsn if settings.database_url is None else settings.database_url.get_secret_value()
        await migrations.check(dsn)
        yield dsn
    elif not (settings.data_dir / "postgres").exists():
        raise FailedPrecondition(
            f"{settings.data_dir} has no database; name the server's with --data-dir or --database-url"
        )
    else:
        with data_dir.hold(settings.data_dir, settings.drain_seconds):
            async with app.embedded(settings) as (database, _):
                yield database.dsn


def _size(size: int) -> str:
    step = min(4, max(0, size.bit_length() - 1) // 10)
    return f"{size / 1024**step:.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[step]}"


async def _doctor(settings: Settings) -> int:
    bad = 0
    async for finding in doctor.examine(settings):
        print(finding, flush=True)
        bad += finding.verdict is doctor.Verdict.BAD
    print(f"\n{bad} to fix before a server starts here." if bad else "\nA server will start here.")
    return failures.FAILED if bad else failures.OK


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("penstock-server", description=_DESCRIPTION, epilog=_EPILOGUE, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('penstock-server')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, purpose in _COMMANDS.items():
        command = commands.add_parser(
            name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", argument_default=argparse.SUPPRESS
        )
        if name == "gc":
            command.add_argument("--yes", action="store_true", help="remove it, for good")
            command.add_argument(
                "--older-than",
                type=_age,
                metavar="AGE",
                help="what was deleted longer ago than this: 30d, 12h, 45m or 0, which is a minute (default: 30d)",
            )
        if name == "import":
            _add_import(command)
        command.add_argument("--config", type=Path, metavar="FILE", help=f"TOML file with settings ({FILE_VARIABLE})")
        for setting, field in Settings.model_fields.items():
            shown: dict[str, Any] = (
                {"action": "store_true"} if field.annotation is bool else {"metavar": _METAVARS.get(setting, "N")}
            )
            command.add_argument(
                "--" + setting.replace("_", "-"),
                help=f"{field.description}{_default(field.default)}".replace("%", "%%"),
                **shown,
            )
    return parser


def _add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument("kind", choices=["mlflow"], help="what wrote it")
    command.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="URI",
        help="a tracking URI (http://host:5000), a database (sqlite:///mlflow.db) or an mlruns directory",
    )
    command.add_argument("--registry", metavar="URI", help="where the registry is (default: with the rest)")
    command.add_argument(
        "--experiments", nargs="+", metavar="NAME", help="only these, by name or id, and without the registry"
    )
    command.add_argument(
        "--artifacts",
        choices=["copy", "reference", "none"],
        help="copy files into this server's store, leave them where clients find them by themselves, or leave them out "
        "(default: copy)",
    )
    command.add_argument("--dry-run", action="store_true", help="count what there is, and write nothing")


_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000}
_GC_AGE_MS = 30 * _UNITS_MS["d"]


def _age(text: str) -> int:
    """An age in ms."""
    number, unit = text[:-1], text[-1:]
    if text == "0":
        return 0
    if not (number.isascii() and number.isdigit() and len(number) <= 6 and unit in _UNITS_MS):
        raise argparse.ArgumentTypeError(f"{text!r} is no age; write it such as 30d, 12h, 45m or 0")
    return int(number) * _UNITS_MS[unit]


_METAVARS = {
    "data_dir": "DIR",
    "grpc_address": "HOST:PORT",
    "http_address": "HOST:PORT",
    "database_url": "URL",
    "log_format": "FORMAT",
    "log_level": "LEVEL",
    "ingest_buffer_bytes": "SIZE",
    "max_message_bytes": "SIZE",
    "drain_seconds": "SECONDS",
    "artifacts_root": "DIR|URL",
    "artifacts_mode": "MODE",
    "artifacts_resume_hours": "HOURS",
    "s3_endpoint": "URL",
    "s3_region": "REGION",
    "s3_addressing": "STYLE",
    "s3_encryption": "KIND",
    "s3_kms_key": "KEY",
    "s3_ca_bundle": "FILE",
}


def _default(default: object) -> str:
    if default is None or default is False:
        return ""
    shown = default.human_readable() if hasattr(default, "human_readable") else default
    return f" (default: {shown})"
