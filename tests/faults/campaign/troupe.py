"""The writing processes of a campaign. A writer lives, may be killed, and lives again; each life has its journal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from campaign import journal as words
from campaign.journal import Journal
from campaign.writer import Part
from servers import clean_environment

SECONDS = 120  # for a process to do what it is told

_FAULTS = Path(__file__).parent.parent


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of a process that finds this package, and no setting of ours."""
    ours = clean_environment()
    path = [str(_FAULTS), str(_FAULTS.parent), *filter(None, [ours.get("PYTHONPATH")])]
    return ours | {"PYTHONPATH": os.pathsep.join(path)} | dict(more or {})


@dataclass(slots=True)
class Life:
    """One process of a writer, from its start to its end."""

    part: Part
    journal: Journal
    stderr: Path
    process: subprocess.Popen[bytes]

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def unacked(self) -> bool:
        """Whether something that it has logged was not acknowledged, when it last looked."""
        return self.journal.words[words.UNACKED] > 0

    @property
    def progress(self) -> int:
        """How many of its records are acknowledged, as it last saw."""
        return int(self.journal.words[words.ACKED])

    def signal(self, number: signal.Signals) -> None:
        """Sends it one."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(SECONDS)

    def stop(self) -> None:
        """Tells it to come to its end, and does not wait."""
        self.journal.words[words.STOP] = 1

    def wait(self) -> int:
        """Until it has ended; returns the exit code."""
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not come to its end: {self.journal}") from None

    def wait_until(self, there: Callable[[Life], bool], what: str) -> None:
        """Waits for something to be seen of it."""
        deadline = time.monotonic() + SECONDS
        while not there(self):
            assert self.alive or there(self), f"ended ({self.process.returncode}) before {what}:\n{self.said}"
            assert time.monotonic() < deadline, f"no {what}: {self.journal}\n{self.said}"
            time.sleep(0.01)

    @property
    def said(self) -> str:
        """What it has written to stderr."""
        return self.stderr.read_text(errors="replace")


@dataclass(slots=True)
class Troupe:
    """The writers, in `directory`. Those of one run say so by its id."""

    directory: Path
    lives: list[Life] = field(default_factory=list)
    others: list[Life] = field(default_factory=list)  # that log nothing
    _current: dict[int, Life] = field(default_factory=dict)

    def begin(self, part: Part, module: str = "campaign.writer") -> Life:
        """A life. Its process finds `part`, with its journal's path in it, on the command line."""
        name = f"w{part.writer:03d}.l{part.life:03d}"
        part = replace(part, journal=str(self.directory / f"{name}.journal"))
        stderr = self.directory / f"{name}.stderr"
        journal = Journal(Path(part.journal))
        # So that a process which is killed before it looks has logged nothing.
        journal.words[words.BEGUN] = journal.words[words.RETURNED] = journal.words[words.FIRST] = part.first
        with stderr.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, part.dump()],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment(),
            )
        life = Life(part, journal, stderr, process)
        if part.end == "beside":
            self.others.append(life)
        else:
            self.lives.append(life)
            self._current[part.writer] = life
        return life

    def again(self, life: Life, **given: Any) -> Life:
        """The next life of a writer that has ended: it goes on with the step after the last."""
        begun, per_step = life.journal.words[words.BEGUN], life.part.per_step
        first = (begun + per_step - 1) // per_step * per_step
        return self.begin(replace(life.part, life=life.part.life + 1, first=first, **given))

    @property
    def current(self) -> list[Life]:
        """The last life of each writer."""
        return list(self._current.values())

    @property
    def streaming(self) -> list[Life]:
        """Those that have a run and are alive."""
        return [life for life in self.current if life.alive and life.journal.words[words.STARTED]]

    def wait_streaming(self) -> None:
        """Until all log, and something of each is acknowledged."""
        for life in self.current:
            life.wait_until(lambda it: it.progress > 0, "acknowledged record")

    def wait_acked(self) -> float:
        """Until each has something more acknowledged. Returns the seconds."""
        began = time.monotonic()
        seen = [(life, life.progress) for life in self.streaming]
        for life, progress in seen:
            life.wait_until(lambda it, before=progress: it.progress > before, "further acknowledgement")  # type: ignore[misc]
        return time.monotonic() - began

    def finish(self, codes: tuple[int, ...] = (0,)) -> None:
        """Tells all that live to come to their end, and waits for it."""
        alive = [life for life in [*self.current, *self.others] if life.alive]
        for life in alive:
            life.stop()
        for life in alive:
            code = life.wait()
            assert code in codes, f"exit code {code}: {life.journal}\n{life.said}"

    def close(self) -> None:
        """Kills whoever still lives."""
        for life in [*self.lives, *self.others]:
            if life.alive:
                life.kill()
