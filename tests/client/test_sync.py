"""What processes have left is sent by others: `penstock sync`, and the next run that is started."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from peer import Peer, Says, Stream, eventually

import penstock
from penstock import sync
from penstock.address import parse_address
from penstock.cli import main, spools
from penstock.spool import owner, places
from penstock.spool.owner import Owner
from servers import ServerProcess

DEADLINE = 60.0

TRAINER = """
import itertools, sys, penstock
url, mode = sys.argv[1:3]
run = penstock.start_run("left behind", "killed", {"lr": 0.1}, {"why": "a test"}, url=url, mode=mode)
print(run.id, flush=True)
for step in itertools.count():
    run.log({"loss": step / 3, "acc": -step}, step=step, time=1_000_000 + step)
    if step % 100 == 0:
        print(step, flush=True)
"""

OFFLINE = """
import sys, penstock
told = {"url": sys.argv[1], "mode": "offline"}
with penstock.start_run("left behind", "offline", {"lr": 0.1}, {"why": "a test"}, **told) as run:
    print(run.id, flush=True)
    for step in range(int(sys.argv[2])):
        run.log({"loss": step / 3}, step=step, time=1_000_000 + step)
    run.set_tag("late", "yes")
    run.log_param("epochs", 3)
"""


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    return no_address()


def no_address() -> str:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    yield
    while trainers:
        trainers.pop().kill()
    eventually(lambda: not sync._adopting, DEADLINE)
    for handler in list(logging.getLogger("penstock").handlers):
        if isinstance(handler, logging.NullHandler):
            logging.getLogger("penstock").removeHandler(handler)


trainers: list[Trainer] = []


class Trainer:
    """A process that logs for ever."""

    def __init__(self, url: str, mode: str = "online") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TRAINER, url, mode], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout
        trainers.append(self)
        self.lines = self.process.stdout
        self.run_id = self.lines.readline().strip()

    def until(self, step: int) -> None:
        while int(self.lines.readline()) < step:
            pass

    def kill(self) -> int:
        """The last step that it is known to have logged."""
        if self.lines.closed:
            return 0
        self.process.kill()
        told = self.lines.read().split()
        self.process.wait()
        self.lines.close()
        return int(told[-1]) if told else 0


def offline(url: str, frames: int = 300) -> str:
    done = subprocess.run([sys.executable, "-c", OFFLINE, url, str(frames)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def cli(*args: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "sync", *args], capture_output=True, text=True, timeout=DEADLINE
    )
    return done.returncode, done.stdout, done.stderr


def spool_of(root: Path, run_id: str) -> Path:
    (directory,) = root.glob(f"{run_id}.*")
    return directory


def steps_of(client: penstock.Client, run_id: str, name: str = "loss") -> list[int]:
    return list(client.metric_history(run_id, name).steps)


def test_a_killed_process_loses_nothing(server: ServerProcess, client: penstock.Client, nowhere: str) -> None:
    """All that `log` returned for, and the one record more that it may have been about to return for."""
    trainer = Trainer(nowhere)
    trainer.until(5000)
    last = trainer.kill()
    code, out, err = cli("--url", server.grpc_address)
    assert code == 0, out + err
    steps = steps_of(client, trainer.run_id)
    assert len(steps) > last
    assert steps == list(range(len(steps)))
    history = client.metric_history(trainer.run_id, "acc")
    assert list(history.values) == [-step for step in history.steps]
    assert out == f"run {trainer.run_id}: sent, {len(steps):,} records\n"
    assert "1 run had a process that died" in err
    run = client.get_run(trainer.run_id)
    assert (run.name, run.params, run.tags["why"]) == ("killed", {"lr": "0.1"}, "a test")
    assert run.status is penstock.RunStatus.RUNNING

    code, out, err = cli("--url", server.grpc_address)
    assert (code, out) == (0, "")
    assert "nothing to send" in err


def test_killed_while_it_streams(server: ServerProcess, client: penstock.Client, spool_root: Path) -> None:
    trainer = Trainer(server.grpc_address)
    trainer.until(3000)
    last = trainer.kill()
    code, out, err = cli()
    assert code == 0, out + err
    steps = steps_of(client, trainer.run_id)
    assert len(steps) > last
    assert steps == list(range(len(steps)))
    assert places.is_sent(spool_of(spool_root, trainer.run_id))


def test_two_at_once_send_it_once(
    server: ServerProcess, client: penstock.Client, nowhere: str, spool_root: Path
) -> None:
    killed = [Trainer(nowhere) for _ in range(3)]
    for trainer in killed:
        trainer.until(2000)
    last = {trainer.run_id: trainer.kill() for trainer in killed}
    command = [sys.executable, "-m", "penstock.cli", "sync", "--url", server.grpc_address]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [each.communicate(timeout=DEADLINE) for each in both]
    sent = [line.split()[1] for out, _ in said for line in out.splitlines() if ": sent, " in line]
    assert sorted(sent) == sorted(f"{run_id}:" for run_id in last), said
    for run_id, step in last.items():
        steps = steps_of(client, run_id)
        assert len(steps) > step
        assert steps == list(range(len(steps)))
    assert cli()[0] == 0


def test_an_offline_run_is_made_when_it_is_sent(server: ServerProcess, client: penstock.Client, nowhere: str) -> None:
    run_id = offline(nowhere)
    with pytest.raises(penstock.errors.NotFound):
        client.get_run(run_id)
    code, out, err = cli("--url", server.grpc_address)
    assert code == 0, out + err
    assert out == f"run {run_id}: sent, 302 records\n"
    assert "died" not in err
    run = client.get_run(run_id)
    assert run.name == "offline"
    assert run.status is penstock.RunStatus.FINISHED
    assert run.end_time_ms is not None
    assert run.params == {"lr": "0.1", "epochs": "3"}
    assert (run.tags["why"], run.tags["late"]) == ("a test", "yes")
    assert steps_of(client, run_id) == list(range(300))


def test_without_a_server(nowhere: str, spool_root: Path) -> None:
    runs = [offline(nowhere) for _ in range(3)]
    begun = time.monotonic()
    code, out, _ = cli("--timeout", "2")
    assert time.monotonic() - begun < 40
    assert code == 1
    lines = sorted(out.splitlines())
    assert [line.split()[1] for line in lines] == sorted(f"{run_id}:" for run_id in runs)
    for line in lines:
        assert "NOT sent: 302 of 302 records are left" in line
        assert nowhere in line
        assert "try again, or name the server by --url" in line
    assert len(list(places.orphans(spool_root))) == 3


def test_a_process_that_is_alive_is_left_alone(server: ServerProcess, nowhere: str, spool_root: Path) -> None:
    trainer = Trainer(nowhere)
    trainer.until(100)
    code, out, _ = cli("--url", server.grpc_address)
    assert code == 1
    assert f"run {trainer.run_id}: NOT sent: process {trainer.process.pid} on" in out
    assert "--take-over" in out
    trainer.kill()


def test_taken_over_from_a_process_that_is_alive(
    server: ServerProcess, client: penstock.Client, spool_root: Path
) -> None:
    """It loses the spool for a while, takes it back, and nothing is lost or doubled."""
    trainer = Trainer(server.grpc_address)
    trainer.until(2000)
    trainer.process.send_signal(signal.SIGSTOP)
    code, out, err = cli("--take-over")
    assert code == 0, out + err
    directory = spool_of(spool_root, trainer.run_id)
    assert not places.is_sent(directory)
    assert not owner.orphaned(directory)
    sent = len(steps_of(client, trainer.run_id))
    assert sent >= 2000
    trainer.process.send_signal(signal.SIGCONT)
    trainer.until(sent + 3000)
    last = trainer.kill()
    assert cli()[0] == 0
    steps = steps_of(client, trainer.run_id)
    assert len(steps) > last
    assert steps == list(range(len(steps)))


def test_a_server_that_is_away_keeps_no_other_run_from_being_ended(
    server: ServerProcess, client: penstock.Client, nowhere: str
) -> None:
    elsewhere, here = Trainer(nowhere), Trainer(server.grpc_address)
    for trainer in (elsewhere, here):
        trainer.until(100)
        trainer.kill()
    assert cli("--url", server.grpc_address)[0] == 0  # both are sent, and one remembers another server
    code, out, _ = cli("--killed")
    assert code == 1
    assert f"run {elsewhere.run_id}: NOT ended: no server at {nowhere}" in out
    assert f"run {here.run_id}: ended as KILLED\n" in out
    assert client.get_run(here.run_id).status is penstock.RunStatus.KILLED


def test_killed_runs_are_ended(server: ServerProcess, client: penstock.Client, nowhere: str) -> None:
    trainer = Trainer(nowhere)
    trainer.until(100)
    trainer.kill()
    finished = offline(nowhere)
    code, out, _ = cli("--killed", "--url", server.grpc_address)
    assert code == 0
    assert f"run {trainer.run_id}: ended as KILLED" in out
    run = client.get_run(trainer.run_id)
    assert run.status is penstock.RunStatus.KILLED
    assert run.end_time_ms is not None
    assert run.start_time_ms <= run.end_time_ms <= time.time() * 1000
    assert client.get_run(finished).status is penstock.RunStatus.FINISHED
    assert "KILLED" not in cli("--killed", "--url", server.grpc_address)[1]


def test_killed_says_nothing_of_a_run_that_goes_on(
    server: ServerProcess, client: penstock.Client, nowhere: str
) -> None:
    """It was sent by somebody earlier, and another process has taken the run up again; then that dies, too."""
    trainer = Trainer(nowhere)
    trainer.until(100)
    trainer.kill()
    assert cli("--url", server.grpc_address)[0] == 0
    run = penstock.start_run(url=server.grpc_address, run_id=trainer.run_id)
    run.log({"loss": 1.0})
    assert main(["sync", "--killed", "--url", server.grpc_address]) == 1  # this process has a spool
    assert client.get_run(trainer.run_id).status is penstock.RunStatus.RUNNING
    assert run.finish("RUNNING")
    assert main(["sync", "--killed", "--url", server.grpc_address]) == 0
    assert client.get_run(trainer.run_id).status is penstock.RunStatus.KILLED


def test_killed_leaves_a_run_whose_writers_said_their_end(server: ServerProcess, client: penstock.Client) -> None:
    """It waits for somebody who goes on with it."""
    run = penstock.start_run("left behind", url=server.grpc_address)
    run.log({"loss": 1.0})
    assert run.finish("RUNNING")
    code, out, _ = cli("--killed")
    assert (code, out) == (0, "")
    assert client.get_run(run.id).status is penstock.RunStatus.RUNNING


def test_list(server: ServerProcess, nowhere: str, capsys: pytest.CaptureFixture[str]) -> None:
    sent = offline(nowhere, 40)
    assert main(["sync", "--url", server.grpc_address]) == 0
    assert capsys.readouterr().out == f"run {sent}: sent, 42 records\n"
    assert main(["sync", "--list"]) == 0
    left = offline(nowhere, 50)
    trainer = Trainer(no_address())  # it would take over what is left for its server
    trainer.until(100)
    capsys.readouterr()
    assert main(["sync", "--list"]) == 1
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["RUN", "STATE", "SIZE", "RECORDS", "WRITTEN", "IN"]
    told = {line.split()[0]: line for line in lines}
    assert told[sent].split()[1:2] == ["sent"]
    assert "  42  " in told[sent]
    assert told[left].split()[1:2] == ["left"]
    assert "  52  " in told[left]
    assert "KiB" in told[left]
    assert f"process {trainer.process.pid} on" in told[trainer.run_id]
    trainer.kill()


def test_a_damaged_spool_is_told_of(
    server: ServerProcess, client: penstock.Client, nowhere: str, spool_root: Path
) -> None:
    broken, good = offline(nowhere), offline(nowhere)
    (segment,) = spool_of(spool_root, broken).glob("*.log")
    data = bytearray(segment.read_bytes())
    middle = len(data) // 2
    data[middle] ^= 0xFF
    segment.write_bytes(data)
    code, out, err = cli("--url", server.grpc_address)
    assert code == 1, out + err
    assert f"run {broken}: sent, 302 records; BUT 1 record(s) are damaged and lost\n" in out
    assert f"run {good}: sent, 302 records\n" in out
    steps = steps_of(client, broken)
    assert len(steps) == 299
    assert len(set(range(300)) - set(steps)) == 1
    assert cli()[0] == 0  # told once: there is nothing left to send


def test_what_cannot_be_read_at_all(server: ServerProcess, nowhere: str, spool_root: Path) -> None:
    directory = places.place_of(spool_root, "ab" * 16, bytes(16))
    (directory / "00000001.log").mkdir(parents=True)
    good = offline(nowhere)
    code, out, _ = cli("--url", server.grpc_address)
    assert code == 1
    assert f"run {'ab' * 16}: NOT sent: cannot be read (ValueError" in out
    assert "remove the directory if nothing in it is wanted" in out
    assert f"run {good}: sent, 302 records\n" in out


def test_a_run_that_the_server_will_not_take(
    server: ServerProcess, client: penstock.Client, nowhere: str, spool_root: Path
) -> None:
    run_id, good = offline(nowhere), offline(nowhere)
    client.create_run("left behind", run_id=run_id)
    client.delete_run(run_id)
    code, out, _ = cli("--url", server.grpc_address)
    assert code == 1
    assert f"run {run_id}: NOT sent: 302 of 302 records are left, the server will not take it (" in out
    assert f"run {good}: sent, 302 records\n" in out
    assert list(places.orphans(spool_root)) == [spool_of(spool_root, run_id)]


def test_what_is_left_of_a_run_is_dropped(
    server: ServerProcess, client: penstock.Client, nowhere: str, spool_root: Path
) -> None:
    run_id, good = offline(nowhere), offline(nowhere)
    with penstock.start_run("left behind", run_id=run_id, url=nowhere, mode="offline") as run:
        run.log_text("some", "a/notes.txt")
    client.create_run("left behind", run_id=run_id)
    client.delete_run(run_id)
    code, out, _ = cli("--url", server.grpc_address)
    assert code == 1
    told = [line for line in out.splitlines() if line.startswith(f"run {run_id}: ")]
    assert len(told) == 3, told
    assert all(
        f"`penstock runs restore {run_id}` and sync again, or give it up: `penstock sync --drop" in each
        for each in told
    )

    code, out, err = cli("--drop", run_id)
    assert code == 1
    assert "nothing is dropped; the same with --yes" in err
    assert f"run {run_id}: 302 records, " in out
    assert f"run {run_id}: 1 file with 4 B, in {spool_root}" in out
    assert "a/notes.txt" in out
    assert len(list(spool_root.rglob(f"{run_id}.*"))) == 3

    code, out, _ = cli("--drop", run_id[:31], "--yes")
    assert code == 0
    assert out.count(": dropped\n") == 3
    assert not list(spool_root.rglob(f"{run_id}.*"))
    assert cli("--url", server.grpc_address)[0] == 0
    assert len(list(spool_root.rglob(f"{good}.*"))) == 1
    code, _, err = cli("--drop", run_id, "--yes")
    assert code == 1
    assert f"nothing that is to be sent is left of run {run_id} here" in err


def test_what_a_living_process_has_is_not_dropped(nowhere: str, spool_root: Path) -> None:
    trainer = Trainer(nowhere)
    trainer.until(100)
    code, out, _ = cli("--drop", trainer.run_id, "--yes")
    assert code == 1
    assert f"NOT dropped: process {trainer.process.pid} on" in out
    assert spool_of(spool_root, trainer.run_id)
    trainer.kill()


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        ("(run RUN was removed for good; take another id)", "`penstock sync --drop RUN` removes what is left here"),
        ("run RUN does not exist", "its records may be elsewhere, and make it; if it was removed for good, `penstock"),
        ("no server", ""),
    ],
)
def test_what_can_be_done_is_told(problem: str, told: str) -> None:
    assert spools._way_out("RUN", problem).startswith(told)
    assert bool(spools._way_out("RUN", problem)) == bool(told)


def test_a_directory_that_is_told(server: ServerProcess, nowhere: str, tmp_path: Path) -> None:
    offline(nowhere)
    assert cli("--dir", str(tmp_path / "none"))[0] == 1
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    code, out, err = cli("--dir", str(other))
    assert (code, out) == (0, "")
    assert "nothing to send" in err
    assert cli("--dir", os.environ["PENSTOCK_SPOOL_DIR"], "--url", server.grpc_address)[0] == 0


def test_no_address(nowhere: str) -> None:
    run_id = offline(nowhere)
    code, out, err = cli("--url", "nobody:here:1")
    assert (code, out) == (1, "")
    assert "is no address of a server" in err
    assert run_id not in err


def test_what_was_sent_long_ago_is_swept(server: ServerProcess, nowhere: str, spool_root: Path) -> None:
    directory = spool_of(spool_root, offline(nowhere))
    assert cli("--url", server.grpc_address)[0] == 0
    assert directory.exists()
    (directory / "sent").write_text('{"acked": 1, "at": 1000.0}')
    assert cli()[0] == 0
    assert not directory.exists()


def test_send_tells_how_far_it_is_and_ends_when_told(nowhere: str, spool_root: Path) -> None:
    run_id = offline(nowhere)
    directory = spool_of(spool_root, run_id)
    go_on = threading.Event()

    def slow(stream: Stream) -> Says:
        yield stream.welcome()
        for batch in stream.batches():
            assert go_on.wait(DEADLINE)
            stream.commit(batch)
            yield stream.ack()
        yield from stream.end()

    heard: list[tuple[str, int, int]] = []

    def told(*what: object) -> None:
        heard.append(what)  # type: ignore[arg-type]
        if len(heard) == 3:
            go_on.set()

    with Peer(slow) as peer:
        outcome = sync.send(directory, url=peer.url, told=told)
        assert outcome is not None
        assert outcome.whole
        assert (outcome.records, outcome.values, outcome.left, outcome.ended) == (302, 300, 0, True)
        assert heard[0] == (run_id, 0, 302)
        assert peer.writer.hwm == 302
        assert peer.writer.finish is not None
        assert sync.send(directory, url=peer.url) is None  # it is sent
    assert owner.orphaned(directory)

    other = spool_of(spool_root, offline(nowhere))
    ended = threading.Event()
    ended.set()
    outcome = sync.send(other, ended=ended)
    assert outcome is not None
    assert not outcome.done
    assert outcome.left == 302
    assert owner.orphaned(directory)


def test_each_owner_has_an_epoch(nowhere: str, spool_root: Path) -> None:
    directory = spool_of(spool_root, offline(nowhere))
    assert sync.send(directory, timeout=0.3) is not None
    with Peer() as peer:
        outcome = sync.send(directory, url=peer.url)
        assert outcome is not None
        assert outcome.done
        assert [hello.epoch for hello in peer.hellos] == [3]


def test_a_run_that_starts_sends_what_others_left(
    server: ServerProcess,
    client: penstock.Client,
    nowhere: str,
    spool_root: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    killed = [Trainer(server.grpc_address) for _ in range(2)]
    for trainer in killed:
        trainer.until(1000)
    last = {trainer.run_id: trainer.kill() for trainer in killed}
    elsewhere = offline(nowhere)
    with (
        caplog.at_level(logging.INFO, "penstock"),
        penstock.start_run("left behind", "next", url=server.grpc_address) as run,
    ):
        run.log({"loss": 1.0})
        eventually(lambda: not sync._adopting, DEADLINE)
    for run_id, step in last.items():
        steps = steps_of(client, run_id)
        assert len(steps) > step
        assert steps == list(range(len(steps)))
    assert list(places.orphans(spool_root)) == [spool_of(spool_root, elsewhere)]  # it is for another server
    (record,) = caplog.records
    assert "sent what 2 earlier process(es) had left here" in record.getMessage()
    assert all(run_id in record.getMessage() for run_id in last)


def test_what_another_machine_left_is_not_adopted(nowhere: str, spool_root: Path) -> None:
    with Peer() as peer:
        directory = spool_of(spool_root, offline(peer.url))
        told = (directory / "epoch-1").read_text().replace(socket.gethostname(), "elsewhere")
        boot = owner._boot()
        (directory / "epoch-1").write_text(told.replace(boot, "another") if boot else told)
        sync.adopt_in_background(spool_root, parse_address(peer.url))
        eventually(lambda: not sync._adopting, DEADLINE)
        assert not peer.hellos
        assert main(["sync"]) == 0  # but a person may send it


ADOPTER = """
import os, sys, time
from penstock import sync
from penstock.address import parse_address
from penstock.spool import owner, places
sync.adopt_in_background(places.root(), parse_address(sys.argv[1]))
(spool,) = places.found(places.root())
while owner.orphaned(spool) or (len(sys.argv) > 3 and not os.path.exists(sys.argv[3])):
    time.sleep(0.01)
if sys.argv[2] == "forks":
    child = os.fork()
    if child == 0:
        assert not sync._adopting and not owner.orphaned(spool)
        sync.adopt_in_background(places.root(), parse_address(sys.argv[1]))
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert sync._adopting and not owner.orphaned(spool)
"""


@pytest.mark.parametrize("how", ["ends", "forks"])
@pytest.mark.parametrize("stalled", [False, True], ids=["absent", "stalled"])
def test_adopting_keeps_no_process_from_ending(
    how: str, stalled: bool, nowhere: str, spool_root: Path, tmp_path: Path
) -> None:
    ended = threading.Event()
    met = tmp_path / "met"

    def silent(stream: Stream) -> Says:
        yield stream.welcome()
        met.touch()
        ended.wait(DEADLINE)

    with Peer(silent) as peer:
        url = peer.url if stalled else nowhere
        directory = spool_of(spool_root, offline(url))
        args = [sys.executable, "-c", ADOPTER, url, how, *([str(met)] if stalled else [])]
        done = subprocess.run(args, timeout=DEADLINE, capture_output=True, text=True)
        ended.set()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(places.orphans(spool_root)) == [directory]


def test_a_root_that_cannot_be_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sync.adopt_in_background(tmp_path / "none", parse_address("localhost:1"))
    eventually(lambda: not sync._adopting)
    (record,) = caplog.records
    assert "penstock sync" in record.getMessage()


def test_one_that_somebody_owns_is_nobody_elses(nowhere: str, spool_root: Path) -> None:
    directory = spool_of(spool_root, offline(nowhere))
    mine = Owner.claim(directory)
    assert mine
    assert sync.send(directory) is None
    assert sync.sync([spool_root]) == []
    mine.release()
    assert sync.send(directory.with_name("none")) is None


def test_in_a_file_a_line_tells_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "_QUIET", 0.0)
    progress = spools._Progress()
    for _ in range(3):
        progress.records("abc", 1, 2000)
    assert capsys.readouterr().err == "penstock: run abc: 1 of 2,000 records sent\n"
    progress.over()
    progress.files("abc", 1024, 2048)
    assert capsys.readouterr().err == "penstock: run abc: 1.0 KiB of 2.0 KiB of files sent\n"
