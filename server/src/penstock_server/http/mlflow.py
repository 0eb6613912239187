"""MLflow's REST API over HTTP: what comes from the network to the door, and its answers back."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from penstock_server.mlflow import SPEAKS, door
from penstock_server.mlflow.door import Door, Reply
from penstock_server.mlflow.errors import MlflowError
from penstock_server.model.errors import Unavailable

# MLflow's own limit for a batch is 1,000,000 bytes. Read JSON takes many times its bytes: what may be long is traces,
# datasets with their profiles, and models with their params.
BODY_LIMIT = 2 << 20
LONG_BODY_LIMIT = 64 << 20
_LONG = re.compile(r"/(?:traces|logged-models|log-inputs|log-model)(?:/|$)")

_METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]


def routes(open_door: Callable[[], Door | None], *, signed: bool) -> list[BaseRoute]:
    """The routes. `open_door` is None as long as the server is not ready.

    `signed`: clients read and write the artifacts' store themselves, at addresses that are signed for them.
    """
    capabilities = _CAPABILITIES | {"multipart_uploads_enabled": signed, "multipart_downloads_enabled": signed}

    class Answer:
        """Takes requests as ASGI has them: half of what Starlette makes of one is not looked at here."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            ready = open_door()
            if ready is None:
                reply = door.refusal(Unavailable("the server is starting or stopping", 1.0), "")
            else:
                limit = LONG_BODY_LIMIT if _LONG.search(scope["path"]) else BODY_LIMIT
                try:
                    reply = await ready.answer(_request(scope, await _body(receive, limit)))
                except MlflowError as error:
                    reply = door.refusal(error, "")
                except ClientDisconnect:
                    return
            await response(reply)(scope, receive, send)

    async def version(_: Request) -> Response:
        return PlainTextResponse(SPEAKS)

    async def server_info(_: Request) -> Response:
        return Response(orjson.dumps(capabilities), media_type="application/json")

    return [
        Route("/version", version),
        *(
            Route(f"/{prefix}/3.0/mlflow/{name}", server_info)
            for prefix in ("api", "ajax-api")
            for name in ("server-info", "server-features")
        ),
        Route("/v1/traces", Answer(), methods=["POST"]),
        *(Route(f"/{prefix}/{{rest:path}}", Answer(), methods=_METHODS) for prefix in ("api", "ajax-api")),
    ]


_CAPABILITIES = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "presigned_upload_run_id_supported": False,
    "presigned_upload_model_id_supported": False,
    "features_enabled": {"gateway": False},
}


def response(reply: Reply) -> Response:
    """An answer of the door."""
    headers = {"x-content-type-options": "nosniff", **reply.headers}
    return Response(reply.body, reply.status, headers, reply.media_type)


def _request(scope: Scope, body: bytes) -> door.Request:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return door.Request(scope["method"], scope["path"], query, headers, body)


async def _body(receive: Receive, limit: int) -> bytes:
    """All of it. Raises MlflowError when it is too long, ClientDisconnect when the rest does not come."""
    pieces, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, more = message.get("body", b""), message.get("more_body", False)
        size += len(piece)
        if size > limit:
            raise MlflowError("INVALID_PARAMETER_VALUE", f"the body has more than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)
