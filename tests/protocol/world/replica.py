"""A server: the product's ingest and stream handler, over the model of the database."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import StatusCode

from penstock_server.core.streams import Streams
from penstock_server.ingest.ingest import Ingest
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.errors import PenstockError
from penstock_server.rpc import calls, errors, streams
from world.clockwork import Clockwork
from world.database import Model, Server
from world.network import Connection

_CALLER = Caller("tester", WorkspaceId(1))
_MESSAGE_BYTES = 1 << 20
_DRAIN_SECONDS = 10.0


class Replica:
    """One that lives until `die`."""

    def __init__(self, clock: Clockwork, model: Model) -> None:
        self._clock = clock
        self.database: Any = Server(model)
        self._ingest = Ingest(self.database, 1 << 20)
        self._streams = Streams(self.database, self._ingest, runs=None)  # type: ignore[arg-type]  # makes none
        self._tasks = [clock.create_task(pipeline.run()) for pipeline in self._ingest._pipelines]
        self._draining: asyncio.Task[None] | None = None
        self._serving: dict[Connection, asyncio.Task[None]] = {}
        clock.settle()

    def accept(self, connection: Connection) -> None:
        """Somebody has connected."""
        self._serving[connection] = self._clock.create_task(self._serve(connection))

    def notice(self, connection: Connection) -> None:
        """The other side of a connection is gone."""
        if (task := self._serving.pop(connection, None)) is not None:
            task.cancel()
            self._clock.settle()

    def drain(self) -> None:
        """As by SIGTERM."""
        if self._draining is None:
            self._draining = self._clock.create_task(self._ingest.drain(_DRAIN_SECONDS))
            self._tasks.append(self._draining)
            self._clock.settle()

    @property
    def drained(self) -> bool:
        """Whether it has nothing more to do."""
        return self._draining is not None and self._draining.done()

    def die(self) -> None:
        """As by SIGKILL: nothing of it goes on, but what it has sent already."""
        self.database.die()
        tasks = [*self._tasks, *self._serving.values()]
        for task in tasks:
            task.cancel()
        self._clock.settle()
        if self._draining is not None and not self._draining.cancelled():
            self._draining.exception()  # TimeoutError: what is left its writers send again
        for connection in self._serving:
            if not connection.answered:
                connection.end(StatusCode.UNAVAILABLE)

    def check(self) -> None:
        """Raises what has ended it, if something has."""
        for task in self._tasks:
            if task.done() and task is not self._draining:
                task.result()

    async def _serve(self, connection: Connection) -> None:
        try:
            requests = connection.requests()
            stream = await self._streams.open(_CALLER, streams.hello(await anext(requests)))
            await streams.converse(stream, requests, connection.send, _MESSAGE_BYTES)
        except Exception as error:  # as rpc/calls.py tells it
            cause = calls._only(error)
            if not isinstance(cause, PenstockError):
                raise
            connection.end(errors.STATUS[type(cause)])
        else:
            connection.end(StatusCode.OK)
