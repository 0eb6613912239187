"""Artifacts in a directory of this machine, or one that is mounted.

What was answered survives a power cut: files and the directories that name them are synced before. An upload is
gathered in `.uploads/{token}`, which no key begins with, and moved to its key when it is complete.

The directory is made by who writes to it first. To all others one that is not there is no empty one: it may be not
mounted, or not the one that was meant, and what was told to be removed there is elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from penstock_server.blobs import confined
from penstock_server.blobs.store import Begun, Bytes, Digest, Object
from penstock_server.model.artifacts import MIB, LocalRoot, Part
from penstock_server.model.errors import (
    FailedPrecondition,
    NotFound,
    PenstockError,
    StoreFull,
    StoreRefused,
    Unavailable,
    UploadGone,
)

T = TypeVar("T")

_UPLOADS = ".uploads"
_CHUNK = MIB
_BLOCK = MIB // 4  # hashed at once: stays in the processor's cache
_JOB = 64 * MIB  # hashed by a thread before others have their turn, or who waits can leave
_ADVISES = hasattr(os, "posix_fadvise")
_THREADS = 8  # small files wait for the disk together: the more of them, the more does one sync serve
_OBJECTS = 32  # of many, written by a thread before others have their turn, or who waits can leave
_RETRY_SECONDS = 5.0


class LocalStore:
    """Implements `blobs.store.Store`."""

    def __init__(self, root: LocalRoot) -> None:
        self._root = root
        self._made = False
        self._kept = confined.Kept()
        self._many = asyncio.Semaphore(_THREADS // 2)  # threads, that readers and others need not wait for so many
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="artifacts")

    def uri(self, key: str) -> str:
        """file:///…"""
        return self._root.uri(key)

    def file_uri(self, token: str) -> str:
        """Of the file that an upload is gathered in, for a client that writes it itself."""
        return self._root.uri(f"{_UPLOADS}/{token}")

    async def put(self, key: str, data: Bytes, media_type: str) -> None:
        """Writes a small object as a whole."""
        (error,) = await self._run(lambda: self._put_all([Object(key, data, media_type)]))
        if error is not None:
            raise error

    async def put_all(self, objects: Sequence[Object]) -> list[PenstockError | None]:
        """Some in one thread, and with one sync of each of their directories."""
        errors: list[PenstockError | None] = []
        for first in range(0, len(objects), _OBJECTS):
            async with self._many:
                errors += await self._run(partial(self._put_all, objects[first : first + _OBJECTS]))
        return errors

    async def begin(self, key: str, media_type: str) -> str:
        """Makes the file that parts go to."""
        del key, media_type
        return await self._run(lambda: self._begin(b""), undo=self._abort)

    async def put_part(self, key: str, token: str, number: int, offset: int, *data: Bytes) -> str:
        """Writes where the part belongs; only `complete` puts it to the disk to stay. Raises UploadGone.

        Who goes on with parts that were written before reads the whole back: after a power cut they may not be there.
        """
        del key
        await self._run(lambda: self._put_part(token, offset, data))
        return str(number)

    async def complete(self, key: str, token: str, parts: Sequence[Part]) -> None:
        """Moves the file to its key. Without `parts` it is as long as it is. Raises UploadGone."""
        size = sum(part.size for part in parts) if parts else None
        await self._run(lambda: self._complete(key, token, size))

    async def abort(self, key: str, token: str) -> None:
        """Removes the file."""
        del key
        await self._run(lambda: self._abort(token))

    async def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """Reads on from the same file when it is deleted meanwhile. Raises NotFound."""
        file = await self._run(lambda: self._open(key), undo=os.close)
        try:
            while length > 0 and (chunk := await self._run(partial(os.pread, file, min(length, _CHUNK), start))):
                yield chunk
                start += len(chunk)
                length -= len(chunk)
        finally:
            os.close(file)

    async def hash(self, key: str, digest: Digest, start: int, end: int, token: str | None = None) -> int:
        """In threads. Raises NotFound, or UploadGone."""
        file = await self._run(
            lambda: self._open(key) if token is None else self._open_upload(token, os.O_RDONLY), undo=os.close
        )
        block = memoryview(bytearray(_BLOCK))
        try:
            while start < end:
                stop = min(end, start + _JOB)
                start = await self._run(partial(_hash, file, digest, start, stop, block))
                if start < stop:
                    break
        finally:
            os.close(file)
        return start

    async def size(self, key: str) -> int | None:
        """In bytes; None when it is not there."""
        return await self._run(lambda: self._size(key))

    async def delete(self, keys: Sequence[str]) -> None:
        """Removes the files, and directories that are empty then."""
        for key in keys:
            await self._run(partial(confined.remove, self._root.path, confined.names(key), self._kept))

    async def begun(self) -> AsyncIterator[Begun]:
        """The files that parts go to; begun when they were written last. Their keys are not known.

        None where there is no root: nobody has written yet, and nobody takes something for removed by this.
        """
        for token, written_ms in await self._run(self._begun):
            yield Begun("", token, written_ms)

    async def sign_part(self, key: str, token: str, number: int, seconds: int) -> str:
        """Raises FailedPrecondition: a directory takes no HTTP."""
        raise FailedPrecondition("artifacts are in a directory, which has no addresses for parts; write the file")

    async def sign_read(self, key: str, seconds: int) -> str:
        """The file's URI."""
        return self.uri(key)

    async def close(self) -> None:
        """Lets go of the threads."""
        self._threads.shutdown(wait=False)

    async def _run(self, work: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """Works in a thread. Who is cancelled waits for the thread, since it writes from a buffer that is used again;
        what it has got nobody hears of, so `undo` gives it back.
        """
        job = self._threads.submit(work)
        future = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            job.cancel()
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if undo and not future.cancelled() and future.exception() is None:
                undo(future.result())
            raise
        except OSError as error:
            raise self._meaning(error) from error

    def _meaning(self, error: OSError) -> PenstockError:
        root, reason = self._root.path, error.strerror or str(error)
        match error.errno:
            case _ if isinstance(error, confined.RootGoneError):
                return StoreRefused(f"{root} is not there", "mount it or make it")
            case errno.ENOSPC | errno.EDQUOT:
                return StoreFull(f"no room for artifacts in {root}: {reason}", _RETRY_SECONDS)
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return StoreRefused(
                    f"{root}: {reason}", "let the user that the server runs as read and write all that is below it"
                )
            case errno.ENOTDIR | errno.ELOOP | errno.EISDIR | errno.EEXIST | errno.ENOTEMPTY:
                return StoreRefused(
                    f"in {root}, {error.filename!r}: {reason}", "remove what stands in the way; links are not followed"
                )
            case errno.ENAMETOOLONG | errno.EINVAL | errno.EILSEQ | errno.EFBIG:
                return StoreRefused(
                    f"the file system of {root} does not take it: {reason}", "take another directory as the root"
                )
        return Unavailable(f"artifacts in {root} cannot be reached: {reason}", _RETRY_SECONDS)

    # What follows runs in threads.

    def _begin(self, data: Bytes) -> str:
        with self._making() as uploads:
            return self._create(uploads, data)

    def _put_all(self, objects: Sequence[Object]) -> list[PenstockError | None]:
        """What is gathered and not moved, after a bug or a kill, the sweeper finds by its age."""
        failed: dict[str, OSError] = {}  # by key
        with self._making() as uploads:
            moves: dict[tuple[str, ...], dict[str, str]] = {}  # by directory: of each token the name
            for each in objects:
                *above, name = confined.names(each.key)
                try:
                    token = self._create(uploads, each.data)
                except OSError as error:
                    failed[each.key] = error
                else:
                    moves.setdefault(tuple(above), {})[token] = name
            for target, names in moves.items():
                for token, reason in confined.move(uploads, names, self._root.path, target, self._kept).items():
                    failed["/".join((*target, names[token]))] = reason
                    _remove(uploads, token)
        return [self._meaning(failed[each.key]) if each.key in failed else None for each in objects]

    @contextmanager
    def _making(self) -> Iterator[int]:
        """The directory of uploads, which is made with all above it: somebody writes."""
        if not self._made:
            Path(self._root.path).mkdir(parents=True, exist_ok=True)
            self._made = True
        with confined.directory(self._root.path, [_UPLOADS], make=self._kept) as uploads:
            yield uploads

    def _create(self, uploads: int, data: Bytes) -> str:
        token = uuid.uuid4().hex
        file = confined.open_file(uploads, token, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            _write(file, 0, data)
            os.fsync(file)
        except OSError:
            _remove(uploads, token)
            raise
        finally:
            os.close(file)
        return token

    def _put_part(self, token: str, offset: int, data: Sequence[Bytes]) -> None:
        # Opened for each part: once the file is moved to its key, nobody writes to it any more.
        file = self._open_upload(token, os.O_WRONLY)
        try:
            size = _write(file, offset, *data)
            if _ADVISES:  # the disk begins with it now, and complete() need not wait for all
                os.posix_fadvise(file, offset, size, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)

    def _complete(self, key: str, token: str, size: int | None) -> None:
        # Who wrote the file itself may have kept it from being written by others.
        file = self._open_upload(token, os.O_RDONLY if size is None else os.O_RDWR)
        try:
            if size is not None and os.fstat(file).st_size < size:
                raise UploadGone(token)  # parts of it are missing
            if size is not None:
                os.ftruncate(file, size)
            try:
                os.fsync(file)
            except OSError:  # told only once: another fsync would say that all is well
                self._abort(token)
                raise
        finally:
            os.close(file)
        with confined.directory(self._root.path, [_UPLOADS]) as uploads:
            *above, name = confined.names(key)
            for error in confined.move(uploads, {token: name}, self._root.path, above, self._kept).values():
                raise UploadGone(token) if isinstance(error, FileNotFoundError) else error

    def _abort(self, token: str) -> None:
        with suppress(FileNotFoundError), confined.directory(self._root.path, [_UPLOADS]) as uploads:
            _remove(uploads, token)

    def _open_upload(self, token: str, flags: int) -> int:
        (name,) = confined.names(token)
        try:
            with confined.directory(self._root.path, [_UPLOADS]) as uploads:
                return confined.open_file(uploads, name, flags)
        except FileNotFoundError:
            raise UploadGone(token) from None

    def _open(self, key: str) -> int:
        *above, name = confined.names(key)
        try:
            with confined.directory(self._root.path, above) as parent:
                return confined.open_file(parent, name, os.O_RDONLY)
        except FileNotFoundError:
            raise NotFound("object", key) from None

    def _size(self, key: str) -> int | None:
        try:
            file = self._open(key)
        except NotFound:
            return None
        try:
            return os.fstat(file).st_size
        finally:
            os.close(file)

    def _begun(self) -> list[tuple[str, int]]:
        found = []
        with (
            suppress(FileNotFoundError, confined.RootGoneError),
            confined.directory(self._root.path, [_UPLOADS]) as uploads,
        ):
            for token in os.listdir(uploads):  # noqa: PTH208  # of a descriptor
                with suppress(FileNotFoundError):
                    written = os.stat(token, dir_fd=uploads, follow_symlinks=False).st_mtime_ns
                    found.append((token, written // 1_000_000))
        return found


def _remove(uploads: int, token: str) -> None:
    (name,) = confined.names(token)
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=uploads)


def _hash(file: int, digest: Digest, start: int, end: int, block: memoryview) -> int:
    """As far as there are bytes; where it ended."""
    while start < end and (count := os.preadv(file, [block[: end - start]], start)):
        digest.update(block[:count])
        start += count
    return start


def _write(file: int, offset: int, *data: Bytes) -> int:
    """Writes all of it; how many bytes that are."""
    end = offset
    for piece in data:
        view = memoryview(piece).cast("B")
        while view:
            written = os.pwrite(file, view, end)
            view, end = view[written:], end + written
    return end - offset
