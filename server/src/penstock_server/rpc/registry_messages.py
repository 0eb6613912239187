"""The registry's nouns as they go over the wire, and what requests say of them."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.v1 import registry_pb2 as pb
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.logged_models import format_model_id
from penstock_server.model.registry import (
    Event,
    EventKind,
    ModelVersion,
    NewVersion,
    Policy,
    RegisteredModel,
    Stage,
    VersionStatus,
)
from penstock_server.model.runs import format_run_id, parse_run_id


def model(found: RegisteredModel) -> pb.RegisteredModel:
    """A model as it goes out."""
    return pb.RegisteredModel(
        name=found.name,
        description=found.description,
        create_time_ms=found.created_ms,
        update_time_ms=found.updated_ms,
        created_by=found.created_by,
        tags=found.tags,
        aliases=[pb.ModelAlias(alias=alias, version=number) for alias, number in found.aliases.items()],
        latest_versions=map(version, found.latest),
        policies=map(policy, found.policies),
        last_version=found.last_version,
    )


def version(found: ModelVersion) -> pb.ModelVersion:
    """A version as it goes out."""
    return pb.ModelVersion(
        name=found.name,
        version=found.version,
        run_id=format_run_id(found.run_id) if found.run_id else "",
        source=found.source,
        path=found.path,
        status=found.status.value,  # type: ignore[arg-type]  # the same numbers
        status_message=found.status_message,
        stage=found.stage.value,  # type: ignore[arg-type]  # the same numbers
        description=found.description,
        create_time_ms=found.created_ms,
        update_time_ms=found.updated_ms,
        created_by=found.created_by,
        tags=found.tags,
        aliases=found.aliases,
        source_problem=found.source_problem,
        given_source=found.given_source,
        logged_model_id=format_model_id(found.logged_model_id) if found.logged_model_id else "",
        run_link=found.run_link,
    )


def policy(found: Policy) -> pb.PromotionPolicy:
    """A policy as it goes out."""
    return pb.PromotionPolicy(target=target(found.target), gates=found.gates, approvals=found.approvals)


def target(text: str) -> pb.PromotionTarget:
    """Where a promotion leads: @alias or a stage's label."""
    if text.startswith("@"):
        return pb.PromotionTarget(alias=text[1:])
    return pb.PromotionTarget(stage=(Stage.called(text) or Stage.NONE).value)  # type: ignore[arg-type]  # the same numbers


def event(found: Event) -> pb.RegistryEvent:
    """An event as it goes out."""
    return pb.RegistryEvent(
        event_id=found.id,
        kind=found.what.kind.value,  # type: ignore[arg-type]  # the same numbers
        name=found.name,
        version=found.what.version,
        key=found.what.key,
        before=found.what.before,
        after=found.what.after,
        by=found.by,
        time_ms=found.at_ms,
        request_id=found.request_id,
    )


def new_version(request: pb.CreateModelVersionRequest) -> NewVersion:
    """What a request says of a version to be made. Raises InvalidArgument."""
    return NewVersion(
        name=request.name,
        run_id=parse_run_id(request.run_id) if request.run_id else None,
        path=request.path,
        source=request.source,
        status=status(request.status) or VersionStatus.READY,
        description=request.description,
        tags=dict(request.tags),
        request_id=request.request_id,
        create_model=request.create_model,
    )


def status(number: int) -> VersionStatus | None:
    """The status that a request names, None when none. Raises InvalidArgument."""
    try:
        return VersionStatus(number) if number else None
    except ValueError:
        raise InvalidArgument("status", f"{number} is none of this server's statuses") from None


def stage(number: int, field: str = "stage") -> Stage:
    """The stage that a request names. Raises InvalidArgument."""
    try:
        return Stage(number)
    except ValueError:
        labels = ", ".join(each.label for each in Stage)
        raise InvalidArgument(field, f"{number} is no stage; there are {labels}") from None


def kinds(numbers: Iterable[int]) -> list[EventKind]:
    """The kinds that a request names; none for all, as when unspecified is among them. Raises InvalidArgument."""
    try:
        named = [EventKind(number) for number in numbers]
    except ValueError as error:
        raise InvalidArgument("kinds", f"{error}; this server has 1 to {max(EventKind)}") from None
    return [] if EventKind.UNSPECIFIED in named else named
