"""Ports to listen on: bound before anything costly is started, kept from others, shared among our own processes."""

from __future__ import annotations

import errno
import socket

from penstock_server.config import Address

# An address of the name that this machine does not have, such as ::1 where IPv6 is off.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class PortError(Exception):
    """The port cannot be had; the message says why and what to do."""


def bind(setting: str, address: Address) -> list[socket.socket]:
    """Sockets bound to all addresses of the host, for this process alone. Raises PortError, which names `setting`."""
    return _bind(setting, address, shared=False)


def share(setting: str, address: Address) -> list[socket.socket]:
    """Sockets bound so that other processes of our user may bind the same. Raises PortError."""
    return _bind(setting, address, shared=True)


def check(setting: str, address: Address) -> None:
    """Raises PortError when another program listens there: a shared port would be shared with that too."""
    for listener in bind(setting, address):
        listener.close()


def bound(sockets: list[socket.socket], address: Address) -> Address:
    """The address with the port that the system chose."""
    return Address(address.host, sockets[0].getsockname()[1])


def _bind(setting: str, address: Address, *, shared: bool) -> list[socket.socket]:
    flag = f"--{setting.replace('_', '-')}"
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in dict.fromkeys(found):
            try:
                sockets.append(_listener(family, kind, protocol, shared=shared))
                # Port 0 is chosen once, for all addresses of the host.
                port = sockets[0].getsockname()[1] if len(sockets) > 1 else address.port
                sockets[-1].bind((where[0], port, *where[2:]))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
                if sockets:
                    sockets.pop().close()
        if not sockets and absent is not None:
            raise absent
    except OSError as error:
        for listener in sockets:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortError(f"{address} is in use by another program; stop that, or choose another {flag}") from None
        raise PortError(f"cannot listen on {address}: {error.strerror}; choose another {flag}") from None
    return sockets


def _listener(family: int, kind: int, protocol: int, *, shared: bool) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return listener
