"""Registered models: named lines of versions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.calls import REGISTRY, Flow, as_texts, in_pages, listed, request
from penstock.model_versions import ModelVersion, version_of
from penstock.promotions import PromotionPolicy, policy_of
from penstock.v1 import registry_pb2 as pb


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A named line of versions. Times are ms since 1970 UTC.

    `aliases` has the version that each names; `latest_versions` the newest in each stage that has one; `last_version`
    is the number of the last, deleted or not, 0 when there never was one.
    """

    name: str
    description: str
    create_time_ms: int
    update_time_ms: int
    created_by: str
    last_version: int
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    latest_versions: list[ModelVersion] = field(default_factory=list)
    policies: list[PromotionPolicy] = field(default_factory=list)


def model_of(message: pb.RegisteredModel) -> RegisteredModel:
    """From the wire."""
    return RegisteredModel(
        name=message.name,
        description=message.description,
        create_time_ms=message.create_time_ms,
        update_time_ms=message.update_time_ms,
        created_by=message.created_by,
        last_version=message.last_version,
        tags=dict(message.tags),
        aliases={each.alias: each.version for each in message.aliases},
        latest_versions=[version_of(each) for each in message.latest_versions],
        policies=[policy_of(each) for each in message.policies],
    )


def create_model(name: str, description: str = "", tags: Mapping[str, object] | None = None) -> Flow[RegisteredModel]:
    """Make a model, without versions. Raises AlreadyExists when there is one of that name."""
    message = pb.CreateRegisteredModelRequest(
        name=name, description=description, tags=as_texts(tags), request_id=uuid.uuid4().hex
    )
    return model_of((yield request(REGISTRY, "CreateRegisteredModel", message)).model)


def get_model(name: str) -> Flow[RegisteredModel]:
    """One model by its name. Raises NotFound."""
    message = pb.GetRegisteredModelRequest(name=name)
    return model_of((yield request(REGISTRY, "GetRegisteredModel", message)).model)


def search_models(
    filter: str = "",  # noqa: A002  the word of the API
    order_by: Sequence[str] = (),
    limit: int | None = None,
) -> Flow[list[RegisteredModel]]:
    """The models that a filter selects, by name or in the order of `order_by`; at most `limit`, None: all.

    `name LIKE 'iris%' AND tags.team = 'vision'`, say; docs/search.md tells the rest. Raises InvalidFilter.
    """
    message = pb.SearchRegisteredModelsRequest(filter=filter, order_by=listed(order_by))
    return (
        yield from in_pages(REGISTRY, "SearchRegisteredModels", message, limit, lambda page: map(model_of, page.models))
    )


def update_model(name: str, *, description: str) -> Flow[RegisteredModel]:
    """Change a model's description. Raises NotFound."""
    message = pb.UpdateRegisteredModelRequest(name=name, description=description)
    return model_of((yield request(REGISTRY, "UpdateRegisteredModel", message)).model)


def rename_model(name: str, new_name: str) -> Flow[RegisteredModel]:
    """Give a model another name; all that it has goes along.

    Raises NotFound, AlreadyExists; FailedPrecondition while it has policies: delete them first.
    """
    message = pb.UpdateRegisteredModelRequest(name=name, new_name=new_name)
    return model_of((yield request(REGISTRY, "UpdateRegisteredModel", message)).model)


def delete_model(name: str) -> Flow[None]:
    """Remove a model with all its versions. Its history stays; so do the files, which are their runs'.

    Raises NotFound.
    """
    yield request(REGISTRY, "DeleteRegisteredModel", pb.DeleteRegisteredModelRequest(name=name))


def set_model_tags(name: str, tags: Mapping[str, object]) -> Flow[None]:
    """Set tags of a model, as text, replacing those of the same key. Raises NotFound."""
    message = pb.SetRegisteredModelTagsRequest(name=name, tags=as_texts(tags))
    yield request(REGISTRY, "SetRegisteredModelTags", message)


def delete_model_tags(name: str, keys: Sequence[str]) -> Flow[None]:
    """Remove tags of a model. Raises NotFound, and removes none, when one of them is not there."""
    message = pb.DeleteRegisteredModelTagsRequest(name=name, keys=listed(keys))
    yield request(REGISTRY, "DeleteRegisteredModelTags", message)
