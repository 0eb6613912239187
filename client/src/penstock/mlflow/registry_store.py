"""MLflow's model registry on a Penstock server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.rest_store import RestStore
from mlflow.utils.rest_utils import MlflowHostCreds

from penstock.mlflow.door import Door, is_not_served


class RegistryStore(RestStore):  # type: ignore[misc]  # MLflow has no types here
    """MLflow's own store for a server, whose requests go by gRPC."""

    supports_workspaces = False  # MLflow's; ours is PENSTOCK_WORKSPACE

    def __init__(self, store_uri: str, tracking_uri: str | None = None, **_: object) -> None:
        super().__init__(lambda: MlflowHostCreds(store_uri))
        self._door = Door(store_uri)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None = None,
        call_all_endpoints: bool = False,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Any:
        if call_all_endpoints:
            endpoints = self._get_all_endpoints_from_method(api)
        else:
            endpoints = [self._get_endpoint_from_method(api)]
        for number, (path, method) in enumerate(endpoints, 1):
            try:
                return self._door.ask(method, path, json_body, self._get_response_from_method(api), extra_headers)
            except MlflowException as error:
                if number == len(endpoints) or not is_not_served(error):
                    raise
        return None

    def _call_webhook_endpoint(self, api: Any, json_body: str | None = None, webhook_id: str | None = None) -> Any:
        path, method = self._get_webhook_endpoint_from_method(api)
        if webhook_id:
            path = path.format(webhook_id=webhook_id)
        return self._door.ask(method, path, json_body, self._get_response_from_method(api))
