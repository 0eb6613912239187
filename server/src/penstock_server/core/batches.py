"""Many small files in one request: claimed in one transaction, stored at once, and entered in another."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import TypeVar

from penstock_server import telemetry
from penstock_server.blobs.store import Object, Store
from penstock_server.core import beating, wholes
from penstock_server.core.ledger import Ledger
from penstock_server.core.receiving import HASH_HERE_BYTES
from penstock_server.ingest.budget import Budget
from penstock_server.ingest.precedence import Precedence
from penstock_server.model.access import Caller
from penstock_server.model.artifacts import MIB, Artifact, check_path, check_sha256, media_type
from penstock_server.model.errors import ContentMismatch, InvalidArgument, PenstockError
from penstock_server.model.owners import Owner
from penstock_server.model.uploads import NewUpload, SmallFile, Upload
from penstock_server.postgres.database import Database
from penstock_server.postgres.uploads import Complete

MOST = 256  # in one request
MOST_BYTES = 4 * MIB  # of their contents. While it is served, or waits for room, a request is in memory three times

Outcome = Artifact | PenstockError
T = TypeVar("T")


class Batches:
    """Brings many files in."""

    def __init__(self, db: Database, store: Store, precedence: Precedence, ledger: Ledger, budget: Budget) -> None:
        self._db = db
        self._store = store
        self._precedence = precedence
        self._ledger = ledger
        self._budget = budget

    async def receive(
        self, caller: Caller, owner: Owner, files: Sequence[SmallFile], *, force: bool = False
    ) -> list[Outcome]:
        """Takes whole files. Of each, in turn, what `Uploads.receive` would return or raise. Raises InvalidArgument."""
        if not 1 <= len(files) <= MOST:
            raise InvalidArgument("files", f"1 to {MOST} can be sent at once, and these are {len(files)}")
        size = sum(len(file.data) for file in files)
        if size > MOST_BYTES:
            raise InvalidArgument(
                "files",
                f"at most {MOST_BYTES} bytes can be sent at once, and these have {size}; "
                "send fewer, or what is not small by UploadArtifact",
            )
        await self._budget.take(size)
        try:
            await self._precedence.give_way()
            telemetry.artifact_bytes.labels("in").inc(size)
            if size <= HASH_HERE_BYTES:
                found = _digests(files)
            else:
                found = await asyncio.to_thread(_digests, files)
            return await self._receive(caller, owner, files, found, force=force)
        finally:
            self._budget.give(size)

    async def _receive(
        self, caller: Caller, owner: Owner, files: Sequence[SmallFile], digests: Sequence[bytes], *, force: bool
    ) -> list[Outcome]:
        checked = [_checked(owner, *each, force=force) for each in zip(files, digests, strict=True)]
        wanted = [each for each in checked if isinstance(each, NewUpload)]
        claimed = iter(await self._ledger.claim_all(caller.workspace_id, owner, wanted) if wanted else [])
        claims: list[Upload | Outcome] = [
            _known(next(claimed)) if isinstance(each, NewUpload) else each for each in checked
        ]
        forced_by = caller if force else None
        stored = iter(
            await self._store_all(
                [
                    (Complete(claim, len(file.data), digest, forced_by), file.data)
                    for claim, file, digest in zip(claims, files, digests, strict=True)
                    if isinstance(claim, Upload)
                ]
            )
        )
        outcomes: list[Outcome] = []
        for claim in claims:
            outcome: Outcome = next(stored) if isinstance(claim, Upload) else claim
            telemetry.artifact_uploads.labels(_label(claim, outcome)).inc()
            outcomes.append(outcome)
        return outcomes

    async def _store_all(self, claimed: Sequence[tuple[Complete, bytes]]) -> list[Outcome]:
        """Of each what has become of it; of those of which nothing has, nothing stays."""
        if not claimed:
            return []
        all_uploads = [complete.upload for complete, _ in claimed]
        left = {upload.id: upload for upload in all_uploads}
        try:
            try:
                async with beating.steadily(self._db, *all_uploads):
                    errors = await self._store.put_all(
                        [Object(each.upload.key, data, each.upload.media_type) for each, data in claimed]
                    )
            except PenstockError as error:
                return [error] * len(claimed)
            fine = [complete for (complete, _), error in zip(claimed, errors, strict=True) if error is None]
            made = iter(await self._ledger.complete_all(fine) if fine else [])
            outcomes = [_known(next(made)) if error is None else error for error in errors]
            for upload, outcome in zip(all_uploads, outcomes, strict=True):
                if isinstance(outcome, Artifact):
                    del left[upload.id]
            return outcomes
        finally:
            if left:
                await wholes.drop(self._db, *left.values())


def _digests(files: Sequence[SmallFile]) -> list[bytes]:
    return [hashlib.sha256(file.data).digest() for file in files]


def _checked(owner: Owner, file: SmallFile, sha256: bytes, *, force: bool) -> NewUpload | InvalidArgument:
    try:
        check_path(file.path)
        if check_sha256(file.sha256) not in (b"", sha256):
            return wholes.mismatch(file.path)
        return NewUpload(owner, file.path, len(file.data), sha256, media_type(file.media_type, file.path), force=force)
    except InvalidArgument as error:
        return error


def _known(outcome: T | BaseException) -> T | PenstockError:
    """Raises what is a bug."""
    if isinstance(outcome, BaseException) and not isinstance(outcome, PenstockError):
        raise outcome
    return outcome


def _label(claim: Upload | Outcome, outcome: Outcome) -> str:
    """Of the outcome, where uploads are counted."""
    if isinstance(outcome, Artifact):
        return "unchanged" if outcome is claim else "stored"
    if isinstance(outcome, ContentMismatch):
        return "mismatch"
    return "broken" if isinstance(claim, Upload) else "refused"
