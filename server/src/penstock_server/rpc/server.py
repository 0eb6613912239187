"""The gRPC server: every method of every service registered from its descriptor, with health and reflection."""

from __future__ import annotations

import re
from collections.abc import Mapping

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from penstock.columns import by_bytes
from penstock.v1 import artifacts_pb2, experiments_pb2, metrics_pb2, mlflow_pb2, registry_pb2, runs_pb2
from penstock_server.core.access import Access
from penstock_server.rpc import access
from penstock_server.rpc.calls import Method

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for file in (experiments_pb2, runs_pb2, metrics_pb2, artifacts_pb2, registry_pb2, mlflow_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)

# gRPC itself refuses a message with RESOURCE_EXHAUSTED, which reads like Busy: come again. So it lets this much more
# in, which is longer than a record gets, for `calls.py` to say that it will never be taken.
_TOO_LONG_BYTES = 4 << 20
_LOOKAHEAD_BYTES = 2 << 20


class Server:
    """The gRPC server of one process. Bind it, register the servicers, start it, call it ready, stop it."""

    def __init__(self, max_message_bytes: int, *, shared: bool, artifacts_only: bool = False) -> None:
        """With `shared`, other processes may listen on the same port."""
        self._services = [each for each in SERVICES if not artifacts_only or each.name == "ArtifactService"]
        self._max_message_bytes = max_message_bytes
        self._health = health.aio.HealthServicer()
        self._names = ["", *(service.full_name for service in self._services)]
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes + _TOO_LONG_BYTES),
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.so_reuseport", int(shared)),
                # A client that vanished without a word is noticed within a minute; its pings are welcome.
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.http2.max_ping_strikes", 0),
                # How far a stream may be ahead of who reads it. Left to itself gRPC lets a fast one have tens of MiB.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", _LOOKAHEAD_BYTES),
            ]
        )

    def bind(self, address: str) -> int:
        """Listens on host:port, and returns the port. Raises RuntimeError."""
        port: int = self._server.add_insecure_port(address)
        return port

    def register(self, guard: Access, servicers: Mapping[str, object]) -> None:
        """Takes the servicer of each service, by the service's name. Raises UndeclaredAccessError, LookupError."""
        for service in self._services:
            handlers = {
                method.name: _handler(
                    Method(
                        method,
                        access.declared(method),
                        _request_class(method),
                        getattr(servicers[service.name], _snake(method.name)),
                        guard,
                        self._max_message_bytes,
                    )
                )
                for method in service.methods
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    async def start(self) -> None:
        """Takes calls. Health says NOT_SERVING until `set_ready`."""
        await self.set_ready(ready=False)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [*self._names[1:], health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server)
        await self._server.start()

    async def set_ready(self, *, ready: bool) -> None:
        """What health says from now on, for the server and for each service."""
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._health.set(name, status)

    async def stop(self, grace: float) -> None:
        """Takes no more calls; those under way have `grace` seconds to end, then are cancelled."""
        await self._server.stop(grace)


def _request_class(method: MethodDescriptor) -> type[Message]:
    """What comes in streams comes in columns: those are left as bytes."""
    cls = GetMessageClass(method.input_type)
    return by_bytes(cls) if method.client_streaming else cls


def _handler(method: Method) -> grpc.RpcMethodHandler:
    # Without (de)serialisers, gRPC hands the bytes through: what is wrong with them is ours to tell.
    match method.descriptor.client_streaming, method.descriptor.server_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler(method.unary)
        case False, True:
            return grpc.unary_stream_rpc_method_handler(method.server_stream)
        case True, False:
            return grpc.stream_unary_rpc_method_handler(method.client_stream)
    return grpc.stream_stream_rpc_method_handler(method.both_stream)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
