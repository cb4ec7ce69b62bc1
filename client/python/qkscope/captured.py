"""The tensors of one hook point of an arm, over layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import numpy.typing as npt

from qkscope.errors import InvalidRequest, NotFound, ShapesDiffer
from qkscope.tensor import LayerResult, Statistics

if TYPE_CHECKING:
    from qkscope.run import ArmResult


class Captured:
    """What was captured of one arm at one point, stage, phase, step and image.

    layers: the layers' numbers, ascending. form: "norm_over_tokens",
      "norm_per_token" or "raw".
    group_size: query heads that read each head, 1 for all but K and V.
    positions: captured positions; None: the whole prompt. heads: captured
      heads; None: all.
    """

    def __init__(self, tensors: Sequence[LayerResult]) -> None:
        self._tensors = sorted(tensors, key=lambda tensor: tensor.layer)
        first = self._tensors[0]
        self.arm = first.arm
        self.point = first.point
        self.stage = first.stage
        self.phase = first.phase
        self.step = first.step
        self.image = first.image
        self.form = first.form
        self.group_size: int = first.header.group_size
        self.layers = [tensor.layer for tensor in self._tensors]
        self.positions: Optional[list[int]] = list(
            first.header.positions) or None
        self.heads: Optional[list[int]] = list(first.header.heads) or None
        self._values: Optional[npt.NDArray[Any]] = None

    @property
    def label(self) -> str:
        """"hook_rot_q", with stage, phase, step and image where they matter."""
        label = self.point if self.image is None else (
            f"{self.point}, image {self.image}")
        if self.stage != "before":
            label += f", {self.stage}"
        if self.phase != "prefill":
            label += f", {self.phase}"
        return label if self.step is None else f"{label}, step {self.step}"

    def tensor(self, layer: int) -> LayerResult:
        """The tensor of one layer. NotFound: it was not captured."""
        try:
            return self._tensors[self.layers.index(layer)]
        except ValueError:
            raise NotFound(f"{self.point} of arm '{self.arm}' was not captured "
                           f"in layer {layer}",
                           remedy=f"layers are {self.layers}") from None

    def layer(self, layer: int) -> npt.NDArray[Any]:
        """The values of one layer; their shape is that of the form."""
        return self.tensor(layer).values

    @property
    def values(self) -> npt.NDArray[Any]:
        """All layers: (layers, ...). ShapesDiffer: they do not fit into one
        array."""
        if self._values is None:
            shapes = {tensor.shape for tensor in self._tensors}
            if len(shapes) > 1:
                raise ShapesDiffer(
                    f"{self.point} of arm '{self.arm}' has layers of different "
                    f"shapes, {sorted(shapes)}",
                    remedy="take them one by one with layer(i)")
            if len(self._tensors) == 1:
                self._values = self._tensors[0].values[np.newaxis]
            else:
                self._values = np.stack([t.values for t in self._tensors])
                self._values.flags.writeable = False
        return self._values

    def _of_form(self, form: str) -> npt.NDArray[Any]:
        if self.form != form:
            raise InvalidRequest(
                f"{self.point} of arm '{self.arm}' was captured as "
                f"{self.form}, not as {form}",
                remedy=f'ask for Capture(form="{form}")')
        return self.values

    @property
    def norms(self) -> npt.NDArray[Any]:
        """L2 norms over tokens: (layers, heads, head_dim) float32."""
        return self._of_form("norm_over_tokens")

    @property
    def per_token(self) -> npt.NDArray[Any]:
        """L2 norms over dims: (layers, positions, heads) float32."""
        return self._of_form("norm_per_token")

    @property
    def raw(self) -> npt.NDArray[Any]:
        """The values: (layers, positions, heads, head_dim); of hook_pattern
        (layers, positions, heads, keys)."""
        return self._of_form("raw")

    @property
    def mean_of_heads(self) -> npt.NDArray[Any]:
        """The mean norm of each head: (layers, heads)."""
        return np.asarray(self.norms.mean(axis=-1))

    def massive(self, lambda_: float = 5) -> npt.NDArray[np.bool_]:
        """Whether each norm is above lambda_ times the mean of its head:
        (layers, heads, head_dim). Entries that are not finite are not massive,
        and do not count in the mean."""
        norms = self.norms
        finite = np.isfinite(norms)
        count = finite.sum(axis=-1, keepdims=True)
        total = np.where(finite, norms, 0).sum(axis=-1, keepdims=True,
                                               dtype=np.float64)
        mean = total / np.maximum(count, 1)
        return np.asarray(finite & (mean > 0) & (norms > lambda_ * mean))

    @property
    def statistics(self) -> list[Statistics]:
        """The server's statistics by layer; of norms over tokens only."""
        return [statistics for tensor in self._tensors
                if (statistics := tensor.statistics) is not None]

    @property
    def massive_count(self) -> npt.NDArray[np.int64]:
        """(layers,)"""
        return np.array([s.massive_count for s in self.statistics], np.int64)

    @property
    def ratio(self) -> npt.NDArray[np.float32]:
        """Largest norm over the mean of its head: (layers,)"""
        return np.array([s.ratio for s in self.statistics], np.float32)

    @property
    def max(self) -> npt.NDArray[np.float32]:
        """(layers,)"""
        return np.array([s.max for s in self.statistics], np.float32)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return (f"<Captured {self.arm}/{self.label}: {self.form}, "
                f"{len(self.layers)} layers of {self._tensors[0].shape}>")


def group(tensors: Sequence[LayerResult]) -> list[Captured]:
    """Puts the layers of each point, stage, phase, step and image together."""
    groups: dict[Any, list[LayerResult]] = {}
    for tensor in tensors:
        header = tensor.header
        groups.setdefault((header.point, header.stage, header.phase,
                           tensor.step, tensor.image), []).append(tensor)
    return [Captured(members) for members in groups.values()]


def cache_dict(arm: ArmResult) -> dict[str, npt.NDArray[Any]]:
    """The arm's raw prefill tensors by TransformerLens's names and shapes."""
    cache: dict[str, npt.NDArray[Any]] = {}
    for captured in arm.captured:
        if captured.image is not None or captured.phase != "prefill":
            continue
        if captured.stage != "before":
            continue
        for layer in captured.layers:
            values = captured.layer(layer)
            if captured.form != "raw":
                raise InvalidRequest(
                    f"cache_dict: {captured.point} was captured as "
                    f"{captured.form}", remedy='ask for Capture(form="raw")')
            if captured.point == "hook_pattern":
                values = values.transpose(1, 0, 2)
            cache[f"blocks.{layer}.attn.{captured.point}"] = values[np.newaxis]
    return cache
