"""One campaign's PostgreSQL, servers, network and writers; the record of what was struck; the end, and the count."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from campaign import count
from campaign import journal as words
from campaign.count import Tally
from campaign.ground import Ground
from campaign.journal import Journal, Latency, latency
from campaign.proxy import Proxy
from campaign.troupe import Life, Troupe, environment
from campaign.writer import Part
from servers import ServerProcess

_SECONDS = 240
_LONGEST_PAUSE = 1.0  # between faults
_HEAVIEST = 1 << 30  # bytes of a server: sixteen times what it may buffer
_GONE = "ExecuteBatchError"  # so gRPC calls a message to a client that has just left: that is no bug
_MEETING = 2.0  # seconds
_WHEN_UNACKED = 0.9  # of the faults struck, so many have to meet somebody unacknowledged


@dataclass(frozen=True, slots=True)
class Size:
    """How long a campaign goes on: as many faults, and as many points; and how many writers log how quickly."""

    faults: int
    points: int = 0
    writers: int = 3
    width: int = 100
    rate: float = 100.0

    def times(self, scale: float) -> Size:
        """As many times the faults and points."""
        return replace(self, faults=max(1, round(scale * self.faults)), points=round(scale * self.points))


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault, and whether a writer had something unacknowledged then."""

    at: float
    kind: str
    detail: str
    unacked: bool

    def __str__(self) -> str:
        return f"{self.at:9.3f} s  {self.kind}{f' ({self.detail})' if self.detail else ''}, {'un' * self.unacked}acked"


@dataclass(slots=True)
class Outcome:
    """What a campaign has shown."""

    faults: Counter[str]
    tally: Tally
    latency: Latency | None  # None: its writers were stopped, so that it says nothing
    beside: Latency | None
    heaviest: int  # bytes of memory that a server had
    recoveries: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)  # ms that start_run took
    seconds: float = 0.0


class Stage:
    """Of one campaign. What goes by chance goes by `chance`, which is seeded."""

    def __init__(self, directory: Path, ground: Ground, seed: int, size: Size, closing: ExitStack) -> None:
        self.directory = directory
        self.ground = ground
        self.seed = seed
        self.size = size
        self.chance = random.Random(seed)
        self.database = closing.enter_context(ground.database())
        self.dsn = ground.dsn(self.database)
        self.spool = directory / "spool"
        self.troupe = Troupe(directory)
        self.servers: list[ServerProcess] = []
        self.strikes: list[Strike] = []
        self.recoveries: list[float] = []
        self.heaviest = 0  # bytes of memory that a server had
        self.measures = True  # whether the time that calls took says something of Penstock
        self.beside: list[tuple[Part, Journal]] = []  # what logged in the writers' processes, beside them
        self._began = time.monotonic()
        self._closing = closing
        closing.callback(self.troupe.close)

    # What is there.

    def server(self, *args: str) -> ServerProcess:
        """One more replica, ready."""
        server = ServerProcess(self.directory / f"server-{len(self.servers)}", *args, dsn=self.dsn)
        self.servers.append(server.start())
        self._closing.callback(server.kill)  # not stopped: PostgreSQL may be down, and a drain long
        return server.wait_ready()

    def proxy(self, server: ServerProcess) -> Proxy:
        """A network before a server."""
        return self._closing.enter_context(Proxy(server.grpc_address))

    def part(self, writer: int, url: str, **given: object) -> Part:
        """What a writer is to do; of a run of its own, unless `run_id` says which."""
        size, made = self.size, uuid.UUID(int=self.chance.getrandbits(128), version=4)
        settled: dict[str, object] = {
            "run_id": str(made),
            "spool": str(self.spool),
            "width": size.width,
            "rate": size.rate,
            "patient": writer % 2 == 0,
        }
        return Part(writer=writer, life=0, url=url, journal="", **(settled | given))  # type: ignore[arg-type]

    def begin(self, url: str, *more: str, **given: object) -> list[Life]:
        """All writers, streaming; `more` are the servers of the others among them, in turn."""
        urls = (url, *more)
        writers = range(1, self.size.writers + 1)
        lives = [self.troupe.begin(self.part(each, urls[each % len(urls)], **given)) for each in writers]
        self.troupe.begin(self.part(0, url, end="beside"))
        self.troupe.wait_streaming()
        return lives

    # Harm.

    def rounds(self, pause: float = _LONGEST_PAUSE) -> Iterator[int]:
        """One round a fault: after a while, in which the writers may or may not get over the last one."""
        number = 0
        while len(self.strikes) < self.size.faults or self.logged < self.size.points:
            time.sleep(self.chance.uniform(0.05, pause))
            if self.chance.random() < 0.5:
                self.recover()
            yield number
            number += 1
            assert number < 100 * (self.size.faults + 1000), "no end of it"

    def recover(self) -> None:
        """Until each writer has something acknowledged again."""
        self.recoveries.append(self.troupe.wait_acked())

    def strike(self, kind: str, detail: object = "", *, unacked: bool | None = None) -> None:
        """To be called right before a fault. Waits a little for a moment in which it meets somebody unacknowledged."""
        until = time.monotonic() + _MEETING
        while unacked is None:
            met = any(life.unacked for life in self.troupe.streaming)
            unacked = met if met or time.monotonic() > until else None
            time.sleep(0 if met else 0.001)
        self._weigh()
        self.strikes.append(Strike(time.monotonic() - self._began, kind, str(detail), unacked))

    def _weigh(self) -> None:
        """What the servers take up, right now."""
        for server in self.servers:
            with suppress(psutil.NoSuchProcess):
                self.heaviest = max(self.heaviest, psutil.Process(server.pid).memory_info().rss)

    @property
    def logged(self) -> int:
        """About how many points the writers have logged."""
        return sum(
            (life.journal.words[words.RETURNED] - life.journal.words[words.FIRST]) * life.part.width
            for life in self.troupe.lives
        )

    # The end.

    def sync(self, *args: str, codes: tuple[int, ...] = (0,)) -> str:
        """`penstock sync` of this campaign's spools. Returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "penstock.cli", "sync", "--dir", str(self.spool), *args],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode in codes, f"penstock sync {args}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def finish(self) -> None:
        """All writers come to their end with everything committed, and say so unless something was refused."""
        self.troupe.finish()
        for life in self.troupe.current:
            if life.part.end == "finish":
                state = life.journal.words
                said = 2 if state[words.REFUSED] or state[words.REJECTED] else 1
                assert state[words.ENDED] == said, f"finish did not say so: {life.journal}\n{life.said}"
                assert not state[words.UNACKED], f"finish has left something: {life.journal}\n{life.said}"

    def outcome(self) -> Outcome:
        """Counts. Raises AssertionError for whatever is not as it has to be."""
        lives = [(life.part, life.journal) for life in self.troupe.lives] + self.beside
        tally = self.ground.run(count.count(self.dsn, lives))
        problems = list(tally.problems)
        problems += [
            f"{life.stderr.name} has a traceback:\n{life.said}"
            for life in self.troupe.lives
            if "Traceback" in life.said and life.part.end != "exception"
        ]
        problems += [
            f"{server.data_dir.name} had a bug:\n{line}"
            for server in self.servers
            for line in log_of(server).splitlines()
            if "internal error" in line and _GONE not in line
        ]
        struck = sum(strike.unacked for strike in self.strikes)
        if struck < _WHEN_UNACKED * len(self.strikes):
            problems.append(f"invalid: {struck} of {len(self.strikes)} faults met somebody unacknowledged")
        if self.heaviest > _HEAVIEST:
            problems.append(f"a server took {self.heaviest >> 20} MiB of memory")
        if len(self.strikes) < self.size.faults:
            problems.append(f"invalid: {len(self.strikes)} faults, {self.size.faults} were wanted")
        if tally.lost or tally.doubled:
            problems.insert(0, f"{tally.lost} lost, {tally.doubled} doubled of {tally.points} points")
        assert not problems, "\n".join(problems)
        return Outcome(
            Counter(strike.kind for strike in self.strikes),
            tally,
            latency([journal for _, journal in lives]) if self.measures else None,
            latency([life.journal for life in self.troupe.others]) if self.measures and self.troupe.others else None,
            self.heaviest,
            self.recoveries,
            [
                life.journal.words[words.STARTED] / 1e6
                for life in self.troupe.lives
                if life.journal.words[words.STARTED]
            ],
            time.monotonic() - self._began,
        )

    def story(self) -> str:
        """What is needed to understand a failure, and to have it again."""
        lines = [f"seed {self.seed}, {self.size}", "", "Faults:", *map(str, self.strikes[-60:]), "", "Writers:"]
        for life in self.troupe.lives[-40:]:
            lines += [f"{life.journal}, exit {life.process.poll()}", *(f"    {each}" for each in _end(life.said, 6))]
        for server in self.servers:
            lines += ["", f"{server.data_dir.name}:", *_end(log_of(server), 25)]
        return "\n".join([*lines, "", "PostgreSQL:", self.ground.log])


def log_of(server: ServerProcess) -> str:
    """All that a server has said, in all of its lives."""
    return (server.data_dir.parent / f"{server.data_dir.name}.log").read_text(errors="replace")


def _end(text: str, lines: int) -> list[str]:
    return [line[:500] for line in text.splitlines()[-lines:]]
