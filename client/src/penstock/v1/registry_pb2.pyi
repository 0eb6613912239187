from penstock.v1 import access_pb2 as _access_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STAGE_UNSPECIFIED: _ClassVar[ModelStage]
    MODEL_STAGE_NONE: _ClassVar[ModelStage]
    MODEL_STAGE_STAGING: _ClassVar[ModelStage]
    MODEL_STAGE_PRODUCTION: _ClassVar[ModelStage]
    MODEL_STAGE_ARCHIVED: _ClassVar[ModelStage]

class ModelVersionStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_VERSION_STATUS_UNSPECIFIED: _ClassVar[ModelVersionStatus]
    MODEL_VERSION_STATUS_PENDING: _ClassVar[ModelVersionStatus]
    MODEL_VERSION_STATUS_READY: _ClassVar[ModelVersionStatus]
    MODEL_VERSION_STATUS_FAILED: _ClassVar[ModelVersionStatus]

class PromotionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROMOTION_STATE_UNSPECIFIED: _ClassVar[PromotionState]
    PROMOTION_STATE_PENDING: _ClassVar[PromotionState]
    PROMOTION_STATE_PROMOTED: _ClassVar[PromotionState]
    PROMOTION_STATE_REJECTED: _ClassVar[PromotionState]
    PROMOTION_STATE_VOID: _ClassVar[PromotionState]

class RegistryEventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REGISTRY_EVENT_KIND_UNSPECIFIED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_MODEL_CREATED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_MODEL_RENAMED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_MODEL_UPDATED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_MODEL_DELETED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_MODEL_TAG_SET: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_MODEL_TAG_DELETED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_VERSION_CREATED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_VERSION_UPDATED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_VERSION_DELETED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_VERSION_TAG_SET: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_VERSION_TAG_DELETED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_STAGE_CHANGED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_ALIAS_SET: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_ALIAS_DELETED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_POLICY_SET: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_POLICY_DELETED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_PROMOTION_REQUESTED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_PROMOTION_APPROVED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_PROMOTION_REJECTED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_PROMOTED: _ClassVar[RegistryEventKind]
    REGISTRY_EVENT_KIND_SOURCE_DELETED: _ClassVar[RegistryEventKind]
MODEL_STAGE_UNSPECIFIED: ModelStage
MODEL_STAGE_NONE: ModelStage
MODEL_STAGE_STAGING: ModelStage
MODEL_STAGE_PRODUCTION: ModelStage
MODEL_STAGE_ARCHIVED: ModelStage
MODEL_VERSION_STATUS_UNSPECIFIED: ModelVersionStatus
MODEL_VERSION_STATUS_PENDING: ModelVersionStatus
MODEL_VERSION_STATUS_READY: ModelVersionStatus
MODEL_VERSION_STATUS_FAILED: ModelVersionStatus
PROMOTION_STATE_UNSPECIFIED: PromotionState
PROMOTION_STATE_PENDING: PromotionState
PROMOTION_STATE_PROMOTED: PromotionState
PROMOTION_STATE_REJECTED: PromotionState
PROMOTION_STATE_VOID: PromotionState
REGISTRY_EVENT_KIND_UNSPECIFIED: RegistryEventKind
REGISTRY_EVENT_KIND_MODEL_CREATED: RegistryEventKind
REGISTRY_EVENT_KIND_MODEL_RENAMED: RegistryEventKind
REGISTRY_EVENT_KIND_MODEL_UPDATED: RegistryEventKind
REGISTRY_EVENT_KIND_MODEL_DELETED: RegistryEventKind
REGISTRY_EVENT_KIND_MODEL_TAG_SET: RegistryEventKind
REGISTRY_EVENT_KIND_MODEL_TAG_DELETED: RegistryEventKind
REGISTRY_EVENT_KIND_VERSION_CREATED: RegistryEventKind
REGISTRY_EVENT_KIND_VERSION_UPDATED: RegistryEventKind
REGISTRY_EVENT_KIND_VERSION_DELETED: RegistryEventKind
REGISTRY_EVENT_KIND_VERSION_TAG_SET: RegistryEventKind
REGISTRY_EVENT_KIND_VERSION_TAG_DELETED: RegistryEventKind
REGISTRY_EVENT_KIND_STAGE_CHANGED: RegistryEventKind
REGISTRY_EVENT_KIND_ALIAS_SET: RegistryEventKind
REGISTRY_EVENT_KIND_ALIAS_DELETED: RegistryEventKind
REGISTRY_EVENT_KIND_POLICY_SET: RegistryEventKind
REGISTRY_EVENT_KIND_POLICY_DELETED: RegistryEventKind
REGISTRY_EVENT_KIND_PROMOTION_REQUESTED: RegistryEventKind
REGISTRY_EVENT_KIND_PROMOTION_APPROVED: RegistryEventKind
REGISTRY_EVENT_KIND_PROMOTION_REJECTED: RegistryEventKind
REGISTRY_EVENT_KIND_PROMOTED: RegistryEventKind
REGISTRY_EVENT_KIND_SOURCE_DELETED: RegistryEventKind

class ModelAlias(_message.Message):
    __slots__ = ("alias", "version")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    alias: str
    version: int
    def __init__(self, alias: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class RegisteredModel(_message.Message):
    __slots__ = ("name", "description", "create_time_ms", "update_time_ms", "created_by", "tags", "aliases", "latest_versions", "policies", "last_version")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    LATEST_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    LAST_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    create_time_ms: int
    update_time_ms: int
    created_by: str
    tags: _containers.ScalarMap[str, str]
    aliases: _containers.RepeatedCompositeFieldContainer[ModelAlias]
    latest_versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    policies: _containers.RepeatedCompositeFieldContainer[PromotionPolicy]
    last_version: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., create_time_ms: _Optional[int] = ..., update_time_ms: _Optional[int] = ..., created_by: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., aliases: _Optional[_Iterable[_Union[ModelAlias, _Mapping]]] = ..., latest_versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., policies: _Optional[_Iterable[_Union[PromotionPolicy, _Mapping]]] = ..., last_version: _Optional[int] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("name", "version", "run_id", "source", "path", "status", "status_message", "stage", "description", "create_time_ms", "update_time_ms", "created_by", "tags", "aliases", "source_problem", "given_source", "logged_model_id", "run_link")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATUS_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    GIVEN_SOURCE_FIELD_NUMBER: _ClassVar[int]
    LOGGED_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_LINK_FIELD_NUMBER: _ClassVar[int]
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
    tags: _containers.ScalarMap[str, str]
    aliases: _containers.RepeatedScalarFieldContainer[str]
    source_problem: str
    given_source: str
    logged_model_id: str
    run_link: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., run_id: _Optional[str] = ..., source: _Optional[str] = ..., path: _Optional[str] = ..., status: _Optional[_Union[ModelVersionStatus, str]] = ..., status_message: _Optional[str] = ..., stage: _Optional[_Union[ModelStage, str]] = ..., description: _Optional[str] = ..., create_time_ms: _Optional[int] = ..., update_time_ms: _Optional[int] = ..., created_by: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., aliases: _Optional[_Iterable[str]] = ..., source_problem: _Optional[str] = ..., given_source: _Optional[str] = ..., logged_model_id: _Optional[str] = ..., run_link: _Optional[str] = ...) -> None: ...

class PromotionTarget(_message.Message):
    __slots__ = ("alias", "stage")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    alias: str
    stage: ModelStage
    def __init__(self, alias: _Optional[str] = ..., stage: _Optional[_Union[ModelStage, str]] = ...) -> None: ...

class PromotionPolicy(_message.Message):
    __slots__ = ("target", "gates", "approvals")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    target: PromotionTarget
    gates: _containers.RepeatedScalarFieldContainer[str]
    approvals: int
    def __init__(self, target: _Optional[_Union[PromotionTarget, _Mapping]] = ..., gates: _Optional[_Iterable[str]] = ..., approvals: _Optional[int] = ...) -> None: ...

class GateResult(_message.Message):
    __slots__ = ("gate", "passed", "values", "reason", "stored")
    GATE_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    gate: str
    passed: bool
    values: _containers.RepeatedCompositeFieldContainer[GateValue]
    reason: str
    stored: bool
    def __init__(self, gate: _Optional[str] = ..., passed: bool = ..., values: _Optional[_Iterable[_Union[GateValue, _Mapping]]] = ..., reason: _Optional[str] = ..., stored: bool = ...) -> None: ...

class GateValue(_message.Message):
    __slots__ = ("field", "value", "version")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    field: str
    value: str
    version: int
    def __init__(self, field: _Optional[str] = ..., value: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class Promotion(_message.Message):
    __slots__ = ("promotion_id", "name", "version", "target", "gates", "state", "requested_by", "comment", "create_time_ms", "settle_time_ms", "approvals_needed", "verdicts", "archive_others")
    PROMOTION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SETTLE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_OTHERS_FIELD_NUMBER: _ClassVar[int]
    promotion_id: int
    name: str
    version: int
    target: PromotionTarget
    gates: _containers.RepeatedScalarFieldContainer[str]
    state: PromotionState
    requested_by: str
    comment: str
    create_time_ms: int
    settle_time_ms: int
    approvals_needed: int
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    archive_others: bool
    def __init__(self, promotion_id: _Optional[int] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., target: _Optional[_Union[PromotionTarget, _Mapping]] = ..., gates: _Optional[_Iterable[str]] = ..., state: _Optional[_Union[PromotionState, str]] = ..., requested_by: _Optional[str] = ..., comment: _Optional[str] = ..., create_time_ms: _Optional[int] = ..., settle_time_ms: _Optional[int] = ..., approvals_needed: _Optional[int] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., archive_others: bool = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("by", "approved", "comment", "time_ms")
    BY_FIELD_NUMBER: _ClassVar[int]
    APPROVED_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    by: str
    approved: bool
    comment: str
    time_ms: int
    def __init__(self, by: _Optional[str] = ..., approved: bool = ..., comment: _Optional[str] = ..., time_ms: _Optional[int] = ...) -> None: ...

class RegistryEvent(_message.Message):
    __slots__ = ("event_id", "kind", "name", "version", "key", "before", "after", "by", "time_ms", "request_id")
    class BeforeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AfterEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    event_id: int
    kind: RegistryEventKind
    name: str
    version: int
    key: str
    before: _containers.ScalarMap[str, str]
    after: _containers.ScalarMap[str, str]
    by: str
    time_ms: int
    request_id: str
    def __init__(self, event_id: _Optional[int] = ..., kind: _Optional[_Union[RegistryEventKind, str]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., key: _Optional[str] = ..., before: _Optional[_Mapping[str, str]] = ..., after: _Optional[_Mapping[str, str]] = ..., by: _Optional[str] = ..., time_ms: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateRegisteredModelRequest(_message.Message):
    __slots__ = ("name", "description", "tags", "request_id")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    tags: _containers.ScalarMap[str, str]
    request_id: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateRegisteredModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: RegisteredModel
    def __init__(self, model: _Optional[_Union[RegisteredModel, _Mapping]] = ...) -> None: ...

class GetRegisteredModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetRegisteredModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: RegisteredModel
    def __init__(self, model: _Optional[_Union[RegisteredModel, _Mapping]] = ...) -> None: ...

class SearchRegisteredModelsRequest(_message.Message):
    __slots__ = ("filter", "order_by", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: str
    order_by: _containers.RepeatedScalarFieldContainer[str]
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[str] = ..., order_by: _Optional[_Iterable[str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class SearchRegisteredModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[RegisteredModel]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[RegisteredModel, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateRegisteredModelRequest(_message.Message):
    __slots__ = ("name", "new_name", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    new_name: str
    description: str
    def __init__(self, name: _Optional[str] = ..., new_name: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class UpdateRegisteredModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: RegisteredModel
    def __init__(self, model: _Optional[_Union[RegisteredModel, _Mapping]] = ...) -> None: ...

class DeleteRegisteredModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteRegisteredModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetRegisteredModelTagsRequest(_message.Message):
    __slots__ = ("name", "tags")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    tags: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SetRegisteredModelTagsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteRegisteredModelTagsRequest(_message.Message):
    __slots__ = ("name", "keys")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    name: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteRegisteredModelTagsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateModelVersionRequest(_message.Message):
    __slots__ = ("name", "run_id", "path", "source", "status", "description", "tags", "request_id", "create_model")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_MODEL_FIELD_NUMBER: _ClassVar[int]
    name: str
    run_id: str
    path: str
    source: str
    status: ModelVersionStatus
    description: str
    tags: _containers.ScalarMap[str, str]
    request_id: str
    create_model: bool
    def __init__(self, name: _Optional[str] = ..., run_id: _Optional[str] = ..., path: _Optional[str] = ..., source: _Optional[str] = ..., status: _Optional[_Union[ModelVersionStatus, str]] = ..., description: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., request_id: _Optional[str] = ..., create_model: bool = ...) -> None: ...

class CreateModelVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ...) -> None: ...

class GetModelVersionRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetModelVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ...) -> None: ...

class ResolveModelVersionRequest(_message.Message):
    __slots__ = ("ref",)
    REF_FIELD_NUMBER: _ClassVar[int]
    ref: str
    def __init__(self, ref: _Optional[str] = ...) -> None: ...

class ResolveModelVersionResponse(_message.Message):
    __slots__ = ("version", "download_uri")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_URI_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    download_uri: str
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ..., download_uri: _Optional[str] = ...) -> None: ...

class GetLatestVersionsRequest(_message.Message):
    __slots__ = ("name", "stages")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    stages: _containers.RepeatedScalarFieldContainer[ModelStage]
    def __init__(self, name: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[ModelStage, str]]] = ...) -> None: ...

class GetLatestVersionsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    def __init__(self, versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ...) -> None: ...

class SearchModelVersionsRequest(_message.Message):
    __slots__ = ("filter", "order_by", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: str
    order_by: _containers.RepeatedScalarFieldContainer[str]
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[str] = ..., order_by: _Optional[_Iterable[str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class SearchModelVersionsResponse(_message.Message):
    __slots__ = ("versions", "next_page_token")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    next_page_token: str
    def __init__(self, versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateModelVersionRequest(_message.Message):
    __slots__ = ("name", "version", "description", "status", "status_message")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATUS_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    description: str
    status: ModelVersionStatus
    status_message: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., description: _Optional[str] = ..., status: _Optional[_Union[ModelVersionStatus, str]] = ..., status_message: _Optional[str] = ...) -> None: ...

class UpdateModelVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ...) -> None: ...

class DeleteModelVersionRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DeleteModelVersionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetModelVersionTagsRequest(_message.Message):
    __slots__ = ("name", "version", "tags")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    tags: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., tags: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SetModelVersionTagsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteModelVersionTagsRequest(_message.Message):
    __slots__ = ("name", "version", "keys")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteModelVersionTagsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TransitionStageRequest(_message.Message):
    __slots__ = ("name", "version", "stage", "archive_others")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_OTHERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    stage: ModelStage
    archive_others: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., stage: _Optional[_Union[ModelStage, str]] = ..., archive_others: bool = ...) -> None: ...

class TransitionStageResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: ModelVersion
    def __init__(self, version: _Optional[_Union[ModelVersion, _Mapping]] = ...) -> None: ...

class SetAliasRequest(_message.Message):
    __slots__ = ("name", "alias", "version", "expected")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    name: str
    alias: str
    version: int
    expected: int
    def __init__(self, name: _Optional[str] = ..., alias: _Optional[str] = ..., version: _Optional[int] = ..., expected: _Optional[int] = ...) -> None: ...

class SetAliasResponse(_message.Message):
    __slots__ = ("previous",)
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    previous: int
    def __init__(self, previous: _Optional[int] = ...) -> None: ...

class DeleteAliasRequest(_message.Message):
    __slots__ = ("name", "alias", "expected")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    name: str
    alias: str
    expected: int
    def __init__(self, name: _Optional[str] = ..., alias: _Optional[str] = ..., expected: _Optional[int] = ...) -> None: ...

class DeleteAliasResponse(_message.Message):
    __slots__ = ("previous",)
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    previous: int
    def __init__(self, previous: _Optional[int] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("name", "version", "target", "gates", "expected", "archive_others", "dry_run")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_OTHERS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    target: PromotionTarget
    gates: _containers.RepeatedScalarFieldContainer[str]
    expected: int
    archive_others: bool
    dry_run: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., target: _Optional[_Union[PromotionTarget, _Mapping]] = ..., gates: _Optional[_Iterable[str]] = ..., expected: _Optional[int] = ..., archive_others: bool = ..., dry_run: bool = ...) -> None: ...

class PromoteResponse(_message.Message):
    __slots__ = ("promoted", "gates", "version", "previous")
    PROMOTED_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    promoted: bool
    gates: _containers.RepeatedCompositeFieldContainer[GateResult]
    version: ModelVersion
    previous: int
    def __init__(self, promoted: bool = ..., gates: _Optional[_Iterable[_Union[GateResult, _Mapping]]] = ..., version: _Optional[_Union[ModelVersion, _Mapping]] = ..., previous: _Optional[int] = ...) -> None: ...

class SetPromotionPolicyRequest(_message.Message):
    __slots__ = ("name", "policy")
    NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    name: str
    policy: PromotionPolicy
    def __init__(self, name: _Optional[str] = ..., policy: _Optional[_Union[PromotionPolicy, _Mapping]] = ...) -> None: ...

class SetPromotionPolicyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeletePromotionPolicyRequest(_message.Message):
    __slots__ = ("name", "target")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    name: str
    target: PromotionTarget
    def __init__(self, name: _Optional[str] = ..., target: _Optional[_Union[PromotionTarget, _Mapping]] = ...) -> None: ...

class DeletePromotionPolicyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestPromotionRequest(_message.Message):
    __slots__ = ("name", "version", "target", "gates", "comment", "archive_others")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_OTHERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    target: PromotionTarget
    gates: _containers.RepeatedScalarFieldContainer[str]
    comment: str
    archive_others: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., target: _Optional[_Union[PromotionTarget, _Mapping]] = ..., gates: _Optional[_Iterable[str]] = ..., comment: _Optional[str] = ..., archive_others: bool = ...) -> None: ...

class RequestPromotionResponse(_message.Message):
    __slots__ = ("promotion", "gates")
    PROMOTION_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    promotion: Promotion
    gates: _containers.RepeatedCompositeFieldContainer[GateResult]
    def __init__(self, promotion: _Optional[_Union[Promotion, _Mapping]] = ..., gates: _Optional[_Iterable[_Union[GateResult, _Mapping]]] = ...) -> None: ...

class ApproveRequest(_message.Message):
    __slots__ = ("name", "promotion_id", "comment")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROMOTION_ID_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    promotion_id: int
    comment: str
    def __init__(self, name: _Optional[str] = ..., promotion_id: _Optional[int] = ..., comment: _Optional[str] = ...) -> None: ...

class ApproveResponse(_message.Message):
    __slots__ = ("promotion", "gates")
    PROMOTION_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    promotion: Promotion
    gates: _containers.RepeatedCompositeFieldContainer[GateResult]
    def __init__(self, promotion: _Optional[_Union[Promotion, _Mapping]] = ..., gates: _Optional[_Iterable[_Union[GateResult, _Mapping]]] = ...) -> None: ...

class RejectRequest(_message.Message):
    __slots__ = ("name", "promotion_id", "comment")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROMOTION_ID_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    promotion_id: int
    comment: str
    def __init__(self, name: _Optional[str] = ..., promotion_id: _Optional[int] = ..., comment: _Optional[str] = ...) -> None: ...

class RejectResponse(_message.Message):
    __slots__ = ("promotion",)
    PROMOTION_FIELD_NUMBER: _ClassVar[int]
    promotion: Promotion
    def __init__(self, promotion: _Optional[_Union[Promotion, _Mapping]] = ...) -> None: ...

class ListPromotionsRequest(_message.Message):
    __slots__ = ("name", "state", "page_size", "page_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: PromotionState
    page_size: int
    page_token: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[PromotionState, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPromotionsResponse(_message.Message):
    __slots__ = ("promotions", "next_page_token")
    PROMOTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    promotions: _containers.RepeatedCompositeFieldContainer[Promotion]
    next_page_token: str
    def __init__(self, promotions: _Optional[_Iterable[_Union[Promotion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("name", "version", "kinds", "key", "oldest_first", "page_size", "page_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    OLDEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    kinds: _containers.RepeatedScalarFieldContainer[RegistryEventKind]
    key: str
    oldest_first: bool
    page_size: int
    page_token: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., kinds: _Optional[_Iterable[_Union[RegistryEventKind, str]]] = ..., key: _Optional[str] = ..., oldest_first: bool = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("events", "next_page_token")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[RegistryEvent]
    next_page_token: str
    def __init__(self, events: _Optional[_Iterable[_Union[RegistryEvent, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchRegistryRequest(_message.Message):
    __slots__ = ("names", "kinds", "keys", "after_event_id")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    AFTER_EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedScalarFieldContainer[RegistryEventKind]
    keys: _containers.RepeatedScalarFieldContainer[str]
    after_event_id: int
    def __init__(self, names: _Optional[_Iterable[str]] = ..., kinds: _Optional[_Iterable[_Union[RegistryEventKind, str]]] = ..., keys: _Optional[_Iterable[str]] = ..., after_event_id: _Optional[int] = ...) -> None: ...

class WatchRegistryResponse(_message.Message):
    __slots__ = ("event", "synced_event_id")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    SYNCED_EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    event: RegistryEvent
    synced_event_id: int
    def __init__(self, event: _Optional[_Union[RegistryEvent, _Mapping]] = ..., synced_event_id: _Optional[int] = ...) -> None: ...
