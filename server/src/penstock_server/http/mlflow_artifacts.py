"""The files of MLflow's REST API over HTTP: streams in, and streams out, of which little is in memory at a time."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from penstock_server.http.mlflow import response
from penstock_server.mlflow import door, ids, places
from penstock_server.mlflow.errors import invalid
from penstock_server.mlflow.files import Asked, Bytes, Files
from penstock_server.mlflow.places import Place
from penstock_server.model.artifacts import MIB
from penstock_server.model.errors import Changed, Unavailable
from penstock_server.model.owners import of_run, parse_owner
from penstock_server.model.uploads import Trailer

log = structlog.get_logger(__name__)

# What the web UI of MLflow sends through its own endpoint.
_SMALL_BYTES = 10 * MIB
# Who reads nothing for so long gives what it holds to the others.
_UNREAD_SECONDS = 120.0
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

Find = Callable[[Files, Request, str], Awaitable[Asked]]


def routes(open_files: Callable[[], Files | None]) -> list[BaseRoute]:
    """The routes, to be looked at before those of the door. `open_files` is None as long as the server is not ready."""

    def reads(find: Find) -> Callable[[Request], Awaitable[Response]]:
        async def get(request: Request) -> Response:
            request_id = uuid.uuid4().hex
            try:
                return await _give(_ready(open_files), find, request, request_id)
            except Exception as error:  # noqa: BLE001  # refusal() logs what is a bug
                return response(door.refusal(error, request_id))

        return get

    def writes(place: Callable[[Request], Place], most: int | None = None) -> Callable[[Request], Awaitable[Response]]:
        async def put(request: Request) -> Response:
            request_id = uuid.uuid4().hex
            try:
                await _take(_ready(open_files), place(request), request, most, request_id)
            except ClientDisconnect:
                return Response(status_code=400)  # to nobody
            except Exception as error:  # noqa: BLE001  # refusal() logs what is a bug
                return response(door.refusal(error, request_id))
            return Response()

        return put

    prefixes = ("/api", "/ajax-api")
    path, model = "2.0/mlflow-artifacts/artifacts/{path:path}", "2.0/mlflow/logged-models/{id}/artifacts/files"
    return [
        *(Route(f"{prefix}/{path}", reads(_by_path), methods=["GET", "HEAD"]) for prefix in prefixes),
        *(Route(f"{prefix}/{path}", writes(_written), methods=["PUT"]) for prefix in prefixes),
        *(Route(f"{prefix}/{model}", reads(_of_logged_model)) for prefix in prefixes),
        Route("/get-artifact", reads(_of_run)),
        Route("/model-versions/get-artifact", reads(_of_version)),
        Route("/ajax-api/2.0/mlflow/upload-artifact", writes(_small, _SMALL_BYTES), methods=["POST"]),
    ]


def _ready(open_files: Callable[[], Files | None]) -> Files:
    files = open_files()
    if files is None:
        raise Unavailable("the server is starting or stopping", 1.0)
    return files


async def _by_path(files: Files, request: Request, request_id: str) -> Asked:
    return await files.by_path(request.headers, request.path_params["path"], request_id)


async def _of_run(files: Files, request: Request, request_id: str) -> Asked:
    return await files.of_run(request.headers, request.query_params, request_id)


async def _of_version(files: Files, request: Request, request_id: str) -> Asked:
    return await files.of_version(request.headers, request.query_params, request_id)


async def _of_logged_model(files: Files, request: Request, request_id: str) -> Asked:
    path = request.query_params.get("artifact_file_path")
    if not path:
        raise invalid('Request must include the "artifact_file_path" query parameter.')
    model = parse_owner(request.path_params["id"], "model_id")
    return await files.of_logged_model(request.headers, model, path, request_id)


def _written(request: Request) -> Place:
    return places.to_write(request.path_params["path"])


def _small(request: Request) -> Place:
    for name in ("run_uuid", "path"):
        if not request.query_params.get(name):
            raise invalid(f"Request must specify {name}.")
    if _size(request.headers) == 0:
        raise invalid("Request must specify data.")
    return Place(of_run(ids.parse_run_id(request.query_params["run_uuid"])), places.safe(request.query_params["path"]))


async def _take(files: Files, place: Place, request: Request, most: int | None, request_id: str) -> None:
    """Takes the body of a request."""
    size = _size(request.headers)
    if most is not None and (size is None or size > most):
        raise invalid("Artifact size is too large. Max size is 10MB.")
    async with aclosing(_contents(request.receive)) as contents:
        await files.receive(request.headers, place, size, contents, request_id)


def _size(headers: Mapping[str, str]) -> int | None:
    """Of a body, None when that is not told."""
    return None if "transfer-encoding" in headers else int(headers.get("content-length", "0"))


async def _contents(receive: Receive) -> AsyncGenerator[Bytes | Trailer, None]:
    """What comes, and that it has come to its end. Raises ClientDisconnect when it does not."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if body := message.get("body"):
            yield body
        more = message.get("more_body", False)
    yield Trailer(b"")


async def _give(files: Files, find: Find, request: Request, request_id: str) -> Response:
    """A file, or the range of it that is asked for."""
    asked = await find(files, request, request_id)
    artifact = await files.stat(asked)
    etag = f'"{artifact.sha256.hex()}"'
    headers = {
        "etag": etag,
        "accept-ranges": "bytes",
        "cache-control": "no-cache",
        "content-type": artifact.media_type,
        "content-disposition": _attachment(artifact.path),
        "x-content-type-options": "nosniff",
    }
    if etag in map(str.strip, request.headers.get("if-none-match", "").replace("W/", "").split(",")):
        return Response(None, 304, headers)
    status, start, end = 200, 0, artifact.size
    wanted = _RANGE.fullmatch(request.headers.get("range", "")) if _is_of(request.headers, etag) else None
    if wanted is not None and any(wanted.groups()):
        start, end = _within(wanted[1], wanted[2], artifact.size)
        if start >= end:
            return Response(None, 416, {"content-range": f"bytes */{artifact.size}"})
        status = 206
        headers["content-range"] = f"bytes {start}-{end - 1}/{artifact.size}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD" or start == end:
        return Response(None, status, headers)
    contents = files.read(asked, artifact, start, end - start)
    try:
        await anext(contents)
    except Changed:  # in this moment
        return await _give(files, find, request, request_id)
    return _Stream(contents, status, headers)


def _is_of(headers: Mapping[str, str], etag: str) -> bool:
    """Whether a range is asked for of this very content."""
    return headers.get("if-range", etag) == etag


def _within(first: str, last: str, size: int) -> tuple[int, int]:
    """Where a range begins, and where it has ended; the same where there is none."""
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return 0, size  # no range at all, and so none is asked for
    return int(first), min(size, int(last) + 1) if last else size


def _attachment(path: str) -> str:
    """Browsers keep it and do not show it: it may be a page with scripts, and would be one of this server."""
    name = path.rpartition("/")[2]
    plain = re.sub(r"[^ !#-\[\]-~]", "_", name)
    return f'attachment; filename="{plain}"' + ("" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}")


class _Stream(Response):
    """A file on its way out."""

    def __init__(self, contents: AsyncIterator[Any], status: int, headers: Mapping[str, str]) -> None:
        super().__init__(None, status, headers)
        self._contents = contents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it, until the client leaves. Raises what the store raises, which breaks the connection."""
        gone = asyncio.create_task(_gone(receive))
        try:
            async with aclosing(self._contents) as contents:  # type: ignore[type-var]  # it is a generator
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for chunk in contents:
                    async with asyncio.timeout(_UNREAD_SECONDS):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    if gone.done():
                        return
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.warning("a download is not read, and ends")  # what is left unsaid breaks the connection
        finally:
            gone.cancel()


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
