"""The same world with one thing in it that is wrong: what a search that is worth its time must find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.spool import reader
from penstock_server.ingest import pipeline
from penstock_server.ingest.ingest import Ingest
from penstock_server.ingest.writer import Writer
from penstock_server.postgres import writers
from world import database
from world.database import Model
from world.whole import Wrong


def no_compare_and_set(patches: pytest.MonkeyPatch, model: Model) -> None:
    """The mark is set, wherever it stands."""
    model.compares = False


def no_epoch(patches: pytest.MonkeyPatch, model: Model) -> None:
    """Whoever knows a writer's id may write for it."""
    model.knows_epochs = False


def mark_apart(patches: pytest.MonkeyPatch, model: Model) -> None:
    """The mark moves in a transaction of its own, after that of the points."""
    commit = pipeline.commit
    later: dict[Any, Sequence[writers.Advance]] = {}

    async def look(conn: Any, moves: Sequence[writers.Advance]) -> set[Any]:
        later[conn] = moves
        rows = model.state.writers
        return {each.writer_id for each in moves if (each.lo, each.epoch) == _mark(rows[each.writer_id])}

    async def commit_(conn: Any, taken: Any, *given: Any) -> Any:
        outcome = await commit(conn, taken, *given)
        transaction = conn.transaction()
        await transaction.start()
        await database.advance(conn, later.pop(conn))
        await transaction.commit()
        return outcome

    patches.setattr(writers, "advance", look)
    patches.setattr(pipeline, "commit", commit_)


def hasty_ack(patches: pytest.MonkeyPatch, model: Model) -> None:
    """The Ack goes out when the flush begins."""
    commit = pipeline.commit

    async def commit_(conn: Any, taken: Any, *given: Any) -> Any:
        for parcel in taken:
            parcel.origin.committed(parcel, ())
            parcel.origin._wake()
        return await commit(conn, taken, *given)

    patches.setattr(pipeline, "commit", commit_)


def cached_mark(patches: pytest.MonkeyPatch, model: Model) -> None:
    """A writer that comes again is told the mark as the process knows it, whatever has become of its flushes."""
    mark, put = Ingest._mark, Writer.put

    async def put_(writer: Writer, batch: Any) -> None:
        await put(writer, batch)
        known[writer.writer_id] = writer._next - 1

    async def mark_(ingest: Ingest, *given: Any) -> int:
        *_, hello = given
        return max(await mark(ingest, *given), known.get(hello.writer_id, 0))

    known: dict[Any, int] = {}
    patches.setattr(Writer, "put", put_)
    patches.setattr(Ingest, "_mark", mark_)


def no_checksum(patches: pytest.MonkeyPatch, model: Model) -> None:
    """What is in the spool is taken as it is."""
    patches.setattr(reader, "_crc32", lambda data: 0)
    patches.setattr(reader, "_unpack_check", lambda data, at: (0,))


def _mark(row: database.Row) -> tuple[int, int]:
    return row.hwm, row.epoch


WRONG: dict[str, Wrong] = {
    each.__name__: each for each in (no_compare_and_set, no_epoch, mark_apart, hasty_ack, cached_mark, no_checksum)
}
