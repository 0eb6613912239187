"""Client and AsyncClient: the same calls, blocking and for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from penstock import experiments, forks, metrics, runs
from penstock.address import parse_address
from penstock.calls import Call, Flow, Listing, Request
from penstock.errors import FailedPrecondition, PenstockError, from_status
from penstock.relay import RelayedStream
from penstock.transport import Broken

T = TypeVar("T")

_TIMEOUT = 30.0
_STREAM_TIMEOUT = 600.0


class _Calls:
    """Every call there is. Each is described in the module of its noun."""

    create_experiment = Call(experiments.create_experiment)
    get_experiment = Call(experiments.get_experiment)
    get_experiment_by_name = Call(experiments.get_experiment_by_name)
    search_experiments = Call(experiments.search_experiments)
    rename_experiment = Call(experiments.rename_experiment)
    set_experiment_tags = Call(experiments.set_experiment_tags)
    delete_experiment_tags = Call(experiments.delete_experiment_tags)
    delete_experiment = Call(experiments.delete_experiment)
    restore_experiment = Call(experiments.restore_experiment)

    create_run = Call(runs.create_run)
    get_run = Call(runs.get_run)
    search_runs = Call(runs.search_runs)
    update_run = Call(runs.update_run)
    log_params = Call(runs.log_params)
    set_tags = Call(runs.set_tags)
    delete_tags = Call(runs.delete_tags)
    delete_run = Call(runs.delete_run)
    restore_run = Call(runs.restore_run)
    watch_runs = Listing(runs.watch_runs)

    log_batch = Call(metrics.log_batch)
    metric_history = Call(metrics.metric_history)
    metric_histories = Call(metrics.metric_histories)
    metric_series = Call(metrics.metric_series)
    metric_summaries = Call(metrics.metric_summaries)

    def __init__(self, url: str | None = None, *, workspace: str | None = None, timeout: float = _TIMEOUT) -> None:
        """`url` None is PENSTOCK_URL, or else localhost:50051; `timeout` is of each request, in seconds."""
        self._address = parse_address(url, workspace)
        self._timeout = timeout

    def _deadline(self, request: Request) -> float:
        return max(self._timeout, _STREAM_TIMEOUT) if request.streams else self._timeout

    def _error(self, error: grpc.RpcError) -> PenstockError:
        trailing = error.trailing_metadata() or ()
        return from_status(error.code(), error.details() or "", tuple(trailing), self._address.target)

    def __repr__(self) -> str:
        return f"<penstock {type(self).__name__} of {self._address.target}>"


class Client(_Calls):
    """The blocking client. Threads may share it. Connects with the first call; methods raise what `errors` tells."""

    _channel: grpc.Channel | None = None
    _pid = 0

    def close(self) -> None:
        """Let go of the connection. The next call makes another."""
        if self._channel is not None and self._pid == os.getpid():
            self._channel.close()
        self._channel = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> grpc.Channel:
        if self._channel is None or self._pid != os.getpid():
            self._channel, self._pid = forks.watch(self._address.channel()), os.getpid()
        return self._channel

    def _carry(self, flow: Flow[T]) -> T:
        try:
            request = next(flow)
            while True:
                request = flow.send(self._ask(request))
        except StopIteration as done:
            result: T = done.value
            return result
        except grpc.RpcError as error:
            raise self._error(error) from error

    def _ask(self, request: Request) -> Any:
        if not forks.use_grpc():
            answers = list(self._relay(request, self._deadline(request)))
            return answers if request.streams else answers[0]
        channel = self._open()
        kind = channel.unary_stream if request.streams else channel.unary_unary
        call = kind(
            request.path,
            request_serializer=type(request.message).SerializeToString,
            response_deserializer=request.answer.FromString,
        )
        answer = call(request.message, timeout=self._deadline(request), metadata=self._address.metadata)
        return list(answer) if request.streams else answer

    def _listen(self, request: Request, make: Callable[[Any], T]) -> Iterator[T]:
        if not forks.use_grpc():
            yield from map(make, self._relay(request, None))
            return
        call = self._open().unary_stream(
            request.path,
            request_serializer=type(request.message).SerializeToString,
            response_deserializer=request.answer.FromString,
        )(request.message, metadata=self._address.metadata)
        try:
            for message in call:
                yield make(message)
        except grpc.RpcError as error:
            raise self._error(error) from error
        finally:
            call.cancel()

    def _relay(self, request: Request, timeout: float | None) -> Iterator[Any]:
        """In a forked child, by way of a process of its own: slow, and sound."""
        sent = [request.message.SerializeToString()]
        try:
            with RelayedStream(self._address, request.path, sent, timeout) as answers:
                yield from map(request.answer.FromString, answers)
        except Broken as error:
            raise from_status(error.code, error.details, error.metadata, self._address.target) from error


class AsyncClient(_Calls):
    """The client for asyncio. Methods are awaited; `watch_runs` is an async iterator.

    In another event loop, that of a second `asyncio.run` say, it connects anew; two loops at once need two clients.
    """

    _channel: grpc.aio.Channel | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        """Let go of the connection. The next call makes another."""
        channel, self._channel = self._channel, None
        if channel is not None and self._loop is asyncio.get_running_loop():
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> grpc.aio.Channel:
        if not forks.use_grpc():
            raise FailedPrecondition(
                "this process was forked from one that uses gRPC, which does not live through that; "
                "use penstock.Client here, or let multiprocessing spawn"
            )
        loop = asyncio.get_running_loop()
        if self._channel is None or self._loop is not loop:  # a channel lives and dies with its loop
            self._channel, self._loop = self._address.async_channel(), loop
        return self._channel

    async def _carry(self, flow: Flow[T]) -> T:
        try:
            request = next(flow)
            while True:
                request = flow.send(await self._ask(request))
        except StopIteration as done:
            result: T = done.value
            return result
        except grpc.RpcError as error:
            raise self._error(error) from error

    async def _ask(self, request: Request) -> Any:
        channel = self._open()
        kind = channel.unary_stream if request.streams else channel.unary_unary
        call = kind(
            request.path,
            request_serializer=type(request.message).SerializeToString,
            response_deserializer=request.answer.FromString,
        )(request.message, timeout=self._deadline(request), metadata=self._address.metadata)
        return [message async for message in call] if request.streams else await call

    async def _listen(self, request: Request, make: Callable[[Any], T]) -> AsyncIterator[T]:
        call = self._open().unary_stream(
            request.path,
            request_serializer=type(request.message).SerializeToString,
            response_deserializer=request.answer.FromString,
        )(request.message, metadata=self._address.metadata)
        try:
            async for message in call:
                yield make(message)
        except grpc.RpcError as error:
            raise self._error(error) from error
        finally:
            call.cancel()
