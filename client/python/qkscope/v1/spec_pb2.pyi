from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

AFTER: Stage
BEFORE: Stage
BEFORE_AND_AFTER: Stage
BF16: RawDtype
BOTH: Phase
CAPTURE_FORM_UNSPECIFIED: CaptureForm
DECODE: Phase
DESCRIPTOR: _descriptor.FileDescriptor
F16: RawDtype
F32: RawDtype
HOOK_K: HookPoint
HOOK_PATTERN: HookPoint
HOOK_POINT_UNSPECIFIED: HookPoint
HOOK_Q: HookPoint
HOOK_ROT_K: HookPoint
HOOK_ROT_Q: HookPoint
HOOK_V: HookPoint
HOOK_Z: HookPoint
NORM_OVER_TOKENS: CaptureForm
NORM_PER_TOKEN: CaptureForm
PHASE_UNSPECIFIED: Phase
PREFILL: Phase
QKV_TENSOR_K: QkvTensor
QKV_TENSOR_Q: QkvTensor
QKV_TENSOR_UNSPECIFIED: QkvTensor
QKV_TENSOR_V: QkvTensor
RAW: CaptureForm
RAW_DTYPE_UNSPECIFIED: RawDtype
STAGE_UNSPECIFIED: Stage

class Arm(_message.Message):
    __slots__ = ["disruptions", "model", "name", "preset"]
    DISRUPTIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    disruptions: _containers.RepeatedCompositeFieldContainer[DisruptionRule]
    model: str
    name: str
    preset: Preset
    def __init__(self, name: _Optional[str] = ..., disruptions: _Optional[_Iterable[_Union[DisruptionRule, _Mapping]]] = ..., preset: _Optional[_Union[Preset, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class Capture(_message.Message):
    __slots__ = ["form", "heads", "layers", "off", "phase", "points", "positions", "raw_dtype", "raw_sha256", "stage", "vision_layers"]
    FORM_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    RAW_DTYPE_FIELD_NUMBER: _ClassVar[int]
    RAW_SHA256_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    VISION_LAYERS_FIELD_NUMBER: _ClassVar[int]
    form: CaptureForm
    heads: _containers.RepeatedScalarFieldContainer[int]
    layers: _containers.RepeatedScalarFieldContainer[int]
    off: bool
    phase: Phase
    points: _containers.RepeatedScalarFieldContainer[HookPoint]
    positions: _containers.RepeatedScalarFieldContainer[int]
    raw_dtype: RawDtype
    raw_sha256: bool
    stage: Stage
    vision_layers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, layers: _Optional[_Iterable[int]] = ..., heads: _Optional[_Iterable[int]] = ..., positions: _Optional[_Iterable[int]] = ..., points: _Optional[_Iterable[_Union[HookPoint, str]]] = ..., form: _Optional[_Union[CaptureForm, str]] = ..., phase: _Optional[_Union[Phase, str]] = ..., stage: _Optional[_Union[Stage, str]] = ..., raw_dtype: _Optional[_Union[RawDtype, str]] = ..., raw_sha256: bool = ..., off: bool = ..., vision_layers: _Optional[_Iterable[int]] = ...) -> None: ...

class Chat(_message.Message):
    __slots__ = ["add_generation_prompt", "format", "messages"]
    ADD_GENERATION_PROMPT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    add_generation_prompt: bool
    format: str
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    def __init__(self, format: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ..., add_generation_prompt: bool = ...) -> None: ...

class ChatMessage(_message.Message):
    __slots__ = ["content", "role"]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    role: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class Compare(_message.Message):
    __slots__ = ["baseline"]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    baseline: str
    def __init__(self, baseline: _Optional[str] = ...) -> None: ...

class DisruptionRule(_message.Message):
    __slots__ = ["axis", "bottom_k", "explicit", "factor", "heads", "kv_cache", "kv_grouping", "layers", "phase", "point", "positions", "random_k", "replace", "reselect", "stat_span", "tensors", "threshold", "top_k", "tower"]
    class Axis(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class KvCache(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class KvGrouping(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class Point(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class Replace(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class Tower(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class BottomK(_message.Message):
        __slots__ = ["k"]
        K_FIELD_NUMBER: _ClassVar[int]
        k: int
        def __init__(self, k: _Optional[int] = ...) -> None: ...
    class Explicit(_message.Message):
        __slots__ = ["entries"]
        ENTRIES_FIELD_NUMBER: _ClassVar[int]
        entries: _containers.RepeatedCompositeFieldContainer[HeadDim]
        def __init__(self, entries: _Optional[_Iterable[_Union[HeadDim, _Mapping]]] = ...) -> None: ...
    class RandomK(_message.Message):
        __slots__ = ["exclude_top", "k", "seed"]
        EXCLUDE_TOP_FIELD_NUMBER: _ClassVar[int]
        K_FIELD_NUMBER: _ClassVar[int]
        SEED_FIELD_NUMBER: _ClassVar[int]
        exclude_top: int
        k: int
        seed: int
        def __init__(self, k: _Optional[int] = ..., seed: _Optional[int] = ..., exclude_top: _Optional[int] = ...) -> None: ...
    class Threshold(_message.Message):
        __slots__ = []
        LAMBDA_FIELD_NUMBER: _ClassVar[int]
        def __init__(self, **kwargs) -> None: ...
    class TopK(_message.Message):
        __slots__ = ["k"]
        K_FIELD_NUMBER: _ClassVar[int]
        k: int
        def __init__(self, k: _Optional[int] = ...) -> None: ...
    ATTENTION_ONLY: DisruptionRule.KvCache
    AXIS_FIELD_NUMBER: _ClassVar[int]
    AXIS_UNSPECIFIED: DisruptionRule.Axis
    BOTTOM_K_FIELD_NUMBER: _ClassVar[int]
    EXPLICIT_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_UNSPECIFIED: DisruptionRule.KvCache
    KV_GROUPING_FIELD_NUMBER: _ClassVar[int]
    KV_GROUPING_UNSPECIFIED: DisruptionRule.KvGrouping
    KV_HEAD: DisruptionRule.KvGrouping
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    PERSIST: DisruptionRule.KvCache
    PER_DIM_MEAN: DisruptionRule.Replace
    PER_HEAD: DisruptionRule.Axis
    PER_TOKEN: DisruptionRule.Axis
    PHASE_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    POINT_UNSPECIFIED: DisruptionRule.Point
    POOLED_MEAN: DisruptionRule.Replace
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    POST_ROPE: DisruptionRule.Point
    PRE_ROPE: DisruptionRule.Point
    QUERY_HEAD: DisruptionRule.KvGrouping
    RANDOM_K_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_UNSPECIFIED: DisruptionRule.Replace
    RESELECT_FIELD_NUMBER: _ClassVar[int]
    SCALE: DisruptionRule.Replace
    STAT_SPAN_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    TEXT: DisruptionRule.Tower
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOWER_FIELD_NUMBER: _ClassVar[int]
    TOWER_UNSPECIFIED: DisruptionRule.Tower
    VISION: DisruptionRule.Tower
    ZERO: DisruptionRule.Replace
    axis: DisruptionRule.Axis
    bottom_k: DisruptionRule.BottomK
    explicit: DisruptionRule.Explicit
    factor: float
    heads: _containers.RepeatedScalarFieldContainer[int]
    kv_cache: DisruptionRule.KvCache
    kv_grouping: DisruptionRule.KvGrouping
    layers: _containers.RepeatedScalarFieldContainer[int]
    phase: Phase
    point: DisruptionRule.Point
    positions: Span
    random_k: DisruptionRule.RandomK
    replace: DisruptionRule.Replace
    reselect: bool
    stat_span: Span
    tensors: _containers.RepeatedScalarFieldContainer[QkvTensor]
    threshold: DisruptionRule.Threshold
    top_k: DisruptionRule.TopK
    tower: DisruptionRule.Tower
    def __init__(self, tensors: _Optional[_Iterable[_Union[QkvTensor, str]]] = ..., point: _Optional[_Union[DisruptionRule.Point, str]] = ..., top_k: _Optional[_Union[DisruptionRule.TopK, _Mapping]] = ..., bottom_k: _Optional[_Union[DisruptionRule.BottomK, _Mapping]] = ..., random_k: _Optional[_Union[DisruptionRule.RandomK, _Mapping]] = ..., threshold: _Optional[_Union[DisruptionRule.Threshold, _Mapping]] = ..., explicit: _Optional[_Union[DisruptionRule.Explicit, _Mapping]] = ..., axis: _Optional[_Union[DisruptionRule.Axis, str]] = ..., replace: _Optional[_Union[DisruptionRule.Replace, str]] = ..., factor: _Optional[float] = ..., kv_grouping: _Optional[_Union[DisruptionRule.KvGrouping, str]] = ..., phase: _Optional[_Union[Phase, str]] = ..., reselect: bool = ..., kv_cache: _Optional[_Union[DisruptionRule.KvCache, str]] = ..., stat_span: _Optional[_Union[Span, _Mapping]] = ..., positions: _Optional[_Union[Span, _Mapping]] = ..., layers: _Optional[_Iterable[int]] = ..., heads: _Optional[_Iterable[int]] = ..., tower: _Optional[_Union[DisruptionRule.Tower, str]] = ...) -> None: ...

class GenerateSpec(_message.Message):
    __slots__ = ["ignore_eos", "max_new_tokens", "sampling", "stop_strings", "stop_token_ids"]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    STOP_STRINGS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    ignore_eos: bool
    max_new_tokens: int
    sampling: Sampling
    stop_strings: _containers.RepeatedScalarFieldContainer[str]
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, max_new_tokens: _Optional[int] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., stop_strings: _Optional[_Iterable[str]] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., ignore_eos: bool = ...) -> None: ...

class HeadDim(_message.Message):
    __slots__ = ["dim", "head"]
    DIM_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    dim: int
    head: int
    def __init__(self, head: _Optional[int] = ..., dim: _Optional[int] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ["encoded", "max_pixels", "min_pixels", "patches", "sha256"]
    class Patches(_message.Message):
        __slots__ = ["columns", "frames", "rows", "values"]
        COLUMNS_FIELD_NUMBER: _ClassVar[int]
        FRAMES_FIELD_NUMBER: _ClassVar[int]
        ROWS_FIELD_NUMBER: _ClassVar[int]
        VALUES_FIELD_NUMBER: _ClassVar[int]
        columns: int
        frames: int
        rows: int
        values: bytes
        def __init__(self, frames: _Optional[int] = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ..., values: _Optional[bytes] = ...) -> None: ...
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MIN_PIXELS_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    encoded: bytes
    max_pixels: int
    min_pixels: int
    patches: Image.Patches
    sha256: str
    def __init__(self, encoded: _Optional[bytes] = ..., patches: _Optional[_Union[Image.Patches, _Mapping]] = ..., min_pixels: _Optional[int] = ..., max_pixels: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ["add_special_tokens", "chat", "images", "parse_special", "text", "token_ids"]
    ADD_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    PARSE_SPECIAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    add_special_tokens: bool
    chat: Chat
    images: _containers.RepeatedCompositeFieldContainer[Image]
    parse_special: bool
    text: bytes
    token_ids: TokenIds
    def __init__(self, text: _Optional[bytes] = ..., token_ids: _Optional[_Union[TokenIds, _Mapping]] = ..., chat: _Optional[_Union[Chat, _Mapping]] = ..., add_special_tokens: bool = ..., parse_special: bool = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ...) -> None: ...

class LogitsSpec(_message.Message):
    __slots__ = ["positions", "top_n"]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    positions: _containers.RepeatedScalarFieldContainer[int]
    top_n: int
    def __init__(self, top_n: _Optional[int] = ..., positions: _Optional[_Iterable[int]] = ...) -> None: ...

class Preset(_message.Message):
    __slots__ = ["name", "seed"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    name: str
    seed: int
    def __init__(self, name: _Optional[str] = ..., seed: _Optional[int] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ["seed", "temperature", "top_k", "top_p"]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    seed: int
    temperature: float
    top_k: int
    top_p: float
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ["begin", "end"]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    begin: int
    end: int
    def __init__(self, begin: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class StatisticsSpec(_message.Message):
    __slots__ = ["top_n"]
    LAMBDA_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    top_n: int
    def __init__(self, top_n: _Optional[int] = ..., **kwargs) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ["ids"]
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class QkvTensor(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class HookPoint(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class CaptureForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class RawDtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
