"""The bytes of artifacts, for MLflow's clients: what a door needs to take a file in, and to give one out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from penstock_server.core.access import Access
from penstock_server.core.artifacts import Artifacts
from penstock_server.core.model_versions import ModelVersions
from penstock_server.core.uploads import Uploads
from penstock_server.mlflow import ids, places
from penstock_server.mlflow.arguments import integer
from penstock_server.mlflow.door import caller_of
from penstock_server.mlflow.errors import invalid
from penstock_server.mlflow.places import Place
from penstock_server.model.access import Caller, Need, Permission, Resource
from penstock_server.model.artifacts import MEDIA_TYPE_LIMIT, MEDIA_TYPE_UNKNOWN, Artifact
from penstock_server.model.errors import NotFound
from penstock_server.model.owners import Owner, OwnerKind, of_run
from penstock_server.model.uploads import NewUpload, Trailer

Bytes = bytes | bytearray | memoryview

# What clients say that know nothing of the file.
_MEANINGLESS = (MEDIA_TYPE_UNKNOWN, "application/x-www-form-urlencoded")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, and for which file."""

    caller: Caller
    place: Place
    text: str


class Files:
    """Everything may raise MlflowError and PenstockError. `headers` have lower-case names."""

    def __init__(self, access: Access, artifacts: Artifacts, uploads: Uploads, versions: ModelVersions) -> None:
        self._access = access
        self._artifacts = artifacts
        self._uploads = uploads
        self._versions = versions

    async def by_path(self, headers: Mapping[str, str], path: str, request_id: str) -> Asked:
        """A file that is read, by its path below the server's root."""
        place = places.must_find(path)
        return await self._asked(headers, place, path, request_id)

    async def of_run(self, headers: Mapping[str, str], query: Mapping[str, str], request_id: str) -> Asked:
        """A file that is read, of a run."""
        run_id = ids.parse_run_id(query.get("run_id") or query.get("run_uuid") or "None")
        path = _path(query)
        return await self._asked(headers, Place(of_run(run_id), path), path, request_id)

    async def of_logged_model(self, headers: Mapping[str, str], model: Owner, path: str, request_id: str) -> Asked:
        """A file that is read, of a logged model."""
        return await self._asked(headers, Place(model, places.safe(path)), path, request_id)

    async def of_version(self, headers: Mapping[str, str], query: Mapping[str, str], request_id: str) -> Asked:
        """A file that is read, of a version of a registered model, where we have its files."""
        name, path = query.get("name", ""), _path(query)
        need = Need(Permission.READ, Resource.REGISTERED_MODEL, (name,))
        caller = await caller_of(self._access, headers, need, request_id)
        version = await self._versions.get(caller, name, _version(query.get("version", "")))
        if version.logged_model_id is not None:
            owner = Owner(OwnerKind.LOGGED_MODEL, version.logged_model_id)
        elif version.run_id is not None and version.source.startswith("runs:/"):
            owner = of_run(version.run_id)
        else:
            raise places.nothing(path)
        return Asked(caller, Place(owner, f"{version.path}/{path}" if version.path else path), path)

    async def _asked(self, headers: Mapping[str, str], place: Place, text: str, request_id: str) -> Asked:
        caller = await caller_of(self._access, headers, place.needs(Permission.READ), request_id)
        return Asked(caller, place, text)

    async def stat(self, asked: Asked) -> Artifact:
        """What is there, which is a file."""
        place = asked.place
        try:
            found = await self._artifacts.stat(asked.caller, place.owner, place.path) if place.path else None
        except NotFound:
            raise places.nothing(asked.text) from None
        if found is None or found.is_directory:
            raise places.directory(asked.text)
        return found

    def read(self, asked: Asked, artifact: Artifact, offset: int, length: int) -> AsyncIterator[Artifact | bytes]:
        """It, then so many of its bytes; more than 0. Raises Changed when it is another by now."""
        place = asked.place
        return self._artifacts.download(asked.caller, place.owner, place.path, offset, length, artifact.sha256)

    async def receive(
        self,
        headers: Mapping[str, str],
        place: Place,
        size: int | None,
        contents: AsyncIterator[Bytes | Trailer],
        request_id: str,
    ) -> Artifact:
        """Takes a file. `size`: None when it is known only at the end, where a Trailer comes."""
        caller = await caller_of(self._access, headers, place.needs(Permission.WRITE), request_id)
        told = headers.get("content-type", "")
        if told in _MEANINGLESS or len(told) > MEDIA_TYPE_LIMIT or not told.isascii() or not told.isprintable():
            told = ""
        new = NewUpload(place.owner, place.path, size, media_type=told, force=True)
        return await self._uploads.receive(caller, new, b"", contents)


def _version(text: str) -> int:
    number = integer(text)
    if number is None:
        raise invalid(f"Parameter 'version' must be an integer, got '{text[:256]}'.")
    return number


def _path(query: Mapping[str, str]) -> str:
    if "path" not in query:
        raise invalid("Missing value for required parameter 'path'.")
    return places.safe(query["path"])
