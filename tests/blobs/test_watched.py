"""Troubles of a store are told in the log: when they begin, now and then, and when they are over."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from penstock_server.blobs import S3Options, open_store
from penstock_server.blobs.local import LocalStore
from penstock_server.blobs.store import Object
from penstock_server.blobs.watched import Watched
from penstock_server.model.artifacts import LocalRoot, S3Root
from penstock_server.model.errors import NotFound, PenstockError, StoreFull, StoreRefused, Unavailable

BEGUN = "the artifacts' store does not work"
OVER = "the artifacts' store works again"


class Place:
    """A directory that can be taken away and given back, and a clock that stands."""

    def __init__(self, path: Path) -> None:
        self.now = 1000.0
        self.path = path
        self.gone = path.with_name("gone")
        self.local = LocalStore(LocalRoot(str(path)))
        self.store = Watched(self.local, lambda: self.now)

    async def puts(self, *, well: bool = True) -> None:
        if well:
            await self.store.put("a", b"a", "text/plain")
        else:
            with pytest.raises(StoreRefused):
                await self.store.put("a", b"a", "text/plain")

    async def reads(self, key: str = "a") -> bytes:
        return b"".join([chunk async for chunk in self.store.read(key, 0, 1)])


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "root")
    asyncio.run(place.puts())
    yield place
    asyncio.run(place.store.close())


def up() -> float | None:
    return REGISTRY.get_sample_value("penstock_artifact_store_up")


async def test_it_is_told_once_and_each_minute_and_at_the_end(place: Place, logged: list[Any]) -> None:
    place.path.rename(place.gone)
    for _ in range(3):
        await place.puts(well=False)
    (told,) = logged
    assert (told["event"], told["log_level"], told["failed_calls"]) == (BEGUN, "error", 1)
    assert (told["root"], told["reason"]) == (place.path.as_uri(), f"{place.path} is not there")
    assert told["remedy"] == "mount it or make it"
    assert place.store.problem == f"{place.path} is not there; mount it or make it"
    assert up() == 0
    place.now += 60
    for _ in range(3):
        await place.puts(well=False)
    assert [each["failed_calls"] for each in logged] == [1, 4]
    place.now += 5
    place.gone.rename(place.path)
    await place.puts()
    assert (logged[2]["event"], logged[2]["failed_calls"], logged[2]["seconds"]) == (OVER, 6, 65)
    assert (place.store.problem, up()) == (None, 1)
    await place.puts()
    assert await place.reads() == b"a"
    assert len(logged) == 3


async def test_that_it_comes_and_goes_is_not_told_each_time(place: Place, logged: list[Any]) -> None:
    for _ in range(5):
        place.path.rename(place.gone)
        await place.puts(well=False)
        assert up() == 0
        place.gone.rename(place.path)
        await place.puts()
        assert up() == 1
    assert [each["event"] for each in logged] == [BEGUN, OVER]


async def test_an_address_that_is_signed_tells_nothing_of_a_store_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    store = Watched(await open_store(S3Root("bucket"), S3Options(endpoint="http://127.0.0.1:9")))
    store.failed("size", Unavailable("away", 1.0))
    assert await store.sign_read("a", 60)
    assert store.problem is not None
    assert up() == 0
    store.went_well("size")
    store.failed("sign_read", Unavailable("no keys", 1.0))
    assert await store.sign_read("a", 60)
    assert store.problem is None
    await store.close()


async def test_of_many_objects_each_is_watched(
    place: Place, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    objects = [Object(f"d/{number}", b"1", "") for number in range(3)]
    with monkeypatch.context() as patched:
        patched.setattr(place.local, "_create", full)
        for _ in range(3):
            assert all(isinstance(error, StoreFull) for error in await place.store.put_all(objects))
            place.now += 60
    assert [(each["event"], each["failed_calls"]) for each in logged] == [(BEGUN, 1), (BEGUN, 4), (BEGUN, 7)]
    assert up() == 0
    assert await place.store.put_all(objects) == [None] * 3
    assert (logged[3]["event"], logged[3]["failed_calls"], logged[3]["seconds"]) == (OVER, 9, 180)
    place.path.rename(place.gone)
    with pytest.raises(StoreRefused):
        await place.store.put_all(objects)
    assert place.store.problem is not None


async def test_what_the_store_answers_is_no_trouble(place: Place, logged: list[Any]) -> None:
    with pytest.raises(NotFound):
        await place.reads("none")
    assert await place.store.size("none") is None
    assert logged == []


@pytest.mark.parametrize(
    ("error", "ends_by_reading"),
    [(Unavailable("away", 1.0), True), (StoreFull("full", 1.0), False), (StoreRefused("no", "do"), False)],
)
async def test_a_full_store_that_can_be_read_is_full_still(
    place: Place, logged: list[Any], error: PenstockError, ends_by_reading: bool
) -> None:
    place.store.failed("put", error)
    await place.reads()
    assert (place.store.problem is None) == ends_by_reading
    await place.puts()
    assert place.store.problem is None
    assert [each["event"] for each in logged] == [BEGUN, OVER]
    assert logged[0]["remedy"]


async def test_what_nobody_asks_for_any_more_is_forgotten(place: Place) -> None:
    place.store.failed("put", StoreRefused("no", "do"))
    place.now += 601
    await place.reads()
    assert place.store.problem is None
