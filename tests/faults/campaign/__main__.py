"""Plays all campaigns at length: `python -m campaign [--seed N] [--scale X] [--only NAME …] [--write FILE]`."""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import structlog

from campaign import report
from campaign.ground import Ground
from campaign.program import CAMPAIGNS, play
from campaign.stage import Outcome


def main() -> int:
    """Returns 0 when every campaign is as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="of everything that goes by chance (default: a new one)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of faults and points (default: 1)")
    parser.add_argument("--only", action="append", choices=sorted(CAMPAIGNS), metavar="NAME", help="repeatable")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables there, in place of what stands there"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so by way of everything that is to be closed
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # PostgreSQL, up and down
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}; again: make test-faults SEED={seed}", flush=True)
    outcomes: dict[str, Outcome] = {}
    failed: list[str] = []
    told = ""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="penstock-faults-") as directory:
        ground = Ground(Path(directory) / "pg").start()
        try:
            for name in args.only or CAMPAIGNS:
                campaign = CAMPAIGNS[name]
                print(f"{time.monotonic() - began:7.1f} s  {name}: {campaign.title}", flush=True)
                try:
                    outcome = play(campaign, Path(directory) / name, ground, seed, campaign.long.times(args.scale))
                except AssertionError as error:
                    failed.append(name)
                    print(f"FAILED: {error}", *getattr(error, "__notes__", ()), sep="\n", flush=True)
                else:
                    outcomes[name] = outcome
                    print(f"           {report.line(outcome)}", flush=True)
                told = report.tables(outcomes, seed, time.monotonic() - began)
                if args.write:  # each time: who breaks it off has what was shown until then
                    report.write(args.write, told)
        finally:
            ground.close()
    print(told)
    if failed:
        print(f"FAILED: {', '.join(failed)}; seed {seed}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
