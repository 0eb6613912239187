"""A description of how bytes are moved, as a method of either client."""

from __future__ import annotations

import functools
import inspect
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
        # As callers see it: the wire is the client's own.
        signature = inspect.signature(work)
        first, *others = signature.parameters.values()
        self._bound = signature.replace(parameters=others)
        self._unbound = signature.replace(parameters=[first.replace(name="self", annotation=first.empty), *others])

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Callable[..., Any]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        work = self._work

        @functools.wraps(work)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._transfer(work, args, kwargs)

        @functools.wraps(work)
        def function(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return client._transfer(work, args, kwargs)

        shown: Any = function if client is None else method
        shown.__signature__ = self._unbound if client is None else self._bound
        return shown
