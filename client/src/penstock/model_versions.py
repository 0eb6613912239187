"""Versions of registered models: what they are made of, and the stages and aliases that say which is which."""

from __future__ import annotations

import enum
import operator
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from penstock.calls import REGISTRY, Flow, as_texts, in_pages, listed, request
from penstock.paths import artifact_directory
from penstock.v1 import registry_pb2 as pb


class Named(enum.StrEnum):
    """Names of which each stands for a number of the protocol; taken in any case."""

    @classmethod
    def of(cls, told: str) -> Self:
        """By its name. Raises ValueError."""
        try:
            return cls[told.upper()]
        except (KeyError, AttributeError):
            raise ValueError(f"{told!r} is not one of {', '.join(cls)}") from None


class ModelStage(Named):
    """Where a version stands on its way to users."""

    NONE = "None"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"

    @property
    def wire(self) -> str:
        """As in the protocol."""
        return f"MODEL_STAGE_{self.name}"

    @classmethod
    def from_wire(cls, number: int) -> ModelStage:
        """From the protocol."""
        return cls[pb.ModelStage.Name(number).removeprefix("MODEL_STAGE_")]


class ModelVersionStatus(Named):
    """Whether the bytes of a version are there."""

    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"

    @property
    def wire(self) -> str:
        """As in the protocol."""
        return f"MODEL_VERSION_STATUS_{self.name}"

    @classmethod
    def from_wire(cls, number: int) -> ModelVersionStatus:
        """From the protocol."""
        return cls[pb.ModelVersionStatus.Name(number).removeprefix("MODEL_VERSION_STATUS_")]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model. Times are ms since 1970 UTC.

    `source` is where its bytes are: `runs:/<run id>/<path>`, or the URI that was given. `run_id` is empty where no run
    is known; `path` is that of its files in the run, where the source is a run's. `source_problem` says why its files
    cannot be had, as when its run is deleted; empty as far as the server knows they can.
    """

    name: str
    version: int
    run_id: str
    source: str
    path: str
    status: ModelVersionStatus
    status_message: str
    stage: ModelStage
    description: str
    create_time_ms: int
    update_time_ms: int
    created_by: str
    tags: dict[str, str] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)
    source_problem: str = ""

    @property
    def uri(self) -> str:
        """Which names this version, whatever becomes of aliases: `models:/iris/3`."""
        return f"models:/{self.name}/{self.version}"


def version_of(message: pb.ModelVersion) -> ModelVersion:
    """From the wire."""
    return ModelVersion(
        name=message.name,
        version=message.version,
        run_id=message.run_id,
        source=message.source,
        path=message.path,
        status=ModelVersionStatus.from_wire(message.status),
        status_message=message.status_message,
        stage=ModelStage.from_wire(message.stage),
        description=message.description,
        create_time_ms=message.create_time_ms,
        update_time_ms=message.update_time_ms,
        created_by=message.created_by,
        tags=dict(message.tags),
        aliases=list(message.aliases),
        source_problem=message.source_problem,
    )


def create_version(
    name: str,
    run_id: str = "",
    path: str | os.PathLike[str] = "",
    *,
    source: str = "",
    description: str = "",
    tags: Mapping[str, object] | None = None,
    status: ModelVersionStatus | str = ModelVersionStatus.READY,
    create_model: bool = False,
    request_id: str | None = None,
) -> Flow[ModelVersion]:
    """Make the next version of a model: of what a run has at `path` (empty: all of it), or of a `source` elsewhere.

    `source` is `runs:/<run id>/<path>`, `models:/…`, or any URI, which is kept as it is. With `create_model` the model
    is made, too, where there is none. A second call with the same `request_id`, to 250 characters, returns the version
    of the first. A status of `pending` says that the files are still to come; `update_version` tells when they are
    there. Raises NotFound when there is no such model, run or path, FailedPrecondition when the run is deleted.
    """
    message = pb.CreateModelVersionRequest(
        name=name,
        run_id=run_id,
        path=artifact_directory(path),
        source=source,
        status=ModelVersionStatus.of(status).wire,
        description=description,
        tags=as_texts(tags),
        request_id=request_id or uuid.uuid4().hex,
        create_model=create_model,
    )
    return version_of((yield request(REGISTRY, "CreateModelVersion", message)).version)


def get_version(name: str, version: int) -> Flow[ModelVersion]:
    """One version by its number. Raises NotFound."""
    message = pb.GetModelVersionRequest(name=name, version=numbered(version))
    return version_of((yield request(REGISTRY, "GetModelVersion", message)).version)


def resolve(ref: str) -> Flow[ModelVersion]:
    """The version that a reference names. Its `source` tells where the bytes are. Raises NotFound.

    `models:/iris/3`, `models:/iris@champion`, `models:/iris/Production` (the newest in that stage) or
    `models:/iris/latest` (the newest of all); also without `models:/`.
    """
    if not isinstance(ref, str):
        raise TypeError(f"ref is to be text, such as 'models:/iris/3', and is {ref!r}")
    message = pb.ResolveModelVersionRequest(ref=ref)
    return version_of((yield request(REGISTRY, "ResolveModelVersion", message)).version)


def latest_versions(name: str, stages: Sequence[ModelStage | str] = ()) -> Flow[list[ModelVersion]]:
    """The newest version in each of these stages that has one; without `stages`, in each of all. Raises NotFound."""
    wire = [ModelStage.of(stage).wire for stage in listed(stages)]
    message = pb.GetLatestVersionsRequest(name=name, stages=wire)
    answer = yield request(REGISTRY, "GetLatestVersions", message)
    return [version_of(each) for each in answer.versions]


def search_versions(
    filter: str = "",  # noqa: A002  the word of the API
    order_by: Sequence[str] = (),
    limit: int | None = None,
) -> Flow[list[ModelVersion]]:
    """The versions, of any model, that a filter selects, the last changed first; at most `limit`, None: all.

    `name = 'iris' AND stage = 'Production'`, say; docs/search.md tells the rest. Raises InvalidFilter.
    """
    message = pb.SearchModelVersionsRequest(filter=filter, order_by=listed(order_by))
    return (
        yield from in_pages(
            REGISTRY, "SearchModelVersions", message, limit, lambda page: map(version_of, page.versions)
        )
    )


def update_version(
    name: str,
    version: int,
    *,
    description: str | None = None,
    status: ModelVersionStatus | str | None = None,
    status_message: str | None = None,
) -> Flow[ModelVersion]:
    """Change a version; None leaves as it is. One that is ready or has failed is never pending again.

    Raises NotFound, FailedPrecondition.
    """
    wire = None if status is None else ModelVersionStatus.of(status).wire
    message = pb.UpdateModelVersionRequest(
        name=name, version=numbered(version), description=description, status=wire, status_message=status_message
    )
    return version_of((yield request(REGISTRY, "UpdateModelVersion", message)).version)


def delete_version(name: str, version: int) -> Flow[None]:
    """Remove a version with its tags and aliases. Its history and its files stay, and so does its number.

    Raises NotFound.
    """
    yield request(REGISTRY, "DeleteModelVersion", pb.DeleteModelVersionRequest(name=name, version=numbered(version)))


def set_version_tags(name: str, version: int, tags: Mapping[str, object]) -> Flow[None]:
    """Set tags of a version, as text, replacing those of the same key. Raises NotFound."""
    message = pb.SetModelVersionTagsRequest(name=name, version=numbered(version), tags=as_texts(tags))
    yield request(REGISTRY, "SetModelVersionTags", message)


def delete_version_tags(name: str, version: int, keys: Sequence[str]) -> Flow[None]:
    """Remove tags of a version. Raises NotFound, and removes none, when one of them is not there."""
    message = pb.DeleteModelVersionTagsRequest(name=name, version=numbered(version), keys=listed(keys))
    yield request(REGISTRY, "DeleteModelVersionTags", message)


def set_stage(name: str, version: int, stage: ModelStage | str, *, archive_others: bool = False) -> Flow[ModelVersion]:
    """Bring a version into a stage: None, Staging, Production or Archived.

    `archive_others` archives those that are in Staging or Production when this one gets there, in the same
    transaction. Raises NotFound, Guarded.
    """
    message = pb.TransitionStageRequest(
        name=name, version=numbered(version), stage=ModelStage.of(stage).wire, archive_others=archive_others
    )
    return version_of((yield request(REGISTRY, "TransitionStage", message)).version)


def set_alias(name: str, alias: str, version: int, *, expected: int | None = None) -> Flow[int]:
    """Have an alias name a version. Returns the version that it named before; 0: none.

    With `expected` it is moved only if it names that version now (0: none); else AliasMoved tells who has moved it,
    when, and to what. None: whatever it names. Raises NotFound, Guarded, too.
    """
    message = pb.SetAliasRequest(name=name, alias=alias, version=numbered(version), expected=expected)
    previous: int = (yield request(REGISTRY, "SetAlias", message)).previous
    return previous


def delete_alias(name: str, alias: str, *, expected: int | None = None) -> Flow[int]:
    """Have an alias name nothing. Returns the version that it named. `expected` is as of `set_alias`.

    Raises NotFound, AliasMoved.
    """
    message = pb.DeleteAliasRequest(name=name, alias=alias, expected=expected)
    previous: int = (yield request(REGISTRY, "DeleteAlias", message)).previous
    return previous


def numbered(version: int) -> int:
    """The number of a version. Raises TypeError, which says so: protobuf does not say of which argument."""
    try:
        return operator.index(version)
    except TypeError:
        raise TypeError(f"version is to be a whole number, such as 3, and is {version!r}") from None


def target(alias: str | None, stage: ModelStage | str | None) -> pb.PromotionTarget:
    """Where a promotion leads. Raises ValueError unless it is one of them."""
    if (alias is None) == (stage is None):
        raise ValueError("give alias= or stage=, one of them")
    if stage is not None:
        return pb.PromotionTarget(stage=ModelStage.of(stage).wire)
    return pb.PromotionTarget(alias=alias)
