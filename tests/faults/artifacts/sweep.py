"""The server's own sweeper, called when a test wants it, on rows that are made old enough for it."""

from __future__ import annotations

import os
import time
from unittest import mock

from artifacts.depots import Bucket, Directory
from penstock_server.blobs import S3Options, open_store
from penstock_server.core.sweep import Sweeper
from penstock_server.model.artifacts import parse_root
from penstock_server.postgres.database import Database

_SECONDS = 60
_AGE = "UPDATE artifact_blobs SET touched_ms = touched_ms - 1000 * 86400000::bigint WHERE state <> 2"
_LEFT = "SELECT count(*) FROM artifact_blobs WHERE state <> 2"


async def sweep(dsn: str, depot: Directory | Bucket) -> None:
    """Until there is nothing more for it. Servers may be sweeping, too."""
    deadline = time.monotonic() + _SECONDS
    db = await Database.open(dsn)
    try:
        with mock.patch.dict(os.environ, depot.credentials):
            store = await open_store(parse_root(depot.root), S3Options(endpoint=depot.endpoint))
            sweeper = Sweeper(db, store, resume_ms=1)
            while True:
                async with db.connection() as conn:
                    await conn.execute(_AGE)
                await sweeper.sweep()
                async with db.connection() as conn:
                    left = await conn.fetchval(_LEFT)
                if not left or time.monotonic() > deadline:
                    break
            await sweeper.sweep_strays(shortest_ms=0)
            await store.close()
    finally:
        await db.close()
