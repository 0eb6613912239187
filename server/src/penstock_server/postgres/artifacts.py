"""Artifacts in PostgreSQL: what is to be seen of an owner's files. Every function works in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_server.model.artifacts import Artifact, UploadId
from penstock_server.model.owners import OwnerRef
from penstock_server.postgres.database import Connection, Row

# Whoever has just been told where it is can begin to read it.
DELETED_GRACE_MS = 60_000

# Above all paths: 201 characters of four bytes, where a path has 800 bytes at most.
_LAST = "\U0010ffff" * 201

_FIELDS = "path, size, sha256, media_type, updated_ms"


def artifact(row: Row) -> Artifact:
    """A row with all fields of an artifact."""
    return Artifact(row["path"], False, row["size"], row["sha256"], row["media_type"], row["updated_ms"])


@dataclass(frozen=True, slots=True)
class Stored:
    """An artifact, and where in the store it is."""

    artifact: Artifact
    blob_id: UploadId
    key: str


_FIND = """
SELECT a.path, a.size, a.sha256, a.media_type, a.updated_ms, a.blob_id, b.key
  FROM artifacts a JOIN artifact_blobs b ON b.id = a.blob_id
 WHERE a.owner_id = $1 AND a.path = $2 AND a.workspace_id = $3
"""


async def find(conn: Connection, owner: OwnerRef, path: str) -> Stored | None:
    """The artifact at a path; None when there is none, or a directory."""
    row = await conn.fetchrow(_FIND, owner.id, path, owner.workspace_id)
    return None if row is None else Stored(artifact(row), row["blob_id"], row["key"])


_HAS = "SELECT EXISTS (SELECT FROM artifacts WHERE owner_id = $1 AND path >= $2 || '/' AND path < $2 || '0')"


async def is_directory(conn: Connection, owner: OwnerRef, path: str) -> bool:
    """Whether there is something below a path."""
    found: bool = await conn.fetchval(_HAS, owner.id, path)
    return found


# $2: from here on; $3: to before this.
_FILES = f"SELECT {_FIELDS} FROM artifacts WHERE owner_id = $1 AND path >= $2 AND path < $3 ORDER BY path LIMIT $4"  # noqa: S608

# Goes from child to child by the index: after a directory it seeks what comes behind all that is in it ('0' is what
# comes after '/'), after a file what comes next (no name has a character below chr(1)). $5: how long the directory's
# path is, with its '/'. The rows come in the order in which they are found.
_CHILDREN = f"""
WITH RECURSIVE children AS (
    SELECT first.*, strpos(substr(path, $5 + 1), '/') AS slash
      FROM (SELECT {_FIELDS} FROM artifacts
             WHERE owner_id = $1 AND path >= $2 AND path < $3 ORDER BY path LIMIT 1) first
    UNION ALL
    SELECT next.*, strpos(substr(next.path, $5 + 1), '/')
      FROM children c, LATERAL (
        SELECT {_FIELDS} FROM artifacts
         WHERE owner_id = $1 AND path < $3
           AND path >= CASE WHEN c.slash > 0 THEN left(c.path, $5 + c.slash - 1) || '0' ELSE c.path || chr(1) END
         ORDER BY path LIMIT 1) next)
SELECT {_FIELDS} FROM children LIMIT $4
"""  # noqa: S608  # only constants are put together


# Going from child to child takes some 20 times as long as to read as many rows in turn. So rows are read in turn as
# long as most of them are children: of so many first, then of ever more.
_TAKEN = 200
_MORE = 5


async def children(
    conn: Connection, owner: OwnerRef, directory: str, after: Artifact | None, limit: int
) -> list[Artifact]:
    """The files and directories in a directory ("": the root), behind `after`."""
    prefix, end = directory and f"{directory}/", _end(directory)
    found: list[Artifact] = []
    taken = _TAKEN
    while len(found) < limit:
        wanted = min(taken, limit - len(found))
        rows = await conn.fetch(_FILES, owner.id, _behind(prefix, after), end, wanted)
        some = _folded(rows, prefix)
        found += some
        if len(rows) < wanted:
            break
        after, taken = some[-1], taken * _MORE
        if len(some) < len(rows) // 2 and len(found) < limit:
            wanted, taken = min(_TAKEN, limit - len(found)), _TAKEN
            rows = await conn.fetch(_CHILDREN, owner.id, _behind(prefix, after), end, wanted, len(prefix))
            some = _folded(rows, prefix)
            found += some
            if len(rows) < wanted:
                break
            after = some[-1]
    return found


def _folded(rows: Sequence[Row], prefix: str) -> list[Artifact]:
    """The children that files are, or are in."""
    found: list[Artifact] = []
    start, inside = len(prefix), "/"  # of no directory is this the beginning
    for row in rows:
        path = row["path"]
        slash = path.find("/", start)
        if slash < 0:
            found.append(artifact(row))
        elif not path.startswith(inside):
            inside = path[: slash + 1]
            found.append(Artifact(path[:slash], is_directory=True))
    return found


def _behind(prefix: str, after: Artifact | None) -> str:
    return prefix if after is None else after.path + ("0" if after.is_directory else "\1")


async def files(
    conn: Connection, owner: OwnerRef, directory: str, after: Artifact | None, limit: int
) -> list[Artifact]:
    """All files below a directory ("": the root), behind `after`."""
    begin = (directory and f"{directory}/") if after is None else after.path + "\1"
    return [artifact(row) for row in await conn.fetch(_FILES, owner.id, begin, _end(directory), limit)]


def _end(directory: str) -> str:
    return f"{directory}0" if directory else _LAST


_DELETE = f"""
WITH deleted AS (
    DELETE FROM artifacts
     WHERE owner_id = $1 AND (path = $2 OR path >= $2 || '/' AND path < $2 || '0') AND workspace_id = $3
    RETURNING blob_id),
blobs AS (
    UPDATE artifact_blobs b
       SET state = 3, touched_ms = floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint + {DELETED_GRACE_MS}
      FROM deleted WHERE b.id = deleted.blob_id)
SELECT count(*) FROM deleted
"""  # noqa: S608  # only constants are put together


async def delete(conn: Connection, owner: OwnerRef, path: str) -> int:
    """Deletes an artifact, or all below a directory; how many that were. The sweeper removes them a minute later."""
    deleted: int = await conn.fetchval(_DELETE, owner.id, path, owner.workspace_id)
    return deleted
