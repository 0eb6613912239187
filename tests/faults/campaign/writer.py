"""A process that logs, by the public interface and nothing else. What it is to do comes as JSON.

Before and after each call it says so in its journal. It logs until the journal's STOP, or as `end` says.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from campaign import journal as words
from campaign import values
from campaign.journal import Journal

_LOOK = 0.004  # seconds between looks at what is acknowledged


@dataclass(frozen=True, slots=True)
class Part:
    """What a life of a writer is to do."""

    writer: int
    life: int
    run_id: str
    url: str
    spool: str
    journal: str
    first: int = 0  # the index of its first call
    width: int = 100
    rate: float = 200.0  # calls a second
    burst: int = 5  # calls between two waits
    calls: int = 0  # as many, then the end; 0: until it is told to stop
    per_step: int = 3  # calls that have the same step
    every: int = 500  # a param and a tag before each so many-th call; 0: none
    end: str = "finish"  # or "exit", "exception", "sigterm", "abandon" (no finish), "beside" (no Penstock at all)
    patient: bool = True  # whether the stream's timeouts are those that people have
    timeout: float = 120.0  # that finish waits
    spool_bytes: int = 0  # 0: as by default
    buffer_bytes: int = 0
    file_bytes: int = 0  # no file may be longer; 0: as long as they like
    mode: str = "online"
    clock: int = 0  # a seed: the wall clock jumps by up to ten years, either way, every hundredth call
    rank: int = 0
    ranks: int = 0
    poison: int = 0  # a param that can never be stored before each so many-th call; 0: none

    def dump(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


def main() -> None:
    """Plays its part."""
    part = Part(**json.loads(sys.argv[1]))
    journal = Journal(Path(part.journal))
    journal.words[words.BEGUN] = journal.words[words.RETURNED] = journal.words[words.FIRST] = part.first
    if part.end == "beside":
        _beside(part, journal)
        return
    if part.ranks:
        os.environ |= {"RANK": str(part.rank), "WORLD_SIZE": str(part.ranks)}
    os.environ["PENSTOCK_SPOOL_DIR"] = part.spool
    if part.clock:
        _let_the_clock_jump(random.Random(part.clock))
    if part.file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (part.file_bytes, part.file_bytes))  # Python ignores the signal
    if part.end == "sigterm":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _log(part, journal)


def _log(part: Part, journal: Journal) -> None:
    import penstock
    from penstock.session import Pace

    given: dict[str, object] = {}
    if not part.patient:
        given["pace"] = Pace(welcome_timeout=4.0, stall_timeout=6.0, leave_timeout=2.0, backoff_most=2.0)
    if part.spool_bytes:
        given["spool_bytes"] = part.spool_bytes
    if part.buffer_bytes:
        given["buffer_bytes"] = part.buffer_bytes
    start_run = penstock.start_run  # loads gRPC
    started = time.perf_counter_ns()
    run = start_run(
        experiment="faults", run_id=part.run_id, url=part.url, mode=part.mode, finish_timeout=part.timeout, **given
    )
    state, names = journal.words, values.names(part.width)
    state[words.STARTED] = time.perf_counter_ns() - started
    index, began = part.first, time.monotonic()
    while not state[words.STOP] and (not part.calls or index < part.first + part.calls):
        state[words.BEGUN] = index + 1
        if part.every and index % part.every == 0:
            run.log_param(*values.param(part.writer, index))
            run.set_tag(values.tag(part.writer, part.life), index)
        if part.poison and index % part.poison == 0:
            run.log_param("poison", f"{part.writer}.{index}")
        frame = values.frame(part.writer, index, names)
        refused = run.refused
        before = time.perf_counter_ns()
        run.log(frame, step=index // part.per_step)
        took = time.perf_counter_ns() - before
        if run.refused != refused:
            state[words.REFUSED] = run.refused
            journal.refuse(index)
        index += 1
        state[words.RETURNED] = index
        journal.took(took, index)
        ahead = _look(part, state, run, began)
        while index % part.burst == 0 and ahead > 0 and not state[words.STOP]:
            time.sleep(min(ahead, _LOOK))
            ahead = _look(part, state, run, began)
        if ahead < -0.5:
            began -= ahead  # it was held up: it does not catch up at once
    _end(part, journal, run)


def _look(part: Part, state: Any, run: Any, began: float) -> float:
    """Says how far it is; returns by how many seconds it is too early."""
    calls = state[words.RETURNED] - part.first
    state[words.UNACKED] = unacked = run.unacked
    state[words.ACKED] = max(state[words.ACKED], calls - unacked)
    state[words.STATE] = run.state == "parked"
    return calls / part.rate - (time.monotonic() - began)


def _end(part: Part, journal: Journal, run: Any) -> None:
    match part.end:
        case "exit":
            os._exit(0)
        case "exception":
            raise RuntimeError("as in training")
        case "abandon":
            signal.pause()
    started = time.perf_counter_ns()
    done = run.finish(timeout=part.timeout)
    state = journal.words
    state[words.FINISHING] = time.perf_counter_ns() - started
    state[words.REFUSED] = run.refused
    state[words.REJECTED] = sum(each.records for each in run.rejected)
    state[words.UNACKED] = run.unacked
    state[words.ENDED] = 1 if done else 2


def _beside(part: Part, journal: Journal) -> None:
    """What the machine itself does to a process that writes as much, without Penstock."""
    state, names = journal.words, values.names(part.width)
    fd = os.open(f"{part.journal}.data", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    data, index = bytes(8 * part.width + 40), 0
    while not state[words.STOP]:
        values.frame(part.writer, index, names)
        before = time.perf_counter_ns()
        os.write(fd, data)
        took = time.perf_counter_ns() - before
        index += 1
        journal.took(took, index)
        if index % part.burst == 0:
            time.sleep(part.burst / part.rate)
        if index % 100_000 == 0:
            os.ftruncate(fd, 0)


def _let_the_clock_jump(chance: random.Random) -> None:
    real, calls, offset = time.time_ns, 0, 0

    def jumping() -> int:
        nonlocal calls, offset
        calls += 1
        if calls % 100 == 1:
            offset = chance.randint(-10 * 365 * 86_400, 10 * 365 * 86_400) * 1_000_000_000
        return real() + offset

    time.time_ns = jumping


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
