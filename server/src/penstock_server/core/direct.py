"""Files that clients bring to the store themselves: they are told where, and say when they have.

Of what neither size nor digest are told, clients cut it as they like, and it is read once when they have brought it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penstock_server import telemetry
from penstock_server.blobs.store import Store
from penstock_server.core import wholes
from penstock_server.core.following import Followed, Following
from penstock_server.core.ledger import Ledger
from penstock_server.model.access import Caller
from penstock_server.model.artifacts import PARTS_MOST, Artifact, Part, UploadId, check_sha256, check_size
from penstock_server.model.errors import (
    ContentMismatch,
    InvalidArgument,
    PenstockError,
    Retryable,
    StoreRefused,
    UploadGone,
)
from penstock_server.model.limits import check_text
from penstock_server.model.owners import Owner
from penstock_server.model.uploads import Plan, Route, Upload
from penstock_server.postgres import owners, uploads
from penstock_server.postgres.database import Database
from penstock_server.postgres.uploads import Complete

_SIGNED_SECONDS = 3600
_SIGNED_MOST = 100
_ETAG_LIMIT = 200


class Direct:
    """The part of `Uploads` for a server that lets clients write the store."""

    def __init__(self, db: Database, store: Store, ledger: Ledger) -> None:
        self._db = db
        self._store = store
        self._ledger = ledger
        self._following = Following(store)

    async def plan(self, artifact: Artifact | None, upload: Upload) -> Plan:
        """Begins it: where its bytes go."""
        token = await wholes.begin(self._db, self._store, upload)
        file_uri = self._store.file_uri(token)
        if file_uri is not None:
            self._following.begin(upload, token)
        route = Route.SIGNED if file_uri is None else Route.FILE
        return Plan(artifact, replace(upload, token=token), route=route, file_uri=file_uri or "")

    async def sign(self, caller: Caller, owner: Owner, upload_id: UploadId, first: int, count: int) -> list[str]:
        """Addresses for parts of an upload that goes straight to the store. Raises UploadGone."""
        if not 1 <= count <= _SIGNED_MOST:
            raise InvalidArgument("count", f"{count} is not within 1 to {_SIGNED_MOST}")
        async with self._db.connection() as conn:
            ref = await owners.locate_active(conn, caller.workspace_id, owner)
            upload = await uploads.find_open(conn, ref, upload_id)
            if upload is None or upload.token is None:
                raise UploadGone(upload_id.hex)
            await uploads.touch(conn, upload)
        most = PARTS_MOST if upload.size is None else len(_sizes(upload))
        if not 1 <= first <= most - count + 1:
            raise InvalidArgument("first", f"{first} to {first + count - 1} is not within the parts, 1 to {most}")
        return [
            await self._store.sign_part(upload.key, upload.token, number, _SIGNED_SECONDS)
            for number in range(first, first + count)
        ]

    async def complete(
        self,
        caller: Caller,
        owner: Owner,
        upload_id: UploadId,
        sha256: bytes,
        etags: Sequence[tuple[int, str]],
        *,
        force: bool = False,
    ) -> Artifact:
        """Ends an upload that went straight to the store, in these parts. Ending it twice is fine.

        Raises ContentMismatch, UploadGone, FailedPrecondition as `Uploads.begin`, and what the store raises.
        """
        check_sha256(sha256)
        async with self._db.connection() as conn:
            ref = await owners.locate_active(conn, caller.workspace_id, owner)
            upload = await uploads.find_open(conn, ref, upload_id)
            done = await uploads.made_of(conn, ref, upload_id) if upload is None else None
        if done is not None:
            return done
        if upload is None or upload.token is None:
            raise UploadGone(upload_id.hex)
        is_file = self._store.file_uri(upload.token) is not None
        if not is_file and not sha256 and upload.size is not None:
            raise InvalidArgument("sha256", "must be told: the bytes have not come by this server")
        parts = [] if is_file else _parts(upload, etags)
        followed = await self._following.take(upload.token) if is_file else None
        try:
            await wholes.complete(self._store, upload, upload.token, upload.size, parts)
            size = await self._store.size(upload.key)
            if size is None or size != (size if upload.size is None else upload.size):
                raise ContentMismatch("size", f"{upload.size} bytes were told of {upload.path!r}; there are {size}")
            looked_at = is_file or not sha256
            found = await self._digest(upload, check_size(size), followed, sha256) if looked_at else sha256
            if found != (sha256 or found):
                raise wholes.mismatch(upload.path)
            artifact = await self._ledger.complete(Complete(upload, size, found, caller if force else None))
        except UploadGone:
            async with self._db.connection() as conn:
                done = await uploads.made_of(conn, ref, upload_id)
            if done is None:
                await wholes.drop(self._db, upload)
                raise
            return done  # another has ended it at the same time
        except (Retryable, StoreRefused):
            raise
        except PenstockError:
            await wholes.drop(self._db, upload)
            raise
        telemetry.artifact_uploads.labels("stored").inc()
        return artifact

    async def forget(self, upload: Upload) -> None:
        """It is given up."""
        if upload.token is not None:
            await self._following.end(upload.token)

    async def close(self) -> None:
        """Ends what runs in the background."""
        await self._following.close()

    async def _digest(self, upload: Upload, size: int, followed: Followed | None, sha256: bytes) -> bytes:
        """Of what a client has written. What was found while it grew is believed when it is what was told."""
        if followed is not None:
            await self._store.hash(upload.key, followed.digest, followed.end, size)
            if followed.digest.digest() == sha256:
                return sha256
        return await wholes.read_digest(self._store, upload, size)


def _sizes(upload: Upload) -> list[int]:
    """How the file is cut: the sizes of its parts. An empty one has one."""
    size = upload.size or 0
    return [min(upload.part_bytes, size - start) for start in range(0, size, upload.part_bytes)] or [0]


def _parts(upload: Upload, etags: Sequence[tuple[int, str]]) -> list[Part]:
    sizes = _sizes(upload) if upload.size is not None else [0] * len(etags)  # the client has cut it
    if [number for number, _ in etags] != list(range(1, len(sizes) + 1)):
        raise InvalidArgument("parts", f"must be all {len(sizes)}, in turn from 1")
    return [
        Part(number, size, check_text("parts.etag", etag, _ETAG_LIMIT))
        for (number, etag), size in zip(etags, sizes, strict=True)
    ]
