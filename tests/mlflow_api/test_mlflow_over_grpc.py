"""MLflow's REST API over gRPC: the same answers as over HTTP."""

from __future__ import annotations

import json

import grpc
from asking import Asking

from penstock.v1 import mlflow_pb2 as pb
from penstock.v1.mlflow_pb2_grpc import MlflowServiceStub
from servers import ServerProcess


def call(server: ServerProcess, method: str, path: str, query: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
    """The status and the whole body."""
    arguments = [pb.CallMlflowRequest.Argument(name=name, value=value) for name, value in query.items()]
    request = pb.CallMlflowRequest(method=method, path=path, query=arguments, body=body)
    with grpc.insecure_channel(server.grpc_address) as channel:
        pieces = list(MlflowServiceStub(channel).CallMlflow(request, timeout=30))  # type: ignore[no-untyped-call]
    return pieces[0].status, b"".join(piece.body for piece in pieces)


def test_the_same_as_over_http(server: ServerProcess, ask: Asking) -> None:
    path = "/api/2.0/mlflow/experiments/get"
    told = ask.get(path, experiment_id="0")
    assert call(server, "GET", path, {"experiment_id": "0"}) == (told.status, told.body)


def test_an_answer_longer_than_a_message(server: ServerProcess, ask: Asking) -> None:
    tags = [{"key": f"t{number}", "value": "x" * 19_000} for number in range(100)]
    made = ask.ok("experiments/create", name="long", tags=tags)
    status, body = call(server, "GET", "/api/2.0/mlflow/experiments/get", made)
    assert status == 200
    assert json.loads(body)["experiment"]["tags"] == tags


def test_the_workspace_is_that_of_the_call(server: ServerProcess) -> None:
    headers = {"x-mlflow-workspace": "of-somebody-else"}
    request = pb.CallMlflowRequest(method="POST", path="/api/2.0/mlflow/experiments/search", headers=headers)
    request.body = b'{"max_results": 1}'
    with grpc.insecure_channel(server.grpc_address) as channel:
        pieces = list(MlflowServiceStub(channel).CallMlflow(request, timeout=30))  # type: ignore[no-untyped-call]
    assert pieces[0].status == 200, pieces


def test_errors_are_answers(server: ServerProcess) -> None:
    status, body = call(server, "POST", "/api/2.0/mlflow/experiments/create", {}, b"{")
    assert (status, json.loads(body)["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
