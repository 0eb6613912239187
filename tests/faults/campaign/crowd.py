"""A process that logs from threads, from a signal handler inside of other calls, and from children that it forks.

Each of them is a writer of its own in the count, with a journal of its own beside the process's.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from campaign import journal as words
from campaign import values
from campaign.journal import Journal
from campaign.writer import Part

THREADS = 8
_CHILD_CALLS = 20
_CHILD_SECONDS = 60
_SIGNALS = 0.003  # seconds between two

# Words of the process's own journal, whose FIRST… are those of its main thread.
FORKS = words.FREE
FORKS_UNACKED = words.FREE + 1


def sequence(part: Part, number: int) -> tuple[Part, Path]:
    """One of those that log: 0 is the main thread, then the signal handler, the threads, and the children."""
    mine = replace(part, writer=part.writer + number, every=0)
    path = Path(part.journal)
    return mine, path if not number else path.with_name(f"{path.stem}.s{number:04d}.journal")


class _Voice:
    """Logs one sequence."""

    def __init__(self, run: Any, part: Part, number: int) -> None:
        self._run = run
        self._part, path = sequence(part, number)
        self._journal = Journal(path)
        self._names = values.names(part.width)
        self._index = 0
        self._inside = False

    def log(self) -> None:
        if self._inside:
            return  # a signal in the handler of another: of one sequence, calls are not nested
        self._inside = True
        state, index = self._journal.words, self._index
        self._index += 1
        state[words.BEGUN] = index + 1
        frame = values.frame(self._part.writer, index, self._names)
        before = time.perf_counter_ns()
        self._run.log(frame, step=index // self._part.per_step)
        took = time.perf_counter_ns() - before
        state[words.RETURNED] = index + 1
        self._journal.took(took, index)
        self._inside = False


def main() -> None:
    """Plays its part."""
    part = Part(**json.loads(sys.argv[1]))
    os.environ["PENSTOCK_SPOOL_DIR"] = part.spool
    faulthandler.enable()
    import penstock

    run = penstock.start_run(experiment="faults", run_id=part.run_id, url=part.url, finish_timeout=part.timeout)
    main_voice, handler = _Voice(run, part, 0), _Voice(run, part, 1)
    state = Journal(Path(part.journal)).words
    state[words.STARTED] = 1
    threads = [threading.Thread(target=_sing, args=(_Voice(run, part, 2 + n), state)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    signal.signal(signal.SIGALRM, lambda *_: handler.log())
    signal.setitimer(signal.ITIMER_REAL, _SIGNALS, _SIGNALS)
    while not state[words.STOP]:
        for _ in range(10):
            main_voice.log()
        state[words.UNACKED] = unacked = run.unacked
        state[words.ACKED] = max(state[words.ACKED], state[words.RETURNED] - unacked)
        state[FORKS_UNACKED] += unacked > 0
        _fork(run, part, int(state[FORKS]))
        state[FORKS] += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    for thread in threads:
        thread.join()
    state[words.ENDED] = 1 if run.finish(timeout=part.timeout) else 2
    state[words.UNACKED] = run.unacked


def _sing(voice: _Voice, state: Any) -> None:
    while not state[words.STOP]:
        voice.log()
        time.sleep(0.01)


def _fork(run: Any, part: Part, number: int) -> None:
    """A child that logs, and ends in one way or another; or hangs, and then all of it is a failure."""
    pid = os.fork()
    if not pid:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.dump_traceback_later(_CHILD_SECONDS, exit=True)
        voice = _Voice(run, part, 2 + THREADS + number)
        for _ in range(_CHILD_CALLS):
            voice.log()
        match number % 16:
            case 1:
                os._exit(0 if run.finish(timeout=_CHILD_SECONDS) else 4)
            case 9:
                sys.exit(0)
            case _:
                os._exit(0)  # its spool is left
    _, status = os.waitpid(pid, 0)
    if status:
        sys.stderr.write(f"child {number} ended with {status}\n")
        os._exit(3)


if __name__ == "__main__":
    main()
