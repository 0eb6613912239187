"""How quickly artifacts go up and down, beside the same bytes without the service: by `cp`, or aiobotocore's multipart.

    python -m benchmarks.artifacts [--mib 2048] [--files 10000] [--stores local local-direct s3 s3-direct]

Client, server, PostgreSQL and the store share the machine. The limit is measured before and after, in the same run, and
does what the service has to do: a copy on the disk ends with fsync, a download from S3 is written to a file. S3 is
`rclone serve s3`, on a directory. With `-direct` the client itself writes and reads the directory, or sends to S3 and
receives from there. Memory that a virtual machine has never given out costs its first user more than a copy does: it is
touched before. Not measured: a network.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

import penstock
from benchmarks.ingest import child
from benchmarks.serving import Server, median, server

STORES = ["local", "local-direct", "s3", "s3-direct"]
PART = 8 << 20
PARALLEL = 4
SMALL = 4096
SMALL_PARALLEL = 16
MIB = 1 << 20
ROUNDS = 3
VACUUMING = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker')"
KEYS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmarks-own-secret", "AWS_REGION": "us-east-1"}


@contextmanager
def s3(directory: Path) -> Iterator[str]:
    """`rclone serve s3` with a bucket `bench`, on a directory. Its address."""
    (directory / "bench").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    rclone = Path(sys.executable).parent / "rclone"
    keys = f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}"
    command = [str(rclone), "serve", "s3", str(directory), "--addr", address, "--auth-key", keys, "--config", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            host, port = address.split(":")
            while True:
                try:
                    socket.create_connection((host, int(port)), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield f"http://{address}"
        finally:
            process.terminate()


class Local:
    """The limit of a directory: cp, and then to the disk."""

    def __init__(self, directory: Path, mode: str) -> None:
        self.directory = directory
        self.options = ["--artifacts-root", str(directory / mode), "--artifacts-mode", mode]

    def upload(self, source: Path) -> None:
        """A large file."""
        copy(source, self.directory / "limit")

    def download(self, target: Path) -> None:
        """The same, back."""
        copy(self.directory / "limit", target)

    def small(self, sources: list[Path]) -> None:
        """Small ones, one after the other, with fsync as a server does that answers for each."""
        for each in sources:
            copy(each, self.directory / f"limit-{each.name}")


class S3:
    """The limit of a store that speaks S3: aiobotocore, parts in parallel, from and to a file."""

    def __init__(self, endpoint: str, mode: str) -> None:
        self.endpoint = endpoint
        root = ["--artifacts-root", f"s3://bench/{mode}", "--artifacts-mode", mode]
        self.options = [*root, "--s3-endpoint", endpoint]

    def upload(self, source: Path) -> None:
        """A large file."""
        asyncio.run(self._upload(source))

    def download(self, target: Path) -> None:
        """The same, back."""
        asyncio.run(self._download(target))

    def small(self, sources: list[Path]) -> None:
        """Small ones, several at a time."""
        asyncio.run(self._small(sources))

    def _client(self) -> Any:
        config = AioConfig(s3={"addressing_style": "path"}, max_pool_connections=SMALL_PARALLEL)
        return get_session().create_client("s3", endpoint_url=self.endpoint, config=config)

    async def _upload(self, source: Path) -> None:
        async with self._client() as client:
            begun = await client.create_multipart_upload(Bucket="bench", Key="limit")
            of = {"Bucket": "bench", "Key": "limit", "UploadId": begun["UploadId"]}
            gate = asyncio.Semaphore(PARALLEL)
            with source.open("rb") as file:

                async def put(number: int, data: bytes) -> dict[str, Any]:
                    try:
                        answer = await client.upload_part(**of, PartNumber=number, Body=data)
                        return {"PartNumber": number, "ETag": answer["ETag"]}
                    finally:
                        gate.release()

                tasks = []
                for number in range(1, -(-source.stat().st_size // PART) + 1):
                    await gate.acquire()
                    tasks.append(asyncio.create_task(put(number, await asyncio.to_thread(file.read, PART))))
                parts = await asyncio.gather(*tasks)
            await client.complete_multipart_upload(**of, MultipartUpload={"Parts": parts})

    async def _download(self, target: Path) -> None:
        async with self._client() as client:
            answer = await client.get_object(Bucket="bench", Key="limit")
            with target.open("wb") as file:
                while data := await answer["Body"].read(1 << 20):
                    file.write(data)
                await asyncio.to_thread(os.fsync, file.fileno())

    async def _small(self, sources: list[Path]) -> None:
        async with self._client() as client:
            waiting = iter(sources)

            async def put() -> None:
                for each in waiting:
                    await client.put_object(Bucket="bench", Key=f"small/{each.name}", Body=each.read_bytes())

            await asyncio.gather(*(put() for _ in range(SMALL_PARALLEL)))


def copy(source: Path, target: Path) -> None:
    """cp, then fsync."""
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def timed(work: Callable[[], object], memory: int = 0) -> float:
    """How many seconds it takes; what was written before is on the disk when it begins, and `memory` bytes are warm."""
    os.sync()
    bytearray(memory)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def row(what: str, measured: str, beside: str) -> None:
    """A line of the table."""
    print(f"| {what} | {measured} | {beside} |", flush=True)


def compare(
    what: str, amount: float, unit: str, ours: Callable[[], object], limit: Callable[[], object], memory: int = 0
) -> None:
    """The limit, ours, the limit again: the machine's own unrest shows."""
    first = timed(limit, memory)
    seconds = timed(ours, memory)
    second = timed(limit, memory)
    least = min(first, second)
    both = sorted((amount / first, amount / second))
    row(
        what,
        f"{amount / seconds:,.0f} {unit}/s",
        f"{both[0]:,.0f} to {both[1]:,.0f} {unit}/s; {least / seconds:.2f} of the better",
    )


def large(name: str, limit: Local | S3, at: Server, big: Path, directory: Path) -> None:
    """One file, up and down, and four at once."""
    mib = big.stat().st_size / (1 << 20)
    memory = big.stat().st_size + (1 << 30)  # of the pages that are written, and the programs'
    with penstock.Client(at.grpc_address) as client:
        run = client.create_run("artifacts").id
        compare(
            f"{name}: upload of {mib / 1024:g} GiB",
            mib,
            "MiB",
            lambda: client.upload_artifact(run, big, "big"),
            lambda: limit.upload(big),
            memory,
        )
        target = directory / f"got-{name}"  # what is there already would not be fetched
        compare(
            f"{name}: download of it",
            mib,
            "MiB",
            lambda: client.download_artifacts(run, "big", target),
            lambda: limit.download(directory / "limit-got"),
            memory,
        )
        before, most = at.memory_mb("VmRSS"), 0.0
        threads = [
            threading.Thread(target=client.upload_artifact, args=(run, big, f"at-once-{number}")) for number in range(4)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, at.memory_mb("VmRSS"))
            time.sleep(0.02)
        row(
            f"{name}: the server's memory with four such uploads at once",
            f"{before:.0f} → {most:.0f} MB",
            f"{most - before:.0f} MB more",
        )
        for each in ("big", *(f"at-once-{number}" for number in range(4))):
            client.delete_artifact(run, each)


def small(name: str, limit: Local | S3, at: Server, directory: Path, files: int) -> None:
    """Many of 4 KiB."""
    source = directory / "small"
    if not source.exists():
        source.mkdir()
        for number in range(files):
            (source / f"{number:05d}").write_bytes(os.urandom(SMALL))
    sources = sorted(source.iterdir())
    with penstock.Client(at.grpc_address) as client:
        run = client.create_run("artifacts").id
        compare(
            f"{name}: {files:,} files of 4 KiB up",
            files,
            "files",
            lambda: client.upload_artifacts(run, source),
            lambda: limit.small(sources),
        )


def beside_ingest(name: str, at: Server, big: Path) -> None:
    """Points a second, alone and while a large file goes up again and again: in turns, each on a server at rest."""
    ingest(at)  # what a new database does once
    asyncio.run(at_rest(at.dsn))
    alone, beside, paces = [ingest(at)[0]], [], []
    for _ in range(ROUNDS):
        asyncio.run(at_rest(at.dsn))
        with uploading(at, big) as sent:
            rate, pace = ingest(at, sent)
        beside.append(rate)
        paces.append(pace)
        asyncio.run(at_rest(at.dsn))
        alone.append(ingest(at)[0])
    row(
        f"{name}: ingest beside a running upload",
        f"{median(beside) / 1e6:.1f} M points/s, upload {median(paces):.0f} MiB/s",
        f"{median(alone) / 1e6:.1f} M points/s alone ({min(alone) / 1e6:.1f} to {max(alone) / 1e6:.1f}); "
        f"{median(beside) / median(alone):.2f} of it",
    )


@contextmanager
def uploading(at: Server, big: Path) -> Iterator[list[tuple[float, int]]]:
    """Inside, a file goes up again and again. What has gone, and when."""
    sent: list[tuple[float, int]] = []
    stop = threading.Event()

    def upload() -> None:
        with penstock.Client(at.grpc_address) as client:
            run = client.create_run("artifacts").id
            for number in count():
                if stop.is_set():
                    return
                client.upload_artifact(
                    run, big, f"beside-{number}", progress=lambda size: sent.append((time.perf_counter(), size))
                )
                client.delete_artifact(run, f"beside-{number}")

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def ingest(at: Server, sent: list[tuple[float, int]] | None = None) -> tuple[float, float]:
    """Points a second of pre-encoded streams, and MiB a second of what is sent meanwhile."""
    points, seconds, began = child("--firehose", at.grpc_address, "--points", 30_000_000)
    within = [size for when, size in sent or () if began <= when <= began + seconds]
    return points / seconds, sum(within) / seconds / MIB


async def at_rest(dsn: str) -> None:
    """Nothing is compacted, vacuumed or on its way to the disk any more: the points before would slow those after."""
    conn = await asyncpg.connect(dsn)
    await conn.execute("TRUNCATE metric_segments")
    while await conn.fetchval(VACUUMING):
        await asyncio.sleep(0.1)
    await conn.execute("CHECKPOINT")
    await conn.close()
    os.sync()


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.artifacts", description=__doc__)
    parser.add_argument("--mib", type=int, default=2048, help="of the large file")
    parser.add_argument("--files", type=int, default=10_000, help="how many small ones")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--only", choices=["large", "small", "ingest"])
    arguments = parser.parse_args()
    os.environ.update(KEYS)
    directory = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    try:
        big = directory / "big"
        with big.open("wb") as file:
            for _ in range(arguments.mib // 8):
                file.write(os.urandom(8 << 20))
        with s3(directory / "s3") as endpoint:
            for name in arguments.stores:
                place, _, direct = name.partition("-")
                mode = direct or "proxied"
                limit = S3(endpoint, mode) if place == "s3" else Local(directory, mode)
                with server(*limit.options) as at:
                    if arguments.only in (None, "large"):
                        large(name, limit, at, big, directory)
                    if arguments.only in (None, "small"):
                        small(name, limit, at, directory, arguments.files)
                    if arguments.only in (None, "ingest"):
                        beside_ingest(name, at, big)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
