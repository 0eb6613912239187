"""A writer that does what docs/protocol.md asks of one, step by step as a test tells it; and the count at the end."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import grpc

from penstock.v1 import metrics_pb2 as me
from penstock.v1 import runs_pb2 as ru
from penstock.v1.metrics_pb2_grpc import MetricServiceStub

sys.path.append(str(Path(__file__).parents[2] / "server"))

from writers import Conversation  # one writer's side of a stream lives with the server's tests

_TRIES = 20


class Inexact(AssertionError):
    """Points are missing, or there more than once, or the summary says something else."""


def new_run_id(*, even: bool = False) -> str:
    """Of a run that its first Hello makes."""
    number = int.from_bytes(os.urandom(16), "big")
    return uuid.UUID(int=number & ~1 if even else number).hex


class Honest:
    """Logs one metric whose value is the step; keeps what is not acknowledged, and sends it on each stream it opens."""

    def __init__(self, run_id: str, steps: Iterable[int], writer_id: bytes | None = None, epoch: int = 1) -> None:
        self.run_id = run_id
        self.writer_id = writer_id or os.urandom(16)
        self._epoch = epoch
        self._count = 0
        self._kept: dict[int, int] = {}
        self._sent = 0
        self._stream: Conversation | None = None
        self.log(steps)

    def log(self, steps: Iterable[int]) -> None:
        """Numbers records and keeps them."""
        for step in steps:
            self._count += 1
            self._kept[self._count] = step

    def heir(self, steps: Iterable[int]) -> Self:
        """Another process that takes the writer over where this one has come to, and logs something else."""
        heir = type(self)(self.run_id, (), self.writer_id, self._epoch + 1)
        heir._count = self._count
        heir.log(steps)
        return heir

    def open(self, channel: grpc.Channel, *, silent: bool = False) -> None:
        """A stream, welcomed, and all that is kept is sent there; not yet, when `silent`."""
        create = ru.CreateRunRequest(run_id=self.run_id)
        self._stream = Conversation(
            channel, self.run_id, writer_id=self.writer_id, epoch=self._epoch, create_run=create
        )
        self._take(self._stream.hear().welcome.hwm)
        self._sent = min(self._kept, default=self._count + 1) - 1
        if not silent:
            self.send()

    def send(self) -> None:
        """What has not been sent on this stream."""
        assert self._stream is not None
        steps = [step for seq, step in self._kept.items() if seq > self._sent]
        if steps:
            self._stream.batch(self._sent + 1, steps, new_shapes=[me.Shape(names=["loss"])])
            self._sent = self._count

    def hear_ack(self) -> None:
        """Until everything that was sent is acknowledged, or the stream has ended."""
        assert self._stream is not None
        while self._kept and min(self._kept) <= self._sent:
            try:
                self._take(self._stream.hear().ack.hwm)
            except grpc.RpcError:
                return

    def hear_to_the_end(self) -> None:
        """Everything that comes, until the stream has ended by an error."""
        assert self._stream is not None
        while True:
            try:
                self._take(self._stream.hear().ack.hwm)
            except grpc.RpcError:
                return

    def leave(self) -> None:
        """Breaks off."""
        assert self._stream is not None
        self._stream.cancel()

    def deliver(self, channel: grpc.Channel) -> None:
        """Opens streams until one has taken everything, Finish too."""
        for _ in range(_TRIES):
            try:
                self.open(channel)
                assert self._stream is not None
                self._stream.say(finish=me.Finish(last_seq=self._count))
                for message in self._stream.hear_until("finish_ack"):
                    self._take(message.ack.hwm or message.finish_ack.hwm)
            except grpc.RpcError as error:
                failed = error
            else:
                return
        raise AssertionError(f"the writer does not get through: {failed}")

    def _take(self, hwm: int) -> None:
        self._kept = {seq: step for seq, step in self._kept.items() if seq > hwm}


def holds(channel: grpc.Channel, run_id: str, steps: Iterable[int]) -> None:
    """The run has exactly these points of `loss`, and says so in its summary. Raises Inexact."""
    expected = sorted(steps)
    stub = MetricServiceStub(channel)
    points = stub.GetMetricHistory(me.GetMetricHistoryRequest(run_id=run_id, name="loss")).points
    if list(points.steps) != expected or list(points.values) != expected:
        raise Inexact(f"{list(points.steps)} with values {list(points.values)} instead of {expected}")
    found = stub.GetMetricSummaries(me.GetMetricSummariesRequest(run_ids=[run_id])).runs
    told = [
        (each.name, each.count, each.last_step, each.min_value, each.max_value) for run in found for each in run.metrics
    ]
    if told != [("loss", len(expected), expected[-1], expected[0], expected[-1])]:
        raise Inexact(f"the summary {told} of {expected}")
