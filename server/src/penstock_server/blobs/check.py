"""Whether artifacts can be kept where they shall be: tried out, for `penstock-server doctor`. Nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from penstock_server.blobs import open_store
from penstock_server.blobs.store import S3Options, Store
from penstock_server.model.artifacts import MIB, LocalRoot, Part, S3Root
from penstock_server.model.errors import NotFound, PenstockError, StoreFull, StoreRefused

_FIRST_PART = 5 * MIB  # S3 takes no smaller one, but at the end
_LITTLE_ROOM = 1024 * MIB
# S3 refuses what is signed a quarter of an hour off.
_SKEW_SECONDS = 60.0
_SKEW_SECONDS_MOST = 15 * 60.0
_ADDRESS_SECONDS = 60
_TEXT = b"Written by penstock-server doctor. It may be deleted.\n"


@dataclass(frozen=True, slots=True)
class Sight:
    """One thing looked at. All is well where there is no remedy; else it is `grave` or deserves a warning."""

    subject: str
    found: str
    remedy: str = ""
    grave: bool = True


@runtime_checkable
class Reachable(Protocol):
    """A store that is elsewhere."""

    async def reach(self) -> float:
        """Lists an object, if there is one. Returns by how many seconds the store's clock is ahead of ours."""


@dataclass(frozen=True, slots=True)
class _Where:
    """What findings begin with, and what to do where nobody answers."""

    told: str
    remedy: str

    @classmethod
    def of(cls, root: LocalRoot | S3Root, s3: S3Options) -> _Where:
        """A directory's errors name it themselves."""
        if isinstance(root, LocalRoot):
            return cls("", "see that its disk works, or correct artifacts_root")
        if s3.endpoint is None:
            return cls(
                f"{root.uri()} at AWS: ", "see that this machine reaches AWS; for a store elsewhere, set s3_endpoint"
            )
        return cls(
            f"{root.uri()} at {s3.endpoint}: ",
            "see that it runs there, is S3 and can be reached from this machine, or correct s3_endpoint",
        )


async def examine(root: LocalRoot | S3Root, s3: S3Options, *, direct: bool) -> AsyncIterator[Sight]:
    """Tries out what the server will do there. `direct`: clients shall write to the store themselves."""
    if isinstance(root, S3Root):
        async for sight in _try(root, s3, direct=direct):
            yield sight
        return
    top = Path(root.path)
    if to_be_made := _to_be_made(top):
        yield to_be_made
        return
    with _uploads_as_they_were(top):
        async for sight in _try(root, s3, direct=False):
            yield sight
    yield _room(top)


def _to_be_made(path: Path) -> Sight | None:
    if path.exists():
        return None
    existing = next(parent for parent in path.parents if parent.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Sight("artifacts", f"{path}, will be made")
    return Sight("artifacts", f"{existing} cannot be written to", "change its owner or mode, or artifacts_root")


@contextlib.contextmanager
def _uploads_as_they_were(root: Path) -> Iterator[None]:
    uploads = root / ".uploads"
    existed = uploads.exists()
    yield
    if not existed:
        with contextlib.suppress(OSError):  # a server that runs has something in it meanwhile
            uploads.rmdir()


def _room(path: Path) -> Sight:
    free = shutil.disk_usage(path).free
    remedy = "make room, or keep artifacts elsewhere (artifacts_root)" if free < _LITTLE_ROOM else ""
    return Sight("free space", f"{free / (1024 * MIB):.1f} GiB", remedy, grave=False)


async def _try(root: LocalRoot | S3Root, s3: S3Options, *, direct: bool) -> AsyncIterator[Sight]:
    where = _Where.of(root, s3)
    try:
        store = await open_store(root, s3)
    except StoreRefused as error:
        yield _failure("artifacts", error, where)
        return
    try:
        if isinstance(store, Reachable):
            try:
                yield _clock(await store.reach())
            except PenstockError as error:
                yield _failure("artifacts", error, where)
                return
        for subject, attempt in (("artifacts", _objects), ("multipart", _multipart)):
            yield await _sight(subject, attempt, store, where)
        if direct:
            yield await _sight("addresses", lambda store, key: _addresses(store, key, s3), store, where)
    finally:
        await store.close()


async def _sight(subject: str, attempt: Callable[[Store, str], Awaitable[str]], store: Store, where: _Where) -> Sight:
    key = f".penstock-doctor/{uuid.uuid4().hex}"
    try:
        return Sight(subject, await attempt(store, key))
    except PenstockError as error:
        return _failure(subject, error, where)
    finally:
        with contextlib.suppress(PenstockError):
            await store.delete([key])


def _failure(subject: str, error: PenstockError, where: _Where) -> Sight:
    remedy = where.remedy
    match error:
        case StoreRefused():
            return Sight(subject, where.told + error.found, error.remedy)
        case NotFound():
            found = f"it answers, but not as S3 would ({error})"
            return Sight(
                subject, where.told + found, "let s3_endpoint be http(s)://host:port of its S3, without a bucket"
            )
        case StoreFull():
            remedy = "make room there, or raise its quota"
    return Sight(subject, where.told + str(error), remedy)


def _clock(skew: float) -> Sight:
    found = f"the store's is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours"
    if abs(skew) < _SKEW_SECONDS:
        return Sight("clock", "agrees with the store's")
    return Sight("clock", found, "set this machine's clock, by NTP", grave=abs(skew) > _SKEW_SECONDS_MOST)


async def _objects(store: Store, key: str) -> str:
    await store.put(key, _TEXT, "text/plain")
    if await _read(store, key, len(_TEXT)) != _TEXT:
        raise _other_bytes(key)
    await store.delete([key])
    if await store.size(key) is not None:
        raise StoreRefused("what was deleted is still there", "see whether something holds or restores objects there")
    return f"{store.uri('')}: written, read back and deleted"


async def _multipart(store: Store, key: str) -> str:
    first = bytes(_FIRST_PART)
    token = await store.begin(key, "text/plain")
    try:
        await store.put_part(key, token, 1, 0, _TEXT)
        async for _ in store.begun():  # not every store tells of all; whether it may be asked is the question
            pass
    finally:
        await store.abort(key, token)
    token = await store.begin(key, "text/plain")
    try:
        parts = [
            Part(1, len(first), await store.put_part(key, token, 1, 0, first)),
            Part(2, len(_TEXT), await store.put_part(key, token, 2, len(first), _TEXT)),
        ]
        await store.complete(key, token, parts)
    except PenstockError:
        await _give_up(store, key, token)
        raise
    if await _read(store, key, len(first) + len(_TEXT)) != first + _TEXT:
        raise _other_bytes(key)
    return f"an object of {len(first) + len(_TEXT)} bytes in two parts written and read back, an upload given up"


async def _give_up(store: Store, key: str, token: str) -> None:
    with contextlib.suppress(PenstockError):
        await store.abort(key, token)


async def _addresses(store: Store, key: str, s3: S3Options) -> str:
    token = await store.begin(key, "text/plain")
    try:
        address = await store.sign_part(key, token, 1, _ADDRESS_SECONDS)
        etag = await asyncio.to_thread(_fetch, "PUT", address, s3.ca_bundle)
        await store.complete(key, token, [Part(1, len(_TEXT), etag)])
    except PenstockError:
        await _give_up(store, key, token)
        raise
    await asyncio.to_thread(_fetch, "GET", await store.sign_read(key, _ADDRESS_SECONDS), s3.ca_bundle)
    return "presigned, and taken"


def _fetch(method: str, address: str, ca_bundle: Path | None) -> str:
    """As a client would, without credentials. Returns the etag."""
    context = ssl.create_default_context(cafile=str(ca_bundle) if ca_bundle else None)
    request = urllib.request.Request(address, _TEXT if method == "PUT" else None, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_ADDRESS_SECONDS, context=context) as answer:  # noqa: S310
            return str(answer.headers["ETag"])
    except OSError as error:  # the address itself stays unsaid: it is a key to the object
        raise StoreRefused(
            f"{method} to a presigned address failed ({error})",
            "let the credentials that sign do what clients shall do, or use artifacts_mode = proxied",
        ) from None


async def _read(store: Store, key: str, size: int) -> bytes:
    return b"".join([chunk async for chunk in store.read(key, 0, size)])


def _other_bytes(key: str) -> StoreRefused:
    return StoreRefused(f"{key} read back is not what was written", "see what lies between the server and the store")
