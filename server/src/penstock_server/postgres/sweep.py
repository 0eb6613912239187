"""What is to be removed from the artifacts' store, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from penstock_server.model.artifacts import UploadId
from penstock_server.postgres.clock import NOW_MS
from penstock_server.postgres.database import Connection
from penstock_server.postgres.uploads import DEAD_AFTER_MS, LATE_MS


@dataclass(frozen=True, slots=True)
class Due:
    """Something in the store that nobody needs. `token`: what the store calls its upload; None when it has none."""

    id: UploadId
    key: str
    token: str | None


# Nobody else takes them for a while; who fell while removing them leaves them to the next. An upload that is taken
# here is written no more: its attempts need state 1. Of those that somebody writes, some are touched less often than
# $1 may say.
_TAKE = f"""
UPDATE artifact_blobs b SET state = 3, live = false, touched_ms = {NOW_MS} + $2
  FROM (SELECT id FROM artifact_blobs
         WHERE state <> 2 AND touched_ms <= {NOW_MS}
           AND (state = 3 OR touched_ms <= {NOW_MS} - CASE WHEN live THEN greatest($1, {DEAD_AFTER_MS}) ELSE $1 END)
         ORDER BY touched_ms LIMIT $3 FOR UPDATE SKIP LOCKED) due
 WHERE b.id = due.id RETURNING b.id, b.key, b.token
"""  # noqa: S608  # only constants are put together


async def take(conn: Connection, resume_ms: int, lease_ms: int, limit: int) -> list[Due]:
    """What is to be removed, the longest due first, for the caller alone until `lease_ms` have passed.

    Uploads that broke off are to be removed when there was no sign of life for `resume_ms`.
    """
    return [Due(*row) for row in await conn.fetch(_TAKE, resume_ms, lease_ms, limit)]


_PUT_BACK = f"UPDATE artifact_blobs SET touched_ms = {NOW_MS} + $2 WHERE id = ANY($1) AND state = 3"  # noqa: S608


async def put_back(conn: Connection, ids: Sequence[UploadId], wait_ms: int) -> None:
    """What was taken and is still there: anybody may take it again after `wait_ms`."""
    await conn.execute(_PUT_BACK, ids, wait_ms)


_FORGET = "DELETE FROM artifact_blobs WHERE id = ANY($1) AND state = 3"


async def forget(conn: Connection, ids: Sequence[UploadId]) -> None:
    """The store has no more of these; their keys can be used again."""
    await conn.execute(_FORGET, ids)


_KNOWN = "SELECT token FROM artifact_blobs WHERE token = ANY($1)"


async def known(conn: Connection, tokens: Collection[str]) -> set[str]:
    """Those of these uploads in the store that have a row here. Looks through all rows."""
    return {row[0] for row in await conn.fetch(_KNOWN, tokens)}


_RELEASE = f"""
WITH released AS (
    DELETE FROM artifacts WHERE ctid = ANY (ARRAY (SELECT ctid FROM artifacts WHERE owner_id = ANY($1) LIMIT $2))
    RETURNING blob_id)
UPDATE artifact_blobs b SET state = 3, touched_ms = {NOW_MS} FROM released WHERE b.id = released.blob_id
"""  # noqa: S608  # only constants are put together
_FILES = 1_000
# One that somebody writes becomes no artifact any more, and is found by its age. Of one that seems dead something may
# yet arrive.
_GIVE_UP = f"""
UPDATE artifact_blobs SET state = 3, live = false, touched_ms = touched_ms + {LATE_MS}
 WHERE owner_id = ANY($1) AND state = 1 AND (NOT live OR touched_ms < {NOW_MS} - {DEAD_AFTER_MS})
"""  # noqa: S608


async def release(conn: Connection, owner_ids: Sequence[UUID]) -> None:
    """Leaves all files of these owners (OwnerRef.id) to the sweeper. They must be gone, or about to go for good.

    Without a transaction around it each statement is one, of a bounded piece. Who deletes the owner's row in the same
    transaction does that before this: it waits for what is being entered, and nothing is entered after it.
    """
    while _count(await conn.execute(_RELEASE, owner_ids, _FILES)) == _FILES:
        pass
    await conn.execute(_GIVE_UP, owner_ids)


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])
