"""Files come in as a whole or not at all, and what broke off can be gone on with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from uploading import CALLER, PART, Place, content, execute, place, sha256

from penstock_server.blobs import Store
from penstock_server.core import receiving, uploads
from penstock_server.core.runs import Runs
from penstock_server.model import artifacts
from penstock_server.model.access import WorkspaceId
from penstock_server.model.artifacts import Artifact, UploadId
from penstock_server.model.errors import (
    ContentMismatch,
    FailedPrecondition,
    InvalidArgument,
    NotActive,
    NotFound,
    Unavailable,
    UploadGone,
)
from penstock_server.model.owners import of_run
from penstock_server.model.runs import new_run_id
from penstock_server.model.uploads import NewUpload, Trailer
from penstock_server.postgres.database import Database

pytestmark = pytest.mark.usefixtures("small_parts")


@pytest.fixture
def here(db: Database, store: Store, run: Any) -> Place:
    made: Place = run(place(db, store))
    return made


@pytest.fixture
def one(db: Database, local: Store, run: Any) -> Place:
    """As `here`, on a directory only: of what does not depend on the store."""
    made: Place = run(place(db, local))
    return made


async def nothing() -> AsyncIterator[bytes | Trailer]:
    return
    yield


async def never() -> AsyncIterator[bytes | Trailer]:
    raise AssertionError("it is read on")
    yield


# What comes in.


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 5 * PART + 7])
@pytest.mark.parametrize("known", [True, False])
async def test_what_is_sent_is_what_is_there(here: Place, size: int, known: bool) -> None:
    data = content(size)
    made = await here.upload("a/b.json", data, size=size if known else None)
    assert (made.path, made.size, made.sha256, made.media_type) == ("a/b.json", size, sha256(data), "application/json")
    assert await here.read("a/b.json") == data
    assert await here.states() == [("a/b.json", 2)]
    assert await execute(here.db, "SELECT FROM artifact_parts") == []
    assert here.held == 0


@pytest.mark.parametrize("chunk", [1_000, PART, 3 * PART + 1, 1 << 20])
async def test_chunks_are_of_any_size(one: Place, chunk: int) -> None:
    data = content(5 * PART + 7)
    await one.upload("a", data, chunk=chunk)
    assert await one.read("a") == data


async def test_what_is_small_is_one_message(one: Place) -> None:
    data = content(100)
    made = await one.uploads.receive(CALLER, one.new("a", data, sha256=sha256(data)), data, nothing())
    assert made.size == 100
    assert await one.read("a") == data


async def test_names_of_all_kinds(here: Place) -> None:
    for path in ("größe/模型 1%2F.pt", "a+b&c=d?.#", "~", "x" * 255, "/".join(["d"] * 300)):
        await here.upload(path, path.encode())
        assert await here.read(path) == path.encode()


async def test_nothing_is_seen_before_it_is_complete(here: Place) -> None:
    before, data = content(2 * PART), content(4 * PART)
    await here.upload("a", before)
    stream, task = here.open("a", data)
    await stream.put(data, b"")
    (upload_id,) = [row[0] for row in await execute(here.db, "SELECT id FROM artifact_blobs WHERE state = 1")]
    await here.stored(upload_id, 3)
    assert await here.read("a") == before
    await stream.put(Trailer(sha256(data)), None)
    await task
    assert await here.read("a") == data
    assert await here.states() == [("a", 2), ("a", 3)]


async def test_who_reads_when_it_is_replaced_reads_on(here: Place) -> None:
    before = content(3 * PART)
    await here.upload("a", before)
    reading = here.artifacts.download(CALLER, here.owner, "a")
    assert isinstance(await anext(reading), Artifact)
    await here.upload("a", content(3 * PART))
    assert b"".join([chunk async for chunk in reading if isinstance(chunk, bytes)]) == before
    soon = "SELECT FROM artifact_blobs WHERE state = 3 AND touched_ms < extract(epoch FROM now()) * 1000 + 3000000"
    assert not await execute(here.db, soon)


async def test_the_same_again_is_not_read(one: Place) -> None:
    data = content(2 * PART)
    made = await one.upload("a", data)
    again = one.new("a", data, sha256=sha256(data))
    assert await one.uploads.receive(CALLER, again, b"", never()) == made
    assert (await one.uploads.begin(CALLER, again)).artifact == made
    assert (await one.uploads.begin(CALLER, again)).upload is None
    assert await one.states() == [("a", 2)]
    # Of another path, or with another size, it is another.
    assert (await one.uploads.begin(CALLER, replace(again, path="b"))).upload is not None
    assert (await one.uploads.begin(CALLER, replace(again, size=1))).upload is not None


# What does not.


@pytest.mark.parametrize("size", [10, 3 * PART])
async def test_a_digest_that_does_not_agree(here: Place, size: int) -> None:
    before, data = content(5), content(size)
    await here.upload("a", before)
    with pytest.raises(ContentMismatch, match="sha256: is not that of the bytes of 'a'"):
        await here.upload("a", data, digest=sha256(b"other"))
    with pytest.raises(ContentMismatch):
        await here.upload("a", data, sha256=sha256(b"other"), digest=b"")
    assert await here.read("a") == before
    assert await here.states() == [("a", 2), ("a", 3), ("a", 3)]
    assert here.held == 0


@pytest.mark.parametrize("told", [0, 1, PART, 3 * PART - 1, 3 * PART + 1])
async def test_another_size_than_was_told(one: Place, told: int) -> None:
    with pytest.raises(ContentMismatch, match=f"size: {told} bytes were told of 'a', and"):
        await one.upload("a", content(3 * PART), size=told)
    assert await one.read("a") is None
    assert await one.states() == [("a", 3)]
    assert one.held == 0


async def test_two_digests_and_none(one: Place) -> None:
    with pytest.raises(InvalidArgument, match="another in the trailer"):
        await one.upload("a", b"x", sha256=sha256(b"x"), digest=sha256(b"y"))
    with pytest.raises(InvalidArgument, match="has 3 bytes"):
        await one.upload("a", b"x", digest=b"123")
    assert await one.states() == [("a", 3)] * 2


@pytest.mark.parametrize("size", [10, 3 * PART])
async def test_where_no_digest_is_told_it_is_that_of_what_came(here: Place, size: int) -> None:
    data = content(size)
    made = await here.upload("a", data, digest=b"")
    assert made.sha256 == sha256(data)
    assert (await here.upload("b", data, size=None, digest=b"")).sha256 == sha256(data)
    assert await here.read("a") == await here.read("b") == data


async def test_without_any_word_of_its_end_it_is_not_taken(one: Place) -> None:
    stream, task = one.open("a", b"", size=None)
    await stream.put(b"1", None)
    with pytest.raises(InvalidArgument, match="the end cannot be known"):
        await task
    assert await one.states() == [("a", 3)]


async def test_what_is_gone_on_with_needs_a_digest(one: Place) -> None:
    data = content(3 * PART)
    upload_id = await one.broken("a", data, 1, PART)
    with pytest.raises(InvalidArgument, match="must be told of an upload that is gone on with"):
        await one.upload("a", data, upload_id=upload_id, offset=PART, digest=b"")


async def test_of_an_unknown_size_there_is_a_limit(one: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(artifacts, "SIZE_LIMIT", 3 * PART)
    assert (await one.upload("a", content(3 * PART), size=None)).size == 3 * PART
    with pytest.raises(InvalidArgument, match="size: "):
        await one.upload("b", content(3 * PART + 1), size=None)


async def test_after_the_trailer_nothing_comes(one: Place) -> None:
    stream, task = one.open("a", b"xy")
    await stream.put(b"x", Trailer(sha256(b"xy")), b"y", None)
    with pytest.raises(InvalidArgument, match="comes after the trailer"):
        await task


async def test_a_file_is_no_directory(one: Place) -> None:
    await one.upload("a/b", b"1")
    for path, sentence in (("a", "'a' is a directory"), ("a/b/c", "'a/b' is a file"), ("a/b/c/d", "'a/b' is a file")):
        with pytest.raises(FailedPrecondition, match=sentence):
            await one.upload(path, b"2")
        with pytest.raises(FailedPrecondition, match=sentence):
            await one.begin(path, 1)
    await one.upload("a.b", b"3")
    await one.upload("a0", b"4")
    # Nor is one offered to be gone on with.
    await one.broken("c", content(3 * PART), 1, PART)
    await one.upload("c/d", b"5")
    with pytest.raises(FailedPrecondition, match="'c' is a directory"):
        await one.begin("c", 3 * PART)
    assert await one.states() == [("a.b", 2), ("a/b", 2), ("a0", 2), ("c", 1), ("c/d", 2)]


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a")])
async def test_nor_when_both_come_at_once(here: Place, first: str, second: str) -> None:
    streams = {path: here.open(path, b"12") for path in (first, second)}
    for stream, _ in streams.values():
        await stream.put(b"1", b"2")
    for path in (first, second):
        stream, task = streams[path]
        await stream.put(Trailer(sha256(b"12")), None)
        await asyncio.wait([task])
    assert streams[first][1].result().path == first
    assert isinstance(streams[second][1].exception(), FailedPrecondition)
    assert await here.read(first) == b"12"
    assert sorted(state for _, state in await here.states()) == [2, 3]


async def test_nor_in_one_transaction(one: Place) -> None:
    paths = ["a", "a/b", "a/b/c", "a", "x", "x/y"]
    done = await asyncio.gather(*(one.upload(path, path.encode()) for path in paths), return_exceptions=True)
    made = {each.path for each in done if isinstance(each, Artifact)}
    assert all(isinstance(each, Artifact | FailedPrecondition) for each in done)
    seen, _ = await one.artifacts.list(CALLER, one.owner, recursive=True)
    assert {each.path for each in seen} == made
    assert len(made & {"a", "a/b", "a/b/c"}) == len(made & {"x", "x/y"}) == 1


async def test_of_a_run_that_is_deleted_nothing_comes(one: Place) -> None:
    await one.upload("before", b"1")
    stream, task = one.open("a", b"12")
    await stream.put(b"1", b"2")
    runs = Runs(one.db, lambda _: None)
    await runs.delete(CALLER, one.run_id)
    await stream.put(Trailer(sha256(b"12")), None)
    with pytest.raises(NotActive):
        await task
    for doing in (one.upload("a", b"1"), one.begin("a", 1), one.artifacts.delete(CALLER, one.owner, "before")):
        with pytest.raises(NotActive):
            await doing
    assert await one.states() == [("a", 3), ("before", 2)]
    assert await one.read("before") == b"1"


async def test_a_run_of_another_workspace_is_not_there(one: Place) -> None:
    stranger = replace(CALLER, workspace_id=WorkspaceId(2))
    new = one.new("a", b"1", sha256=sha256(b"1"))
    upload = (await one.uploads.begin(CALLER, new)).upload
    assert upload is not None
    calls = [
        one.uploads.receive(stranger, new, b"1", nothing()),
        one.uploads.receive(stranger, replace(new, upload_id=upload.id), b"1", nothing()),
        one.uploads.begin(stranger, new),
        one.uploads.abort(stranger, one.owner, upload.id),
        one.artifacts.list(stranger, one.owner),
        one.artifacts.stat(stranger, one.owner, "a"),
        one.artifacts.locate(stranger, one.owner, "a"),
        one.artifacts.delete(stranger, one.owner, "a"),
        anext(one.artifacts.download(stranger, one.owner, "a")),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            await call
    with pytest.raises(NotFound):
        await one.uploads.receive(CALLER, replace(new, owner=of_run(new_run_id())), b"1", nothing())


# What broke off.


async def test_goes_on_after_the_last_part(here: Place) -> None:
    data = content(6 * PART + 5)
    upload_id = await here.broken("a", data, 3, PART)
    assert here.held == 0
    plan = await here.begin("a", len(data))
    assert plan.upload is not None
    assert plan.upload.id == upload_id
    assert [(part.number, part.size) for part in plan.parts] == [(1, PART), (2, PART), (3, PART)]
    assert [part.prefix_sha256 for part in plan.parts] == [sha256(data[: n * PART]) for n in (1, 2, 3)]
    made = await here.upload("a", data, upload_id=upload_id, offset=3 * PART)
    assert made.sha256 == sha256(data)
    assert await here.read("a") == data
    assert await here.states() == [("a", 2)]


@pytest.mark.parametrize("parts", [0, 1, 3])
async def test_goes_on_in_another_process(here: Place, parts: int) -> None:
    data = content(5 * PART)
    upload_id = await here.broken("a", data, 3, PART)
    there = here.another()
    plan = await there.begin("a", len(data))
    assert plan.upload is not None
    assert (plan.upload.id, len(plan.parts)) == (upload_id, 3)
    await there.upload("a", data, upload_id=upload_id, offset=parts * PART)
    assert await there.read("a") == data


async def test_goes_on_with_nothing_left_to_send(here: Place) -> None:
    data = content(3 * PART)
    plan = await here.begin("a", len(data))
    assert plan.upload is not None
    stream, task = here.open("a", data, upload_id=plan.upload.id)
    await stream.put(data, Trailer(bytes(32)))  # all parts go, but the last waits for the end
    await here.stored(plan.upload.id, 2)
    task.cancel()
    await asyncio.wait([task])
    await here.upload("a", data, upload_id=plan.upload.id, offset=2 * PART)
    assert await here.read("a") == data


async def test_what_has_changed_behind_the_last_part_that_is_kept(here: Place) -> None:
    data = content(5 * PART)
    upload_id = await here.broken("a", data, 3, PART)
    other = data[:PART] + content(4 * PART)
    try:
        await here.another().upload("a", other, upload_id=upload_id, offset=PART)
    except UploadGone:  # there are stores that take no other part of the same number
        assert await here.states() == [("a", 3)]
        await here.upload("a", other)
    assert await here.read("a") == other


@pytest.mark.parametrize("known", [True, False])
async def test_what_goes_on_with_another_file_is_no_mixture(here: Place, known: bool) -> None:
    data = content(5 * PART)
    upload_id = await here.broken("a", data, 3, PART)
    place = here if known else here.another()
    other = content(5 * PART)
    with pytest.raises(UploadGone):  # the parts before may be another's: from the beginning it is told rightly
        await place.upload("a", other, upload_id=upload_id, offset=3 * PART)
    assert await here.read("a") is None
    assert await here.states() == [("a", 3)]


async def test_it_is_gone_on_with_only_as_it_was_begun(one: Place) -> None:
    data = content(5 * PART)
    upload_id = await one.broken("a", data, 3, PART)
    for problem, fields in (
        ("upload_id: is of another path", {"path": "b"}),
        ("upload_id: is of another path or size", {"size": 1}),
        ("offset: 1 is not the end", {"offset": 1}),
        ("offset: -65536 is not", {"offset": -PART}),
    ):
        with pytest.raises(InvalidArgument, match=problem):
            await one.upload(**{"path": "a", "data": data, "upload_id": upload_id} | fields)  # type: ignore[arg-type]
    with pytest.raises(UploadGone):  # another has cut them
        await one.upload("a", data, upload_id=upload_id, offset=4 * PART)
    other = await place(one.db, one.store)
    with pytest.raises(UploadGone):
        await other.upload("a", data, upload_id=upload_id)
    with pytest.raises(UploadGone):
        await one.upload("a", data, upload_id=UploadId(new_run_id()))
    # That has not done any harm to it.
    await one.upload("a", data, upload_id=upload_id, offset=3 * PART)
    assert await one.read("a") == data
    with pytest.raises(UploadGone):
        await one.upload("a", data, upload_id=upload_id, offset=3 * PART)


async def test_what_has_no_part_is_given_up(one: Place) -> None:
    tasks = len(asyncio.all_tasks())
    stream, task = one.open("a", content(PART))
    await stream.put(b"1", b"2")
    task.cancel()
    await asyncio.wait([task])
    assert await one.states() == [("a", 3)]
    assert (one.held, len(asyncio.all_tasks())) == (0, tasks)


async def test_a_live_one_is_offered_to_nobody_else(here: Place) -> None:
    data = content(5 * PART)
    upload_id = await here.broken("a", data, 2, PART)

    async def offered(**fields: Any) -> UploadId | None:
        plan = await here.another().begin("a", len(data), **fields)
        return plan.upload.id if plan.upload else None

    stream, task = here.open("a", data, upload_id=upload_id, offset=2 * PART)
    await stream.put(data[2 * PART : 3 * PART], data[3 * PART : 4 * PART], data[4 * PART :][:1])
    await here.stored(upload_id, 4)
    assert await offered() != upload_id
    assert await offered(upload_id=upload_id) == upload_id
    await execute(here.db, "UPDATE artifact_blobs SET touched_ms = touched_ms - 29000 WHERE id = $1", upload_id)
    assert await offered() != upload_id
    await execute(here.db, "UPDATE artifact_blobs SET touched_ms = touched_ms - 2000 WHERE id = $1", upload_id)
    assert await offered() == upload_id
    task.cancel()
    await asyncio.wait([task])
    assert await offered() == upload_id
    assert await offered() != upload_id


async def test_a_newer_stream_takes_the_place_of_the_old(here: Place) -> None:
    data = content(5 * PART)
    upload_id = await here.broken("a", data, 1, PART)
    stream, task = here.open("a", data, upload_id=upload_id, offset=PART)
    await stream.put(data[PART : 3 * PART], b"")
    await here.stored(upload_id, 2)
    await here.upload("a", data, upload_id=upload_id, offset=2 * PART)
    with pytest.raises(UploadGone):
        await task
    assert await here.read("a") == data
    assert await here.states() == [("a", 2)]
    assert here.held == 0


async def test_also_in_another_process(here: Place) -> None:
    data, other = content(5 * PART), content(5 * PART)
    upload_id = await here.broken("a", data, 1, PART)
    stream, task = here.open("a", data, upload_id=upload_id, offset=PART)
    await stream.put(data[PART : 3 * PART], b"")
    await here.stored(upload_id, 2)
    new_stream, new_task = here.another().open("a", other, upload_id=upload_id)
    await new_stream.put(other[: 3 * PART], b"")
    await here.stored(upload_id, 2)
    # The old one can record nothing more, and ends before its client does.
    await stream.put(data[3 * PART :], b"")
    with pytest.raises(UploadGone):
        await task
    await new_stream.put(other[3 * PART :], Trailer(sha256(other)), None)
    await new_task
    assert await here.read("a") == other
    assert await here.states() == [("a", 2)]


async def test_the_old_one_records_no_part(one: Place) -> None:
    data = content(5 * PART)
    upload_id = await one.broken("a", data, 1, PART)
    stream, task = one.open("a", data, upload_id=upload_id, offset=PART)
    await stream.put(b"", b"", b"")
    new_stream, new_task = one.another().open("a", data, upload_id=upload_id, offset=PART)
    await new_stream.put(b"", b"", b"")
    await stream.put(data[PART : 3 * PART], b"1")
    with pytest.raises(UploadGone):
        await asyncio.wait_for(task, 20)
    assert len(await execute(one.db, "SELECT FROM artifact_parts")) == 1
    await new_stream.put(data[PART:], Trailer(sha256(data)), None)
    await new_task
    assert await one.read("a") == data


async def test_of_many_that_take_over_at_once_one_goes_on(one: Place) -> None:
    data = content(5 * PART)
    upload_id = await one.broken("a", data, 1, PART)
    one_at_a_time = [one.upload("a", data, upload_id=upload_id) for _ in range(8)]
    done = await asyncio.gather(*one_at_a_time, return_exceptions=True)
    assert all(isinstance(each, Artifact | UploadGone | ContentMismatch) for each in done), list(map(repr, done))
    assert not any(isinstance(each, ContentMismatch) for each in done)
    assert one.held == 0
    if any(isinstance(each, Artifact) for each in done):
        assert await one.read("a") == data


async def test_of_two_at_once_the_last_that_is_complete_stays(here: Place) -> None:
    there = here.another()
    first, second = content(3 * PART), content(3 * PART)
    a, task_a = here.open("a", first)
    b, task_b = there.open("a", second)
    for n in range(3):
        await a.put(first[n * PART : (n + 1) * PART])
        await b.put(second[n * PART : (n + 1) * PART])
    await b.put(Trailer(sha256(second)), None)
    await task_b
    assert await here.read("a") == second
    await a.put(Trailer(sha256(first)), None)
    await task_a
    assert await here.read("a") == first
    assert await here.states() == [("a", 2), ("a", 3)]


async def test_what_was_put_together_before_a_crash_is_taken_as_it_is(here: Place) -> None:
    data = content(3 * PART)
    plan = await here.begin("a", len(data))
    assert plan.upload is not None
    upload_id = plan.upload.id
    stream, task = here.open("a", data, upload_id=upload_id)
    async with here.db.transaction() as conn:
        # Nobody can enter anything for the run: it is put together, and then waits here in vain.
        await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 7364627310))", here.run_id)
        await stream.put(data, Trailer(sha256(data)), None)
        with pytest.raises(Unavailable):
            await task
    assert await here.store.size(plan.upload.key) == len(data)
    assert await here.read("a") is None
    again = await here.another().begin("a", len(data))
    assert again.upload is not None
    assert (again.upload.id, len(again.parts)) == (upload_id, 3)
    there = here.another()
    await there.upload("a", data, upload_id=upload_id, offset=3 * PART)
    assert await here.read("a") == data
    assert await here.states() == [("a", 2)]


async def test_what_the_store_has_lost_begins_anew(here: Place) -> None:
    data = content(4 * PART)
    upload_id = await here.broken("a", data, 2, PART)
    async for begun in here.store.begun():
        await here.store.abort((await execute(here.db, "SELECT key FROM artifact_blobs"))[0][0], begun.token)
    with pytest.raises(UploadGone):
        await here.upload("a", data, upload_id=upload_id, offset=2 * PART)
    assert await here.states() == [("a", 3)]
    plan = await here.begin("a", len(data))
    assert plan.upload is not None
    assert (plan.upload.id != upload_id, plan.parts) == (True, ())
    await here.upload("a", data, upload_id=plan.upload.id)
    assert await here.read("a") == data


async def test_given_up(here: Place) -> None:
    data = content(4 * PART)
    upload_id = await here.broken("a", data, 2, PART)
    stream, task = here.open("a", data, upload_id=upload_id, offset=2 * PART)
    await stream.put(data[2 * PART : 3 * PART], b"")
    await here.uploads.abort(CALLER, here.owner, upload_id)
    with pytest.raises(UploadGone):
        await task
    await here.uploads.abort(CALLER, here.owner, upload_id)
    await here.uploads.abort(CALLER, here.owner, UploadId(new_run_id()))
    assert await here.states() == [("a", 3)]
    await here.upload("a", data)
    await here.uploads.abort(CALLER, here.owner, upload_id)
    assert await here.read("a") == data


async def test_when_all_room_is_taken_streams_wait_for_their_turn(one: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(uploads, "_SMALL_BYTES", 100)
    limit = 8 * PART
    one.uploads._budget.limit = limit
    files = {f"f{n}": content(12 * PART) for n in range(6)}
    await one.upload("small", b"1" * 100)
    most = 0

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, one.uploads._budget.used)
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    holding = [one.open(f"held {n}", content(12 * PART)) for n in range(8)]
    for stream, _ in holding:
        await stream.put(b"1", b"2")
    one_more, waiting = one.open("waits", b"1" * 101)
    await one_more.put(b"1" * 100, b"1")
    await one.upload("small", b"2" * 100)
    for _, task in holding:
        task.cancel()
    await one_more.put(Trailer(sha256(b"1" * 101)), None)
    await waiting
    await asyncio.gather(*(one.upload(path, data) for path, data in files.items()))
    looking.cancel()
    assert 4 * PART < most <= limit
    assert one.held == 0
    for path, data in files.items():
        assert await one.read(path) == data


async def test_many_small_ones_at_once(one: Place) -> None:
    names = [f"d{n % 7}/f{n % 90}" for n in range(300)]
    data = [content(n) for n in range(300)]

    async def upload(name: str, data: bytes) -> Artifact:
        new = NewUpload(one.owner, name, len(data), sha256(data))
        return await one.uploads.receive(CALLER, new, data, nothing())

    done = await asyncio.gather(*(upload(*each) for each in zip(names, data, strict=True)))
    assert [each.path for each in done] == names
    for name in set(names):
        assert await one.read(name) in [each for of, each in zip(names, data, strict=True) if of == name]
    states = [state for _, state in await one.states()]
    assert (states.count(1), states.count(2), states.count(3)) == (0, len(set(names)), 300 - len(set(names)))


async def test_who_trickles_gives_its_room_back(one: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(receiving, "_PART_SECONDS", 0.05)
    stream, task = one.open("a", content(PART))
    while not task.done():
        with suppress(TimeoutError):
            await asyncio.wait_for(stream.put(b"1"), 0.01)
    with pytest.raises(Unavailable, match="no part in"):
        await task
    assert one.held == 0


async def test_what_was_begun_and_could_not_be_noted_is_given_up(here: Place) -> None:
    stream, task = here.open("a", content(3 * PART))
    await stream.put(b"1", b"")
    await execute(here.db, "UPDATE artifact_blobs SET attempt = 2")
    await stream.put(bytes(PART))
    with pytest.raises(UploadGone):
        await task
    assert [each async for each in here.store.begun()] == []


async def test_whose_entries_were_cut_off_enters_others(one: Place) -> None:
    async with one.db.transaction() as conn:
        await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 7364627310))", one.run_id)
        first = asyncio.create_task(one.upload("a", b"1"))
        while not await execute(one.db, "SELECT FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        second = asyncio.create_task(one.upload("b", b"1"))
        while not any(page.claims for page in one.uploads._ledger._pages.values()):
            await asyncio.sleep(0)
        for each in list(one.uploads._ledger._tasks):
            each.cancel()
        await asyncio.wait([first, second], timeout=20)
    assert first.cancelled()
    assert second.cancelled()
    await one.upload("a", b"2")
