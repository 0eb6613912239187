"""A peer that speaks the stream's protocol as a server may, however rarely: cut, silent, told twice, going away.

It is the other end of a real connection, and keeps a ledger of what it has committed, from which tests read back
what was logged. What PostgreSQL would do is not its business.
"""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from penstock.v1 import metrics_pb2 as pb

_OPTIONS = [
    ("grpc.so_reuseport", 0),
    # As the server's: clients may ask whether it is there.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
]

Frame = tuple[dict[str, float], int, int]
Says = Iterator[pb.StreamMetricsResponse]


@dataclass
class Writer:
    """What one writer has had committed."""

    hwm: int = 0
    records: list[Any] = field(default_factory=list)  # frames, and (kind, key, value)
    finish: pb.Finish | None = None
    streams: int = 0


class Stream:
    """One stream, for scripts: `hello`, then `batches()`, each of which `commit` stores and `ack` acknowledges."""

    def __init__(self, peer: Peer, requests: Iterator[pb.StreamMetricsRequest], context: grpc.ServicerContext) -> None:
        self.peer = peer
        self.context = context
        self._requests = requests
        self.hello = next(requests).hello
        with peer.lock:
            peer.hellos.append(self.hello)
            self.writer = peer.writers.setdefault(bytes(self.hello.writer_id), Writer())
            self.writer.streams += 1
        self.shapes: list[tuple[str, ...]] = []
        self.number = len(peer.hellos)  # of the stream, from 1
        self.finish: pb.Finish | None = None

    def welcome(self, window: int = 8 << 20, message: int = 4 << 20, hwm: int | None = None) -> Any:
        mark = self.writer.hwm if hwm is None else hwm
        return pb.StreamMetricsResponse(welcome=pb.Welcome(hwm=mark, window_bytes=window, max_message_bytes=message))

    def batches(self) -> Iterator[pb.Batch]:
        for request in self._requests:
            if request.WhichOneof("message") == "finish":
                self.finish = request.finish
                return
            self.peer.sizes.append(request.ByteSize())
            yield request.batch

    def commit(self, batch: pb.Batch) -> None:
        """What is new of it; what is not in sequence ends the stream, as the server's OUT_OF_RANGE does."""
        records = list(decode(batch, self.shapes))
        assert len(records) == batch.count > 0
        with self.peer.lock:
            skip = self.writer.hwm + 1 - batch.first_seq
            if skip < 0:
                self.peer.gaps += 1
                self.context.abort(grpc.StatusCode.OUT_OF_RANGE, f"expected {self.writer.hwm + 1}")
            if skip >= len(records):
                self.peer.duplicates += 1
                return
            self.writer.records += records[skip:]
            self.writer.hwm = batch.first_seq + batch.count - 1

    def ack(self) -> pb.StreamMetricsResponse:
        return pb.StreamMetricsResponse(ack=pb.Ack(hwm=self.writer.hwm))

    def fail(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """As the server itself ends a stream."""
        self.context.set_trailing_metadata((("penstock-error", "Whatever"),))
        self.context.abort(code, details)
        raise AssertionError("abort raises")

    def end(self) -> Says:
        """Answers Finish, when it came."""
        if self.finish is not None:
            assert self.finish.last_seq == self.writer.hwm
            self.writer.finish = self.finish
            yield pb.StreamMetricsResponse(finish_ack=pb.FinishAck(hwm=self.writer.hwm))


def plain(stream: Stream) -> Says:
    """Everything goes well."""
    yield stream.welcome()
    for batch in stream.batches():
        stream.commit(batch)
        yield stream.ack()
    yield from stream.end()


class Peer:
    """Listens on a free port. `script` says what each stream is answered."""

    def __init__(self, script: Callable[[Stream], Says] = plain, port: int = 0) -> None:
        self.script = script
        self.lock = threading.RLock()
        self.writers: dict[bytes, Writer] = {}
        self.hellos: list[pb.Hello] = []
        self.sizes: list[int] = []
        self.duplicates = 0
        self.gaps = 0
        self._server = grpc.server(futures.ThreadPoolExecutor(32), options=_OPTIONS)
        method = grpc.stream_stream_rpc_method_handler(
            self._stream, pb.StreamMetricsRequest.FromString, pb.StreamMetricsResponse.SerializeToString
        )
        handlers = grpc.method_handlers_generic_handler("penstock.v1.MetricService", {"StreamMetrics": method})
        self._server.add_generic_rpc_handlers((handlers,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _stream(self, requests: Iterator[pb.StreamMetricsRequest], context: grpc.ServicerContext) -> Says:
        return self.script(Stream(self, requests, context))

    def stop(self) -> None:
        self._server.stop(0).wait()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def writer(self) -> Writer:
        """The only one."""
        (writer,) = self.writers.values()
        return writer

    @property
    def frames(self) -> list[Frame]:
        """Of all writers."""
        records = itertools.chain.from_iterable(writer.records for writer in list(self.writers.values()))
        return [record for record in records if isinstance(record[0], dict)]


def decode(batch: pb.Batch, shapes: list[tuple[str, ...]]) -> Iterator[Any]:
    """The records of a batch, as the proto says."""
    shapes += (tuple(shape.names) for shape in batch.new_shapes)
    values = iter(batch.values)
    assert len(batch.shapes) == len(batch.steps) == len(batch.times_ms)
    for shape, step, time_ms in zip(batch.shapes, batch.steps, batch.times_ms, strict=True):
        yield dict(zip(shapes[shape], itertools.islice(values, len(shapes[shape])), strict=True)), step, time_ms
    assert next(values, None) is None
    for update in batch.updates:
        kind = update.WhichOneof("update")
        pair = getattr(update, kind)
        yield kind, pair.key, pair.value


def bits(value: float) -> bytes:
    """To compare NaN with NaN, and 0.0 with -0.0."""
    return struct.pack("<d", value)


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Waits until it is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)
