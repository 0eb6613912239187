"""A guard against other sites: what their pages make a browser ask of a server that only its user can reach."""

from __future__ import annotations

import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send

from penstock_server.http import mlflow
from penstock_server.mlflow import door
from penstock_server.mlflow.errors import MlflowError

_HARMLESS = frozenset(("GET", "HEAD", "OPTIONS"))
_LOOKED_AT = frozenset((b"origin", b"host", b"x-forwarded-host"))
_PORTS = {"http": ":80", "https": ":443"}


class Guard:
    """Refuses what changes something and comes from a page of another site: its Origin is not the Host that is asked.

    With `loopback`, where the server can only be reached from its own machine, the Host must be that machine: a site
    whose name leads there, to be of one origin with the server, is refused too (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, loopback: bool) -> None:
        self._app = app
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses the request, or hands it on."""
        problem = self._problem(scope) if scope["type"] == "http" else ""
        if problem:
            reply = door.refusal(MlflowError("PERMISSION_DENIED", problem), "")
            await mlflow.response(reply)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _problem(self, scope: Scope) -> str:
        found = {name: value.decode("latin-1").lower() for name, value in scope["headers"] if name in _LOOKED_AT}
        host = found.get(b"host", "")
        if self._loopback and host and not _is_this_machine(host):
            return f"this server listens for its own machine, which is not called {host[:100]!r}"
        origin = found.get(b"origin")
        if origin is None or scope["method"] in _HARMLESS:
            return ""
        scheme, _, asked = origin.partition("://")
        port = _PORTS.get(scheme, "")
        # A page cannot set X-Forwarded-Host, unless the server of another origin says that it may.
        hosts = {each.removesuffix(port) for each in (host, found.get(b"x-forwarded-host", "")) if each}
        if asked and asked.removesuffix(port) in hosts:
            return ""
        return f"a page of {origin[:100]!r} may not ask this of {host[:100]!r}"


def _is_this_machine(host: str) -> bool:
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
