"""A front before an S3 server: it takes down what is asked, and answers itself where it was told to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Asked:
    """A request. Names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """An answer that is made up; status 0 is none at all. With `cut` it is the store's own, up to this byte."""

    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


def refusal(status: int, code: str, message: str = "as the test has it", more: str = "") -> Reply:
    """As S3 words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    return Reply(status, body, {"Content-Type": "application/xml"})


class Front:
    """`replies` are given in turn, to whatever is asked; what comes after them goes on to the server behind."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.replies: deque[Reply] = deque()
        self.asked: list[Asked] = []
        self.headers: dict[str, str] = {}  # that answers from behind shall have
        self.endpoint = f"http://127.0.0.1:{server.server_address[1]}"


@contextmanager
def front(behind: str = "") -> Iterator[Front]:
    """Before an endpoint; before nothing, as long as there are replies."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            it.asked.append(Asked(self.command, self.path, headers))
            reply = it.replies.popleft() if it.replies else None
            if reply is None or reply.cut is not None:
                self._hand_on(sent, reply)
            elif reply.status == 0:
                self.close_connection = True
            else:
                self._send(reply.status, reply.headers, reply.body.encode())

        def _hand_on(self, sent: bytes, reply: Reply | None) -> None:
            connection = HTTPConnection(urlsplit(behind).netloc, timeout=60)
            headers = dict(self.headers.items()) | {"Host": self.headers["Host"]}
            with closing(connection):
                connection.request(self.command, self.path, sent, headers)
                answer = connection.getresponse()
                body = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in it.headers}
            self._send(answer.status, kept | it.headers, body, reply.cut if reply else None)

        def _send(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            if self.command == "HEAD":
                self.send_header("Content-Length", headers.get("Content-Length", "0"))
            elif status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
            self.wfile.flush()
            self.close_connection = cut is not None and cut < len(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    it = Front(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
