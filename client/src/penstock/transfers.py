"""A description of how bytes are moved, as a method of either client."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from penstock.wire import Wire

if TYPE_CHECKING:
    from penstock.client import AsyncClient, Client

P = ParamSpec("P")
T = TypeVar("T")


class Transfer(Generic[P, T]):
    """Work over a Wire as a method: blocking in a Client, awaited in an AsyncClient."""

    def __init__(self, work: Callable[Concatenate[Wire, P], T]) -> None:
        self._work = work
        functools.update_wrapper(self, work)  # type: ignore[arg-type]

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Wire, P], T]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self._work

        @functools.wraps(self._work)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._transfer(self._work, args, kwargs)

        return method
