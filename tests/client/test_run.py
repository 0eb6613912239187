"""A run against a peer that does what servers do rarely: what was logged arrives once, and training never notices."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from peer import Peer, Says, Stream, bits, eventually, plain

import penstock
from penstock.session import Pace
from penstock.v1 import metrics_pb2 as pb

QUICK = Pace(backoff_least=0.01, backoff_most=0.05, welcome_timeout=1.0, stall_timeout=0.5, leave_timeout=0.5)
RESTLESS = Pace(backoff_least=0.01, backoff_most=0.05, linger=0.001)
NOBODY = "127.0.0.1:9"  # the port `discard`: nothing listens there


def start(peer: Peer | str, pace: Pace = QUICK, **more: Any) -> penstock.ActiveRun:
    url = peer if isinstance(peer, str) else peer.url
    return penstock.start_run(experiment="test", url=url, pace=pace, **more)


def steps(peer: Peer) -> list[int]:
    return [step for _, step, _ in peer.frames]


@pytest.mark.usefixtures("either_way")
def test_what_is_logged_arrives_in_order() -> None:
    with Peer() as peer, start(peer) as run:
        run.log({"loss": 0.5, "acc": np.float32(0.25)}, step=1, time=2.5)
        run.log({"train": {"loss": math.nan}}, step=np.int64(7))
        run.log_params({"lr": 0.1, "net": {"depth": 3}})
        run.set_tag("data", "digits")
        run.log({"loss": -0.0})
        assert run.finish()
    loss, nested, lr, depth, tag, last = peer.writer.records
    assert loss == ({"loss": 0.5, "acc": 0.25}, 1, 2500)
    assert math.isnan(nested[0]["train/loss"])
    assert nested[1] == 7
    assert abs(nested[2] - time.time() * 1000) < 60_000
    assert [lr, depth, tag] == [("param", "lr", "0.1"), ("param", "net/depth", "3"), ("tag", "data", "digits")]
    assert (bits(last[0]["loss"]), last[1]) == (bits(-0.0), 8)
    assert peer.writer.finish.status == 3
    assert run.state == "closed"


def test_hello_makes_the_run() -> None:
    with Peer() as peer:
        parent = start(peer)
        with start(peer, name="sgd", params={"lr": 0.1}, tags={"data": "digits"}, parent=parent) as run:
            eventually(lambda: run.state == "streaming")
        parent.finish()
    hello = next(hello for hello in peer.hellos if hello.run_id == run.id)
    made = hello.create_run
    assert (made.run_id, made.experiment_name, made.name, made.parent_run_id) == (run.id, "test", "sgd", parent.id)
    assert dict(made.params) == {"lr": "0.1"}
    assert made.tags["data"] == "digits"
    assert made.tags["mlflow.user"] == made.user
    assert made.tags["penstock.host"] == hello.attributes.host
    assert hello.protocol == hello.epoch == 1
    assert len(hello.writer_id) == 16
    assert uuid.UUID(run.id).version == 7
    assert abs(made.start_time_ms - time.time() * 1000) < 60_000


def test_steps_count_by_themselves() -> None:
    with Peer() as peer, start(peer) as run:
        for step in (None, None, 10, None, -5, None):
            run.log({"loss": 1.0}, step)
        run.finish()
    assert steps(peer) == [0, 1, 10, 11, -5, -4]


def cut_seven_times(stream: Stream) -> Says:
    """Before Welcome; before a commit; after it; after its acknowledgement; going away; … and then no more."""
    fate = stream.number % 5 if stream.number < 8 else None
    if fate == 0:
        stream.context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
    yield stream.welcome()
    for batch in stream.batches():
        if fate == 1:
            stream.context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        stream.commit(batch)
        if fate == 2:
            stream.context.abort(grpc.StatusCode.INTERNAL, "cut")
        yield stream.ack()
        if fate == 3:
            return
        if fate == 4:
            yield pb.StreamMetricsResponse(go_away=pb.GoAway(reason="restart"))
    yield from stream.end()


@pytest.mark.usefixtures("either_way")
def test_cut_streams_lose_nothing_and_double_nothing() -> None:
    step = 0
    with Peer(cut_seven_times) as peer, start(peer, RESTLESS) as run:
        while len(peer.hellos) < 8 or step < 3_000:
            run.log({"loss": step * 0.5} if step % 3 else {"loss": step * 0.5, "acc": 1.0}, step)
            step += 1
            if step % 20 == 0:
                time.sleep(0.001)
        assert run.finish(timeout=60)
    assert steps(peer) == list(range(step))
    assert [values["loss"] for values, _, _ in peer.frames] == [each * 0.5 for each in range(step)]
    assert peer.gaps == 0
    assert len({hello.writer_id for hello in peer.hellos}) == 1


def test_threads_may_log_into_one_run() -> None:
    with Peer(cut_seven_times) as peer, start(peer, RESTLESS) as run:

        def log(thread: int) -> None:
            for step in range(500):
                run.log({f"loss/{thread}": float(step), "all": float(step)}, step)

        threads = [threading.Thread(target=log, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert run.finish(timeout=60)
    for number in range(16):
        mine = [step for values, step, _ in peer.frames if f"loss/{number}" in values]
        assert mine == list(range(500))


def test_acknowledgements_that_come_twice_or_never_do_no_harm() -> None:
    def script(stream: Stream) -> Says:
        yield stream.welcome()
        for batch in stream.batches():
            stream.commit(batch)
            if stream.number % 2:  # committed, and silent: the client leaves after a while
                time.sleep(1.0)
                return
            yield stream.ack()
            yield stream.ack()
            yield pb.StreamMetricsResponse(ack=pb.Ack(hwm=0))
        yield from stream.end()

    with Peer(script) as peer, start(peer) as run:
        run.log({"loss": 1.0}, 1)
        eventually(lambda: len(peer.hellos) == 2)
        run.log({"loss": 2.0}, 2)
        assert run.finish(timeout=30)
    assert steps(peer) == [1, 2]
    assert peer.gaps == 0


@pytest.mark.usefixtures("either_way")
def test_a_server_that_never_welcomes_is_left_for_another_try() -> None:
    def script(stream: Stream) -> Says:
        if stream.number == 1:
            time.sleep(3)
            return
        yield from plain(stream)

    with Peer(script) as peer, start(peer) as run:
        run.log({"loss": 1.0}, 1)
        assert run.finish(timeout=30)
    assert len(peer.hellos) >= 2
    assert steps(peer) == [1]


@pytest.mark.usefixtures("either_way")
def test_a_server_that_goes_away_is_asked_again_when_it_has_acknowledged() -> None:
    away = threading.Event()

    def script(stream: Stream) -> Says:
        yield stream.welcome()
        for batch in stream.batches():
            if stream.number == 1:
                yield pb.StreamMetricsResponse(go_away=pb.GoAway(reason="restart"))
                away.set()
                time.sleep(0.1)
            stream.commit(batch)
            yield stream.ack()
        yield from stream.end()

    with Peer(script) as peer, start(peer, Pace(backoff_least=0.01)) as run:
        run.log({"loss": 1.0}, 1)
        assert away.wait(20)
        eventually(lambda: run.unacked == 0)
        run.log({"loss": 2.0}, 2)
        assert run.finish(timeout=30)
    assert steps(peer) == [1, 2]
    assert (len(peer.hellos), peer.duplicates) == (2, 0)


def test_messages_are_no_longer_than_the_server_takes() -> None:
    def script(stream: Stream) -> Says:
        yield stream.welcome(window=3_000, message=1_000)
        for batch in stream.batches():
            stream.commit(batch)
            yield stream.ack()
        yield from stream.end()

    with Peer(script) as peer, start(peer) as run:
        for step in range(1_000):
            run.log({"loss": 1.0, "acc": 2.0}, step)
        run.log_params({f"p{number}": "x" * 300 for number in range(20)})
        assert run.finish(timeout=30)
    assert max(peer.sizes) <= 1_000
    assert steps(peer) == list(range(1_000))
    assert len(peer.writer.records) == 1_020


def test_what_the_server_refuses_is_told_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def script(stream: Stream) -> Says:
        yield stream.welcome()
        for batch in stream.batches():
            stream.commit(batch)
            if batch.updates:
                reason = "param 'lr' is '1' and cannot become '2'"
                reject = pb.Reject(first_seq=batch.first_seq, last_seq=batch.first_seq, code=6, reason=reason)
                yield pb.StreamMetricsResponse(reject=reject)
            yield stream.ack()
        yield from stream.end()

    with Peer(script) as peer, start(peer) as run:
        run.log_param("lr", 2)
        run.log({"loss": 1.0}, 1)
        assert not run.finish(timeout=30)
    assert steps(peer) == [1]
    assert [(each.records, each.code) for each in run.rejected] == [(1, 6)]
    assert "cannot become '2'" in caplog.text


def status(code: grpc.StatusCode, details: str) -> Any:
    def script(stream: Stream) -> Says:
        stream.fail(code, details)
        yield

    return script


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (grpc.StatusCode.NOT_FOUND, "parked"),
        (grpc.StatusCode.FAILED_PRECONDITION, "parked"),
        (grpc.StatusCode.PERMISSION_DENIED, "parked"),
        (grpc.StatusCode.INVALID_ARGUMENT, "parked"),
    ],
)
def test_a_run_that_can_never_be_logged_to_is_told_once(
    code: grpc.StatusCode, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Peer(status(code, "the run is deleted")) as peer, start(peer) as run:
        run.log({"loss": 1.0})
        eventually(lambda: run.state == state)
        run.log({"loss": 2.0, "acc": 1.0})
        run.log({"loss": 3.0})
        assert run.refused in (3, 4)  # the first, too, when the server was quicker
        began = time.monotonic()
        assert not run.finish()
        assert time.monotonic() - began < 5
    assert len(peer.hellos) == 1
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert sum("the run is deleted" in message and "NOT committed" not in message for message in errors) == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED])
def test_what_a_proxy_says_is_not_taken_for_the_server_s_word(code: grpc.StatusCode) -> None:
    def script(stream: Stream) -> Says:
        if stream.number < 3:
            stream.context.abort(code, "Received http2 header with status: 404")
        yield from plain(stream)

    with Peer(script) as peer:
        run = start(peer)
        run.log({"loss": 1.0}, 1)
        assert run.finish(timeout=30)
    assert steps(peer) == [1]


def test_a_writer_that_is_fenced_without_end_says_so_and_goes_on_spooling(caplog: pytest.LogCaptureFixture) -> None:
    with Peer(status(grpc.StatusCode.ABORTED, "taken over")) as peer:
        run = start(peer)
        run.log({"loss": 1.0})
        eventually(lambda: run.state == "fenced")
        run.log({"loss": 2.0, "acc": 1.0})
        assert run.refused == 0
        assert not run.finish(timeout=1)
        assert len({hello.epoch for hello in peer.hellos}) > 1  # it has tried to take it back
    assert "penstock sync" in caplog.text


def test_a_child_whose_parent_is_not_there_yet_waits_for_it() -> None:
    def script(stream: Stream) -> Says:
        if stream.number < 3:
            stream.fail(grpc.StatusCode.NOT_FOUND, "no such parent")
        yield from plain(stream)

    with Peer(script) as peer, start(peer, parent=uuid.uuid4().hex) as run:
        run.log({"loss": 1.0}, 1)
        assert run.finish(timeout=30)
    assert steps(peer) == [1]


@pytest.mark.usefixtures("either_way")
def test_the_server_may_say_how_long_to_wait() -> None:
    times: list[float] = []

    def script(stream: Stream) -> Says:
        times.append(time.monotonic())
        if stream.number == 1:
            stream.context.set_trailing_metadata((("retry-after-ms", "700"),))
            stream.context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")
        yield from plain(stream)

    with Peer(script) as peer:
        run = start(peer)
        run.log({"loss": 1.0})
        eventually(lambda: len(peer.frames) == 1)
        assert run.finish(timeout=30)
    assert times[1] - times[0] >= 0.69


def test_a_restored_server_gets_again_what_it_has_forgotten(caplog: pytest.LogCaptureFixture) -> None:

    def script(stream: Stream) -> Says:
        if stream.number == 2:
            stream.writer.hwm = 0
        yield stream.welcome()
        for count, batch in enumerate(stream.batches()):
            stream.commit(batch)
            yield stream.ack()
            if stream.number == 1 and count == 0:
                return
        yield from stream.end()

    with Peer(script) as peer:
        run = start(peer)
        run.log({"loss": 1.0}, 1)
        eventually(lambda: len(peer.hellos) == 2)
        run.log({"loss": 2.0}, 2)
        assert run.finish(timeout=30)
    assert len(peer.writers) == 1
    assert steps(peer) == [1, 1, 2]  # the first of them is from before
    assert "restored from a backup" in caplog.text


def test_bad_values_never_raise_and_are_told_once_per_kind_and_name(caplog: pytest.LogCaptureFixture) -> None:
    with Peer() as peer, start(peer) as run:
        for step in range(5):
            run.log({"loss": 1.0, "text": "high", "none": None, "bad\0name": 1.0}, step)
        run.log({"loss": 1.0}, 2**63)
        run.log({"loss": 1.0}, "x")  # type: ignore[arg-type]
        run.log(None)  # type: ignore[arg-type]
        run.log({"loss": 1.0}, 5, time=-1)
        run.log_params({"k\0": 1, "long": "x" * 10_000})
        assert not run.finish()  # for not everything was taken
    assert steps(peer) == [0, 1, 2, 3, 4, 5]
    assert {name for values, _, _ in peer.frames for name in values} == {"loss"}
    assert run.refused == 15 + 2 + 1 + 2
    assert peer.writer.finish.refused == run.refused
    told = [record.getMessage() for record in caplog.records if "told once" in record.getMessage()]
    assert len(told) == len(set(told)) == 8


def test_the_server_may_be_absent_from_the_beginning(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    run = start(NOBODY)
    for step in range(1_000):
        run.log({"loss": 1.0, "acc": 1.0}, step)
    assert time.monotonic() - began < 2
    assert not run.finish(timeout=0.5)
    assert time.monotonic() - began < 4
    assert "1,000 records with 2,000 values are NOT committed" in caplog.text
    assert run.unacked == 1_000
    assert run.unacked_points == 2_000
    assert run.unacked_age > 0.4


@pytest.mark.usefixtures("either_way")
def test_it_catches_up_when_the_server_comes() -> None:
    with Peer() as peer:
        port = peer.port
    run = start(f"127.0.0.1:{port}")
    for step in range(1_000):
        run.log({"loss": float(step)}, step)
    eventually(lambda: run.state == "backoff")
    with Peer(port=port) as peer:
        assert run.finish(timeout=30)
        assert steps(peer) == list(range(1_000))


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_full_spool_refuses_what_comes_and_keeps_what_it_has(
    on_disk: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").touch()
    where = {"spool_bytes": 100_000} if on_disk else {"buffer_bytes": 100_000, "spool_dir": tmp_path / "a file"}
    with Peer() as peer:
        port = peer.port
    run = start(f"127.0.0.1:{port}", **where)
    taken = 0
    for step in range(20_000):
        before = run.refused
        run.log({"loss": float(step)}, step)
        taken += run.refused == before
    assert taken + run.refused == 20_000
    assert 1_000 < taken < 2_500
    assert caplog.text.count("what is logged now is LOST") == 1
    with Peer(port=port) as peer:
        eventually(lambda: run.unacked == 0)

        def room() -> bool:
            before = run.refused
            run.log({"loss": -1.0}, -1)
            return run.refused == before

        eventually(room)  # once what is acknowledged has gone
        assert not run.finish(timeout=30)
        assert len(peer.frames) == taken + 1
        assert steps(peer)[-1] == -1


@pytest.mark.parametrize(
    ("error", "status_"),
    [
        (None, 3),
        (ValueError("no"), 4),
        (KeyboardInterrupt(), 5),
        (SystemExit(0), 3),
        (SystemExit(None), 3),
        (SystemExit(1), 4),
        (SystemExit("sorry"), 4),
    ],
)
def test_the_end_of_the_with_gives_the_status(error: BaseException | None, status_: int) -> None:
    def train() -> None:
        with start(peer) as run:
            run.log({"loss": 1.0}, 1)
            if error is not None:
                raise error

    with Peer() as peer:
        if error is None:
            train()
        else:
            with pytest.raises(type(error)):
                train()
    assert peer.writer.finish.status == status_
    assert peer.writer.finish.end_time_ms > 0
    assert steps(peer) == [1]


def test_finish_takes_a_status_and_ends_logging() -> None:
    with Peer() as peer, start(peer) as run:
        assert run.finish("killed")
        run.log({"loss": 1.0})
        assert run.refused == 1
    assert peer.writers[bytes(peer.hellos[0].writer_id)].finish.status == 5


def test_ranks_share_a_run_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer() as peer:
        ids = set()
        for number in (1, 0):
            monkeypatch.setenv("RANK", str(number))
            monkeypatch.setenv("WORLD_SIZE", "2")
            with start(peer, run_key="job-42", params={"lr": 1}) as run:
                run.log({"loss": 1.0}, number)
                ids.add(run.id)
    assert len(ids) == 1
    assert uuid.UUID(ids.pop()).version == 5
    assert [(hello.attributes.rank, hello.attributes.world_size) for hello in peer.hellos] == [(1, 2), (0, 2)]
    # The first to end does not end the run of the others.
    assert [peer.writers[bytes(hello.writer_id)].finish.status for hello in peer.hellos] == [0, 3]
    # The run may have been there before: then its params come by the stream.
    assert peer.writers[bytes(peer.hellos[1].writer_id)].records[0] == ("param", "lr", "1")


def test_nested_runs_know_their_parent() -> None:
    with Peer() as peer, start(peer) as outer, start(peer, nested=True) as inner, start(peer) as other:
        pass
    parents = {hello.run_id: hello.create_run.parent_run_id for hello in peer.hellos}
    assert parents == {outer.id: "", inner.id: outer.id, other.id: ""}


@pytest.mark.parametrize(
    "wrong",
    [
        {"run_id": "x"},
        {"parent": "x"},
        {"run_id": uuid.uuid4().hex, "run_key": "job"},
        {"url": "localhost:0"},
        {"url": "ftp://localhost"},
        {"experiment": "a\0"},
    ],
)
def test_what_can_never_be_right_is_said_at_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"run id|not both|address|NUL"):
        penstock.start_run(**({"url": NOBODY} | wrong))


def test_more_params_than_fit_into_hello_follow_in_the_stream() -> None:
    params = {f"p{number}": "x" * 5_000 for number in range(100)}
    with Peer() as peer, start(peer, params=params) as run:
        assert run.finish(timeout=30)
    assert peer.hellos[0].ByteSize() < 300_000
    arrived = dict(peer.hellos[0].create_run.params) | {key: value for _, key, value in peer.writer.records}
    assert arrived == params


def test_a_bug_in_the_sender_is_told_and_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from penstock import sender

    failures = itertools.count()
    real = sender.Session

    def session(*args: Any) -> Any:
        if next(failures) < 2:
            raise RuntimeError("a bug")
        return real(*args)

    monkeypatch.setattr(sender, "Session", session)
    with Peer() as peer, start(peer) as run:
        run.log({"loss": 1.0}, 1)
        assert run.finish(timeout=30)
    assert steps(peer) == [1]
    assert "a bug" in caplog.text


def test_new_shapes_for_ever_do_not_fill_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock import session

    monkeypatch.setattr(session, "_SHAPES_PER_STREAM", 50)
    with Peer() as peer, start(peer, RESTLESS) as run:
        for step in range(400):
            run.log({f"m{step}": 1.0}, step)
            time.sleep(0.0005)
        assert run.finish(timeout=30)
    assert steps(peer) == list(range(400))
    assert peer.writer.streams > 1
