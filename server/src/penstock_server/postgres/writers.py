"""Writers: who logs by stream, and the mark up to which each one's records are committed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import Fenced, InvalidArgument
from penstock_server.model.runs import RunId
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
        raise Fenced(
            f"writer {hello.writer_id.hex} was taken over by a process with epoch {row['epoch']}; "
            f"this one has {hello.epoch}"
        )
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


_SET_REFUSED = "UPDATE writers SET refused = $2 WHERE id = $1 AND refused <> $2"


async def set_refused(conn: Connection, writer_id: WriterId, refused: int) -> None:
    """Notes how many records the writer says it could not keep."""
    await conn.execute(_SET_REFUSED, writer_id, refused)
