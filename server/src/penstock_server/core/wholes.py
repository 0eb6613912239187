"""What becomes of an upload in the store: it is begun, put together, looked at again, or dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import structlog

from penstock_server.blobs.store import Store
from penstock_server.core.shielded import to_its_end
from penstock_server.model.artifacts import Part
from penstock_server.model.errors import ContentMismatch, PenstockError, UploadGone
from penstock_server.model.uploads import Upload
from penstock_server.postgres import uploads
from penstock_server.postgres.database import Database

log = structlog.get_logger(__name__)


async def begin(db: Database, store: Store, upload: Upload) -> str:
    """Begins it in the store; what that calls it. Raises UploadGone."""
    token = await store.begin(upload.key, upload.media_type)
    try:
        async with db.connection() as conn:
            await uploads.set_token(conn, upload, token)
    except BaseException:
        with suppress(PenstockError):  # then it is a stray, and goes later
            await to_its_end(store.abort(upload.key, token))
        raise
    return token


async def complete(store: Store, upload: Upload, token: str | None, size: int | None, parts: Sequence[Part]) -> bool:
    """Has the store put the parts together. Whether that was done before: then what is there must be looked at.

    Raises UploadGone. `size`: None where it is not known.
    """
    assert token is not None
    try:
        await store.complete(upload.key, token, parts)
    except UploadGone:
        there = await store.size(upload.key)
        if there is not None and size in (None, there):
            return True
        raise UploadGone(upload.id.hex) from None
    return False


async def read_digest(store: Store, upload: Upload, size: int) -> bytes:
    """Of what is in the store."""
    digest = hashlib.sha256()
    await store.hash(upload.key, digest, 0, size)
    return digest.digest()


async def drop(db: Database, *failed: Upload) -> None:
    """Has the sweeper remove them, all of one attempt. What cannot be said now, the sweeper finds by its age."""

    async def mark() -> None:
        with told_only("uploads that failed could not be marked", failed[0]):
            async with db.connection() as conn:
                await uploads.drop(conn, [upload.id for upload in failed], failed[0].attempt)

    await to_its_end(mark())


@contextmanager
def told_only(event: str, upload: Upload) -> Iterator[None]:
    """Inside, what the database raises is only logged: something else has failed before, and that is what is told."""
    try:
        yield
    except PenstockError as error:
        log.warning(event, owner=str(upload.owner.owner), path=upload.path, error=str(error))


def mismatch(path: str) -> ContentMismatch:
    """Of the digest."""
    return ContentMismatch("sha256", f"is not that of the bytes of {path!r} which have come; send it again")
