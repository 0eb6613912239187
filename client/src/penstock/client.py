"""Client and AsyncClient: the same calls, blocking and for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from penstock import artifacts, downloads, experiments, forks, metrics, runs, uploads
from penstock.address import Address, artifacts_address, parse_address
from penstock.calls import ARTIFACTS, Call, Flow, Listing, Request
from penstock.errors import FailedPrecondition, PenstockError, from_status
from penstock.registry_client import AsyncRegistry, Registry
from penstock.relay import RelayedStream
from penstock.transfers import Transfer
from penstock.transport import Broken, Channels
from penstock.wire import Wire

T = TypeVar("T")

_TIMEOUT = 30.0
_STREAM_TIMEOUT = 600.0
_ARTIFACTS = f"/{ARTIFACTS.full_name}/"


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

    list_artifacts = Call(artifacts.list_artifacts)
    stat_artifact = Call(artifacts.stat_artifact)
    delete_artifact = Call(artifacts.delete_artifact)
    read_artifact = Transfer(downloads.read_artifact)
    download_artifacts = Transfer(downloads.download_artifacts)
    upload_artifact = Transfer(uploads.upload_artifact)
    upload_artifacts = Transfer(uploads.upload_artifacts)

    def __init__(
        self,
        url: str | None = None,
        *,
        workspace: str | None = None,
        timeout: float = _TIMEOUT,
        artifacts_url: str | None = None,
    ) -> None:
        """`url` None is PENSTOCK_URL, or else localhost:50051; `timeout` is of each request, in seconds.

        `artifacts_url` None is PENSTOCK_ARTIFACTS_URL, or else the same server.
        """
        self._address = parse_address(url, workspace)
        self._artifacts = artifacts_address(self._address, artifacts_url)
        self._timeout = timeout

    def _at(self, request: Request) -> Address:
        return self._artifacts if request.path.startswith(_ARTIFACTS) else self._address

    def _deadline(self, request: Request) -> float:
        return max(self._timeout, _STREAM_TIMEOUT) if request.streams else self._timeout

    def _error(self, error: grpc.RpcError, request: Request) -> PenstockError:
        trailing = error.trailing_metadata() or ()
        return from_status(error.code(), error.details() or "", tuple(trailing), self._at(request).target)

    def __repr__(self) -> str:
        return f"<penstock {type(self).__name__} of {self._address.target}>"


class Client(_Calls):
    """The blocking client. Threads may share it. Connects with the first call; methods raise what `errors` tells."""

    def __init__(
        self,
        url: str | None = None,
        *,
        workspace: str | None = None,
        timeout: float = _TIMEOUT,
        artifacts_url: str | None = None,
    ) -> None:
        super().__init__(url, workspace=workspace, timeout=timeout, artifacts_url=artifacts_url)
        self._channels = Channels()
        self._wire = Wire(self._artifacts, timeout, channels=self._channels)

    @property
    def registry(self) -> Registry:
        """Registered models: `client.registry.resolve("models:/iris@champion")`."""
        return Registry(self)

    def close(self) -> None:
        """Let go of the connection. The next call makes another."""
        self._channels.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _transfer(self, work: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        return work(self._wire, *args, **kwargs)

    def _carry(self, flow: Flow[T]) -> T:
        try:
            request = next(flow)
            while True:
                request = flow.send(self._ask(request))
        except StopIteration as done:
            result: T = done.value
            return result
        except grpc.RpcError as error:
            raise self._error(error, request) from error

    def _ask(self, request: Request) -> Any:
        if not forks.use_grpc():
            answers = list(self._relay(request, self._deadline(request)))
            return answers if request.streams else answers[0]
        answer = self._call(request, self._deadline(request))
        return list(answer) if request.streams else answer

    def _listen(self, request: Request, make: Callable[[Any], T], timeout: float | None = None) -> Iterator[T]:
        if not forks.use_grpc():
            yield from map(make, self._relay(request, timeout))
            return
        call = self._call(request, timeout)
        try:
            for message in call:
                yield make(message)
        except grpc.RpcError as error:
            raise self._error(error, request) from error
        finally:
            call.cancel()

    def _call(self, request: Request, timeout: float | None) -> Any:
        with self._channels.beginning(self._at(request)) as channel:
            kind = channel.unary_stream if request.streams else channel.unary_unary
            call = kind(
                request.path,
                request_serializer=type(request.message).SerializeToString,
                response_deserializer=request.answer.FromString,
            )
            return call(request.message, timeout=timeout, metadata=self._address.metadata)

    def _relay(self, request: Request, timeout: float | None) -> Iterator[Any]:
        """In a forked child, by way of a process of its own: slow, and sound."""
        sent = [request.message.SerializeToString()]
        try:
            with RelayedStream(self._at(request), request.path, sent, timeout) as answers:
                yield from map(request.answer.FromString, answers)
        except Broken as error:
            raise from_status(error.code, error.details, error.metadata, self._at(request).target) from error


class _Either(threading.Event):
    """Set by itself, or by the caller's own, which others may share."""

    def __init__(self, other: threading.Event | None) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or (self._other is not None and self._other.is_set())


class AsyncClient(_Calls):
    """The client for asyncio. Methods are awaited; `watch_runs` is an async iterator.

    In another event loop, that of a second `asyncio.run` say, it connects anew; two loops at once need two clients.
    """

    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(
        self,
        url: str | None = None,
        *,
        workspace: str | None = None,
        timeout: float = _TIMEOUT,
        artifacts_url: str | None = None,
    ) -> None:
        """As of `Client`."""
        super().__init__(url, workspace=workspace, timeout=timeout, artifacts_url=artifacts_url)
        self._channels: dict[Address, grpc.aio.Channel] = {}
        self._wire = Wire(self._artifacts, timeout)

    @property
    def registry(self) -> AsyncRegistry:
        """Registered models: `await client.registry.resolve("models:/iris@champion")`."""
        return AsyncRegistry(self)

    async def close(self) -> None:
        """Let go of the connection. The next call makes another."""
        channels, self._channels = self._channels, {}
        self._wire.close()
        if self._loop is asyncio.get_running_loop():
            for channel in channels.values():
                await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _transfer(self, work: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        # In a thread, over a channel that is not asyncio's: reading, writing and hashing files blocks anyhow, and what
        # a loop would gain is less than what its own steps between chunks of bytes would cost it.
        stop = _Either(kwargs.get("stop"))
        try:
            return await asyncio.to_thread(work, self._wire, *args, **kwargs | {"stop": stop})
        except asyncio.CancelledError:
            stop.set()
            raise

    def _open(self, address: Address) -> grpc.aio.Channel:
        if not forks.use_grpc():
            raise FailedPrecondition(
                "this process was forked from one that uses gRPC, which does not live through that; "
                "use penstock.Client here, or let multiprocessing spawn"
            )
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # a channel lives and dies with its loop
            self._channels, self._loop = {}, loop
        if address not in self._channels:
            self._channels[address] = address.async_channel()
        return self._channels[address]

    async def _carry(self, flow: Flow[T]) -> T:
        try:
            request = next(flow)
            while True:
                request = flow.send(await self._ask(request))
        except StopIteration as done:
            result: T = done.value
            return result
        except grpc.RpcError as error:
            raise self._error(error, request) from error

    async def _ask(self, request: Request) -> Any:
        channel = self._open(self._at(request))
        kind = channel.unary_stream if request.streams else channel.unary_unary
        call = kind(
            request.path,
            request_serializer=type(request.message).SerializeToString,
            response_deserializer=request.answer.FromString,
        )(request.message, timeout=self._deadline(request), metadata=self._address.metadata)
        return [message async for message in call] if request.streams else await call

    async def _listen(
        self,
        request: Request,
        make: Callable[[Any], T],
        timeout: float | None = None,  # noqa: ASYNC109  gRPC's
    ) -> AsyncIterator[T]:
        call = self._open(self._at(request)).unary_stream(
            request.path,
            request_serializer=type(request.message).SerializeToString,
            response_deserializer=request.answer.FromString,
        )(request.message, timeout=timeout, metadata=self._address.metadata)
        try:
            async for message in call:
                yield make(message)
        except grpc.RpcError as error:
            raise self._error(error, request) from error
        finally:
            call.cancel()
