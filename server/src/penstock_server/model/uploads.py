"""Uploads: files on their way to be artifacts."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass

from penstock_server.model.artifacts import Artifact, Part, UploadId
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.owners import Owner, OwnerRef


class Route(enum.IntEnum):
    """Where bytes go to and come from; the numbers of the protocol."""

    SERVER = 1
    SIGNED = 2
    FILE = 3


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What a caller says of a file to be uploaded; see UploadHeader. Checked by core.

    `force`: also in the place of what a version of a model stands on.
    """

    owner: Owner
    path: str
    size: int | None = None
    sha256: bytes = b""
    media_type: str = ""
    upload_id: UploadId | None = None
    offset: int = 0
    force: bool = False


@dataclass(frozen=True, slots=True)
class SmallFile:
    """What a caller says of a file, and all its bytes; see UploadArtifactsRequest.File. Checked by core."""

    path: str
    data: bytes
    sha256: bytes = b""
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Trailer:
    """What a caller says at the end of a file."""

    sha256: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that is open. `token` is what the store calls it, None before its first part."""

    id: UploadId
    owner: OwnerRef
    path: str
    key: str
    attempt: int
    token: str | None
    size: int | None
    media_type: str
    part_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to do to bring a file in; see BeginUploadResponse."""

    artifact: Artifact | None
    upload: Upload | None = None
    parts: tuple[Part, ...] = ()
    route: Route = Route.SERVER
    file_uri: str = ""


@dataclass(frozen=True, slots=True)
class Location:
    """How to get the bytes of an artifact; see LocateArtifactResponse."""

    artifact: Artifact
    route: Route
    url: str = ""
    uri: str = ""


def parse_upload_id(text: str, where: str = "upload_id") -> UploadId:
    """The id that a request carries as text. Raises InvalidArgument."""
    try:
        if len(text) not in (32, 36):
            raise ValueError
        return UploadId(uuid.UUID(text))
    except ValueError:
        raise InvalidArgument(where, f"{text[:40]!r} is not an upload id (32 hexadecimal digits)") from None
