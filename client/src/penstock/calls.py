"""One description of each call for two clients.

A call is a generator: it yields requests, is sent the answers, and returns what the caller gets. It
knows nothing of channels, so the same one serves the blocking client and the one for asyncio; they
only carry the requests. `Call` makes a method of it in either.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from penstock.v1 import artifacts_pb2, experiments_pb2, metrics_pb2, registry_pb2, runs_pb2

if TYPE_CHECKING:
    from penstock.client import AsyncClient, Client
    from penstock.registry_client import AsyncRegistry, Registry

P = ParamSpec("P")
T = TypeVar("T")

EXPERIMENTS: ServiceDescriptor = experiments_pb2.DESCRIPTOR.services_by_name["ExperimentService"]
RUNS: ServiceDescriptor = runs_pb2.DESCRIPTOR.services_by_name["RunService"]
METRICS: ServiceDescriptor = metrics_pb2.DESCRIPTOR.services_by_name["MetricService"]
ARTIFACTS: ServiceDescriptor = artifacts_pb2.DESCRIPTOR.services_by_name["ArtifactService"]
REGISTRY: ServiceDescriptor = registry_pb2.DESCRIPTOR.services_by_name["RegistryService"]


@dataclass(frozen=True, slots=True)
class Request:
    """One message to one method. Its answer is a message, or the list of them where the method streams."""

    path: str
    message: Message
    answer: Any  # the class of the answer's messages
    streams: bool


# Yields requests, is sent answers, returns the result.
Flow = Generator[Request, Any, T]


def request(service: ServiceDescriptor, method: str, message: Message, answer: Any = None) -> Request:
    """A request of a method, by its name in the protos. `answer` stands in for the answer's generated class."""
    found = service.methods_by_name[method]
    cls = answer or GetMessageClass(found.output_type)
    return Request(f"/{service.full_name}/{method}", message, cls, found.server_streaming)


PAGE = 1_000


def in_pages(
    service: ServiceDescriptor,
    method: str,
    message: Any,
    limit: int | None,
    items: Callable[[Any], Iterable[T]],
    most: int | None = None,
) -> Flow[list[T]]:
    """All that a method answers page by page, at most `limit`; None: all. `items` are those of one answer.

    A page has `most` of them; None: a thousand.
    """
    most = most or PAGE
    message.page_size = most if limit is None else min(most, limit)
    found: list[T] = []
    while limit is None or len(found) < limit:
        page = yield request(service, method, message)
        found += items(page)
        message.page_token = page.next_page_token
        if not message.page_token:
            break
    return found[:limit]


class Call(Generic[P, T]):
    """A call as a method: `T` from a Client, awaitable from an AsyncClient."""

    def __init__(self, flow: Callable[P, Flow[T]]) -> None:
        self._flow = flow
        functools.update_wrapper(self, flow)  # type: ignore[arg-type]
        signature = inspect.signature(flow)
        returned = str(signature.return_annotation).removeprefix("Flow[").removesuffix("]")
        self._signature = signature.replace(return_annotation=returned)  # as callers see it

    @overload
    def __get__(self, client: Client | Registry, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient | AsyncRegistry, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Flow[T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self._flow

        @functools.wraps(self._flow)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._carry(self._flow(*args, **kwargs))

        method.__signature__ = self._signature  # type: ignore[attr-defined]
        return method


class Listing(Generic[P, T]):
    """A call whose answer goes on and on: an iterator from a Client, an async one from an AsyncClient.

    Its generator yields requests as others do, and returns what to make of each message that comes.
    """

    def __init__(self, build: Callable[P, tuple[Request, Callable[[Any], T]]]) -> None:
        self._build = build
        functools.update_wrapper(self, build)  # type: ignore[arg-type]

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, tuple[Request, Callable[[Any], T]]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self._build

        @functools.wraps(self._build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._listen(*self._build(*args, **kwargs))

        return method


def listed(names: Iterable[str]) -> list[str]:
    """Names. A single one, which is text too, is a list of one and not of its letters."""
    return [names] if isinstance(names, str) else list(names)


def as_texts(given: Mapping[str, object] | None) -> dict[str, str]:
    """Params or tags, whose values are text: what is none is written as `str` does."""
    return {key: str(value) for key, value in (given or {}).items()}


def need(module: str, what: str) -> Any:
    """A library that Penstock does not depend on. Raises ImportError, which tells what it is needed for."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} needs {module}: pip install {module.partition('.')[0]}") from error
