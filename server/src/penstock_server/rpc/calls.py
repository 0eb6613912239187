"""One call, whatever its method: who calls and what for, may they, the handler, its errors, its numbers.

A handler gets the authorised caller and the parsed request, and knows nothing of gRPC's contexts:

    unary            async def get_run(self, caller, request) -> GetRunResponse
    server stream    def watch_runs(self, caller, request) -> AsyncIterator[WatchRunsResponse]
                     or of bytes that are such a message already
    client stream    async def upload_artifact(self, caller, first, messages) -> UploadArtifactResponse
                     of the messages those that are but a chunk of bytes come as that: a memoryview
    both stream      async def stream_metrics(self, caller, first, messages, send) -> None
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message

from penstock.chunks import chunk_in
from penstock_server import telemetry
from penstock_server.core.access import Access
from penstock_server.model.access import DEFAULT_WORKSPACE, Caller
from penstock_server.model.errors import InvalidArgument, PenstockError, Unavailable
from penstock_server.model.runs import USER_LIMIT
from penstock_server.rpc import access, errors

log = structlog.get_logger(__name__)

# Until there are accounts.
PRINCIPAL = "anonymous"

Context = Any  # grpc.aio.ServicerContext; grpcio carries no types
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

# What a write raises when the call has ended at the other side before our task heard of it.
_Left = grpc.aio.InternalError

_LONGEST_REQUEST_ID = 128
_UNREAD_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Method:
    """A method and all that surrounds its handler. `request` parses what the wire brings."""

    descriptor: MethodDescriptor
    declared: access.Declared
    request: type[Message]
    handler: Callable[..., Any]
    guard: Access
    max_message_bytes: int

    async def unary(self, raw: bytes, context: Context) -> bytes:
        """Serves one request with one response."""

        async def work() -> bytes:
            request = self._parse(raw)
            return self._serialise(await self.handler(await self._caller(context, request), request))

        began = time.perf_counter()
        try:
            return await self._around(context, work)
        finally:
            telemetry.request_seconds.labels(self.descriptor.full_name).observe(time.perf_counter() - began)

    async def server_stream(self, raw: bytes, context: Context) -> None:
        """Serves one request with a stream of responses."""

        async def work() -> None:
            request = self._parse(raw)
            responses: AsyncIterator[Message | bytes] = self.handler(await self._caller(context, request), request)
            async with aclosing(responses):  # type: ignore[type-var]  # handlers are generators
                async for response in responses:
                    await _write(context, self._serialise(response))

        await self._around(context, work)

    async def client_stream(self, raws: AsyncIterator[bytes], context: Context) -> bytes:
        """Serves a stream of requests with one response. The first request says what is asked for."""

        async def work() -> bytes:
            first = self._parse(await _first(raws))
            async with aclosing(self._messages(raws, chunks=True)) as messages:
                return self._serialise(await self.handler(await self._caller(context, first), first, messages))

        return await self._around(context, work)

    async def both_stream(self, raws: AsyncIterator[bytes], context: Context) -> None:
        """Serves a stream of requests with a stream of responses. The first request says what is asked for."""

        async def work() -> None:
            first = self._parse(await _first(raws))
            messages = self._messages(raws)
            one_at_a_time = asyncio.Lock()

            async def send(response: Message) -> None:
                async with one_at_a_time:
                    await context.write(self._serialise(response))

            await self.handler(await self._caller(context, first), first, messages, send)

        await self._around(context, work)

    async def _around(self, context: Context, work: Callable[[], Awaitable[T]]) -> T:
        request_id = _request_id(context)
        status = grpc.StatusCode.OK
        context.set_trailing_metadata((("x-request-id", request_id),))
        with structlog.contextvars.bound_contextvars(request_id=request_id, method=self.descriptor.full_name):
            try:
                if self.descriptor.server_streaming:
                    # A stream may last for days: who has a question about it wants its id now.
                    await context.send_initial_metadata((("x-request-id", request_id),))
                return await work()
            except asyncio.CancelledError:
                status = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:  # noqa: BLE001  # told to the caller, and logged when it is a bug
                cause = _only(error)
                if isinstance(cause, _Left):
                    status = grpc.StatusCode.CANCELLED
                    log.debug("the client left while it was written to")
                    raise asyncio.CancelledError from None
                status = errors.STATUS.get(type(cause), grpc.StatusCode.INTERNAL)  # type: ignore[arg-type]
                await _fail(context, request_id, cause)
            finally:
                telemetry.requests.labels(self.descriptor.full_name, status.name).inc()

    async def _messages(self, raws: AsyncIterator[bytes], *, chunks: bool = False) -> AsyncGenerator[Any, None]:
        async for raw in raws:
            chunk = chunk_in(raw) if chunks and len(raw) <= self.max_message_bytes else None
            yield self._parse(raw) if chunk is None else chunk

    async def _caller(self, context: Context, request: Message) -> Caller:
        workspace = _text(context, "penstock-workspace") or DEFAULT_WORKSPACE
        callers: list[Caller] = [
            await self.guard.authorise(PRINCIPAL, workspace, need) for need in self.declared.needs(request)
        ]
        request_id = structlog.contextvars.get_contextvars()["request_id"]
        return replace(callers[0], user=_user(context), request_id=request_id)

    def _parse(self, raw: bytes) -> Message:
        if len(raw) > self.max_message_bytes:
            raise InvalidArgument(
                "request",
                f"the message has {len(raw)} bytes and may have {self.max_message_bytes}; send it in parts",
            )
        try:
            return self.request.FromString(raw)
        except DecodeError:
            name = self.descriptor.input_type.full_name
            raise InvalidArgument("request", f"the bytes are no message {name}; is its text UTF-8?") from None

    def _serialise(self, response: Message | bytes) -> bytes:
        raw = response if isinstance(response, bytes) else response.SerializeToString()
        if len(raw) > self.max_message_bytes:
            raise InvalidArgument(
                "request",
                f"the answer has {len(raw)} bytes and a message at most {self.max_message_bytes}; ask for less",
            )
        return raw


async def _write(context: Context, raw: bytes) -> None:
    """Raises Unavailable when the client does not read: what the stream holds is for others then."""
    try:
        async with asyncio.timeout(_UNREAD_SECONDS):
            await context.write(raw)
    except TimeoutError:
        raise Unavailable(f"nothing of the answer was read for {_UNREAD_SECONDS:g} s; ask again", 1.0) from None


async def _fail(context: Context, request_id: str, error: Exception) -> NoReturn:
    identified = ("x-request-id", request_id)
    if isinstance(error, PenstockError):
        log.debug("refused", error=str(error), kind=type(error).__name__)
        try:
            await context.abort(
                errors.STATUS[type(error)], errors.sentence(error), (identified, *errors.metadata(error))
            )
        except _Left:  # who does not read is told late, or never
            raise asyncio.CancelledError from None
    log.error("internal error", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"internal error; request id {request_id}", (identified,))
    raise AssertionError  # abort raises


async def _first(raws: AsyncIterator[bytes]) -> bytes:
    first = await anext(aiter(raws), None)
    if first is None:
        raise InvalidArgument("request", "the stream ended before its first message")
    return first


def _only(error: Exception) -> Exception:
    """Of a task group's errors the one to tell: a bug before anything else, and nothing to somebody who has left."""
    if not isinstance(error, ExceptionGroup):
        return error
    causes = [_only(cause) for cause in error.exceptions]
    return min(causes, key=lambda cause: 2 if isinstance(cause, PenstockError) else isinstance(cause, _Left))


def _request_id(context: Context) -> str:
    given = _text(context, "x-request-id")
    return given if given and len(given) <= _LONGEST_REQUEST_ID and given.isprintable() else uuid.uuid4().hex


def _user(context: Context) -> str:
    """Who the client says is behind the call, percent-encoded there. Raises InvalidArgument."""
    user = unquote(_text(context, "penstock-user") or "").strip() or "anonymous"
    if len(user) > USER_LIMIT or not user.isprintable():
        raise InvalidArgument("penstock-user", f"must be 1 to {USER_LIMIT} printable characters, percent-encoded")
    return user


def _text(context: Context, key: str) -> str | None:
    for name, value in context.invocation_metadata() or ():
        if name == key and isinstance(value, str):
            return value
    return None
