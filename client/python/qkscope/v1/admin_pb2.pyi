from qkscope.v1 import analysis_pb2 as _analysis_pb2
from qkscope.v1 import spec_pb2 as _spec_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Baseline(_message.Message):
    __slots__ = ["created_unix_ms", "drifts", "kept", "matrices", "model", "prompts", "weights_sha256"]
    CREATED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    DRIFTS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    MATRICES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    created_unix_ms: int
    drifts: _containers.RepeatedCompositeFieldContainer[BaselineDrift]
    kept: bool
    matrices: int
    model: str
    prompts: int
    weights_sha256: str
    def __init__(self, model: _Optional[str] = ..., weights_sha256: _Optional[str] = ..., created_unix_ms: _Optional[int] = ..., prompts: _Optional[int] = ..., matrices: _Optional[int] = ..., kept: bool = ..., drifts: _Optional[_Iterable[_Union[BaselineDrift, _Mapping]]] = ...) -> None: ...

class BaselineDrift(_message.Message):
    __slots__ = ["drift", "layer", "point"]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    drift: float
    layer: int
    point: _spec_pb2.HookPoint
    def __init__(self, point: _Optional[_Union[_spec_pb2.HookPoint, str]] = ..., layer: _Optional[int] = ..., drift: _Optional[float] = ...) -> None: ...

class ListBaselinesRequest(_message.Message):
    __slots__ = ["model", "offset"]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    model: str
    offset: int
    def __init__(self, model: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class ListBaselinesResponse(_message.Message):
    __slots__ = ["baselines", "next_offset"]
    BASELINES_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    baselines: _containers.RepeatedCompositeFieldContainer[Baseline]
    next_offset: int
    def __init__(self, baselines: _Optional[_Iterable[_Union[Baseline, _Mapping]]] = ..., next_offset: _Optional[int] = ...) -> None: ...

class LoadModelEvent(_message.Message):
    __slots__ = ["model", "progress"]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    model: _analysis_pb2.ModelInfo
    progress: LoadProgress
    def __init__(self, progress: _Optional[_Union[LoadProgress, _Mapping]] = ..., model: _Optional[_Union[_analysis_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ["compute", "ignore", "ignore_tensors", "name", "path", "replace", "sha256"]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    IGNORE_FIELD_NUMBER: _ClassVar[int]
    IGNORE_TENSORS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    compute: str
    ignore: _containers.RepeatedScalarFieldContainer[str]
    ignore_tensors: _containers.RepeatedScalarFieldContainer[str]
    name: str
    path: str
    replace: bool
    sha256: str
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., compute: _Optional[str] = ..., sha256: _Optional[str] = ..., replace: bool = ..., ignore: _Optional[_Iterable[str]] = ..., ignore_tensors: _Optional[_Iterable[str]] = ...) -> None: ...

class LoadProgress(_message.Message):
    __slots__ = ["bytes_read", "bytes_total", "evicted", "phase"]
    class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    BYTES_READ_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    CHECKING: LoadProgress.Phase
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PHASE_UNSPECIFIED: LoadProgress.Phase
    READING: LoadProgress.Phase
    WAITING: LoadProgress.Phase
    WARMING_UP: LoadProgress.Phase
    bytes_read: int
    bytes_total: int
    evicted: _containers.RepeatedScalarFieldContainer[str]
    phase: LoadProgress.Phase
    def __init__(self, phase: _Optional[_Union[LoadProgress.Phase, str]] = ..., bytes_read: _Optional[int] = ..., bytes_total: _Optional[int] = ..., evicted: _Optional[_Iterable[str]] = ...) -> None: ...

class ReloadConfigRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ReloadConfigResponse(_message.Message):
    __slots__ = ["parts"]
    class Part(_message.Message):
        __slots__ = ["changed", "failure", "name", "text"]
        CHANGED_FIELD_NUMBER: _ClassVar[int]
        FAILURE_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        changed: bool
        failure: str
        name: str
        text: str
        def __init__(self, name: _Optional[str] = ..., changed: bool = ..., text: _Optional[str] = ..., failure: _Optional[str] = ...) -> None: ...
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[ReloadConfigResponse.Part]
    def __init__(self, parts: _Optional[_Iterable[_Union[ReloadConfigResponse.Part, _Mapping]]] = ...) -> None: ...

class RemoveBaselineRequest(_message.Message):
    __slots__ = ["model"]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class RemoveBaselineResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class SaveBaselineRequest(_message.Message):
    __slots__ = ["model"]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ["name"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...
