"""What a wrong server or client would do. Each is a small change of the kind that a tired person makes.

A mutant changes the product's functions in this process, before the product starts. `None` in tests is the sound build.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

MUTANTS: dict[str, Callable[[], None]] = {}


def mutant(change: Callable[[], None]) -> Callable[[], None]:
    """Has the function's name."""
    MUTANTS[change.__name__] = change
    return change


@mutant
def mark_apart() -> None:
    """The mark moves in a transaction of its own, after that of the points."""
    from penstock_server.ingest import pipeline
    from penstock_server.postgres import writers

    advance, commit = writers.advance, pipeline.commit
    later: dict[Any, Sequence[writers.Advance]] = {}

    async def look(conn: Any, moves: Sequence[writers.Advance]) -> set[Any]:
        later[conn] = moves
        marks = {move.writer_id: (move.lo, move.epoch) for move in moves}
        rows = await conn.fetch("SELECT id, hwm, epoch FROM writers WHERE id = ANY($1)", list(marks))
        return {row["id"] for row in rows if marks[row["id"]] == (row["hwm"], row["epoch"])}

    async def commit_(conn: Any, taken: Any, *given: Any) -> Any:
        outcome = await commit(conn, taken, *given)
        await advance(conn, later.pop(conn, ()))
        return outcome

    writers.advance = look
    pipeline.commit = commit_


@mutant
def no_compare_and_set() -> None:
    """The mark is set, wherever it stands."""
    from penstock_server.postgres import writers

    _strike_out(writers, "_ADVANCE", "AND w.hwm = v.lo ")


@mutant
def hasty_ack() -> None:
    """The Ack goes out when the flush begins."""
    from penstock_server.ingest import pipeline

    commit = pipeline.commit

    async def commit_(conn: Any, taken: Any, *given: Any) -> Any:
        for parcel in taken:
            parcel.origin.committed(parcel, ())
            parcel.origin._wake()
        await asyncio.sleep(0.1)  # as long as it takes to be sent
        return await commit(conn, taken, *given)

    pipeline.commit = commit_


@mutant
def cached_mark() -> None:
    """A writer that comes again is told the mark as this process knows it, whatever has become of its flushes."""
    from penstock_server.ingest.ingest import Ingest
    from penstock_server.ingest.writer import Writer

    mark, put = Ingest._mark, Writer.put
    known: dict[Any, int] = {}

    async def put_(writer: Writer, batch: Any) -> None:
        await put(writer, batch)
        known[writer.writer_id] = writer._next - 1

    async def mark_(ingest: Ingest, *given: Any) -> int:
        *_, hello = given
        return max(await mark(ingest, *given), known.get(hello.writer_id, 0))

    Writer.put = put_
    Ingest._mark = mark_


@mutant
def no_epoch() -> None:
    """Whoever knows a writer's id may write for it."""
    from penstock_server.postgres import writers

    _strike_out(writers, "_OPEN", " AND w.epoch <= excluded.epoch")
    _strike_out(writers, "_ADVANCE", " AND w.epoch = v.epoch")


@mutant
def by_value() -> None:
    """A frame that equals one which came before is taken for the same."""
    from penstock_server.ingest import frames

    read = frames.read
    seen: set[tuple[int, int, int, bytes]] = set()

    def read_(batch: Any, shapes: Any) -> Any:
        found, refusals = read(batch, shapes)
        if found is None or found.kind_of is not None:
            return found, refusals
        values = found.values.reshape(found.count, -1)
        keep = []
        for at in range(found.count):
            key = id(found.kinds[0]), int(found.steps[at]), int(found.times_ms[at]), values[at].tobytes()
            if key not in seen:
                seen.add(key)
                keep.append(at)
        if not keep:
            return None, refusals
        kept = replace(
            found,
            count=len(keep),
            steps=found.steps[keep],
            times_ms=found.times_ms[keep],
            values=values[keep].reshape(-1),
        )
        return kept, refusals

    frames.read = read_


@mutant
def no_checksum() -> None:
    """Of the client: what is in a spool is taken as it is."""
    from penstock.spool import reader

    reader._crc32 = lambda data: 0
    reader._unpack_check = lambda data, at: (0,)


def _strike_out(module: ModuleType, statement: str, text: str) -> None:
    before = getattr(module, statement)
    assert text in before, f"{statement} has changed, and this mutant must follow it"
    setattr(module, statement, before.replace(text, ""))
