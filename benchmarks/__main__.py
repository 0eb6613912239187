"""Runs every benchmark and writes what they measured to docs/benchmarks.md, or to --output."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

INTRODUCTION = """\
# Benchmarks

Measured by `make bench` on {date} at commit {commit}: {cpu}, {cores} cores shared by clients, server and PostgreSQL,
Python {python}. Each part is a program that anyone can run (`python -m benchmarks.ingest --help`). Machines differ
and are noisy: trust ratios within one run. The limits that we hold ourselves to stand beside what is measured.

"""
PARTS = {
    "ingest": """\
## Ingest

A point counts when its batch is acknowledged, which is after COMMIT with fsync. The limit is one connection's binary
COPY of the same points in the same level-0 layout, from memory, with no service in between, in the same run; the
service uses two connections, so it can be above it. Goals: 1.5 M points/s and half of the limit; 1,000 streams within
1 s at p99; LogBatch p50 under 5 ms; at most 12 bytes a point.

| what | measured | beside it |
| --- | --- | --- |
""",
    "client": """\

## The client

Goals: 500 k points/s from one process to COMMIT; at most 5 µs for one float and 25 µs for a hundred, at the median,
whether the server is up or not.

| what | measured | beside it |
| --- | --- | --- |
""",
    "reading": """\

## Reading

Goals: 50 ms for 1,000 pixels out of 1 M points, 100 ms out of 10 M; 0.5 s for a history of 1 M points.

| what | measured | beside it |
| --- | --- | --- |
""",
    "artifacts": """\

## Artifacts

Goals: a file of 2 GiB up and down at 0.6 of the limit, which is `cp` and fsync, or aiobotocore's own multipart against
the same `rclone serve s3`; 500 files of 4 KiB a second; under 150 MB more of memory with four large uploads at once;
ingest beside an upload keeps 0.6 of its rate. Client, server, PostgreSQL and the store share the two cores.

| what | measured | beside it |
| --- | --- | --- |
""",
    "registry": """\

## The model registry

10,000 models of 10 versions each, with tags, aliases and stages; pages of 100, warm cache, one call after another over
gRPC. Beside it: the same search asked of PostgreSQL directly, which gives ids only; the rest is loading, messages and
gRPC. Goals: an alias resolved in 2 ms, a search in 50 ms, both at the median.

| what | measured | beside it |
| --- | --- | --- |
""",
    "mlflow": """\

## MLflow's REST API

The same requests over HTTP to our server, to MLflow's own (3.17, as `mlflow server` starts it) and to FastTrackML
(0.6), one after another, each with a PostgreSQL of its own of the same make and settings. Goals: 10 times FastTrackML's
rate of batches; log-metric under 3 ms; 20 times MLflow on histories and searches; under 300 MB. In brackets: how many
times better ours is. In a batch, 10 metrics have 100 steps each, or 1,000 metrics one.

| what | measured | beside it |
| --- | --- | --- |
""",
    "search": """\

## Search

100,000 runs of 20 metrics and 10 params in one experiment, pages of 100, warm cache, one connection. Goal: 50 ms for
the first row, a metric and a param condition ordered by the metric. The thresholds of the search were tuned on this
very data; other shapes of data will differ.

""",
}


def main() -> None:
    """Runs the parts one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which parts; all when none is named")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks.md"))
    arguments = parser.parse_args()
    report = INTRODUCTION.format(
        date=datetime.datetime.now(datetime.UTC).date(),
        commit=output("git", "rev-parse", "--short", "HEAD") or "unknown",
        cpu=processor(),
        cores=os.cpu_count(),
        python=platform.python_version(),
    )
    for part in arguments.parts or PARTS:
        report += PARTS[part]
        with subprocess.Popen([sys.executable, "-m", f"benchmarks.{part}"], stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            for line in run.stdout:
                print(line, end="", flush=True)
                report += line if line.startswith("|") else ""
        if run.returncode:
            sys.exit(f"benchmarks.{part} failed")
    arguments.output.write_text(report)
    print(f"written to {arguments.output}")


def output(*command: str) -> str:
    """What a command prints; nothing when it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def processor() -> str:
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
