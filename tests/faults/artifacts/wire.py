"""The way to the artifacts' store: a proxy that knows what S3's requests are, and does harm to those that it is told.

What is not harmed passes, byte for byte. `harm` says what happens to a request; it is asked in the proxy's thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from campaign.proxy import DOWN, UP, Link, Proxy

_PIECE = 1 << 16
_HOLD_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Request:
    """What a server asks of the store."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def operation(self) -> str:
        """create, part, complete, abort, uploads, put, get, head, delete, deletes, list, or bucket."""
        parts = urlsplit(self.target)
        asked = parse_qs(parts.query, keep_blank_values=True)
        if "uploadId" in asked:
            return {"PUT": "part", "POST": "complete", "DELETE": "abort"}.get(self.method, "parts")
        if "uploads" in asked:
            return "create" if self.method == "POST" else "uploads"
        if "delete" in asked:
            return "deletes"
        if self.key:
            return self.method.lower()
        return "list" if self.method == "GET" else "bucket"

    @property
    def key(self) -> str:
        """Of the object, without the bucket; empty where it is about the bucket."""
        return unquote(urlsplit(self.target).path).lstrip("/").partition("/")[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """The store says no: `code` as S3 names it. It has never seen the request."""

    status: int
    code: str


@dataclass(frozen=True, slots=True)
class Delay:
    """The request is kept back for so long, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Slow:
    """The request's body goes at so many bytes a second."""

    rate: float


@dataclass(frozen=True, slots=True)
class CutRequest:
    """The connection is reset after this part (0 to 1) of the body has reached the store."""

    at: float = 0.5


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """The store does what it is asked; of its answer's body this part arrives, and then a reset. 0: nothing at all."""

    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Hold:
    """The request is kept back until `go`: what is under way is `reached`, and other harm can be done meanwhile."""

    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


Act = Answer | Delay | Slow | CutRequest | CutAnswer | Hold
Harm = Callable[[Request], Act | None]


def nth(operation: str, number: int, act: Act, times: int = 1) -> Harm:
    """From the `number`-th request (from 1) of this operation on, so many of them suffer this."""
    seen = 0

    def harm(request: Request) -> Act | None:
        nonlocal seen
        seen += request.operation == operation
        return act if request.operation == operation and number <= seen < number + times else None

    return harm


def none(_: Request) -> None:
    """No harm."""


class Wire(Proxy):
    """To `upstream`, host:port."""

    def __init__(self, upstream: str) -> None:
        self.harm: Harm = none
        self.struck: list[tuple[str, Act]] = []  # operations, and what has happened to them
        self.asked: Counter[str] = Counter()  # requests by their operation
        super().__init__(upstream)

    async def _carry(self, link: Link, here: asyncio.StreamReader, there: asyncio.StreamReader) -> None:
        while head := await _head(here):
            line, headers = _parsed(head)
            method, target, _ = line.split(" ", 2)
            request = Request(method, target, headers)
            self.asked[request.operation] += 1
            act = self.harm(request)
            if act is not None:
                self.struck.append((request.operation, act))
            if isinstance(act, Answer):
                await _refuse(link, here, request, act)
                return
            if isinstance(act, Delay):
                await asyncio.sleep(act.seconds)
            if isinstance(act, Hold):
                act.reached.set()
                await asyncio.to_thread(act.go.wait, _HOLD_SECONDS)
            link.writers[UP].write(head)
            sending = asyncio.create_task(_send(link, here, headers, act))
            try:
                if not await _hear(link, there, request, act):
                    return
                if not sending.done():
                    return  # answered before it was read to the end
                await sending
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)


async def _refuse(link: Link, here: asyncio.StreamReader, request: Request, act: Answer) -> None:
    if "expect" not in request.headers:  # else the body has not been sent
        await _relay(here, None, request.headers)
    body = f"<?xml version='1.0'?><Error><Code>{act.code}</Code><Message>by the test</Message></Error>".encode()
    head = f"HTTP/1.1 {act.status} x\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    link.writers[DOWN].write(f"{head}Connection: close\r\n\r\n".encode() + (b"" if request.method == "HEAD" else body))
    await link.writers[DOWN].drain()


async def _send(link: Link, here: asyncio.StreamReader, headers: dict[str, str], act: Act | None) -> None:
    """The request's body to the store."""
    limit = act.at if isinstance(act, CutRequest) else None
    rate = act.rate if isinstance(act, Slow) else 0.0
    try:
        if not await _relay(here, link.writers[UP], headers, limit, rate):
            link.cut(reset=True)
    except OSError:
        pass  # whoever has ended it is heard of where the answer is awaited


async def _hear(link: Link, there: asyncio.StreamReader, request: Request, act: Act | None) -> bool:
    """The answer to who has asked. Returns whether the connection goes on."""
    lost = isinstance(act, CutAnswer)
    limit = act.at if isinstance(act, CutAnswer) else None
    down = None if limit == 0 else link.writers[DOWN]
    while True:
        head = await _head(there)
        if not head:
            link.cut(reset=True)
            return False
        line, headers = _parsed(head)
        status = int(line.split(" ")[1])
        if 100 <= status < 200:
            link.writers[DOWN].write(head)  # go on, send it
            continue
        if down is not None:
            down.write(head)
        if request.method != "HEAD" and status not in (204, 304):
            await _relay(there, down, headers, limit or None)
        if lost:
            link.cut(reset=True)
            return False
        return headers.get("connection", "").lower() != "close"


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the empty line; nothing at the end of the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError):
        return b""


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    line, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (each.partition(":") for each in rest)
    return line, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter | None,
    headers: dict[str, str],
    limit: float | None = None,
    rate: float = 0.0,
) -> bool:
    """A body, to nowhere where there is no writer; `limit` is a part of it. Returns whether that was all."""

    async def carry(count: int) -> None:
        while count:
            data = await reader.read(min(count, _PIECE))
            if not data:
                raise ConnectionResetError
            count -= len(data)
            if writer is not None:
                writer.write(data)
                await writer.drain()
            if rate:
                await asyncio.sleep(len(data) / rate)

    if "chunked" in headers.get("transfer-encoding", "").lower():
        while True:
            try:
                line = await reader.readuntil(b"\r\n")
            except asyncio.IncompleteReadError:
                raise ConnectionResetError from None
            size = int(line.partition(b";")[0], 16)
            if writer is not None:
                writer.write(line)
            if limit is not None:
                await carry(round(limit * size))
                return False
            await carry(size + 2)
            if not size:
                return True
    length = int(headers.get("content-length", 0))
    await carry(length if limit is None else round(limit * length))
    return limit is None
