"""Spools without a sender, for tests of what is in them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from penstock.address import parse_address
from penstock.spool.records import Head
from penstock.spool.spool import Limits, Spool
from penstock.v1 import metrics_pb2 as pb
from penstock.v1 import runs_pb2

HEAD = Head(
    "0" * 31 + "7",
    b"a writer's bytes",
    parse_address("localhost:1"),
    runs_pb2.CreateRunRequest(experiment_name="digits", name="sgd"),
    pb.WriterAttributes(rank=3, host="here"),
)


class Place:
    """A directory that is there for as long as somebody holds on to this."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp())

    def make(self) -> Path:
        self.path.mkdir(exist_ok=True)
        return self.path

    def __del__(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def on_disk(limits: Limits | None = None, place: Place | None = None) -> Spool:
    return Spool(HEAD, (place or Place()).make, limits)


def in_memory(limits: Limits | None = None) -> Spool:
    return Spool(HEAD, None, limits)
