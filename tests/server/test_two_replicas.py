"""Two servers on one database, and writers that go from one to the other."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import grpc
import pytest
from writers import Conversation

from penstock.v1 import metrics_pb2 as me
from penstock.v1 import runs_pb2 as ru
from penstock.v1.metrics_pb2_grpc import MetricServiceStub
from penstock.v1.runs_pb2_grpc import RunServiceStub
from servers import ServerProcess

Replicas = tuple[ServerProcess, ServerProcess]
SHAPE = [me.Shape(names=["loss"])]


@pytest.fixture
def dsn(postgres) -> Iterator[str]:
    dsn = postgres.create(template="penstock_template")
    yield dsn
    postgres.drop(dsn)


@pytest.fixture
def replicas(dsn: str, tmp_path: Path) -> Iterator[Replicas]:
    with ServerProcess(tmp_path / "one", dsn=dsn) as one, ServerProcess(tmp_path / "two", dsn=dsn) as two:
        one.start()
        two.start()
        yield one.wait_ready(), two.wait_ready()


def steps(channel: grpc.Channel, run_id: str) -> list[int]:
    request = me.GetMetricHistoryRequest(run_id=run_id, name="loss")
    return list(MetricServiceStub(channel).GetMetricHistory(request).points.steps)


def test_a_drained_replica_hands_its_writers_over_without_an_error(replicas: Replicas) -> None:
    """Both are restarted in turn under a live stream; what is told before the end is told by the end as well."""
    with replicas[0].channel() as first, replicas[1].channel() as second:
        run_id = RunServiceStub(first).CreateRun(ru.CreateRunRequest()).run.run_id
        writer = Conversation(first, run_id)
        mark = 0
        for leaving, channel in ((replicas[0], second), (replicas[1], first)):
            assert writer.hear().welcome.hwm == mark
            writer.batch(mark + 1, [mark + 1], new_shapes=SHAPE)
            leaving.signal(signal.SIGTERM)
            for seq in range(mark + 2, mark + 501):
                writer.batch(seq, [seq])
            heard = writer.hear_until("go_away")
            heard += writer.leave().hear_all()  # to its end, which is a good one
            mark += 500
            assert [message.ack.hwm for message in heard if message.HasField("ack")][-1] == mark
            assert leaving.wait_exit() == 0
            leaving.start().wait_ready()
            writer = Conversation(channel, run_id, writer_id=writer.writer_id)
        assert writer.hear().welcome.hwm == mark
        writer.say(finish=me.Finish(last_seq=mark, status=ru.RUN_STATUS_FINISHED)).hear_all()
        assert steps(second, run_id) == list(range(1, 1001))


def test_a_zombie_is_fenced_and_does_not_end_the_run(replicas: Replicas) -> None:
    with replicas[0].channel() as first, replicas[1].channel() as second:
        run_id = RunServiceStub(first).CreateRun(ru.CreateRunRequest()).run.run_id
        zombie = Conversation(first, run_id).first([1, 2])
        zombie.hear_until("ack")
        # At once, before its server has looked whether it still may.
        heir = Conversation(second, run_id, writer_id=zombie.writer_id, epoch=2)
        assert heir.hear().welcome.hwm == 2
        error = zombie.say(finish=me.Finish(last_seq=2, status=ru.RUN_STATUS_KILLED, refused=9)).error()
        assert (error.code(), dict(error.trailing_metadata())["penstock-epoch"]) == (grpc.StatusCode.ABORTED, "2")
        found = RunServiceStub(first).GetRun(ru.GetRunRequest(run_id=run_id)).run
        assert (found.status, found.refused_records) == (ru.RUN_STATUS_RUNNING, 0)
        idle = Conversation(first, run_id)
        idle.hear()
        Conversation(second, run_id, writer_id=idle.writer_id, epoch=2).hear()
        error = idle.error()  # without a word of its own
        assert dict(error.trailing_metadata())["penstock-error"] == "Fenced"
        heir.batch(3, [3], new_shapes=SHAPE).say(finish=me.Finish(last_seq=3)).hear_all()
        assert steps(second, run_id) == [1, 2, 3]


def test_who_opens_is_not_kept_waiting_by_the_old_replicas_batch(dsn: str, replicas: Replicas) -> None:
    """The old replica's flush has the writer's row and waits for another; whoever comes is told to come again."""

    async def main() -> None:
        holder = await asyncpg.connect(dsn)
        async with holder.transaction():
            await holder.execute("LOCK TABLE metric_segments IN EXCLUSIVE MODE")
            old.batch(2, [2])
            async with asyncio.timeout(30):
                while not await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.01)
            # Many of them: those who open for other reasons still find a connection.
            hopping = [Conversation(second, run_id, writer_id=old.writer_id) for _ in range(20)]
            assert (await asyncio.to_thread(Conversation(second, run_id).hear)).HasField("welcome")
            ends = [await asyncio.to_thread(outcome, each) for each in hopping]
            assert set(ends) <= {"UNAVAILABLE", "open"}
        await holder.close()

    def outcome(stream: Conversation) -> str:
        try:
            return "open" if stream.hear().HasField("welcome") else "?"
        except grpc.RpcError as error:
            return error.code().name

    with replicas[0].channel() as first, replicas[1].channel() as second:
        run_id = RunServiceStub(first).CreateRun(ru.CreateRunRequest()).run.run_id
        old = Conversation(first, run_id).first([1])
        old.hear_until("ack")
        asyncio.run(main())
        mark = 1
        while mark < 5:
            new = Conversation(second, run_id, writer_id=old.writer_id)
            with contextlib.suppress(grpc.RpcError):  # the old one's batch has come before: it is told to open again
                mark = new.hear().welcome.hwm
                new.batch(mark + 1, list(range(mark + 1, 6)), new_shapes=SHAPE)
                mark = new.hear_until("ack")[-1].ack.hwm
        assert steps(second, run_id) == [1, 2, 3, 4, 5]


def test_a_watch_that_nobody_reads_holds_up_nobody(replicas: Replicas) -> None:
    """On the same connection as a watch that is read and a writer who logs."""
    with replicas[0].channel() as channel:
        runs = RunServiceStub(channel)
        request = ru.CreateRunRequest(params={f"param{number}": "x" * 6_000 for number in range(100)})
        big = [runs.CreateRun(request).run.run_id for _ in range(50)]
        run_id = runs.CreateRun(ru.CreateRunRequest()).run.run_id
        slow = runs.WatchRuns(ru.WatchRunsRequest(run_ids=big), timeout=120)  # 30 MB that wait to be read
        quick = runs.WatchRuns(ru.WatchRunsRequest(run_ids=[run_id], changes_only=True), timeout=120)
        assert next(quick).synced
        writer = Conversation(channel, run_id).first([1])
        assert writer.hear_until("ack")
        assert next(quick).run.run_id == run_id
        for number in range(5):
            for each in big:
                runs.SetRunTags(ru.SetRunTagsRequest(run_id=each, tags={"round": str(number)}))
            writer.batch(number + 2, [number + 2])
            assert writer.hear_until("ack")[-1].ack.hwm == number + 2
            assert next(quick).run.run_id == run_id
        told = {}
        for message in slow:
            told[message.run.run_id] = message.run.tags.get("round")
            if set(told) >= set(big) and all(told[each] == "4" for each in big):
                break
        slow.cancel()
        quick.cancel()
