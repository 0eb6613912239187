"""Spools without a sender, for tests of what is in them."""

from __future__ import annotations

import shutil
import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peer import bits

from penstock.address import parse_address
from penstock.batches import Batch, Update
from penstock.spool.outbox import Outbox
from penstock.spool.records import Head
from penstock.spool.retention import Limits
from penstock.spool.spool import Spool
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


def log(to: Spool, record: Any) -> bool:
    """An update, or (names, values, step, time)."""
    if isinstance(record, Update):
        return to.update(record)
    names, values, step, time_ms = record
    return to.append(to.shapes.get(names) or to.learn(names), array("d", values), step, time_ms)


def told(logged: Iterable[Any]) -> list[Any]:
    """What was logged, so that it can be compared bit by bit."""
    return [
        ("param" if each.is_param else "tag", each.key, each.value)
        if isinstance(each, Update)
        else ([(name, bits(value)) for name, value in zip(each[0], each[1], strict=True)], each[2], each[3])
        for each in logged
    ]


def shown(batch: Batch) -> list[Any]:
    """What is in a batch, in the same way."""
    if batch.updates:
        return told(batch.updates)
    frames, at = [], 0
    for shape, step, time_ms in zip(batch.shapes, batch.steps, batch.times_ms, strict=True):
        names = batch.names[shape]
        frames.append((names, batch.values[at : at + len(names)], step, time_ms))
        at += len(names)
    assert at == len(batch.values)
    return told(frames)


def everything(outbox: Outbox) -> tuple[list[Any], int]:
    """What is not acknowledged, and how many records of it are lost."""
    got: list[Any] = []
    lost, position = 0, outbox.acked
    while outbox.due(position) is not None:
        batch = outbox.take(position)
        assert batch is not None
        assert batch.first_seq == position + 1
        position = batch.last_seq
        if batch.lost:
            lost += batch.lost
        else:
            got += shown(batch)
    assert position == outbox.last_seq
    return got, lost
