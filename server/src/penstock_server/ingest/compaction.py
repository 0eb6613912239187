"""One compaction of one run: segments in, sorted chunks out, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock_server.model.access import WorkspaceId
from penstock_server.model.runs import RunId
from penstock_server.postgres import binary, chunks, segments
from penstock_server.postgres.chunks import CHUNK_POINTS, Outline
from penstock_server.postgres.database import Database
from penstock_server.postgres.points import Columns, by_metric, concatenate

# What one transaction takes: some millions of points.
_TAKE_BYTES = 16 << 20
# How many old points a compaction rewrites at most for each new one, beyond filling up a chunk.
_REWRITE_RATIO = 4
# How far back a compaction looks for chunks that new points fall into. Points that come later than that make
# overlapping chunks, which readers sort, rather than have everything rewritten.
_REWRITE_CHUNKS = 8


@dataclass(frozen=True, slots=True)
class Moved:
    """What a compaction did. `more`: the run has further segments."""

    points: int
    frames: int
    chunks: int
    more: bool


async def compact(db: Database, run_id: RunId) -> Moved | None:
    """Moves the run's oldest segments to level 1; None when another replica is compacting the run."""
    async with db.transaction() as conn:
        if not await segments.lock(conn, run_id):
            return None
        taken = await segments.oldest(conn, run_id, _TAKE_BYTES)
        if not taken:
            return Moved(0, 0, 0, more=False)
        fresh = await asyncio.to_thread(by_metric, taken)
        rewritten = _to_rewrite(await chunks.tails(conn, run_id, list(fresh), _REWRITE_CHUNKS), fresh)
        old = await chunks.points(conn, rewritten)
        rows = await asyncio.to_thread(_rows, taken[0].workspace_id, run_id, fresh, rewritten, old)
        await chunks.delete(conn, run_id, rewritten)
        await chunks.append(conn, rows)
        await segments.delete(conn, run_id, [segment.id for segment in taken])
        more = await segments.any_left(conn, run_id)
    return Moved(sum(map(len, fresh.values())), sum(len(segment.steps) for segment in taken), len(rows), more)


def _to_rewrite(tails: Sequence[Outline], fresh: Mapping[int, Columns]) -> list[Outline]:
    """Which of a metric's last chunks are to be merged with its new points: from the first that they fall into, and
    the very last when it is short.

    Equal points must stay in the order of arrival, which between chunks is that of their ids. Rewriting a
    metric's last chunks, all of them from some id on, cannot change it.
    """
    by_metric: dict[int, list[Outline]] = {}
    for chunk in tails:
        by_metric.setdefault(chunk.metric_id, []).append(chunk)
    chosen: list[Outline] = []
    for metric, tail in by_metric.items():
        new = fresh[metric]
        first = len(tail) - 1 if tail[-1].points < CHUNK_POINTS else len(tail)
        for position, chunk in enumerate(tail):
            if chunk.first <= new.key(-1) and chunk.last > new.key(0):
                first = min(first, position)
                break
        # A late frame must not rewrite everything after it: then its chunk overlaps others, which readers sort.
        room = max(CHUNK_POINTS, _REWRITE_RATIO * len(new))
        while sum(chunk.points for chunk in tail[first:]) > room:
            first += 1
        chosen.extend(tail[first:])
    return chosen


def _rows(
    workspace_id: WorkspaceId,
    run_id: RunId,
    fresh: Mapping[int, Columns],
    rewritten: Sequence[Outline],
    old: Mapping[int, Columns],
) -> list[Sequence[binary.Field]]:
    before: dict[int, list[Columns]] = {}
    for chunk in rewritten:  # in the order of their ids
        before.setdefault(chunk.metric_id, []).append(old[chunk.id])
    return [
        chunks.row(workspace_id, run_id, metric, piece)
        for metric, new in sorted(fresh.items())
        for piece in chunks.split(concatenate([*before.get(metric, ()), new]).in_order())
    ]
