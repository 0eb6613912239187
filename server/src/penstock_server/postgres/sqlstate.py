"""What PostgreSQL's error codes mean to us: which errors pass, which are the data's fault, which are ours.

Constraint violations are not here: the statement that can meet one knows what its constraint says.
"""

from __future__ import annotations

import enum

import asyncpg

from penstock_server.model.errors import PenstockError, Retryable, Unavailable


class Verdict(enum.Enum):
    """What to do with work that met an error."""

    RETRY = "the same again will succeed later"
    HELD = "another holds a row that it needs, and has not let go of it in time"
    REFUSE = "it is the data's fault"
    FATAL = "it is ours"


# SQLSTATEs, or their beginnings.
_AWAY = (
    "08",  # connection exception
    "25P03",  # idle in a transaction for too long: this process was stopped meanwhile
    "28",  # not let in: a password is being changed
    "3D000",  # the database is not there: it is being restored
    "53",  # out of connections, memory, disk
    "57014",  # the statement timeout
    "55000",  # the database takes no connections: it is being restored or dropped
    "57P",  # shutting down, starting up
)
_READ_ONLY = ("25006",)  # a standby, or an operator's hand
_HELD = "55P03"  # lock not available
_CONTENDED = ("40", _HELD)  # serialization failure, deadlock
_DATA = ("22", "23", "54")  # data exceptions, integrity violations, program limits


def translate(error: BaseException) -> PenstockError | None:
    """The error of our vocabulary that this one is, with words for the caller; None when it is none."""
    if isinstance(error, asyncpg.PostgresError):
        state: str = error.sqlstate or ""
        if state.startswith(_CONTENDED):
            return Unavailable("another request held the same thing; nothing was changed", 0.1)
        if state.startswith(_READ_ONLY):
            return Unavailable("the database is read-only at the moment; nothing was changed", 5.0)
        if state == "57014":
            return Unavailable("the database took too long; nothing was changed", 1.0)
        # A prepared statement that a migration has outdated is prepared anew on the next call.
        if state.startswith(_AWAY) or isinstance(error, asyncpg.InvalidCachedStatementError):
            return Unavailable("the database is away or takes no connections at the moment", 1.0)
        return None
    if isinstance(error, OSError) or _closed(error):
        return Unavailable("the database is away or all connections to it are busy", 1.0)
    return None


def verdict(error: BaseException) -> Verdict:
    """What to do with the work that met `error`. Raises it again when it is not the database's."""
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == _HELD:
        return Verdict.HELD
    if isinstance(error, Retryable) or translate(error) is not None:
        return Verdict.RETRY
    if isinstance(error, asyncpg.PostgresError):
        return Verdict.REFUSE if (error.sqlstate or "").startswith(_DATA) else Verdict.FATAL
    raise error


def _closed(error: BaseException) -> bool:
    """asyncpg tells a connection or pool that is gone from misuse by its words alone.

    A connection that PostgreSQL ends between two statements is lost in the middle of asyncpg's own changes of state.
    """
    if isinstance(error, asyncpg.InternalClientError):
        return str(error).startswith("cannot switch to state")
    return isinstance(error, asyncpg.InterfaceError) and any(
        word in str(error) for word in (" is closed", " is closing")
    )
