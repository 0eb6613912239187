"""Artifacts, as MLflow's clients know them: what is answered with JSON. files.py has the bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import orjson

from penstock_server.core.artifacts import Artifacts
from penstock_server.core.runs import Runs
from penstock_server.core.uploads import Uploads
from penstock_server.mlflow import ids, locations, places
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.mlflow.errors import MlflowError, invalid
from penstock_server.mlflow.places import Place
from penstock_server.model.access import Caller, Need, Permission, Resource
from penstock_server.model.artifacts import PARTS_MOST, Artifact
from penstock_server.model.errors import NotFound
from penstock_server.model.owners import of_run
from penstock_server.model.pages import SIZE_LIMIT
from penstock_server.model.uploads import NewUpload, parse_upload_id

_HERE = "2.0/mlflow-artifacts"
# MLflow's listing by path knows no pages.
_LISTED_MOST = 5 * SIZE_LIMIT
_SIGNED_AT_ONCE = 100
_UNSUPPORTED = "is not supported for the current artifact repository"  # clients look for these words


class ArtifactEndpoints:
    """The endpoint of artifacts beside runs."""

    def __init__(self, artifacts: Artifacts, runs: Runs) -> None:
        self._artifacts = artifacts
        self._runs = runs

    def __iter__(self) -> Iterator[Endpoint]:
        yield Endpoint("GET", "2.0/mlflow/artifacts/list", self._list, Permission.READ, Resource.RUN, "run_id")

    async def _list(self, caller: Caller, arguments: Arguments) -> Answer:
        directory = places.safe(arguments.text("path"))
        run = await self._runs.get(caller, ids.run_id(arguments))
        found, token = await self._artifacts.list(
            caller, of_run(run.id), directory, page_size=SIZE_LIMIT, page_token=arguments.text("page_token")
        )
        answer: dict[str, Any] = {"root_uri": locations.of_run(run)} | shown(found)
        if token:
            answer["next_page_token"] = token
        return answer


class ProxyEndpoints:
    """The endpoints of the server as a place of artifacts, by their paths."""

    def __init__(self, artifacts: Artifacts, uploads: Uploads, *, signed: bool) -> None:
        """`signed`: clients read and write the store themselves, at addresses that are signed for them."""
        self._artifacts = artifacts
        self._uploads = uploads
        self._signed = signed

    def __iter__(self) -> Iterator[Endpoint]:
        read, write = Permission.READ, Permission.WRITE
        yield _ByPath("GET", f"{_HERE}/artifacts", self._list, read, named="path")
        yield _ByPath("DELETE", f"{_HERE}/artifacts/{{within:path}}", self._delete, write, named="within")
        for name, answer in (("create", self._begin), ("complete", self._complete), ("abort", self._abort)):
            yield _ByPath("POST", f"{_HERE}/mpu/{name}/{{within:path}}", answer, write, named="within")
        yield _ByPath("GET", f"{_HERE}/presigned/{{within:path}}", self._locate, read, named="within")

    async def _list(self, caller: Caller, arguments: Arguments) -> Answer:
        place = places.find(arguments.text("path"))
        if place is None:
            return {}
        found: list[Artifact] = []
        token = ""
        with suppress(NotFound):
            while not found or token:
                page, token = await self._artifacts.list(
                    caller, place.owner, place.path, page_size=SIZE_LIMIT, page_token=token
                )
                found += page
                if token and len(found) >= _LISTED_MOST:
                    raise invalid(f"more than {_LISTED_MOST} artifacts are in one directory; list a run's by pages")
                if not page:
                    break
        return orjson.dumps(shown(found, len(place.path) + 1 if place.path else 0))

    async def _delete(self, caller: Caller, arguments: Arguments) -> Answer:
        place = places.find(arguments.required("within"))
        if place is not None:
            with suppress(NotFound):  # as MLflow, which does not look
                if place.path:
                    await self._artifacts.delete(caller, place.owner, place.path, force=True)
                else:
                    await self._artifacts.delete_all(caller, place.owner, force=True)
        return {}

    async def _begin(self, caller: Caller, arguments: Arguments) -> Answer:
        place = self._multipart(arguments)
        count = arguments.integer("num_parts", 1)
        if not 1 <= count <= PARTS_MOST:
            raise arguments.wrong("num_parts", count, f"Value must be within 1 to {PARTS_MOST}")
        upload = await self._uploads.begin_parts(caller, NewUpload(place.owner, place.path, force=True))
        urls: list[str] = []
        while len(urls) < count:
            some = min(_SIGNED_AT_ONCE, count - len(urls))
            urls += await self._uploads.direct.sign(caller, place.owner, upload.id, len(urls) + 1, some)
            await asyncio.sleep(0)  # it takes a fraction of a millisecond each
        return {
            "upload_id": upload.id.hex,
            "credentials": [{"url": url, "part_number": number} for number, url in enumerate(urls, 1)],
        }

    async def _complete(self, caller: Caller, arguments: Arguments) -> Answer:
        place = self._multipart(arguments)
        upload_id = parse_upload_id(arguments.required("upload_id"))
        etags = [(part.integer("part_number"), part.required("etag")) for part in arguments.messages("parts")]
        if not etags:
            raise arguments.lacking("parts")
        await self._uploads.direct.complete(caller, place.owner, upload_id, b"", sorted(etags), force=True)
        return {}

    async def _abort(self, caller: Caller, arguments: Arguments) -> Answer:
        place = self._multipart(arguments)
        await self._uploads.abort(caller, place.owner, parse_upload_id(arguments.required("upload_id")))
        return {}

    def _multipart(self, arguments: Arguments) -> Place:
        """What is uploaded: a file of the name that `path` has, which is one of the client's machine."""
        if not self._signed:
            raise MlflowError("NOT_IMPLEMENTED", f"Multipart upload {_UNSUPPORTED}")
        name = arguments.required("path").replace("\\", "/").rpartition("/")[2]
        return places.to_write(f"{arguments.required('within').rstrip('/')}/{name}")

    async def _locate(self, caller: Caller, arguments: Arguments) -> Answer:
        if not self._signed:
            raise MlflowError("NOT_IMPLEMENTED", f"Multipart download {_UNSUPPORTED}")
        path = arguments.required("within")
        place = places.must_find(path)
        if not place.path:
            raise places.directory(path)
        try:
            found = await self._artifacts.locate(caller, place.owner, place.path)
        except NotFound:
            raise places.nothing(path) from None
        return {"url": found.url, "headers": {}, "file_size": found.artifact.size}


class _ByPath(Endpoint):
    """One whose path, or `path`, says whose files are meant."""

    __slots__ = ()

    def needs(self, arguments: Arguments) -> Need:
        """What this very request needs."""
        place = places.find(arguments.text(self.named))
        return place.needs(self.permission) if place is not None else Need(self.permission, Resource.WORKSPACE)


def shown(found: Iterable[Artifact], skip: int = 0) -> dict[str, Any]:
    """Artifacts as they go out; `skip` characters of each path are left out."""
    files = [
        {"path": each.path[skip:], "is_dir": True}
        if each.is_directory
        else {"path": each.path[skip:], "is_dir": False, "file_size": each.size}
        for each in found
    ]
    return {"files": files} if files else {}
