"""A plain HTTP client for MLflow's REST API: one request, its status and its JSON."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode


@dataclass(frozen=True, slots=True)
class Told:
    """An answer. `json` is what its body says, or None when that is no JSON."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def code(self) -> str:
        """MLflow's name of the error."""
        return str(self.json["error_code"])


class Asking:
    """Asks one server. Not for threads."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection(address, timeout=60)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Told:
        """Any request."""
        self._connection.request(method, path, body, dict(headers or {}))
        answer = self._connection.getresponse()
        return Told(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})

    def json(self, method: str, path: str, fields: Any) -> Told:
        """One with a JSON body. `path` may leave out /api/2.0/mlflow/."""
        return self.request(method, _whole(path), json.dumps(fields).encode(), {"content-type": "application/json"})

    def get(self, path: str, /, **query: Any) -> Told:
        """GET with a query; a list is a field that is there several times."""
        return self.request("GET", _whole(path) + ("?" + urlencode(query, doseq=True) if query else ""))

    def post(self, path: str, /, **fields: Any) -> Told:
        """POST of these fields."""
        return self.json("POST", path, fields)

    def ok(self, path: str, /, **fields: Any) -> Any:
        """What a POST of these fields answers; it must succeed."""
        told = self.post(path, **fields)
        assert told.status == 200, (told.status, told.body)
        return told.json

    def read(self, path: str, /, **query: Any) -> Any:
        """What a GET answers; it must succeed."""
        told = self.get(path, **query)
        assert told.status == 200, (told.status, told.body)
        return told.json

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def _whole(path: str) -> str:
    return path if path.startswith("/") else f"/api/2.0/mlflow/{path}"
