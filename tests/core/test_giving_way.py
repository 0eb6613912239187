"""Bytes of artifacts give way: what waits has no room yet, and nothing is lost by waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uploading import CALLER, PART, Place, content, place, sha256

from penstock_server.blobs import Store
from penstock_server.ingest.precedence import Precedence
from penstock_server.model.artifacts import Artifact
from penstock_server.model.uploads import Trailer
from penstock_server.postgres.database import Database

pytestmark = pytest.mark.usefixtures("small_parts")


class Gate(Precedence):
    """Lets through one for each `let`."""

    def __init__(self) -> None:
        super().__init__()
        self._turns = asyncio.Semaphore(0)
        self.waiting = asyncio.Event()

    def let(self, count: int = 1) -> None:
        for _ in range(count):
            self._turns.release()

    async def give_way(self) -> None:
        self.waiting.set()
        await self._turns.acquire()
        self.waiting.clear()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def here(db: Database, local: Store, gate: Gate, run: Any) -> Place:
    made: Place = run(place(db, local))
    return Place(db, local, made.run_id, precedence=gate)


async def test_an_upload_waits_before_it_takes_room(here: Place, gate: Gate) -> None:
    data = content(3 * PART)
    stream, task = here.open("model", data)
    await gate.waiting.wait()
    assert here.held == 0
    gate.let()  # what came with the header
    for start in range(0, len(data), PART):
        await stream.put(data[start : start + PART])
        await gate.waiting.wait()
        assert here.held <= start
        gate.let()
    await stream.put(Trailer(sha256(data)), None)
    assert (await task).sha256 == sha256(data)


async def test_an_upload_that_waits_can_be_cancelled(here: Place, gate: Gate) -> None:
    _, task = here.open("model", content(PART))
    await gate.waiting.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert here.held == 0


async def test_a_download_waits_with_each_chunk(here: Place, gate: Gate) -> None:
    data = content(3 << 20)
    gate.let(1000)
    await here.upload("model", data)
    gate._turns = asyncio.Semaphore(0)
    contents = here.artifacts.download(CALLER, here.owner, "model")
    assert isinstance(await anext(contents), Artifact)  # metadata waits for nobody
    found = b""
    while len(found) < len(data):
        gate.waiting.clear()
        chunk = asyncio.create_task(anext(contents))  # type: ignore[arg-type]
        await gate.waiting.wait()
        assert not chunk.done()
        gate.let()
        got = await chunk
        assert isinstance(got, bytes)
        found += got
    assert found == data
