"""Promotion over the wire, by a server process: every method, its answers and its refusals."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from penstock.v1 import metrics_pb2 as me
from penstock.v1 import registry_pb2 as pb
from penstock.v1 import runs_pb2 as ru
from penstock.v1.metrics_pb2_grpc import MetricServiceStub
from penstock.v1.registry_pb2_grpc import RegistryServiceStub
from penstock.v1.runs_pb2_grpc import RunServiceStub

NUMBERS = itertools.count(1)
CHAMPION = pb.PromotionTarget(alias="champion")
PRODUCTION = pb.PromotionTarget(stage=pb.MODEL_STAGE_PRODUCTION)


@pytest.fixture(scope="session")
def registry(channel: grpc.Channel) -> RegistryServiceStub:
    return RegistryServiceStub(channel)


@pytest.fixture
def model(registry: RegistryServiceStub) -> str:
    name = f"promoted-{next(NUMBERS)}"
    registry.CreateRegisteredModel(pb.CreateRegisteredModelRequest(name=name))
    return name


@pytest.fixture
def version(
    registry: RegistryServiceStub, runs: RunServiceStub, metrics: MetricServiceStub, model: str
) -> Callable[[float], int]:
    """Makes versions of the model, each of a run with this f1."""

    def make(f1: float) -> int:
        run_id = runs.CreateRun(ru.CreateRunRequest()).run.run_id
        metrics.LogBatch(me.LogBatchRequest(run_id=run_id, metrics=[me.Metric(name="f1", value=f1)]))
        request = pb.CreateModelVersionRequest(name=model, run_id=run_id, source="s3://bucket/model")
        return int(registry.CreateModelVersion(request).version.version)

    return make


def by(user: str) -> dict[str, Any]:
    return {"metadata": (("penstock-user", user),)}


def refused(
    call: Callable[..., Any], request: Any, code: grpc.StatusCode, error: str, message: str, **options: Any
) -> None:
    """Calls, and fails unless it is refused so."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, **options)
    assert caught.value.code() is code
    assert message in caught.value.details()
    assert dict(caught.value.trailing_metadata())["penstock-error"] == error


def test_a_version_is_promoted_by_gates(registry: RegistryServiceStub, model: str, version: Any) -> None:
    first, second, third = version(0.9), version(0.95), version(0.85)
    better = "metrics.f1 > champion.metrics.f1"
    policy = pb.PromotionPolicy(target=CHAMPION, gates=[better])
    registry.SetPromotionPolicy(pb.SetPromotionPolicyRequest(name=model, policy=policy))
    answer = registry.Promote(pb.PromoteRequest(name=model, version=first, target=CHAMPION, expected=0))
    assert (answer.promoted, answer.previous, list(answer.version.aliases)) == (True, 0, ["champion"])
    assert answer.gates[0].reason == f"no version of {model} was ever champion"
    assert not answer.gates[0].values[1].HasField("value")
    answer = registry.Promote(
        pb.PromoteRequest(name=model, version=second, target=CHAMPION, gates=["metrics.f1 >= 0.9"]), **by("ann")
    )
    assert (answer.promoted, answer.previous) == (True, first)
    assert [(each.gate, each.passed, each.stored) for each in answer.gates] == [
        (better, True, True), ("metrics.f1 >= 0.9", True, False),
    ]  # fmt: skip
    assert [(each.field, each.value, each.version) for each in answer.gates[0].values] == [
        ("metrics.f1", "0.95", second), ("champion.metrics.f1", "0.9", first),
    ]  # fmt: skip
    answer = registry.Promote(pb.PromoteRequest(name=model, version=third, target=CHAMPION))
    assert (answer.promoted, answer.previous, answer.version.version) == (False, second, third)
    assert "which is not > champion.metrics.f1, 0.95 of version 2 (champion)" in answer.gates[0].reason
    found = registry.GetRegisteredModel(pb.GetRegisteredModelRequest(name=model)).model
    assert [(each.alias, each.version) for each in found.aliases] == [("champion", second)]
    assert list(found.policies) == [policy]
    [event] = registry.ListEvents(
        pb.ListEventsRequest(name=model, kinds=[pb.REGISTRY_EVENT_KIND_PROMOTED], version=second)
    ).events
    assert (event.key, event.by) == ("champion", "ann")
    target = pb.SetAliasRequest(name=model, alias="champion", version=third)
    refused(registry.SetAlias, target, grpc.StatusCode.FAILED_PRECONDITION, "Guarded", "guarded by gates")
    registry.DeletePromotionPolicy(pb.DeletePromotionPolicyRequest(name=model, target=CHAMPION))
    registry.SetAlias(target)


def test_a_version_is_promoted_to_a_stage(registry: RegistryServiceStub, model: str, version: Any) -> None:
    first, second = version(0.9), version(0.95)
    registry.Promote(pb.PromoteRequest(name=model, version=first, target=PRODUCTION))
    request = pb.PromoteRequest(name=model, version=second, target=PRODUCTION, archive_others=True, dry_run=True)
    assert registry.Promote(request).version.stage == pb.MODEL_STAGE_NONE
    request.dry_run = False
    answer = registry.Promote(request)
    assert (answer.promoted, answer.version.stage) == (True, pb.MODEL_STAGE_PRODUCTION)
    found = registry.GetModelVersion(pb.GetModelVersionRequest(name=model, version=first)).version
    assert found.stage == pb.MODEL_STAGE_ARCHIVED


def test_others_approve(registry: RegistryServiceStub, model: str, version: Any) -> None:
    wanted = version(0.95)
    policy = pb.PromotionPolicy(target=PRODUCTION, gates=["metrics.f1 > 0.9"], approvals=1)
    registry.SetPromotionPolicy(pb.SetPromotionPolicyRequest(name=model, policy=policy))
    request = pb.RequestPromotionRequest(
        name=model, version=wanted, target=PRODUCTION, gates=["version = 1"], comment="please", archive_others=True
    )
    answer = registry.RequestPromotion(request, **by("ann"))
    asked = answer.promotion
    assert [(each.passed, each.stored) for each in answer.gates] == [(True, True), (True, False)]
    assert (asked.name, asked.version, asked.target, asked.gates) == (model, wanted, PRODUCTION, ["version = 1"])
    assert (asked.state, asked.requested_by, asked.comment) == (pb.PROMOTION_STATE_PENDING, "ann", "please")
    assert (asked.approvals_needed, asked.archive_others, asked.HasField("settle_time_ms")) == (1, True, False)
    assert registry.RequestPromotion(request, **by("ann")).promotion == asked
    with pytest.raises(
        grpc.RpcError, match=f"ann has requested Production .* promotion {asked.promotion_id} is pending"
    ):
        registry.RequestPromotion(request, **by("bob"))
    approval = pb.ApproveRequest(name=model, promotion_id=asked.promotion_id, comment="fine")
    refused(
        registry.Approve, approval, grpc.StatusCode.PERMISSION_DENIED, "PermissionDenied", "ann requested", **by("ann")
    )
    answer = registry.Approve(approval, **by("Zo%C3%AB"))
    assert answer.promotion.state == pb.PROMOTION_STATE_PROMOTED
    assert answer.promotion.settle_time_ms >= answer.promotion.create_time_ms
    [verdict] = answer.promotion.verdicts
    assert (verdict.by, verdict.approved, verdict.comment) == ("Zoë", True, "fine")
    assert len(answer.gates) == 2
    settled = "settled: it is promoted"
    refused(registry.Approve, approval, grpc.StatusCode.FAILED_PRECONDITION, "FailedPrecondition", settled, **by("bob"))
    other = version(0.99)
    asked = registry.RequestPromotion(
        pb.RequestPromotionRequest(name=model, version=other, target=PRODUCTION), **by("ann")
    ).promotion
    rejected = registry.Reject(
        pb.RejectRequest(name=model, promotion_id=asked.promotion_id, comment="oh"), **by("ann")
    ).promotion
    assert (rejected.state, rejected.verdicts[0].approved) == (pb.PROMOTION_STATE_REJECTED, False)
    listed = registry.ListPromotions(pb.ListPromotionsRequest(name=model))
    assert list(listed.promotions) == [rejected, answer.promotion]
    page = registry.ListPromotions(pb.ListPromotionsRequest(name=model, page_size=1))
    assert list(page.promotions) == [rejected]
    page = registry.ListPromotions(pb.ListPromotionsRequest(name=model, page_size=1, page_token=page.next_page_token))
    assert (list(page.promotions), page.next_page_token) == ([answer.promotion], "")
    only = registry.ListPromotions(pb.ListPromotionsRequest(name=model, state=pb.PROMOTION_STATE_REJECTED))
    assert list(only.promotions) == [rejected]
    assert rejected in registry.ListPromotions(pb.ListPromotionsRequest()).promotions


INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("method", "fields", "code", "error", "message"),
    [
        ("Promote", {}, INVALID, "InvalidArgument", "target: must have an alias or a stage"),
        ("Promote", {"target": pb.PromotionTarget(alias="v3")}, INVALID, "InvalidArgument", "target.alias: 'v3'"),
        ("Promote", {"target": pb.PromotionTarget(alias="")}, INVALID, "InvalidArgument", "target.alias: must not be"),
        ("Promote", {"target": pb.PromotionTarget(stage=0)}, INVALID, "InvalidArgument", "target.stage: must be Stag"),
        ("Promote", {"target": pb.PromotionTarget(stage=1)}, INVALID, "InvalidArgument", "target.stage: must be Stag"),
        ("Promote", {"target": pb.PromotionTarget(stage=9)}, INVALID, "InvalidArgument", "target.stage: 9"),
        ("Promote", {"target": CHAMPION, "version": 7}, NOT_FOUND, "NotFound", "model version"),
        ("Promote", {"target": CHAMPION, "name": "nobody"}, NOT_FOUND, "NotFound", "registered model 'nobody'"),
        ("Promote", {"target": CHAMPION, "gates": ["f1 > 1"]}, INVALID, "InvalidFilter", "gates[0]: at position 0"),
        ("Promote", {"target": CHAMPION, "expected": 3}, PRECONDITION, "AliasMoved", "names no version, not version 3"),
        ("Promote", {"target": PRODUCTION, "expected": 0}, INVALID, "InvalidArgument", "expected: "),
        ("SetPromotionPolicy", {}, INVALID, "InvalidArgument", "target: must have"),
        ("SetPromotionPolicy", {"policy": {"target": CHAMPION, "gates": ["x"]}}, INVALID, "InvalidFilter", "gates[0]"),
        ("SetPromotionPolicy", {"policy": {"target": CHAMPION, "approvals": 21}}, INVALID, "InvalidArgument", "21"),
        ("DeletePromotionPolicy", {"target": CHAMPION}, NOT_FOUND, "NotFound", "promotion policy"),
        ("RequestPromotion", {"target": CHAMPION}, PRECONDITION, "FailedPrecondition", "needs no approvals"),
        ("Approve", {"promotion_id": 2**63 - 1}, NOT_FOUND, "NotFound", "promotion 9223372036854775807"),
        ("Reject", {"promotion_id": -1}, NOT_FOUND, "NotFound", "promotion -1"),
        ("Reject", {"comment": "x" * 1001}, INVALID, "InvalidArgument", "comment: "),
        ("ListPromotions", {"state": 9}, INVALID, "InvalidArgument", "state: 9"),
        ("ListPromotions", {"page_size": -1}, INVALID, "InvalidArgument", "page_size"),
        ("ListPromotions", {"page_token": "x"}, INVALID, "InvalidPageToken", "page_token"),
    ],
)
def test_what_is_wrong_is_told(
    registry: RegistryServiceStub,
    model: str,
    version: Any,
    method: str,
    fields: dict[str, Any],
    code: grpc.StatusCode,
    error: str,
    message: str,
) -> None:
    made = version(1.0)
    request = getattr(pb, f"{method}Request")(**{"name": model} | fields)
    if method in ("Promote", "RequestPromotion"):
        request.version = request.version or made
    refused(getattr(registry, method), request, code, error, message)


def test_a_pipeline_waits_for_a_promotion(registry: RegistryServiceStub, model: str, version: Any) -> None:
    wanted = version(0.95)
    kinds = [pb.REGISTRY_EVENT_KIND_ALIAS_SET, pb.REGISTRY_EVENT_KIND_PROMOTED]
    watch = registry.WatchRegistry(pb.WatchRegistryRequest(names=[model], kinds=kinds, keys=["champion"]), timeout=60)
    told: list[pb.RegistryEvent] = []
    synced = threading.Event()

    def read() -> None:
        for each in watch:
            if each.HasField("event"):
                told.append(each.event)
            synced.set()
            if len(told) == 2:
                watch.cancel()
                return

    reader = threading.Thread(target=read)
    reader.start()
    assert synced.wait(60)
    registry.Promote(pb.PromoteRequest(name=model, version=wanted, target=CHAMPION))
    reader.join(60)
    assert [(each.kind, each.version, each.key) for each in told] == [
        (kinds[0], wanted, "champion"), (kinds[1], wanted, "champion"),
    ]  # fmt: skip
    assert told[0].request_id == told[1].request_id != ""
