"""How files are sent, tried again and left, with ways to a server that the test makes."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from peer import eventually
from test_forks import run as run_script

import penstock
from penstock.address import parse_address
from penstock.errors import NotFound, PenstockError, Stopped, Unavailable
from penstock.outgoing import box, courier, left
from penstock.outgoing.box import Box, Entry
from penstock.outgoing.courier import Courier
from penstock.outgoing.way import GrpcWay
from penstock.session import Pace

RUN = "0" * 31 + "7"
ADDRESS = parse_address("localhost:1")
QUICK = Pace(backoff_least=0.001, backoff_most=0.002)
Send = Callable[[Entry, Callable[[int], None], threading.Event], None]


class Way:
    """What `send` does, wherever it goes."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def __call__(self, *_: object, **__: object) -> Way:
        return self

    def send(self, run_id: str, entry: Entry, told: Callable[[int], None], stopping: threading.Event) -> None:
        self._send(entry, told, stopping)

    def close(self) -> None:
        pass


def courier_of(send: Send, **more: Any) -> Courier:
    made: dict[str, Any] = {"done": lambda _: None, "refused": lambda *_: None, "patient": lambda: False} | more
    return Courier("run", Way(send), QUICK, **made)


def settle(courier: Courier) -> None:
    eventually(lambda: courier.settled)
    courier.stop(10.0)


def test_of_one_path_the_later_is_sent_after_the_earlier_or_instead(tmp_path: Path) -> None:
    gate = threading.Event()
    sent: list[int] = []

    def send(entry: Entry, *_: object) -> None:
        gate.wait(10.0)
        sent.append(entry.number)

    dropped: list[int] = []
    one = courier_of(send, done=lambda entry: dropped.append(entry.number))
    status = tmp_path.stat()
    one.add(Entry(1, "p", 0))
    eventually(lambda: one._under_way)
    for number in range(2, 40):
        given: dict[str, Any] = {"file": tmp_path, "changed_ns": status.st_mtime_ns} if number in (20, 21) else {}
        one.add(Entry(number, "p", status.st_size if given else 0, **given))
        one.add(Entry(100 + number, f"other {number}", 0))
    gate.set()
    settle(one)
    assert [number for number in sent if number < 100] == [1, 19, 20, 39]
    assert len(sent) == 4 + 38
    assert sorted(number for number in dropped if number < 100) == list(range(1, 40))
    assert one.left == []


def test_what_is_not_needed_any_more_is_gone_before_the_later_can_be_sent() -> None:
    """Else others, after the end of this process, might send it after the later."""
    left_then: list[list[Entry]] = []
    one = courier_of(lambda *_: None, done=lambda _: left_then.append(one.left), offline=True)
    for number in (1, 2):
        one.add(Entry(number, "p", 0))
    assert left_then == [[]]
    assert [entry.number for entry in one.left] == [2]


def test_each_try_counts_its_bytes_anew() -> None:
    tries: list[int] = []
    counted: list[int] = []

    def send(entry: Entry, told: Callable[[int], None], _: object) -> None:
        tries.append(1)
        told(60)
        counted.append(one.sent_bytes)
        if len(tries) < 4:
            raise Unavailable("away")

    one = courier_of(send)
    one.add(Entry(1, "p", 100))
    settle(one)
    assert counted == [60] * 4
    assert one.sent_bytes == 100


def test_a_run_that_its_stream_makes_while_the_server_is_asked_is_waited_for() -> None:
    streaming = [True]

    def send(*_: object) -> None:
        if streaming.pop():
            streaming.append(False)  # by now it has been made, and the stream is over
            raise NotFound("no such run", {"penstock-error": "RunNotFound"})

    one = courier_of(send, patient=lambda: streaming[-1])
    one.add(Entry(1, "p", 1))
    settle(one)
    assert (one.parked, one.files) == ("", 1)


def test_a_run_that_is_still_to_come_is_not_the_reason_why_files_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "_STILL", 0.0)
    raised: deque[PenstockError] = deque(
        [
            NotFound("no such run", {"penstock-error": "RunNotFound"}),
            Unavailable("the store is away"),
            NotFound("no such run", {"penstock-error": "RunNotFound"}),
        ]
    )
    told: list[str] = []

    def send(*_: object) -> None:
        told.append(one.reason)
        if raised:
            raise raised.popleft()

    one = courier_of(send, patient=lambda: True)
    one.add(Entry(1, "p", 1))
    settle(one)
    waiting = "nothing has moved for 0 s: the server or its store is slow, or away"
    assert told == [waiting, waiting, "the store is away", "the store is away"]
    assert one.reason == ""


def test_who_waits_for_the_end_is_not_woken_by_each_file() -> None:
    one = courier_of(lambda *_: time.sleep(0.001))
    for number in range(300):
        one.add(Entry(number, str(number), 0))
    eventually(lambda: one.files == 300)
    assert one._news.qsize() <= 10
    settle(one)


def test_what_is_closed_connects_no_more(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        way = GrpcWay(parse_address(f"127.0.0.1:{listener.getsockname()[1]}"), patience=0.1)
        way.close()
        with pytest.raises((PenstockError, Stopped)):
            way.send(RUN, Entry(1, "p", 1, data=b"x"), lambda _: None, threading.Event())
        with pytest.raises(BlockingIOError):
            listener.accept()


# Boxes that are left.


@pytest.fixture
def left_box(spool_root: Path) -> Path:
    made = Box(spool_root, RUN, ADDRESS, durable=False)
    made.keep(b"x" * 100, "p")
    made.keep(b"y", "q")
    made.release()
    assert made.path is not None
    return made.path


def test_who_reads_a_large_file_tells_nothing_and_is_waited_for(
    left_box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(entry: Entry, told: Callable[[int], None], stopping: threading.Event) -> None:
        for _ in range(30):
            if stopping.is_set():
                raise Stopped
            time.sleep(0.01)
        told(entry.size)

    monkeypatch.setattr(left, "GrpcWay", Way(send))
    outcome = left.send(left_box, timeout=0.1)
    assert outcome is not None
    assert outcome.whole


def test_a_server_that_is_away_is_given_up_in_time(left_box: Path) -> None:
    outcome = left.send(left_box, timeout=0.2)
    assert outcome is not None
    assert (outcome.left, outcome.files) == (2, 0)
    assert "no server at localhost:1" in outcome.problem


def test_what_is_damaged_is_told_once_and_kept_for_a_day(
    left_box: Path, spool_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left, "GrpcWay", Way(lambda *_: None))
    (left_box / "000001.json").write_bytes(b"")
    outcome = left.send(left_box)
    assert outcome is not None
    assert not outcome.whole
    assert "000001.json" in outcome.problem
    assert (outcome.files, list(box.orphans(spool_root))) == (1, [])
    assert (left_box / "000001.data").read_bytes() == b"x" * 100
    box.sweep(spool_root, grace_seconds=0.0, now=time.time() + 10.0)
    assert box.found(spool_root) == []


def test_adoption_asks_a_server_that_is_busy_as_rarely_as_it_says(
    left_box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def send(entry: Entry, *_: object) -> None:
        asked.append(entry.path)
        raise Unavailable("busy", {"retry-after-ms": "60000"})

    monkeypatch.setattr(left, "GrpcWay", Way(send))
    monkeypatch.setattr(courier, "_HURRIED", 0.01)
    outcome = left.send(left_box, timeout=0.4, pace=QUICK)
    assert outcome is not None
    assert sorted(asked) == ["p", "q"]


# Runs.


def test_offline_what_is_in_memory_only_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "artifacts").write_text("no directory")
    source = tmp_path / "model.pt"
    source.write_bytes(b"model")
    for what in (None, source):
        caplog.clear()
        run = penstock.start_run("files", url="localhost:1", mode="offline", spool_dir=tmp_path / "spool")
        if what is not None:
            run.log_artifact(what)
        else:
            run.log_text("lost", "a.txt")
        assert not run.finish()
        assert "LOST to the run when this process ends" in caplog.text


def test_where_it_belongs_may_be_a_path(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"model")
    run = penstock.start_run("files", url="localhost:1", mode="offline")
    run.log_artifact(tmp_path / "model.pt", Path("models/best"))
    run.log_artifacts(tmp_path, Path("all"))
    assert run._files is not None
    assert [entry.path for entry in run._files.left] == ["models/best/model.pt", "all/model.pt"]
    assert run.finish()


def test_refusals_can_be_read_while_there_are_more(spool_root: Path) -> None:
    run = penstock.start_run("files", url="localhost:1", mode="offline")
    run.log_text("a", "a.txt")
    assert run._files is not None
    refusals: deque[tuple[str, str]] = run._files.refusals
    refusals.extend([("p", "r")] * 1000)
    over = threading.Event()

    def refuse() -> None:
        while not over.is_set():
            refusals.append(("p", "r"))

    thread = threading.Thread(target=refuse)
    thread.start()
    try:
        for _ in range(200):
            assert len(run.rejected) == 1000
    finally:
        over.set()
        thread.join()
    run.finish()


def test_runs_load_nothing_of_what_asks_a_server() -> None:
    script = """
    loaded = {f"penstock.{name}" for name in ("client", "downloads", "registry_client")} & sys.modules.keys()
    print(loaded, file=sys.stderr)
    os._exit(len(loaded))
    """
    run_script("127.0.0.1:9", script)
