"""PostgreSQL as a model: statements wait until a test has them answered, and a COMMIT's answer may never arrive.

What stands here is all that exactly-once needs of it: a transaction is seen whole or not at all, whoever changes a
writer's row holds it until the transaction ends, and who waited for a row sees it as it then is.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import numpy as np

from penstock_server.model.changes import RunRef
from penstock_server.model.errors import Fenced, Unavailable
from penstock_server.model.streams import Hello, WriterId
from penstock_server.postgres.metrics import Growth
from penstock_server.postgres.segments import NewSegment
from penstock_server.postgres.writers import Advance

COMMIT = "COMMIT"


class Broken(AssertionError):
    """The promise is broken; the message says how."""


@dataclass(frozen=True, slots=True)
class Point:
    """What a run has: a step, a time and a value."""

    step: int
    time_ms: int
    value: float


@dataclass(slots=True)
class Row:
    """A writer's."""

    hwm: int
    epoch: int


@dataclass
class State:
    """What is committed."""

    writers: dict[WriterId, Row] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    summed: int = 0  # how many points the summaries say there are
    lost: dict[WriterId, int] = field(default_factory=dict)


@dataclass(eq=False)
class Statement:
    """One that was sent. `work` is what it does; `needs` are the writers whose rows it locks first."""

    name: str
    transaction: Work
    work: Callable[[], Any]
    needs: frozenset[WriterId]
    answer: asyncio.Future[Any] | None  # None: nobody is there to hear it


@dataclass(eq=False)
class Work:
    """A transaction of a replica: what it has changed, and not committed."""

    server: Server | None = None
    holds: set[WriterId] = field(default_factory=set)
    rows: dict[WriterId, Row] = field(default_factory=dict)
    moves: list[Advance] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    summed: int = 0
    lost: dict[WriterId, int] = field(default_factory=dict)


class Model:
    """The database, and everything that was asked of it and is not answered."""

    def __init__(self) -> None:
        self.state = State()
        self.asked: list[Statement] = []
        self.compares = True  # wrong.py turns these off
        self.knows_epochs = True
        self._open: set[Work] = set()

    # For whoever decides what happens next.

    @property
    def ready(self) -> list[Statement]:
        """Those that wait for nobody's lock."""
        return [each for each in self.asked if not self._others(each.transaction) & each.needs]

    def do(self, statement: Statement) -> None:
        """It is done, and answered if anybody listens."""
        self.asked.remove(statement)
        statement.transaction.holds |= statement.needs
        try:
            result = statement.work()
        except Fenced as error:
            self._tell(statement, error)
        else:
            if statement.answer is not None and not statement.answer.done():
                statement.answer.set_result(result)

    def sever(self, statement: Statement) -> None:
        """The connection breaks. What was no COMMIT is undone; a COMMIT may be done later, and nobody hears of it."""
        self._tell(statement, asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"))
        statement.answer = None
        if statement.name != COMMIT:
            self.undo(statement)

    def give_up(self, statement: Statement) -> None:
        """It has waited too long for what another holds."""
        self.asked.remove(statement)
        self._tell(statement, asyncpg.LockNotAvailableError("canceling statement due to lock timeout"))

    def undo(self, statement: Statement) -> None:
        """Of those that nobody listens to: it is never done."""
        self.asked.remove(statement)
        self._open.discard(statement.transaction)

    def restore(self, state: State) -> None:
        """Everything is as it was then. Nobody may be connected."""
        self.state = copy.deepcopy(state)
        self.asked.clear()
        self._open.clear()

    # For connections.

    def begin(self, server: Server) -> Work:
        work = Work(server)
        self._open.add(work)
        return work

    def end(self, work: Work) -> None:
        """Rolled back, if it was not committed."""
        self._open.discard(work)

    def ask(self, name: str, work: Work, do: Callable[[], Any], needs: frozenset[WriterId] = frozenset()) -> Statement:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        statement = Statement(name, work, do, needs, answer)
        self.asked.append(statement)
        return statement

    def row(self, work: Work, writer_id: WriterId) -> Row | None:
        """As a transaction that holds it sees it."""
        return work.rows.get(writer_id) or self.state.writers.get(writer_id)

    def commit(self, work: Work) -> None:
        """All of it, at once."""
        self._open.discard(work)
        state = self.state
        for move in work.moves:
            if move.epoch < state.writers[move.writer_id].epoch:
                raise Broken(f"a flush of epoch {move.epoch} was committed after a higher one was welcomed")
        state.writers.update(work.rows)
        state.points += work.points
        state.summed += work.summed
        for writer_id, count in work.lost.items():
            state.lost[writer_id] = state.lost.get(writer_id, 0) + count

    def _others(self, work: Work) -> set[WriterId]:
        return {writer_id for each in self._open if each is not work for writer_id in each.holds}

    def _tell(self, statement: Statement, error: Exception) -> None:
        if statement.answer is not None and not statement.answer.done():
            statement.answer.set_exception(error)
            statement.answer.exception()  # who has died does not fetch it


class Server:
    """What one replica has of the database: connections, until the replica dies."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._connections: list[Connection] = []

    async def connect(self, **_: object) -> Connection:
        connection = Connection(self)
        self._connections.append(connection)
        return connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        yield await self.connect()

    @asynccontextmanager
    async def transaction(self, **_: object) -> AsyncIterator[Connection]:
        connection = await self.connect()
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield connection
            await transaction.commit()
        except (asyncpg.ConnectionDoesNotExistError, asyncpg.LockNotAvailableError) as error:
            raise Unavailable("the database is away", 1.0) from error
        finally:
            connection.terminate()

    def waiting(self) -> AbstractAsyncContextManager[Connection]:
        """As any; nobody here waits for his turn."""
        return self.transaction()

    def die(self) -> None:
        """Of what was asked, only a COMMIT may still be done."""
        for connection in self._connections:
            connection.terminate()


class Connection:
    """As much of asyncpg's as a flush uses; the SQL functions of `penstock_server.postgres` are those below."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.model = server.model
        self.work = Work()
        self._asked: Statement | None = None
        self._closed = False

    def is_closed(self) -> bool:
        return self._closed

    def terminate(self) -> None:
        self._closed = True
        if self._asked is not None and self._asked in self.model.asked:
            self.model.sever(self._asked)
        elif self._asked is None or self._asked.name != COMMIT:
            self.model.end(self.work)

    def transaction(self) -> Transaction:
        return Transaction(self)

    async def execute(self, setting: str) -> None:
        """How long a statement waits is not told to a model."""

    async def ask(self, name: str, do: Callable[[], Any], needs: frozenset[WriterId] = frozenset()) -> Any:
        if self._closed:
            raise asyncpg.InterfaceError("connection is closed")
        self._asked = self.model.ask(name, self.work, do, needs)
        assert self._asked.answer is not None
        try:
            return await self._asked.answer
        except asyncpg.ConnectionDoesNotExistError:
            self._closed = True
            raise


class Transaction:
    """asyncpg's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def start(self) -> None:
        if self._connection.is_closed():
            raise asyncpg.InterfaceError("connection is closed")
        self._connection.work = self._connection.model.begin(self._connection.server)

    async def commit(self) -> None:
        connection = self._connection
        work = connection.work
        await connection.ask(COMMIT, lambda: connection.model.commit(work))

    async def rollback(self) -> None:
        self._connection.model.end(self._connection.work)


# What stands in for the functions of penstock_server.postgres. A statement is a step; what is beside it is not.


async def open_writer(conn: Connection, workspace_id: object, principal: object, hello: Hello) -> int:
    model, work = conn.model, conn.work

    def do() -> int:
        row = model.row(work, hello.writer_id)
        if row is not None and row.epoch > hello.epoch and model.knows_epochs:
            raise Fenced(hello.writer_id.hex, row.epoch, hello.epoch)
        hwm = 0 if row is None else row.hwm
        epoch = hello.epoch if row is None else max(row.epoch, hello.epoch)
        work.rows[hello.writer_id] = Row(hwm, epoch)
        return hwm

    return int(await conn.ask("Hello", do, frozenset([hello.writer_id])))


async def hold(conn: Connection, writer_id: WriterId, epoch: int) -> None:
    model, work = conn.model, conn.work

    def do() -> None:
        row = model.row(work, writer_id)
        assert row is not None
        if row.epoch != epoch and model.knows_epochs:
            raise Fenced(writer_id.hex, row.epoch, epoch)

    await conn.ask("Finish", do, frozenset([writer_id]))


async def advance(conn: Connection, moves: Sequence[Advance]) -> set[WriterId]:
    model, work = conn.model, conn.work

    def do() -> set[WriterId]:
        moved = set()
        for move in moves:
            row = model.row(work, move.writer_id)
            assert row is not None
            same = row.hwm == move.lo or not model.compares
            if same and (row.epoch == move.epoch or not model.knows_epochs):
                work.rows[move.writer_id] = Row(move.hi, row.epoch)
                work.moves.append(move)
                moved.add(move.writer_id)
        return moved

    return set(await conn.ask("UPDATE writers", do, frozenset(move.writer_id for move in moves)))


async def append(conn: Connection, segments: Sequence[NewSegment]) -> None:
    work = conn.work
    points: list[Point] = []
    for segment in segments:
        steps, times_ms = _column(segment.steps, "<i8"), _column(segment.times_ms, "<i8")
        points += map(Point, steps, times_ms, _column(segment.values, "<f8"))
    await conn.ask("COPY", lambda: work.points.extend(points))


def _column(pieces: Sequence[Any], kind: str) -> list[Any]:
    return list(np.frombuffer(b"".join(map(bytes, pieces)), kind).tolist())


async def grow(conn: Connection, growth: Growth) -> None:
    conn.work.summed += int(growth.counts.sum())


async def count_lost(conn: Connection, run_id: object, lost: dict[WriterId, int]) -> None:
    for writer_id, count in lost.items():
        conn.work.lost[writer_id] = conn.work.lost.get(writer_id, 0) + count


async def count_refused(conn: Connection, writer_id: WriterId, refused: int) -> bool:
    return False


async def metric_ids(db: Server, run_id: object, names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(sorted(names))}


async def locate_active(conn: Connection, workspace_id: Any, run_id: Any) -> RunRef:
    return RunRef(workspace_id, 0, run_id)  # type: ignore[arg-type]


async def notify_run(conn: Connection, run: object) -> None: ...


async def notify_points(conn: Connection, refs: object) -> None: ...
