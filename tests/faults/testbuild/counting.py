"""A training process that counts: `counting.py URL RUN_ID NAME` logs 0, 1, 2, … until its input ends.

Eight of them have a step in common, and all of them the time, so a history shows in which order they were committed.
At the end it says in JSON how many it has logged and whether `finish` found all of it committed.
"""

from __future__ import annotations

import json
import select
import sys

import penstock
from penstock.session import Pace

SAME_STEP = 8
TIME = 1_000.0
_FINISH_SECONDS = 120


def main(url: str, run_id: str, name: str) -> None:
    """Logs, one record a millisecond or so."""
    count = 0
    run = penstock.start_run(run_id=run_id, url=url, pace=Pace(backoff_most=0.5))  # servers are back in no time
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        run.log({name: count}, step=count // SAME_STEP, time=TIME)
        count += 1
    done = run.finish(timeout=_FINISH_SECONDS)
    print(json.dumps({"logged": count, "done": done, "refused": run.refused}))


if __name__ == "__main__":
    main(*sys.argv[1:])
