"""The ledger of what is stored for an owner: uploads that begin, and those that are complete, entered in groups.

Each change of which paths an owner has needs its lock and a commit. What comes while one transaction is under way goes
into the next: a lone file waits for nobody, and of thousands of small ones many share a transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from penstock_server.core import model_sources
from penstock_server.core.shielded import to_its_end
from penstock_server.model.access import WorkspaceId
from penstock_server.model.artifacts import Artifact, UploadId, parents
from penstock_server.model.errors import PenstockError
from penstock_server.model.owners import Owner
from penstock_server.model.uploads import NewUpload, Upload
from penstock_server.postgres import owners, uploads
from penstock_server.postgres.database import Database
from penstock_server.postgres.uploads import Complete

_Wanted = TypeVar("_Wanted")
_Made = TypeVar("_Made")

# In one transaction: it must not take long, for the sake of the next.
_MOST = 200


@dataclass(slots=True)
class _Entry(Generic[_Wanted, _Made]):
    """Something to be entered, and who waits for what becomes of it."""

    wanted: _Wanted
    outcome: asyncio.Future[_Made]

    @property
    def well(self) -> bool:
        """Whether it was entered, as far as is known."""
        return self.outcome.done() and not self.outcome.cancelled() and self.outcome.exception() is None

    def tell(self, outcome: _Made | BaseException) -> None:
        if self.outcome.done():
            return  # who waited has left
        if isinstance(outcome, BaseException):
            self.outcome.set_exception(outcome)
        else:
            self.outcome.set_result(outcome)


@dataclass(slots=True)
class _Page:
    """What has gathered for one owner."""

    claims: list[_Entry[NewUpload, Upload | Artifact]] = field(default_factory=list)
    complete: list[_Entry[Complete, Artifact]] = field(default_factory=list)

    def tell(self, error: BaseException) -> None:
        """Nothing comes of it."""
        for claim in self.claims:
            claim.tell(error)
        for complete in self.complete:
            complete.tell(error)

    def take(self) -> _Page:
        """What goes into the next transaction, without those who have left."""
        taken = _Page([entry for entry in self.claims[:_MOST] if not entry.outcome.done()])
        del self.claims[:_MOST]
        left: list[_Entry[Complete, Artifact]] = []
        paths: set[str] = set()
        within: set[str] = set()
        for entry in self.complete:
            if entry.outcome.done():
                continue
            path = entry.wanted.upload.path
            # Of what excludes or replaces another one goes at a time: which is the last must be plain.
            clashes = path in paths or path in within or not paths.isdisjoint(parents(path))
            if clashes or len(taken.complete) == _MOST:
                left.append(entry)
                continue
            paths.add(path)
            within.update(parents(path))
            taken.complete.append(entry)
        self.complete[:] = left
        return taken

    @property
    def paths(self) -> set[str]:
        """Of all that is to be entered."""
        return {entry.wanted.path for entry in self.claims} | {entry.wanted.upload.path for entry in self.complete}

    def __bool__(self) -> bool:
        return bool(self.claims or self.complete)


class Ledger:
    """Enters claims and completions. Everything may raise NotFound and NotActive of the owner, and Unavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._pages: dict[tuple[WorkspaceId, Owner], _Page] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def claim(self, workspace_id: WorkspaceId, new: NewUpload) -> Upload | Artifact:
        """Begins an upload, or gives the artifact that it would only repeat.

        Raises FailedPrecondition when there is a directory at the path, a file where it needs a directory, or something
        else that a version of a model stands on.
        """
        (made,) = await self.claim_all(workspace_id, new.owner, [new])
        if isinstance(made, BaseException):
            raise made
        return made

    async def claim_all(
        self, workspace_id: WorkspaceId, owner: Owner, wanted: Sequence[NewUpload]
    ) -> list[Upload | Artifact | BaseException]:
        """As `claim`, for many files of an owner. Of each, in turn, what that would return or raise."""
        loop = asyncio.get_running_loop()
        entries = [_Entry[NewUpload, Upload | Artifact](new, loop.create_future()) for new in wanted]
        self._page(workspace_id, owner).claims.extend(entries)
        try:
            return await asyncio.gather(*(entry.outcome for entry in entries), return_exceptions=True)
        except asyncio.CancelledError:
            # Some may have been in an earlier transaction than the others.
            made = [entry.outcome.result() for entry in entries if entry.well]
            await to_its_end(self._drop([each.id for each in made if isinstance(each, Upload)]))
            raise

    async def complete(self, complete: Complete) -> Artifact:
        """Makes an artifact of what is stored: it is visible then, and another at that path is not any more.

        Raises UploadGone, and FailedPrecondition as `claim`.
        """
        (made,) = await self.complete_all([complete])
        if isinstance(made, BaseException):
            raise made
        return made

    async def complete_all(self, complete: Sequence[Complete]) -> list[Artifact | BaseException]:
        """As `complete`, for many files of an owner: of two at the same path the later stays."""
        loop, owner = asyncio.get_running_loop(), complete[0].upload.owner
        entries = [_Entry[Complete, Artifact](each, loop.create_future()) for each in complete]
        self._page(owner.workspace_id, owner.owner).complete.extend(entries)
        return await asyncio.gather(*(entry.outcome for entry in entries), return_exceptions=True)

    def _page(self, workspace_id: WorkspaceId, owner: Owner) -> _Page:
        key = (workspace_id, owner)
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = _Page()
            task = asyncio.create_task(self._write(workspace_id, owner, page), name="ledger")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return page

    async def _write(self, workspace_id: WorkspaceId, owner: Owner, page: _Page) -> None:
        try:
            while page:
                taken = page.take()
                try:
                    if taken:
                        await self._enter(workspace_id, owner, taken)
                except BaseException as error:
                    taken.tell(error)
                    if not isinstance(error, Exception):
                        page.tell(error)
                        raise
        finally:
            del self._pages[workspace_id, owner]

    async def _enter(self, workspace_id: WorkspaceId, owner: Owner, taken: _Page) -> None:
        claimed: Sequence[Upload | Artifact | PenstockError] = ()
        settled: Sequence[Artifact | PenstockError] = ()
        async with self._db.waiting() as conn:
            forced = [entry.wanted for entry in taken.complete if entry.wanted.forced_by is not None]
            if forced:
                await model_sources.lock_models_on_files(conn, workspace_id, owner)
            ref = await owners.hold_files(conn, workspace_id, owner)
            tree = await uploads.look(conn, ref, taken.paths)
            replaced = [each for each in forced if tree.replaces(each.upload.path, each.size, each.sha256)]
            if taken.complete:
                settled = await uploads.settle(conn, ref, tree, [entry.wanted for entry in taken.complete])
            if taken.claims:
                claimed = await uploads.claim(conn, ref, tree, [entry.wanted for entry in taken.claims])
            for each in replaced:
                if each.forced_by is not None:
                    await model_sources.replace_artifact(conn, each.forced_by, owner, each.upload.path, each.sha256)
        for completion, artifact in zip(taken.complete, settled, strict=True):
            completion.tell(artifact)
        unclaimed = []
        for entry, made in zip(taken.claims, claimed, strict=True):
            if entry.outcome.done() and isinstance(made, Upload):
                unclaimed.append(made.id)
            entry.tell(made)
        await self._drop(unclaimed)

    async def _drop(self, unclaimed: Sequence[UploadId]) -> None:
        """Of those who have left. What cannot be said now, the sweeper finds by its age."""
        if unclaimed:
            with suppress(PenstockError):
                async with self._db.connection() as conn:
                    await uploads.drop(conn, unclaimed)
