"""Who asks for a file and does not read it holds nothing for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock.v1 import artifacts_pb2 as pb
from penstock.v1.artifacts_pb2_grpc import ArtifactServiceStub
from penstock_server.blobs.local import LocalStore
from penstock_server.core.access import Access
from penstock_server.core.artifacts import Artifacts
from penstock_server.core.runs import Runs
from penstock_server.core.uploads import Uploads
from penstock_server.ingest.precedence import Precedence
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.artifacts import LocalRoot
from penstock_server.model.owners import of_run
from penstock_server.model.runs import NewRun
from penstock_server.model.uploads import NewUpload, Trailer
from penstock_server.postgres.database import Database
from penstock_server.rpc import calls
from penstock_server.rpc.artifacts import ArtifactService
from penstock_server.rpc.server import Server

MIB = 1 << 20
SIZE = 64 * MIB


class Watched(LocalStore):
    """Tells when nobody reads any more."""

    def __init__(self, root: LocalRoot) -> None:
        super().__init__(root)
        self.left = asyncio.Event()

    async def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        try:
            async for chunk in super().read(key, start, length):
                yield chunk
        finally:
            self.left.set()


async def to_end(reading: Any) -> None:
    while await reading.read() is not grpc.aio.EOF:
        pass


async def test_a_download_that_is_not_read_ends(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_UNREAD_SECONDS", 0.5)
    caller = Caller("tester", WorkspaceId(1))
    run = await Runs(db, lambda _: None).create(caller, NewRun())
    store = Watched(LocalRoot(str(tmp_path)))
    uploads = Uploads(db, store, Precedence(), direct=False)

    async def contents() -> AsyncIterator[bytes | Trailer]:
        for _ in range(SIZE // MIB):
            yield bytes(MIB)

    await uploads.receive(caller, NewUpload(of_run(run.id), "a", SIZE), b"", contents())
    service = ArtifactService(Artifacts(db, store, Precedence(), direct=False, nudge=lambda: None), uploads, 4 * MIB)
    server = Server(4 * MIB, shared=False, artifacts_only=True)
    server.register(Access(db), {"ArtifactService": service})
    port = server.bind("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        reading = ArtifactServiceStub(channel).DownloadArtifact(pb.DownloadArtifactRequest(run_id=run.id.hex, path="a"))
        assert (await reading.read()).artifact.size == SIZE
        await asyncio.wait_for(store.left.wait(), 20)
        with pytest.raises(grpc.aio.AioRpcError, match="nothing of the answer was read") as caught:
            await to_end(reading)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(0)
    await store.close()
