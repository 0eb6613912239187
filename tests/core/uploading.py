"""Somebody who brings files in through core, and looks at what became of them."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

from penstock_server.blobs import Store
from penstock_server.core.artifacts import Artifacts
from penstock_server.core.uploads import Uploads
from penstock_server.ingest.precedence import Precedence
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.artifacts import Artifact, UploadId
from penstock_server.model.errors import NotFound
from penstock_server.model.owners import of_run
from penstock_server.model.runs import NewRun, RunId
from penstock_server.model.uploads import NewUpload, Plan, Trailer
from penstock_server.postgres.database import Database

PART = 64 << 10
CALLER = Caller("tester", WorkspaceId(1))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def content(size: int) -> bytes:
    return os.urandom(size)


async def execute(db: Database, sql: str, *args: object) -> Any:
    async with db.connection() as conn:
        return await conn.fetch(sql, *args)


class Stream:
    """What a client sends: chunks, as they are put, and the end."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Trailer | None] = asyncio.Queue(1)

    async def put(self, *contents: bytes | Trailer | None) -> None:
        """Returns when all but the last are taken; None is the end."""
        for each in contents:
            await self._queue.put(each)

    async def __aiter__(self) -> AsyncIterator[bytes | Trailer]:
        while (each := await self._queue.get()) is not None:
            yield each


class Place:
    """A server process's uploads and artifacts, on one run."""

    def __init__(
        self,
        db: Database,
        store: Store,
        run_id: RunId,
        *,
        direct: bool = False,
        precedence: Precedence | None = None,
    ) -> None:
        self.db = db
        self.store = store
        self.run_id = run_id
        self.owner = of_run(run_id)
        self.nudged = 0
        precedence = precedence or Precedence()
        self.uploads = Uploads(db, store, precedence, direct=direct)
        self.artifacts = Artifacts(db, store, precedence, direct=direct, nudge=self._nudge)

    def _nudge(self) -> None:
        self.nudged += 1

    def another(self, *, direct: bool = False) -> Place:
        """Another process, or this one after a restart."""
        return Place(self.db, self.store, self.run_id, direct=direct)

    def new(self, path: str, data: bytes, **fields: Any) -> NewUpload:
        return NewUpload(self.owner, path, **{"size": len(data)} | fields)

    async def begin(self, path: str, size: int, **fields: Any) -> Plan:
        return await self.uploads.begin(CALLER, NewUpload(self.owner, path, size, **fields))

    async def upload(
        self, path: str, data: bytes, *, chunk: int = 50_000, digest: bytes | None = None, **fields: Any
    ) -> Artifact:
        """Sends all of `data` from the offset on, in chunks."""
        new = self.new(path, data, **fields)

        async def contents() -> AsyncIterator[bytes | Trailer]:
            for start in range(new.offset, len(data), chunk):
                yield data[start : start + chunk]
            yield Trailer(sha256(data) if digest is None else digest)

        return await self.uploads.receive(CALLER, new, b"", contents())

    def open(self, path: str, data: bytes, **fields: Any) -> tuple[Stream, asyncio.Task[Artifact]]:
        """A stream to put into, and what takes it."""
        stream = Stream()
        taking = self.uploads.receive(CALLER, self.new(path, data, **fields), b"", aiter(stream))
        return stream, asyncio.create_task(taking)

    async def broken(self, path: str, data: bytes, parts: int, part_bytes: int) -> UploadId:
        """An upload whose client leaves when so many parts are stored."""
        plan = await self.begin(path, len(data))
        assert plan.upload is not None
        stream, task = self.open(path, data, upload_id=plan.upload.id)
        # A part goes off when the next byte comes.
        await stream.put(data[: parts * part_bytes], data[parts * part_bytes :][:1])
        await self.stored(plan.upload.id, parts)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return plan.upload.id

    async def stored(self, upload_id: UploadId, parts: int) -> None:
        """Waits until so many are."""
        async with asyncio.timeout(20):
            while len(await execute(self.db, "SELECT FROM artifact_parts WHERE blob_id = $1", upload_id)) < parts:
                await asyncio.sleep(0.005)

    async def read(self, path: str, **fields: Any) -> bytes | None:
        """What is there to be seen, None when there is nothing; it is what its digest says."""
        try:
            contents = [each async for each in self.artifacts.download(CALLER, self.owner, path, **fields)]
        except NotFound:
            return None
        artifact, chunks = contents[0], contents[1:]
        data = b"".join(chunk for chunk in chunks if isinstance(chunk, bytes))
        assert isinstance(artifact, Artifact)
        assert fields or (artifact.size, artifact.sha256) == (len(data), sha256(data))
        return data

    async def states(self) -> list[tuple[str, int]]:
        """Of all blobs, by path: 1 being written, 2 an artifact, 3 to be removed."""
        rows = await execute(self.db, "SELECT path, state FROM artifact_blobs ORDER BY path, state")
        return [tuple(row) for row in rows]

    @property
    def held(self) -> int:
        """Bytes of the budget that are in use."""
        return self.uploads._budget.used + self.uploads._small_budget.used


async def place(db: Database, store: Store, **options: Any) -> Place:
    """On a new run."""
    from penstock_server.core.runs import Runs

    made = await Runs(db, lambda _: None).create(CALLER, NewRun())
    return Place(db, store, made.id, **options)
