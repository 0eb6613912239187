"""The use cases of artifacts that are there: to find, read and delete them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress

import structlog

from penstock_server import telemetry
from penstock_server.blobs.store import Store
from penstock_server.core import model_sources
from penstock_server.ingest.precedence import Precedence
from penstock_server.model import pages
from penstock_server.model.access import Caller
from penstock_server.model.artifacts import Artifact, check_directory, check_path, check_sha256
from penstock_server.model.errors import Changed, InvalidArgument, NotFound, StoreRefused
from penstock_server.model.owners import Owner
from penstock_server.model.uploads import Location, Route
from penstock_server.postgres import artifacts, owners
from penstock_server.postgres.artifacts import Stored
from penstock_server.postgres.database import Database

_SIGNED_SECONDS = 3600

log = structlog.get_logger(__name__)


class Artifacts:
    """Finds, reads and deletes artifacts. Everything may raise InvalidArgument, NotFound of the owner, Unavailable."""

    def __init__(
        self, db: Database, store: Store, precedence: Precedence, *, direct: bool, nudge: Callable[[], None]
    ) -> None:
        """With `direct`, callers may read the store themselves. `nudge` is told when there is something to remove."""
        self._db = db
        self._store = store
        self._precedence = precedence
        self._direct = direct
        self._nudge = nudge

    async def list(
        self,
        caller: Caller,
        owner: Owner,
        directory: str = "",
        *,
        recursive: bool = False,
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[Artifact], str]:
        """One page of what is in a directory, and the token of the next; with `recursive`, of all files below it."""
        directory = check_directory(directory)
        limit = pages.check_size(page_size)
        query = ("artifacts", caller.workspace_id, str(owner), directory, recursive)
        after = None
        if page_token:
            path, is_directory = pages.decode(query, page_token, ["text", "bool"])
            after = Artifact(str(path), bool(is_directory))
        read = artifacts.files if recursive else artifacts.children
        async with self._db.connection() as conn:
            ref = await owners.locate(conn, caller.workspace_id, owner)
            found = await read(conn, ref, directory, after, limit + 1)
        if len(found) <= limit:
            return found, ""
        last = found[limit - 1]
        return found[:limit], pages.encode(query, (last.path, last.is_directory))

    async def stat(self, caller: Caller, owner: Owner, path: str) -> Artifact:
        """An artifact, or a directory. Raises NotFound."""
        check_path(path)
        async with self._db.connection() as conn:
            ref = await owners.locate(conn, caller.workspace_id, owner)
            stored = await artifacts.find(conn, ref, path)
            if stored is not None:
                return stored.artifact
            if await artifacts.is_directory(conn, ref, path):
                return Artifact(path, is_directory=True)
        raise NotFound("artifact", path)

    async def delete(self, caller: Caller, owner: Owner, path: str, *, force: bool = False) -> int:
        """Deletes an artifact, or all in a directory; how many files that were. Raises NotFound, NotActive.

        Raises FailedPrecondition when versions of models stand on it, unless `force`.
        """
        check_path(path)
        async with self._db.waiting() as conn:
            if force:
                await model_sources.lock_models_on_files(conn, caller.workspace_id, owner)
            ref = await owners.hold_files(conn, caller.workspace_id, owner)
            deleted = await artifacts.delete(conn, ref, path)
            if not deleted:
                raise NotFound("artifact", path)
            await model_sources.leave_artifact(conn, caller, owner, path, force=force)
        self._nudge()
        return deleted

    async def delete_all(self, caller: Caller, owner: Owner, *, force: bool = False) -> None:
        """Deletes all artifacts of an owner, one by one. Raises as `delete` does."""
        while found := (await self.list(caller, owner))[0]:
            for artifact in found:
                with suppress(NotFound):
                    await self.delete(caller, owner, artifact.path, force=force)

    async def download(
        self, caller: Caller, owner: Owner, path: str, offset: int = 0, length: int = 0, sha256: bytes = b""
    ) -> AsyncIterator[Artifact | bytes]:
        """The artifact, then its bytes from `offset` on: `length` of them at most, or all when that is 0.

        Raises NotFound; Changed when it is not the one with this `sha256`, or is no longer there in the middle of it;
        and what the store raises.
        """
        check_sha256(sha256)
        stored = await self._find(caller, owner, path)
        artifact = stored.artifact
        if sha256 and sha256 != artifact.sha256:
            raise Changed(path)
        if not 0 <= offset <= artifact.size:
            raise InvalidArgument("offset", f"{offset} is not within 0 to {artifact.size}, the size of {path!r}")
        if length < 0:
            raise InvalidArgument("length", f"{length} is less than 0")
        left = min(length or artifact.size, artifact.size - offset)
        yield artifact
        if not left:
            return
        try:
            async with aclosing(self._store.read(stored.key, offset, left)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    await self._precedence.give_way()
                    left -= len(chunk)
                    telemetry.artifact_bytes.labels("out").inc(len(chunk))
                    yield chunk
        except NotFound:
            await self._missing(caller, owner, stored)
        if left:
            await self._missing(caller, owner, stored)

    async def _missing(self, caller: Caller, owner: Owner, stored: Stored) -> None:
        """Raises why the store does not have it."""
        path = stored.artifact.path
        now = await self._find(caller, owner, path)
        if now.blob_id != stored.blob_id:
            raise Changed(path)
        # Of one that somebody asks for. The store works, and yet this is to be seen to.
        log.error("an artifact is missing from the store", uri=self._store.uri(stored.key), owner=str(owner), path=path)
        raise StoreRefused(f"{self._store.uri(stored.key)} is missing or cut short", "restore it from a backup")

    async def locate(self, caller: Caller, owner: Owner, path: str) -> Location:
        """Where the bytes can be had. Raises NotFound, and what the store raises."""
        stored = await self._find(caller, owner, path)
        if not self._direct:
            return Location(stored.artifact, Route.SERVER)
        url = await self._store.sign_read(stored.key, _SIGNED_SECONDS)
        route = Route.FILE if url.startswith("file:") else Route.SIGNED
        return Location(stored.artifact, route, url, self._store.uri(stored.key))

    async def _find(self, caller: Caller, owner: Owner, path: str) -> Stored:
        check_path(path)
        async with self._db.connection() as conn:
            ref = await owners.locate(conn, caller.workspace_id, owner)
            stored = await artifacts.find(conn, ref, path)
        if stored is None:
            raise NotFound("artifact", path)
        return stored
