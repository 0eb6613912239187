"""Signs of life of uploads that somebody writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from penstock_server.core.receiving import only
from penstock_server.model.errors import Unavailable, UploadGone
from penstock_server.model.uploads import Upload
from penstock_server.postgres import uploads
from penstock_server.postgres.database import Database

SECONDS = uploads.DEAD_AFTER_MS / 1000 / 3


@asynccontextmanager
async def steadily(db: Database, *written: Upload) -> AsyncIterator[None]:
    """Inside, others are told that somebody writes them. Raises UploadGone when one is not ours any more."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(SECONDS)
            with suppress(Unavailable):
                await once(db, *written)

    try:
        async with asyncio.TaskGroup() as group:
            beats = group.create_task(beat())
            yield
            beats.cancel()
    except ExceptionGroup as errors:
        raise only(errors) from None


async def once(db: Database, *written: Upload) -> None:
    """One sign. Raises UploadGone."""
    async with db.connection() as conn:
        for gone in await uploads.touch(conn, *written):
            raise UploadGone(gone.hex)
