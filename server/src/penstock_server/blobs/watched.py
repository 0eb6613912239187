"""A store whose troubles are told to who operates the server: in the log, at /ready, and by a gauge.

Who calls is told by the error itself, as ever. The log has a line when it begins, one a minute at most while it lasts,
and one when it is over.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

import structlog

from penstock_server import telemetry
from penstock_server.blobs.store import Begun, Bytes, Digest, Object, Store
from penstock_server.model.artifacts import Part
from penstock_server.model.errors import (
    ContentMismatch,
    NotFound,
    PenstockError,
    StoreFull,
    StoreRefused,
    Unavailable,
    UploadGone,
)

log = structlog.get_logger(__name__)

_TROUBLES = (StoreRefused, StoreFull, Unavailable)
_AGAIN_SECONDS = 60.0
# What was refused once, and is not asked for any more, is no trouble for ever.
_OVER_SECONDS = 600.0


@dataclass(slots=True)
class _Trouble:
    call: str
    error: PenstockError
    since: float
    last: float
    failed: int = 0
    told: bool = False


class Watched:
    """Implements `blobs.store.Store`."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds."""
        self._store = store
        self._clock = clock
        self._trouble: _Trouble | None = None
        self._told_at: float | None = None
        telemetry.artifact_store_up.set(1)

    @property
    def problem(self) -> str | None:
        """Why it cannot be used, and what to do; None as far as nothing is known to be wrong."""
        trouble = self._trouble
        return None if trouble is None else f"{_reason(trouble.error)}; {_remedy(trouble.error)}"

    def failed(self, call: str, error: PenstockError) -> None:
        """A `call` came to this, which is the store's doing."""
        now = self._clock()
        trouble = self._trouble or _Trouble(call, error, now, now)
        if self._trouble is not None and trouble.error is error:
            return  # told by more than one
        self._trouble = trouble
        trouble.call, trouble.error, trouble.last = call, error, now
        trouble.failed += 1
        telemetry.artifact_store_up.set(0)
        if self._told_at is None or now - self._told_at >= _AGAIN_SECONDS:
            self._told_at, trouble.told = now, True
            log.error(
                "the artifacts' store does not work",
                root=self.uri(""),
                reason=_reason(error),
                remedy=_remedy(error),
                failed_calls=trouble.failed,
            )

    def went_well(self, call: str) -> None:
        """A store that was away is back then; one that refused something else may still do so, for some minutes."""
        trouble = self._trouble
        if trouble is None:
            return
        now = self._clock()
        if call != trouble.call and not isinstance(trouble.error, Unavailable) and now - trouble.last < _OVER_SECONDS:
            return
        self._trouble = None
        telemetry.artifact_store_up.set(1)
        if trouble.told:
            seconds = round(now - trouble.since, 3)
            log.info(
                "the artifacts' store works again", root=self.uri(""), failed_calls=trouble.failed, seconds=seconds
            )

    @contextmanager
    def _watching(self, call: str, *, asked: bool = True) -> Iterator[None]:
        """That a call that has not `asked` the store went well says nothing of the store."""
        try:
            yield
        except _TROUBLES as error:
            self.failed(call, error)
            raise
        except (ContentMismatch, NotFound, UploadGone):  # its answer
            self.went_well(call)
            raise
        if asked or (self._trouble is not None and self._trouble.call == call):
            self.went_well(call)

    def uri(self, key: str) -> str:
        """As the store says."""
        return self._store.uri(key)

    def file_uri(self, token: str) -> str | None:
        """As the store says."""
        return self._store.file_uri(token)

    async def put(self, key: str, data: Bytes, media_type: str) -> None:
        """Watched."""
        with self._watching("put"):
            await self._store.put(key, data, media_type)

    async def put_all(self, objects: Sequence[Object]) -> list[PenstockError | None]:
        """Watched: each object. It went well when no object failed because of the store."""
        try:
            errors = await self._store.put_all(objects)
        except _TROUBLES as error:
            self.failed("put", error)
            raise
        troubles = [error for error in errors if isinstance(error, _TROUBLES)]
        for trouble in troubles:
            self.failed("put", trouble)
        if not troubles:
            self.went_well("put")
        return errors

    async def begin(self, key: str, media_type: str) -> str:
        """Watched."""
        with self._watching("begin"):
            return await self._store.begin(key, media_type)

    async def put_part(self, key: str, token: str, number: int, offset: int, *data: Bytes) -> str:
        """Watched."""
        with self._watching("put_part"):
            return await self._store.put_part(key, token, number, offset, *data)

    async def complete(self, key: str, token: str, parts: Sequence[Part]) -> None:
        """Watched."""
        with self._watching("complete"):
            await self._store.complete(key, token, parts)

    async def abort(self, key: str, token: str) -> None:
        """Watched."""
        with self._watching("abort"):
            await self._store.abort(key, token)

    async def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """Watched, to its end: who leaves before says nothing of the store."""
        with self._watching("read"):
            async with aclosing(self._store.read(key, start, length)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    yield chunk

    async def hash(self, key: str, digest: Digest, start: int, end: int, token: str | None = None) -> int:
        """Watched, but for an upload's file: who ends the upload is told, and nobody waits for it before."""
        if token is not None:
            return await self._store.hash(key, digest, start, end, token)
        with self._watching("read"):
            return await self._store.hash(key, digest, start, end)

    async def size(self, key: str) -> int | None:
        """Watched."""
        with self._watching("size"):
            return await self._store.size(key)

    async def delete(self, keys: Sequence[str]) -> None:
        """Watched."""
        with self._watching("delete"):
            await self._store.delete(keys)

    async def begun(self) -> AsyncIterator[Begun]:
        """Not watched: not every store tells of them, and nothing that anybody waits for needs it."""
        async with aclosing(self._store.begun()) as found:  # type: ignore[type-var]
            async for each in found:
                yield each

    async def sign_part(self, key: str, token: str, number: int, seconds: int) -> str:
        """Watched; the store is not asked."""
        with self._watching("sign_part", asked=False):
            return await self._store.sign_part(key, token, number, seconds)

    async def sign_read(self, key: str, seconds: int) -> str:
        """Watched; the store is not asked."""
        with self._watching("sign_read", asked=False):
            return await self._store.sign_read(key, seconds)

    async def close(self) -> None:
        """Closes the store."""
        await self._store.close()


def _reason(error: PenstockError) -> str:
    return error.found if isinstance(error, StoreRefused) else str(error)


def _remedy(error: PenstockError) -> str:
    if isinstance(error, StoreRefused):
        return error.remedy
    if isinstance(error, StoreFull):
        return "make room there; clients try again until there is"
    return "see that it runs and that this machine reaches it (penstock-server doctor tries); clients try again"
