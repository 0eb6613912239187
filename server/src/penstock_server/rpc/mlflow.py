"""MlflowService: MLflow's REST API for who comes over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator

from penstock.v1 import mlflow_pb2 as pb
from penstock_server.mlflow.door import Door, Request
from penstock_server.model.access import Caller

_PIECE = 1 << 20


class MlflowService:
    """The methods of penstock.v1.MlflowService."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def call_mlflow(self, caller: Caller, request: pb.CallMlflowRequest) -> AsyncIterator[pb.CallMlflowResponse]:
        """One request."""
        headers = {"content-type": request.content_type or "application/json"} | dict(request.headers)
        query = [(argument.name, argument.value) for argument in request.query]
        reply = await self._door.answer(Request(request.method, request.path, query, headers, request.body), caller)
        yield pb.CallMlflowResponse(status=reply.status, content_type=reply.media_type, body=reply.body[:_PIECE])
        for start in range(_PIECE, len(reply.body), _PIECE):
            yield pb.CallMlflowResponse(body=reply.body[start : start + _PIECE])
