"""Files that are logged to a run reach it, whatever becomes of the file, the process and the server meanwhile."""

from __future__ import annotations

import logging
import os
import pty
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from peer import eventually
from PIL import Image
from test_forks import run as run_script
from training import DEADLINE, Training, beside_ours, silent_listener, sync

import penstock
from penstock import bars
from penstock.cli import main
from penstock.outgoing import box
from penstock.session import Pace
from penstock.sync import _adopting
from penstock.v1 import artifacts_pb2 as pb
from penstock.v1.artifacts_pb2_grpc import ArtifactServiceStub
from servers import ServerProcess

QUICK = Pace(backoff_least=0.01, backoff_most=0.05)
SOME = 10  # files


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    yield
    eventually(lambda: not _adopting, DEADLINE)
    for handler in list(logging.getLogger("penstock").handlers):
        if isinstance(handler, logging.NullHandler):
            logging.getLogger("penstock").removeHandler(handler)


def stored(server: ServerProcess, run_id: str) -> dict[str, bytes]:
    """All files of a run."""
    found = {}
    with server.channel() as channel:
        service = ArtifactServiceStub(channel)
        for artifact in service.ListArtifacts(pb.ListArtifactsRequest(run_id=run_id, recursive=True)).artifacts:
            answers = service.DownloadArtifact(pb.DownloadArtifactRequest(run_id=run_id, path=artifact.path))
            found[artifact.path] = b"".join(answer.chunk for answer in answers)
    return found


def boxes(spool_root: Path) -> list[Path]:
    return [directory for directory in box.found(spool_root) if not box.is_empty(directory)]


def start(server: ServerProcess | str, **more: Any) -> penstock.ActiveRun:
    url = server if isinstance(server, str) else server.grpc_address
    return penstock.start_run("files", url=url, pace=QUICK, **more)


def test_a_file_may_be_deleted_and_another_changed_once_they_are_logged(
    server: ServerProcess, spool_root: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "weights.bin"
    first = os.urandom(2_500_000)
    changed.write_bytes(first)
    with start(server) as run:
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "model.pt").write_bytes(first[:1000])
            run.log_artifact(f"{directory}/model.pt", "models")
        run.log_artifact(changed)
        changed.write_bytes(b"something else")
    assert stored(server, run.id) == {"models/model.pt": first[:1000], "weights.bin": first}
    assert (run.unsent, run.refused, run.rejected) == (0, 0, [])
    assert box.found(spool_root) == []


def test_all_files_of_a_directory(server: ServerProcess, tmp_path: Path) -> None:
    files = {"a.txt": b"a", "sub dir/größe 100%.txt": b"b", "sub dir/deep/c#?.txt": b"", "日本": b"d"}
    for name, data in files.items():
        place = tmp_path / "out" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    (tmp_path / "out" / "link").symlink_to(tmp_path / "out" / "a.txt")
    (tmp_path / "out" / "circle").symlink_to(tmp_path / "out")
    files["link"] = b"a"
    with start(server) as run:
        run.log_artifacts(tmp_path / "out")
        run.log_artifacts(tmp_path / "out", "below\\here/")
        run.log_artifact(tmp_path / "out", "named")
    expected = [(f"{into}{name}", data) for into in ("", "below/here/", "named/out/") for name, data in files.items()]
    assert stored(server, run.id) == dict(expected)


def test_figures_images_and_tables(server: ServerProcess) -> None:
    figure = Figure()
    figure.subplots().plot([1, 2, 3])
    with start(server) as run:
        run.log_figure(figure, "plots/loss.png")
        run.log_image(Image.new("RGB", (3, 2)), "a.jpg")
        run.log_image(np.zeros((2, 3)), "b.png")
        run.log_table({"a": [1, 2]}, "t.json")
        run.log_dict({"a": [1, 2]}, "d.json")
        run.log_text("Größe", "notes/a.txt")
    found = stored(server, run.id)
    assert found.pop("plots/loss.png").startswith(b"\x89PNG")
    assert found.pop("a.jpg").startswith(b"\xff\xd8")
    assert found.pop("b.png").startswith(b"\x89PNG")
    assert found == {
        "t.json": b'{"columns": ["a"], "data": [[1], [2]]}',
        "d.json": b'{\n  "a": [\n    1,\n    2\n  ]\n}\n',
        "notes/a.txt": "Größe".encode(),
    }


class Evil:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    savefig = __str__


def test_nothing_raises_and_what_is_not_taken_is_told_and_counted(
    server: ServerProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "pipe")
    evil: Any = Evil()
    with start(server) as run:
        for _ in range(2):
            run.log_artifact(tmp_path / "absent")
        run.log_artifact(tmp_path / "pipe")
        run.log_artifact(evil)
        run.log_artifacts(tmp_path / "absent")
        run.log_artifact("")
        run.log_text("up", "../up.txt")
        run.log_text("absolute", "/etc/passwd")
        run.log_text("nowhere", "")
        run.log_text("number", 3)  # type: ignore[arg-type]
        run.log_text(evil, "evil.txt")
        run.log_figure(evil, "evil.png")
        run.log_image("no image", "b.png")
        run.log_table({"a": [1], "b": []}, "t.json")
        run.log_text("good", "good.txt")
    run.log_text("late", "late.txt")
    assert stored(server, run.id) == {"good.txt": b"good"}
    assert run.refused == 15
    assert caplog.text.count(f"{tmp_path / 'absent'} cannot be read") == 1
    assert "'../up.txt' has a . or .. in it" in caplog.text
    assert "columns of 0 and 1 values make no table" in caplog.text
    assert "the run is finished" in caplog.text


def test_of_one_path_the_last_stays(server: ServerProcess, spool_root: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with start(server) as run:
        for number in range(20):
            run.log_text(str(number), "last.txt")
            if number % 5 == 0:
                big.write_bytes(bytes([number]) * 1_500_000)
                run.log_artifact(big, copy=number != 5)
                if number == 5:
                    big.unlink()
    found = stored(server, run.id)
    assert found == {"last.txt": b"19", "big": bytes([15]) * 1_500_000}
    assert boxes(spool_root) == []


def test_what_waits_for_one_path_takes_the_room_of_one(nowhere: str, spool_root: Path) -> None:
    """A checkpoint that is written again and again while the server is away does not fill the disk."""
    run = start(nowhere)
    for number in range(50):
        run.log_text(str(number) * 1000, "checkpoint")
    assert run.unsent <= 2  # one may be on its way
    (directory,) = boxes(spool_root)
    assert len(list(directory.glob("*.data"))) <= 2


def test_without_a_copy_a_file_is_sent_from_where_it_is_if_it_has_not_changed(
    server: ServerProcess, nowhere: str, spool_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("same", "other"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    run = start(nowhere, mode="offline")
    run.log_artifacts(tmp_path, copy=False)
    assert run.finish()
    assert "leave " in caplog.text
    (directory,) = boxes(spool_root)
    assert not list(directory.glob("*.data"))
    (tmp_path / "other").write_bytes(b"changed")
    assert main(["sync", "--url", server.grpc_address]) == 1
    assert stored(server, run.id) == {"same": b"same" * 1000}
    assert boxes(spool_root) == []


def test_offline_and_then_sync(
    server: ServerProcess, nowhere: str, spool_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with start(nowhere, mode="offline") as run:
        run.log({"loss": 1.0})
        for number in range(3):
            run.log_text("x" * 1000, f"{number}.txt")
    assert run.unsent == 3
    assert main(["sync", "--list"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "files" in line]
    assert line.split()[:6] == [uuid.UUID(run.id).hex, "left", "2.9", "KiB", "3", "files"]
    assert main(["sync", "--timeout", "0.5"]) == 1
    assert "NOT sent: 3 files with 2.9 KiB left in" in capsys.readouterr().out
    assert main(["sync", "--url", server.grpc_address]) == 0
    assert "sent, 3 files with 2.9 KiB" in capsys.readouterr().out
    assert stored(server, run.id) == {f"{number}.txt": b"x" * 1000 for number in range(3)}
    assert box.found(spool_root) == []
    assert main(["sync", "--list"]) == 0


def test_files_of_a_run_that_the_server_does_not_know_wait_for_its_records(
    server: ServerProcess, nowhere: str, spool_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(nowhere, mode="offline")
    run.log_text("x", "a.txt")
    assert run.finish()
    (spool,) = [each for each in spool_root.iterdir() if each.name != "artifacts"]
    spool.rename(tmp_path / spool.name)
    assert main(["sync", "--url", server.grpc_address]) == 1
    assert "does not exist" in capsys.readouterr().out
    (tmp_path / spool.name).rename(spool)
    assert main(["sync", "--url", server.grpc_address]) == 0
    assert stored(server, run.id) == {"a.txt": b"x"}


def test_the_next_run_sends_what_another_process_has_left(server: ServerProcess, spool_root: Path) -> None:
    script = """
    run.log_text("x", "a.txt")
    os._exit(0)
    """
    run_script(server.grpc_address, script, before="import os; os.environ['PENSTOCK_MODE'] = 'offline'\n")
    (directory,) = boxes(spool_root)
    with start(server):
        eventually(lambda: not box.found(spool_root), DEADLINE)
    assert stored(server, box.run_of(directory)) == {"a.txt": b"x"}


def test_a_server_that_goes_away_and_comes_back(dsn: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "big").write_bytes(data)
    with ServerProcess(tmp_path / "data", dsn=dsn) as server:
        server.start().wait_ready()
        run = start(server)
        for number in range(SOME):
            run.log_text(str(number), f"{number}.txt")
        eventually(lambda: run.unsent < SOME, DEADLINE)
        server.kill()
        run.log_artifact(tmp_path / "big")
        assert not run.finish(timeout=0.5)
        assert run.unsent
        server.start().wait_ready()
        assert run.finish(timeout=DEADLINE)
        texts = {f"{number}.txt": str(number).encode() for number in range(SOME)}
        assert stored(server, run.id) == {"big": data} | texts


def test_what_is_not_sent_in_time_is_told_with_its_place(
    server: ServerProcess, nowhere: str, spool_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(nowhere)
    run.log_text("x" * 1024, "a.txt")
    run.log_text("y" * 1024, "b.txt")
    assert not run.finish(timeout=0.3)
    (directory,) = boxes(spool_root)
    assert "2 files with 2.0 KiB are NOT sent" in caplog.text
    assert f"kept in {directory}: `penstock sync` sends them" in caplog.text
    run._stop()
    assert main(["sync", "--url", server.grpc_address]) == 0
    assert len(stored(server, run.id)) == 2


def test_a_thread_that_was_not_to_be_had_is_asked_for_again(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    run = start(server)
    with monkeypatch.context() as poor:
        poor.setattr(threading.Thread, "start", none)
        run.log_text("x", "a.txt")
    assert run.unsent == 1
    assert run.finish(timeout=DEADLINE)
    assert stored(server, run.id) == {"a.txt": b"x"}


def test_what_the_server_refuses_for_good_is_told_kept_and_listed(
    server: ServerProcess, spool_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(server)
    run.log_text("file", "a")
    eventually(lambda: run.unsent == 0, DEADLINE)
    run.log_text("below a file", "a/b")
    run.log_text("good", "c")
    assert not run.finish()
    assert stored(server, run.id) == {"a": b"file", "c": b"good"}
    (rejection,) = run.rejected
    assert rejection.reason.startswith("a/b: ")
    (kept,) = (file for directory in box.found(spool_root) for file in directory.glob("*.data"))
    assert (
        f"the file a/b is refused: {rejection.reason[5:]}; what was logged is kept for a day in {kept}" in caplog.text
    )
    assert kept.read_bytes() == b"below a file"
    assert main(["sync"]) == 0


def test_a_run_that_is_deleted_keeps_its_files_until_it_is_restored(
    server: ServerProcess, client: penstock.Client, spool_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(server)
    run.log_text("x", "a.txt")
    eventually(lambda: run.unsent == 0, DEADLINE)
    client.delete_run(run.id)
    run.log_text("y", "b.txt")
    assert not run.finish(timeout=DEADLINE)
    assert "is deleted" in caplog.text
    assert boxes(spool_root)
    run._stop()
    client.restore_run(run.id)
    assert main(["sync"]) == 0
    assert stored(server, run.id) == {"a.txt": b"x", "b.txt": b"y"}


def test_a_disk_that_takes_no_files(server: ServerProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file is sent from where it is, what is in memory from there."""
    (tmp_path / "no directory").write_text("")
    source = tmp_path / "model.pt"
    source.write_bytes(b"model")
    with start(server, spool_dir=tmp_path / "no directory" / "spool", buffer_bytes=100_000) as run:
        run.log_artifact(source)
        run.log_text("in memory", "a.txt")
        run.log_text("x" * 200_000, "large.txt")
    assert stored(server, run.id) == {"model.pt": b"model", "a.txt": b"in memory"}
    assert run.refused == 1
    assert f"no copy can be made of {source}" in caplog.text
    assert "kept in memory" in caplog.text
    assert "neither the disk" in caplog.text


def test_a_box_that_is_full(server: ServerProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "model.pt"
    source.write_bytes(b"x" * 3_000_000)
    with start(server, spool_bytes=2_000_000) as run:
        run.log_artifact(source)
    assert stored(server, run.id) == {"model.pt": b"x" * 3_000_000}
    assert f"no copy can be made of {source} (2,000,000 bytes are waiting to be sent; spool_bytes=)" in caplog.text


def test_a_terminal_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for rich in (True, False):
        master, slave = pty.openpty()
        with monkeypatch.context() as patched, os.fdopen(slave, "w") as terminal, bars.Bar() as bar:
            patched.setattr(sys, "stderr", terminal)
            patched.setattr(bars, "_QUIET", 0.0)
            if not rich:
                patched.setitem(sys.modules, "rich", None)
            bar.show("3 files", 1 << 20, 4 << 20)
            bar.close()
            terminal.write("that is all")
            terminal.flush()
            shown = ""
            while not shown.endswith("that is all"):  # it comes in pieces, some of them later
                shown += os.read(master, 100_000).decode(errors="replace")
            os.close(master)
        assert "3 files" in shown
        assert ("━" in shown) is rich
        assert "4.2 MB" in shown or "4.0 MiB" in shown


@pytest.mark.parametrize(
    ("is_terminal", "told"), [(True, "1 file left (no server at "), (False, "1 file to be sent, ")]
)
def test_the_end_of_a_run_shows_why_its_files_wait(
    server: ServerProcess, nowhere: str, monkeypatch: pytest.MonkeyPatch, is_terminal: bool, told: str
) -> None:
    monkeypatch.setenv("PENSTOCK_ARTIFACTS_URL", nowhere)
    run = start(server)
    run.log_text("text", "a.txt")
    master, slave = pty.openpty()
    shown: list[bytes] = []
    reading = threading.Thread(target=lambda: shown.extend(iter(lambda: read(master), b"")))
    reading.start()
    with monkeypatch.context() as patched, os.fdopen(slave, "w") as terminal:
        patched.setattr(sys, "stderr", terminal)
        patched.setattr(terminal, "isatty", lambda: is_terminal)
        patched.setattr(bars, "_QUIET", 0.0)
        assert not run.finish(timeout=3.0)
    reading.join()
    os.close(master)
    text = b"".join(shown).decode()
    assert told in text
    assert f"no server at {nowhere}" in text


def test_the_end_of_a_run_shows_how_far_its_files_are(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big").write_bytes(os.urandom(1 << 20) * 40)
    run = start(server)
    eventually(lambda: run.state == "streaming", DEADLINE)
    master, slave = pty.openpty()
    shown: list[bytes] = []
    reading = threading.Thread(target=lambda: shown.extend(iter(lambda: read(master), b"")))
    reading.start()
    with monkeypatch.context() as patched, os.fdopen(slave, "w") as terminal:
        patched.setattr(sys, "stderr", terminal)
        server.signal(signal.SIGSTOP)
        threading.Timer(1.5, server.signal, [signal.SIGCONT]).start()
        run.log_artifact(tmp_path / "big")
        assert run.finish(timeout=DEADLINE)
    reading.join()
    os.close(master)
    assert "1 file left" in b"".join(shown).decode()


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 100_000)
    except OSError:  # nobody writes there any more
        return b""


# How processes end.

PATIENCE = "finish_timeout=1.0 if os.environ.get('STALLED') else 60.0"
LOG = """
def files(name):
    for number in range(8):
        run.log_text(f"{name} {number}", f"{name}/{number}.txt")
"""
WAYS: dict[str, tuple[str, int]] = {
    "the end of the script": ("run = start(PATIENCE)\nfiles('a')", 0),
    "the end of the with": ("with start(PATIENCE) as run:\n    files('a')", 0),
    "an exception": ("run = start(PATIENCE)\nfiles('a')\nraise SystemExit(3)", 3),
    "os._exit": ("run = start(PATIENCE)\nfiles('a')\nos._exit(4)", 4),
    "SIGKILL": ("run = start(PATIENCE)\nfiles('a')\nos.kill(os.getpid(), signal.SIGKILL)", -9),
    "SIGTERM": ("run = start(PATIENCE)\nfiles('a')\nos.kill(os.getpid(), signal.SIGTERM)", -15),
    "SIGTERM, handled by log and finish": (
        """
def end(*_):
    files("b")
    run.finish("KILLED", timeout=1.0 if os.environ.get("STALLED") else 60.0)
    os._exit(143)

signal.signal(signal.SIGTERM, end)
run = start(PATIENCE)
files("a")
strike(signal.SIGTERM)
""",
        143,
    ),
    "Ctrl-C in the with": ("with start(PATIENCE) as run:\n    files('a')\n    strike(signal.SIGINT)", -2),
    "a forked child": (
        """
run = start(PATIENCE)
files("a")
child = os.fork()
if child == 0:
    files("child")
    sys.exit(5)
files("b")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
""",
        0,
    ),
    "a forked child that is killed": (
        """
run = start(PATIENCE)
files("a")
child = os.fork()
if child == 0:
    files("child")
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
""",
        0,
    ),
}


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    with silent_listener() as url:
        yield url


def end(way: str, url: str, ledger: Path, **env: str) -> tuple[str, dict[str, bytes]]:
    """Runs it to its end. Returns the id of its run, and the files that it has logged."""
    script, code = WAYS[way]
    training = Training(LOG + script.replace("PATIENCE", PATIENCE), url, ledger, **env)
    noise = beside_ours(training.wait(code))
    assert noise == "" or ("Ctrl-C" in way and noise.count("Traceback") == 1)
    names = [name for name in ("a", "b", "child") if f"files('{name}')" in script.replace('"', "'")]
    return training.run_id, {f"{name}/{each}.txt": f"{name} {each}".encode() for name in names for each in range(8)}


@pytest.mark.parametrize("way", WAYS)
def test_ways_out_with_a_server_that_never_answers(
    way: str, server: ServerProcess, silent: str, ledger: Path, spool_root: Path
) -> None:
    run_id, logged = end(way, silent, ledger, STALLED="yes")
    assert logged
    sync("--url", server.grpc_address)
    assert stored(server, run_id) == logged
    assert boxes(spool_root) == []


@pytest.mark.parametrize("way", ["the end of the script", "SIGTERM, handled by log and finish", "a forked child"])
def test_ways_out_with_a_server(way: str, server: ServerProcess, ledger: Path, spool_root: Path) -> None:
    run_id, logged = end(way, server.grpc_address, ledger)
    assert boxes(spool_root) == []
    assert stored(server, run_id) == logged


def test_killed_in_the_middle_of_an_upload(
    server: ServerProcess, ledger: Path, tmp_path: Path, db: Any, spool_root: Path
) -> None:
    data = os.urandom(1 << 20) * 48
    (tmp_path / "big").write_bytes(data)
    training = Training(
        f"run = start()\nrun.log_artifact({str(tmp_path / 'big')!r})\nprint('logged', flush=True)\ntime.sleep(60)",
        server.grpc_address,
        ledger,
    )
    training.until("logged")
    (tmp_path / "big").unlink()
    time.sleep(0.2)  # wherever it is by then
    training.process.send_signal(signal.SIGKILL)
    training.wait(-signal.SIGKILL)
    sync()
    assert stored(server, training.run_id) == {"big": data}
    assert boxes(spool_root) == []


def test_threads_and_handlers_log_files_beside_each_other(server: ServerProcess, ledger: Path) -> None:
    """Whatever a signal handler comes upon, it may log a file, and nobody waits for ever."""
    script = """
    import itertools

    signals = itertools.count()

    def struck(*_):
        number = next(signals)
        run.log_text(str(number), f"signal/{number}")
        if not done.is_set() and number < 300:  # on a busy machine nothing else would ever have its turn
            signal.setitimer(signal.ITIMER_REAL, 0.001)  # and not before: one in another in another would never end

    def work(name):
        for number in range(30):
            run.log_text(str(number), f"{name}/{number}")

    done = threading.Event()
    run = start()
    signal.signal(signal.SIGALRM, struck)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    threads = [threading.Thread(target=work, args=(f"thread{number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    work("main")
    for thread in threads:
        thread.join()
    done.set()
    """
    training = Training(script, server.grpc_address, ledger)
    assert beside_ours(training.wait()) == ""
    found = stored(server, training.run_id)
    for name in ("main", "thread0", "thread1"):
        assert {f"{name}/{number}" for number in range(30)} <= found.keys()
    struck = [int(path.partition("/")[2]) for path in found if path.startswith("signal/")]
    assert sorted(struck) == list(range(len(struck)))
    assert all(data.decode() == path.partition("/")[2] for path, data in found.items())
