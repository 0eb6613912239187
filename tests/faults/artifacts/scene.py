"""One campaign's servers, store, uploaders and onlookers; the record of what was struck; the sweep, and the count."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
from campaign.ground import Ground
from campaign.proxy import Proxy
from campaign.stage import log_of

from artifacts.accounts import accounts
from artifacts.crew import Crew, Member, Raw
from artifacts.depots import Bucket, Directory
from artifacts.ledger import Ledger
from artifacts.onlooker import Onlooker
from artifacts.sender import Sender
from artifacts.sweep import sweep
from penstock.v1 import runs_pb2 as ru
from penstock.v1.runs_pb2_grpc import RunServiceStub
from servers import ServerProcess

_SECONDS = 60
_BUSY = 0.9  # of the faults, so many have to strike while a file is under way


@dataclass(frozen=True, slots=True)
class Size:
    """How long a campaign goes on, with how many uploaders, of files up to how many bytes."""

    faults: int
    members: int = 2
    largest: int = 20 << 20

    def times(self, scale: float) -> Size:
        """As many times the faults."""
        return replace(self, faults=max(1, round(scale * self.faults)))


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault, and whether a file was under way then."""

    at: float
    kind: str
    busy: bool

    def __str__(self) -> str:
        return f"{self.at:9.3f} s  {self.kind}, {'busy' if self.busy else 'idle'}"


@dataclass(slots=True)
class Outcome:
    """What a campaign has shown. Bytes are those of the artifacts that were uploaded."""

    faults: Counter[str]
    uploads: int = 0
    bytes: int = 0
    sent: int = 0  # bytes, again and again
    tries: int = 0
    resumed: int = 0  # tries that went on after what was stored
    looks: int = 0
    downloads: int = 0
    swept: int = 0  # what the sweeper found
    partial: int = 0
    orphans: int = 0
    seconds: float = 0.0


class Scene:
    """Of one campaign, with a run. What goes by chance goes by `chance`, which is seeded."""

    def __init__(
        self,
        directory: Path,
        dsn: str,
        depot: Directory | Bucket,
        closing: ExitStack,
        *,
        seed: int = 0,
        size: Size = Size(1),
        ground: Ground | None = None,
    ) -> None:
        self.directory = directory
        self.dsn = dsn
        self.depot = depot
        self.size = size
        self.ground = ground
        self.chance = random.Random(seed)
        self.ledger = Ledger()
        self.servers: list[ServerProcess] = []
        self.acting: list[ServerProcess] = []  # those of them that are used
        self.strikes: list[Strike] = []
        self.run_id = ""
        self._crew: Crew | None = None
        self._counts: Counter[str] = Counter()  # what members and senders have done
        self._members: list[Member] = []
        self._onlookers: list[Onlooker] = []
        self._closing = closing
        self._began = time.monotonic()

    def replicas(self, count: int = 1, **environment: str) -> list[ServerProcess]:
        """So many servers, ready, each with an onlooker. Those that are there already are taken first."""
        missing = range(len(self.servers), count)
        self.servers += [self._start(number, environment) for number in missing]
        for number in missing:
            self.servers[number].wait_ready()
        if not self.acting:
            with self.servers[0].channel() as channel:
                self.run_id = RunServiceStub(channel).CreateRun(ru.CreateRunRequest()).run.run_id
        for server in self.servers[len(self.acting) : count]:
            self.look(server.grpc_address)
        self.acting = self.servers[:count]
        return self.acting

    def _start(self, number: int, environment: Mapping[str, str]) -> ServerProcess:
        given = {**self.depot.environment, **environment}
        server = ServerProcess(self.directory / f"server-{number}", dsn=self.dsn, env=given).start()
        self._closing.callback(server.kill)
        return server

    def again(self, size: Size, seed: int) -> None:
        """For another campaign with the same store, database and servers."""
        self.size = size
        self.chance = random.Random(seed)
        self.ledger = Ledger()
        self.acting, self.strikes, self._onlookers, self._members, self._crew = [], [], [], [], None
        self._counts.clear()
        self._began = time.monotonic()

    def proxy(self, server: ServerProcess) -> Proxy:
        """A network before a server."""
        return self._closing.enter_context(Proxy(server.grpc_address))

    def look(self, address: str) -> Onlooker:
        """Somebody looks at the run from now on, by way of this address."""
        onlooker = Onlooker(address, self.run_id, self.ledger, len(self._onlookers))
        self._onlookers.append(onlooker)
        self._closing.callback(onlooker.close)
        return onlooker

    def address(self) -> str:
        """Of one replica, by chance, as a load balancer may choose it."""
        return self.chance.choice(self.acting).grpc_address

    def begin(self, *members: Member) -> Crew:
        """Uploaders at work; if not told which, those that know gRPC themselves."""
        self._members = list(members) or [Raw(self.address, self.run_id) for _ in range(self.size.members)]
        self._crew = Crew(self._members, self.ledger, self.chance.getrandbits(64), self.size.largest)
        self._closing.callback(self._crew.close)
        return self._crew

    def rounds(self, pause: float = 0.5, *, parts: bool = True) -> Iterator[int]:
        """One round a fault, each when a file is under way; with `parts`, mostly when some of them are stored."""
        assert self._crew is not None
        for number in range(self.size.faults):
            time.sleep(self.chance.uniform(0, pause))
            self._crew.wait_busy()
            if parts and self.chance.random() < 0.8:
                self.wait_stored(1)
            yield number

    def count(self, worker: Member | Sender) -> None:
        """Its tries, and what it has sent, are part of the outcome."""
        self._counts += Counter(tries=worker.tries, resumed=worker.resumed, sent=worker.sent)

    def strike(self, kind: str) -> None:
        """To be called right before a fault."""
        self.strikes.append(Strike(time.monotonic() - self._began, kind, self._crew is None or self._crew.busy))

    def outcome(self) -> Outcome:
        """Everything comes to its end; then the books. Raises AssertionError for whatever is not as it has to be."""
        if self._crew is not None:
            self._crew.finish()
        for member in self._members:
            self.count(member)
        last = self.look(self.acting[-1].grpc_address)
        for onlooker in self._onlookers:
            onlooker.close()
        before = asyncio.run(accounts(self.dsn, self.depot))
        asyncio.run(sweep(self.dsn, self.depot))
        after = asyncio.run(accounts(self.dsn, self.depot))
        seen = [problem for onlooker in self._onlookers for problem in onlooker.problems]
        problems = [*seen, *before.wrong, *after.problems]
        problems += [
            f"{server.data_dir.name} had a bug:\n{line}"
            for server in self.servers
            for line in log_of(server).splitlines()
            if "internal error" in line or "Traceback" in line
        ]
        if not last.looks:
            problems.append("nobody could look at the end")
        busy = sum(strike.busy for strike in self.strikes)
        if busy < _BUSY * len(self.strikes):
            problems.append(f"invalid: {busy} of {len(self.strikes)} faults struck while a file was under way")
        assert not problems, "\n".join(problems[:50])
        uploads = [each for each in self.ledger.uploads if each.done < time.monotonic()]
        return Outcome(
            Counter(strike.kind for strike in self.strikes),
            uploads=len(uploads),
            bytes=sum(each.size for each in uploads),
            sent=self._counts["sent"],
            tries=self._counts["tries"],
            resumed=self._counts["resumed"],
            looks=sum(onlooker.looks for onlooker in self._onlookers),
            downloads=sum(onlooker.downloads for onlooker in self._onlookers),
            swept=len(before.orphans),
            partial=len(seen),
            orphans=len(after.orphans),
            seconds=time.monotonic() - self._began,
        )

    def story(self) -> str:
        """What is needed to understand a failure."""
        lines = [f"run {self.run_id}, {self.size}", "Faults:", *map(str, self.strikes[-40:])]
        for server in self.servers:
            lines += ["", f"{server.data_dir.name}:", *(line[:500] for line in log_of(server).splitlines()[-25:])]
        return "\n".join(lines)

    def stored(self) -> int:
        """How many parts are stored of uploads that are under way."""

        async def ask() -> int:
            conn = await asyncpg.connect(self.dsn)
            try:
                return int(await conn.fetchval("SELECT count(*) FROM artifact_parts"))
            finally:
                await conn.close()

        with suppress(OSError, asyncpg.PostgresError):
            return asyncio.run(ask())
        return 0  # it is away

    def wait_stored(self, count: int) -> None:
        """Until so many are."""
        deadline = time.monotonic() + _SECONDS
        while self.stored() < count:
            assert time.monotonic() < deadline, f"{self.stored()} parts are stored, {count} are awaited"
            time.sleep(0.02)
