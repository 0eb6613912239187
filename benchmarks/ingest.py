"""How many points a second become durable: pre-encoded streams, beside the limit that PostgreSQL itself sets.

    python -m benchmarks.ingest [--points 60000000] [--streams 8]

Clients, server and PostgreSQL share the machine. A point counts when its batch is acknowledged, which is after COMMIT.
The limit is measured in the same run and the same PostgreSQL: one connection that copies the same points in the same
level-0 layout in binary, from memory, with no service in between.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
import uuid

import asyncpg
import grpc
import numpy as np

from benchmarks.serving import median, percentile, server
from penstock.v1 import metrics_pb2 as pb
from penstock.v1 import runs_pb2
from penstock_server.model.access import WorkspaceId
from penstock_server.model.runs import RunId, new_run_id
from penstock_server.postgres import segments
from penstock_server.postgres.segments import NewSegment

METRICS = 100
FRAMES = 1250  # of a message: 1 MB of values
STREAM = "/penstock.v1.MetricService/StreamMetrics"


def hello(run_id: RunId) -> bytes:
    """Opens a stream of a new writer; makes the run."""
    opening = pb.Hello(protocol=1, run_id=run_id.hex, writer_id=uuid.uuid4().bytes, epoch=1)
    opening.create_run.experiment_name = "benchmark"
    return pb.StreamMetricsRequest(hello=opening).SerializeToString()


def message(number: int, frames: int, metrics: int, values: np.ndarray) -> bytes:
    """The batch that follows `number` others of the same size; regular steps, times that jitter."""
    batch = pb.Batch(first_seq=number * frames + 1, count=frames)
    if number == 0:
        batch.new_shapes.add(names=[f"metric_{i}" for i in range(metrics)])
    first = number * frames
    batch.shapes.extend([0] * frames)
    batch.steps.extend(range(first, first + frames))
    batch.times_ms.extend(
        (1_700_000_000_000 + 10 * np.arange(first, first + frames) + np.random.randint(0, 4, frames)).tolist()
    )
    batch.values.extend(values[: frames * metrics].tolist())
    return pb.StreamMetricsRequest(batch=batch).SerializeToString()


class Stream:
    """One open stream of raw messages."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._call = self._channel.stream_stream(STREAM)()

    async def open(self) -> None:
        """Says Hello and is welcomed."""
        await self._call.write(hello(new_run_id()))
        assert await self._answer() == "welcome"

    async def send(self, messages: list[bytes], latencies: list[float] | None = None, pause: float = 0.0) -> None:
        """Sends everything, and returns when the last batch is acknowledged."""
        last = pb.StreamMetricsRequest.FromString(messages[-1]).batch
        total, per = last.first_seq + last.count - 1, last.count
        sent: list[float] = []

        async def write() -> None:
            for body in messages:
                sent.append(time.perf_counter())
                await self._call.write(body)
                if pause:
                    await asyncio.sleep(pause)

        writing = asyncio.create_task(write())
        told = 0
        while told < total:
            if await self._answer() == "ack":
                if latencies is not None:
                    latencies.extend(time.perf_counter() - at for at in sent[told // per : self._hwm // per])
                told = self._hwm
        await writing

    async def finish(self) -> None:
        """Ends the run, and closes."""
        finish = pb.Finish(last_seq=self._hwm, status=runs_pb2.RUN_STATUS_FINISHED)
        await self._call.write(pb.StreamMetricsRequest(finish=finish).SerializeToString())
        while await self._answer() != "finish_ack":
            pass
        await self._channel.close()

    async def _answer(self) -> str:
        answer = pb.StreamMetricsResponse.FromString(await self._call.read())
        kind = answer.WhichOneof("message")
        assert kind != "reject", answer
        if kind == "ack":
            self._hwm = answer.ack.hwm
        return str(kind)


async def firehose(address: str, points: int, streams: int) -> None:
    """The sending process: encodes everything first, then sends as fast as it goes. Prints points, seconds, start."""
    each = max(1, points // (streams * FRAMES * METRICS))
    values = np.random.random(FRAMES * METRICS)
    prepared = [message(number, FRAMES, METRICS, values) for number in range(each)]
    open_streams = [Stream(address) for _ in range(streams)]
    await asyncio.gather(*(stream.open() for stream in open_streams))
    started = time.perf_counter()
    await asyncio.gather(*(stream.send(prepared) for stream in open_streams))
    print(streams * each * FRAMES * METRICS, time.perf_counter() - started, started)
    await asyncio.gather(*(stream.finish() for stream in open_streams))


async def trickle(address: str, streams: int, seconds: int) -> None:
    """Many streams, one frame of 10 metrics a second each. Prints p50, p99 and the worst in ms."""
    values = np.random.random(10)
    prepared = [message(number, 1, 10, values) for number in range(seconds)]
    latencies: list[float] = []
    open_streams = [Stream(address) for _ in range(streams)]
    for stream in open_streams:
        await stream.open()

    async def one(number: int) -> None:
        await asyncio.sleep(number / streams)
        await open_streams[number].send(prepared, latencies, pause=1.0)

    await asyncio.gather(*(one(number) for number in range(streams)))
    assert len(latencies) == streams * seconds
    print(*(1000 * percentile(latencies, share) for share in (0.5, 0.99, 1.0)))


async def limit(dsn: str, points: int) -> float:
    """Points a second of one connection's binary COPY in the same layout: rows of 4 MB, 24 MB a transaction."""
    conn = await asyncpg.connect(dsn)
    frames = (4 << 20) // (8 * METRICS)
    values = np.random.random(frames * METRICS)
    steps, times = np.arange(frames), 1_700_000_000_000 + 10 * np.arange(frames)
    rows = [
        NewSegment(
            WorkspaceId(1), new_run_id(), frames, 0, frames - 1, np.array([METRICS], np.int32),
            np.arange(METRICS, dtype=np.int32), None, [steps.tobytes()], [times.tobytes()], [values.tobytes()],
        )
        for _ in range(6)
    ]  # fmt: skip
    done = 0
    started = time.perf_counter()
    while done < points:
        await segments.append(conn, rows)
        done += len(rows) * frames * METRICS
    seconds = time.perf_counter() - started
    await conn.execute("TRUNCATE metric_segments")
    await conn.close()
    return done / seconds


async def log_batch(address: str, calls: int) -> list[float]:
    """Seconds of single calls of LogBatch with one point, one after another."""
    async with grpc.aio.insecure_channel(address) as channel:
        run_id = new_run_id()
        stream = channel.stream_stream(STREAM)()
        await stream.write(hello(run_id))
        await stream.read()
        stream.cancel()
        call = channel.unary_unary(
            "/penstock.v1.MetricService/LogBatch", pb.LogBatchRequest.SerializeToString, pb.LogBatchResponse.FromString
        )
        seconds = []
        for step in range(calls):
            request = pb.LogBatchRequest(run_id=run_id.hex)
            request.metrics.add(name="loss", value=1 / (step + 1), step=step)
            started = time.perf_counter()
            await call(request)
            seconds.append(time.perf_counter() - started)
        return seconds


async def compacted(dsn: str, points: int) -> float:
    """Waits until level 0 is empty, and returns the bytes a point on disk in level 1, indexes and TOAST included."""
    conn = await asyncpg.connect(dsn)
    assert await conn.fetchval("SELECT sum(count) FROM run_metrics") == points
    while await conn.fetchval("SELECT EXISTS (SELECT FROM metric_segments)"):
        await asyncio.sleep(0.5)
    size = await conn.fetchval(
        "SELECT pg_total_relation_size('metric_chunks')::float8 / (SELECT sum(points) FROM metric_chunks)"
    )
    await conn.close()
    return float(size)


def child(*args: object) -> list[float]:
    """Runs a part of this program in a process of its own, as a client is."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ingest", *map(str, args)], stdout=subprocess.PIPE, text=True, check=True
    )
    return [float(word) for word in done.stdout.split()]


def measure(points: int, streams: int, rounds: int) -> list[tuple[str, str, str]]:
    """Rows of (what, measured, beside it)."""
    rows = []
    ratios, rates, limits = [], [], []
    for _ in range(rounds):
        with server() as own:
            sent, seconds, _ = child("--firehose", own.grpc_address, "--points", points, "--streams", streams)
            rates.append(sent / seconds)
            memory = own.memory_mb()
            started = time.perf_counter()
            size = asyncio.run(compacted(own.dsn, round(sent)))
            settled = sent / (seconds + time.perf_counter() - started)
            limits.append(asyncio.run(limit(own.dsn, points)))
            ratios.append(rates[-1] / limits[-1])
    rows.append(
        (
            "durable ingest",
            f"{median(rates) / 1e6:.2f} M points/s",
            f"limit {median(limits) / 1e6:.2f} M/s, ratio {median(ratios):.2f}",
        )
    )
    rows.append(("… until compacted as well", f"{settled / 1e6:.2f} M points/s", f"{size:.1f} bytes a point"))
    rows.append(("… server memory, peak", f"{memory:.0f} MB", ""))
    with server() as own:
        before = own.memory_mb("VmRSS")
        p50, p99, worst = child("--trickle", own.grpc_address, "--streams", 1000)
        rows.append(
            (
                "1,000 streams, 1 frame/s",
                f"p50 {p50:.0f}, p99 {p99:.0f}, worst {worst:.0f} ms",
                f"{before:.0f} → {own.memory_mb():.0f} MB",
            )
        )
    with server() as own:
        seconds_each = asyncio.run(log_batch(own.grpc_address, 500))
        rows.append(
            (
                "LogBatch, one point, idle",
                f"p50 {1000 * median(seconds_each):.2f} ms",
                f"p99 {1000 * percentile(seconds_each, 0.99):.2f} ms",
            )
        )
    return rows


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=60_000_000)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--firehose", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--trickle", metavar="ADDRESS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.firehose:
        asyncio.run(firehose(args.firehose, args.points, args.streams))
    elif args.trickle:
        asyncio.run(trickle(args.trickle, args.streams, 10))
    else:
        for what, measured, beside in measure(args.points, args.streams, args.rounds):
            print(f"| {what} | {measured} | {beside} |")


if __name__ == "__main__":
    main()
