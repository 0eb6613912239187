"""One writer's side of a stream, for tests: says what it is told to, and hears everything."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from typing import Any

import grpc

from penstock.v1 import metrics_pb2 as pb
from penstock.v1.metrics_pb2_grpc import MetricServiceStub


class Conversation:
    """An open stream of a writer. It may be told everything that a message can hold, sensible or not."""

    def __init__(self, channel: grpc.Channel, run_id: str, /, *, hello: bool = True, **fields: Any) -> None:
        self.run_id = run_id
        self.writer_id = fields.get("writer_id", os.urandom(16))
        self._said: queue.SimpleQueue[pb.StreamMetricsRequest | None] = queue.SimpleQueue()
        self._call = MetricServiceStub(channel).StreamMetrics(self._requests(), timeout=60)
        if hello:
            given = {"protocol": 1, "run_id": run_id, "writer_id": self.writer_id, "epoch": 1} | fields
            self.say(hello=pb.Hello(**given))

    def say(self, **message: Any) -> Conversation:
        """Sends hello, batch, finish, or an empty message."""
        self._said.put(pb.StreamMetricsRequest(**message))
        return self

    def batch(self, first_seq: int, steps: list[int], /, **fields: Any) -> Conversation:
        """Sends one value a frame of a shape that was defined before; fields go over what is made up."""
        made = {
            "first_seq": first_seq,
            "count": len(steps),
            "shapes": [0] * len(steps),
            "steps": steps,
            "times_ms": [1] * len(steps),
            "values": [float(step) for step in steps],
        }
        return self.say(batch=pb.Batch(**made | fields))

    def first(self, steps: list[int], **fields: Any) -> Conversation:
        """Sends the first batch of a new writer, which defines the shape ("loss",)."""
        return self.batch(1, steps, new_shapes=[pb.Shape(names=["loss"])], **fields)

    def leave(self) -> Conversation:
        """Says that nothing more comes."""
        self._said.put(None)
        return self

    def hear(self) -> pb.StreamMetricsResponse:
        """The next message."""
        return next(self._call)

    def hear_until(self, kind: str) -> list[pb.StreamMetricsResponse]:
        """The messages up to the first of this kind, that included."""
        heard = []
        while not heard or heard[-1].WhichOneof("message") != kind:
            heard.append(self.hear())
        return heard

    def hear_all(self) -> list[pb.StreamMetricsResponse]:
        """The messages to the end of the stream, which must be a good one."""
        return list(self._call)

    def error(self) -> grpc.RpcError:
        """Hears everything, and returns the error that the stream ends by."""
        try:
            heard = self.hear_all()
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"the stream ended well: {heard}")

    def cancel(self) -> None:
        """Breaks off."""
        self._call.cancel()
        self.leave()

    def _requests(self) -> Iterator[pb.StreamMetricsRequest]:
        while (message := self._said.get()) is not None:
            yield message
