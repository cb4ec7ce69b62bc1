"""What pictures read: matrices of norms out of runs, arms, captures, arrays.

Every function that finds nothing to draw raises ValueError with a sentence that
says what is there instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from qkscope.plot import _figure

POINTS = {"q": "hook_rot_q", "k": "hook_rot_k", "v": "hook_v",
          "q_pre": "hook_q", "k_pre": "hook_k", "z": "hook_z"}
LABELS = {"hook_rot_q": "Q", "hook_rot_k": "K", "hook_v": "V",
          "hook_q": "Q before RoPE", "hook_k": "K before RoPE",
          "hook_z": "attention's output"}


@dataclasses.dataclass(frozen=True)
class Norms:
    """A (heads, dims) matrix of norms over tokens, of one layer."""

    values: np.ndarray  # (heads, dims), float64
    heads: Sequence[int]  # the numbers of the heads
    tensor: str  # "Q"
    layer: int | None
    arm: str
    group_size: int = 1  # query heads per head

    @property
    def head_word(self) -> str:
        return "KV head" if self.group_size > 1 else "head"

    @property
    def title(self) -> str:
        parts = [self.tensor]
        if self.layer is not None:
            parts.append(f"layer {self.layer}")
        return ", ".join(filter(None, [*parts, _figure.plain(self.arm)]))


def is_run(data: Any) -> bool:
    return hasattr(data, "token_ids") and hasattr(data, "arms")


def is_arm(data: Any) -> bool:
    return hasattr(data, "captured") and hasattr(data, "name")


def is_captured(data: Any) -> bool:
    return hasattr(data, "layers") and hasattr(data, "point")


def point_name(tensor: str) -> str:
    name = POINTS.get(tensor.lower(), tensor.lower())
    if name not in LABELS:
        raise ValueError(f"tensor is {tensor!r}; it must be one of "
                         f"{', '.join([*POINTS, *LABELS])}")
    return name


def arms_of(data: Any, names: Sequence[str] | None = None) -> list[Any]:
    """The arms of a run, those with the given names or all; an arm alone."""
    if is_arm(data):
        return [data]
    if not is_run(data):
        raise ValueError("this picture needs a run or one of its arms, not "
                         f"{type(data).__name__}")
    there = list(data.arms)
    for name in names or ():
        if name not in there:
            raise ValueError(f"the run has no arm {name!r}; it has "
                             f"{', '.join(there) or 'none'}")
    if not there:
        raise ValueError("the run has no arms")
    return [data[name] for name in (names or there)]


def one_arm(data: Any, name: str | None) -> Any:
    """The arm with this name; without a name the baseline, else the first."""
    if name is None and is_run(data) and len(list(data.arms)):
        baseline = getattr(data, "baseline", None)
        name = getattr(baseline, "name", baseline)
    return arms_of(data, None if name is None else [name])[0]


def find(arm: Any, tensor: str, stage: str = "before") -> Any | None:
    """The arm's capture of that tensor over the prompt, or None."""
    name = point_name(tensor)
    return next((c for c in arm.captured if c.point == name
                 and c.stage == stage and c.phase == "prefill"
                 and c.step is None and c.image is None and len(c.layers)),
                None)


def captured(data: Any, *, tensor: str, arm: str | None, stage: str) -> Any:
    """The capture that a picture of one tensor shows."""
    if is_captured(data):
        if not len(data.layers):
            raise ValueError(f"the capture of {data.point} is empty")
        return data
    chosen = one_arm(data, arm)
    found = find(chosen, tensor, stage)
    if found is None:
        there = sorted({f"{c.point} ({c.stage}, {c.phase})"
                        for c in chosen.captured if len(c.layers)})
        raise ValueError(f"arm {chosen.name!r} has no {point_name(tensor)} "
                         f"({stage}, prefill); it has "
                         f"{', '.join(there) or 'no captured values'}")
    return found


def reduced(capture: Any, layer: int) -> np.ndarray:
    """One layer's (heads, dims) norms over tokens, float64. Raw values
    (positions, heads, dims) are summed here."""
    values = np.asarray(capture.layer(layer))
    if capture.form == "raw" and values.ndim == 3:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.sqrt(np.square(
                values.astype(np.float64)).sum(axis=0)))
    if capture.form != "norm_over_tokens" or values.ndim != 2:
        raise ValueError(f"{capture.point} was captured as {capture.form}, "
                         f"shape {values.shape}; this picture needs "
                         "norm_over_tokens or raw")
    return values.astype(np.float64)


def one_layer(capture: Any, layer: int | None) -> int:
    layers = [int(number) for number in capture.layers]
    if layer is None and len(layers) == 1:
        return layers[0]
    if layer is not None and layer in layers:
        return int(layer)
    asked = "say which one, layer=..." if layer is None else f"not {layer}"
    raise ValueError(f"{capture.point} has {ranges(layers)}: {asked}")


def ranges(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"layers {numbers[0]} to {numbers[-1]}"
    return "layers " + ", ".join(map(str, numbers))


def norms(data: Any, layer: int | None = None, *, tensor: str = "q",
          arm: str | None = None, stage: str = "before") -> Norms:
    """The matrix of one layer, out of a run, an arm, a capture or an array."""
    if not (is_run(data) or is_arm(data) or is_captured(data)):
        return _from_array(data)
    capture = captured(data, tensor=tensor, arm=arm, stage=stage)
    number = one_layer(capture, layer)
    values = reduced(capture, number)
    if not values.size:
        raise ValueError(f"{capture.point} of layer {number} is empty: shape "
                         f"{values.shape}")
    heads = _heads(capture, values.shape[0])
    name = "" if is_captured(data) else one_arm(data, arm).name
    label = LABELS.get(capture.point, capture.point)
    if stage == "after" and not is_captured(data):
        label += " after"
    return Norms(values, heads, label, number, name,
                 int(getattr(capture, "group_size", 1) or 1))


def _heads(capture: Any, count: int) -> Sequence[int]:
    given = getattr(capture, "heads", None)
    if given is not None and len(given) == count:
        return [int(head) for head in given]
    return range(count)


def _from_array(data: Any) -> Norms:
    try:
        values = np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("a picture needs a run, an arm, a capture or a "
                         "(heads, dims) array of numbers, not "
                         f"{type(data).__name__}") from None
    if values.ndim != 2 or not values.size:
        raise ValueError("an array of norms has shape (heads, dims), not "
                         f"{values.shape}")
    return Norms(values, range(values.shape[0]), "", None, "")


def ratios(values: np.ndarray) -> np.ndarray:
    """Each norm over the mean of its head's finite norms. NaN where the norm
    is not finite; 0 in a head whose mean is 0."""
    finite = np.isfinite(values)
    count = finite.sum(axis=-1, keepdims=True)
    total = np.where(finite, values, 0).sum(axis=-1, keepdims=True)
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    out = np.where(finite, 0.0, np.nan)
    np.divide(values, mean, out=out, where=finite & (mean > 0))
    return out


def massive(values: np.ndarray, lambda_: float) -> np.ndarray:
    """Which norms are over lambda_ times the mean of their head."""
    with np.errstate(invalid="ignore"):
        return ratios(values) > lambda_


def statistic(values: np.ndarray, name: str, lambda_: float) -> float:
    """One of by_layer's statistics, of one matrix."""
    ratio = ratios(values)
    finite = np.isfinite(values)
    if name == "massive_count":
        return float(massive(values, lambda_).sum())
    if name == "non_finite_count":
        return float(values.size - finite.sum())
    if not finite.any():
        return float("nan")
    return float(np.nanmax(ratio if name == "ratio" else
                           np.where(finite, values, np.nan)))
