"""SQLSTATEs: which errors pass, which are the data's fault, which are ours."""

from __future__ import annotations

import asyncpg
import pytest

from penstock_server.model.errors import Busy, NotActive, NotFound, Unavailable
from penstock_server.postgres.sqlstate import Verdict, translate, verdict


def error(sqlstate: str) -> asyncpg.PostgresError:
    """What asyncpg makes of an error that the server sends."""
    return asyncpg.PostgresError.new({"C": sqlstate, "S": "ERROR", "M": "message"})


RETRY = [
    "08000", "08003", "08006", "57P01", "57P02", "57P03", "57014", "53000", "53100", "53200", "53300", "40001", "40P01",
    "25006", "25P03", "28P01", "3D000",
]  # fmt: skip
REFUSE = ["22003", "22021", "22P02", "23502", "23505", "23514", "54000", "54001"]
FATAL = ["42P01", "42601", "42703", "42501", "XX000", "XX001", "0A000"]


@pytest.mark.parametrize("sqlstate", RETRY)
def test_what_passes(sqlstate: str) -> None:
    assert isinstance(translate(error(sqlstate)), Unavailable)
    assert verdict(error(sqlstate)) is Verdict.RETRY


def test_a_row_that_another_holds() -> None:
    assert isinstance(translate(error("55P03")), Unavailable)
    assert verdict(error("55P03")) is Verdict.HELD


@pytest.mark.parametrize("sqlstate", REFUSE)
def test_what_is_the_datas_fault(sqlstate: str) -> None:
    assert translate(error(sqlstate)) is None
    assert verdict(error(sqlstate)) is Verdict.REFUSE


@pytest.mark.parametrize("sqlstate", FATAL)
def test_what_is_ours(sqlstate: str) -> None:
    assert translate(error(sqlstate)) is None
    assert verdict(error(sqlstate)) is Verdict.FATAL


@pytest.mark.parametrize(
    "lost",
    [
        ConnectionRefusedError("refused"),
        FileNotFoundError("no socket"),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InterfaceError("pool is closing"),
        asyncpg.InvalidCachedStatementError("cached statement plan is invalid"),
    ],
)
def test_a_lost_connection_passes(lost: Exception) -> None:
    assert isinstance(translate(lost), Unavailable)
    assert verdict(lost) is Verdict.RETRY


def test_our_own_words() -> None:
    assert verdict(Unavailable("away", 1)) is Verdict.RETRY
    assert verdict(Busy("full", 1)) is Verdict.RETRY


@pytest.mark.parametrize(
    "other",
    [
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        NotActive("run", "x"),
        NotFound("run", "x"),
        KeyError("x"),
    ],
)
def test_what_is_not_the_databases_is_raised_again(other: Exception) -> None:
    assert translate(other) is None
    with pytest.raises(type(other)) as caught:
        verdict(other)
    assert caught.value is other
