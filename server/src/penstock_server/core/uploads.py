"""The use cases of uploads: a file comes in by a stream, as a whole or after what is stored of it already."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import structlog

from penstock_server import telemetry
from penstock_server.blobs.store import Bytes, Store
from penstock_server.core import beating, wholes
from penstock_server.core.batches import Batches
from penstock_server.core.direct import Direct
from penstock_server.core.ledger import Ledger
from penstock_server.core.receiving import Digests, Receiving
from penstock_server.core.shielded import to_its_end
from penstock_server.ingest.budget import Budget
from penstock_server.ingest.precedence import Precedence
from penstock_server.model.access import Caller
from penstock_server.model.artifacts import (
    MIB,
    Artifact,
    Part,
    UploadId,
    check_path,
    check_sha256,
    check_size,
    media_type,
)
from penstock_server.model.errors import (
    ContentMismatch,
    FailedPrecondition,
    InvalidArgument,
    Retryable,
    StoreRefused,
    UploadGone,
)
from penstock_server.model.owners import Owner
from penstock_server.model.uploads import NewUpload, Plan, Trailer, Upload
from penstock_server.postgres import owners, uploads
from penstock_server.postgres.database import Database
from penstock_server.postgres.uploads import Complete

log = structlog.get_logger(__name__)

# Parts of all uploads of the process that are being gathered, or are on their way to the store. What is small has room
# of its own, so that it need not wait for large files on slow lines.
BUFFER_BYTES = 64 * MIB
_SMALL_BUFFER_BYTES = 16 * MIB
_SMALL_BYTES = MIB


@dataclass(slots=True)
class _Live:
    """A stream that writes an upload."""

    attempt: int
    task: asyncio.Task[object]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False


class Uploads:
    """Brings files in. Everything may raise InvalidArgument, NotFound and NotActive of the owner, and Unavailable."""

    def __init__(self, db: Database, store: Store, precedence: Precedence, *, direct: bool) -> None:
        """With `direct`, files can go straight to the store."""
        self._db = db
        self._store = store
        self._precedence = precedence
        self._ledger = Ledger(db)
        self._direct = Direct(db, store, self._ledger) if direct else None
        self._budget = Budget(BUFFER_BYTES, self._measure)
        self._small_budget = Budget(_SMALL_BUFFER_BYTES, self._measure)
        self.batches = Batches(db, store, precedence, self._ledger, self._small_budget)
        self._digests = Digests()
        self._live: dict[UploadId, _Live] = {}

    def _measure(self, _: float) -> None:
        telemetry.artifact_buffer_bytes.set(self._budget.used + self._small_budget.used)

    async def begin(self, caller: Caller, new: NewUpload) -> Plan:
        """What there is to do for a file: nothing, or an upload, begun or to be gone on with.

        Raises FailedPrecondition when there is a directory at the path, a file where it needs a directory, or something
        else that a version of a model stands on.
        """
        new = _checked(new)
        if new.size is None:
            raise InvalidArgument("size", "must be told")
        async with self._db.transaction() as conn:
            owner = await owners.locate_active(conn, caller.workspace_id, new.owner)
            tree = await uploads.look(conn, owner, [new.path])
            artifact = tree.files.get(new.path)
            if artifact and artifact.sha256 == new.sha256 and artifact.size == new.size:
                return Plan(artifact)
            if conflict := tree.conflict(new.path):
                raise conflict
            for refused in (await uploads.refusals(conn, owner, tree, [new])).values():
                raise refused
            if self._direct is None:
                found = await uploads.offer(conn, owner, new.path, new.size, new.upload_id)
                if found is not None:
                    return Plan(artifact, found[0], tuple(found[1]))
        claimed = await self._ledger.claim(caller.workspace_id, new)
        if isinstance(claimed, Artifact):
            return Plan(claimed)
        return await self._direct.plan(artifact, claimed) if self._direct else Plan(artifact, claimed)

    async def begin_parts(self, caller: Caller, new: NewUpload) -> Upload:
        """Begins an upload that goes straight to the store in parts of the client's own size: see Direct.

        Raises FailedPrecondition as `begin`, and when nothing goes straight to the store.
        """
        direct = self.direct
        claimed = await self._ledger.claim(caller.workspace_id, _checked(replace(new, size=None, sha256=b"")))
        assert isinstance(claimed, Upload)  # what has no digest repeats nothing
        plan = await direct.plan(None, claimed)
        assert plan.upload is not None
        return plan.upload

    async def receive(
        self, caller: Caller, new: NewUpload, data: bytes, contents: AsyncIterator[Bytes | Trailer]
    ) -> Artifact:
        """Takes a file: `data`, then what comes. Answers without reading on when the artifact is this one already.

        Raises ContentMismatch; UploadGone when the upload to go on with is not there, another goes on with it, or the
        parts before are of another file; FailedPrecondition as `begin`; and what the store raises: after that, and when
        the stream breaks, what is stored can be gone on with.
        """
        outcome = "refused"
        try:
            new = _checked(new)
            if new.upload_id is not None:
                upload, stored = await self._take_over(caller, new, new.upload_id)
            else:
                claimed, stored = await self._ledger.claim(caller.workspace_id, new), []
                if isinstance(claimed, Artifact):
                    outcome = "unchanged"
                    return claimed
                upload = claimed
            try:
                artifact = await self._receive(caller, upload, stored, new, data, contents)
            except ContentMismatch:
                outcome = "mismatch"
                raise
            except (Retryable, asyncio.CancelledError):
                outcome = "broken"
                raise
            outcome = "stored"
            return artifact
        finally:
            telemetry.artifact_uploads.labels(outcome).inc()

    async def _take_over(self, caller: Caller, new: NewUpload, upload_id: UploadId) -> tuple[Upload, list[Part]]:
        """The upload to go on with, which no other stream writes any more, and its parts up to the offset."""
        async with self._db.transaction() as conn:
            owner = await owners.locate_active(conn, caller.workspace_id, new.owner)
            upload, parts = await uploads.take_over(conn, owner, upload_id)
            if (upload.path, upload.size) != (new.path, new.size):
                raise InvalidArgument("upload_id", "is of another path or size")
            if new.offset < 0 or (new.offset % upload.part_bytes and new.offset != upload.size):
                raise InvalidArgument("offset", f"{new.offset} is not the end of a part")
            kept = parts[: -(-new.offset // upload.part_bytes)]
            if sum(part.size for part in kept) != new.offset:
                raise UploadGone(upload_id.hex)  # another has cut them since they were told
            await uploads.cut(conn, upload_id, len(kept))
        await self._end_live(upload_id, upload.attempt)
        if not kept and upload.token is not None:
            # From the beginning, and perhaps other bytes: some stores do not take another part of the same number.
            await self._store.abort(upload.key, upload.token)
            upload = replace(upload, token=None)
        return upload, kept

    async def _end_live(self, upload_id: UploadId, attempt: int) -> None:
        """Ends the stream that writes it in this process, if there is one. Raises UploadGone when that is newer."""
        while (live := self._live.get(upload_id)) is not None:
            if live.attempt > attempt:
                raise UploadGone(upload_id.hex)
            if not live.gone:
                live.gone = True
                live.task.cancel()
            await live.ended.wait()

    async def _receive(
        self,
        caller: Caller,
        upload: Upload,
        stored: Sequence[Part],
        new: NewUpload,
        data: bytes,
        contents: AsyncIterator[Bytes | Trailer],
    ) -> Artifact:
        task = asyncio.current_task()
        assert task is not None
        live = self._live[upload.id] = _Live(upload.attempt, task)
        digest = self._digests.take(upload.id, stored)
        budget = self._budget if upload.size is None or upload.size > _SMALL_BYTES else self._small_budget
        receiving = Receiving(self._db, self._store, budget, self._precedence, upload, stored, digest)
        try:
            async with beating.steadily(self._db, upload):
                trailer = await receiving.receive(data, contents)
                sha256 = await self._finish(receiving, upload, new.offset, _told(new, trailer))
            forced_by = caller if new.force else None
            return await self._ledger.complete(Complete(upload, receiving.received, sha256, forced_by))
        except asyncio.CancelledError:
            if live.gone and task.uncancel() == 0:
                raise UploadGone(upload.id.hex) from None
            await self._broken(upload, receiving)
            raise
        except (Retryable, StoreRefused):
            await self._broken(upload, receiving)
            raise
        except BaseException:
            await wholes.drop(self._db, upload)
            raise
        finally:
            receiving.close(self._digests)
            if self._live.get(upload.id) is live:
                del self._live[upload.id]
            live.ended.set()

    async def _finish(self, receiving: Receiving, upload: Upload, offset: int, told: bytes) -> bytes:
        """All has come and its parts are stored: now the whole. Its digest: what was told, or else what we have found.

        Raises ContentMismatch, and UploadGone when it may be the parts before the offset that are of another file.
        """
        sha256 = told or receiving.sha256
        assert sha256 is not None  # what is not told is known from the beginning
        found = receiving.sha256
        if receiving.lone is None and found in (None, sha256):
            parts = [part for _, part in sorted(receiving.parts.items())]
            completed_before = await wholes.complete(self._store, upload, receiving.token, receiving.received, parts)
            # A file takes whatever is late of the stream that was before.
            mixed = offset and receiving.token and self._store.file_uri(receiving.token)
            if completed_before or mixed or found is None:
                found = await wholes.read_digest(self._store, upload, receiving.received)
        if found != sha256:
            raise UploadGone(upload.id.hex) if offset else wholes.mismatch(upload.path)
        if receiving.lone is not None:
            if time.monotonic() - receiving.since > beating.SECONDS:
                await beating.once(self._db, upload)  # once its row is gone, nobody would find what is put
            await self._store.put(upload.key, receiving.lone, upload.media_type)
        return sha256

    async def abort(self, caller: Caller, owner: Owner, upload_id: UploadId) -> None:
        """Gives an upload up. Giving up twice is fine."""
        async with self._db.connection() as conn:
            ref = await owners.locate(conn, caller.workspace_id, owner)
            upload = await uploads.find_open(conn, ref, upload_id)
            if upload is None:
                return
            await uploads.drop(conn, [upload_id])
        if self._direct is not None:
            await self._direct.forget(upload)
        if (live := self._live.get(upload_id)) is not None:
            await self._end_live(upload_id, live.attempt)

    async def aclose(self) -> None:
        """Ends what runs in the background."""
        if self._direct is not None:
            await self._direct.close()

    @property
    def direct(self) -> Direct:
        """What goes straight to the store. Raises FailedPrecondition when nothing does."""
        if self._direct is None:
            raise FailedPrecondition("this server takes artifacts itself; send them by UploadArtifact")
        return self._direct

    async def _broken(self, upload: Upload, receiving: Receiving) -> None:
        """Keeps what is stored for who goes on with it, if that can be."""
        if receiving.parts and upload.size is not None:
            await to_its_end(self._rests(upload))
        else:
            await wholes.drop(self._db, upload)

    async def _rests(self, upload: Upload) -> None:
        """Nobody writes it any more."""
        with wholes.told_only("an upload that broke off could not be marked", upload):
            async with self._db.connection() as conn:
                await uploads.touch(conn, upload, live=False)


def _checked(new: NewUpload) -> NewUpload:
    check_path(new.path)
    check_sha256(new.sha256)
    if new.size is not None:
        check_size(new.size)
    if new.upload_id is None and new.offset:
        raise InvalidArgument("offset", "is for an upload that is gone on with; give its upload_id")
    return replace(new, media_type=media_type(new.media_type, new.path))


def _told(new: NewUpload, trailer: Trailer | None) -> bytes:
    """The digest that was told; empty when there is none and none is needed. Raises InvalidArgument."""
    at_end = check_sha256(trailer.sha256) if trailer else b""
    if new.sha256 and at_end and new.sha256 != at_end:
        raise InvalidArgument("sha256", "is another in the trailer than in the header")
    told = new.sha256 or at_end
    if not told and new.offset:
        raise InvalidArgument("sha256", "must be told of an upload that is gone on with")
    if not told and new.size is None and trailer is None:
        # What gRPC says of a client that is gone may be: the end of its stream.
        raise InvalidArgument("trailer", "must come where neither size nor sha256 is told, or the end cannot be known")
    return told
