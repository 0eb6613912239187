"""The sweeper: all that nobody needs goes, at its time; nothing else does, whoever falls and whatever is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from uploading import CALLER, PART, Place, content, execute, place, sha256

from penstock_server.blobs import Store
from penstock_server.blobs.local import LocalStore
from penstock_server.blobs.store import Begun
from penstock_server.blobs.watched import Watched
from penstock_server.core import mark
from penstock_server.core import sweep as core
from penstock_server.core.sweep import Sweeper
from penstock_server.model.artifacts import LocalRoot
from penstock_server.model.errors import StoreRefused, Unavailable, UploadGone
from penstock_server.model.uploads import Trailer
from penstock_server.postgres import sweep
from penstock_server.postgres.database import Database

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def sweeper(spot: Place, resume_ms: int = DAY, store: Store | None = None) -> Sweeper:
    return Sweeper(spot.db, store or spot.store, resume_ms)


async def age(db: Database, ms: int) -> None:
    """So much time passes."""
    await execute(db, "UPDATE artifact_blobs SET touched_ms = touched_ms - $1", ms)


async def keys(db: Database) -> list[str]:
    return [row[0] for row in await execute(db, "SELECT key FROM artifact_blobs ORDER BY created_ms, key")]


async def begun(store: Store) -> set[str]:
    return {each.token async for each in store.begun()}


async def test_what_is_deleted_goes_a_minute_later(db: Database, store: Store) -> None:
    spot = await place(db, store)
    await spot.upload("a/kept", b"kept")
    await spot.upload("a/gone", b"gone")
    (gone,) = [key for key in await keys(db) if key.endswith("gone")]
    await spot.artifacts.delete(CALLER, spot.owner, "a/gone")
    assert await sweeper(spot).sweep() == 0
    assert await store.size(gone) == 4
    await age(db, MINUTE)
    assert await sweeper(spot).sweep() == 1
    assert await store.size(gone) is None
    assert await spot.states() == [("a/kept", 2)]
    assert await spot.read("a/kept") == b"kept"


async def test_what_is_replaced_goes_an_hour_later(db: Database, store: Store, small_parts: None) -> None:
    old, new = content(2 * PART + 1), content(PART)
    spot = await place(db, store)
    await spot.upload("model", old)
    (first,) = await keys(db)
    await spot.upload("model", new)
    await age(db, HOUR - MINUTE)
    assert await sweeper(spot).sweep() == 0
    assert await store.size(first) == len(old)
    await age(db, MINUTE)
    assert await sweeper(spot).sweep() == 1
    assert await store.size(first) is None
    assert await spot.read("model") == new


async def test_an_upload_that_broke_off_goes_when_it_is_too_old(db: Database, store: Store, small_parts: None) -> None:
    data = content(3 * PART)
    spot = await place(db, store)
    upload_id = await spot.broken("model", data, 2, PART)
    assert len(await begun(store)) == 1
    await age(db, DAY - HOUR)
    assert await sweeper(spot).sweep() == 0
    assert len(await execute(db, "SELECT FROM artifact_parts")) == 2
    await age(db, HOUR)
    assert await sweeper(spot).sweep() == 1
    assert await begun(store) == set()
    assert await keys(db) == []
    assert await execute(db, "SELECT FROM artifact_parts") == []
    with pytest.raises(UploadGone):
        await spot.upload("model", data, upload_id=upload_id, offset=PART)
    await spot.upload("model", data)


async def test_an_upload_that_somebody_writes_stays(db: Database, local: Store, small_parts: None) -> None:
    data = content(3 * PART)
    spot = await place(db, local)
    plan = await spot.begin("model", len(data))
    assert plan.upload is not None
    stream, task = spot.open("model", data, upload_id=plan.upload.id)
    await stream.put(data[: 2 * PART], data[2 * PART :])
    await spot.stored(plan.upload.id, 2)
    assert await sweeper(spot, resume_ms=0).sweep() == 0
    await stream.put(Trailer(sha256(data)), None)
    await task
    assert await spot.read("model") == data


async def test_what_was_stored_and_never_noted_goes(db: Database, store: Store) -> None:
    """As when a server falls after the store has the object and before the commit."""
    spot = await place(db, store)
    plan = await spot.begin("model", 5)
    assert plan.upload is not None
    await store.put(plan.upload.key, b"whole", "text/plain")
    await age(db, DAY)
    assert await sweeper(spot).sweep() == 1
    assert await store.size(plan.upload.key) is None
    assert await keys(db) == []


async def test_what_is_taken_to_be_removed_becomes_no_artifact(db: Database, local: Store, small_parts: None) -> None:
    """The client comes back just when the sweeper has taken its upload and is at the store."""
    data = content(2 * PART)
    spot = await place(db, local)
    upload_id = await spot.broken("model", data, 1, PART)
    await age(db, DAY)
    async with db.connection() as conn:
        (due,) = await sweep.take(conn, DAY, HOUR, 10)
        assert await sweep.take(conn, DAY, HOUR, 10) == []
    assert due.id == upload_id
    with pytest.raises(UploadGone):
        await spot.upload("model", data, upload_id=upload_id, offset=PART)
    assert (await spot.begin("model", len(data))).parts == ()


async def test_who_falls_in_between_leaves_it_to_the_next(
    db: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spot = await place(db, store)
    await spot.upload("model", b"x")
    await spot.artifacts.delete(CALLER, spot.owner, "model")
    await age(db, MINUTE)

    async def fall(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(sweep, "forget", fall)
        with pytest.raises(asyncio.CancelledError):
            await sweeper(spot).sweep()
    (key,) = await keys(db)
    assert await store.size(key) is None
    await spot.upload("model", b"new")  # not where the fallen one may still be about to remove
    assert next(each for each in await keys(db) if each != key).count("/versions/") == 1
    assert await sweeper(spot).sweep() == 0
    await age(db, core._LEASE_MS)
    assert await sweeper(spot).sweep() == 1
    assert await spot.read("model") == b"new"


async def many(db: Database, spot: Place, count: int) -> None:
    """Artifacts that were deleted long ago."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(spot.upload(f"d{number % 7}/{number}", b"%d" % number))
    for number in range(min(count, 7)):
        await spot.artifacts.delete(CALLER, spot.owner, f"d{number}")
    await age(db, HOUR)


async def test_several_replicas_at_once(db: Database, local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "_BATCH", 20)
    spot = await place(db, local)
    await many(db, spot, 150)
    removed = await asyncio.gather(*(sweeper(spot).sweep() for _ in range(3)))
    assert sum(removed) == 150
    assert await keys(db) == []


async def test_one_that_cannot_be_removed_keeps_no_other(db: Database, local: Store, tmp_path: Path) -> None:
    spot = await place(db, local)
    await many(db, spot, 10)
    stuck = (await keys(db))[4]
    (tmp_path / "artifacts" / stuck).unlink()
    (tmp_path / "artifacts" / stuck).mkdir()
    with pytest.raises(StoreRefused, match="remove what stands in the way"):
        await sweeper(spot).sweep()
    assert await keys(db) == [stuck]
    (tmp_path / "artifacts" / stuck).rmdir()
    await age(db, core._PUT_BACK_MS)
    assert await sweeper(spot).sweep() == 1


class Away(LocalStore):
    """A store that takes no calls for a while."""

    away = True

    async def delete(self, keys: Any) -> None:
        if self.away:
            raise Unavailable("the store is away", 1.0)
        await super().delete(keys)


class Slow(LocalStore):
    """A store that answers so often, and then not in time, or that it is away."""

    def __init__(self, root: Path, answers: int, then: Exception) -> None:
        super().__init__(LocalRoot(str(root)))
        self._answers = answers
        self._then = then

    async def delete(self, keys: Any) -> None:
        if self._answers == 0:
            raise self._then
        self._answers -= 1
        await super().delete(keys)


@pytest.mark.parametrize("trouble", [TimeoutError(), Unavailable("the store is away", 1.0)])
async def test_what_takes_long_is_noted_by_and_by(
    db: Database, local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """And what was not answered is left alone until it must have come to something, one way or the other."""
    monkeypatch.setattr(core, "_SLICE", 3)
    spot = await place(db, local)
    await many(db, spot, 10)
    slow = Slow(tmp_path / "artifacts", 2, trouble)
    with suppress(Unavailable):
        await sweeper(spot, store=slow).sweep()
    assert len(await keys(db)) == 4
    await age(db, core._PUT_BACK_MS)
    assert await sweeper(spot).sweep() == 1
    await age(db, core._LEASE_MS - core._PUT_BACK_MS - MINUTE)
    assert await sweeper(spot).sweep() == 0
    await age(db, MINUTE)
    assert await sweeper(spot).sweep() == 3
    await slow.close()


async def test_a_store_that_answers_nothing_in_time_is_told(db: Database, local: Store, tmp_path: Path) -> None:
    spot = await place(db, local)
    await many(db, spot, 3)
    slow = Slow(tmp_path / "artifacts", 0, TimeoutError())
    with pytest.raises(Unavailable, match="takes too long"):
        await sweeper(spot, store=slow).sweep()
    await slow.close()


@asynccontextmanager
async def running(it: Sweeper) -> AsyncIterator[None]:
    task = asyncio.create_task(it.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until_gone(db: Database) -> None:
    async with asyncio.timeout(20):
        while await keys(db):
            await asyncio.sleep(0.01)


async def test_a_store_that_is_away_is_told_once_and_tried_again(
    db: Database, local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_LOOK_SECONDS": 0.01, "_LONGEST_PAUSE": 0.05, "_LEASE_MS": 0}.items():
        monkeypatch.setattr(core, name, value)
    spot = await place(db, local)
    await many(db, spot, 10)
    away = Away(LocalRoot(str(tmp_path / "artifacts")))
    tries = 0
    take = sweep.take

    async def counted(*args: Any) -> Any:
        nonlocal tries
        tries += 1
        return await take(*args)

    monkeypatch.setattr(sweep, "take", counted)
    with capture_logs() as logs:
        async with running(sweeper(spot, store=away)):
            async with asyncio.timeout(20):
                while tries < 5:
                    await asyncio.sleep(0.01)
            assert len(await keys(db)) == 10
            away.away = False
            await until_gone(db)
            async with asyncio.timeout(20):
                while len(logs) < 2:
                    await asyncio.sleep(0.01)
    await away.close()
    assert [entry["event"] for entry in logs] == [
        "what is to be removed from the artifacts' store stays for now",
        "the artifacts' store is swept again",
    ]


async def test_a_nudge_wakes_it(db: Database, local: Store) -> None:
    spot = await place(db, local)
    it = sweeper(spot)
    async with running(it):
        await spot.upload("model", b"x")
        await spot.artifacts.delete(CALLER, spot.owner, "model")
        await age(db, MINUTE)
        it.nudge()
        await until_gone(db)


class Mute(LocalStore):
    """A store that does not tell of its uploads."""

    async def begun(self) -> AsyncIterator[Begun]:
        raise StoreRefused("we may not do this", "grant it")
        yield


async def test_a_store_that_tells_of_no_uploads_is_swept_all_the_same(
    db: Database, local: Store, tmp_path: Path
) -> None:
    spot = await place(db, local)
    mute = Mute(LocalRoot(str(tmp_path / "artifacts")))
    it = sweeper(spot, store=mute)
    with capture_logs() as logs:
        async with running(it):
            await spot.upload("model", b"x")
            await spot.artifacts.delete(CALLER, spot.owner, "model")
            await age(db, MINUTE)
            it.nudge()
            await until_gone(db)
    await mute.close()
    assert [entry["event"] for entry in logs] == ["uploads that only the artifacts' store knows stay for now"]


async def test_uploads_that_only_the_store_knows_go_when_they_are_old(
    db: Database, store: Store, small_parts: None
) -> None:
    spot = await place(db, store)
    await spot.broken("model", content(2 * PART), 1, PART)
    known = await begun(store)
    stray = await store.begin("7/" + 32 * "0" + "/artifacts/model", "text/plain")
    assert await sweeper(spot, resume_ms=HOUR).sweep_strays() == 0
    assert await begun(store) == known | {stray}
    assert await sweeper(spot, resume_ms=-HOUR).sweep_strays() == 0, "who has begun it may be about to note that"
    assert await begun(store) == known | {stray}
    assert await sweeper(spot, resume_ms=-HOUR).sweep_strays(shortest_ms=-HOUR) == 1
    assert await begun(store) == known


async def test_a_store_that_is_another_is_not_swept(db: Database, store: Store, tmp_path: Path) -> None:
    """As when a disk is not mounted: its directory is there, and empty."""
    spot = await place(db, store)
    await mark.place(db, store)
    await spot.upload("model", b"x")
    await spot.artifacts.delete(CALLER, spot.owner, "model")
    await age(db, MINUTE)
    (tmp_path / "other").mkdir()
    other = LocalStore(LocalRoot(str(tmp_path / "other")))
    stray = await other.begin("7/of/another", "text/plain")
    for wrong in (None, b"x" * 36):
        if wrong is not None:
            await other.put(mark.KEY, wrong, "text/plain")
        with pytest.raises(StoreRefused, match="artifacts are in another store than this one; mount it, or"):
            await sweeper(spot, store=other).sweep()
        with pytest.raises(StoreRefused, match="artifacts are in another store"):
            await sweeper(spot, store=other, resume_ms=-HOUR).sweep_strays(shortest_ms=-HOUR)
        assert await begun(other) == {stray}
        assert len(await keys(db)) == 1
        await age(db, core._PUT_BACK_MS)
    await other.close()
    assert await sweeper(spot).sweep() == 1
    assert await keys(db) == []
    await store.delete([mark.KEY])  # rclone would go on knowing of it when the bucket is wiped


async def test_a_store_is_marked_once(db: Database, store: Store) -> None:
    await mark.check(db, store)
    await mark.place(db, store)
    await mark.check(db, store)
    assert await store.size(mark.KEY) == 36
    await store.delete([mark.KEY])
    await mark.place(db, store)
    assert await store.size(mark.KEY) is None, "that it is another is found out, not mended"
    with pytest.raises(StoreRefused):
        await mark.check(db, store)


async def test_replicas_that_start_at_once_mark_it_alike(db: Database, local: Store) -> None:
    await asyncio.gather(*(mark.place(db, local) for _ in range(5)))
    await mark.check(db, local)


async def test_a_sweeper_marks_the_store_first(db: Database, local: Store) -> None:
    async with running(sweeper(await place(db, local))), asyncio.timeout(20):
        while not (await execute(db, "SELECT placed FROM artifact_store"))[0][0]:
            await asyncio.sleep(0.01)
    assert await local.size(mark.KEY) == 36


async def test_a_store_that_has_a_mark_keeps_it(db: Database, local: Store) -> None:
    """That of the database before, or of another that shares it."""
    await local.put(mark.KEY, b"another".ljust(36), "text/plain")
    await mark.place(db, local)
    await mark.check(db, local)
    assert [chunk async for chunk in local.read(mark.KEY, 0, 99)] == [b"another".ljust(36)]


async def test_the_search_for_what_is_due_reads_no_artifacts(db: Database) -> None:
    await execute(
        db,
        "INSERT INTO artifact_blobs (id, workspace_id, experiment_id, owner_id, path, key, state, media_type,"
        " part_bytes, touched_ms, created_ms) SELECT gen_random_uuid(), 1, 0, gen_random_uuid(), 'p', n::text,"
        " CASE WHEN n % 1000 = 0 THEN 3 ELSE 2 END, '', 1, 0, 0 FROM generate_series(1, 20000) n",
    )
    await execute(db, "ANALYZE artifact_blobs")
    plan = await execute(db, "EXPLAIN " + sweep._TAKE.replace("$1", "1").replace("$2", "1").replace("$3", "200"))
    assert "artifact_blobs_due" in "\n".join(row[0] for row in plan)
    async with db.connection() as conn:
        assert len(await sweep.take(conn, DAY, HOUR, 200)) == 20


async def test_a_store_that_is_away_is_known_to_be_so_though_nobody_uses_it(db: Database, tmp_path: Path) -> None:
    root = tmp_path / "root"
    store = Watched(LocalStore(LocalRoot(str(root))))
    await mark.place(db, store)
    watching = asyncio.create_task(mark.watch(db, store, 0.01))

    async def told(problem: str | None) -> None:
        async with asyncio.timeout(30):
            while (store.problem or "").partition(";")[0] != (problem or ""):
                await asyncio.sleep(0.01)

    try:
        root.rename(tmp_path / "gone")
        await told(f"{root} is not there")
        root.mkdir()  # a disk that is not mounted
        await told(f"{store.uri(mark.KEY)} is not what it was, so artifacts are in another store than this one")
        root.rmdir()
        (tmp_path / "gone").rename(root)
        await told(None)
    finally:
        watching.cancel()
        await store.close()
