"""What core asks of a store, whichever it is.

Keys are those of `model.artifacts`, below the store's root. An object is written once, as a whole or in parts, and is
not there before it is complete. Every method may raise what `model.errors` has for stores: Unavailable when trying
again later may help, StoreFull, StoreRefused when somebody has to mend something.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from penstock_server.model.artifacts import Part
from penstock_server.model.errors import PenstockError

Bytes = bytes | bytearray | memoryview


class Digest(Protocol):
    """What takes bytes, as hashlib's do."""

    def update(self, data: Bytes, /) -> None:
        """Those that come next."""


class Object(NamedTuple):
    """A small object to be written as a whole."""

    key: str
    data: Bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload in parts that a store knows of, and that has no end yet. Time in ms since 1970."""

    key: str
    token: str
    begun_ms: int


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach a bucket. Credentials are not ours to ask for: botocore finds them as AWS's own tools do.

    Half of the `connections` may be readers. A call is made `attempts` times at most, with growing pauses between.
    """

    endpoint: str | None = None
    region: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key: str | None = None
    ca_bundle: Path | None = None
    connections: int = 96
    attempts: int = 5


class Store(Protocol):
    """Bytes by key."""

    def uri(self, key: str) -> str:
        """For who reads the store without us: file:///… or s3://…"""

    async def put(self, key: str, data: Bytes, media_type: str) -> None:
        """Writes a small object as a whole."""

    async def put_all(self, objects: Sequence[Object]) -> list[PenstockError | None]:
        """Writes small objects as wholes. Of each, in turn: None, or what `put` would raise. No key twice."""

    async def begin(self, key: str, media_type: str) -> str:
        """Begins an object in parts. Returns what the store calls the upload: its token."""

    async def put_part(self, key: str, token: str, number: int, offset: int, *data: Bytes) -> str:
        """Writes part `number` (from 1), which begins at `offset` of the whole and comes in pieces. Returns its etag.

        Raises UploadGone.
        """

    async def complete(self, key: str, token: str, parts: Sequence[Part]) -> None:
        """Puts the parts together: the object is there after it. Raises UploadGone."""

    async def abort(self, key: str, token: str) -> None:
        """Frees what is stored of an upload. It is fine when there is none."""

    def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """So many bytes from `start` on, in chunks of 1 MiB at most. Raises NotFound."""

    async def hash(self, key: str, digest: Digest, start: int, end: int, token: str | None = None) -> int:
        """Gives the bytes from `start` to `end` to a digest; where it ended, when there are no more. Raises NotFound.

        With `token`, those of the file that this upload is gathered in, where it is one. Raises UploadGone.
        Who is cancelled cannot know how many the digest has got.
        """

    async def size(self, key: str) -> int | None:
        """Of an object, in bytes; None when it is not there."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Removes objects. It is fine when they are not there."""

    def begun(self) -> AsyncIterator[Begun]:
        """All uploads in parts that have no end yet."""

    def file_uri(self, token: str) -> str | None:
        """Of the file that an upload is gathered in, for who writes it without us; None where it is no file."""

    async def sign_part(self, key: str, token: str, number: int, seconds: int) -> str:
        """An address that takes a part by HTTP PUT, good for so long. Raises FailedPrecondition where there is none."""

    async def sign_read(self, key: str, seconds: int) -> str:
        """An address that gives an object by HTTP GET, good for so long; a file: URI where it is a file."""

    async def close(self) -> None:
        """Lets go of connections. May be called again."""
