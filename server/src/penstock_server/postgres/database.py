"""The connections to PostgreSQL: the pool, connections of one's own, and what every one of them is set to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import asyncpg
from asyncpg import Connection
from asyncpg import Record as Row
from asyncpg.transaction import Transaction

from penstock_server.model.errors import FailedPrecondition, Unavailable
from penstock_server.postgres import sqlstate

__all__ = ["Connection", "Database", "Row", "Transaction", "connect", "limit_locks", "translated"]

OLDEST = 15

# How long a statement may take, in seconds. The server cancels it first; should the server not be there
# to do so, asyncpg gives up a little later.
STATEMENT_SECONDS = 30.0
_GRACE_SECONDS = 5.0
_CONNECT_SECONDS = 10.0
_ACQUIRE_SECONDS = 10.0
_READY_SECONDS = 2.0
# Waiting for what another holds keeps a connection of the pool from those who need it for something else.
_LOCK_SECONDS = 3.0
_CLOSE_SECONDS = 5.0

_SETTINGS = "SELECT current_setting('synchronous_commit'), current_setting('server_encoding')"


class Database:
    """A pool of connections. What PostgreSQL or the network raises inside its contexts leaves them as model.errors."""

    def __init__(self, dsn: str, pool: asyncpg.Pool, unsettled: set[int]) -> None:
        self._dsn = dsn
        self._pool = pool
        self._unsettled = unsettled
        self._waiting = asyncio.Semaphore(max(1, pool.get_max_size() // 2))
        self._probe: Connection | None = None
        self._probing = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, dsn: str, *, max_connections: int = 10) -> Database:
        """Connects. Raises Unavailable when there is no answer, FailedPrecondition when Penstock cannot work there."""
        # Outside the pool first: what is wrong with the address or the server is said plainly, once.
        conn = await connect(dsn)
        await conn.close()
        unsettled: set[int] = set()

        async def leave(conn: Connection) -> None:
            """asyncpg has rolled back, and Penstock leaves no other state in a session."""
            if (pid := conn.get_server_pid()) in unsettled:
                unsettled.discard(pid)
                await conn.execute("SELECT")

        with translated():
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=max_connections,
                timeout=_CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS + _GRACE_SECONDS,
                server_settings=_server_settings(STATEMENT_SECONDS, _LOCK_SECONDS),
                init=_vet_another,
                reset=leave,
            )
        return cls(dsn, pool, unsettled)

    async def close(self) -> None:
        """Waits a few seconds for connections in use, then cuts them. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._drop_probe()
        try:
            await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
        except TimeoutError:
            self._pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A pooled connection; each statement is a transaction of its own. Raises Unavailable."""
        with translated():
            async with self._pool.acquire(timeout=_ACQUIRE_SECONDS) as conn:
                try:
                    yield conn
                except asyncpg.InternalClientError:
                    conn.terminate()  # it no longer knows its own state; the pool makes another
                    raise
                except asyncpg.ReadOnlySQLTransactionError:
                    conn.terminate()  # it may have been made while the database was set to that, and keeps it
                    raise
                except (asyncpg.InterfaceError, asyncpg.DataError, asyncio.CancelledError):
                    # asyncpg has a statement parsed, and then encodes its arguments, before it sends what ends the
                    # transaction that PostgreSQL has begun with that. What fails in between leaves it open, unknown to
                    # asyncpg; another statement ends it.
                    with contextlib.suppress(asyncpg.InterfaceError):  # it is closed
                        self._unsettled.add(conn.get_server_pid())
                    raise

    @contextlib.asynccontextmanager
    async def transaction(self, *, snapshot: bool = False, read_only: bool = False) -> AsyncIterator[Connection]:
        """A pooled connection in one transaction; a `snapshot` sees one state all along. Raises Unavailable."""
        async with self.connection() as conn:
            isolation = "repeatable_read" if snapshot else "read_committed"
            async with conn.transaction(isolation=isolation, readonly=read_only):
                yield conn

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncIterator[Connection]:
        """A transaction that may have to wait for a run's rows. Such have half of the pool at most. Raises Unavailable.

        Somebody may hold the rows for long, and all the writers of a run come again and again to wait for them.
        """
        with translated():
            async with asyncio.timeout(_ACQUIRE_SECONDS):
                await self._waiting.acquire()
        try:
            async with self.transaction() as conn:
                yield conn
        finally:
            self._waiting.release()

    async def connect(
        self, *, statement_seconds: float = STATEMENT_SECONDS, lock_seconds: float | None = None
    ) -> Connection:
        """A connection of one's own, out of the pool, which the caller closes. Raises Unavailable, whatever is wrong.

        With `lock_seconds` a statement that waits longer than that for what another holds is given up. Statements raise
        what asyncpg raises; `sqlstate` says what that means.
        """
        with _passing():
            return await _connect(self._dsn, statement_seconds, lock_seconds)

    async def ready(self) -> None:
        """Returns when the database answers. Raises Unavailable within a few seconds when it does not.

        Asks on a connection kept for this: that all of the pool are in use is no sign of a database that is away.
        """
        try:
            async with asyncio.timeout(_READY_SECONDS), self._probing:
                await self._ask()
        except TimeoutError:
            raise Unavailable("the database does not answer", 1.0) from None

    async def _ask(self) -> None:
        try:
            if self._probe is None or self._probe.is_closed():
                self._probe = await self.connect(statement_seconds=_READY_SECONDS)
            if self._closed:
                raise Unavailable("the connections to the database are closed", 1.0)
            with translated():
                await self._probe.execute("SELECT")
        except BaseException:
            self._drop_probe()  # it may be in the middle of an answer
            raise

    def _drop_probe(self) -> None:
        if self._probe is not None:
            self._probe.terminate()
            self._probe = None


async def connect(dsn: str, *, statement_seconds: float | None = STATEMENT_SECONDS) -> Connection:
    """A first connection, set as all are. Raises Unavailable; FailedPrecondition when Penstock cannot work there."""
    try:
        return await _connect(dsn, statement_seconds)
    except Unavailable as error:
        refusal = error.__cause__
        if isinstance(refusal, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError):
            raise FailedPrecondition(f"cannot connect to PostgreSQL: {refusal}; correct database_url") from error
        raise


async def _connect(dsn: str, statement_seconds: float | None, lock_seconds: float | None = None) -> Connection:
    with translated():
        try:
            conn = await asyncpg.connect(
                dsn,
                timeout=_CONNECT_SECONDS,
                command_timeout=None if statement_seconds is None else statement_seconds + _GRACE_SECONDS,
                server_settings=_server_settings(statement_seconds, lock_seconds),
            )
        except ValueError as error:
            raise FailedPrecondition(f"cannot connect to PostgreSQL: {error}; correct database_url") from error
        try:
            await _vet(conn)
        except BaseException:
            conn.terminate()
            raise
    return conn


@contextlib.contextmanager
def _passing() -> Iterator[None]:
    """Inside, what Penstock cannot work with is Unavailable: it could once, so an operator's work is under way."""
    try:
        yield
    except FailedPrecondition as error:
        raise Unavailable(f"the database cannot be used at the moment: {error}", 5.0) from error


async def _vet(conn: Connection) -> None:
    """Refuses a server on which Penstock would not work, or would break its promise."""
    version = conn.get_server_version()
    if version.major < OLDEST:
        raise FailedPrecondition(f"this is PostgreSQL {version.major}; Penstock needs {OLDEST} or later")
    synchronous_commit, encoding = await conn.fetchrow(_SETTINGS)
    if synchronous_commit == "off":
        raise FailedPrecondition(
            "synchronous_commit is off, so a crash would lose acknowledged points; turn it on, for instance by: "
            "ALTER ROLE … SET synchronous_commit = on"
        )
    if encoding != "UTF8":
        raise FailedPrecondition(f"the database's encoding is {encoding}; make one with ENCODING 'UTF8'")


async def _vet_another(conn: Connection) -> None:
    with _passing():
        await _vet(conn)


async def limit_locks(conn: Connection, seconds: float) -> None:
    """From here to the end of the transaction, gives up a statement that waits so long for what another holds."""
    await conn.execute(f"SET LOCAL lock_timeout = {round(seconds * 1000)}")


def _server_settings(statement_seconds: float | None, lock_seconds: float | None = None) -> dict[str, str]:
    return {
        "application_name": "penstock",
        "statement_timeout": str(round(1000 * (statement_seconds or 0))),
        "lock_timeout": str(round(1000 * (lock_seconds or 0))),
        # A process that was stopped in the middle of a transaction does not hold its locks for ever.
        "idle_in_transaction_session_timeout": "60s",
        # Our statements are short; compiling them takes longer than it saves.
        "jit": "off",
    }


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Inside, what PostgreSQL or the network raises leaves as model.errors; what `sqlstate` does not know, as it is."""
    try:
        yield
    except Exception as error:
        known = sqlstate.translate(error)
        if known is None:
            raise
        raise known from error
