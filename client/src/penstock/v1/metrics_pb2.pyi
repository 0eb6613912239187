from penstock.v1 import access_pb2 as _access_pb2
from penstock.v1 import runs_pb2 as _runs_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StreamMetricsRequest(_message.Message):
    __slots__ = ("hello", "batch", "finish")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    batch: Batch
    finish: Finish
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "run_id", "create_run", "writer_id", "epoch", "last_acked", "last_spooled", "attributes", "refused", "resume")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_RUN_FIELD_NUMBER: _ClassVar[int]
    WRITER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_ACKED_FIELD_NUMBER: _ClassVar[int]
    LAST_SPOOLED_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_id: str
    create_run: _runs_pb2.CreateRunRequest
    writer_id: bytes
    epoch: int
    last_acked: int
    last_spooled: int
    attributes: WriterAttributes
    refused: int
    resume: bool
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., create_run: _Optional[_Union[_runs_pb2.CreateRunRequest, _Mapping]] = ..., writer_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., last_acked: _Optional[int] = ..., last_spooled: _Optional[int] = ..., attributes: _Optional[_Union[WriterAttributes, _Mapping]] = ..., refused: _Optional[int] = ..., resume: bool = ...) -> None: ...

class WriterAttributes(_message.Message):
    __slots__ = ("rank", "world_size", "host", "pid")
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    rank: int
    world_size: int
    host: str
    pid: int
    def __init__(self, rank: _Optional[int] = ..., world_size: _Optional[int] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class Shape(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("first_seq", "count", "new_shapes", "shapes", "steps", "times_ms", "values", "updates", "lost")
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    NEW_SHAPES_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TIMES_MS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    first_seq: int
    count: int
    new_shapes: _containers.RepeatedCompositeFieldContainer[Shape]
    shapes: _containers.RepeatedScalarFieldContainer[int]
    steps: _containers.RepeatedScalarFieldContainer[int]
    times_ms: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    updates: _containers.RepeatedCompositeFieldContainer[RunUpdate]
    lost: bool
    def __init__(self, first_seq: _Optional[int] = ..., count: _Optional[int] = ..., new_shapes: _Optional[_Iterable[_Union[Shape, _Mapping]]] = ..., shapes: _Optional[_Iterable[int]] = ..., steps: _Optional[_Iterable[int]] = ..., times_ms: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., updates: _Optional[_Iterable[_Union[RunUpdate, _Mapping]]] = ..., lost: bool = ...) -> None: ...

class RunUpdate(_message.Message):
    __slots__ = ("param", "tag")
    PARAM_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    param: KeyValue
    tag: KeyValue
    def __init__(self, param: _Optional[_Union[KeyValue, _Mapping]] = ..., tag: _Optional[_Union[KeyValue, _Mapping]] = ...) -> None: ...

class KeyValue(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ("last_seq", "status", "end_time_ms", "refused")
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    END_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    last_seq: int
    status: _runs_pb2.RunStatus
    end_time_ms: int
    refused: int
    def __init__(self, last_seq: _Optional[int] = ..., status: _Optional[_Union[_runs_pb2.RunStatus, str]] = ..., end_time_ms: _Optional[int] = ..., refused: _Optional[int] = ...) -> None: ...

class StreamMetricsResponse(_message.Message):
    __slots__ = ("welcome", "ack", "reject", "throttle", "go_away", "finish_ack")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    FINISH_ACK_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    ack: Ack
    reject: Reject
    throttle: Throttle
    go_away: GoAway
    finish_ack: FinishAck
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., throttle: _Optional[_Union[Throttle, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ..., finish_ack: _Optional[_Union[FinishAck, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("hwm", "window_bytes", "max_message_bytes")
    HWM_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    hwm: int
    window_bytes: int
    max_message_bytes: int
    def __init__(self, hwm: _Optional[int] = ..., window_bytes: _Optional[int] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("hwm",)
    HWM_FIELD_NUMBER: _ClassVar[int]
    hwm: int
    def __init__(self, hwm: _Optional[int] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("first_seq", "last_seq", "code", "reason")
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    first_seq: int
    last_seq: int
    code: int
    reason: str
    def __init__(self, first_seq: _Optional[int] = ..., last_seq: _Optional[int] = ..., code: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Throttle(_message.Message):
    __slots__ = ("retry_after_ms",)
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    retry_after_ms: int
    def __init__(self, retry_after_ms: _Optional[int] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class FinishAck(_message.Message):
    __slots__ = ("hwm",)
    HWM_FIELD_NUMBER: _ClassVar[int]
    hwm: int
    def __init__(self, hwm: _Optional[int] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value", "step", "time_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    step: int
    time_ms: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., step: _Optional[int] = ..., time_ms: _Optional[int] = ...) -> None: ...

class LogBatchRequest(_message.Message):
    __slots__ = ("run_id", "metrics", "params", "tags", "request_id")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    params: _containers.ScalarMap[str, str]
    tags: _containers.ScalarMap[str, str]
    request_id: str
    def __init__(self, run_id: _Optional[str] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., params: _Optional[_Mapping[str, str]] = ..., tags: _Optional[_Mapping[str, str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class LogBatchResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MetricPoints(_message.Message):
    __slots__ = ("steps", "times_ms", "values")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TIMES_MS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedScalarFieldContainer[int]
    times_ms: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, steps: _Optional[_Iterable[int]] = ..., times_ms: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class GetMetricHistoryRequest(_message.Message):
    __slots__ = ("run_id", "name", "start_step", "end_step", "page_size", "page_token")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_STEP_FIELD_NUMBER: _ClassVar[int]
    END_STEP_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    name: str
    start_step: int
    end_step: int
    page_size: int
    page_token: str
    def __init__(self, run_id: _Optional[str] = ..., name: _Optional[str] = ..., start_step: _Optional[int] = ..., end_step: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetMetricHistoryResponse(_message.Message):
    __slots__ = ("points", "next_page_token")
    POINTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    points: MetricPoints
    next_page_token: str
    def __init__(self, points: _Optional[_Union[MetricPoints, _Mapping]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class StreamMetricHistoryRequest(_message.Message):
    __slots__ = ("run_id", "names", "start_step", "end_step")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    START_STEP_FIELD_NUMBER: _ClassVar[int]
    END_STEP_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    names: _containers.RepeatedScalarFieldContainer[str]
    start_step: int
    end_step: int
    def __init__(self, run_id: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., start_step: _Optional[int] = ..., end_step: _Optional[int] = ...) -> None: ...

class StreamMetricHistoryResponse(_message.Message):
    __slots__ = ("name", "points")
    NAME_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    points: MetricPoints
    def __init__(self, name: _Optional[str] = ..., points: _Optional[_Union[MetricPoints, _Mapping]] = ...) -> None: ...

class GetMetricSeriesRequest(_message.Message):
    __slots__ = ("run_ids", "names", "start_step", "end_step", "width")
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    START_STEP_FIELD_NUMBER: _ClassVar[int]
    END_STEP_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    names: _containers.RepeatedScalarFieldContainer[str]
    start_step: int
    end_step: int
    width: int
    def __init__(self, run_ids: _Optional[_Iterable[str]] = ..., names: _Optional[_Iterable[str]] = ..., start_step: _Optional[int] = ..., end_step: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class MetricSeries(_message.Message):
    __slots__ = ("run_id", "name", "first_steps", "last_steps", "counts", "mins", "maxs", "means")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEPS_FIELD_NUMBER: _ClassVar[int]
    LAST_STEPS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    MINS_FIELD_NUMBER: _ClassVar[int]
    MAXS_FIELD_NUMBER: _ClassVar[int]
    MEANS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    name: str
    first_steps: _containers.RepeatedScalarFieldContainer[int]
    last_steps: _containers.RepeatedScalarFieldContainer[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    mins: _containers.RepeatedScalarFieldContainer[float]
    maxs: _containers.RepeatedScalarFieldContainer[float]
    means: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, run_id: _Optional[str] = ..., name: _Optional[str] = ..., first_steps: _Optional[_Iterable[int]] = ..., last_steps: _Optional[_Iterable[int]] = ..., counts: _Optional[_Iterable[int]] = ..., mins: _Optional[_Iterable[float]] = ..., maxs: _Optional[_Iterable[float]] = ..., means: _Optional[_Iterable[float]] = ...) -> None: ...

class GetMetricSeriesResponse(_message.Message):
    __slots__ = ("series",)
    SERIES_FIELD_NUMBER: _ClassVar[int]
    series: _containers.RepeatedCompositeFieldContainer[MetricSeries]
    def __init__(self, series: _Optional[_Iterable[_Union[MetricSeries, _Mapping]]] = ...) -> None: ...

class GetMetricSummariesRequest(_message.Message):
    __slots__ = ("run_ids", "names")
    RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    run_ids: _containers.RepeatedScalarFieldContainer[str]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run_ids: _Optional[_Iterable[str]] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class RunMetrics(_message.Message):
    __slots__ = ("run_id", "metrics")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    metrics: _containers.RepeatedCompositeFieldContainer[_runs_pb2.MetricSummary]
    def __init__(self, run_id: _Optional[str] = ..., metrics: _Optional[_Iterable[_Union[_runs_pb2.MetricSummary, _Mapping]]] = ...) -> None: ...

class GetMetricSummariesResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[RunMetrics]
    def __init__(self, runs: _Optional[_Iterable[_Union[RunMetrics, _Mapping]]] = ...) -> None: ...
