"""One stream of an upload: its bytes are gathered into parts, hashed, and stored, a few parts at once.

Memory is bounded twice: by parts in flight per upload, and by a budget that all uploads of the process share. Who has
no room is not read from, and gRPC's flow control holds the client; beside that, each stream has one message. Pieces of
a part are views of messages: with clients that send long ones it keeps the rest of its first and last message, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from penstock_server import telemetry
from penstock_server.blobs.store import Bytes, Store
from penstock_server.core import wholes
from penstock_server.ingest.budget import Budget
from penstock_server.ingest.precedence import Precedence
from penstock_server.model.artifacts import Part, UploadId, check_size
from penstock_server.model.errors import ContentMismatch, InvalidArgument, PenstockError, Unavailable
from penstock_server.model.uploads import Trailer, Upload
from penstock_server.postgres import uploads
from penstock_server.postgres.database import Database

if TYPE_CHECKING:
    from hashlib import _Hash

# One of them is gathered while the others are on their way to the store.
_PARTS_AT_ONCE = 4
# Who sends nothing for so long gives its room to the others, and goes on later from the last part.
_SILENCE_SECONDS = 120.0
# So does who fills no part in this time, however often it sends: a part has all its room from its first byte on.
_PART_SECONDS = 600.0
# Below this, a thread costs more than the hash.
HASH_HERE_BYTES = 64 << 10
# What comes in smaller pieces is put together: there is memory beside each.
_PIECE_BYTES = 64 << 10
_DIGESTS_KEPT = 1_000


class Digests:
    """The running SHA-256 of uploads that broke off, at the end of their last part; of the newest thousand."""

    def __init__(self) -> None:
        self._kept: OrderedDict[UploadId, _Hash] = OrderedDict()

    def keep(self, upload_id: UploadId, digest: _Hash) -> None:
        """Of all parts that are stored."""
        self._kept[upload_id] = digest
        self._kept.move_to_end(upload_id)
        if len(self._kept) > _DIGESTS_KEPT:
            self._kept.popitem(last=False)

    def take(self, upload_id: UploadId, stored: Sequence[Part]) -> _Hash | None:
        """That of these parts; None when it is not known. Another process may have stored others in their place."""
        kept = self._kept.pop(upload_id, None)
        if not stored:
            return hashlib.sha256()
        return kept if kept is not None and kept.digest() == stored[-1].prefix_sha256 else None


class Receiving:
    """What comes in one stream, after the parts that are stored already."""

    def __init__(
        self,
        db: Database,
        store: Store,
        budget: Budget,
        precedence: Precedence,
        upload: Upload,
        stored: Sequence[Part],
        digest: _Hash | None,
    ) -> None:
        """`digest` is of the parts in `stored`; None when it is not known."""
        self._db = db
        self._store = store
        self._budget = budget
        self._precedence = precedence
        self._upload = upload
        self._token = upload.token
        self._held = 0
        self._digest = digest
        self._hashing = asyncio.Lock()
        self._slots = asyncio.Semaphore(_PARTS_AT_ONCE)
        self._pieces: list[bytearray | memoryview] = []  # of the part that is gathered, as they came
        self._filled = self._room = 0
        self._until: float | None = None  # by the loop's clock, the part that is gathered must be full
        self._begun = self._ended = len(stored)  # parts; of the latter none before is missing
        self._digests: dict[int, _Hash] = {}
        if digest is not None:
            self._digests[self._ended] = digest.copy()
        self.since = time.monotonic()
        self.parts = {part.number: part for part in stored}
        self.received = sum(part.size for part in stored)

    @property
    def token(self) -> str | None:
        """What the store calls the upload, if it has begun one."""
        return self._token

    @property
    def lone(self) -> Bytes | None:
        """All that there is, when none of it went to the store."""
        if self._begun:
            return None
        if len(self._pieces) != 1:
            self._pieces = [bytearray().join(self._pieces)]
        return self._pieces[0]

    @property
    def sha256(self) -> bytes | None:
        """Of all that was received, if it is known. When the last part is stored."""
        return None if self._digest is None else self._digest.digest()

    async def receive(self, data: Bytes, contents: AsyncIterator[Bytes | Trailer]) -> Trailer | None:
        """Stores all that comes, but for what is `lone`; the trailer, if there is one.

        Raises ContentMismatch, UploadGone, Unavailable when nothing comes for long, and what the store and `contents`
        raise.
        """
        try:
            async with asyncio.TaskGroup() as group:
                return await self._gather(group, data, contents)
        except ExceptionGroup as errors:
            raise only(errors) from None

    async def _gather(
        self, group: asyncio.TaskGroup, data: Bytes, contents: AsyncIterator[Bytes | Trailer]
    ) -> Trailer | None:
        trailer: Trailer | None = None
        await self._add(group, data)
        while (content := await self._next(contents)) is not None:
            if trailer is not None:
                raise InvalidArgument("message", "comes after the trailer; send the trailer last")
            if isinstance(content, Trailer):
                trailer = content
            else:
                await self._add(group, content)
        if self._upload.size not in (None, self.received):
            told, came = self._upload.size, self.received
            if trailer is None and self._begun:
                # What gRPC says of a client that is gone may be: the end of its stream.
                raise Unavailable(f"only {came} of {told} bytes have come; go on where they end", 1.0)
            raise ContentMismatch("size", f"{told} bytes were told of {self._upload.path!r}, and {came} have come")
        if not self._begun:
            await self._hash(self._pieces, self._filled)
        elif self._filled:
            await self._send_off(group)
        return trailer

    def close(self, digests: Digests) -> None:
        """Gives back the room, and keeps the digest at the end of the parts that are stored without a gap."""
        self._budget.give(self._held)
        self._held = 0
        if self._ended in self._digests and self._ended:
            digests.keep(self._upload.id, self._digests[self._ended])

    async def _add(self, group: asyncio.TaskGroup, data: Bytes) -> None:
        """Puts bytes into parts. A part goes off when the next byte comes: the last one may be the only one."""
        size, part_bytes = self._upload.size, self._upload.part_bytes
        left = memoryview(data)
        if size is not None and self.received + len(left) > size:
            raise ContentMismatch("size", f"{size} bytes were told of {self._upload.path!r}, and more have come")
        check_size(self.received + len(left))
        await self._precedence.give_way()
        while left:
            if self._filled == part_bytes:
                await self._send_off(group)
            if not self._pieces:
                room = part_bytes if size is None else min(part_bytes, size - self.received)
                await self._slots.acquire()
                await self._budget.take(room)
                self._held += room
                self._room = room
                self._until = asyncio.get_running_loop().time() + _PART_SECONDS
            count = min(len(left), part_bytes - self._filled)
            self._keep(left[:count])
            self._filled += count
            self.received += count
            left = left[count:]
        telemetry.artifact_bytes.labels("in").inc(len(data))

    async def _send_off(self, group: asyncio.TaskGroup) -> None:
        if self._token is None:
            self._token = await wholes.begin(self._db, self._store, self._upload)
        self._begun += 1
        group.create_task(self._put(self._token, self._begun, self._pieces, self._filled, self._room))
        self._pieces, self._filled, self._until = [], 0, None

    def _keep(self, piece: memoryview) -> None:
        last = self._pieces[-1] if self._pieces else None
        if len(piece) >= _PIECE_BYTES:
            self._pieces.append(piece)
        elif isinstance(last, bytearray) and len(last) < _PIECE_BYTES:
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    async def _put(self, token: str, number: int, pieces: Sequence[Bytes], size: int, room: int) -> None:
        offset = (number - 1) * self._upload.part_bytes
        async with asyncio.TaskGroup() as both:
            prefix = both.create_task(self._prefix(number, pieces, size))
            etag = both.create_task(self._store.put_part(self._upload.key, token, number, offset, *pieces))
        part = Part(number, size, etag.result(), prefix.result())
        async with self._db.connection() as conn:
            await uploads.record(conn, self._upload, part)
        self.parts[number] = part
        while self._ended + 1 in self.parts:
            self._digests.pop(self._ended, None)
            self._ended += 1
        self._budget.give(room)
        self._held -= room
        self._slots.release()

    async def _prefix(self, number: int, pieces: Sequence[Bytes], size: int) -> bytes:
        """The digest up to the end of a part; empty when it is not known."""
        async with self._hashing:  # in the order of the parts, which is that of their tasks
            await self._hash(pieces, size)
            if self._digest is None:
                return b""
            self._digests[number] = self._digest.copy()
            return self._digest.digest()

    async def _hash(self, pieces: Sequence[Bytes], size: int) -> None:
        if self._digest is None:
            return
        if size <= HASH_HERE_BYTES:
            _update(self._digest, pieces)
        else:
            await asyncio.to_thread(_update, self._digest, pieces)

    async def _next(self, contents: AsyncIterator[Bytes | Trailer]) -> Bytes | Trailer | None:
        """What comes next; None at the end. Raises Unavailable when nothing comes, or too little."""
        until = asyncio.get_running_loop().time() + _SILENCE_SECONDS
        try:
            async with asyncio.timeout_at(until if self._until is None else min(until, self._until)):
                return await anext(contents, None)
        except TimeoutError:
            raise Unavailable(
                f"no bytes came for {_SILENCE_SECONDS:g} s, or no part in {_PART_SECONDS:g} s; go on where it ended",
                1.0,
            ) from None


def _update(digest: _Hash, pieces: Sequence[Bytes]) -> None:
    for piece in pieces:
        digest.update(piece)


def only(errors: ExceptionGroup[Exception]) -> Exception:
    """Of what failed at once the one to tell: a bug before anything else."""
    causes = [only(error) if isinstance(error, ExceptionGroup) else error for error in errors.exceptions]
    return min(causes, key=lambda cause: isinstance(cause, PenstockError))
