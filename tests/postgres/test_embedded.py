"""The embedded PostgreSQL when something is wrong with it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from penstock_server.postgres.embedded import Embedded, EmbeddedError, to_the_end


async def test_who_is_cancelled_ends_also_when_what_was_under_way_fails() -> None:
    """A stop comes while a database that cannot be started is tried again."""
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(30)
        raise EmbeddedError("it cannot be started")

    task = asyncio.create_task(to_the_end(work))
    await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_empty_claim_is_told(tmp_path: Path) -> None:
    """As a crash of the machine may leave it. Whoever watches the database tries again."""
    database = Embedded(tmp_path / "postgres")
    database.start()
    claim = tmp_path / "postgres/data/postmaster.pid"
    found = claim.read_text()
    try:
        claim.write_text("")
        with pytest.raises(EmbeddedError, match="the number of a process"):
            Embedded(tmp_path / "postgres").start()
    finally:
        claim.write_text(found)
        database.stop()
