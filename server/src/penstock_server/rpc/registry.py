"""RegistryService: what its messages say, to core, and back. Promotions are in rpc/promotions.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from penstock.v1 import registry_pb2 as pb
from penstock_server.core.model_versions import ModelVersions
from penstock_server.core.promotions import Promotions
from penstock_server.core.registry import Registry
from penstock_server.core.registry_events import RegistryEvents, Synced
from penstock_server.model.access import Caller
from penstock_server.model.registry import parse_ref
from penstock_server.rpc import pages
from penstock_server.rpc import registry_messages as messages
from penstock_server.rpc.promotions import PromotionMethods

# Core is asked for this many events at once: one of a tag may have 800 kB of text.
_EVENTS_STEP = 250


class RegistryService(PromotionMethods):
    """The methods of penstock.v1.RegistryService."""

    def __init__(
        self,
        registry: Registry,
        versions: ModelVersions,
        promotions: Promotions,
        events: RegistryEvents,
        max_message_bytes: int,
    ) -> None:
        super().__init__(promotions, max_message_bytes)
        self._registry = registry
        self._versions = versions
        self._events = events

    async def create_registered_model(
        self, caller: Caller, request: pb.CreateRegisteredModelRequest
    ) -> pb.CreateRegisteredModelResponse:
        """Makes a model, or returns the one that was made by the same request."""
        made = await self._registry.create(
            caller, request.name, request.description, dict(request.tags), request.request_id
        )
        return pb.CreateRegisteredModelResponse(model=messages.model(made))

    async def get_registered_model(
        self, caller: Caller, request: pb.GetRegisteredModelRequest
    ) -> pb.GetRegisteredModelResponse:
        """One by its name."""
        return pb.GetRegisteredModelResponse(model=messages.model(await self._registry.get(caller, request.name)))

    async def search_registered_models(
        self, caller: Caller, request: pb.SearchRegisteredModelsRequest
    ) -> pb.SearchRegisteredModelsResponse:
        """A page of those that a filter selects, as many as one message holds."""

        async def page(size: int, token: str) -> tuple[list[pb.RegisteredModel], str]:
            found, next_token = await self._registry.search(
                caller, filter=request.filter, order_by=list(request.order_by), page_size=size, page_token=token
            )
            return [messages.model(each) for each in found], next_token

        models, token = await pages.fitting(page, request.page_size, request.page_token, self._max_message_bytes)
        return pb.SearchRegisteredModelsResponse(models=models, next_page_token=token)

    async def update_registered_model(
        self, caller: Caller, request: pb.UpdateRegisteredModelRequest
    ) -> pb.UpdateRegisteredModelResponse:
        """Changes name or description."""
        changed = await self._registry.update(
            caller,
            request.name,
            request.new_name if request.HasField("new_name") else None,
            request.description if request.HasField("description") else None,
        )
        return pb.UpdateRegisteredModelResponse(model=messages.model(changed))

    async def delete_registered_model(
        self, caller: Caller, request: pb.DeleteRegisteredModelRequest
    ) -> pb.DeleteRegisteredModelResponse:
        """Removes a model with its versions."""
        await self._registry.delete(caller, request.name)
        return pb.DeleteRegisteredModelResponse()

    async def set_registered_model_tags(
        self, caller: Caller, request: pb.SetRegisteredModelTagsRequest
    ) -> pb.SetRegisteredModelTagsResponse:
        """Sets tags."""
        await self._registry.set_tags(caller, request.name, dict(request.tags))
        return pb.SetRegisteredModelTagsResponse()

    async def delete_registered_model_tags(
        self, caller: Caller, request: pb.DeleteRegisteredModelTagsRequest
    ) -> pb.DeleteRegisteredModelTagsResponse:
        """Removes tags."""
        await self._registry.delete_tags(caller, request.name, list(request.keys))
        return pb.DeleteRegisteredModelTagsResponse()

    async def create_model_version(
        self, caller: Caller, request: pb.CreateModelVersionRequest
    ) -> pb.CreateModelVersionResponse:
        """Makes the next version, or returns the one that was made by the same request."""
        made = await self._versions.create(caller, messages.new_version(request))
        return pb.CreateModelVersionResponse(version=messages.version(made))

    async def get_model_version(self, caller: Caller, request: pb.GetModelVersionRequest) -> pb.GetModelVersionResponse:
        """One by its number."""
        found = await self._versions.get(caller, request.name, request.version)
        return pb.GetModelVersionResponse(version=messages.version(found))

    async def resolve_model_version(
        self, caller: Caller, request: pb.ResolveModelVersionRequest
    ) -> pb.ResolveModelVersionResponse:
        """The one that a reference names."""
        found = await self._versions.resolve(caller, parse_ref(request.ref))
        return pb.ResolveModelVersionResponse(version=messages.version(found), download_uri=found.source)

    async def get_latest_versions(
        self, caller: Caller, request: pb.GetLatestVersionsRequest
    ) -> pb.GetLatestVersionsResponse:
        """The newest in each stage."""
        stages = [messages.stage(number, "stages") for number in request.stages]
        found = await self._versions.latest(caller, request.name, stages)
        return pb.GetLatestVersionsResponse(versions=map(messages.version, found))

    async def search_model_versions(
        self, caller: Caller, request: pb.SearchModelVersionsRequest
    ) -> pb.SearchModelVersionsResponse:
        """A page of those that a filter selects, as many as one message holds."""

        async def page(size: int, token: str) -> tuple[list[pb.ModelVersion], str]:
            found, next_token = await self._versions.search(
                caller, filter=request.filter, order_by=list(request.order_by), page_size=size, page_token=token
            )
            return [messages.version(each) for each in found], next_token

        versions, token = await pages.fitting(page, request.page_size, request.page_token, self._max_message_bytes)
        return pb.SearchModelVersionsResponse(versions=versions, next_page_token=token)

    async def update_model_version(
        self, caller: Caller, request: pb.UpdateModelVersionRequest
    ) -> pb.UpdateModelVersionResponse:
        """Changes description or status."""
        changed = await self._versions.update(
            caller,
            request.name,
            request.version,
            description=request.description if request.HasField("description") else None,
            status=messages.status(request.status),
            status_message=request.status_message if request.HasField("status_message") else None,
        )
        return pb.UpdateModelVersionResponse(version=messages.version(changed))

    async def delete_model_version(
        self, caller: Caller, request: pb.DeleteModelVersionRequest
    ) -> pb.DeleteModelVersionResponse:
        """Removes one."""
        await self._versions.delete(caller, request.name, request.version)
        return pb.DeleteModelVersionResponse()

    async def set_model_version_tags(
        self, caller: Caller, request: pb.SetModelVersionTagsRequest
    ) -> pb.SetModelVersionTagsResponse:
        """Sets tags."""
        await self._versions.set_tags(caller, request.name, request.version, dict(request.tags))
        return pb.SetModelVersionTagsResponse()

    async def delete_model_version_tags(
        self, caller: Caller, request: pb.DeleteModelVersionTagsRequest
    ) -> pb.DeleteModelVersionTagsResponse:
        """Removes tags."""
        await self._versions.delete_tags(caller, request.name, request.version, list(request.keys))
        return pb.DeleteModelVersionTagsResponse()

    async def transition_stage(self, caller: Caller, request: pb.TransitionStageRequest) -> pb.TransitionStageResponse:
        """Brings one into a stage."""
        moved = await self._versions.move_stage(
            caller,
            request.name,
            request.version,
            messages.stage(request.stage),
            archive_others=request.archive_others,
        )
        return pb.TransitionStageResponse(version=messages.version(moved))

    async def set_alias(self, caller: Caller, request: pb.SetAliasRequest) -> pb.SetAliasResponse:
        """Has an alias name a version."""
        expected = request.expected if request.HasField("expected") else None
        previous = await self._versions.set_alias(caller, request.name, request.alias, request.version, expected)
        return pb.SetAliasResponse(previous=previous)

    async def delete_alias(self, caller: Caller, request: pb.DeleteAliasRequest) -> pb.DeleteAliasResponse:
        """Has an alias name nothing."""
        expected = request.expected if request.HasField("expected") else None
        previous = await self._versions.delete_alias(caller, request.name, request.alias, expected)
        return pb.DeleteAliasResponse(previous=previous)

    async def list_events(self, caller: Caller, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
        """A page of what has happened, as much as one message holds."""
        kinds = messages.kinds(request.kinds)

        async def page(size: int, token: str) -> tuple[list[pb.RegistryEvent], str]:
            found, next_token = await self._events.list(
                caller,
                request.name,
                version=request.version,
                kinds=kinds,
                key=request.key,
                oldest_first=request.oldest_first,
                page_size=size,
                page_token=token,
            )
            return [messages.event(each) for each in found], next_token

        events, token = await pages.fitting(
            page, request.page_size, request.page_token, self._max_message_bytes, _EVENTS_STEP
        )
        return pb.ListEventsResponse(events=events, next_page_token=token)

    async def watch_registry(
        self, caller: Caller, request: pb.WatchRegistryRequest
    ) -> AsyncIterator[pb.WatchRegistryResponse]:
        """Events as they are committed."""
        after = request.after_event_id if request.HasField("after_event_id") else None
        watching = self._events.watch(
            caller,
            names=list(request.names),
            kinds=messages.kinds(request.kinds),
            keys=list(request.keys),
            after=after,
        )
        async with aclosing(watching):  # type: ignore[type-var]  # it is a generator
            async for told in watching:
                if isinstance(told, Synced):
                    yield pb.WatchRegistryResponse(synced_event_id=told.event_id)
                else:
                    yield pb.WatchRegistryResponse(event=messages.event(told))
