"""Writers: who logs by stream, and the mark up to which each one's records are committed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import Fenced, InvalidArgument, NotActive, NotFound, PenstockError
from penstock_server.model.runs import RunId, format_run_id
from penstock_server.model.streams import Hello, WriterId
from penstock_server.postgres.database import Connection

# A writer belongs to the run and the principal that first opened it. A lower epoch than the row's
# updates nothing; so does another run. `hwm` comes back as it is committed.
_OPEN = """
INSERT INTO writers AS w (id, run_id, workspace_id, principal, epoch, rank, world_size, host, pid, created_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, host = excluded.host, pid = excluded.pid
 WHERE w.run_id = excluded.run_id AND w.principal = excluded.principal AND w.epoch <= excluded.epoch
RETURNING hwm
"""
_LOOK = "SELECT run_id, principal, epoch FROM writers WHERE id = $1"

# The compare-and-set that makes delivery exactly once: the mark moves from `lo` to `hi` in the same
# transaction as the points, or the batch has lost a race and its points do not go in. Ids come
# sorted, so that two flushes seldom wait for each other crosswise; when they do, one is tried again. A deleted run
# takes no records.
_ADVANCE = """
UPDATE writers w SET hwm = v.hi
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::integer[]) AS v (id, lo, hi, epoch), runs r
 WHERE w.id = v.id AND w.hwm = v.lo AND w.epoch = v.epoch AND r.id = w.run_id AND r.lifecycle = 1
RETURNING w.id
"""

# A unary batch with a request id is a writer of one record: whoever inserts the row commits the batch.
_ONCE = """
INSERT INTO writers (id, run_id, workspace_id, principal, epoch, hwm, created_ms)
VALUES ($1, $2, $3, $4, 0, 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
ON CONFLICT (id) DO NOTHING RETURNING id
"""


@dataclass(frozen=True, slots=True)
class Advance:
    """One writer's mark, from `lo` to `hi`."""

    writer_id: WriterId
    lo: int
    hi: int
    epoch: int


async def open_writer(conn: Connection, workspace_id: WorkspaceId, principal: str, hello: Hello) -> int:
    """Makes or takes over the writer and returns its mark. Raises Fenced, InvalidArgument."""
    hwm = await conn.fetchval(
        _OPEN,
        hello.writer_id,
        hello.run_id,
        workspace_id,
        principal,
        hello.epoch,
        hello.rank,
        hello.world_size,
        hello.host,
        hello.pid,
    )
    if hwm is not None:
        return int(hwm)
    row = await conn.fetchrow(_LOOK, hello.writer_id)
    if row is not None and row["run_id"] == hello.run_id and row["principal"] == principal:
        raise Fenced(hello.writer_id.hex, row["epoch"], hello.epoch)
    raise InvalidArgument(
        "hello.writer_id", "belongs to another run or principal; make 16 new random bytes for each run"
    )


async def advance(conn: Connection, moves: Sequence[Advance]) -> set[WriterId]:
    """Moves the marks, and returns whose moved. Who is missing lost a race, or its run is deleted."""
    moves = sorted(moves, key=lambda move: move.writer_id)
    rows = await conn.fetch(
        _ADVANCE,
        [move.writer_id for move in moves],
        [move.lo for move in moves],
        [move.hi for move in moves],
        [move.epoch for move in moves],
    )
    return {WriterId(row["id"]) for row in rows}


async def once(conn: Connection, request: uuid.UUID, run_id: RunId, workspace_id: WorkspaceId, principal: str) -> bool:
    """Whether this request id is new for the run; from now on it is not."""
    return await conn.fetchval(_ONCE, request, run_id, workspace_id, principal) is not None


_HOLD = "SELECT epoch FROM writers WHERE id = $1 FOR NO KEY UPDATE"


async def hold(conn: Connection, writer_id: WriterId, epoch: int) -> None:
    """Keeps other processes from taking the writer over until the transaction ends. Raises Fenced when one has."""
    found = await conn.fetchval(_HOLD, writer_id)
    if found is None:
        raise NotFound("writer", writer_id.hex)
    if found != epoch:
        raise Fenced(writer_id.hex, found, epoch)


# Figures that only grow, and are added to the run's in the same transaction. They stop at what a bigint holds.
_COUNT_REFUSED = """
WITH told AS (
    UPDATE writers w SET refused = $2 FROM (SELECT id, refused FROM writers WHERE id = $1) AS before
     WHERE w.id = before.id AND before.refused < $2 RETURNING w.run_id, $2 - before.refused AS more)
UPDATE runs r SET refused_records = r.refused_records + least(told.more, 9223372036854775807 - r.refused_records),
       updated_ms = greatest(r.updated_ms, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
  FROM told WHERE r.id = told.run_id RETURNING r.id
"""


async def count_refused(conn: Connection, writer_id: WriterId, refused: int) -> bool:
    """Notes how many records a locked writer says that it refused in all. Whether that is more than it had said."""
    return refused > 0 and await conn.fetchval(_COUNT_REFUSED, writer_id, refused) is not None


_COUNT_LOST = """
WITH told AS (
    UPDATE writers w SET lost = w.lost + v.lost
      FROM unnest($2::uuid[], $3::bigint[]) AS v (id, lost) WHERE w.id = v.id)
UPDATE runs SET lost_records = lost_records + least($4, 9223372036854775807 - lost_records),
       updated_ms = greatest(updated_ms, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
 WHERE id = $1
"""


async def count_lost(conn: Connection, run_id: RunId, lost: Mapping[WriterId, int]) -> None:
    """Notes how many more records of the run each of these writers has lost. Their marks were moved before."""
    await conn.execute(_COUNT_LOST, run_id, list(lost), list(lost.values()), sum(lost.values()))


_OUTLIVED = """
SELECT w.id, w.epoch, w.run_id, r.lifecycle = 1 AS active
  FROM unnest($1::uuid[], $2::integer[]) AS v (id, epoch) JOIN writers w USING (id) JOIN runs r ON r.id = w.run_id
 WHERE w.epoch > v.epoch OR r.lifecycle <> 1
"""


async def outlived(conn: Connection, epochs: Mapping[WriterId, int]) -> dict[WriterId, PenstockError]:
    """Of these writers with these epochs, those who can commit no more: NotActive or Fenced says why."""
    rows = await conn.fetch(_OUTLIVED, list(epochs), list(epochs.values()))
    return {
        id_: Fenced(id_.hex, epoch, epochs[id_]) if active else NotActive("run", format_run_id(run_id))
        for id_, epoch, run_id, active in rows
    }
