"""The store in a directory: what it keeps, that nothing leads out of it, what it says when the disk will not."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock_server.blobs import confined
from penstock_server.blobs.local import LocalStore
from penstock_server.blobs.store import Object, Store
from penstock_server.model.artifacts import MIB, LocalRoot, Part
from penstock_server.model.errors import FailedPrecondition, NotFound, StoreFull, StoreRefused, Unavailable, UploadGone

KEY = "1/0123/artifacts/models/best.pt"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def store(root: Path, run: Callable[[Coroutine[Any, Any, None]], None]) -> Iterator[LocalStore]:
    store = LocalStore(LocalRoot(str(root)))
    yield store
    run(store.close())


async def content(store: Store, key: str, start: int = 0, length: int = 1 << 40) -> bytes:
    return b"".join([chunk async for chunk in store.read(key, start, length)])


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


async def test_an_object_as_a_whole(store: LocalStore, root: Path) -> None:
    await store.put(KEY, b"weights", "application/octet-stream")
    assert await content(store, KEY) == b"weights"
    assert await store.size(KEY) == 7
    assert files(root) == {KEY}
    assert store.uri(KEY) == await store.sign_read(KEY, 60) == (root / KEY).as_uri()
    await store.put("1/empty", b"", "text/plain")
    assert await store.size("1/empty") == 0
    assert await content(store, "1/empty") == b""


async def test_an_object_in_parts_is_there_when_it_is_complete(store: LocalStore) -> None:
    pieces = [os.urandom(MIB), os.urandom(MIB), os.urandom(77)]
    token = await store.begin(KEY, "text/plain")
    parts = []
    for number in (3, 1, 2):  # in any order
        piece = memoryview(pieces[number - 1])
        etag = await store.put_part(KEY, token, number, (number - 1) * MIB, piece)
        parts.append(Part(number, len(piece), etag))
        assert await store.size(KEY) is None
    assert [each.token async for each in store.begun()] == [token]
    await store.complete(KEY, token, sorted(parts, key=lambda part: part.number))
    assert await content(store, KEY) == b"".join(pieces)
    assert await content(store, KEY, MIB - 5, 10) == pieces[0][-5:] + pieces[1][:5]
    assert [chunk async for chunk in store.begun()] == []


async def test_a_part_that_was_not_recorded_is_cut_off(store: LocalStore) -> None:
    token = await store.begin(KEY, "")
    await store.put_part(KEY, token, 1, 0, b"recorded")
    await store.put_part(KEY, token, 2, 8, b"of another attempt")
    await store.complete(KEY, token, [Part(1, 8, "")])
    assert await content(store, KEY) == b"recorded"


async def test_parts_that_are_missing_are_no_object(store: LocalStore) -> None:
    token = await store.begin(KEY, "")
    await store.put_part(KEY, token, 1, 0, b"only")
    with pytest.raises(UploadGone):
        await store.complete(KEY, token, [Part(1, 4, ""), Part(2, 1, "")])
    assert await store.size(KEY) is None


async def test_what_has_ended_takes_nothing(store: LocalStore) -> None:
    completed, aborted = await store.begin(KEY, ""), await store.begin(KEY, "")
    await store.put_part(KEY, completed, 1, 0, b"whole")
    await store.complete(KEY, completed, [Part(1, 5, "")])
    await store.abort(KEY, aborted)
    await store.abort(KEY, aborted)
    for token in (completed, aborted):
        with pytest.raises(UploadGone):
            await store.put_part(KEY, token, 1, 0, b"torn!")
        with pytest.raises(UploadGone):
            await store.complete(KEY, token, [Part(1, 5, "")])
    assert await content(store, KEY) == b"whole"


async def test_a_client_writes_the_file_itself(store: LocalStore, root: Path) -> None:
    token = await store.begin(KEY, "")
    file = Path(store.file_uri(token).removeprefix("file://"))
    assert file.parent == root / ".uploads"
    file.unlink()
    file.write_bytes(b"from another process")
    file.chmod(0o444)
    await store.complete(KEY, token, [])
    assert await content(store, KEY) == b"from another process"
    with pytest.raises(FailedPrecondition, match="no addresses for parts"):
        await store.sign_part(KEY, token, 1, 60)


async def test_chunks_are_bounded_and_outlive_the_object(store: LocalStore) -> None:
    data = os.urandom(3 * MIB + 5)
    await store.put(KEY, data, "")
    chunks = store.read(KEY, 0, len(data))
    got = [await anext(chunks)]
    await store.delete([KEY])
    got += [chunk async for chunk in chunks]
    assert b"".join(got) == data
    assert max(map(len, got)) <= MIB
    with pytest.raises(NotFound):
        await content(store, KEY)


async def test_directories_go_with_the_last_file(store: LocalStore, root: Path) -> None:
    await store.put("1/a/b/c/one", b"1", "")
    await store.put("1/a/two", b"2", "")
    await store.delete(["1/a/b/c/one", "1/a/b/c/one", "1/a/b/c/never", "1/a/two/beneath"])
    assert files(root) == {"1/a/two"}
    assert not (root / "1/a/b").exists()
    await store.delete(["1/a/two"])
    assert sorted(path.name for path in root.iterdir()) == [".uploads"]


async def test_a_directory_that_is_left_empty_goes_when_asked_again(store: LocalStore, root: Path) -> None:
    (root / "1/a/b").mkdir(parents=True)  # as a crash between the file and its directory leaves it
    await store.delete(["1/a/b/c"])
    assert not (root / "1").exists()


async def test_who_makes_directories_beside_one_who_removes_them(store: LocalStore, root: Path) -> None:
    async def come_and_go(name: int) -> None:
        for turn in range(40):
            await store.put(f"1/x/y/{name}", b"%d" % turn, "")
            assert await content(store, f"1/x/y/{name}") == b"%d" % turn
            await store.delete([f"1/x/y/{name}"])

    await asyncio.gather(*map(come_and_go, range(6)))
    assert not (root / "1").exists()
    assert files(root) == set()


async def test_begun_tells_when_it_was_written_last(store: LocalStore, root: Path) -> None:
    token = await store.begin(KEY, "")
    os.utime(root / ".uploads" / token, (5, 5))
    assert [(each.token, each.begun_ms) async for each in store.begun()] == [(token, 5000)]
    before = time.time() - 1
    await store.put_part(KEY, token, 1, 0, b"x")
    assert [each.begun_ms / 1000 > before async for each in store.begun()] == [True]


async def test_nothing_of_a_cancelled_call_goes_on(store: LocalStore, root: Path) -> None:
    """A thread that still writes would take what the buffer holds next."""
    token = await store.begin(KEY, "")
    file = root / ".uploads" / token
    buffer = bytearray(b"a" * 32 * MIB)
    part = asyncio.create_task(store.put_part(KEY, token, 1, 0, buffer))
    while not file.stat().st_size:
        await asyncio.sleep(0)
    part.cancel()
    with pytest.raises(asyncio.CancelledError):
        await part
    buffer[:] = b"b" * len(buffer)
    written = file.read_bytes()
    assert written == b"a" * len(buffer)


async def test_what_a_cancelled_call_has_got_is_given_back(store: LocalStore, root: Path) -> None:
    await store.put(KEY, b"x", "")
    held, descriptors = threading.Event(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(8):
        store._threads.submit(held.wait)
    tasks = [asyncio.create_task(anext(store.read(KEY, 0, 1))), asyncio.create_task(store.begin(KEY, ""))]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    held.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
    assert files(root) == {KEY}


async def test_what_was_answered_is_on_the_disk(store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file before it gets its name, then the directory that names it, and those that are made for it."""
    told: list[str] = []
    sync, rename = os.fsync, os.rename

    def synced(file: int) -> None:
        sync(file)
        told.append(Path(f"/proc/self/fd/{file}").readlink().relative_to(root).as_posix())

    def renamed(*args: object, **kwargs: object) -> None:
        rename(*args, **kwargs)  # type: ignore[arg-type]
        told.append("renamed")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    await store.put("1/a/file", b"x", "")
    at = told.index("renamed")
    assert any(name.startswith(".uploads/") for name in told[:at])
    assert {".", "1"} <= set(told[:at])
    assert told[at + 1 :] == ["1/a"]

    told.clear()
    objects = [Object(f"1/a/{number}", b"x", "") for number in range(3)]
    assert await store.put_all(objects) == [None] * 3
    assert all(name.startswith(".uploads/") for name in told[:3])
    assert told[3:] == ["renamed", "renamed", "renamed", "1/a"]

    token = await store.begin("1/b/large", "")
    told.clear()
    await store.put_part("1/b/large", token, 1, 0, b"part")
    assert told == []
    await store.complete("1/b/large", token, [Part(1, 4, "")])
    assert told[0] == f".uploads/{token}"
    assert told[-2:] == ["renamed", "1/b"]

    told.clear()
    await store.delete(["1/a/file"])
    assert told == ["1/a"]


def test_what_is_known_of_directories_is_forgotten_when_one_is_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may have its number before the call that removes it returns: here that stays, and is the other, too."""
    (root / "there/gone").mkdir(parents=True)
    kept, here = confined.Kept(), os.open(root / "there", os.O_RDONLY)
    sync, rmdir, removed, go, synced = os.fsync, os.rmdir, threading.Event(), threading.Event(), []

    def remove(name: str, **options: int) -> None:
        rmdir(name, **options)
        removed.set()
        assert go.wait(20)

    kept.keep(here, here)
    monkeypatch.setattr(os, "rmdir", remove)
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(file) or sync(file))
    removing = threading.Thread(target=confined.remove, args=(str(root), ["there", "gone", "file"], kept))
    removing.start()
    assert removed.wait(20)
    keeping = threading.Thread(target=kept.keep, args=(here, here))
    keeping.start()
    keeping.join(0.2)  # now it would be too early
    go.set()
    for thread in (removing, keeping):
        thread.join(20)
    assert synced.count(here) == 1
    os.close(here)


async def test_of_many_objects_each_fails_for_itself(store: LocalStore, root: Path) -> None:
    await store.put("1/a", b"a file", "")
    (root / "1/b/d").mkdir(parents=True)
    keys = ["1/a/x", "1/b/x", "1/b/d", "1/b/y", f"1/b/{256 * 'z'}", "2/a"]
    errors = await store.put_all([Object(key, key.encode(), "") for key in keys])
    assert [type(error) for error in errors] == [StoreRefused, type(None)] * 2 + [StoreRefused, type(None)]
    assert files(root) == {"1/a", "1/b/x", "1/b/y", "2/a"}


async def test_many_objects_leave_threads_to_others(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads, or stores a single object, does not wait for a disk that is slow with many."""
    await store.put(KEY, b"x", "")
    create, go, asked = LocalStore._create, threading.Event(), []

    def slowly(self: LocalStore, uploads: int, data: bytes) -> str:
        asked.append(data)
        assert data == b"single" or go.wait(60)
        return create(self, uploads, data)

    monkeypatch.setattr(LocalStore, "_create", slowly)
    many = [
        asyncio.create_task(store.put_all([Object(f"{batch}/{number}", b"1", "") for number in range(100)]))
        for batch in range(16)
    ]
    while len(asked) < 4:
        await asyncio.sleep(0.005)
    async with asyncio.timeout(20):
        assert await content(store, KEY) == b"x"
        await store.put("1/b", b"single", "")
        # Who leaves waits for a few objects at most.
        many[0].cancel()
        go.set()
        await asyncio.wait(many[:1])
    assert many[0].cancelled()
    assert not (root / "0/40").exists()
    assert await asyncio.gather(*many[1:]) == [[None] * 100] * 15
    assert len(files(root)) == 2 + 15 * 100 + 32


async def test_objects_whose_directory_vanishes_meanwhile(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, renamed = os.rename, []

    def once_more(old: str, new: str, **options: int) -> None:
        if not renamed:
            (root / "1").rmdir()
        renamed.append(new)
        rename(old, new, **options)

    monkeypatch.setattr(os, "rename", once_more)
    assert await store.put_all([Object("1/a", b"a", ""), Object("1/b", b"b", "")]) == [None, None]
    assert renamed == ["a", "a", "b"]
    assert files(root) == {"1/a", "1/b"}


async def test_what_the_disk_has_not_taken_is_no_object(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk tells only once that it lost something: who tries again would hear that all is well."""
    token = await store.begin(KEY, "")
    await store.put_part(KEY, token, 1, 0, b"part")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "lost")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable):
            await store.complete(KEY, token, [Part(1, 4, "")])
    with pytest.raises(UploadGone):
        await store.complete(KEY, token, [Part(1, 4, "")])
    assert files(root) == set()


def out_of(root: Path) -> Path:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    return outside


async def test_no_directory_leads_out(store: LocalStore, root: Path) -> None:
    outside = out_of(root)
    (root / "1").mkdir(parents=True)
    (root / "1/run").symlink_to(outside)
    with pytest.raises(StoreRefused, match="links are not followed"):
        await store.put("1/run/file", b"x", "")
    with pytest.raises(StoreRefused, match="links are not followed"):
        await content(store, "1/run/secret")
    with pytest.raises(StoreRefused, match="links are not followed"):
        await store.size("1/run/secret")
    token = await store.begin("1/run/secret", "")
    with pytest.raises(StoreRefused, match="links are not followed"):
        await store.complete("1/run/secret", token, [])
    await store.delete(["1/run/secret"])
    assert files(outside) == {"secret"}
    assert (outside / "secret").read_bytes() == b"secret"


async def test_no_file_leads_out(store: LocalStore, root: Path) -> None:
    outside = out_of(root)
    (root / "1").mkdir(parents=True)
    for name in ("read", "replaced", "deleted"):
        (root / "1" / name).symlink_to(outside / "secret")
    with pytest.raises(StoreRefused, match="links are not followed"):
        await content(store, "1/read")
    await store.put("1/replaced", b"ours", "")
    await store.delete(["1/deleted"])
    assert await content(store, "1/replaced") == b"ours"
    assert (outside / "secret").read_bytes() == b"secret"
    assert files(root) == {"1/read", "1/replaced"}


async def test_no_upload_leads_out(store: LocalStore, root: Path) -> None:
    outside = out_of(root)
    token = await store.begin(KEY, "")
    (root / ".uploads" / token).unlink()
    (root / ".uploads" / token).symlink_to(outside / "secret")
    with pytest.raises(StoreRefused):
        await store.put_part(KEY, token, 1, 0, b"gone?!")
    with pytest.raises(StoreRefused):
        await store.complete(KEY, token, [])
    await store.abort(KEY, token)
    (root / ".uploads").rmdir()
    (root / ".uploads").symlink_to(outside)
    with pytest.raises(StoreRefused):
        await store.put(KEY, b"x", "")
    with pytest.raises(StoreRefused):
        await store.abort(KEY, "secret")
    assert files(outside) == {"secret"}
    assert (outside / "secret").read_bytes() == b"secret"


async def test_a_pipe_is_no_object_and_nobody_waits_for_it(store: LocalStore, root: Path) -> None:
    token = await store.begin(KEY, "")
    (root / ".uploads" / token).unlink()
    os.mkfifo(root / ".uploads" / token)
    with pytest.raises(StoreRefused):
        await store.complete(KEY, token, [])


@pytest.mark.parametrize("key", ["../secret", "1/../../secret", "/etc/passwd", "1//x", "1/./x", "", "1/x\0"])
async def test_a_key_is_below_the_root(store: LocalStore, key: str) -> None:
    with pytest.raises(ValueError, match="no path below a root"):
        await store.put(key, b"x", "")
    with pytest.raises(ValueError, match="no path below a root"):
        await content(store, key)


async def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    store = LocalStore(LocalRoot(str(tmp_path / "link")))
    await store.put(KEY, b"x", "")
    await store.close()
    assert (tmp_path / "disk" / KEY).read_bytes() == b"x"


async def test_a_root_that_vanishes(store: LocalStore, root: Path) -> None:
    await store.put(KEY, b"x", "")
    token = await store.begin(KEY, "")
    shutil.rmtree(root)
    for work in (
        store.put(KEY, b"x", ""),
        store.size(KEY),
        store.put_part(KEY, token, 1, 0, b"x"),
        store.delete([KEY]),
        store.abort(KEY, token),
    ):
        with pytest.raises(StoreRefused, match=f"{root} is not there; mount it or make it"):
            await work
    root.mkdir()
    await store.put(KEY, b"x", "")


async def test_who_does_not_write_makes_no_root(store: LocalStore, root: Path) -> None:
    """What is to be removed is not where nothing is: the disk may not be mounted, or the settings be another's."""
    for work in (
        content(store, KEY),
        store.size(KEY),
        store.put_part(KEY, "token", 1, 0, b"x"),
        store.complete(KEY, "token", []),
        store.delete([KEY]),
        store.abort(KEY, "token"),
    ):
        with pytest.raises(StoreRefused, match=f"{root} is not there; mount it or make it"):
            await work
    assert [each async for each in store.begun()] == []
    assert not root.exists()
    await store.begin(KEY, "")
    assert root.exists()


async def test_a_root_that_is_a_file(store: LocalStore, root: Path) -> None:
    root.write_bytes(b"")
    with pytest.raises(StoreRefused, match="stands in the way"):
        await store.put(KEY, b"x", "")


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """A file system of 4 MiB; the test is skipped where none can be mounted."""
    root.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "penstock", str(root)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no right to mount a file system")
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


async def test_a_full_disk(store: LocalStore, small_disk: Path) -> None:
    token = await store.begin(KEY, "")
    with pytest.raises(StoreFull, match="No space left"):
        await store.put(KEY, bytes(5 * MIB), "")
    assert files(small_disk) == {f".uploads/{token}"}, "what was written of it takes no room"
    await store.put_part(KEY, token, 1, 0, bytes(3 * MIB))
    with pytest.raises(StoreFull):
        await store.put_part(KEY, token, 2, 3 * MIB, bytes(3 * MIB))
    await store.abort(KEY, token)
    await store.put(KEY, bytes(3 * MIB), "")
    assert await store.size(KEY) == 3 * MIB


async def test_a_disk_that_may_only_be_read(store: LocalStore, small_disk: Path) -> None:
    await store.put(KEY, b"x", "")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreRefused, match="let the user that the server runs as read and write"):
        await store.put(KEY, b"x", "")
    assert await content(store, KEY) == b"x"
