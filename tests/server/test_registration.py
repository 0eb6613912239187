"""What keeps the server from starting: a method that does not say what it needs, or that nobody serves."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from penstock.columns import by_bytes
from penstock.v1 import access_pb2, metrics_pb2, runs_pb2
from penstock_server.model.access import Need, Permission, Resource
from penstock_server.rpc import access
from penstock_server.rpc.artifacts import ArtifactService
from penstock_server.rpc.experiments import ExperimentService
from penstock_server.rpc.metrics import MetricService
from penstock_server.rpc.mlflow import MlflowService
from penstock_server.rpc.registry import RegistryService
from penstock_server.rpc.runs import RunService
from penstock_server.rpc.server import SERVICES, Server

METHODS = {method.full_name: method for service in SERVICES for method in service.methods}


def method(**option: Any) -> MethodDescriptor:
    """A method M(Q) with this access option, none when it is empty; Q has a text `id`, a number `n`, a message `q`."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto3")
    request = file.message_type.add(name="Q")
    kinds = descriptor_pb2.FieldDescriptorProto
    request.field.add(name="id", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    request.field.add(name="n", number=2, type=kinds.TYPE_INT32, label=kinds.LABEL_OPTIONAL)
    request.field.add(name="q", number=3, type=kinds.TYPE_MESSAGE, type_name=".test.Q", label=kinds.LABEL_OPTIONAL)
    declared = file.service.add(name="S").method.add(name="M", input_type=".test.Q", output_type=".test.Q")
    if option:
        declared.options.Extensions[access_pb2.access].CopyFrom(access_pb2.Access(**option))
    pool.Add(file)
    return pool.FindServiceByName("test.S").methods_by_name["M"]


READ, RUN, WORKSPACE = access_pb2.PERMISSION_READ, access_pb2.RESOURCE_RUN, access_pb2.RESOURCE_WORKSPACE
COMPLETE = {"permission": READ, "resource": RUN, "field": "id"}


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({}, "no .* option"),
        ({"permission": READ}, "lacks the permission or a resource"),
        ({"resource": RUN, "field": "id"}, "lacks the permission or a resource"),
        ({"permission": READ, "resource": RUN}, "does not say which field"),
        ({"permission": READ, "resource": RUN, "field": "run_id"}, "no field run_id"),
        ({"permission": READ, "resource": RUN, "field": "id.id"}, "no field id.id"),
        ({"permission": READ, "resource": RUN, "field": "n"}, "n is not text"),
        ({"permission": READ, "resource": RUN, "field": "q"}, "q is not text"),
        ({**COMPLETE, "also": [{"field": "id"}]}, "lacks the permission or a resource"),
        ({**COMPLETE, "also": [{"resource": WORKSPACE}]}, "does not say which other field"),
        ({**COMPLETE, "also": [{"resource": RUN, "field": "q.run_id"}]}, "no field q.run_id"),
        ({**COMPLETE, "also": [{"resource": RUN, "field": "q.n"}]}, "q.n is not text"),
    ],
)
def test_a_method_must_declare_what_it_needs(option: dict[str, Any], problem: str) -> None:
    with pytest.raises(access.UndeclaredAccessError, match=problem):
        access.declared(method(**option))


def test_a_declaration_may_lead_into_the_request() -> None:
    declared = access.declared(method(permission=READ, resource=RUN, field="q.q.id"))
    assert declared == access.Declared(Permission.READ, (access.Target(Resource.RUN, ("q", "q", "id")),))


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_declares_what_it_needs(name: str) -> None:
    access.declared(METHODS[name])


def needs(name: str, request: Any) -> list[Need]:
    return access.declared(METHODS[f"penstock.v1.{name}"]).needs(request)


def test_needs_are_read_from_the_request() -> None:
    request = metrics_pb2.GetMetricSeriesRequest(run_ids=["a", "b"])
    assert needs("MetricService.GetMetricSeries", request) == [Need(Permission.READ, Resource.RUN, ("a", "b"))]
    request = runs_pb2.DeleteRunRequest(run_id="a")
    assert needs("RunService.DeleteRun", request) == [Need(Permission.MANAGE, Resource.RUN, ("a",))]


READ_ANY, WRITE_ANY = (Need(permission, Resource.WORKSPACE) for permission in (Permission.READ, Permission.WRITE))
READ_7, WRITE_7 = (Need(permission, Resource.EXPERIMENT, ("7",)) for permission in (Permission.READ, Permission.WRITE))


@pytest.mark.parametrize(
    ("name", "request_", "expected"),
    [
        ("SearchRuns", runs_pb2.SearchRunsRequest(), [READ_ANY]),
        ("SearchRuns", runs_pb2.SearchRunsRequest(experiment_ids=["7"]), [READ_7]),
        ("SearchRuns", runs_pb2.SearchRunsRequest(experiment_names=["n"]), [READ_ANY]),
        ("SearchRuns", runs_pb2.SearchRunsRequest(experiment_ids=["7"], experiment_names=["n"]), [READ_7, READ_ANY]),
        ("WatchRuns", runs_pb2.WatchRunsRequest(), [READ_ANY]),
        ("WatchRuns", runs_pb2.WatchRunsRequest(run_ids=["a"]), [Need(Permission.READ, Resource.RUN, ("a",))]),
        (
            "WatchRuns",
            runs_pb2.WatchRunsRequest(experiment_ids=["7"], run_ids=["a", "b"]),
            [READ_7, Need(Permission.READ, Resource.RUN, ("a", "b"))],
        ),
        ("CreateRun", runs_pb2.CreateRunRequest(run_id="a"), [WRITE_ANY]),
        ("CreateRun", runs_pb2.CreateRunRequest(run_id="a", experiment_id="7"), [WRITE_7]),
        ("CreateRun", runs_pb2.CreateRunRequest(experiment_name="new"), [WRITE_ANY]),
    ],
)
def test_a_call_needs_all_that_it_reaches(name: str, request_: Any, expected: list[Need]) -> None:
    assert needs(f"RunService.{name}", request_) == expected


def test_a_stream_that_may_make_its_run_needs_the_experiment_too() -> None:
    columns = by_bytes(metrics_pb2.StreamMetricsRequest)

    def of(**hello: Any) -> list[Need]:
        return needs("MetricService.StreamMetrics", columns(hello=hello))

    run = Need(Permission.WRITE, Resource.RUN, ("a",))
    assert of(run_id="a") == [run]
    assert of(run_id="a", create_run={"experiment_id": "7"}) == [run, WRITE_7]
    assert of(run_id="a", create_run={"experiment_name": "n"}) == [run, WRITE_ANY]
    assert of(run_id="a", create_run={}) == [run, WRITE_ANY]
    # One that does not begin with Hello is refused later, but by somebody who was asked.
    assert needs("MetricService.StreamMetrics", columns(finish={})) == [WRITE_ANY]


def test_every_method_has_its_servicer() -> None:
    complete = {
        "ExperimentService": ExperimentService.__new__(ExperimentService),
        "RunService": RunService.__new__(RunService),
        "MetricService": MetricService.__new__(MetricService),
        "ArtifactService": ArtifactService.__new__(ArtifactService),
        "RegistryService": RegistryService.__new__(RegistryService),
        "MlflowService": MlflowService.__new__(MlflowService),
    }

    async def register(servicers: dict[str, Any], *, artifacts_only: bool = False) -> None:
        server = Server(1 << 20, shared=False, artifacts_only=artifacts_only)
        server.register(SimpleNamespace(), servicers)  # type: ignore[arg-type]

    asyncio.run(register(complete))
    asyncio.run(register({"ArtifactService": complete["ArtifactService"]}, artifacts_only=True))
    with pytest.raises(AttributeError, match="create_experiment"):
        asyncio.run(register(complete | {"ExperimentService": SimpleNamespace()}))
    with pytest.raises(KeyError, match="RunService"):
        asyncio.run(register({name: servicer for name, servicer in complete.items() if name != "RunService"}))
