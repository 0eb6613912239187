"""The parts of an import wired together."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from penstock_server.blobs.store import Store
from penstock_server.core import mark
from penstock_server.core.access import Access
from penstock_server.core.uploads import Uploads
from penstock_server.importing.files import Files
from penstock_server.importing.importer import FilesMode, Import, Plan
from penstock_server.importing.mlflow_package import MlflowPackage, told
from penstock_server.importing.progress import Progress
from penstock_server.importing.source import Source
from penstock_server.importing.tally import Tally
from penstock_server.ingest.precedence import Precedence
from penstock_server.model.access import DEFAULT_WORKSPACE, Need, Permission, Resource
from penstock_server.postgres.database import Database

_CONNECTIONS = 6


async def from_mlflow(
    dsn: str,
    store: Store,
    tracking_uri: str,
    registry_uri: str | None,
    experiments: list[str],
    artifacts: str,
    *,
    dry_run: bool,
) -> Tally:
    """Brings in what MLflow has at an address: what was found there and here.

    Raises FailedPrecondition when it cannot be read, Unavailable when the database or the store is away: what was
    brought in by then stays, and the next import goes on.
    """
    package = await asyncio.to_thread(MlflowPackage, tracking_uri, registry_uri)
    plan = Plan(told(tracking_uri), experiments, FilesMode(artifacts), dry_run)
    tally, progress = Tally(), Progress()
    db = await Database.open(dsn, max_connections=_CONNECTIONS)
    try:
        await mark.check(db, store)
        if not dry_run:
            await mark.place(db, store)
        everything = Need(Permission.ADMIN, Resource.WORKSPACE)
        caller = await Access(db).authorise("import", DEFAULT_WORKSPACE, everything)
        async with aclosing(Uploads(db, store, Precedence(), direct=False)) as uploads:
            files = Files(db, uploads, package, tally)
            await Import(db, Source(package), files, plan, tally, progress).run(caller)
        progress.end()
    finally:
        await db.close()
    return tally
