"""A server's MLflow API, asked over gRPC."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import ENDPOINT_NOT_FOUND, MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.utils.proto_json_utils import parse_dict

from penstock import errors
from penstock.address import parse_address
from penstock.calls import Request
from penstock.client import Client
from penstock.effort import PATIENCE, Effort
from penstock.transport import Channels
from penstock.v1 import mlflow_pb2 as pb

_METHOD = "/penstock.v1.MlflowService/CallMlflow"
_AGAIN = frozenset((429, 502, 503, 504))

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (errors.Retryable, "TEMPORARILY_UNAVAILABLE"),
    (errors.NotFound, "RESOURCE_DOES_NOT_EXIST"),
    (errors.AlreadyExists, "RESOURCE_ALREADY_EXISTS"),
    (errors.PermissionDenied, "PERMISSION_DENIED"),
    (errors.Unauthenticated, "UNAUTHENTICATED"),
    (errors.InvalidArgument, "INVALID_PARAMETER_VALUE"),
    (errors.FailedPrecondition, "INVALID_PARAMETER_VALUE"),
    (ValueError, "INVALID_PARAMETER_VALUE"),
)

# Fields that say where files are. Within a text of JSON a quotation mark has a back-slash before it, so that no text
# that somebody has logged is taken for such a field.
_PLACE = (
    r'("(?:artifact_uri|artifact_location|source|storage_location|mlflow\.artifactLocation)"\s*:\s*"'
    r'|"key"\s*:\s*"mlflow\.artifactLocation"\s*,\s*"value"\s*:\s*")'
)
_THEIRS = "mlflow-artifacts:/"


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """What fails within is told as MLflow tells it."""
    try:
        yield
    except (errors.PenstockError, ValueError) as error:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), "INTERNAL_ERROR")
        raise MlflowException(str(error), error_code=ErrorCode.Value(code)) from error


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answers."""

    status: int
    body: bytes


class Door:
    """One server's. May be used by any thread, and in children after a fork."""

    def __init__(self, uri: str) -> None:
        """`uri` is what MLflow calls the server, such as penstock://host:50051. Raises MlflowException."""
        self.uri = uri.rstrip("/")
        with mlflow_errors():
            self._client = Client(self.uri)
            self.address = parse_address(self.uri)
        # At the end of the process MLflow ends its runs, when no thread can be had any more.
        self._client._channels = Channels(threadless=True)
        self._outwards = re.compile(_PLACE + re.escape(self.uri) + "/")
        self._inwards = re.compile(_PLACE.encode() + re.escape(_THEIRS).encode() + b"/*")

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes = b"",
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request, asked again for a minute while the server is away. Raises MlflowException.

        A field of `query` that is a list is there several times; None is not there at all.
        """
        request = pb.CallMlflowRequest(
            method=method, path=unquote(path), body=body, content_type=content_type, headers=headers
        )
        for name, value in (query or {}).items():
            for each in value if isinstance(value, (list, tuple)) else [value]:
                if each is not None:
                    request.query.add(name=name, value=str(each))
        with mlflow_errors():
            return Effort(PATIENCE).persist(lambda: self._once(request))

    def _once(self, request: pb.CallMlflowRequest) -> Reply:
        asked = Request(_METHOD, request, pb.CallMlflowResponse, streams=True)
        timeout = float(MLFLOW_HTTP_REQUEST_TIMEOUT.get())
        pieces: list[pb.CallMlflowResponse] = list(self._client._listen(asked, lambda piece: piece, timeout))
        status, body = pieces[0].status, b"".join(piece.body for piece in pieces)
        if status in _AGAIN:
            raise errors.Unavailable(f"{self.address.target} answers {status}: {body[:500].decode(errors='replace')}")
        return Reply(status, body)

    def ask(
        self, method: str, path: str, fields: str | None, answer: Any, headers: Mapping[str, str] | None = None
    ) -> Any:
        """A request whose fields are JSON, and `answer` with what is answered in it. Raises MlflowException."""
        fields = fields and self._outwards.sub(rf"\g<1>{_THEIRS}", fields)
        if method == "GET":
            query = json.loads(fields) if fields else None
            reply = self.call(method, path, query=query, headers=headers)
        else:
            reply = self.call(method, path, body=(fields or "").encode(), headers=headers)
        verify(reply, path)
        parse_dict(json.loads(self._inwards.sub(rb"\g<1>" + self.uri.encode() + b"/", reply.body) or b"{}"), answer)
        return answer


def verify(reply: Reply, path: str) -> None:
    """Raises the error that the reply is, if it is one."""
    if reply.status == 200:
        return
    try:
        told = json.loads(reply.body)
    except ValueError:
        told = None
    if isinstance(told, dict):
        raise RestException(told)
    raise MlflowException(f"{path} answers {reply.status}: {reply.body[:500].decode(errors='replace')}")


def is_not_served(error: MlflowException) -> bool:
    """Whether it says that there is no such endpoint."""
    return bool(error.error_code == ErrorCode.Name(ENDPOINT_NOT_FOUND))


@functools.cache
def client_of(uri: str) -> Client:
    """The client for the files of the server that MLflow calls `uri`. Raises MlflowException."""
    with mlflow_errors():
        return Client(uri)
