"""ArtifactService: what its messages say, to core, and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from penstock.chunks import chunk_message
from penstock.v1 import artifacts_pb2 as pb
from penstock_server.core.artifacts import Artifacts
from penstock_server.core.uploads import Uploads
from penstock_server.model.access import Caller
from penstock_server.model.artifacts import MIB, Artifact
from penstock_server.model.errors import InvalidArgument, PenstockError
from penstock_server.model.owners import parse_owner
from penstock_server.model.uploads import NewUpload, SmallFile, Trailer, parse_upload_id
from penstock_server.rpc import errors, pages

# What is in a message beside the bytes of a chunk.
_CHUNK_OVERHEAD = 64


class ArtifactService:
    """The methods of penstock.v1.ArtifactService."""

    def __init__(self, artifacts: Artifacts, uploads: Uploads, max_message_bytes: int) -> None:
        self._artifacts = artifacts
        self._uploads = uploads
        self._max_message_bytes = max_message_bytes
        self._chunk_bytes = min(MIB, max_message_bytes - _CHUNK_OVERHEAD)

    async def begin_upload(self, caller: Caller, request: pb.BeginUploadRequest) -> pb.BeginUploadResponse:
        """What there is to do to bring a file in."""
        plan = await self._uploads.begin(caller, _new(request, request.size))
        return pb.BeginUploadResponse(
            artifact=message(plan.artifact) if plan.artifact else None,
            upload_id=plan.upload.id.hex if plan.upload else "",
            part_bytes=plan.upload.part_bytes if plan.upload else 0,
            parts=[
                pb.StoredPart(number=part.number, size=part.size, prefix_sha256=part.prefix_sha256)
                for part in plan.parts
            ],
            route=plan.route.value,  # type: ignore[arg-type]  # the same numbers
            file_uri=plan.file_uri,
        )

    async def upload_artifact(
        self,
        caller: Caller,
        first: pb.UploadArtifactRequest,
        messages: AsyncIterator[pb.UploadArtifactRequest | memoryview],
    ) -> pb.UploadArtifactResponse:
        """Takes a file in chunks."""
        if not first.HasField("header"):
            raise InvalidArgument("header", "must be the first message")
        header = first.header
        size = header.size if header.HasField("size") else None
        new = _new(header, size, header.offset)
        async with aclosing(_contents(messages)) as contents:
            artifact = await self._uploads.receive(caller, new, header.data, contents)
        return pb.UploadArtifactResponse(artifact=message(artifact))

    async def upload_artifacts(self, caller: Caller, request: pb.UploadArtifactsRequest) -> pb.UploadArtifactsResponse:
        """Takes many small files."""
        files = [SmallFile(file.path, file.data, file.sha256, file.media_type) for file in request.files]
        owner = parse_owner(request.run_id)
        outcomes = await self._uploads.batches.receive(caller, owner, files, force=request.force)
        return pb.UploadArtifactsResponse(outcomes=map(_outcome, outcomes))

    async def sign_upload_parts(self, caller: Caller, request: pb.SignUploadPartsRequest) -> pb.SignUploadPartsResponse:
        """Addresses for parts."""
        owner, upload_id = parse_owner(request.run_id), parse_upload_id(request.upload_id)
        urls = await self._uploads.direct.sign(caller, owner, upload_id, request.first, request.count)
        return pb.SignUploadPartsResponse(urls=urls)

    async def complete_upload(self, caller: Caller, request: pb.CompleteUploadRequest) -> pb.CompleteUploadResponse:
        """Ends an upload that went straight to the store."""
        owner, upload_id = parse_owner(request.run_id), parse_upload_id(request.upload_id)
        etags = [(part.number, part.etag) for part in request.parts]
        artifact = await self._uploads.direct.complete(
            caller, owner, upload_id, request.sha256, etags, force=request.force
        )
        return pb.CompleteUploadResponse(artifact=message(artifact))

    async def abort_upload(self, caller: Caller, request: pb.AbortUploadRequest) -> pb.AbortUploadResponse:
        """Gives an upload up."""
        await self._uploads.abort(caller, parse_owner(request.run_id), parse_upload_id(request.upload_id))
        return pb.AbortUploadResponse()

    async def download_artifact(
        self, caller: Caller, request: pb.DownloadArtifactRequest
    ) -> AsyncIterator[pb.DownloadArtifactResponse | bytes]:
        """The artifact, then its bytes."""
        found = self._artifacts.download(
            caller, parse_owner(request.run_id), request.path, request.offset, request.length, request.sha256
        )
        async with aclosing(found) as contents:  # type: ignore[type-var]  # it is a generator
            async for content in contents:
                if isinstance(content, Artifact):
                    yield pb.DownloadArtifactResponse(artifact=message(content))
                    continue
                for start in range(0, len(content), self._chunk_bytes):
                    yield chunk_message(memoryview(content)[start : start + self._chunk_bytes])

    async def locate_artifact(self, caller: Caller, request: pb.LocateArtifactRequest) -> pb.LocateArtifactResponse:
        """Where the bytes can be had."""
        found = await self._artifacts.locate(caller, parse_owner(request.run_id), request.path)
        return pb.LocateArtifactResponse(
            artifact=message(found.artifact),
            route=found.route.value,  # type: ignore[arg-type]  # the same numbers
            url=found.url,
            uri=found.uri,
        )

    async def list_artifacts(self, caller: Caller, request: pb.ListArtifactsRequest) -> pb.ListArtifactsResponse:
        """A page of what is in a directory, as many as one message holds."""
        owner = parse_owner(request.run_id)

        async def page(size: int, token: str) -> tuple[list[pb.Artifact], str]:
            found, next_token = await self._artifacts.list(
                caller, owner, request.directory, recursive=request.recursive, page_size=size, page_token=token
            )
            return [message(artifact) for artifact in found], next_token

        artifacts, token = await pages.fitting(page, request.page_size, request.page_token, self._max_message_bytes)
        return pb.ListArtifactsResponse(artifacts=artifacts, next_page_token=token)

    async def stat_artifact(self, caller: Caller, request: pb.StatArtifactRequest) -> pb.StatArtifactResponse:
        """One artifact or directory."""
        found = await self._artifacts.stat(caller, parse_owner(request.run_id), request.path)
        return pb.StatArtifactResponse(artifact=message(found))

    async def delete_artifact(self, caller: Caller, request: pb.DeleteArtifactRequest) -> pb.DeleteArtifactResponse:
        """Deletes an artifact or directory."""
        deleted = await self._artifacts.delete(caller, parse_owner(request.run_id), request.path, force=request.force)
        return pb.DeleteArtifactResponse(deleted=deleted)


def _new(request: Any, size: int | None, offset: int = 0) -> NewUpload:
    """What a header, or a BeginUpload, says of a file. Raises InvalidArgument."""
    return NewUpload(
        owner=parse_owner(request.run_id),
        path=request.path,
        size=size,
        sha256=request.sha256,
        media_type=request.media_type,
        upload_id=parse_upload_id(request.upload_id) if request.upload_id else None,
        offset=offset,
        force=request.force,
    )


def _outcome(outcome: Artifact | PenstockError) -> pb.UploadArtifactsResponse.Outcome:
    if isinstance(outcome, Artifact):
        return pb.UploadArtifactsResponse.Outcome(artifact=message(outcome))
    failure = pb.UploadArtifactsResponse.Failure(
        code=errors.code(outcome), reason=errors.sentence(outcome), facts=dict(errors.metadata(outcome))
    )
    return pb.UploadArtifactsResponse.Outcome(failure=failure)


async def _contents(
    messages: AsyncIterator[pb.UploadArtifactRequest | memoryview],
) -> AsyncGenerator[bytes | memoryview | Trailer, None]:
    """What comes after the header. Raises InvalidArgument."""
    async for each in messages:
        if isinstance(each, memoryview):
            yield each
            continue
        match each.WhichOneof("message"):
            case "chunk":
                yield each.chunk
            case "trailer":
                yield Trailer(each.trailer.sha256)
            case "header":
                raise InvalidArgument("header", "comes a second time; an upload has one")
            case _:
                raise InvalidArgument("message", "is empty, or of a newer protocol")


def message(artifact: Artifact) -> pb.Artifact:
    """An artifact as it goes out."""
    return pb.Artifact(
        path=artifact.path,
        is_directory=artifact.is_directory,
        size=artifact.size,
        sha256=artifact.sha256,
        media_type=artifact.media_type,
        update_time_ms=artifact.updated_ms,
    )
