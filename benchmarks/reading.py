"""How long charts and histories take: series of 1,000 pixels and a whole history, over gRPC, of compacted points.

    python -m benchmarks.reading [--long 10000000] [--short 1000000]

A call's time is the caller's: request, server, PostgreSQL, answer, and its columns in numpy.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

import asyncpg
import grpc
import numpy as np

from benchmarks.serving import median, percentile, server
from penstock.columns import by_bytes
from penstock.v1 import metrics_pb2 as pb
from penstock.v1 import runs_pb2
from penstock_server.model.runs import RunId, new_run_id

SERVICE = "/penstock.v1.MetricService/"
FRAMES = 20_000
Request = by_bytes(pb.StreamMetricsRequest)
Series = by_bytes(pb.GetMetricSeriesResponse)
Part = by_bytes(pb.StreamMetricHistoryResponse)
UNLIMITED = [("grpc.max_receive_message_length", -1)]


async def log(channel: grpc.aio.Channel, run_id: RunId, points: int) -> None:
    """Logs one metric, step by step, and finishes the run."""
    call = channel.stream_stream(
        SERVICE + "StreamMetrics", Request.SerializeToString, pb.StreamMetricsResponse.FromString
    )()
    opening = pb.Hello(protocol=1, run_id=run_id.hex, writer_id=uuid.uuid4().bytes, epoch=1)
    opening.create_run.experiment_name = "benchmark"
    await call.write(pb.StreamMetricsRequest(hello=opening))
    await call.read()
    random = np.random.default_rng(1)

    async def write() -> None:
        for first in range(0, points, FRAMES):
            steps = np.arange(first, first + FRAMES)
            request = Request()
            batch = request.batch
            batch.first_seq, batch.count = first + 1, FRAMES
            if first == 0:
                batch.new_shapes.add(names=["loss"])
            batch.shapes.append(bytes(4 * FRAMES))
            batch.steps.append(steps.tobytes())
            batch.times_ms.append((1_700_000_000_000 + 10 * steps + random.integers(0, 4, FRAMES)).tobytes())
            batch.values.append((np.exp(-steps / points) + 0.1 * random.random(FRAMES)).tobytes())
            await call.write(request)
        await call.write(
            pb.StreamMetricsRequest(finish=pb.Finish(last_seq=points, status=runs_pb2.RUN_STATUS_FINISHED))
        )

    writing = asyncio.create_task(write())
    while (await call.read()).WhichOneof("message") != "finish_ack":
        pass
    await writing


async def series(channel: grpc.aio.Channel, run_id: RunId) -> None:
    """One series of 1,000 pixels."""
    call = channel.unary_unary(
        SERVICE + "GetMetricSeries", pb.GetMetricSeriesRequest.SerializeToString, Series.FromString
    )
    (found,) = (await call(pb.GetMetricSeriesRequest(run_ids=[run_id.hex], names=["loss"], width=1000))).series
    maxs = np.frombuffer(found.maxs[0], "<f8")
    assert 990 <= len(maxs) <= 1000
    assert 1.0 < maxs.max() < 1.1


async def history(channel: grpc.aio.Channel, run_id: RunId, points: int) -> None:
    """A whole history, in numpy."""
    call = channel.unary_stream(
        SERVICE + "StreamMetricHistory", pb.StreamMetricHistoryRequest.SerializeToString, Part.FromString
    )
    parts = [part.points async for part in call(pb.StreamMetricHistoryRequest(run_id=run_id.hex, names=["loss"]))]
    steps = np.concatenate([np.frombuffer(part.steps[0], "<i8") for part in parts])
    times = np.concatenate([np.frombuffer(part.times_ms[0], "<i8") for part in parts])
    values = np.concatenate([np.frombuffer(part.values[0], "<f8") for part in parts])
    assert len(steps) == len(times) == len(values) == points
    assert bool((np.diff(steps) == 1).all())


async def timed(what: Callable[[], Awaitable[None]], times: int) -> str:
    """Median and 95th percentile in ms, after one call to warm up."""
    await what()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        await what()
        seconds.append(time.perf_counter() - started)
    return f"p50 {1000 * median(seconds):.1f}, p95 {1000 * percentile(seconds, 0.95):.1f} ms"


async def measure(address: str, dsn: str, short: int, long: int) -> list[tuple[str, str, str]]:
    """Rows of (what, measured, beside it)."""
    rows = []
    database = await asyncpg.connect(dsn)
    async with grpc.aio.insecure_channel(address, options=UNLIMITED) as channel:
        for points in (short, long):
            run_id = new_run_id()
            await log(channel, run_id, points)
            if points == short:
                fresh = await timed(lambda run_id=run_id: series(channel, run_id), 5)
            while await database.fetchval("SELECT EXISTS (SELECT FROM metric_segments)"):
                await asyncio.sleep(0.2)
            size = await database.fetchval("SELECT pg_total_relation_size('metric_chunks')")
            rows.append(
                (
                    f"1,000-pixel series out of {points:,} points",
                    await timed(lambda run_id=run_id: series(channel, run_id), 20),
                    "",
                )
            )
            if points == short:
                rows.append(("… while they are compacted", fresh, ""))
                rows.append(
                    (
                        f"history of {points:,} points to numpy",
                        await timed(lambda run_id=run_id: history(channel, run_id, short), 10),
                        "",
                    )
                )
                rows.append(
                    (
                        "stored, indexes and TOAST included",
                        f"{size / points:.1f} bytes a point",
                        "steps 0, 1, 2…; times with jitter; random values",
                    )
                )
    await database.close()
    return rows


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", type=int, default=1_000_000)
    parser.add_argument("--long", type=int, default=10_000_000)
    args = parser.parse_args()
    with server() as own:
        for what, measured, beside in asyncio.run(measure(own.grpc_address, own.dsn, args.short, args.long)):
            print(f"| {what} | {measured} | {beside} |")


if __name__ == "__main__":
    main()
