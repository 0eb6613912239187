"""MLflow's REST API over HTTP: what comes from the network to the door, and its answers back."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from penstock_server.mlflow import SPEAKS, door
from penstock_server.mlflow.door import Door, Reply
from penstock_server.mlflow.errors import MlflowError
from penstock_server.model.errors import Unavailable

# MLflow's own limit for a batch is 1,000,000 bytes; traces and models' descriptions may be longer.
BODY_LIMIT = 64 << 20

_METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]


def routes(open_door: Callable[[], Door | None]) -> list[BaseRoute]:
    """The routes. `open_door` is None as long as the server is not ready."""

    async def answer(request: Request) -> Response:
        ready = open_door()
        if ready is None:
            return response(door.refusal(Unavailable("the server is starting or stopping", 1.0), ""))
        try:
            body = await _body(request)
        except MlflowError as error:
            return response(door.refusal(error, ""))
        query, headers = request.query_params.multi_items(), dict(request.headers)
        return response(await ready.answer(door.Request(request.method, request.url.path, query, headers, body)))

    async def version(_: Request) -> Response:
        return PlainTextResponse(SPEAKS)

    async def server_info(_: Request) -> Response:
        return Response(orjson.dumps(_CAPABILITIES), media_type="application/json")

    return [
        Route("/version", version),
        *(
            Route(f"/{prefix}/3.0/mlflow/{name}", server_info)
            for prefix in ("api", "ajax-api")
            for name in ("server-info", "server-features")
        ),
        Route("/v1/traces", answer, methods=["POST"]),
        *(Route(f"/{prefix}/{{rest:path}}", answer, methods=_METHODS) for prefix in ("api", "ajax-api")),
    ]


_CAPABILITIES = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "multipart_uploads_enabled": False,
    "multipart_downloads_enabled": False,
    "presigned_upload_run_id_supported": False,
    "presigned_upload_model_id_supported": False,
    "features_enabled": {"gateway": False},
}


def response(reply: Reply) -> Response:
    """An answer of the door."""
    headers = {"x-content-type-options": "nosniff", **reply.headers}
    return Response(reply.body, reply.status, headers, reply.media_type)


async def _body(request: Request) -> bytes:
    """All of it. Raises MlflowError when it is too long."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > BODY_LIMIT:
            raise MlflowError("INVALID_PARAMETER_VALUE", f"the body has more than {BODY_LIMIT} bytes")
        pieces.append(piece)
    return b"".join(pieces)
