"""What people do to the surface of the client that nobody meant them to, and what they may do that looks as if not."""

from __future__ import annotations

import io
import sys

import pytest

import penstock
from penstock.session import Pace

QUICK = Pace(backoff_least=0.01, backoff_most=0.05)
NOBODY = "127.0.0.1:9"  # the port `discard`: nothing listens there


class Tee:
    """As people write it: it writes, and is no file."""

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> None:
        self.written += text


class Broken(io.StringIO):
    """A pipe that nobody reads."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def closed() -> io.StringIO:
    file = io.StringIO()
    file.close()
    return file


@pytest.mark.parametrize("stderr", [None, Tee(), Broken(), closed()], ids=["none", "tee", "broken", "closed"])
def test_progress_raises_nothing_wherever_it_goes(stderr: object, monkeypatch: pytest.MonkeyPatch) -> None:
    run = penstock.start_run(url=NOBODY, pace=QUICK)
    run.log({"loss": 1.0})
    monkeypatch.setattr(sys, "stderr", stderr)
    assert not run.finish(timeout=1.5)
    if isinstance(stderr, Tee):
        assert "1 records to be committed" in stderr.written
