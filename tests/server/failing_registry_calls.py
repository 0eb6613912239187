"""Calls of the registry that must fail: the method, the request, and what the caller is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from failing_calls import EXISTS, INVALID, MISSING, NO_RUN, STATE, Failure, World

from penstock.v1 import registry_pb2 as pb

MODEL = "status"
NO_MODEL = "registered model 'nope' does not exist"
NO_VERSION = "model version 'status/9' does not exist"
CHAMPION = pb.PromotionTarget(alias="champion")
KIND = {"penstock-kind": "registered model"}


def _field(name: str) -> dict[str, str]:
    return {"penstock-field": name}


def _always(request: Any) -> Callable[[World], Any]:
    return lambda _: request


def _missing(method: str, request: type[Any], **fields: Any) -> list[Failure]:
    """Of a model that is not there, and of a name that is none."""
    return [
        (method, _always(request(name="nope", **fields)), MISSING, NO_MODEL, KIND),
        (method, _always(request(name="a/b", **fields)), INVALID, "name: 'a/b' has a / in it", _field("name")),
    ]


def _version_missing(method: str, request: type[Any], **fields: Any) -> list[Failure]:
    """Of a version that is not there, and of a number that is none, too."""
    return [
        *_missing(method, request, version=1, **fields),
        (method, _always(request(name=MODEL, version=9, **fields)), MISSING, NO_VERSION, {}),
        (method, _always(request(name=MODEL, **fields)), INVALID, "version: 0 is no version's number", {}),
    ]


REGISTRY_FAILURES: list[Failure] = [
    # Models.
    ("CreateRegisteredModel", _always(pb.CreateRegisteredModelRequest()), INVALID, "name: must not be empty", {}),
    ("CreateRegisteredModel", _always(pb.CreateRegisteredModelRequest(name=MODEL)), EXISTS, "'status' already", KIND),
    *_missing("GetRegisteredModel", pb.GetRegisteredModelRequest),
    *_missing("UpdateRegisteredModel", pb.UpdateRegisteredModelRequest, new_name="b"),
    (
        "UpdateRegisteredModel",
        _always(pb.UpdateRegisteredModelRequest(name=MODEL, new_name="a:b")),
        INVALID,
        "new_name: 'a:b' has a : in it",
        _field("new_name"),
    ),
    *_missing("DeleteRegisteredModel", pb.DeleteRegisteredModelRequest),
    *_missing("SetRegisteredModelTags", pb.SetRegisteredModelTagsRequest, tags={"a": "b"}),
    *_missing("DeleteRegisteredModelTags", pb.DeleteRegisteredModelTagsRequest, keys=["a"]),
    (
        "DeleteRegisteredModelTags",
        _always(pb.DeleteRegisteredModelTagsRequest(name=MODEL, keys=["a"])),
        MISSING,
        "tag 'a' does not exist",
        {"penstock-kind": "tag"},
    ),
    (
        "SearchRegisteredModels",
        _always(pb.SearchRegisteredModelsRequest(filter="metrics.f1 > 1")),
        INVALID,
        "filter: at position 0",
        {"penstock-field": "filter", "penstock-position": "0"},
    ),
    # Versions.
    *_missing("CreateModelVersion", pb.CreateModelVersionRequest, source="s"),
    ("CreateModelVersion", _always(pb.CreateModelVersionRequest(name=MODEL)), INVALID, "source: give this", {}),
    (
        "CreateModelVersion",
        _always(pb.CreateModelVersionRequest(name=MODEL, run_id=NO_RUN, path="a")),
        MISSING,
        "run '000",
        {"penstock-kind": "run"},
    ),
    (
        "CreateModelVersion",
        lambda w: pb.CreateModelVersionRequest(name=MODEL, run_id=w.run, path="nope"),
        MISSING,
        "artifact 'nope'",
        {"penstock-kind": "artifact"},
    ),
    (
        "CreateModelVersion",
        lambda w: pb.CreateModelVersionRequest(name=MODEL, run_id=w.deleted_run, path="a"),
        STATE,
        "is deleted; restore it first",
        {"penstock-error": "NotActive"},
    ),
    *_version_missing("GetModelVersion", pb.GetModelVersionRequest),
    *_version_missing("UpdateModelVersion", pb.UpdateModelVersionRequest, description="d"),
    (
        "UpdateModelVersion",
        _always(pb.UpdateModelVersionRequest(name=MODEL, version=1, status=pb.MODEL_VERSION_STATUS_PENDING)),
        STATE,
        "status version 1 is ready and never pending again",
        {"penstock-error": "FailedPrecondition"},
    ),
    *_version_missing("DeleteModelVersion", pb.DeleteModelVersionRequest),
    *_version_missing("SetModelVersionTags", pb.SetModelVersionTagsRequest, tags={"a": "b"}),
    *_version_missing("DeleteModelVersionTags", pb.DeleteModelVersionTagsRequest, keys=["a"]),
    ("ResolveModelVersion", _always(pb.ResolveModelVersionRequest(ref="nope/1")), MISSING, NO_MODEL, KIND),
    (
        "ResolveModelVersion",
        _always(pb.ResolveModelVersionRequest(ref="status@nope")),
        MISSING,
        "alias 'status@nope' does not exist",
        {"penstock-kind": "alias"},
    ),
    (
        "ResolveModelVersion",
        _always(pb.ResolveModelVersionRequest(ref="status")),
        INVALID,
        "names no version: write models:/name/3",
        _field("ref"),
    ),
    *_missing("GetLatestVersions", pb.GetLatestVersionsRequest),
    (
        "SearchModelVersions",
        _always(pb.SearchModelVersionsRequest(order_by=["nope"])),
        INVALID,
        "order_by",
        {"penstock-error": "InvalidFilter"},
    ),
    # Stages and aliases.
    *_version_missing("TransitionStage", pb.TransitionStageRequest, stage=pb.MODEL_STAGE_STAGING),
    (
        "TransitionStage",
        _always(pb.TransitionStageRequest(name=MODEL, version=1)),
        INVALID,
        "stage: 0 is no stage; there are None, Staging, Production, Archived",
        _field("stage"),
    ),
    *_version_missing("SetAlias", pb.SetAliasRequest, alias="beta"),
    (
        "SetAlias",
        _always(pb.SetAliasRequest(name=MODEL, version=1, alias="v1")),
        INVALID,
        "alias: 'v1' would be taken for a version",
        _field("alias"),
    ),
    (
        "SetAlias",
        _always(pb.SetAliasRequest(name=MODEL, version=1, alias="beta", expected=2)),
        STATE,
        "alias 'beta' of 'status' names no version, not version 2: it never named one",
        {"penstock-error": "AliasMoved", "penstock-version": "0", "penstock-moved-by": ""},
    ),
    *_missing("DeleteAlias", pb.DeleteAliasRequest, alias="beta"),
    ("DeleteAlias", _always(pb.DeleteAliasRequest(name=MODEL, alias="beta")), MISSING, "alias 'status@beta'", {}),
    # Promotion.
    *_version_missing("Promote", pb.PromoteRequest, target=CHAMPION),
    *_missing("SetPromotionPolicy", pb.SetPromotionPolicyRequest, policy=pb.PromotionPolicy(target=CHAMPION)),
    *_missing("DeletePromotionPolicy", pb.DeletePromotionPolicyRequest, target=CHAMPION),
    *_version_missing("RequestPromotion", pb.RequestPromotionRequest, target=CHAMPION),
    *_missing("Approve", pb.ApproveRequest, promotion_id=1),
    *_missing("Reject", pb.RejectRequest, promotion_id=1),
    ("ListPromotions", _always(pb.ListPromotionsRequest(page_size=-1)), INVALID, "page_size", {}),
    # History.
    ("ListEvents", _always(pb.ListEventsRequest(name="a/b")), INVALID, "name: 'a/b' has a / in it", _field("name")),
    ("ListEvents", _always(pb.ListEventsRequest(page_token="AAAA")), INVALID, "page_token", {}),
    (
        "WatchRegistry",
        _always(pb.WatchRegistryRequest(after_event_id=-1)),
        INVALID,
        "after_event_id: -1 is no event's id",
        _field("after_event_id"),
    ),
]
