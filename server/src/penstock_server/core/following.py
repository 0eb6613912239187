"""Files that clients write into the store are hashed while they grow, so that little is left to do at the end.

What is found is a guess: a client may write a byte again that has been hashed. It is of use when it is the digest that
the client tells, and else the file is read anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from penstock_server.blobs.store import Store
from penstock_server.model.artifacts import MIB
from penstock_server.model.errors import PenstockError
from penstock_server.model.uploads import Upload

if TYPE_CHECKING:
    from hashlib import _Hash

log = structlog.get_logger(__name__)

_AT_ONCE = 16  # files that are looked at
_KEPT = 100  # files that something is known of
_SMALL = 16 * MIB  # bytes: what is smaller is hashed at the end as quickly
_LEAST, _MOST = 0.02, 0.5  # seconds between two looks
_PATIENCE = 60.0  # seconds in which nothing grows


@dataclass(slots=True)
class Followed:
    """The digest of a file up to an end."""

    end: int = 0
    digest: _Hash = field(default_factory=hashlib.sha256)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Following:
    """Of one process. Nobody hears of what goes wrong: then nothing is known of the file."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._of: dict[str, Followed] = {}  # by token

    def begin(self, upload: Upload, token: str) -> None:
        """Follow the file of an upload, unless that is no use or there are too many."""
        size = upload.size or 0
        if size < _SMALL or sum(each.task is not None for each in self._of.values()) >= _AT_ONCE:
            return
        if len(self._of) >= _KEPT:
            self._of.pop(next(token for token, each in self._of.items() if each.task is None))
        followed = self._of[token] = Followed()
        followed.task = asyncio.create_task(self._follow(upload.key, token, size, followed))

    async def take(self, token: str) -> Followed | None:
        """What is known of a file that is written; nothing, where it was not followed. It is followed no more."""
        followed = self._of.get(token)
        if followed is None:
            return None
        followed.enough.set()
        if followed.task is not None:
            await asyncio.wait([followed.task])
        return self._of.pop(token, None)

    async def end(self, *tokens: str) -> None:
        """Let go of these files."""
        found = [self._of.pop(token, None) for token in tokens]
        tasks = [each.task for each in found if each is not None and each.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Let go of all."""
        await self.end(*self._of)

    async def _follow(self, key: str, token: str, size: int, followed: Followed) -> None:
        pause, grew = _LEAST, time.monotonic()
        try:
            while followed.end < size and not followed.enough.is_set() and time.monotonic() - grew < _PATIENCE:
                try:
                    async with asyncio.timeout(pause):
                        await followed.enough.wait()
                except TimeoutError:
                    pass
                end = await self._store.hash(key, followed.digest, followed.end, size, token)
                if end > followed.end:
                    pause, grew = _LEAST, time.monotonic()
                else:
                    pause = min(_MOST, 1.5 * pause)
                followed.end = end
        except PenstockError as error:  # who ends the upload is told
            self._of.pop(token, None)
            log.debug("a file is not followed any more", key=key, error=str(error))
        except BaseException:
            self._of.pop(token, None)  # it is not known what the digest has got
            raise
        finally:
            followed.task = None
