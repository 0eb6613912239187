"""Straight to the artifacts' store and back, where the server says so: by HTTP, to addresses that it has signed, for
which no credentials are needed here; or by files that client and server share.

An address is as good as a credential while it lasts: none is ever told in an error.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from penstock.effort import PATIENCE, Effort
from penstock.errors import Changed, FailedPrecondition, PenstockError, ServerError, Unavailable, UploadGone
from penstock.parallel import in_parallel
from penstock.sources import Source
from penstock.v1 import artifacts_pb2 as pb
from penstock.wire import CHUNK, Wire

_PARTS = 4  # at once, of one file
_UNFINISHED = 100  # uploads that are remembered
_SIGNED = 100  # addresses asked for at once
_TIMEOUT = 60.0  # seconds for a connection, and between two signs of life
_PIECE = 64 << 10  # bytes given to a connection at once: its limit of time is that of each
_MESSAGE_BYTES = 4_000
_SOON = frozenset((408, 429, 500, 502, 503, 504))
_DAMAGED = frozenset(("BadDigest", "InvalidDigest", "IncompleteBody", "RequestTimeout"))
_STALE = frozenset(("ExpiredToken", "TokenRefreshRequired"))  # of the session that signed, with status 400
_BLOCK = 16 << 20  # of a file that is copied, between two looks at who wants it
_UPLOADS = ".uploads"  # the directory of a server's store
_WRITE = os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

# Parts that are in memory, of all uploads of this process: 16 MiB each at most.
_ROOM = 8
_room = threading.BoundedSemaphore(_ROOM)


def _in_child() -> None:
    global _room, unfinished  # its own: the parent's uploads are not here
    _room, unfinished = threading.BoundedSemaphore(_ROOM), Unfinished()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Expired(PenstockError):
    """An address that was signed is not good, or no longer."""


class Http:
    """To the store. Connections are used again. Raises Unavailable, Expired, and what else `_refusal` tells."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}

    def put(self, url: str, data: bytes, md5: bytes) -> str:
        """Sends a part. Returns its ETag."""
        headers = {"Content-MD5": base64.b64encode(md5).decode(), "Content-Length": str(len(data))}
        view = memoryview(data)
        pieces = (view[at : at + _PIECE] for at in range(0, len(data), _PIECE))
        where, connection, response = self._ask("PUT", url, headers, pieces)
        try:
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _away(where, error) from None
        self._keep(where, connection, response)
        if response.status != http.client.OK:
            raise _refusal(where, response.status, body)
        return response.headers.get("ETag", "")

    def get(self, url: str, start: int, length: int) -> Iterator[bytes]:
        """A range of an object, in chunks."""
        wanted = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        where, connection, response = self._ask("GET", url, wanted)
        try:
            # Some say 200 with a range, too.
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                body = response.read(_MESSAGE_BYTES)
                connection.close()
                raise _refusal(where, response.status, body)
            while data := response.read(CHUNK):
                yield data
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _away(where, error) from None
        except BaseException:
            connection.close()
            raise
        self._keep(where, connection, response)

    def close(self) -> None:
        """Let go of the connections."""
        for connections in self._idle.values():
            while connections:
                connections.pop().close()

    def _ask(
        self, method: str, url: str, headers: dict[str, str], body: Iterator[memoryview] | None = None
    ) -> tuple[SplitResult, http.client.HTTPConnection, http.client.HTTPResponse]:
        where = urlsplit(url)
        try:
            connection = self._idle.setdefault((where.scheme, where.netloc), []).pop()
        except IndexError:
            connection = _connection(where)
        try:
            connection.request(method, f"{where.path or '/'}?{where.query}", body, headers)
            return where, connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _away(where, error) from None

    def _keep(
        self, where: SplitResult, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        if response.will_close or not response.isclosed():
            connection.close()
        else:
            self._idle[where.scheme, where.netloc].append(connection)


def _connection(where: SplitResult) -> http.client.HTTPConnection:
    match where.scheme:
        case "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(where.netloc, timeout=_TIMEOUT, context=context)
        case "http":
            return http.client.HTTPConnection(where.netloc, timeout=_TIMEOUT)
    raise ServerError(f"the server names an address of the artifacts' store that is none of HTTP ({where.scheme}:)")


def _away(where: SplitResult, error: Exception) -> PenstockError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return FailedPrecondition(
            f"the artifacts' store at {where.netloc} is not trusted ({error.verify_message}); "
            "set SSL_CERT_FILE to the certificates that vouch for it"
        )
    told = str(error) or type(error).__name__
    return Unavailable(f"the artifacts' store at {where.netloc} cannot be reached from here ({told})")


def _refusal(where: SplitResult, status: int, body: bytes) -> PenstockError:
    text = body[:_MESSAGE_BYTES].decode(errors="replace")
    code, message = (
        found[1] if (found := re.search(f"<{name}>([^<]*)</{name}>", text)) else "" for name in ("Code", "Message")
    )
    told = f"the artifacts' store at {where.netloc} answers {status} {code} {message}".rstrip()
    if status in _SOON or code in _DAMAGED:
        return Unavailable(told)
    if status == http.client.FORBIDDEN or code in _STALE:
        return Expired(told)
    if code == "NoSuchUpload":
        return UploadGone(told)
    if status in (http.client.NOT_FOUND, http.client.REQUESTED_RANGE_NOT_SATISFIABLE):
        return Changed(told)
    return FailedPrecondition(told)


@dataclass
class Begun:
    """An upload that the server has begun, and what the store has of it."""

    answer: pb.BeginUploadResponse
    parts: dict[int, tuple[bytes, str]] = field(default_factory=dict)  # MD5 and ETag, by number


class Unfinished:
    """Uploads that broke off, for this process to go on with: nobody else knows what the store has answered."""

    def __init__(self) -> None:
        self._of: dict[tuple[object, ...], Begun] = {}

    def keep(self, key: tuple[object, ...], begun: Begun) -> None:
        """Until it is taken. The oldest are forgotten, and swept up by the server in a day."""
        self._of[key] = begun
        for old in list(self._of)[:-_UNFINISHED]:
            self._of.pop(old, None)

    def take(self, key: tuple[object, ...]) -> Begun | None:
        """For one to go on with it."""
        return self._of.pop(key, None)


unfinished = Unfinished()


class SignedParts:
    """One file on its way to the store, in parts, a few at once."""

    def __init__(
        self,
        wire: Wire,
        run_id: str,
        begun: Begun,
        source: Source,
        effort: Effort,
        progress: Callable[[int], None],
    ) -> None:
        """`progress` is told how many bytes are there."""
        self._wire = wire
        self._run_id = run_id
        self._upload_id = begun.answer.upload_id
        self._part_bytes = begun.answer.part_bytes
        self._there = begun.parts
        self._source = source
        self._effort = effort
        self._progress = progress
        self._http = Http()
        self._lock = threading.Lock()
        self._urls: dict[int, str] = {}
        self._count = -(-source.size // begun.answer.part_bytes)
        self._sent = 0

    def put(self) -> list[pb.CompleteUploadRequest.Part]:
        """Send what is not there. What the store has answered, in turn.

        Raises UploadGone, FailedPrecondition, and as `Effort`, with the usual patience at least: of an upload that is
        given up everything has to be sent again.
        """
        try:
            in_parallel(self._put, self._parts(), min(_PARTS, self._count), self._effort)
        finally:
            self._http.close()
        return [
            pb.CompleteUploadRequest.Part(number=number, etag=etag) for number, (_, etag) in sorted(self._there.items())
        ]

    def _parts(self) -> Iterator[tuple[int, bytes]]:
        """In turn, each when there is room for it."""
        for number in range(1, self._count + 1):
            while not _room.acquire(timeout=0.2):
                self._effort.check()
            try:
                start = (number - 1) * self._part_bytes
                data = self._source.read(start, min(self._part_bytes, self._source.size - start))
            except BaseException:
                _room.release()
                raise
            yield number, data

    def _put(self, part: tuple[int, bytes]) -> None:
        number, data = part
        try:
            md5 = hashlib.md5(data, usedforsecurity=False).digest()
            if self._there.get(number, (b"",))[0] != md5:
                etag = self._effort.persist(lambda: self._try(number, data, md5), over=UploadGone, least=PATIENCE)
                self._there[number] = md5, etag
                self._effort.advanced()
        finally:
            _room.release()
        with self._lock:
            self._sent += len(data)
            self._progress(self._sent)

    def _try(self, number: int, data: bytes, md5: bytes) -> str:
        url = self._url(number, "")
        try:
            return self._http.put(url, data, md5)
        except Expired:
            url = self._url(number, url)
        try:
            return self._http.put(url, data, md5)
        except Expired as error:  # as fresh as it can be
            raise FailedPrecondition(str(error)) from None

    def _url(self, number: int, stale: str) -> str:
        """Where a part goes. Signs those that follow, too."""
        with self._lock:
            if self._urls.get(number, "") == stale:
                count = min(_SIGNED, self._count - number + 1)
                message = pb.SignUploadPartsRequest(
                    run_id=self._run_id, upload_id=self._upload_id, first=number, count=count
                )
                urls = self._wire.ask("SignUploadParts", message).urls
                self._urls.update(enumerate(urls, number))
            return self._urls[number]


def path_of(uri: str) -> Path:
    """The file that a file: URI names, on this machine. Raises ServerError."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.scheme != "file" or not path:
        raise ServerError("the server names a file for the bytes that is none")
    if parts.netloc and parts.netloc != "localhost":
        return Path(f"//{parts.netloc}{path}")
    return Path(path[1:] if os.name == "nt" and path[2:3] == ":" else path)


def write_file(uri: str, source: Source, effort: Effort, progress: Callable[[int], None]) -> None:
    """Write all of it to the file that the server has made for it, and wait for the disk; meanwhile it is hashed.

    `progress` is told how many bytes are there. Raises FailedPrecondition when that file is not to be had here;
    ServerError when it is any other: what has bytes, or lies elsewhere, is not written to for a server's word.
    """
    path = path_of(uri)
    ended = threading.Event()  # of one, with an error

    def write() -> None:
        with _given_file(path) as file:
            for start in range(0, source.size, _BLOCK):
                effort.check()
                if ended.is_set():
                    return
                length = min(_BLOCK, source.size - start)
                source.copy(file.fileno(), start, length)
                progress(start + length)
            os.fsync(file.fileno())

    def read() -> None:
        for start in range(0, source.size, _BLOCK):
            effort.check()
            if ended.is_set():
                return
            source.digest(min(start + _BLOCK, source.size))

    def work(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException:
            ended.set()
            raise

    in_parallel(work, (write, read), 2, effort)


def _given_file(path: Path) -> FileIO:
    try:
        descriptor = os.open(path, _WRITE)
    except OSError as error:
        raise FailedPrecondition(
            f"the server wants artifacts to be written to {str(path.parent)!r} directly, which does not work from here "
            f"({error.strerror}): mount that directory on this machine so that this user may write there, "
            "or set the server to artifacts_mode = proxied"
        ) from None
    file = FileIO(descriptor, "w")
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size or found.st_nlink > 1 or path.parent.name != _UPLOADS:
        file.close()
        raise ServerError("the server names a file for the bytes that is not one that it has just made for them")
    return file
