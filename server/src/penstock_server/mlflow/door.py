"""The door: finds who answers a request, asks whether the caller may, and puts what comes back into MLflow's shape."""

from __future__ import annotations

import re
import uuid
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson
import structlog

from penstock_server.core.access import Access
from penstock_server.mlflow import errors, json_texts
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.errors import MlflowError
from penstock_server.model.access import DEFAULT_WORKSPACE, Caller, Need, Permission, Resource
from penstock_server.model.errors import PenstockError, Retryable
from penstock_server.model.runs import USER_LIMIT

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came. `path` begins with `/` and is percent-decoded; `headers` have lower-case names."""

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


Answer = Mapping[str, Any] | bytes | Reply


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method and path, such as ``POST 2.0/mlflow/runs/create``, and who answers it.

    `{name}` in the path is an argument, and `{name:path}` one that may have `/` in it. What it needs is `permission` on
    the resource that the argument `named` names.
    """

    method: str
    path: str
    answer: Callable[[Caller, Arguments], Awaitable[Answer]]
    permission: Permission
    resource: Resource = Resource.WORKSPACE
    named: str = ""

    def needs(self, arguments: Arguments) -> Need:
        """What this very request needs."""
        value = arguments.get(self.named) if self.named else None
        ids = tuple(map(str, value)) if isinstance(value, list) else (str(value),) if value else ()
        return Need(self.permission, self.resource, ids)


@dataclass(frozen=True, slots=True)
class RawEndpoint:
    """One that takes a request as it came, and no JSON of MLflow's. `path` is all of it."""

    method: str
    path: str
    answer: Callable[[Caller, Request], Awaitable[Reply]]
    needs: Callable[[Request], Need]


class Door:
    """Answers MLflow's JSON endpoints, and some that take other bodies."""

    def __init__(self, access: Access, endpoints: Iterable[Endpoint], raw: Iterable[RawEndpoint] = ()) -> None:
        self._access = access
        self._raw = {(endpoint.method, endpoint.path): endpoint for endpoint in raw}
        self._plain: dict[str, dict[str, Endpoint]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, Endpoint]]] = {}
        for endpoint in endpoints:
            if "{" in endpoint.path:
                path = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", endpoint.path)
                pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path), re.DOTALL)
                methods = self._patterns.setdefault(endpoint.path, (pattern, {}))[1]
            else:
                methods = self._plain.setdefault(endpoint.path, {})
            if endpoint.method in methods:
                raise ValueError(f"two answer {endpoint.method} {endpoint.path}")
            methods[endpoint.method] = endpoint

    async def answer(self, request: Request, known: Caller | None = None) -> Reply:
        """Never raises, but for what ends the task. `known`: whose it is, whatever its headers say."""
        request_id = uuid.uuid4().hex
        try:
            if raw := self._raw.get((request.method, request.path)):
                return await raw.answer(await self._caller(known, request, raw.needs(request), request_id), request)
            endpoint, parts = self._find(request)
            arguments = Arguments({**_arguments(request), **parts})
            caller = await self._caller(known, request, endpoint.needs(arguments), request_id)
            answer = await endpoint.answer(caller, arguments)
        except Exception as error:  # noqa: BLE001  # refusal() logs what is a bug
            return refusal(error, request_id)
        if isinstance(answer, Reply):
            return answer
        return Reply(200, answer if isinstance(answer, bytes) else orjson.dumps(answer))

    async def _caller(self, known: Caller | None, request: Request, need: Need, request_id: str) -> Caller:
        if known is None:
            return await caller_of(self._access, request.headers, need, request_id)
        await self._access.allow(known, need)
        return known

    def _find(self, request: Request) -> tuple[Endpoint, dict[str, str]]:
        path = request.path.removeprefix("/ajax-api/").removeprefix("/api/").strip("/")
        methods, parts = self._plain.get(path), {}
        if methods is None:
            for pattern, found in self._patterns.values():
                if matched := pattern.fullmatch(path):
                    methods, parts = found, matched.groupdict()
                    if request.method in found:
                        break
        if methods is None:
            raise MlflowError("ENDPOINT_NOT_FOUND", f"{request.path} is no endpoint of this server; see docs/mlflow.md")
        if request.method not in methods:
            raise MlflowError("METHOD_NOT_ALLOWED", f"{request.path} takes {', '.join(sorted(methods))}")
        return methods[request.method], parts


async def caller_of(access: Access, headers: Mapping[str, str], need: Need, request_id: str) -> Caller:
    """The caller of a request, authorised for what it needs. Raises PermissionDenied, NotFound of the workspace."""
    workspace = headers.get("x-mlflow-workspace") or DEFAULT_WORKSPACE
    caller = await access.authorise("anonymous", workspace, need)
    return Caller(caller.principal, caller.workspace_id, _user(headers), request_id)


def refusal(error: Exception, request_id: str) -> Reply:
    """How an error is answered."""
    if isinstance(error, PenstockError | MlflowError):
        log.debug("refused", error=str(error), kind=type(error).__name__)
        code, message = errors.code(error), errors.message(error)
    else:
        log.error("internal error", exc_info=error, request_id=request_id)
        code, message = "INTERNAL_ERROR", f"internal error; request id {request_id}"
    headers = {"x-request-id": request_id}
    if isinstance(error, Retryable):
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    body = orjson.dumps({"error_code": code, "message": message.encode(errors="replace").decode()})
    return Reply(errors.STATUS[code], body, headers)


def _arguments(request: Request) -> dict[str, Any]:
    if request.method == "GET":
        found: dict[str, list[str]] = {}
        for name, value in request.query:
            found.setdefault(name, []).append(value)
        return {name: values if len(values) > 1 else values[0] for name, values in found.items()}
    if not request.body:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise errors.invalid("Bad Request. Content-Type must be one of ['application/json'].")
    try:
        fields = json_texts.read(request.body)
        if isinstance(fields, str):  # old clients encode twice
            fields = json_texts.read(fields)
    except ValueError as error:
        raise errors.invalid(f"The body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise errors.invalid("The body must be a JSON object.")
    return fields


def _user(headers: Mapping[str, str]) -> str:
    """Who is behind it, as the client tells: in a header of ours, or as the name of HTTP's basic authentication."""
    user = unquote(headers.get("penstock-user", ""))
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if not user and scheme.lower() == "basic":
        try:
            user = b64decode(given, validate=True).decode().partition(":")[0]
        except (NotBase64, UnicodeDecodeError):
            user = ""
    return user if user and len(user) <= USER_LIMIT and user.isprintable() else "anonymous"
