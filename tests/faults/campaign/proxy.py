"""A network that does what it likes: a TCP proxy between clients and servers, in a thread of its own.

Harm is done from outside, to all connections at once or to new ones; what is not harmed passes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_CHUNK = 1 << 16
UP, DOWN = "up", "down"  # from clients to the server, and back


class Link:
    """One connection, with its pair to the server."""

    def __init__(self, weather: _Weather, writers: dict[str, asyncio.StreamWriter]) -> None:
        self.weather = weather
        self.writers = writers  # by the direction in which they write
        self.torn = False  # the next message is cut in half

    async def pump(self, direction: str, reader: asyncio.StreamReader) -> None:
        weather, writer = self.weather, self.writers[direction]
        try:
            while data := await reader.read(_CHUNK):
                await weather.passable[direction].wait()
                if weather.swallows == direction:
                    continue
                if weather.delay:
                    await asyncio.sleep(weather.delay)
                if self.torn:
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    self.cut(reset=False)
                    return
                writer.write(data)
                await writer.drain()
                if weather.rate:
                    await asyncio.sleep(len(data) / weather.rate)
        except OSError:
            pass  # the other side is gone
        finally:
            self.cut(reset=False)

    def cut(self, *, reset: bool) -> None:
        for writer in self.writers.values():
            sock = writer.get_extra_info("socket")
            if reset and sock is not None:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if reset:
                writer.transport.abort()
            else:
                writer.close()


class _Weather:
    def __init__(self) -> None:
        self.passable = {UP: asyncio.Event(), DOWN: asyncio.Event()}
        self.clear()

    def clear(self) -> None:
        self.delay = 0.0
        self.rate = 0.0
        self.swallows: str | None = None
        for event in self.passable.values():
            event.set()


class Proxy:
    """Forwards to `upstream`, host:port, which may be changed. Starts when it is made; `close` ends it."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.accepted = 0
        self._refuses = False
        self._stalls = False
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._weather, self._server = self._await(self._open())
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    # The weather: of all connections, those to come included, until it is clear again.

    def clear(self) -> None:
        """All passes, at full speed."""
        self._refuses = self._stalls = False
        self._call(self._weather.clear)

    def delay(self, seconds: float) -> None:
        """Each piece takes so long."""
        self._weather.delay = seconds

    def slow(self, rate: float) -> None:
        """So many bytes a second, either way."""
        self._weather.rate = rate

    def hold(self, *directions: str) -> None:
        """Nothing goes on in these directions, and nothing is lost."""
        self._call(lambda: [self._weather.passable[each].clear() for each in directions])

    def swallow(self, direction: str) -> None:
        """What is sent in this direction vanishes. Cut the connections before it is clear again: TCP does, too."""
        self._weather.swallows = direction

    def refuse(self) -> None:
        """New connections are reset."""
        self._refuses = True

    def stall(self) -> None:
        """New connections are accepted, and never answered."""
        self._stalls = True

    # At once.

    def cut(self, *, reset: bool) -> int:
        """Ends all connections. Returns how many there were."""

        async def cut() -> int:
            links = list(self._links)
            for link in links:
                link.cut(reset=reset)
            return len(links)

        return self._await(cut())

    def tear(self) -> int:
        """Ends each connection in the middle of the next message, whichever way that goes."""

        async def tear() -> int:
            for link in self._links:
                link.torn = True
            return len(self._links)

        return self._await(tear())

    def close(self) -> None:
        """Ends it."""
        if self._loop.is_closed():
            return

        async def close() -> None:
            self._server.close()
            for link in list(self._links):
                link.cut(reset=True)
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._await(close())
        self._call(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> tuple[_Weather, asyncio.Server]:
        return _Weather(), await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        link = Link(self._weather, {DOWN: writer})
        self._links.add(link)
        try:
            if self._refuses:
                link.cut(reset=True)
                return
            if self._stalls:
                await reader.read()  # it gives up, or we cut it
                return
            host, _, port = self.upstream.rpartition(":")
            try:
                there, link.writers[UP] = await asyncio.open_connection(host, int(port))
            except OSError:
                link.cut(reset=True)
                return
            await self._carry(link, reader, there)
        except (OSError, asyncio.CancelledError):
            pass  # cut while it stalled, or the end
        finally:
            link.cut(reset=False)
            self._links.discard(link)

    async def _carry(self, link: Link, here: asyncio.StreamReader, there: asyncio.StreamReader) -> None:
        """What goes over a connection, until it ends."""
        await asyncio.gather(link.pump(UP, here), link.pump(DOWN, there))

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def _call(self, function: Any) -> None:
        self._loop.call_soon_threadsafe(function)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
