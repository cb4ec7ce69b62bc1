"""The matrices of a run as a report carries them: small enough for a page.

A matrix is rounded to 16 bits of its largest finite value. Where there is too
much, cells are the largest of several dims or heads, then layers are left out,
then whole tensors; `notes` says so in sentences.
"""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import numpy as np

from qkscope.plot import _data

MOST_HEADS, MOST_DIMS = 256, 1024
MOST_CELLS = 2_000_000  # in all; 2 bytes each, a third more as text
MOST_SERIES = 500
MOST_LAYERS = 512  # of one tensor
MOST_ARMS = 100
MOST_LETTERS = 120  # of an arm's name
NOT_FINITE = 65535
LARGEST = 65534


@dataclasses.dataclass
class Series:
    """One tensor of one arm, in all its layers."""

    arm: str
    label: str  # "Q (hook_rot_q), before"
    point: str
    head_word: str
    capture: Any
    layers: list[int]
    head_group: int = 1  # heads, and dims, that a cell stands for
    dim_group: int = 1

    def cells(self) -> int:
        return sum(
            -(-heads // self.head_group) * -(-dims // self.dim_group)
            for heads, dims in map(self._shape, self.layers))

    def _shape(self, layer: int) -> tuple[int, int]:
        shape = np.shape(self.capture.layer(layer))
        return int(shape[-2]), int(shape[-1])

    def fit(self) -> None:
        """Groups heads and dims until a matrix fits."""
        shapes = [self._shape(layer) for layer in self.layers]
        self.head_group = -(-max(s[0] for s in shapes) // MOST_HEADS)
        self.dim_group = -(-max(s[1] for s in shapes) // MOST_DIMS)

    def to_json(self, lambda_: float) -> dict[str, Any]:
        """What the page's script reads; see report.js."""
        layers, blobs, offset = [], [], 0
        for layer in self.layers:
            norms = _data.reduced(self.capture, layer)
            cells = pooled(norms, self.head_group, self.dim_group)
            codes, scale = quantised(cells)
            heads = _data.norms(self.capture, layer).heads
            layers.append({
                "layer": layer, "heads": cells.shape[0],
                "dims": cells.shape[1], "scale": scale, "offset": offset,
                "names": [int(h) for h in list(heads)[::self.head_group]],
                # Without a mean, the page shows no ratios.
                "means": _means(norms) if self.head_group == 1 else None,
                "massive": _data.statistic(norms, "massive_count", lambda_),
                "ratio": _finite(_data.statistic(norms, "ratio", lambda_)),
                "max": _finite(_data.statistic(norms, "max", lambda_)),
            })
            blobs.append(codes.tobytes())
            offset += codes.size
        return {"arm": self.arm, "label": self.label,
                "headWord": self.head_word, "headGroup": self.head_group,
                "dimGroup": self.dim_group, "layers": layers,
                "data": base64.b64encode(b"".join(blobs)).decode("ascii")}


def pooled(values: np.ndarray, heads: int, dims: int) -> np.ndarray:
    """The largest of each group of heads and dims; not finite if one is."""
    if heads == 1 and dims == 1:
        return values
    shown = np.where(np.isfinite(values), values, np.inf)
    for axis, group in ((0, heads), (1, dims)):
        starts = np.arange(0, shown.shape[axis], group)
        shown = np.maximum.reduceat(shown, starts, axis=axis)
    return shown


def quantised(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes of 16 bits, little-endian, and what a code of LARGEST means."""
    finite = np.isfinite(values)
    scale = float(np.abs(values[finite]).max(initial=0.0)) or 1.0
    share = np.where(finite, np.clip(values, 0, None), 0.0) / scale
    codes = np.where(finite, np.rint(share * LARGEST), NOT_FINITE)
    return codes.astype("<u2"), scale


def _means(norms: np.ndarray) -> list[float | None]:
    finite = np.isfinite(norms)
    return [_finite(row[mask].mean()) if mask.any() else None
            for row, mask in zip(norms, finite)]


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def short(name: str) -> str:
    """A name that may be long, cut."""
    return name if len(name) <= MOST_LETTERS else (
        name[:MOST_LETTERS] + "\N{HORIZONTAL ELLIPSIS}")


def shown_arms(run: Any) -> list[tuple[str, Any]]:
    """(the name that the page shows, the arm) of the arms that it has room
    for. Long names are cut, and numbered to stay different."""
    arms = _data.arms_of(run, list(run.arms)[:MOST_ARMS])
    return [(arm.name if len(arm.name) <= MOST_LETTERS
             else f"{short(arm.name)} #{number}", arm)
            for number, arm in enumerate(arms)]


def collect(run: Any) -> tuple[list[Series], list[str]]:
    """All that a report shows of a run, and notes on what it leaves out."""
    series, skipped, notes = [], [], []
    count = len(list(run.arms))
    if count > MOST_ARMS:
        notes.append(f"There is much: the page shows {MOST_ARMS} of {count} "
                     "arms.")
    for shown, arm in shown_arms(run):
        for capture in sorted(arm.captured, key=_rank):
            name = label(capture)
            reason = unshown(capture)
            if reason:
                skipped.append(f"{shown}: {name} ({reason})")
                continue
            group = int(getattr(capture, "group_size", 1) or 1)
            series.append(Series(
                shown, name, capture.point, "KV head" if group > 1
                else "head", capture, [int(n) for n in capture.layers]))
    if skipped:
        more = f" and {len(skipped) - 8} more" if len(skipped) > 8 else ""
        notes.append("Not shown: " + "; ".join(skipped[:8]) + more + ".")
    return _bounded(series, notes), notes


def _rank(capture: Any) -> tuple[bool, int]:
    """Q, K and V after RoPE come first, as a stable sort's key."""
    first = ["hook_rot_q", "hook_rot_k", "hook_v"]
    plain = (capture.stage, capture.phase) == ("before", "prefill")
    return (not plain, first.index(capture.point)
            if capture.point in first else len(first))


def label(capture: Any) -> str:
    parts = [_data.LABELS.get(capture.point, capture.point)]
    if capture.stage == "after":
        parts.append("after the disruption")
    if capture.phase != "prefill":
        parts.append(capture.phase)
    if capture.step is not None:
        parts.append(f"step {capture.step}")
    if capture.image is not None:
        parts.append(f"image {capture.image}")
    return ", ".join(parts)


def unshown(capture: Any) -> str:
    """Why a capture cannot be shown as norms, or nothing."""
    if not len(capture.layers):
        return "empty"
    if capture.form not in ("norm_over_tokens", "raw"):
        return f"captured as {capture.form}"
    if capture.point == "hook_pattern":
        return "attention's probabilities have no dims"
    for layer in capture.layers:
        shape = np.shape(capture.layer(layer))
        if len(shape) != (2 if capture.form == "norm_over_tokens" else 3):
            return f"shape {shape}"
        if 0 in shape:
            return "empty"
    return ""


def _bounded(series: list[Series], notes: list[str]) -> list[Series]:
    for one in series:
        one.fit()

    def total() -> int:
        return sum(one.cells() for one in series)

    while total() > MOST_CELLS and any(one.dim_group < 16 for one in series):
        for one in series:
            one.dim_group = min(16, one.dim_group * 2)
    step = max(-(-total() // MOST_CELLS), -(-max(
        (len(one.layers) for one in series), default=0) // MOST_LAYERS))
    if step > 1:
        for one in series:
            one.layers = one.layers[::step]
        notes.append(f"There is much: maps show one layer of {step} only.")
    shown: list[Series] = []
    cells = 0
    for one in series:
        cells += one.cells()
        if cells <= MOST_CELLS and len(shown) < MOST_SERIES:
            shown.append(one)
    if len(shown) < len(series):
        notes.append(f"There is much: maps show {len(shown)} of {len(series)} "
                     "tensors.")
    for what, group in (("dims", max((s.dim_group for s in shown), default=1)),
                        ("heads", max((s.head_group for s in shown),
                                      default=1))):
        if group > 1:
            notes.append(f"There is much: a cell of a map is the largest of up "
                         f"to {group} {what}.")
    return shown
