"""The acknowledged stream of one writer: its messages to core, core's events to the writer.

Messages come as the twins of the generated ones that leave columns as bytes (`penstock.columns`).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any, assert_never

from penstock.v1 import metrics_pb2 as pb
from penstock_server.core.streams import WriterStream
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.runs import parse_run_id
from penstock_server.model.streams import (
    Ack,
    Batch,
    Event,
    Finish,
    FinishAck,
    GoAway,
    Hello,
    Reject,
    Throttle,
    Update,
    WriterId,
)
from penstock_server.rpc import errors, runs
from penstock_server.rpc.calls import Send


async def converse(stream: WriterStream, messages: AsyncIterator[Any], send: Send, max_message_bytes: int) -> None:
    """Takes records in and tells what becomes of them, until Finish, the writer's last message, or an error."""
    try:
        welcome = pb.Welcome(hwm=stream.hwm, window_bytes=stream.window_bytes, max_message_bytes=max_message_bytes)
        await send(pb.StreamMetricsResponse(welcome=welcome))
        teller = _Teller(stream, send)
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(teller.run())
            last_seq = 0
            async for message in messages:
                match message.WhichOneof("message"):
                    case "batch":
                        batch = _batch(message.batch)
                        await stream.put(batch)
                        last_seq = max(last_seq, batch.last_seq)
                    case "finish":
                        finished = await stream.finish(_finish(message.finish))
                        await teller.told(finished.hwm)
                        await send(_answer(finished))
                        break
                    case "hello":
                        raise InvalidArgument("hello", "came twice; a stream has one, at its beginning")
                    case _:
                        raise InvalidArgument("message", "is empty, or of a kind that this server does not know")
            else:
                # The writer leaves without Finish: another time, or elsewhere, it goes on.
                await teller.told(last_seq)
            telling.cancel()
    finally:
        stream.close()


class _Teller:
    """Sends the stream's events, and knows how far the writer has been told."""

    def __init__(self, stream: WriterStream, send: Send) -> None:
        self._stream = stream
        self._send = send
        self._hwm = stream.hwm
        self._change = asyncio.Condition()

    async def run(self) -> None:
        """Runs until the stream ends, and raises what ended it."""
        async for event in self._stream.events():
            await self._send(_answer(event))
            if isinstance(event, Ack):
                async with self._change:
                    self._hwm = event.hwm
                    self._change.notify_all()

    async def told(self, hwm: int) -> None:
        """Waits until everything up to `hwm` is acknowledged, refusals of it told before."""
        async with self._change:
            await self._change.wait_for(lambda: self._hwm >= hwm)


def hello(message: Any) -> Hello:
    """What opens a stream. Raises InvalidArgument."""
    if message.WhichOneof("message") != "hello":
        raise InvalidArgument("hello", "is missing; the first message of a stream must be Hello")
    given = message.hello
    if len(given.writer_id) != 16:
        raise InvalidArgument("hello.writer_id", f"has {len(given.writer_id)} bytes; it must be 16 random bytes")
    return Hello(
        protocol=given.protocol,
        run_id=parse_run_id(given.run_id, "hello.run_id"),
        create_run=runs.new_run(given.create_run) if given.HasField("create_run") else None,
        writer_id=WriterId(uuid.UUID(bytes=given.writer_id)),
        epoch=given.epoch,
        last_acked=given.last_acked,
        last_spooled=given.last_spooled,
        rank=given.attributes.rank,
        world_size=given.attributes.world_size,
        host=given.attributes.host,
        pid=given.attributes.pid,
        refused=given.refused,
        resume=given.resume,
    )


def _batch(batch: Any) -> Batch:
    return Batch(
        first_seq=batch.first_seq,
        count=batch.count,
        new_shapes=[tuple(shape.names) for shape in batch.new_shapes],
        shapes=b"".join(batch.shapes),
        steps=b"".join(batch.steps),
        times_ms=b"".join(batch.times_ms),
        values=b"".join(batch.values),
        updates=[_update(update) for update in batch.updates],
        lost=batch.lost,
    )


def _update(update: Any) -> Update:
    match update.WhichOneof("update"):
        case "param":
            return Update(True, update.param.key, update.param.value)
        case "tag":
            return Update(False, update.tag.key, update.tag.value)
    raise InvalidArgument("updates", "has one that is neither a param nor a tag")


def _finish(finish: Any) -> Finish:
    return Finish(finish.last_seq, runs.status(finish.status), finish.end_time_ms or None, finish.refused)


def _answer(event: Event) -> pb.StreamMetricsResponse:
    match event:
        case Ack(hwm):
            return pb.StreamMetricsResponse(ack=pb.Ack(hwm=hwm))
        case Reject(first, last, error):
            reject = pb.Reject(first_seq=first, last_seq=last, code=errors.code(error), reason=errors.sentence(error))
            return pb.StreamMetricsResponse(reject=reject)
        case Throttle(milliseconds):
            return pb.StreamMetricsResponse(throttle=pb.Throttle(retry_after_ms=milliseconds))
        case GoAway(reason):
            return pb.StreamMetricsResponse(go_away=pb.GoAway(reason=reason))
        case FinishAck(hwm):
            return pb.StreamMetricsResponse(finish_ack=pb.FinishAck(hwm=hwm))
    assert_never(event)
