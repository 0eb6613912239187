"""What `run.log` costs its caller, and how many points a second one Python process gets to COMMIT through it.

python -m benchmarks.client [--points 20000000]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

import penstock
from benchmarks.serving import clock, median, percentile, server

NOBODY = "127.0.0.1:1"
HUNDRED = {f"metric_{i}": i / 7 for i in range(100)}
ONE = {"loss": 0.3}


def cost(url: str, values: dict[str, float], calls: int) -> list[float]:
    """Microseconds of each of many calls, a thousand a second or so, as a quick training loop makes them."""
    run = penstock.start_run(experiment="benchmark", url=url)
    micros = []
    for step in range(calls):
        started = clock()
        run.log(values, step=step)
        micros.append(1e6 * (clock() - started))
        if step % 10 == 9:
            time.sleep(0.01)
    run.finish(timeout=0.2 if url == NOBODY else 60)
    return micros


def flood(url: str, points: int) -> float:
    """Points a second, of frames of 100, from the first call until `finish` returns: all are committed then."""
    run = penstock.start_run(experiment="benchmark", url=url)
    started = clock()
    for step in range(points // 100):
        run.log(HUNDRED, step=step)
    assert run.finish(timeout=120)
    return points / (clock() - started)


def child(*args: object) -> list[float]:
    """Runs a part of this program in a process of its own, with a spool of its own."""
    with tempfile.TemporaryDirectory() as spool:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.client", *map(str, args)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"PENSTOCK_SPOOL_DIR": spool},
        )
    return [float(word) for word in done.stdout.split()]


def measure(points: int, rounds: int) -> list[tuple[str, str, str]]:
    """Rows of (what, measured, beside it)."""
    rows = []
    with server() as own:
        rates = [child("--flood", own.grpc_address, "--points", points)[0] for _ in range(rounds)]
        rows.append(("run.log of one process to COMMIT", f"{median(rates) / 1e6:.2f} M points/s", "frames of 100"))
        for what, url in (("server up", own.grpc_address), ("server absent", NOBODY)):
            for many, size in (("1 float", 1), ("100 floats", 100)):
                p50, p99, most = child("--cost", url, "--size", size)
                beside = f"p99 {p99:.1f} µs, longest {most / 1000:.2f} ms"
                rows.append((f"run.log of {many}, {what}", f"p50 {p50:.1f} µs", beside))
    return rows


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--cost", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--flood", metavar="URL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cost:
        micros = cost(args.cost, ONE if args.size == 1 else HUNDRED, 10_000)
        print(median(micros), percentile(micros, 0.99), max(micros))
    elif args.flood:
        print(flood(args.flood, args.points))
    else:
        for what, measured, beside in measure(args.points, args.rounds):
            print(f"| {what} | {measured} | {beside} |")


if __name__ == "__main__":
    main()
