from qkscope.v1 import spec_pb2 as _spec_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

BATCH: Priority
DESCRIPTOR: _descriptor.FileDescriptor
INTERACTIVE: Priority
PRIORITY_UNSPECIFIED: Priority

class Accepted(_message.Message):
    __slots__ = ["queue_position", "request_id"]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    queue_position: int
    request_id: str
    def __init__(self, request_id: _Optional[str] = ..., queue_position: _Optional[int] = ...) -> None: ...

class Aggregate(_message.Message):
    __slots__ = ["entries"]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[AggregateEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[AggregateEntry, _Mapping]]] = ...) -> None: ...

class AggregateEntry(_message.Message):
    __slots__ = ["arm", "count", "group_size", "layer", "low_frequency_share", "massive_count", "max", "mean", "non_finite_count", "phase", "point", "ratio", "shape", "stage", "variance", "vision"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    LOW_FREQUENCY_SHARE_FIELD_NUMBER: _ClassVar[int]
    MASSIVE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    NON_FINITE_COUNT_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_FIELD_NUMBER: _ClassVar[int]
    VISION_FIELD_NUMBER: _ClassVar[int]
    arm: str
    count: int
    group_size: int
    layer: int
    low_frequency_share: Moments
    massive_count: Moments
    max: Moments
    mean: bytes
    non_finite_count: int
    phase: _spec_pb2.Phase
    point: _spec_pb2.HookPoint
    ratio: Moments
    shape: _containers.RepeatedScalarFieldContainer[int]
    stage: _spec_pb2.Stage
    variance: bytes
    vision: bool
    def __init__(self, arm: _Optional[str] = ..., phase: _Optional[_Union[_spec_pb2.Phase, str]] = ..., layer: _Optional[int] = ..., point: _Optional[_Union[_spec_pb2.HookPoint, str]] = ..., stage: _Optional[_Union[_spec_pb2.Stage, str]] = ..., count: _Optional[int] = ..., shape: _Optional[_Iterable[int]] = ..., mean: _Optional[bytes] = ..., variance: _Optional[bytes] = ..., massive_count: _Optional[_Union[Moments, _Mapping]] = ..., ratio: _Optional[_Union[Moments, _Mapping]] = ..., max: _Optional[_Union[Moments, _Mapping]] = ..., low_frequency_share: _Optional[_Union[Moments, _Mapping]] = ..., vision: bool = ..., group_size: _Optional[int] = ..., non_finite_count: _Optional[int] = ...) -> None: ...

class AnalyzeEvent(_message.Message):
    __slots__ = ["accepted", "applied", "comparison", "finished", "layer", "logits", "seq", "started", "token"]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    applied: Applied
    comparison: Comparison
    finished: Finished
    layer: Layer
    logits: Logits
    seq: int
    started: Started
    token: Token
    def __init__(self, seq: _Optional[int] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., layer: _Optional[_Union[Layer, _Mapping]] = ..., applied: _Optional[_Union[Applied, _Mapping]] = ..., token: _Optional[_Union[Token, _Mapping]] = ..., comparison: _Optional[_Union[Comparison, _Mapping]] = ..., logits: _Optional[_Union[Logits, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ...) -> None: ...

class AnalyzeManyEvent(_message.Message):
    __slots__ = ["aggregate", "error", "finished", "prompt"]
    AGGREGATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    aggregate: Aggregate
    error: ManyPromptError
    finished: ManyFinished
    prompt: ManyPromptEvent
    def __init__(self, prompt: _Optional[_Union[ManyPromptEvent, _Mapping]] = ..., error: _Optional[_Union[ManyPromptError, _Mapping]] = ..., aggregate: _Optional[_Union[Aggregate, _Mapping]] = ..., finished: _Optional[_Union[ManyFinished, _Mapping]] = ...) -> None: ...

class AnalyzeManyPrompt(_message.Message):
    __slots__ = ["id", "input"]
    ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    id: str
    input: _spec_pb2.Input
    def __init__(self, id: _Optional[str] = ..., input: _Optional[_Union[_spec_pb2.Input, _Mapping]] = ...) -> None: ...

class AnalyzeManyRequest(_message.Message):
    __slots__ = ["prompt", "spec"]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    prompt: AnalyzeManyPrompt
    spec: AnalyzeManySpec
    def __init__(self, spec: _Optional[_Union[AnalyzeManySpec, _Mapping]] = ..., prompt: _Optional[_Union[AnalyzeManyPrompt, _Mapping]] = ...) -> None: ...

class AnalyzeManySpec(_message.Message):
    __slots__ = ["aggregate", "request", "save_baseline"]
    AGGREGATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SAVE_BASELINE_FIELD_NUMBER: _ClassVar[int]
    aggregate: bool
    request: AnalyzeRequest
    save_baseline: bool
    def __init__(self, request: _Optional[_Union[AnalyzeRequest, _Mapping]] = ..., aggregate: bool = ..., save_baseline: bool = ...) -> None: ...

class AnalyzeRequest(_message.Message):
    __slots__ = ["arms", "capture", "client_tag", "compare", "detach", "generate", "input", "logits", "model", "priority", "resumable", "statistics", "strict"]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_TAG_FIELD_NUMBER: _ClassVar[int]
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    GENERATE_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    arms: _containers.RepeatedCompositeFieldContainer[_spec_pb2.Arm]
    capture: _spec_pb2.Capture
    client_tag: str
    compare: _spec_pb2.Compare
    detach: bool
    generate: _spec_pb2.GenerateSpec
    input: _spec_pb2.Input
    logits: _spec_pb2.LogitsSpec
    model: str
    priority: Priority
    resumable: bool
    statistics: _spec_pb2.StatisticsSpec
    strict: bool
    def __init__(self, model: _Optional[str] = ..., input: _Optional[_Union[_spec_pb2.Input, _Mapping]] = ..., arms: _Optional[_Iterable[_Union[_spec_pb2.Arm, _Mapping]]] = ..., generate: _Optional[_Union[_spec_pb2.GenerateSpec, _Mapping]] = ..., capture: _Optional[_Union[_spec_pb2.Capture, _Mapping]] = ..., statistics: _Optional[_Union[_spec_pb2.StatisticsSpec, _Mapping]] = ..., compare: _Optional[_Union[_spec_pb2.Compare, _Mapping]] = ..., logits: _Optional[_Union[_spec_pb2.LogitsSpec, _Mapping]] = ..., client_tag: _Optional[str] = ..., strict: bool = ..., priority: _Optional[_Union[Priority, str]] = ..., detach: bool = ..., resumable: bool = ...) -> None: ...

class Applied(_message.Message):
    __slots__ = ["arm", "chosen", "image", "layer", "phase", "replaced", "rule", "step", "tensor"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    arm: str
    chosen: _containers.RepeatedCompositeFieldContainer[AppliedDims]
    image: int
    layer: int
    phase: _spec_pb2.Phase
    replaced: int
    rule: int
    step: int
    tensor: _spec_pb2.QkvTensor
    def __init__(self, arm: _Optional[str] = ..., rule: _Optional[int] = ..., layer: _Optional[int] = ..., tensor: _Optional[_Union[_spec_pb2.QkvTensor, str]] = ..., phase: _Optional[_Union[_spec_pb2.Phase, str]] = ..., step: _Optional[int] = ..., chosen: _Optional[_Iterable[_Union[AppliedDims, _Mapping]]] = ..., replaced: _Optional[int] = ..., image: _Optional[int] = ...) -> None: ...

class AppliedDims(_message.Message):
    __slots__ = ["dims", "index", "values"]
    DIMS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    dims: _containers.RepeatedScalarFieldContainer[int]
    index: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, index: _Optional[int] = ..., dims: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class ArmSummary(_message.Message):
    __slots__ = ["arm", "generated_text", "generated_tokens", "non_finite", "stop_reason"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TEXT_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NON_FINITE_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    arm: str
    generated_text: bytes
    generated_tokens: int
    non_finite: NonFinite
    stop_reason: str
    def __init__(self, arm: _Optional[str] = ..., generated_tokens: _Optional[int] = ..., generated_text: _Optional[bytes] = ..., stop_reason: _Optional[str] = ..., non_finite: _Optional[_Union[NonFinite, _Mapping]] = ...) -> None: ...

class BackendInfo(_message.Message):
    __slots__ = ["device", "kernel_ids", "name", "passed_over", "threads"]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_IDS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSED_OVER_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    device: str
    kernel_ids: _containers.RepeatedScalarFieldContainer[str]
    name: str
    passed_over: str
    threads: int
    def __init__(self, name: _Optional[str] = ..., device: _Optional[str] = ..., threads: _Optional[int] = ..., kernel_ids: _Optional[_Iterable[str]] = ..., passed_over: _Optional[str] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ["request_id"]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class CancelResponse(_message.Message):
    __slots__ = ["was_running"]
    WAS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    was_running: bool
    def __init__(self, was_running: bool = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ["arm", "baseline", "kl", "mean_kl", "mean_logprob", "non_finite", "token_logprob", "top1_flip", "top1_flips", "top1_id"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    KL_FIELD_NUMBER: _ClassVar[int]
    MEAN_KL_FIELD_NUMBER: _ClassVar[int]
    MEAN_LOGPROB_FIELD_NUMBER: _ClassVar[int]
    NON_FINITE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP1_FLIPS_FIELD_NUMBER: _ClassVar[int]
    TOP1_FLIP_FIELD_NUMBER: _ClassVar[int]
    TOP1_ID_FIELD_NUMBER: _ClassVar[int]
    arm: str
    baseline: str
    kl: _containers.RepeatedScalarFieldContainer[float]
    mean_kl: float
    mean_logprob: float
    non_finite: int
    token_logprob: _containers.RepeatedScalarFieldContainer[float]
    top1_flip: _containers.RepeatedScalarFieldContainer[bool]
    top1_flips: int
    top1_id: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, arm: _Optional[str] = ..., baseline: _Optional[str] = ..., kl: _Optional[_Iterable[float]] = ..., top1_flip: _Optional[_Iterable[bool]] = ..., token_logprob: _Optional[_Iterable[float]] = ..., mean_kl: _Optional[float] = ..., top1_flips: _Optional[int] = ..., mean_logprob: _Optional[float] = ..., top1_id: _Optional[_Iterable[int]] = ..., non_finite: _Optional[int] = ...) -> None: ...

class DetokenizeRequest(_message.Message):
    __slots__ = ["keep_special", "model", "token_ids"]
    KEEP_SPECIAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    keep_special: bool
    model: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, model: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., keep_special: bool = ...) -> None: ...

class DetokenizeResponse(_message.Message):
    __slots__ = ["text"]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    def __init__(self, text: _Optional[bytes] = ...) -> None: ...

class EstimateResponse(_message.Message):
    __slots__ = ["estimate", "expanded"]
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    EXPANDED_FIELD_NUMBER: _ClassVar[int]
    estimate: Estimates
    expanded: AnalyzeRequest
    def __init__(self, estimate: _Optional[_Union[Estimates, _Mapping]] = ..., expanded: _Optional[_Union[AnalyzeRequest, _Mapping]] = ...) -> None: ...

class Estimates(_message.Message):
    __slots__ = ["expected_wait_ms", "peak_extra_bytes", "prompt_tokens", "queue_position", "streamed_bytes"]
    EXPECTED_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    PEAK_EXTRA_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    STREAMED_BYTES_FIELD_NUMBER: _ClassVar[int]
    expected_wait_ms: float
    peak_extra_bytes: int
    prompt_tokens: int
    queue_position: int
    streamed_bytes: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., streamed_bytes: _Optional[int] = ..., peak_extra_bytes: _Optional[int] = ..., queue_position: _Optional[int] = ..., expected_wait_ms: _Optional[float] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ["arms", "events", "manifest", "prompt_tokens", "streamed_bytes", "times"]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STREAMED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    arms: _containers.RepeatedCompositeFieldContainer[ArmSummary]
    events: int
    manifest: Manifest
    prompt_tokens: int
    streamed_bytes: int
    times: Times
    def __init__(self, events: _Optional[int] = ..., streamed_bytes: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., arms: _Optional[_Iterable[_Union[ArmSummary, _Mapping]]] = ..., times: _Optional[_Union[Times, _Mapping]] = ..., manifest: _Optional[_Union[Manifest, _Mapping]] = ...) -> None: ...

class GenerateEvent(_message.Message):
    __slots__ = ["finished", "token"]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    finished: GenerateFinished
    token: Token
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ..., finished: _Optional[_Union[GenerateFinished, _Mapping]] = ...) -> None: ...

class GenerateFinished(_message.Message):
    __slots__ = ["prompt_tokens", "summary", "times"]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    summary: ArmSummary
    times: Times
    def __init__(self, prompt_tokens: _Optional[int] = ..., summary: _Optional[_Union[ArmSummary, _Mapping]] = ..., times: _Optional[_Union[Times, _Mapping]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ["arm", "generate", "input", "model", "priority", "strict"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    GENERATE_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    arm: _spec_pb2.Arm
    generate: _spec_pb2.GenerateSpec
    input: _spec_pb2.Input
    model: str
    priority: Priority
    strict: bool
    def __init__(self, model: _Optional[str] = ..., input: _Optional[_Union[_spec_pb2.Input, _Mapping]] = ..., generate: _Optional[_Union[_spec_pb2.GenerateSpec, _Mapping]] = ..., arm: _Optional[_Union[_spec_pb2.Arm, _Mapping]] = ..., priority: _Optional[_Union[Priority, str]] = ..., strict: bool = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ["model"]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetResultRequest(_message.Message):
    __slots__ = ["from_seq", "request_id"]
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    from_seq: int
    request_id: str
    def __init__(self, request_id: _Optional[str] = ..., from_seq: _Optional[int] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ["all_users", "offset"]
    ALL_USERS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    all_users: bool
    offset: int
    def __init__(self, all_users: bool = ..., offset: _Optional[int] = ...) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ["next_offset", "users"]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    next_offset: int
    users: _containers.RepeatedCompositeFieldContainer[UserUsage]
    def __init__(self, users: _Optional[_Iterable[_Union[UserUsage, _Mapping]]] = ..., next_offset: _Optional[int] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ["arm", "crc32c", "data", "dtype", "form", "group_size", "heads", "image", "layer", "no_rope", "offset", "phase", "point", "positions", "shape", "stage", "statistics", "step", "total_bytes"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NO_ROPE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    arm: str
    crc32c: int
    data: bytes
    dtype: _spec_pb2.RawDtype
    form: _spec_pb2.CaptureForm
    group_size: int
    heads: _containers.RepeatedScalarFieldContainer[int]
    image: int
    layer: int
    no_rope: bool
    offset: int
    phase: _spec_pb2.Phase
    point: _spec_pb2.HookPoint
    positions: _containers.RepeatedScalarFieldContainer[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    stage: _spec_pb2.Stage
    statistics: Statistics
    step: int
    total_bytes: int
    def __init__(self, arm: _Optional[str] = ..., layer: _Optional[int] = ..., point: _Optional[_Union[_spec_pb2.HookPoint, str]] = ..., stage: _Optional[_Union[_spec_pb2.Stage, str]] = ..., phase: _Optional[_Union[_spec_pb2.Phase, str]] = ..., step: _Optional[int] = ..., positions: _Optional[_Iterable[int]] = ..., heads: _Optional[_Iterable[int]] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[_spec_pb2.RawDtype, str]] = ..., form: _Optional[_Union[_spec_pb2.CaptureForm, str]] = ..., data: _Optional[bytes] = ..., offset: _Optional[int] = ..., total_bytes: _Optional[int] = ..., crc32c: _Optional[int] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ..., no_rope: bool = ..., image: _Optional[int] = ..., group_size: _Optional[int] = ...) -> None: ...

class LayerInfo(_message.Message):
    __slots__ = ["head_dim", "kind", "num_heads", "num_kv_heads", "rope", "sliding_window"]
    HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    NUM_KV_HEADS_FIELD_NUMBER: _ClassVar[int]
    ROPE_FIELD_NUMBER: _ClassVar[int]
    SLIDING_WINDOW_FIELD_NUMBER: _ClassVar[int]
    head_dim: int
    kind: str
    num_heads: int
    num_kv_heads: int
    rope: int
    sliding_window: int
    def __init__(self, kind: _Optional[str] = ..., num_heads: _Optional[int] = ..., num_kv_heads: _Optional[int] = ..., head_dim: _Optional[int] = ..., sliding_window: _Optional[int] = ..., rope: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ["max_arms", "max_chunk_bytes", "max_deadline_ms", "max_list_entries", "max_many_prompts", "max_new_tokens", "max_queued_requests", "max_response_bytes", "max_rules_per_arm", "max_score_pairs", "max_stop_string_bytes", "max_stop_strings", "max_stop_token_ids", "max_text_bytes", "result_ttl_s"]
    MAX_ARMS_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_LIST_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    MAX_MANY_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RULES_PER_ARM_FIELD_NUMBER: _ClassVar[int]
    MAX_SCORE_PAIRS_FIELD_NUMBER: _ClassVar[int]
    MAX_STOP_STRINGS_FIELD_NUMBER: _ClassVar[int]
    MAX_STOP_STRING_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_TTL_S_FIELD_NUMBER: _ClassVar[int]
    max_arms: int
    max_chunk_bytes: int
    max_deadline_ms: int
    max_list_entries: int
    max_many_prompts: int
    max_new_tokens: int
    max_queued_requests: int
    max_response_bytes: int
    max_rules_per_arm: int
    max_score_pairs: int
    max_stop_string_bytes: int
    max_stop_strings: int
    max_stop_token_ids: int
    max_text_bytes: int
    result_ttl_s: int
    def __init__(self, max_text_bytes: _Optional[int] = ..., max_arms: _Optional[int] = ..., max_rules_per_arm: _Optional[int] = ..., max_list_entries: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., max_queued_requests: _Optional[int] = ..., max_response_bytes: _Optional[int] = ..., max_deadline_ms: _Optional[int] = ..., max_score_pairs: _Optional[int] = ..., max_chunk_bytes: _Optional[int] = ..., result_ttl_s: _Optional[int] = ..., max_stop_strings: _Optional[int] = ..., max_stop_string_bytes: _Optional[int] = ..., max_stop_token_ids: _Optional[int] = ..., max_many_prompts: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ["offset"]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    offset: int
    def __init__(self, offset: _Optional[int] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ["models", "next_offset"]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    next_offset: int
    def __init__(self, models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ..., next_offset: _Optional[int] = ...) -> None: ...

class ListRequestsRequest(_message.Message):
    __slots__ = ["all_users", "offset"]
    ALL_USERS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    all_users: bool
    offset: int
    def __init__(self, all_users: bool = ..., offset: _Optional[int] = ...) -> None: ...

class ListRequestsResponse(_message.Message):
    __slots__ = ["next_offset", "requests"]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    next_offset: int
    requests: _containers.RepeatedCompositeFieldContainer[ListedRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ListedRequest, _Mapping]]] = ..., next_offset: _Optional[int] = ...) -> None: ...

class ListedRequest(_message.Message):
    __slots__ = ["age_ms", "arms", "code", "device_ms", "events", "expires_in_ms", "method", "model", "priority", "prompt_tokens", "queue_position", "request_id", "state", "user"]
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_MS_FIELD_NUMBER: _ClassVar[int]
    FINISHED: ListedRequest.State
    METHOD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUEUED: ListedRequest.State
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RUNNING: ListedRequest.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_UNSPECIFIED: ListedRequest.State
    STREAMING: ListedRequest.State
    USER_FIELD_NUMBER: _ClassVar[int]
    age_ms: int
    arms: int
    code: int
    device_ms: float
    events: int
    expires_in_ms: int
    method: str
    model: str
    priority: Priority
    prompt_tokens: int
    queue_position: int
    request_id: str
    state: ListedRequest.State
    user: str
    def __init__(self, request_id: _Optional[str] = ..., user: _Optional[str] = ..., method: _Optional[str] = ..., model: _Optional[str] = ..., state: _Optional[_Union[ListedRequest.State, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., queue_position: _Optional[int] = ..., arms: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., age_ms: _Optional[int] = ..., device_ms: _Optional[float] = ..., events: _Optional[int] = ..., expires_in_ms: _Optional[int] = ..., code: _Optional[int] = ...) -> None: ...

class Logits(_message.Message):
    __slots__ = ["arm", "positions"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    arm: str
    positions: _containers.RepeatedCompositeFieldContainer[PositionLogits]
    def __init__(self, arm: _Optional[str] = ..., positions: _Optional[_Iterable[_Union[PositionLogits, _Mapping]]] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ["backend", "client_tag", "compute_type", "device", "digests", "expanded", "ignored_fields", "ignored_tensors", "kernel_ids", "library_versions", "model", "server_version", "token_ids", "tokenizer_sha256", "weights_sha256"]
    class LibraryVersionsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    CLIENT_TAG_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    EXPANDED_FIELD_NUMBER: _ClassVar[int]
    IGNORED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    IGNORED_TENSORS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_IDS_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_SHA256_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    backend: str
    client_tag: str
    compute_type: str
    device: str
    digests: _containers.RepeatedCompositeFieldContainer[PayloadDigest]
    expanded: AnalyzeRequest
    ignored_fields: _containers.RepeatedScalarFieldContainer[str]
    ignored_tensors: _containers.RepeatedScalarFieldContainer[str]
    kernel_ids: _containers.RepeatedScalarFieldContainer[str]
    library_versions: _containers.ScalarMap[str, str]
    model: str
    server_version: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    tokenizer_sha256: str
    weights_sha256: str
    def __init__(self, server_version: _Optional[str] = ..., model: _Optional[str] = ..., weights_sha256: _Optional[str] = ..., tokenizer_sha256: _Optional[str] = ..., compute_type: _Optional[str] = ..., backend: _Optional[str] = ..., kernel_ids: _Optional[_Iterable[str]] = ..., library_versions: _Optional[_Mapping[str, str]] = ..., token_ids: _Optional[_Iterable[int]] = ..., expanded: _Optional[_Union[AnalyzeRequest, _Mapping]] = ..., digests: _Optional[_Iterable[_Union[PayloadDigest, _Mapping]]] = ..., client_tag: _Optional[str] = ..., ignored_fields: _Optional[_Iterable[str]] = ..., ignored_tensors: _Optional[_Iterable[str]] = ..., device: _Optional[str] = ...) -> None: ...

class ManyFinished(_message.Message):
    __slots__ = ["failed", "prompts"]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    failed: int
    prompts: int
    def __init__(self, prompts: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class ManyPromptError(_message.Message):
    __slots__ = ["code", "id", "message"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    id: str
    message: str
    def __init__(self, id: _Optional[str] = ..., code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class ManyPromptEvent(_message.Message):
    __slots__ = ["event", "id"]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    event: AnalyzeEvent
    id: str
    def __init__(self, id: _Optional[str] = ..., event: _Optional[_Union[AnalyzeEvent, _Mapping]] = ...) -> None: ...

class MassiveEntry(_message.Message):
    __slots__ = ["dim", "head", "norm", "ratio", "wavelength"]
    DIM_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    WAVELENGTH_FIELD_NUMBER: _ClassVar[int]
    dim: int
    head: int
    norm: float
    ratio: float
    wavelength: float
    def __init__(self, head: _Optional[int] = ..., dim: _Optional[int] = ..., norm: _Optional[float] = ..., ratio: _Optional[float] = ..., wavelength: _Optional[float] = ...) -> None: ...

class MatMulGroup(_message.Message):
    __slots__ = ["in_features", "kernel", "matrices", "out_features", "passed_over"]
    IN_FEATURES_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    MATRICES_FIELD_NUMBER: _ClassVar[int]
    OUT_FEATURES_FIELD_NUMBER: _ClassVar[int]
    PASSED_OVER_FIELD_NUMBER: _ClassVar[int]
    in_features: int
    kernel: str
    matrices: int
    out_features: int
    passed_over: str
    def __init__(self, kernel: _Optional[str] = ..., out_features: _Optional[int] = ..., in_features: _Optional[int] = ..., matrices: _Optional[int] = ..., passed_over: _Optional[str] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ["architecture", "backend", "bos_token_id", "compute_type", "context_length", "device", "device_bytes", "eos_token_ids", "failure", "hidden_size", "host_bytes", "ignored_fields", "ignored_tensors", "layers", "load_ms", "matmuls", "name", "non_finite_weights", "num_layers", "parameters", "rope", "state", "text_problem", "tokenizer_sha256", "vision", "vocab_size", "warnings", "weights_dtype", "weights_sha256", "word_splitting"]
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    BOS_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    DEVICE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    FAILED: ModelInfo.State
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    IGNORED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    IGNORED_TENSORS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    LOADING: ModelInfo.State
    LOAD_MS_FIELD_NUMBER: _ClassVar[int]
    MATMULS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NON_FINITE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    READY: ModelInfo.State
    ROPE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_UNSPECIFIED: ModelInfo.State
    TEXT_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_SHA256_FIELD_NUMBER: _ClassVar[int]
    UNLOADING: ModelInfo.State
    VISION_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DTYPE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    WORD_SPLITTING_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    backend: str
    bos_token_id: int
    compute_type: str
    context_length: int
    device: str
    device_bytes: int
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    failure: str
    hidden_size: int
    host_bytes: int
    ignored_fields: _containers.RepeatedScalarFieldContainer[str]
    ignored_tensors: _containers.RepeatedScalarFieldContainer[str]
    layers: _containers.RepeatedCompositeFieldContainer[LayerInfo]
    load_ms: int
    matmuls: _containers.RepeatedCompositeFieldContainer[MatMulGroup]
    name: str
    non_finite_weights: NonFiniteWeights
    num_layers: int
    parameters: int
    rope: _containers.RepeatedCompositeFieldContainer[RopeInfo]
    state: ModelInfo.State
    text_problem: str
    tokenizer_sha256: str
    vision: VisionInfo
    vocab_size: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    weights_dtype: str
    weights_sha256: str
    word_splitting: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[ModelInfo.State, str]] = ..., failure: _Optional[str] = ..., architecture: _Optional[str] = ..., num_layers: _Optional[int] = ..., hidden_size: _Optional[int] = ..., vocab_size: _Optional[int] = ..., context_length: _Optional[int] = ..., weights_dtype: _Optional[str] = ..., compute_type: _Optional[str] = ..., backend: _Optional[str] = ..., host_bytes: _Optional[int] = ..., device_bytes: _Optional[int] = ..., weights_sha256: _Optional[str] = ..., tokenizer_sha256: _Optional[str] = ..., layers: _Optional[_Iterable[_Union[LayerInfo, _Mapping]]] = ..., rope: _Optional[_Iterable[_Union[RopeInfo, _Mapping]]] = ..., parameters: _Optional[int] = ..., load_ms: _Optional[int] = ..., vision: _Optional[_Union[VisionInfo, _Mapping]] = ..., text_problem: _Optional[str] = ..., ignored_fields: _Optional[_Iterable[str]] = ..., ignored_tensors: _Optional[_Iterable[str]] = ..., warnings: _Optional[_Iterable[str]] = ..., word_splitting: _Optional[str] = ..., non_finite_weights: _Optional[_Union[NonFiniteWeights, _Mapping]] = ..., matmuls: _Optional[_Iterable[_Union[MatMulGroup, _Mapping]]] = ..., device: _Optional[str] = ..., bos_token_id: _Optional[int] = ..., eos_token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class Moments(_message.Message):
    __slots__ = ["count", "mean", "variance"]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_FIELD_NUMBER: _ClassVar[int]
    count: int
    mean: float
    variance: float
    def __init__(self, count: _Optional[int] = ..., mean: _Optional[float] = ..., variance: _Optional[float] = ...) -> None: ...

class NonFinite(_message.Message):
    __slots__ = ["captured", "kl", "logits"]
    CAPTURED_FIELD_NUMBER: _ClassVar[int]
    KL_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    captured: int
    kl: int
    logits: int
    def __init__(self, captured: _Optional[int] = ..., logits: _Optional[int] = ..., kl: _Optional[int] = ...) -> None: ...

class NonFiniteWeights(_message.Message):
    __slots__ = ["count", "index", "tensor"]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    count: int
    index: _containers.RepeatedScalarFieldContainer[int]
    tensor: str
    def __init__(self, count: _Optional[int] = ..., tensor: _Optional[str] = ..., index: _Optional[_Iterable[int]] = ...) -> None: ...

class PayloadDigest(_message.Message):
    __slots__ = ["arm", "bytes", "crc32c", "image", "layer", "phase", "point", "sha256", "stage"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    arm: str
    bytes: int
    crc32c: int
    image: int
    layer: int
    phase: _spec_pb2.Phase
    point: _spec_pb2.HookPoint
    sha256: str
    stage: _spec_pb2.Stage
    def __init__(self, arm: _Optional[str] = ..., phase: _Optional[_Union[_spec_pb2.Phase, str]] = ..., layer: _Optional[int] = ..., point: _Optional[_Union[_spec_pb2.HookPoint, str]] = ..., stage: _Optional[_Union[_spec_pb2.Stage, str]] = ..., sha256: _Optional[str] = ..., crc32c: _Optional[int] = ..., bytes: _Optional[int] = ..., image: _Optional[int] = ...) -> None: ...

class PositionLogits(_message.Message):
    __slots__ = ["ids", "logprobs", "position"]
    IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    position: int
    def __init__(self, position: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ...) -> None: ...

class RopeInfo(_message.Message):
    __slots__ = ["rotary_dims", "scaling", "theta", "wavelengths"]
    ROTARY_DIMS_FIELD_NUMBER: _ClassVar[int]
    SCALING_FIELD_NUMBER: _ClassVar[int]
    THETA_FIELD_NUMBER: _ClassVar[int]
    WAVELENGTHS_FIELD_NUMBER: _ClassVar[int]
    rotary_dims: int
    scaling: str
    theta: float
    wavelengths: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, theta: _Optional[float] = ..., rotary_dims: _Optional[int] = ..., scaling: _Optional[str] = ..., wavelengths: _Optional[_Iterable[float]] = ...) -> None: ...

class ScorePair(_message.Message):
    __slots__ = ["arm", "context", "continuation"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CONTINUATION_FIELD_NUMBER: _ClassVar[int]
    arm: _spec_pb2.Arm
    context: _spec_pb2.Input
    continuation: _spec_pb2.Input
    def __init__(self, context: _Optional[_Union[_spec_pb2.Input, _Mapping]] = ..., continuation: _Optional[_Union[_spec_pb2.Input, _Mapping]] = ..., arm: _Optional[_Union[_spec_pb2.Arm, _Mapping]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ["arm", "model", "pairs", "priority", "strict", "totals_only"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    TOTALS_ONLY_FIELD_NUMBER: _ClassVar[int]
    arm: _spec_pb2.Arm
    model: str
    pairs: _containers.RepeatedCompositeFieldContainer[ScorePair]
    priority: Priority
    strict: bool
    totals_only: bool
    def __init__(self, model: _Optional[str] = ..., pairs: _Optional[_Iterable[_Union[ScorePair, _Mapping]]] = ..., arm: _Optional[_Union[_spec_pb2.Arm, _Mapping]] = ..., priority: _Optional[_Union[Priority, str]] = ..., totals_only: bool = ..., strict: bool = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ["results"]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ScoreResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ScoreResult, _Mapping]]] = ...) -> None: ...

class ScoreResult(_message.Message):
    __slots__ = ["context_tokens", "continuation_tokens", "is_greedy", "logprob", "non_finite", "token_greedy", "token_logprobs"]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CONTINUATION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IS_GREEDY_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    NON_FINITE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_GREEDY_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    context_tokens: int
    continuation_tokens: int
    is_greedy: bool
    logprob: float
    non_finite: int
    token_greedy: _containers.RepeatedScalarFieldContainer[bool]
    token_logprobs: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, logprob: _Optional[float] = ..., is_greedy: bool = ..., token_logprobs: _Optional[_Iterable[float]] = ..., token_greedy: _Optional[_Iterable[bool]] = ..., context_tokens: _Optional[int] = ..., continuation_tokens: _Optional[int] = ..., non_finite: _Optional[int] = ...) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ["backends", "chat_formats", "library_versions", "limits", "presets", "replica", "version"]
    class LibraryVersionsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    CHAT_FORMATS_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    PRESETS_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    backends: _containers.RepeatedCompositeFieldContainer[BackendInfo]
    chat_formats: _containers.RepeatedScalarFieldContainer[str]
    library_versions: _containers.ScalarMap[str, str]
    limits: Limits
    presets: _containers.RepeatedScalarFieldContainer[str]
    replica: str
    version: str
    def __init__(self, version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., backends: _Optional[_Iterable[_Union[BackendInfo, _Mapping]]] = ..., chat_formats: _Optional[_Iterable[str]] = ..., presets: _Optional[_Iterable[str]] = ..., library_versions: _Optional[_Mapping[str, str]] = ..., replica: _Optional[str] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ["estimate", "expanded", "token_ids"]
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    EXPANDED_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    estimate: Estimates
    expanded: AnalyzeRequest
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ..., expanded: _Optional[_Union[AnalyzeRequest, _Mapping]] = ..., estimate: _Optional[_Union[Estimates, _Mapping]] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ["largest", "low_frequency_share", "massive_count", "max", "non_finite_count", "ratio", "top", "top_dim", "top_dim_share"]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    LOW_FREQUENCY_SHARE_FIELD_NUMBER: _ClassVar[int]
    MASSIVE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    NON_FINITE_COUNT_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    TOP_DIM_FIELD_NUMBER: _ClassVar[int]
    TOP_DIM_SHARE_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    largest: MassiveEntry
    low_frequency_share: float
    massive_count: int
    max: float
    non_finite_count: int
    ratio: float
    top: _containers.RepeatedCompositeFieldContainer[MassiveEntry]
    top_dim: int
    top_dim_share: float
    def __init__(self, massive_count: _Optional[int] = ..., ratio: _Optional[float] = ..., max: _Optional[float] = ..., top_dim: _Optional[int] = ..., top_dim_share: _Optional[float] = ..., low_frequency_share: _Optional[float] = ..., non_finite_count: _Optional[int] = ..., top: _Optional[_Iterable[_Union[MassiveEntry, _Mapping]]] = ..., largest: _Optional[_Union[MassiveEntry, _Mapping]] = ...) -> None: ...

class Times(_message.Message):
    __slots__ = ["capture_ms", "compare_ms", "decode_ms", "prefill_ms", "queue_ms", "stream_ms"]
    CAPTURE_MS_FIELD_NUMBER: _ClassVar[int]
    COMPARE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    STREAM_MS_FIELD_NUMBER: _ClassVar[int]
    capture_ms: float
    compare_ms: float
    decode_ms: float
    prefill_ms: float
    queue_ms: float
    stream_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., prefill_ms: _Optional[float] = ..., decode_ms: _Optional[float] = ..., capture_ms: _Optional[float] = ..., stream_ms: _Optional[float] = ..., compare_ms: _Optional[float] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ["arm", "id", "logprob", "step", "text"]
    ARM_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    arm: str
    id: int
    logprob: float
    step: int
    text: bytes
    def __init__(self, arm: _Optional[str] = ..., step: _Optional[int] = ..., id: _Optional[int] = ..., text: _Optional[bytes] = ..., logprob: _Optional[float] = ...) -> None: ...

class TokenPiece(_message.Message):
    __slots__ = ["begin", "end", "id", "piece", "special"]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    begin: int
    end: int
    id: int
    piece: bytes
    special: bool
    def __init__(self, id: _Optional[int] = ..., piece: _Optional[bytes] = ..., begin: _Optional[int] = ..., end: _Optional[int] = ..., special: bool = ...) -> None: ...

class TokenizeRequest(_message.Message):
    __slots__ = ["input", "model", "offset"]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    input: _spec_pb2.Input
    model: str
    offset: int
    def __init__(self, model: _Optional[str] = ..., input: _Optional[_Union[_spec_pb2.Input, _Mapping]] = ..., offset: _Optional[int] = ...) -> None: ...

class TokenizeResponse(_message.Message):
    __slots__ = ["next_offset", "tokens", "total_tokens"]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    next_offset: int
    tokens: _containers.RepeatedCompositeFieldContainer[TokenPiece]
    total_tokens: int
    def __init__(self, tokens: _Optional[_Iterable[_Union[TokenPiece, _Mapping]]] = ..., next_offset: _Optional[int] = ..., total_tokens: _Optional[int] = ...) -> None: ...

class UserUsage(_message.Message):
    __slots__ = ["bytes_budget", "device_ms", "device_ms_budget", "host_ms", "kept_bytes", "kept_results", "max_kept_bytes", "max_kept_results", "max_requests_in_flight", "max_requests_queued", "requests_in_flight", "requests_queued", "share", "streamed_bytes", "total_device_ms", "total_host_ms", "total_streamed_bytes", "user", "weight", "window_s"]
    BYTES_BUDGET_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MS_BUDGET_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MS_FIELD_NUMBER: _ClassVar[int]
    HOST_MS_FIELD_NUMBER: _ClassVar[int]
    KEPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEPT_RESULTS_FIELD_NUMBER: _ClassVar[int]
    MAX_KEPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_KEPT_RESULTS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUESTS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUESTS_QUEUED_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_QUEUED_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    STREAMED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_DEVICE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_HOST_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STREAMED_BYTES_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    bytes_budget: int
    device_ms: float
    device_ms_budget: int
    host_ms: float
    kept_bytes: int
    kept_results: int
    max_kept_bytes: int
    max_kept_results: int
    max_requests_in_flight: int
    max_requests_queued: int
    requests_in_flight: int
    requests_queued: int
    share: float
    streamed_bytes: int
    total_device_ms: float
    total_host_ms: float
    total_streamed_bytes: int
    user: str
    weight: float
    window_s: int
    def __init__(self, user: _Optional[str] = ..., weight: _Optional[float] = ..., device_ms: _Optional[float] = ..., streamed_bytes: _Optional[int] = ..., window_s: _Optional[int] = ..., total_device_ms: _Optional[float] = ..., total_streamed_bytes: _Optional[int] = ..., requests_in_flight: _Optional[int] = ..., requests_queued: _Optional[int] = ..., share: _Optional[float] = ..., device_ms_budget: _Optional[int] = ..., bytes_budget: _Optional[int] = ..., max_requests_in_flight: _Optional[int] = ..., max_requests_queued: _Optional[int] = ..., kept_results: _Optional[int] = ..., kept_bytes: _Optional[int] = ..., max_kept_results: _Optional[int] = ..., max_kept_bytes: _Optional[int] = ..., host_ms: _Optional[float] = ..., total_host_ms: _Optional[float] = ...) -> None: ...

class VisionInfo(_message.Message):
    __slots__ = ["channels", "head_dim", "hidden_size", "image_token", "max_pixels", "merge_size", "min_pixels", "num_heads", "num_layers", "output_size", "patch_size", "temporal_patch_size"]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MERGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MIN_PIXELS_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    PATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    TEMPORAL_PATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    channels: int
    head_dim: int
    hidden_size: int
    image_token: int
    max_pixels: int
    merge_size: int
    min_pixels: int
    num_heads: int
    num_layers: int
    output_size: int
    patch_size: int
    temporal_patch_size: int
    def __init__(self, num_layers: _Optional[int] = ..., num_heads: _Optional[int] = ..., head_dim: _Optional[int] = ..., hidden_size: _Optional[int] = ..., output_size: _Optional[int] = ..., patch_size: _Optional[int] = ..., temporal_patch_size: _Optional[int] = ..., merge_size: _Optional[int] = ..., channels: _Optional[int] = ..., image_token: _Optional[int] = ..., min_pixels: _Optional[int] = ..., max_pixels: _Optional[int] = ...) -> None: ...

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
