"""What goes straight to a store, and what a peer says on the way: with no server of Penstock's."""

from __future__ import annotations

import hashlib
import http.server
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from penstock import direct, errors
from penstock.effort import Effort
from penstock.parallel import in_parallel
from penstock.sources import Source

MIB = 1 << 20


class Slow(http.server.BaseHTTPRequestHandler):
    """Takes what is put, but not fast."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        digest, left = hashlib.md5(usedforsecurity=False), int(self.headers["Content-Length"])
        while left > 0:
            data = self.rfile.read(min(left, 2 * MIB))
            digest.update(data)
            left -= len(data)
            time.sleep(0.25)
        self.send_response(200)
        self.send_header("ETag", digest.hexdigest())
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def slow() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 << 10)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/bucket/key?signed"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_part_may_take_longer_than_two_signs_of_life(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_TIMEOUT", 1.0)
    data = os.urandom(16 * MIB)
    store = direct.Http()
    md5 = hashlib.md5(data, usedforsecurity=False)
    assert store.put(slow, data, md5.digest()) == md5.hexdigest()
    store.close()


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "ExpiredToken")])
def test_an_address_that_is_no_longer_good_is_told_apart(status: int, code: str) -> None:
    body = f"<Error><Code>{code}</Code><Message>The provided token has expired.</Message></Error>".encode()
    assert type(direct._refusal(urlsplit("http://store/x"), status, body)) is direct.Expired


def test_no_file_is_overwritten_for_a_servers_word(tmp_path: Path) -> None:
    uploads = tmp_path / ".uploads"
    uploads.mkdir()
    good, full, link, pipe, other = (uploads / name for name in ("good", "full", "link", "pipe", "../other"))
    good.touch()
    full.write_bytes(b"precious")
    link.symlink_to(good)
    os.mkfifo(pipe)
    other.touch()
    with Source(b"data") as source:
        for path in (full, link, pipe, tmp_path / "other", uploads / "none"):
            with pytest.raises((errors.ServerError, errors.FailedPrecondition)):
                direct.write_file(path.as_uri(), source, Effort(), lambda _: None)
        assert full.read_bytes() == b"precious"
        assert good.read_bytes() == other.read_bytes() == b""
        direct.write_file(good.as_uri(), source, Effort(), lambda _: None)
    assert good.read_bytes() == b"data"


def test_ctrl_c_while_the_others_are_waited_for_ends_them() -> None:
    effort, ended = Effort(), threading.Event()
    here = threading.current_thread()

    def work(_: int) -> None:
        if threading.current_thread() is not here:
            while not effort.stopped:
                time.sleep(0.01)
            ended.set()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            in_parallel(work, range(3), 2, effort)
        assert ended.wait(10)
    finally:
        effort.end()
        signal.signal(signal.SIGALRM, before)
