"""All of it together: what can happen next by itself, what can go wrong, and what must be true all along."""

from __future__ import annotations

import copy
import functools
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from penstock.spool import outbox, reader, spool
from penstock.v1 import metrics_pb2 as pb
from penstock_server.ingest import announcer, aside, ingest, pipeline
from penstock_server.postgres import changes, metrics, runs, segments, writers
from world import database
from world.clockwork import Clockwork
from world.database import Broken, Model, State, Statement
from world.network import Connection
from world.process import TIME_MS, Process, Writer
from world.replica import Replica

_REPLICAS = 2
_RUN_ID = f"{1:032x}"
_SQL = {
    writers: ["open_writer", "hold", "advance", "count_lost", "count_refused"],
    segments: ["append"],
    metrics: ["grow", "metric_ids"],
    runs: ["locate_active"],
    changes: ["notify_run"],
}
# From the worst of states everybody gets through in far fewer steps.
_STEPS_TO_HEAL = 20_000

Wrong = Callable[[pytest.MonkeyPatch, Model], None]


class World:
    """Two replicas on one database, and as many writers of one run as anybody starts."""

    def __init__(self, directory: Path, wrong: Wrong | None = None) -> None:
        self._patches = pytest.MonkeyPatch()
        for module, names in _SQL.items():
            for name in names:
                self._patches.setattr(module, name, getattr(database, name))
        self._patches.setattr(announcer, "notify_points", database.notify_points)
        self._patches.setattr(reader, "_PATIENCE", 0.0)
        self.model = Model()
        if wrong is not None:
            wrong(self._patches, self.model)
        self.clock = Clockwork()
        time = SimpleNamespace(monotonic=self.clock.time, perf_counter=self.clock.time, sleep=lambda seconds: None)
        for timed in (aside, ingest, pipeline, outbox, reader, spool):
            self._patches.setattr(timed, "time", time)
        self.replicas = [Replica(self.clock, self.model) for _ in range(_REPLICAS)]
        self.slow: Replica | None = None  # nothing arrives there, and its database does not answer
        self.links: list[tuple[Connection, Replica]] = []  # whatever a client has said may still arrive there
        self.writers: list[Writer] = []
        self.processes: list[Process] = []  # that live
        self._directory = directory
        self._steps = itertools.count(1)
        self._where: dict[int, tuple[Writer, int]] = {}  # of a step: whose it is, and its number there
        self.backup: State | None = None

    def close(self) -> None:
        """Lets go of everything."""
        for replica in self.replicas:
            replica.die()
        for process in self.processes:
            process.spool.release()
        self.clock.close()
        self._patches.undo()

    # What happens by itself.

    def possible(self, rng: random.Random) -> list[Callable[[], None]]:
        """The steps that can be next."""
        steps: list[Callable[[], None]] = []
        for process in self.processes:
            if process.over or process.fenced:
                continue
            if process.session is None:
                steps.append(functools.partial(self._connect, process, rng.randrange(_REPLICAS)))
                continue
            if process.talks:
                steps.append(functools.partial(process.say, self.clock.now))
            if process.connection is not None and process.connection.to_client:
                steps.append(functools.partial(process.hear, self.clock.now))
        for connection, replica in self.links:
            if connection.to_server and not connection.answered and replica is not self.slow:
                steps.append(connection.arrive)
        steps += [functools.partial(self.model.do, each) for each in self.model.ready if self._answers(each)]
        return steps

    def _answers(self, statement: Statement) -> bool:
        return self.slow is None or statement.transaction.server is not self.slow.database

    def go_on(self, count: int, rng: random.Random) -> None:
        """Some steps, any of those that are possible."""
        for _ in range(count):
            if self.clock.waiting and rng.random() < 0.1:
                self.wait(0.1)
            if steps := self.possible(rng):
                rng.choice(steps)()
                self.clock.settle()
                self.check()

    def _connect(self, process: Process, number: int) -> None:
        replica = self.replicas[number]
        connection = process.connect()
        self.links.append((connection, replica))
        replica.accept(connection)
        self.clock.settle()

    def wait(self, seconds: float) -> None:
        """Time passes for everybody."""
        self.clock.wait(seconds)
        for process in self.processes:
            process.idle = False
        for number, replica in enumerate(self.replicas):
            if replica.drained:
                self.kill_replica(number)

    # What people do.

    def start(self) -> None:
        """A process begins to log."""
        writer = Writer(self._directory, _RUN_ID, len(self.writers) + 1)
        self.writers.append(writer)
        self.processes.append(Process.first(writer))

    def log(self, process: Process, count: int) -> None:
        for _ in range(count):
            step = next(self._steps)
            process.log(step)
            self._where[step] = process.writer, len(process.writer.steps)

    def take_over(self, writer: Writer) -> None:
        """Another process sends what is there, whether the one before is gone or only seems to be."""
        self.processes.append(Process.heir(writer))

    def reclaim(self) -> None:
        """Who was fenced goes on where nobody else is left."""
        for process in self.processes:
            others = [each for each in self.processes if each.writer is process.writer and each is not process]
            if process.fenced and all(each.over or each.fenced for each in others):
                process.reclaim()

    def drain(self, number: int) -> None:
        """A replica is stopped in good order; another takes its place when it is done."""
        self.replicas[number].drain()

    # What goes wrong.

    def slow_down(self, number: int) -> None:
        """One replica, until it is another's turn, or with a higher number nobody's."""
        self.slow = self.replicas[number] if number < _REPLICAS else None

    def change_replica(self, process: Process, number: int) -> None:
        """It gives its connection up, which nobody notices, and opens another."""
        self._connect(process, number)

    def notice(self, at: int) -> None:
        """A replica finds that a connection is broken."""
        connection, replica = self.links.pop(at)
        replica.notice(connection)

    def lose(self, connection: Connection, *, to_server: bool) -> None:
        """The next message of a direction."""
        if to_server and connection.to_server:
            connection.to_server.popleft()
        elif not to_server and connection.to_client and isinstance(connection.to_client[0], bytes):
            connection.to_client.popleft()

    def double(self, connection: Connection, *, to_server: bool) -> None:
        """The next message of a direction, if it is a batch or an Ack. A shape's number is its place on the stream, so
        no batch that defines one; that is why a client sends it again on another stream only."""
        if to_server and connection.to_server:
            request = pb.StreamMetricsRequest.FromString(connection.to_server[0])
            if request.HasField("batch") and not request.batch.new_shapes:
                connection.to_server.appendleft(connection.to_server[0])
        elif not to_server and connection.to_client:
            answer = connection.to_client[0]
            if isinstance(answer, bytes) and pb.StreamMetricsResponse.FromString(answer).HasField("ack"):
                connection.to_client.appendleft(answer)

    def sever(self, statement: Statement) -> None:
        """A replica's connection to the database breaks; whether a COMMIT was done is seen later."""
        if statement.answer is not None:
            self.model.sever(statement)
            self.clock.settle()

    def give_up(self, statement: Statement) -> None:
        """What waits for a row that another holds does not wait for ever."""
        if statement.answer is not None and statement not in self.model.ready:
            self.model.give_up(statement)
            self.clock.settle()

    def undo(self, statement: Statement) -> None:
        """A COMMIT that nobody listens to was not done, as is seen now."""
        if statement.answer is None:
            self.model.undo(statement)

    def kill_replica(self, number: int) -> None:
        """And another begins in its place."""
        dead = self.replicas[number]
        dead.die()
        self.links = [link for link in self.links if link[1] is not dead]
        self.replicas[number] = Replica(self.clock, self.model)

    def kill(self, process: Process, torn: int) -> None:
        """And of what it was just writing, a part is there."""
        process.die(torn)
        self.processes.remove(process)

    def back_up(self) -> None:
        self.backup = copy.deepcopy(self.model.state)

    def restore(self) -> None:
        """The last backup, with all servers down, as it is to be done."""
        assert self.backup is not None
        for number in range(_REPLICAS):
            self.kill_replica(number)
        self.model.restore(self.backup)
        self.links.clear()
        for process in self.processes:
            process.disconnect()
        for writer in self.writers:
            row = self.model.state.writers.get(writer.writer_id)
            writer.acked = min(writer.acked, row.hwm if row else 0)
        # Who was told that all is committed, does not ask again.
        for writer in self.writers:
            writer.forgotten |= writer.sent

    # What must be true.

    def check(self) -> None:
        """After every step. Raises Broken."""
        for replica in self.replicas:
            replica.check()
        state = self.model.state
        seen: set[int] = set()
        last: dict[Writer, int] = {}
        for point in state.points:
            if point.step in seen:
                raise Broken(f"record {point.step} is there twice")
            seen.add(point.step)
            if point.step not in self._where or (point.time_ms, point.value) != (TIME_MS, point.step):
                raise Broken(f"{point} was never logged")
            writer, number = self._where[point.step]
            if number < last.get(writer, 0):
                raise Broken(f"record {number} of a writer came after record {last[writer]}")
            last[writer] = number
        if state.summed != len(state.points):
            raise Broken(f"the summaries tell of {state.summed} points, and there are {len(state.points)}")
        for writer in self.writers:
            missing = set(writer.steps[: writer.acked]) - seen - writer.damaged
            if missing:
                raise Broken(f"{missing} were acknowledged and are not there")

    def heal(self, rng: random.Random) -> None:
        """Nothing goes wrong any more: everybody gets through, and everything that was logged is there."""
        self.slow = None
        for statement in list(self.model.asked):
            self.sever(statement)
        for statement in list(self.model.asked):
            rng.choice([self.model.do, self.model.undo])(statement)
        for number in range(_REPLICAS):
            self.kill_replica(number)
        for process in self.processes:
            process.disconnect()
            process.finish()
        for _ in range(_STEPS_TO_HEAL):
            self.reclaim()
            if all(process.over for process in self.processes):
                left = [writer for writer in self.writers if not writer.sent]
                if not left:
                    break
                for writer in left:
                    self.take_over(writer)
            self.wait(0.1)
            if steps := self.possible(rng):
                rng.choice(steps)()
                self.clock.settle()
        else:
            raise Broken("not everybody gets through")
        self.check()
        self._count()

    def _count(self) -> None:
        there = {point.step for point in self.model.state.points}
        for writer in self.writers:
            missing = set(writer.steps) - there
            if writer.forgotten:
                continue
            if missing - writer.damaged:
                raise Broken(f"{missing - writer.damaged} were logged and are not there")
            told = self.model.state.lost.get(writer.writer_id, 0)
            # Of damaged records at the very end it may be that nothing tells.
            sound = [step for step in writer.steps if step not in writer.damaged]
            within = {step for step in missing if sound and step < sound[-1]}
            if not len(within) <= told <= len(missing):
                raise Broken(f"{told} records are told to be lost, and {missing} are")
