from penstock.v1 import access_pb2 as _access_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ArtifactRoute(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARTIFACT_ROUTE_UNSPECIFIED: _ClassVar[ArtifactRoute]
    ARTIFACT_ROUTE_SERVER: _ClassVar[ArtifactRoute]
    ARTIFACT_ROUTE_SIGNED: _ClassVar[ArtifactRoute]
    ARTIFACT_ROUTE_FILE: _ClassVar[ArtifactRoute]
ARTIFACT_ROUTE_UNSPECIFIED: ArtifactRoute
ARTIFACT_ROUTE_SERVER: ArtifactRoute
ARTIFACT_ROUTE_SIGNED: ArtifactRoute
ARTIFACT_ROUTE_FILE: ArtifactRoute

class Artifact(_message.Message):
    __slots__ = ("path", "is_directory", "size", "sha256", "media_type", "update_time_ms")
    PATH_FIELD_NUMBER: _ClassVar[int]
    IS_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    path: str
    is_directory: bool
    size: int
    sha256: bytes
    media_type: str
    update_time_ms: int
    def __init__(self, path: _Optional[str] = ..., is_directory: bool = ..., size: _Optional[int] = ..., sha256: _Optional[bytes] = ..., media_type: _Optional[str] = ..., update_time_ms: _Optional[int] = ...) -> None: ...

class BeginUploadRequest(_message.Message):
    __slots__ = ("run_id", "path", "size", "sha256", "media_type", "upload_id", "force")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    path: str
    size: int
    sha256: bytes
    media_type: str
    upload_id: str
    force: bool
    def __init__(self, run_id: _Optional[str] = ..., path: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[bytes] = ..., media_type: _Optional[str] = ..., upload_id: _Optional[str] = ..., force: bool = ...) -> None: ...

class StoredPart(_message.Message):
    __slots__ = ("number", "size", "prefix_sha256")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_SHA256_FIELD_NUMBER: _ClassVar[int]
    number: int
    size: int
    prefix_sha256: bytes
    def __init__(self, number: _Optional[int] = ..., size: _Optional[int] = ..., prefix_sha256: _Optional[bytes] = ...) -> None: ...

class BeginUploadResponse(_message.Message):
    __slots__ = ("artifact", "upload_id", "part_bytes", "parts", "route", "file_uri")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    PART_BYTES_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    FILE_URI_FIELD_NUMBER: _ClassVar[int]
    artifact: Artifact
    upload_id: str
    part_bytes: int
    parts: _containers.RepeatedCompositeFieldContainer[StoredPart]
    route: ArtifactRoute
    file_uri: str
    def __init__(self, artifact: _Optional[_Union[Artifact, _Mapping]] = ..., upload_id: _Optional[str] = ..., part_bytes: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[StoredPart, _Mapping]]] = ..., route: _Optional[_Union[ArtifactRoute, str]] = ..., file_uri: _Optional[str] = ...) -> None: ...

class UploadArtifactRequest(_message.Message):
    __slots__ = ("header", "chunk", "trailer")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    chunk: bytes
    trailer: UploadTrailer
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ..., trailer: _Optional[_Union[UploadTrailer, _Mapping]] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("run_id", "path", "size", "sha256", "media_type", "upload_id", "offset", "data", "force")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    path: str
    size: int
    sha256: bytes
    media_type: str
    upload_id: str
    offset: int
    data: bytes
    force: bool
    def __init__(self, run_id: _Optional[str] = ..., path: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[bytes] = ..., media_type: _Optional[str] = ..., upload_id: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., force: bool = ...) -> None: ...

class UploadTrailer(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    def __init__(self, sha256: _Optional[bytes] = ...) -> None: ...

class UploadArtifactResponse(_message.Message):
    __slots__ = ("artifact",)
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    artifact: Artifact
    def __init__(self, artifact: _Optional[_Union[Artifact, _Mapping]] = ...) -> None: ...

class UploadArtifactsRequest(_message.Message):
    __slots__ = ("run_id", "files", "force")
    class File(_message.Message):
        __slots__ = ("path", "data", "sha256", "media_type")
        PATH_FIELD_NUMBER: _ClassVar[int]
        DATA_FIELD_NUMBER: _ClassVar[int]
        SHA256_FIELD_NUMBER: _ClassVar[int]
        MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
        path: str
        data: bytes
        sha256: bytes
        media_type: str
        def __init__(self, path: _Optional[str] = ..., data: _Optional[bytes] = ..., sha256: _Optional[bytes] = ..., media_type: _Optional[str] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    files: _containers.RepeatedCompositeFieldContainer[UploadArtifactsRequest.File]
    force: bool
    def __init__(self, run_id: _Optional[str] = ..., files: _Optional[_Iterable[_Union[UploadArtifactsRequest.File, _Mapping]]] = ..., force: bool = ...) -> None: ...

class UploadArtifactsResponse(_message.Message):
    __slots__ = ("outcomes",)
    class Failure(_message.Message):
        __slots__ = ("code", "reason", "facts")
        class FactsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        CODE_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        FACTS_FIELD_NUMBER: _ClassVar[int]
        code: int
        reason: str
        facts: _containers.ScalarMap[str, str]
        def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., facts: _Optional[_Mapping[str, str]] = ...) -> None: ...
    class Outcome(_message.Message):
        __slots__ = ("artifact", "failure")
        ARTIFACT_FIELD_NUMBER: _ClassVar[int]
        FAILURE_FIELD_NUMBER: _ClassVar[int]
        artifact: Artifact
        failure: UploadArtifactsResponse.Failure
        def __init__(self, artifact: _Optional[_Union[Artifact, _Mapping]] = ..., failure: _Optional[_Union[UploadArtifactsResponse.Failure, _Mapping]] = ...) -> None: ...
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[UploadArtifactsResponse.Outcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[UploadArtifactsResponse.Outcome, _Mapping]]] = ...) -> None: ...

class SignUploadPartsRequest(_message.Message):
    __slots__ = ("run_id", "upload_id", "first", "count")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    upload_id: str
    first: int
    count: int
    def __init__(self, run_id: _Optional[str] = ..., upload_id: _Optional[str] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class SignUploadPartsResponse(_message.Message):
    __slots__ = ("urls",)
    URLS_FIELD_NUMBER: _ClassVar[int]
    urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, urls: _Optional[_Iterable[str]] = ...) -> None: ...

class CompleteUploadRequest(_message.Message):
    __slots__ = ("run_id", "upload_id", "sha256", "parts", "force")
    class Part(_message.Message):
        __slots__ = ("number", "etag")
        NUMBER_FIELD_NUMBER: _ClassVar[int]
        ETAG_FIELD_NUMBER: _ClassVar[int]
        number: int
        etag: str
        def __init__(self, number: _Optional[int] = ..., etag: _Optional[str] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    upload_id: str
    sha256: bytes
    parts: _containers.RepeatedCompositeFieldContainer[CompleteUploadRequest.Part]
    force: bool
    def __init__(self, run_id: _Optional[str] = ..., upload_id: _Optional[str] = ..., sha256: _Optional[bytes] = ..., parts: _Optional[_Iterable[_Union[CompleteUploadRequest.Part, _Mapping]]] = ..., force: bool = ...) -> None: ...

class CompleteUploadResponse(_message.Message):
    __slots__ = ("artifact",)
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    artifact: Artifact
    def __init__(self, artifact: _Optional[_Union[Artifact, _Mapping]] = ...) -> None: ...

class AbortUploadRequest(_message.Message):
    __slots__ = ("run_id", "upload_id")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    upload_id: str
    def __init__(self, run_id: _Optional[str] = ..., upload_id: _Optional[str] = ...) -> None: ...

class AbortUploadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DownloadArtifactRequest(_message.Message):
    __slots__ = ("run_id", "path", "offset", "length", "sha256")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    path: str
    offset: int
    length: int
    sha256: bytes
    def __init__(self, run_id: _Optional[str] = ..., path: _Optional[str] = ..., offset: _Optional[int] = ..., length: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class DownloadArtifactResponse(_message.Message):
    __slots__ = ("artifact", "chunk")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    artifact: Artifact
    chunk: bytes
    def __init__(self, artifact: _Optional[_Union[Artifact, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class LocateArtifactRequest(_message.Message):
    __slots__ = ("run_id", "path")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    path: str
    def __init__(self, run_id: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class LocateArtifactResponse(_message.Message):
    __slots__ = ("artifact", "route", "url", "uri")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    artifact: Artifact
    route: ArtifactRoute
    url: str
    uri: str
    def __init__(self, artifact: _Optional[_Union[Artifact, _Mapping]] = ..., route: _Optional[_Union[ArtifactRoute, str]] = ..., url: _Optional[str] = ..., uri: _Optional[str] = ...) -> None: ...

class ListArtifactsRequest(_message.Message):
    __slots__ = ("run_id", "directory", "recursive", "page_size", "page_token")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    directory: str
    recursive: bool
    page_size: int
    page_token: str
    def __init__(self, run_id: _Optional[str] = ..., directory: _Optional[str] = ..., recursive: bool = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListArtifactsResponse(_message.Message):
    __slots__ = ("artifacts", "next_page_token")
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    artifacts: _containers.RepeatedCompositeFieldContainer[Artifact]
    next_page_token: str
    def __init__(self, artifacts: _Optional[_Iterable[_Union[Artifact, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class StatArtifactRequest(_message.Message):
    __slots__ = ("run_id", "path")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    path: str
    def __init__(self, run_id: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class StatArtifactResponse(_message.Message):
    __slots__ = ("artifact",)
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    artifact: Artifact
    def __init__(self, artifact: _Optional[_Union[Artifact, _Mapping]] = ...) -> None: ...

class DeleteArtifactRequest(_message.Message):
    __slots__ = ("run_id", "path", "force")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    path: str
    force: bool
    def __init__(self, run_id: _Optional[str] = ..., path: _Optional[str] = ..., force: bool = ...) -> None: ...

class DeleteArtifactResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    def __init__(self, deleted: _Optional[int] = ...) -> None: ...
