"""Who owns a spool: one process at a time, whatever becomes of it, and each under an epoch of its own."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.spool import owner
from penstock.spool.owner import Owner, holder, orphaned

if sys.platform == "win32":
    pytest.skip("how processes end and fork is POSIX's here", allow_module_level=True)
else:
    import fcntl

CLAIM = """
import sys
from pathlib import Path
from penstock.spool.owner import Owner
mine = Owner.claim(Path(sys.argv[1]), force=len(sys.argv) > 2)
print(mine.epoch if mine else None, flush=True)
for line in sys.stdin:
    print(getattr(mine, line.strip())(), flush=True)
"""


class Claimant:
    """Another process that claims the spool, does what it is told, and lives until it is ended."""

    def __init__(self, directory: Path, *, force: bool = False) -> None:
        args = [sys.executable, "-c", CLAIM, str(directory), *(["force"] if force else [])]
        self.process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.epoch = self._line()

    def ask(self, what: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def claim(tmp_path: Path) -> Iterator:
    made: list[Claimant] = []

    def one(*, force: bool = False) -> Claimant:
        made.append(Claimant(tmp_path, force=force))
        return made[-1]

    yield one
    for each in made:
        each.kill()


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    yield
    for descriptor in list(owner._held.values()):
        owner._let_go(descriptor)


def forked(work) -> int:
    """The exit code of a child that does it; 99 when it raises. One that hangs is ended by its alarm."""
    pid = os.fork()
    if pid == 0:
        code = 99
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        try:
            code = int(work())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_each_process_has_an_epoch_of_its_own(tmp_path: Path, claim) -> None:
    assert orphaned(tmp_path)
    first = claim()
    assert first.epoch == "1"
    assert not orphaned(tmp_path)
    assert Owner.claim(tmp_path) is None
    assert claim().epoch == "None"
    first.kill()
    assert orphaned(tmp_path)
    mine = Owner.claim(tmp_path)
    assert mine is not None
    assert mine.epoch == 2
    assert mine.newest()
    assert claim().epoch == "None"
    mine.release()
    mine.release()
    assert not mine.newest()
    assert claim().epoch == "3"


def test_a_stopped_process_is_alive(tmp_path: Path, claim) -> None:
    first = claim()
    first.process.send_signal(signal.SIGSTOP)
    assert Owner.claim(tmp_path) is None
    first.process.send_signal(signal.SIGCONT)
    first.kill()
    assert Owner.claim(tmp_path)


def test_in_one_process_a_second_claim_says_no_and_leaves_the_lock(tmp_path: Path, claim) -> None:
    mine = Owner.claim(tmp_path)
    assert mine
    other_name = tmp_path.parent / "link"
    other_name.symlink_to(tmp_path)
    for _ in range(3):
        assert Owner.claim(tmp_path) is None
        assert Owner.claim(other_name) is None
        assert not orphaned(tmp_path)
        assert (told := holder(tmp_path)) is not None
        assert told.pid == os.getpid()
    assert claim().epoch == "None"  # what looked did not let go of the lock
    mine.release()
    assert claim().epoch == "2"


def test_one_of_many_wins(tmp_path: Path) -> None:
    """Threads and processes at once, again and again: each time one, and never an epoch twice."""
    won: list[int] = []
    for _ in range(5):
        start = threading.Barrier(5)

        def in_thread(start: threading.Barrier = start) -> Owner | None:
            start.wait()
            return Owner.claim(tmp_path)

        with ThreadPoolExecutor(4) as threads:
            claims = [threads.submit(in_thread) for _ in range(4)]
            start.wait()
            others = [Claimant(tmp_path) for _ in range(2)]
            mine = [each for claim in claims if (each := claim.result()) is not None]
        epochs = [each.epoch for each in mine] + [int(each.epoch) for each in others if each.epoch != "None"]
        for each in others:
            each.kill()
        assert len(epochs) == 1
        won += epochs
        for each in mine:
            each.release()
    assert won == [1, 2, 3, 4, 5]


def test_killed_processes_at_once_leave_one_winner(tmp_path: Path) -> None:
    for expected in range(1, 4):
        script = f"{CLAIM.replace('for line in sys.stdin:', 'for line in sys.stdin: #')}\n    pass\n"
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        lines = [each.stdout.readline().strip() for each in processes]
        for each in processes:
            each.kill()
            each.communicate()
        assert sorted(lines) == sorted([str(expected), "None", "None", "None"])


def test_taken_over_by_force(tmp_path: Path, claim) -> None:
    mine = Owner.claim(tmp_path)
    assert mine
    thief = claim(force=True)
    assert thief.epoch == "2"
    assert not mine.newest()
    assert not mine.reclaim()
    assert mine.epoch == 1
    thief.kill()
    # The spool's writer lives: for all others it is taken, and only the writer has it back.
    assert not orphaned(tmp_path)
    assert claim().epoch == "None"
    assert mine.reclaim(at_least=6)
    assert mine.epoch == 7
    assert mine.newest()
    assert claim().epoch == "None"
    mine.release()
    assert claim().epoch == "8"


def test_a_fenced_process_takes_back_with_an_epoch_above_the_servers(tmp_path: Path) -> None:
    mine = Owner.claim(tmp_path)
    assert mine
    assert mine.reclaim(at_least=40)
    assert mine.epoch == 41
    assert sorted(each.name for each in tmp_path.iterdir()) == ["epoch-1", "epoch-41"]
    assert Owner.claim(tmp_path) is None
    mine.release()
    assert not mine.reclaim()
    with pytest.raises(OSError, match="more often"):
        Owner.claim(tmp_path).reclaim(at_least=2**32 - 1)


def test_in_one_process_by_force(tmp_path: Path) -> None:
    before = Owner.claim(tmp_path)
    after = Owner.claim(tmp_path, force=True)
    assert before
    assert after
    assert not before.newest()
    assert after.newest()
    before.release()
    assert Owner.claim(tmp_path) is None
    after.release()
    assert orphaned(tmp_path)


def test_a_forked_child_owns_nothing(tmp_path: Path, claim) -> None:
    mine = Owner.claim(tmp_path)
    assert mine

    def child() -> bool:
        mine.release()
        return not mine.newest() and not mine.reclaim() and Owner.claim(tmp_path) is None and not orphaned(tmp_path)

    assert forked(child) == 1
    assert mine.newest()
    assert claim().epoch == "None"
    mine.release()
    assert forked(lambda: Owner.claim(tmp_path).epoch) == 2


def test_a_child_outlives_the_owner(tmp_path: Path) -> None:
    """The lock is the process's own: that its children go on does not make it alive."""
    reading, writing = os.pipe()
    script = """
import os, sys
from pathlib import Path
from penstock.spool.owner import Owner
mine = Owner.claim(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    os.read(int(sys.argv[2]), 1)
    os._exit(0)
print(mine.epoch, flush=True)
os.kill(os.getpid(), 9)
"""
    args = [sys.executable, "-c", script, str(tmp_path), str(reading)]
    owner_ = subprocess.Popen(args, stdout=subprocess.PIPE, text=True, pass_fds=[reading])
    assert owner_.stdout
    assert owner_.stdout.readline() == "1\n"
    owner_.wait()
    try:
        again = Owner.claim(tmp_path)
        assert again
        assert again.epoch == 2
    finally:
        os.write(writing, b"x")
        os.close(reading)
        os.close(writing)
        owner_.stdout.close()


def test_forks_while_others_claim(tmp_path: Path) -> None:
    """No lock of ours is found taken in a child."""
    places = [tmp_path / str(number) for number in range(2)]
    ended = threading.Event()

    def busy(place: Path) -> None:
        place.mkdir()
        while not ended.is_set():
            if taken := Owner.claim(place):
                taken.release()

    threads = [threading.Thread(target=busy, args=[place]) for place in places]
    for thread in threads:
        thread.start()
    alone = tmp_path / "alone"
    alone.mkdir()
    try:
        for expected in range(1, 40):
            assert forked(lambda: Owner.claim(alone).epoch) == expected
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_a_descriptor_is_not_leaked(tmp_path: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(20):
        mine = Owner.claim(tmp_path)
        assert mine
        assert Owner.claim(tmp_path) is None
        assert mine.reclaim()
        mine.release()
    with pytest.raises(FileNotFoundError):
        Owner.claim(tmp_path / "none")
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_what_a_directory_may_hold(tmp_path: Path) -> None:
    for name in ("epoch-0", "epoch-x", "epoch-07", "epoch-", "epoch-1.old", ".claim-1-ab"):
        (tmp_path / name).touch()
    assert orphaned(tmp_path)
    (tmp_path / "epoch-3").write_bytes(b"\xff no JSON")
    assert holder(tmp_path) is None
    mine = Owner.claim(tmp_path)
    assert mine
    assert mine.epoch == 4


def test_the_directory_is_removed(tmp_path: Path) -> None:
    place = tmp_path / "spool"
    place.mkdir()
    mine = Owner.claim(place)
    assert mine
    (place / "epoch-1").unlink()
    place.rmdir()
    assert mine.newest()  # nobody has taken over
    with pytest.raises(FileNotFoundError):
        mine.reclaim()
    mine.release()


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, module: object, name: str, number: int) -> Iterator[None]:
    """As a file system answers that cannot do it; there is none such at hand."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(module, name, refuse)
        yield


def test_without_links(tmp_path: Path, claim, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, os, "link", errno.EPERM):
        mine = Owner.claim(tmp_path)
        assert mine
        assert Owner.claim(tmp_path) is None
    assert [each.name for each in tmp_path.iterdir()] == ["epoch-1"]
    assert claim().epoch == "None"
    mine.release()
    assert claim().epoch == "2"


def test_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, fcntl, "lockf", errno.ENOLCK):
        mine = Owner.claim(tmp_path)
        assert mine
        # Another process, that is: to this one the file is ours.
        assert forked(lambda: Owner.claim(tmp_path) is None) == 1
        told = json.loads((tmp_path / "epoch-1").read_text())
        assert told["locked"] is False
        mine.release()

        def left_by(**other: object) -> bool:
            (tmp_path / "epoch-1").write_text(json.dumps(told | other))
            return orphaned(tmp_path)

        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        assert not left_by()
        assert left_by(pid=ended.pid)
        assert left_by(started="1")  # the number was given again
        assert left_by(boot="another")
        assert not left_by(host="elsewhere", pid=ended.pid)  # nobody here can tell
    # Locks that are there again do not make a process dead that could not take one.
    assert not left_by()


def test_on_a_full_disk_a_spool_can_be_claimed(tmp_path: Path, claim, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, os, "write", errno.ENOSPC):
        mine = Owner.claim(tmp_path)
    assert mine
    assert (tmp_path / "epoch-1").stat().st_size == 0  # opening it here would let go of the lock
    assert claim().epoch == "None"
    mine.release()
    assert claim().epoch == "2"


def test_who_it_was(tmp_path: Path, claim) -> None:
    assert holder(tmp_path) is None
    first = claim()
    told = holder(tmp_path)
    assert told is not None
    assert told.pid == first.process.pid
    assert told.locked
    assert told.here
    assert told.seems_alive
    first.kill()
    assert holder(tmp_path) == told
    assert not told.seems_alive
