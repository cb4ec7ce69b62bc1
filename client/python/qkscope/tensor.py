"""One captured tensor: its header and its values."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from qkscope import enums
from qkscope.v1 import analysis_pb2, spec_pb2

# (arm, image, phase, layer, point, stage, step); image and step are -1 if there
# is none.
TensorKey = tuple[str, int, int, int, int, int, int]


def tensor_key(layer: analysis_pb2.Layer) -> TensorKey:
    return (layer.arm, layer.image if layer.HasField("image") else -1,
            layer.phase, layer.layer, layer.point, layer.stage,
            layer.step if layer.HasField("step") else -1)


def tensor_name(layer: analysis_pb2.Layer) -> str:
    """"ARM/layer.3.hook_rot_q", with ".after" appended for values read after
    the disruption, ".decode" for the decode phase and ".step.7" for one decode
    step. In the vision tower: "ARM/image.0.vision.3.hook_rot_q"."""
    place = (f"image.{layer.image}.vision." if layer.HasField("image")
             else "layer.")
    name = (f"{layer.arm}/{place}{layer.layer}."
            f"{enums.name(spec_pb2.HookPoint, layer.point)}")
    if layer.stage == spec_pb2.AFTER:
        name += ".after"
    if layer.phase == spec_pb2.DECODE:
        name += ".decode"
    if layer.HasField("step"):
        name += f".step.{layer.step}"
    return name


def tensor_axes(layer: analysis_pb2.Layer) -> list[str]:
    """The names of the axes, such as ["head", "dim"] for norms over tokens."""
    if layer.form == spec_pb2.NORM_OVER_TOKENS:
        return ["head", "dim"]
    row = "patch" if layer.HasField("image") else "position"
    if layer.form == spec_pb2.NORM_PER_TOKEN:
        return [row, "head"]
    last = "key" if layer.point == spec_pb2.HOOK_PATTERN else "dim"
    return [row, "head", last]


def element_bytes(dtype: int) -> int:
    return 2 if dtype in (spec_pb2.F16, spec_pb2.BF16) else 4


def shape_bytes(layer: analysis_pb2.Layer) -> int:
    """The bytes that the shape needs; -1 if an extent is negative, or there
    cannot be so many."""
    size = element_bytes(layer.dtype)
    for extent in layer.shape:
        if extent < 0:
            return -1
        size *= extent
    return size if size < 1 << 63 else -1


class LayerResult:
    """One captured tensor of one layer, complete and checked.

    arm, layer, point, stage, phase: what it is; names as in Capture.
    step: the decode step, or None. image: the image's index, or None.
    values: numpy, of shape `shape`; read-only. Values that came as f32 or f16
      are a view of the received bytes; bf16 is widened to float32.
    statistics: Statistics of norms over tokens, or None.
    """

    __slots__ = ("header", "data", "_values")

    def __init__(self, header: analysis_pb2.Layer, data: Any) -> None:
        self.header = header
        self.data = data  # row-major, little-endian
        self._values: Optional[npt.NDArray[Any]] = None

    @property
    def arm(self) -> str:
        return self.header.arm

    @property
    def layer(self) -> int:
        return self.header.layer

    @property
    def point(self) -> str:
        return enums.name(spec_pb2.HookPoint, self.header.point)

    @property
    def stage(self) -> str:
        return enums.name(spec_pb2.Stage, self.header.stage)

    @property
    def phase(self) -> str:
        return enums.name(spec_pb2.Phase, self.header.phase)

    @property
    def form(self) -> str:
        return enums.name(spec_pb2.CaptureForm, self.header.form)

    @property
    def step(self) -> Optional[int]:
        return self.header.step if self.header.HasField("step") else None

    @property
    def image(self) -> Optional[int]:
        return self.header.image if self.header.HasField("image") else None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.header.shape)

    @property
    def name(self) -> str:
        """The tensor's name in files: "clean/layer.3.hook_rot_q"."""
        return tensor_name(self.header)

    @property
    def values(self) -> npt.NDArray[Any]:
        if self._values is None:
            self._values = to_numpy(self.header, self.data)
        return self._values

    @property
    def statistics(self) -> Optional["Statistics"]:
        if not self.header.HasField("statistics"):
            return None
        return Statistics(self.layer, self.header.statistics)

    def __repr__(self) -> str:
        return f"<LayerResult {self.name} {self.shape}>"


def to_numpy(header: analysis_pb2.Layer, data: Any) -> npt.NDArray[Any]:
    """The payload as a read-only array of the header's shape."""
    if header.dtype == spec_pb2.BF16:
        wide = np.frombuffer(data, "<u2").astype("<u4")
        values = (wide << 16).view("<f4")
    else:
        dtype = "<f2" if header.dtype == spec_pb2.F16 else "<f4"
        values = np.frombuffer(data, dtype)
    values = values.reshape(tuple(header.shape))
    values.flags.writeable = False
    return values


class MassiveEntry:
    """One entry of a matrix of norms: head, dim, norm, ratio (norm over the
    mean of its head) and wavelength (of its RoPE pair in tokens, or None)."""

    __slots__ = ("head", "dim", "norm", "ratio", "wavelength")

    def __init__(self, entry: analysis_pb2.MassiveEntry) -> None:
        self.head = entry.head
        self.dim = entry.dim
        self.norm = entry.norm
        self.ratio = entry.ratio
        self.wavelength: Optional[float] = (
            entry.wavelength if entry.HasField("wavelength") else None)

    def __repr__(self) -> str:
        return (f"MassiveEntry(head={self.head}, dim={self.dim}, "
                f"norm={self.norm:g}, ratio={self.ratio:g}, "
                f"wavelength={self.wavelength})")


class Statistics:
    """The server's statistics of one layer's (heads, head_dim) norms.

    massive_count: entries above lambda times the mean of their head.
    ratio: max over heads of max / mean. max: the largest norm.
    top_dim, top_dim_share: the dim with most massive entries, and its share of
      them; None without any.
    low_frequency_share: share of massive entries that RoPE turns slowly; None
      without RoPE or massive entries.
    non_finite_count: entries that are NaN or infinite.
    top: the massive entries with the largest ratios. largest: the entry with
      the largest ratio, massive or not.
    """

    def __init__(self, layer: int, proto: analysis_pb2.Statistics) -> None:
        self.layer = layer
        self.massive_count = proto.massive_count
        self.ratio = proto.ratio
        self.max = proto.max
        self.top_dim = _optional(proto, "top_dim")
        self.top_dim_share = _optional(proto, "top_dim_share")
        self.low_frequency_share = _optional(proto, "low_frequency_share")
        self.non_finite_count = proto.non_finite_count
        self.top = [MassiveEntry(entry) for entry in proto.top]
        self.largest = MassiveEntry(proto.largest)

    def __repr__(self) -> str:
        return (f"Statistics(layer={self.layer}, "
                f"massive_count={self.massive_count}, ratio={self.ratio:g}, "
                f"max={self.max:g})")


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None
