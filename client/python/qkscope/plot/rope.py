"""Norms before and after RoPE, beside the wavelengths of its rotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qkscope.plot import _data, _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEFORE, AFTER = "#0072B2", "#D55E00"
PAIRS = {"q": ("q_pre", "q"), "k": ("k_pre", "k")}


@_figure.draws(5.0, 2.8)
def rope(data: Any, layer: int | None = None, *, tensor: str = "q",
         arm: str | None = None, head: int | None = None, x: str = "dim",
         wavelengths: Sequence[float] | None = None, lambda_: float = 5.0,
         title: str | None = None, legend: bool = True,
         ax: Axes | None = None) -> Axes:
    """Draws the norms of each dim before and after RoPE, in one layer.

    The paper's claim that RoPE causes massive values and that they sit where it
    turns slowly (arXiv:2502.01563, its section on RoPE and the figures of its
    appendix before and after). A rotation keeps the norm of a pair of dims, i
    and i + rotary dims / 2, so the lines may differ only in how it is shared
    within a pair.

    data: a run or an arm with hook_q and hook_rot_q (tensor "q"), or hook_k and
        hook_rot_k ("k").
    y is the norm over the mean of its head (no unit): the largest over all
        heads, or that of `head`. The dashed line is lambda_.
    x: "dim", with the wavelengths of some dims above, or "wavelength", a
        logarithmic axis on which both dims of a pair share a place.
    wavelengths: tokens per turn of each pair, by frequency index. By default
        the run's model says (run.info), or else what the statistics tell,
        which is a few dims only. Dims that RoPE does not turn are shaded.
    """
    assert ax is not None
    if x not in ("dim", "wavelength"):
        raise ValueError(f"x is {x!r}; it must be 'dim' or 'wavelength'")
    if tensor not in PAIRS:
        raise ValueError(f"tensor is {tensor!r}; it must be 'q' or 'k'")
    chosen = _data.one_arm(data, arm)
    before, after = (_data.norms(chosen, layer, tensor=name)
                     for name in PAIRS[tensor])
    known, rotated = _known(data, chosen, after, wavelengths)
    lines = [_profile(matrix, head) for matrix in (before, after)]
    if x == "wavelength":
        if not rotated:
            raise ValueError("the wavelengths of all pairs are not known: give "
                             "wavelengths=..., tokens per turn of each pair")
        _over_wavelength(ax, lines, known, rotated)
    else:
        _over_dims(ax, lines, known, rotated)
    ax.axhline(lambda_, color="0.4", linestyle="--", linewidth=0.8,
               label=f"massive: over {lambda_:g}")
    ax.set_ylabel("norm / mean of its head"
                  + (", largest head" if head is None else ""))
    ax.set_ylim(bottom=0)
    where = f"{tensor.upper()}, layer {after.layer}" + (
        "" if head is None else f", head {head}")
    _figure.set_title(ax, title, where)
    if legend:
        _figure.add_legend(ax)
    return ax


def _profile(matrix: _data.Norms, head: int | None) -> np.ndarray:
    """(dims,): the largest finite ratio over heads, NaN without any."""
    ratio = _data.ratios(matrix.values)
    heads = list(matrix.heads)
    if head is not None and head not in heads:
        raise ValueError(f"{matrix.tensor} has no head {head}; it has "
                         f"{len(heads)}, the last is {heads[-1]}")
    chosen = ratio if head is None else ratio[[heads.index(head)]]
    return np.where(np.isnan(chosen).all(axis=0), np.nan,
                    np.nan_to_num(chosen, nan=-np.inf).max(axis=0))


def _known(data: Any, arm: Any, after: _data.Norms,
           wavelengths: Sequence[float] | None
           ) -> tuple[dict[int, float], int]:
    """The wavelengths that are known, by dim, and how many dims RoPE turns; 0
    if not all of them are known."""
    dims = after.values.shape[1]
    pairs = wavelengths if wavelengths is not None else _of_model(
        getattr(data, "info", None), after.layer)
    if pairs is not None:
        pairs = [float(value) for value in pairs]
        if not pairs or 2 * len(pairs) > dims or not all(
                np.isfinite(w) and w > 0 for w in pairs):
            raise ValueError(f"wavelengths are {len(pairs)} numbers; they must "
                             f"be 1 to {dims // 2} positive ones, one per pair "
                             f"of the {dims} dims")
        return ({half * len(pairs) + i: w for half in (0, 1)
                 for i, w in enumerate(pairs)}, 2 * len(pairs))
    known: dict[int, float] = {}
    captures = (_data.find(arm, name) for pair in PAIRS.values()
                for name in pair)
    for entry in (e for capture in captures
                  for s in getattr(capture, "statistics", None) or ()
                  if s is not None and int(s.layer) == after.layer
                  for e in [*s.top, s.largest] if e is not None):
        if (entry.wavelength is not None and 0 <= entry.dim < dims
                and np.isfinite(entry.wavelength) and entry.wavelength > 0):
            known[int(entry.dim)] = float(entry.wavelength)
    return known, 0


def _of_model(info: Any, layer: int | None) -> Sequence[float] | None:
    """The wavelengths of a layer, of a ModelInfo message."""
    if info is None or layer is None or layer >= len(info.layers):
        return None
    of_layer = info.layers[layer]
    if not of_layer.HasField("rope") or of_layer.rope >= len(info.rope):
        return None
    return list(info.rope[of_layer.rope].wavelengths) or None


def _over_dims(axes: Axes, lines: list[np.ndarray], known: dict[int, float],
               rotated: int) -> None:
    dims = len(lines[0])
    axes.plot(range(dims), lines[0], color=BEFORE, marker="o",
              markerfacecolor="white", label="before RoPE")
    axes.plot(range(dims), lines[1], color=AFTER, marker="s", markersize=2.5,
              label="after RoPE")
    axes.set_xlim(-0.5, dims - 0.5)
    axes.set_xticks(*_figure.thinned(range(dims), 9))
    axes.set_xlabel("dim")
    if 0 < rotated < dims:
        axes.axvspan(rotated - 0.5, dims - 0.5, color="0.9", linewidth=0,
                     label="not rotated")
    if not known:
        return
    shown = _spread(sorted(known), 8, dims)
    top = axes.secondary_xaxis("top")
    top.set_xticks(shown, [_tokens(known[dim]) for dim in shown])
    top.tick_params(labelsize=7, length=2.5, width=0.7)
    top.set_xlabel("wavelength, tokens")


def _over_wavelength(axes: Axes, lines: list[np.ndarray],
                     known: dict[int, float], rotated: int) -> None:
    half = rotated // 2
    at = [known[i] for i in range(half)]
    for line, colour, marker, label in ((lines[0], BEFORE, "o", "before RoPE"),
                                        (lines[1], AFTER, "s", "after RoPE")):
        for begin, style in ((0, "-"), (half, ":")):
            axes.plot(at, line[begin:begin + half], style, color=colour,
                      marker=marker, markersize=2.5,
                      label=f"{label}, dims {begin} to {begin + half - 1}")
    axes.set_xscale("log")
    axes.set_xlabel("wavelength, tokens")


def _spread(dims: list[int], most: int, width: int) -> list[int]:
    """Some of the dims, no two of them so close that labels would touch."""
    shown: list[int] = []
    for dim in dims:
        if not shown or dim - shown[-1] >= width / most:
            shown.append(dim)
    return shown


def _tokens(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
