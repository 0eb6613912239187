"""Uploads in PostgreSQL: the rows that stand for what is in the store.

Every function works in the caller's transaction. What may change which paths there are (`claim`, `settle`, deleting)
does so under the owner's `hold_files`.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from penstock_server.model.access import Caller
from penstock_server.model.artifacts import (
    Artifact,
    Part,
    UploadId,
    key_of,
    parents,
    part_bytes,
    version_key_of,
)
from penstock_server.model.errors import FailedPrecondition, PenstockError, UploadGone
from penstock_server.model.owners import OwnerRef
from penstock_server.model.runs import new_run_id
from penstock_server.model.uploads import NewUpload, Upload
from penstock_server.postgres import model_sources
from penstock_server.postgres.artifacts import artifact
from penstock_server.postgres.clock import NOW_MS
from penstock_server.postgres.database import Connection, Row

# What a reader has open when an artifact is replaced, it can read to its end.
REPLACED_GRACE_MS = 3_600_000
# Whoever writes an upload gives a sign of life much more often than this.
DEAD_AFTER_MS = 30_000
# What was sent to the store may still arrive there after its stream has failed, or was given up; after this it does
# not. Until then the key stays taken, and the row stays for the sweeper.
LATE_MS = 600_000


# For each path: the artifact there; whether it is a directory; whether the store has, or may have, something there or
# below. '0' is what comes after '/'.
_LOOK = """
SELECT w.path, a.size, a.sha256, a.media_type, a.updated_ms,
       EXISTS (SELECT FROM artifacts d WHERE d.owner_id = $1 AND d.path >= w.path || '/' AND d.path < w.path || '0'),
       EXISTS (SELECT FROM artifact_blobs b WHERE b.owner_id = $1 AND b.path = w.path),
       EXISTS (SELECT FROM artifact_blobs b
                WHERE b.owner_id = $1 AND b.path >= w.path || '/' AND b.path < w.path || '0')
  FROM unnest($2::text[]) w (path) LEFT JOIN artifacts a ON a.owner_id = $1 AND a.path = w.path
"""


@dataclass(slots=True)
class Tree:
    """What there is at some paths and the directories that they are in: as found, and as `settle` leaves it."""

    files: dict[str, Artifact]
    directories: set[str]
    stored: set[str]
    stored_below: set[str]

    def conflict(self, path: str) -> FailedPrecondition | None:
        """Why no file can be at `path`."""
        if path in self.directories:
            return FailedPrecondition(f"{path!r} is a directory, so it cannot be a file; delete it first")
        for parent in parents(path):
            if parent in self.files:
                return FailedPrecondition(f"{parent!r} is a file, so it cannot be a directory; delete it first")
        return None

    def replaces(self, path: str, size: int | None, sha256: bytes) -> bool:
        """Whether what is at `path` is another file than this, as far as is told (None, empty: it is not)."""
        there = self.files.get(path)
        return there is not None and (size not in (None, there.size) or sha256 not in (b"", there.sha256))

    def stores(self, path: str) -> bool:
        """Whether the store has something that a file at `path` would be in the way of."""
        return path in self.stored or path in self.stored_below or not self.stored.isdisjoint(parents(path))

    def will_store(self, path: str) -> None:
        """Something else may be stored there soon."""
        self.stored.add(path)
        self.stored_below.update(parents(path))

    def has(self, artifact: Artifact) -> None:
        """It is there now."""
        self.files[artifact.path] = artifact
        self.directories.update(parents(artifact.path))


async def look(conn: Connection, owner: OwnerRef, paths: Collection[str]) -> Tree:
    """What matters to files that are to be at these paths, in a transaction that has the owner's `hold_files`."""
    wanted = {*paths, *(parent for path in paths for parent in parents(path))}
    tree = Tree({}, set(), set(), set())
    for path, size, sha256, media_type, updated_ms, directory, stored, stored_below in await conn.fetch(
        _LOOK, owner.id, sorted(wanted)
    ):
        if sha256 is not None:
            tree.files[path] = Artifact(path, False, size, sha256, media_type, updated_ms)
        if directory:
            tree.directories.add(path)
        if stored:
            tree.stored.add(path)
        if stored_below:
            tree.stored_below.add(path)
    return tree


async def refusals(
    conn: Connection, owner: OwnerRef, tree: Tree, wanted: Sequence[NewUpload]
) -> dict[NewUpload, FailedPrecondition]:
    """Those of these that would replace what a version of a model stands on, and why they cannot."""
    replacing = [new for new in wanted if not new.force and tree.replaces(new.path, new.size, new.sha256)]
    refused = await model_sources.refusals(conn, owner, [new.path for new in replacing])
    return {new: refused[new.path] for new in replacing if new.path in refused}


_CLAIM = f"""
INSERT INTO artifact_blobs (id, workspace_id, experiment_id, owner_id, path, key, size, sha256, media_type, part_bytes,
                            touched_ms, created_ms)
SELECT u.id, $1, $2, $3, u.path, u.key, u.size, u.sha256, u.media_type, u.part_bytes, t.ms, t.ms
  FROM unnest($4::uuid[], $5::text[], $6::text[], $7::bigint[], $8::bytea[], $9::text[], $10::integer[])
       u (id, path, key, size, sha256, media_type, part_bytes), (SELECT {NOW_MS} AS ms) t
"""  # noqa: S608  # only constants are put together


async def claim(
    conn: Connection, owner: OwnerRef, tree: Tree, wanted: Sequence[NewUpload]
) -> list[Upload | Artifact | FailedPrecondition]:
    """Of each, in turn: an upload that begins, the artifact that it would only repeat, or why there can be none."""
    refused = await refusals(conn, owner, tree, wanted)
    outcomes = [refused.get(new) or _claimed(owner, new, tree) for new in wanted]
    claims = [(new, made) for new, made in zip(wanted, outcomes, strict=True) if isinstance(made, Upload)]
    if claims:
        await conn.execute(
            _CLAIM,
            owner.workspace_id,
            owner.experiment_id,
            owner.id,
            [made.id for _, made in claims],
            [made.path for _, made in claims],
            [made.key for _, made in claims],
            [made.size for _, made in claims],
            [new.sha256 or None for new, _ in claims],
            [made.media_type for _, made in claims],
            [made.part_bytes for _, made in claims],
        )
    return outcomes


def _claimed(owner: OwnerRef, new: NewUpload, tree: Tree) -> Upload | Artifact | FailedPrecondition:
    there = tree.files.get(new.path)
    if there is not None and new.sha256 == there.sha256 and new.size in (None, there.size):
        return there
    if conflict := tree.conflict(new.path):
        return conflict
    upload_id = UploadId(uuid.UUID(int=new_run_id().int))
    key = version_key_of(owner, new.path, upload_id) if tree.stores(new.path) else key_of(owner, new.path)
    tree.will_store(new.path)
    return Upload(upload_id, owner, new.path, key, 1, None, new.size, new.media_type, part_bytes(new.size))


# A replaced artifact's blob goes later. All of this sees the state before it.
_SETTLE = f"""
WITH settled AS (
    UPDATE artifact_blobs b SET state = 2, live = false, size = u.size, sha256 = u.sha256, touched_ms = t.ms
      FROM unnest($2::uuid[], $3::integer[], $4::bigint[], $5::bytea[]) u (id, attempt, size, sha256),
           (SELECT {NOW_MS} AS ms) t
     WHERE b.id = u.id AND b.attempt = u.attempt AND b.owner_id = $1 AND b.state = 1 RETURNING b.*),
replaced AS (
    UPDATE artifact_blobs b SET state = 3, touched_ms = settled.touched_ms + {REPLACED_GRACE_MS}
      FROM settled JOIN artifacts a USING (owner_id, path) WHERE b.id = a.blob_id),
parts AS (DELETE FROM artifact_parts p USING settled WHERE p.blob_id = settled.id)
INSERT INTO artifacts AS a (owner_id, path, workspace_id, experiment_id, blob_id, size, sha256, media_type, updated_ms)
SELECT owner_id, path, workspace_id, experiment_id, id, size, sha256, media_type, touched_ms FROM settled
ON CONFLICT (owner_id, path) DO UPDATE SET blob_id = excluded.blob_id, size = excluded.size, sha256 = excluded.sha256,
       media_type = excluded.media_type, updated_ms = greatest(a.updated_ms, excluded.updated_ms)
RETURNING blob_id, path, size, sha256, media_type, updated_ms
"""  # noqa: S608  # only constants are put together


@dataclass(frozen=True, slots=True)
class Complete:
    """An upload of which all is in the store: its size and digest.

    `forced_by`: who has it take the place of what a version of a model stands on, too.
    """

    upload: Upload
    size: int
    sha256: bytes
    forced_by: Caller | None = None


async def settle(
    conn: Connection, owner: OwnerRef, tree: Tree, complete: Sequence[Complete]
) -> list[Artifact | PenstockError]:
    """Makes artifacts of them: each in turn, or why it cannot be: UploadGone, FailedPrecondition.

    No path twice, and none inside of another.
    """
    replaced = [
        each.upload.path
        for each in complete
        if each.forced_by is None and tree.replaces(each.upload.path, each.size, each.sha256)
    ]
    refused = await model_sources.refusals(conn, owner, replaced)
    conflicts = [tree.conflict(each.upload.path) or refused.get(each.upload.path) for each in complete]
    fine = [each for each, conflict in zip(complete, conflicts, strict=True) if conflict is None]
    rows = await conn.fetch(
        _SETTLE,
        owner.id,
        [each.upload.id for each in fine],
        [each.upload.attempt for each in fine],
        [each.size for each in fine],
        [each.sha256 for each in fine],
    )
    made = {row["blob_id"]: artifact(row) for row in rows}
    for each in made.values():
        tree.has(each)
    return [
        conflict or made.get(each.upload.id) or UploadGone(each.upload.id.hex)
        for each, conflict in zip(complete, conflicts, strict=True)
    ]


_FIELDS = "b.id, b.path, b.key, b.attempt, b.token, b.size, b.media_type, b.part_bytes"

_HAS_PARTS = "EXISTS (SELECT FROM artifact_parts p WHERE p.blob_id = b.id)"

# Of one without parts there is nothing to go on with, and what was sent may yet come to its key: it can be had only
# before its first stream. The row may have changed while it was waited for, so both look.
_FREE = f"""b.owner_id = $1 AND b.path = $2 AND b.state = 1 AND b.size = $3
       AND CASE WHEN {_HAS_PARTS} THEN b.id = $4 OR NOT b.live OR b.touched_ms < {NOW_MS} - {DEAD_AFTER_MS}
                ELSE b.id = $4 AND b.attempt = 1 END"""
_OFFER = f"""
UPDATE artifact_blobs b SET live = true, touched_ms = {NOW_MS}
 WHERE {_FREE} AND id = (
    SELECT id FROM artifact_blobs b WHERE {_FREE} ORDER BY id = $4 DESC NULLS LAST, touched_ms DESC LIMIT 1)
RETURNING {_FIELDS}
"""  # noqa: S608  # only constants are put together


async def offer(
    conn: Connection, owner: OwnerRef, path: str, size: int, upload_id: UploadId | None
) -> tuple[Upload, list[Part]] | None:
    """An upload of this file that can be gone on with, and its parts without a gap: `upload_id`, or the last that
    nobody writes any more.
    """
    row = await conn.fetchrow(_OFFER, owner.id, path, size, upload_id)
    return None if row is None else (_upload(owner, row), await _parts(conn, row["id"]))


_TAKE_OVER = f"""
UPDATE artifact_blobs b SET attempt = attempt + 1, live = true, touched_ms = {NOW_MS}
 WHERE id = $1 AND owner_id = $2 AND state = 1 AND (attempt = 1 OR {_HAS_PARTS}) RETURNING {_FIELDS}
"""  # noqa: S608  # only constants are put together


async def take_over(conn: Connection, owner: OwnerRef, upload_id: UploadId) -> tuple[Upload, list[Part]]:
    """Makes the caller the one who may write it, and gives its parts without a gap. Raises UploadGone."""
    row = await conn.fetchrow(_TAKE_OVER, upload_id, owner.id)
    if row is None:
        raise UploadGone(upload_id.hex)
    return _upload(owner, row), await _parts(conn, upload_id)


_OPEN = f"SELECT {_FIELDS} FROM artifact_blobs b WHERE id = $1 AND owner_id = $2 AND state = 1"  # noqa: S608  # constants


async def find_open(conn: Connection, owner: OwnerRef, upload_id: UploadId) -> Upload | None:
    """An upload that is open."""
    row = await conn.fetchrow(_OPEN, upload_id, owner.id)
    return None if row is None else _upload(owner, row)


_MADE_OF = """
SELECT a.path, a.size, a.sha256, a.media_type, a.updated_ms
  FROM artifact_blobs b JOIN artifacts a ON a.owner_id = b.owner_id AND a.path = b.path AND a.blob_id = b.id
 WHERE b.id = $1 AND b.owner_id = $2
"""


async def made_of(conn: Connection, owner: OwnerRef, upload_id: UploadId) -> Artifact | None:
    """The artifact that an upload has become, as long as it is there."""
    row = await conn.fetchrow(_MADE_OF, upload_id, owner.id)
    return None if row is None else artifact(row)


def _upload(owner: OwnerRef, row: Row) -> Upload:
    id_, *others = row
    return Upload(id_, owner, *others)


_PARTS = "SELECT number, size, etag, prefix_sha256 FROM artifact_parts WHERE blob_id = $1 ORDER BY number"


async def _parts(conn: Connection, upload_id: UploadId) -> list[Part]:
    parts: list[Part] = []
    for number, size, etag, prefix_sha256 in await conn.fetch(_PARTS, upload_id):
        if number != len(parts) + 1:
            break
        parts.append(Part(number, size, etag, prefix_sha256 or b""))
    return parts


_CUT = """
WITH anew AS (UPDATE artifact_blobs SET token = NULL WHERE id = $1 AND $2 = 0)
DELETE FROM artifact_parts WHERE blob_id = $1 AND number > $2
"""


async def cut(conn: Connection, upload_id: UploadId, number: int) -> None:
    """Forgets the parts after `number`: they come again. Without any before, what the store calls it, too."""
    await conn.execute(_CUT, upload_id, number)


_SET_TOKEN = "UPDATE artifact_blobs SET token = $3 WHERE id = $1 AND attempt = $2 AND state = 1 RETURNING id"  # noqa: S105


async def set_token(conn: Connection, upload: Upload, token: str) -> None:
    """Keeps what the store calls an upload. Raises UploadGone."""
    if await conn.fetchval(_SET_TOKEN, upload.id, upload.attempt, token) is None:
        raise UploadGone(upload.id.hex)


# The row of the upload first, which waits for who takes it over.
_RECORD = f"""
WITH upload AS (
    UPDATE artifact_blobs SET touched_ms = {NOW_MS} WHERE id = $1 AND attempt = $2 AND state = 1 RETURNING id)
INSERT INTO artifact_parts (blob_id, number, size, etag, prefix_sha256) SELECT id, $3, $4, $5, $6 FROM upload
ON CONFLICT (blob_id, number) DO UPDATE
   SET size = excluded.size, etag = excluded.etag, prefix_sha256 = excluded.prefix_sha256
RETURNING number
"""  # noqa: S608  # only constants are put together


async def record(conn: Connection, upload: Upload, part: Part) -> None:
    """Keeps that a part is stored. Raises UploadGone."""
    kept = await conn.fetchval(
        _RECORD, upload.id, upload.attempt, part.number, part.size, part.etag, part.prefix_sha256 or None
    )
    if kept is None:
        raise UploadGone(upload.id.hex)


_TOUCH = f"""
UPDATE artifact_blobs b SET live = $3, touched_ms = {NOW_MS} FROM unnest($1::uuid[], $2::integer[]) u (id, attempt)
 WHERE b.id = u.id AND b.attempt = u.attempt AND b.state = 1 RETURNING b.id
"""  # noqa: S608  # only constants are put together


async def touch(conn: Connection, *written: Upload, live: bool = True) -> set[UploadId]:
    """Gives a sign of life, or of its end: others may go on with it then. Returns those that are another's."""
    ids = [upload.id for upload in written]
    rows = await conn.fetch(_TOUCH, ids, [upload.attempt for upload in written], live)
    return {*ids} - {row["id"] for row in rows}


_DROP = f"""
UPDATE artifact_blobs SET state = 3, live = false, touched_ms = {NOW_MS} + {LATE_MS}
 WHERE id = ANY($1) AND state = 1 AND ($2::integer IS NULL OR attempt = $2)
"""  # noqa: S608  # only constants are put together


async def drop(conn: Connection, upload_ids: Sequence[UploadId], attempt: int | None = None) -> None:
    """Has the sweeper remove open uploads, when nothing of them can arrive any more: those of this attempt, or whoever
    writes them.
    """
    await conn.execute(_DROP, upload_ids, attempt)
