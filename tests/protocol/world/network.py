"""A connection: messages on their way in both directions, in their order. It may break at any point of either."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from grpc import StatusCode

from penstock.columns import by_bytes
from penstock.v1 import metrics_pb2 as pb

_Request: Any = by_bytes(pb.StreamMetricsRequest)


class Connection:
    """Between a client and a replica."""

    def __init__(self) -> None:
        self.to_server: deque[bytes] = deque()
        self.to_client: deque[bytes | StatusCode] = deque()
        self.answered = False  # the replica has ended it
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()

    def arrive(self) -> None:
        """The next message reaches the replica."""
        self._arrived.put_nowait(_Request.FromString(self.to_server.popleft()))

    async def requests(self) -> AsyncIterator[Any]:
        """What arrives, for ever: a client that goes does not say so."""
        while True:
            yield await self._arrived.get()

    async def send(self, message: Any) -> None:
        """From the replica."""
        self.to_client.append(message.SerializeToString())

    def end(self, status: StatusCode) -> None:
        """The replica has no more to say."""
        self.answered = True
        self.to_client.append(status)
