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

from artifacts import program as artifacts
from artifacts import report as artifacts_report
from artifacts import scene
from campaign import report
from campaign.ground import Ground
from campaign.program import CAMPAIGNS, play
from campaign.stage import Outcome


def main() -> int:
    """Returns 0 when every campaign is as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="of everything that goes by chance (default: a new one)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of faults and points (default: 1)")
    parser.add_argument(
        "--only", action="append", choices=[*CAMPAIGNS, *artifacts.CAMPAIGNS], metavar="NAME", help="repeatable"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables there, in place of what stands there"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so by way of everything that is to be closed
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # PostgreSQL, up and down
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}; again: make test-faults SEED={seed}", flush=True)
    outcomes: dict[str, Outcome] = {}
    artifacts_outcomes: dict[str, scene.Outcome] = {}
    failed: list[str] = []
    told: dict[str, str] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="penstock-faults-") as directory:
        ground = Ground(Path(directory) / "pg").start()
        try:
            for name in args.only or [*CAMPAIGNS, *artifacts.CAMPAIGNS]:
                place = Path(directory) / name
                print(f"{time.monotonic() - began:7.1f} s  {name}", flush=True)
                try:
                    if name in CAMPAIGNS:
                        campaign = CAMPAIGNS[name]
                        outcomes[name] = play(campaign, place, ground, seed, campaign.long.times(args.scale))
                        said = report.line(outcomes[name])
                    else:
                        of_artifacts = artifacts.CAMPAIGNS[name]
                        size = of_artifacts.long.times(args.scale)
                        artifacts_outcomes[name] = artifacts.play(of_artifacts, place, ground, seed, size)
                        said = artifacts_report.line(artifacts_outcomes[name])
                except AssertionError as error:
                    failed.append(name)
                    print(f"FAILED: {error}", *getattr(error, "__notes__", ()), sep="\n", flush=True)
                else:
                    print(f"           {said}", flush=True)
                seconds = time.monotonic() - began
                if outcomes:
                    told["measured"] = report.tables(outcomes, seed, seconds)
                if artifacts_outcomes:
                    told["measured artifacts"] = artifacts_report.tables(artifacts_outcomes, seed, seconds)
                if args.write:  # each time: who breaks it off has what was shown until then
                    for mark, text in told.items():
                        report.write(args.write, text, mark)
        finally:
            ground.close()
    print(*told.values(), sep="\n\n")
    if failed:
        print(f"FAILED: {', '.join(failed)}; seed {seed}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
