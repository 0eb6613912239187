"""Artifacts up and down, against a real server on a local store: whole, resumed, verified, and never a part of one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from lines import Line
from peer import eventually

import penstock
from penstock import errors, uploads
from penstock.downloads import RANGE_BYTES, SMALL
from penstock.wire import CHUNK, Wire
from servers import ServerProcess

MIB = 1 << 20


@pytest.fixture
def run_id(client: penstock.Client) -> str:
    return client.create_run("artifacts").id


@pytest.fixture
def line(server: ServerProcess) -> Iterator[Line]:
    with Line(server.grpc_address) as line:
        yield line


@pytest.fixture
def far(line: Line) -> Iterator[penstock.Client]:
    """A client whose bytes are counted, and may be cut off."""
    with penstock.Client(line.url) as client:
        yield client


def content(size: int, seed: int = 0) -> bytes:
    """The same for the same seed, and nowhere the same."""
    return hashlib.shake_128(seed.to_bytes(4, "big")).digest(size)


def file(path: Path, size: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(size, seed))
    return path


def names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "size", [0, 1, 4096, CHUNK, CHUNK + 1, SMALL, SMALL + 1, 16 * MIB, 4 * SMALL + 5 * MIB, 2 * RANGE_BYTES + 1]
)
def test_what_goes_up_comes_down(client: penstock.Client, run_id: str, tmp_path: Path, size: int) -> None:
    source = file(tmp_path / "model.bin", size)
    moved: list[int] = []
    artifact = client.upload_artifact(run_id, source, "models/new.bin", progress=moved.append)
    assert (artifact.path, artifact.size) == ("models/new.bin", size)
    assert artifact.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert sum(moved) == size
    assert client.stat_artifact(run_id, "models/new.bin") == artifact
    moved.clear()
    found = client.download_artifacts(run_id, "models/new.bin", tmp_path / "out" / "x.bin", progress=moved.append)
    assert found == tmp_path / "out" / "x.bin"
    assert found.read_bytes() == source.read_bytes()
    assert names(tmp_path / "out") == ["x.bin"]
    assert sum(moved) == size
    assert client.read_artifact(run_id, "models/new.bin") == source.read_bytes()


def test_bytes_and_media_types(client: penstock.Client, run_id: str) -> None:
    assert client.upload_artifact(run_id, b"a,b\n", "t.csv").media_type == "text/csv"
    assert client.upload_artifact(run_id, bytearray(b"x"), "weights", media_type="application/x-w").media_type == (
        "application/x-w"
    )
    assert client.upload_artifact(run_id, memoryview(b"y"), "weights").media_type == "application/octet-stream"
    assert client.read_artifact(run_id, "weights") == b"y"
    with pytest.raises(ValueError, match="have no name"):
        client.upload_artifact(run_id, b"x")


def test_a_file_keeps_its_name(client: penstock.Client, run_id: str, tmp_path: Path) -> None:
    name = "Modèle 100% «x» +?#&.bin"
    artifact = client.upload_artifact(run_id, file(tmp_path / name, 3))
    assert artifact.path == name
    assert client.download_artifacts(run_id, name, f"{tmp_path}/out/").name == name
    assert (tmp_path / "out" / name).read_bytes() == content(3)


def test_where_a_download_goes(
    client: penstock.Client, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.upload_artifact(run_id, b"x", "a/b/c.txt")
    monkeypatch.chdir(tmp_path)
    assert client.download_artifacts(run_id, "a/b/c.txt") == Path("c.txt")
    assert client.download_artifacts(run_id, "a/b") == Path("b")
    assert client.download_artifacts(run_id) == Path(run_id)
    assert client.download_artifacts(run_id, "a/b/c.txt", "b") == Path("b/c.txt")
    assert client.download_artifacts(run_id, "a", "d/e") == Path("d/e")
    assert client.download_artifacts(run_id, "a", "d/e") == Path("d/e")  # whatever is there already
    assert names(tmp_path) == sorted(["b/c.txt", "c.txt", "d/e/b/c.txt", f"{run_id}/a/b/c.txt"])
    with pytest.raises(errors.NotFound):
        client.download_artifacts(run_id, "nothing")
    with pytest.raises(errors.NotFound):
        client.read_artifact(run_id, "a/b")


def test_listing_and_deleting(client: penstock.Client, run_id: str) -> None:
    for path in ("b.txt", "a/1", "a/2", "a/c/3"):
        client.upload_artifact(run_id, path.encode(), path)
    assert [(each.path, each.is_directory) for each in client.list_artifacts(run_id)] == [("a", True), ("b.txt", False)]
    assert [each.path for each in client.list_artifacts(run_id, "a\\")] == ["a/1", "a/2", "a/c"]
    assert [each.path for each in client.list_artifacts(run_id, recursive=True)] == ["a/1", "a/2", "a/c/3", "b.txt"]
    assert client.list_artifacts(run_id, "none") == []
    assert client.delete_artifact(run_id, "a/1") == 1
    assert client.delete_artifact(run_id, "a") == 2
    assert [each.path for each in client.list_artifacts(run_id)] == ["b.txt"]
    with pytest.raises(errors.NotFound):
        client.delete_artifact(run_id, "a")


def test_all_pages_are_listed(client: penstock.Client, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.artifacts._PAGE", 3)
    for number in range(8):
        client.upload_artifact(run_id, b"", f"{number}")
    assert [each.path for each in client.list_artifacts(run_id)] == [str(number) for number in range(8)]


@pytest.mark.parametrize("size", [1000, 5 * MIB])
def test_what_is_there_is_not_sent_again(
    client: penstock.Client, far: penstock.Client, line: Line, run_id: str, tmp_path: Path, size: int
) -> None:
    source = file(tmp_path / "a.bin", size)
    first = far.upload_artifact(run_id, source)
    sent, moved = line.up, []
    assert far.upload_artifact(run_id, source, progress=moved.append) == first
    assert sum(moved) == size
    if size > CHUNK:
        assert line.up - sent < 20_000
    changed = far.upload_artifact(run_id, file(source, size, seed=1))
    assert changed.sha256 != first.sha256
    assert client.read_artifact(run_id, "a.bin") == content(size, 1)


def test_what_is_here_or_there_is_not_moved_again(
    far: penstock.Client, line: Line, run_id: str, tmp_path: Path
) -> None:
    big, small = file(tmp_path / "d" / "big", SMALL + 1), file(tmp_path / "d" / "small", 300_000)
    first = far.upload_artifacts(run_id, tmp_path / "d")
    sent, moved = line.up, []
    assert far.upload_artifacts(run_id, tmp_path / "d", progress=moved.append) == first
    assert line.up - sent < 20_000
    assert sum(moved) == SMALL + 300_001
    small.write_bytes(content(300_000, 1))  # as large, and another
    assert far.upload_artifacts(run_id, tmp_path / "d")[1].sha256 == hashlib.sha256(small.read_bytes()).hexdigest()
    small.write_bytes(content(10))
    far.upload_artifacts(run_id, tmp_path / "d")
    fetched = line.down
    assert far.download_artifacts(run_id, "", tmp_path / "d") == tmp_path / "d"
    small.write_bytes(content(10, 1))  # as large, and another
    far.download_artifacts(run_id, "", tmp_path / "d")
    assert small.read_bytes() == content(10)
    assert big.read_bytes() == content(SMALL + 1)
    assert line.down - fetched < 20_000


def stored(server: ServerProcess, run_id: str) -> tuple[int, bool]:
    """Parts of the uploads of a run that are not complete, and whether somebody is at it."""

    async def ask() -> tuple[int, bool]:
        conn = await asyncpg.connect(server._env["PENSTOCK_DATABASE_URL"])
        try:
            return await conn.fetchrow(  # type: ignore[no-any-return]
                "SELECT count(p), coalesce(bool_or(live), false) FROM artifact_blobs b "
                "LEFT JOIN artifact_parts p ON b.id = p.blob_id WHERE owner_id = $1 AND state = 1",
                uuid.UUID(run_id),
            )
        finally:
            await conn.close()

    parts, live = asyncio.run(ask())
    return parts, live


def test_an_upload_that_is_cut_off_goes_on(
    server: ServerProcess, far: penstock.Client, line: Line, run_id: str, tmp_path: Path
) -> None:
    source = file(tmp_path / "a.bin", 48 * MIB)
    moved: list[int] = []
    once = iter([True])

    def cut(count: int) -> None:
        moved.append(count)
        if sum(moved) >= 34 * MIB and next(once, False):
            eventually(lambda: stored(server, run_id)[0] >= 3, 60)
            line.cut_after(up=1)

    artifact = far.upload_artifact(run_id, source, progress=cut)
    assert line.cuts == 1
    assert artifact.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert far.read_artifact(run_id, "a.bin") == source.read_bytes()
    assert min(moved) < 0
    assert sum(moved) == 48 * MIB
    assert line.up < (48 + 48 - 3 * 8) * MIB  # what was stored was not sent again


def test_an_upload_outlives_its_server(dsn: str, tmp_path: Path) -> None:
    source = file(tmp_path / "a.bin", 48 * MIB)
    moved: list[int] = []
    with ServerProcess(tmp_path / "data", dsn=dsn) as server, Line(server.start().wait_ready().grpc_address) as line:
        once = iter([True])

        def kill(count: int) -> None:
            moved.append(count)
            if sum(moved) >= 34 * MIB and next(once, False):
                eventually(lambda: stored(server, run_id)[0] >= 3, 60)
                server.kill()
                server.start()

        with penstock.Client(line.url) as client:
            run_id = client.create_run("artifacts").id
            client.upload_artifact(run_id, source, progress=kill)
            assert min(moved) < 0
            assert client.read_artifact(run_id, "a.bin") == source.read_bytes()
        assert line.up < (48 + 48 - 3 * 8) * MIB


def test_a_download_that_is_cut_off_goes_on(
    client: penstock.Client, far: penstock.Client, line: Line, run_id: str, tmp_path: Path
) -> None:
    source = file(tmp_path / "a.bin", 40 * MIB)
    client.upload_artifact(run_id, source)
    moved: list[int] = []
    for down in (10 * MIB, 25 * MIB):
        line.cut_after(down=down - line.down)
        if down == 10 * MIB:  # the first time, whoever asked gives up
            with pytest.raises(errors.Unavailable):
                far.download_artifacts(run_id, "a.bin", tmp_path / "b.bin", patience=0)
    got = far.download_artifacts(run_id, "a.bin", tmp_path / "b.bin", progress=moved.append)
    assert line.cuts == 2
    assert got.read_bytes() == source.read_bytes()
    assert names(tmp_path) == ["a.bin", "b.bin"]
    assert sum(moved) == 40 * MIB
    assert line.down < 52 * MIB  # a little of what was under way has come twice


CUT_SHORT = """
    import sys, time
    import penstock

    def progress(count, moved=[0]):
        moved[0] += count
        if moved[0] >= int(sys.argv[3]):
            print("there\\n", end="", flush=True)  # at once: another thread may say so, too
            time.sleep(1000)

    with penstock.Client(sys.argv[1]) as client:
        if sys.argv[5] == "up":
            client.upload_artifact(sys.argv[2], sys.argv[4], progress=progress)
        else:
            client.download_artifacts(sys.argv[2], "a.bin", sys.argv[4], progress=progress)
"""


@contextlib.contextmanager
def killed(url: str, run_id: str, after: int, path: Path, way: str) -> Iterator[None]:
    """In another process, which goes no further after so many bytes, and is killed in the end."""
    command = [sys.executable, "-c", textwrap.dedent(CUT_SHORT), url, run_id, str(after), str(path), way]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
            yield
        finally:
            process.kill()


def test_another_process_goes_on_where_one_was_killed(
    server: ServerProcess, client: penstock.Client, far: penstock.Client, line: Line, run_id: str, tmp_path: Path
) -> None:
    source = file(tmp_path / "a.bin", 48 * MIB)
    with killed(line.url, run_id, 34 * MIB, source, "up"):
        eventually(lambda: stored(server, run_id)[0] >= 3, 60)
    with pytest.raises(errors.NotFound):
        client.stat_artifact(run_id, "a.bin")
    eventually(lambda: not stored(server, run_id)[1], 60)
    sent = line.up
    far.upload_artifact(run_id, source)
    assert client.read_artifact(run_id, "a.bin") == source.read_bytes()
    assert line.up - sent < (48 - 2 * 8) * MIB

    target = tmp_path / "b.bin"
    with killed(line.url, run_id, 30 * MIB, target, "down"):
        pass
    assert names(tmp_path) == [".b.bin.penstock-part", "a.bin"]
    fetched = line.down
    far.download_artifacts(run_id, "a.bin", target)
    assert target.read_bytes() == source.read_bytes()
    assert names(tmp_path) == ["a.bin", "b.bin"]
    assert line.down - fetched < 40 * MIB  # and what was under way when it was killed


def test_what_came_of_another_artifact_is_not_mixed_in(client: penstock.Client, run_id: str, tmp_path: Path) -> None:
    stop = threading.Event()
    for seed in (0, 1):
        client.upload_artifact(run_id, file(tmp_path / "a.bin", 20 * MIB, seed))
        stop.clear()
        with pytest.raises(errors.Stopped):
            client.download_artifacts(run_id, "a.bin", tmp_path / "b.bin", progress=lambda _: stop.set(), stop=stop)
        assert names(tmp_path) == [".b.bin.penstock-part", "a.bin"]
    assert client.download_artifacts(run_id, "a.bin", tmp_path / "b.bin").read_bytes() == content(20 * MIB, 1)


def test_a_part_that_is_damaged_is_noticed_and_fetched_again(
    client: penstock.Client, run_id: str, tmp_path: Path
) -> None:
    client.upload_artifact(run_id, file(tmp_path / "a.bin", 20 * MIB))
    stop = threading.Event()
    moved: list[int] = []

    def some(count: int) -> None:
        moved.append(count)
        if sum(moved) > 12 * MIB:
            stop.set()

    with pytest.raises(errors.Stopped):
        client.download_artifacts(run_id, "a.bin", tmp_path / "b.bin", progress=some, stop=stop)
    with (tmp_path / ".b.bin.penstock-part").open("r+b") as part:
        part.write(b"not what came")
    moved.clear()
    found = client.download_artifacts(run_id, "a.bin", tmp_path / "b.bin", progress=moved.append)
    assert found.read_bytes() == content(20 * MIB)
    assert min(moved) < 0  # what was counted was counted back
    assert sum(moved) == 20 * MIB
    assert names(tmp_path) == ["a.bin", "b.bin"]


def test_two_who_download_to_one_place_do_not_mix(client: penstock.Client, run_id: str, tmp_path: Path) -> None:
    client.upload_artifact(run_id, file(tmp_path / "a.bin", 40 * MIB))
    target = tmp_path / "b.bin"
    begun, go = threading.Event(), threading.Event()

    def wait(_: int) -> None:
        begun.set()
        assert go.wait(60)

    first = threading.Thread(
        target=client.download_artifacts, args=(run_id, "a.bin", target), kwargs={"progress": wait}
    )
    first.start()
    assert begun.wait(60)
    client.download_artifacts(run_id, "a.bin", target)
    assert target.read_bytes() == content(40 * MIB)
    go.set()
    first.join(60)
    assert target.read_bytes() == content(40 * MIB)
    assert names(tmp_path) == ["a.bin", "b.bin"]


def test_an_artifact_that_is_replaced_while_it_is_read_comes_anew(
    client: penstock.Client, run_id: str, tmp_path: Path
) -> None:
    client.upload_artifact(run_id, content(100 * MIB), "a.bin")
    once: list[int] = []

    def replace(_: int) -> None:
        if not once:
            once.append(1)
            client.upload_artifact(run_id, content(90 * MIB, 1), "a.bin")

    client.download_artifacts(run_id, "a.bin", tmp_path / "a.bin", progress=replace)
    assert (tmp_path / "a.bin").read_bytes() in (content(100 * MIB), content(90 * MIB, 1))
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("how", ["append", "truncate", "touch"])
def test_a_file_that_changes_while_it_is_read_is_noticed(
    client: penstock.Client, run_id: str, tmp_path: Path, how: str
) -> None:
    source = file(tmp_path / "a.bin", 10 * MIB)
    client.upload_artifact(run_id, b"before", "a.bin")

    def change(_: int) -> None:
        match how:
            case "append":
                with source.open("ab") as written:
                    written.write(b"more")
            case "truncate":
                os.truncate(source, 100)
            case "touch":
                os.utime(source, ns=(0, 0))

    with pytest.raises(errors.SourceChanged, match=r"a\.bin' was written to"):
        client.upload_artifact(run_id, source, progress=change)
    assert client.read_artifact(run_id, "a.bin") == b"before"
    assert client.upload_artifact(run_id, source).size == source.stat().st_size


def test_an_upload_can_be_stopped_and_gone_on_with(
    server: ServerProcess, far: penstock.Client, line: Line, run_id: str, tmp_path: Path
) -> None:
    source = file(tmp_path / "a.bin", 48 * MIB)
    stop = threading.Event()
    moved: list[int] = []

    def some(count: int) -> None:
        moved.append(count)
        if sum(moved) >= 34 * MIB:
            eventually(lambda: stored(server, run_id)[0] >= 3, 60)
            stop.set()

    with pytest.raises(errors.Stopped):
        far.upload_artifact(run_id, source, progress=some, stop=stop)
    with pytest.raises(errors.NotFound):
        far.stat_artifact(run_id, "a.bin")
    eventually(lambda: not stored(server, run_id)[1], 60)
    sent = line.up
    far.upload_artifact(run_id, source)
    assert line.up - sent < (48 - 2 * 8) * MIB
    stop.set()
    with pytest.raises(errors.Stopped):
        far.upload_artifact(run_id, b"small", "small", stop=stop)


def test_no_server(tmp_path: Path) -> None:
    with penstock.Client("127.0.0.1:9") as client:
        for size in (10, 2 * MIB):
            with pytest.raises(errors.Unavailable, match="penstock-server serve"):
                client.upload_artifact(32 * "0", file(tmp_path / "a", size), patience=0.2)
        with pytest.raises(errors.Unavailable):
            client.download_artifacts(32 * "0", "", tmp_path / "out", patience=0.2)


def test_what_can_never_succeed_is_told_at_once(client: penstock.Client, run_id: str, tmp_path: Path) -> None:
    nobody = 32 * "0"
    for size in (10, 2 * MIB):
        with pytest.raises(errors.NotFound):
            client.upload_artifact(nobody, file(tmp_path / "a", size))
    client.upload_artifact(run_id, b"x", "file")
    for source in (b"y", content(2 * MIB)):
        with pytest.raises(errors.FailedPrecondition):
            client.upload_artifact(run_id, source, "file/below")
    with pytest.raises(ValueError, match="upload_artifacts takes those"):
        client.upload_artifact(run_id, tmp_path)
    with pytest.raises(FileNotFoundError):
        client.upload_artifact(run_id, tmp_path / "none")
    with pytest.raises(NotADirectoryError):
        client.upload_artifacts(run_id, tmp_path / "a")
    with pytest.raises(ValueError, match="relative path"):
        client.upload_artifact(run_id, b"", "../x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is no file"):
        client.upload_artifact(run_id, tmp_path / "pipe")


def test_directories(client: penstock.Client, run_id: str, tmp_path: Path) -> None:
    top = tmp_path / "out"
    wanted = {f"{number % 7}/{number}.txt": content(number, number) for number in range(60)}
    for path, data in wanted.items():
        file(top / path, len(data), len(data))
    file(top / "big.bin", SMALL + 3)
    wanted["big.bin"] = content(SMALL + 3)
    (top / "linked.txt").symlink_to(top / "3/3.txt")
    wanted["linked.txt"] = wanted["3/3.txt"]
    (top / "circle").symlink_to(top)
    moved: list[int] = []
    found = client.upload_artifacts(run_id, top, "all\\of it", progress=moved.append)
    assert [artifact.path for artifact in found] == sorted(f"all/of it/{path}" for path in wanted)
    assert sum(moved) == sum(map(len, wanted.values()))
    got = client.download_artifacts(run_id, "all/of it", tmp_path / "got")
    assert {path: (got / path).read_bytes() for path in names(got)} == wanted


def test_many_small_files_outlive_their_server(dsn: str, tmp_path: Path) -> None:
    wanted = {f"{number % 7}/{number}": content(4_000, number) for number in range(1_500)}
    for path, data in wanted.items():
        file(tmp_path / "out" / path, len(data), int(path.rpartition("/")[2]))
    with ServerProcess(tmp_path / "data", dsn=dsn) as server:
        once = iter([True])
        moved: list[int] = []

        def kill(count: int) -> None:
            moved.append(count)
            if sum(moved) >= 200 * 4_000 and next(once, False):
                server.kill()
                server.start()

        with penstock.Client(server.start().wait_ready().grpc_address) as client:
            run_id = client.create_run("artifacts").id
            found = client.upload_artifacts(run_id, tmp_path / "out", progress=kill)
            assert next(once, None) is None
            assert [artifact.path for artifact in found] == sorted(wanted)
            assert sum(moved) == sum(map(len, wanted.values()))
            got = client.download_artifacts(run_id, "", tmp_path / "got")
            assert {path: (got / path).read_bytes() for path in names(got)} == wanted
            moved.clear()
            again = client.upload_artifacts(run_id, tmp_path / "out", progress=moved.append)
            assert again == found
            assert sum(moved) == sum(map(len, wanted.values()))


def test_all_are_tried_and_the_failures_named(client: penstock.Client, run_id: str, tmp_path: Path) -> None:
    file(tmp_path / "good/1", 10)
    file(tmp_path / "good/2", 10)
    file(tmp_path / "two\nlines", 10)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(errors.TransferFailed, match="2 of 4 files failed") as raised:
        client.upload_artifacts(run_id, tmp_path)
    assert isinstance(raised.value.failures["nowhere"], FileNotFoundError)
    assert isinstance(raised.value.failures["two\nlines"], ValueError)
    assert [each.path for each in client.list_artifacts(run_id, recursive=True)] == ["good/1", "good/2"]

    (tmp_path / "got" / "good" / "1").mkdir(parents=True)  # where a file is to be
    with pytest.raises(errors.TransferFailed, match="1 of 2 files failed: good/1") as raised:
        client.download_artifacts(run_id, "", tmp_path / "got")
    assert isinstance(raised.value.failures["good/1"], IsADirectoryError)
    assert names(tmp_path / "got") == ["good/2"]


def test_asyncio(server: ServerProcess, tmp_path: Path) -> None:
    async def work() -> None:
        async with penstock.AsyncClient(server.grpc_address) as client:
            run = await client.create_run("artifacts")
            artifact = await client.upload_artifact(run.id, file(tmp_path / "d/a.bin", 3 * MIB))
            assert await client.list_artifacts(run.id) == [artifact]
            assert len(await client.upload_artifacts(run.id, tmp_path / "d", "again")) == 1
            assert await client.read_artifact(run.id, "again/a.bin") == content(3 * MIB)
            found = await client.download_artifacts(run.id, "a.bin", tmp_path / "b.bin")
            assert found.read_bytes() == content(3 * MIB)

            loop, begun, go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
            shared = threading.Event()

            def slow(_: int) -> None:
                loop.call_soon_threadsafe(begun.set)
                go.wait(60)

            task = asyncio.create_task(
                client.upload_artifact(run.id, content(40 * MIB, 1), "late", progress=slow, stop=shared)
            )
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not shared.is_set()  # it is the caller's, for others too
            go.set()
            with pytest.raises(errors.NotFound):
                await client.stat_artifact(run.id, "late")

    asyncio.run(work())


FORKED = """
    import os, sys
    import penstock

    client = penstock.Client(sys.argv[1])
    client.get_run(sys.argv[2])
    child = os.fork()
    if not child:
        client.upload_artifact(sys.argv[2], b"of the child", "small")
        client.upload_artifact(sys.argv[2], bytes(5 << 20), "large")
        assert client.read_artifact(sys.argv[2], "small") == b"of the child"
        client.download_artifacts(sys.argv[2], "", sys.argv[3])
        client.close()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    client.upload_artifact(sys.argv[2], b"of the parent", "parent")
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_has_artifacts_too(
    server: ServerProcess, client: penstock.Client, run_id: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKED), server.grpc_address, run_id]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    assert subprocess.run([*command, str(tmp_path)], timeout=100, check=False, env=env).returncode == 0
    assert [each.path for each in client.list_artifacts(run_id)] == ["large", "parent", "small"]
    assert (tmp_path / "large").read_bytes() == bytes(5 * MIB)
    assert (tmp_path / "small").read_bytes() == b"of the child"


def test_beside_forks_bytes_go_by_a_relay(
    server: ServerProcess, client: penstock.Client, run_id: str, either_way: None
) -> None:
    wire = Wire(client._artifacts, beside_forks=True)
    for size in (10, 9 * MIB):
        artifact = uploads.upload_artifact(wire, run_id, content(size), "a.bin")
        assert artifact.sha256 == hashlib.sha256(content(size)).hexdigest()
    wire.close()


def test_a_connection_that_is_closed_ends_what_goes_over_it(client: penstock.Client, run_id: str) -> None:
    wire, stop = Wire(client._artifacts), threading.Event()

    def close(_: int) -> None:
        stop.set()
        wire.close()

    for size in (10, 40 * MIB):
        stop.clear()
        with contextlib.suppress(errors.Stopped):  # what is small may have been there before
            uploads.upload_artifact(wire, run_id, content(size), "a.bin", progress=close, stop=stop, patience=None)
    channel = wire._channels.to(wire.address)
    channel.close()
    with pytest.raises(errors.Unavailable, match="was closed here"):
        uploads.upload_artifact(wire, run_id, content(size), "a.bin", patience=0)


def test_artifacts_may_be_on_another_server(
    server: ServerProcess, line: Line, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ARTIFACTS_URL", line.url)
    with penstock.Client(server.grpc_address) as client:
        client.get_run(run_id)
        assert line.up == 0
        client.upload_artifact(run_id, b"x", "a")
        used = line.up
        assert used > 0
        assert [each.path for each in client.list_artifacts(run_id)] == ["a"]
        assert line.up > used
    with penstock.Client(server.grpc_address, artifacts_url=server.grpc_address) as client:
        used = line.up
        assert client.read_artifact(run_id, "a") == b"x"
        assert line.up == used
