"""`client.registry`: the calls of the model registry, blocking and for asyncio."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from penstock import model_versions, promotions, registry, registry_events
from penstock.calls import Call, Flow
from penstock.effort import PATIENCE, Progress
from penstock.errors import FailedPrecondition, PenstockError, Unavailable
from penstock.model_versions import ModelStage, ModelVersion
from penstock.registry_events import RegistryEvent, Waiting, Watching

if TYPE_CHECKING:
    from penstock.client import AsyncClient, Client

T = TypeVar("T")


class _RegistryCalls:
    """Every call there is. Each is described in the module of its noun."""

    create_model = Call(registry.create_model)
    get_model = Call(registry.get_model)
    search_models = Call(registry.search_models)
    update_model = Call(registry.update_model)
    rename_model = Call(registry.rename_model)
    delete_model = Call(registry.delete_model)
    set_model_tags = Call(registry.set_model_tags)
    delete_model_tags = Call(registry.delete_model_tags)

    create_version = Call(model_versions.create_version)
    get_version = Call(model_versions.get_version)
    resolve = Call(model_versions.resolve)
    latest_versions = Call(model_versions.latest_versions)
    search_versions = Call(model_versions.search_versions)
    update_version = Call(model_versions.update_version)
    delete_version = Call(model_versions.delete_version)
    set_version_tags = Call(model_versions.set_version_tags)
    delete_version_tags = Call(model_versions.delete_version_tags)
    set_stage = Call(model_versions.set_stage)
    set_alias = Call(model_versions.set_alias)
    delete_alias = Call(model_versions.delete_alias)

    promote = Call(promotions.promote)
    set_policy = Call(promotions.set_policy)
    delete_policy = Call(promotions.delete_policy)
    request_promotion = Call(promotions.request_promotion)
    approve = Call(promotions.approve)
    reject = Call(promotions.reject)
    promotions = Call(promotions.promotions)

    events = Call(registry_events.events)


class Registry(_RegistryCalls):
    """The model registry, by a Client: models, their versions, aliases and stages, promotion, history."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def _carry(self, flow: Flow[T]) -> T:
        return self._client._carry(flow)

    def watch(
        self,
        names: Sequence[str] = (),
        kinds: Sequence[str] = (),
        keys: Sequence[str] = (),
        *,
        after: int | None = None,
        patience: float | None = PATIENCE,
    ) -> Iterator[RegistryEvent]:
        """Events as they are committed, each once, in the order of their ids, without end.

        When the connection breaks, or the server is started anew, it goes on where it was.

        Args:
            names: of these models; empty: of all.
            kinds: such as `alias_set`; empty: all.
            keys: aliases, stages, tags; empty: all.
            after: the id of the event to begin after. None: with what is committed from now on.
            patience: how many seconds the server may be away before it gives up; None: it never does.

        Raises:
            errors.Retryable: the server was away for too long. `after=` goes on.
            errors.InvalidArgument: there is no event `after` yet, as when the server's database was restored from a
                backup; it says which is the last. Look at how things are, and watch from there.
            ValueError: there is no such kind.
        """
        found = self._events(Watching(names, kinds, keys, after, patience))
        if after is None:
            next(found)  # from now on, and not from when the caller first looks
        return _only_events(found)

    def _events(self, watching: Watching) -> Generator[RegistryEvent | None, None, None]:
        """None: it has begun, or begun anew."""
        while True:
            begun = False
            messages = self._client._listen(watching.request, _as_it_is, watching.left)
            try:
                with closing(messages):  # type: ignore[type-var]  # a generator
                    for message in messages:
                        if not begun:
                            begun = True
                            yield None
                        if (event := watching.take(message)) is not None:
                            yield event
                failed: PenstockError = Unavailable("the server has ended the watch")
            except PenstockError as error:
                failed = error
            time.sleep(watching.failed(failed))

    def wait_for(
        self,
        name: str,
        *,
        alias: str | None = None,
        stage: ModelStage | str | None = None,
        version: int | None = None,
        other_than: int | None = None,
        timeout: float | None = None,
    ) -> ModelVersion:
        """Wait until an alias names another version, and return that version. The server tells; nothing is polled.

        Once it has begun, it waits for a server that is away, too.

        Args:
            name: the model.
            alias: which alias. Or else:
            stage: the newest version in this stage. With neither: the newest version of all.
            version: until it is just this one; at once, when it is already.
            other_than: until it is another than this; at once, when it is already. 0: until there is one. None: other
                than now.
            timeout: in seconds; None: without end.

        Raises:
            errors.TimedOut: it has not happened in time.
            errors.Unavailable: there was no server for a minute when it was to begin.
            errors.NotFound: there is no such model, or no more.
        """
        waiting = Waiting(name, alias, stage, version, other_than, timeout)
        with closing(self._events(waiting)) as found:
            for event in found:
                if waiting.concerns(event) and (there := self._look(waiting)) is not None:
                    return there
        raise waiting.too_late()

    def _look(self, waiting: Waiting) -> ModelVersion | None:
        while True:
            try:
                return self._carry(waiting.look())
            except PenstockError as error:
                failed = error
            time.sleep(waiting.failed(failed))

    def download(
        self,
        ref: str,
        dst: str | os.PathLike[str] | None = None,
        *,
        progress: Progress | None = None,
        patience: float | None = PATIENCE,
    ) -> Path:
        """Bring the files of a version, named as for `resolve`, to this machine. Returns where they are.

        `dst`, `progress` and `patience` are as of `Client.download_artifacts`. Raises NotFound; FailedPrecondition
        when its source is elsewhere, or deleted; what `download_artifacts` raises, too.
        """
        owner, path = files_of(self.resolve(ref))
        return self._client.download_artifacts(owner, path, dst, progress=progress, patience=patience)

    def __repr__(self) -> str:
        return f"<registry of {self._client!r}>"


class AsyncRegistry(_RegistryCalls):
    """The model registry, by an AsyncClient: the calls of `Registry`, to be awaited."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def _carry(self, flow: Flow[T]) -> T:
        return await self._client._carry(flow)

    async def watch(
        self,
        names: Sequence[str] = (),
        kinds: Sequence[str] = (),
        keys: Sequence[str] = (),
        *,
        after: int | None = None,
        patience: float | None = PATIENCE,
    ) -> AsyncIterator[RegistryEvent]:
        """As of `Registry`; without `after`, it begins with what is committed once it is first asked for an event."""
        async with aclosing(self._events(Watching(names, kinds, keys, after, patience))) as found:
            async for event in found:
                if event is not None:
                    yield event

    async def _events(self, watching: Watching) -> AsyncGenerator[RegistryEvent | None, None]:
        """None: it has begun, or begun anew."""
        while True:
            begun = False
            messages = self._client._listen(watching.request, _as_it_is, watching.left)
            try:
                async with aclosing(messages):  # type: ignore[type-var]  # a generator
                    async for message in messages:
                        if not begun:
                            begun = True
                            yield None
                        if (event := watching.take(message)) is not None:
                            yield event
                failed: PenstockError = Unavailable("the server has ended the watch")
            except PenstockError as error:
                failed = error
            await asyncio.sleep(watching.failed(failed))

    async def wait_for(
        self,
        name: str,
        *,
        alias: str | None = None,
        stage: ModelStage | str | None = None,
        version: int | None = None,
        other_than: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  of the request, as of Registry
    ) -> ModelVersion:
        """As of `Registry`."""
        waiting = Waiting(name, alias, stage, version, other_than, timeout)
        async with aclosing(self._events(waiting)) as found:
            async for event in found:
                if waiting.concerns(event) and (there := await self._look(waiting)) is not None:
                    return there
        raise waiting.too_late()

    async def _look(self, waiting: Waiting) -> ModelVersion | None:
        while True:
            try:
                return await self._carry(waiting.look())
            except PenstockError as error:
                failed = error
            await asyncio.sleep(waiting.failed(failed))

    async def download(
        self,
        ref: str,
        dst: str | os.PathLike[str] | None = None,
        *,
        progress: Progress | None = None,
        patience: float | None = PATIENCE,
    ) -> Path:
        """As of `Registry`."""
        owner, path = files_of(await self.resolve(ref))
        return await self._client.download_artifacts(owner, path, dst, progress=progress, patience=patience)

    def __repr__(self) -> str:
        return f"<registry of {self._client!r}>"


def _as_it_is(message: Any) -> Any:
    return message


def _only_events(found: Generator[RegistryEvent | None, None, None]) -> Iterator[RegistryEvent]:
    with closing(found):
        for event in found:
            if event is not None:
                yield event


def files_of(version: ModelVersion) -> tuple[str, str]:
    """Whose files its bytes are, a run's or a logged model's, and where in them. Raises FailedPrecondition."""
    scheme, _, rest = version.source.partition(":/")
    owner, _, path = rest.partition("/")
    if not (scheme == "runs" or (scheme == "models" and owner.startswith("m-"))):
        raise FailedPrecondition(
            f"version {version.version} of {version.name!r} is at {version.source}: fetch it there"
        )
    if version.source_problem:
        raise FailedPrecondition(
            f"version {version.version} of {version.name!r} has no files: {version.source_problem} ({version.source})"
        )
    return owner, path
