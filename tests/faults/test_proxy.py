"""The network of the fault campaigns does what it says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from campaign.proxy import DOWN, UP, Proxy

_SECONDS = 20


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends back what it gets."""

    def serve() -> None:
        while True:
            try:
                conn, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(conn,), daemon=True).start()

    def answer(conn: socket.socket) -> None:
        with conn:
            try:
                while data := conn.recv(1 << 16):
                    conn.sendall(data)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def proxy(echo: str) -> Iterator[Proxy]:
    with Proxy(echo) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=_SECONDS)


def says(conn: socket.socket, text: bytes) -> bytes:
    """What comes back of it."""
    conn.sendall(text)
    heard = b""
    while len(heard) < len(text) and (data := conn.recv(1 << 16)):
        heard += data
    return heard


def silent(conn: socket.socket) -> bool:
    conn.settimeout(0.3)
    try:
        return conn.recv(1) == b"never"
    except TimeoutError:
        return True
    finally:
        conn.settimeout(_SECONDS)


def useless(proxy: Proxy) -> bool:
    """Whether a new connection ends at once."""
    try:
        with connect(proxy) as conn:
            return says(conn, b"x") == b""
    except ConnectionError:
        return True


def test_what_is_not_harmed_passes(proxy: Proxy) -> None:
    with connect(proxy) as conn:
        assert says(conn, b"x" * 1_000_000) == b"x" * 1_000_000


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_what_is_held_comes_later_and_what_is_swallowed_never(proxy: Proxy, direction: str) -> None:
    with connect(proxy) as conn:
        assert says(conn, b"before") == b"before"
        proxy.hold(direction)
        conn.sendall(b"held")
        assert silent(conn)
        proxy.clear()
        assert conn.recv(100) == b"held"
        proxy.swallow(direction)
        conn.sendall(b"swallowed")
        assert silent(conn)
        proxy.clear()
        assert says(conn, b"after") == b"after"


def test_a_reset_and_an_end_look_as_they_should(proxy: Proxy) -> None:
    with connect(proxy) as conn:
        assert says(conn, b"before") == b"before"
        assert proxy.cut(reset=True) == 1
        with pytest.raises(ConnectionResetError):
            conn.recv(1)
    with connect(proxy) as conn:
        assert says(conn, b"before") == b"before"
        proxy.cut(reset=False)
        assert conn.recv(1) == b""


def test_a_torn_message_arrives_by_half(proxy: Proxy) -> None:
    with connect(proxy) as conn:
        assert says(conn, b"before") == b"before"
        proxy.hold(DOWN)  # so that it is the answer that is torn
        conn.sendall(b"0123456789")
        assert silent(conn)
        assert proxy.tear() == 1
        proxy.clear()
        assert conn.recv(100) == b"01234"
        assert conn.recv(100) == b""


def test_connections_are_refused_or_never_answered(proxy: Proxy) -> None:
    proxy.refuse()
    assert useless(proxy)
    proxy.clear()
    proxy.stall()
    with connect(proxy) as conn:
        conn.sendall(b"x")
        assert silent(conn)
    assert proxy.accepted == 2


def test_another_upstream_takes_the_next_connection(proxy: Proxy) -> None:
    with connect(proxy) as conn:
        assert says(conn, b"x") == b"x"
        proxy.upstream = "127.0.0.1:1"
        assert says(conn, b"y") == b"y"
    assert useless(proxy)
