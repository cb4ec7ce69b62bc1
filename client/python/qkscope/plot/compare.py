"""What two runs or arms differ in: norms, and predictions by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qkscope.plot import _data, _figure
from qkscope.plot.heads import NORM, RATIO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KL = "KL from {baseline}, nats"
MOST_MARKED = 200  # positions; markers of more would hide the line
LOGPROB = "log-probability of the token, nats"


@_figure.draws(_figure.COLUMN, 3.0)
def difference(data: Any, other: Any = None, layer: int | None = None, *,
               arms: Sequence[str] | None = None, tensor: str = "q",
               stage: str = "before", relative: bool = False,
               orient: str = "v", vmax: float | None = None,
               cmap: str = _figure.DIVERGING, cbar: bool = True,
               title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draws other minus data in one layer, a cell per (head, dim): red where
    `other` is larger, blue where it is smaller, white where they are equal.

    For example a quantised model against the full one (the paper's claim 3,
    arXiv:2502.01563), or stage="after" of a disrupted arm against the clean
    one.

    data, other: runs, arms, captures or (heads, dims) arrays. Without `other`,
        two arms of one run, by name: arms=("clean", "top_k:1"). With two runs,
        `arms` names an arm of each; their baselines by default.
    relative: differences of norm / mean of its head (no unit), instead of the
        L2 norm over tokens.
    vmax: the limit of the colours on both sides; the largest difference by
        default.

    If one of the two has KV heads and the other query heads, each KV head is
    repeated. Where either is not finite the cell is grey.
    """
    assert ax is not None
    if orient not in ("v", "h"):
        raise ValueError(f"orient is {orient!r}; it must be 'v' or 'h'")
    if arms is not None and len(arms) != 2:
        raise ValueError(f"arms has {len(arms)} names; it must have two")
    if other is None:
        if arms is None:
            raise ValueError("a difference needs two things: give `other`, or "
                             "two arms of the run, arms=(A, B)")
        other = data
    names = arms or (None, None)
    first, second = (_data.norms(one, layer, tensor=tensor, arm=name,
                                 stage=stage)
                     for one, name in zip((data, other), names))
    first, second = _same_heads(first, second)
    left, right = (_data.ratios(matrix.values) if relative else matrix.values
                   for matrix in (first, second))
    with np.errstate(invalid="ignore"):
        values = right - left
    finite = np.abs(values[np.isfinite(values)])
    limit = vmax if vmax is not None else float(finite.max(initial=0)) or 1.0
    limits = _figure.colour_limits(values, -limit, limit)
    upright = orient == "v"
    image = _figure.show_image(ax, values.T if upright else values, limits,
                               cmap)
    heads, dims = (ax.xaxis, ax.yaxis) if upright else (ax.yaxis, ax.xaxis)
    heads.set_ticks(*_figure.thinned(list(first.heads), 9))
    dims.set_ticks(*_figure.thinned(range(values.shape[1]), 9))
    heads.set_label_text(first.head_word)
    dims.set_label_text("dim")
    _figure.set_title(ax, title, _title(first, second))
    if cbar:
        _figure.colour_bar(ax, image, values, "difference of "
                           + (RATIO if relative else NORM))
    return ax


def _same_heads(first: _data.Norms, second: _data.Norms
                ) -> tuple[_data.Norms, _data.Norms]:
    """Both with the same heads; KV heads are repeated for query heads."""
    pair = [first, second]
    for place, (few, many) in enumerate(((first, second), (second, first))):
        copies = len(many.heads) // max(len(few.heads), 1)
        if (few.group_size > 1 and many.group_size == 1
                and copies == few.group_size
                and copies * len(few.heads) == len(many.heads)):
            pair[place] = _data.Norms(
                np.repeat(few.values, copies, axis=0), many.heads, few.tensor,
                few.layer, few.arm)
    if pair[0].values.shape != pair[1].values.shape:
        raise ValueError(
            f"the two have different shapes, {first.values.shape} and "
            f"{second.values.shape} (heads, dims), so there is no difference")
    return pair[0], pair[1]


def _title(first: _data.Norms, second: _data.Norms) -> str:
    parts = [first.tensor] if first.tensor else []
    if first.layer is not None:
        parts.append(f"layer {first.layer}")
    if first.arm and second.arm and first.arm != second.arm:
        parts.append(f"{_figure.plain(second.arm, 24)} \N{MINUS SIGN} "
                     f"{_figure.plain(first.arm, 24)}")
    return ", ".join(parts)


@_figure.draws(_figure.PAGE, 2.4)
def by_position(data: Any, y: str = "kl", *,
                arms: Sequence[str] | None = None,
                tokens: Sequence[str] | None = None, log: bool = False,
                title: str | None = None, legend: bool = True,
                ax: Axes | None = None) -> Axes:
    """Draws, position by position, what an arm does to the predictions.

    Not in the paper (arXiv:2502.01563), which has accuracies only; this shows
    where in the prompt they come from.

    y: "kl" is KL(baseline || arm) of the next token's distribution after each
        position, in nats; filled markers are positions whose most likely next
        token has changed (of more than 200 positions, only these have
        markers). "logprob" is the log-probability of the prompt's own
        token given those before it, in nats, from position 1 on, the
        baseline's too. Rules that choose by the whole prompt are not causal: a
        token has then seen later ones.
    data: a run, or an arm of one. arms: those that were compared by default,
        without the baseline for "kl".
    tokens: texts for the ticks, one per position; positions by default.
    log: a logarithmic y axis, for "kl"; zeros have no place on it.

    Gaps are positions whose logits are not finite.
    """
    assert ax is not None
    if y not in ("kl", "logprob"):
        raise ValueError(f"y is {y!r}; it must be 'kl' or 'logprob'")
    if log and y == "logprob":
        raise ValueError("log-probabilities are negative: log=True is for 'kl'")
    chosen, baseline = _compared(data, y, arms)
    colours = _figure.arm_colours(_data.arms_of(data))
    length = 0
    for place, arm in enumerate(chosen):
        values = np.asarray(getattr(arm.comparison, "kl" if y == "kl"
                                    else "token_logprob"), dtype=float)
        length = max(length, len(values))
        at = np.arange(len(values))[y == "logprob":]
        values = np.where(np.isfinite(values), values, np.nan)
        style: dict[str, Any] = dict(
            color=colours[arm.name], label=_figure.plain(arm.name),
            marker=_figure.MARKERS[place % len(_figure.MARKERS)])
        if len(values) > MOST_MARKED:
            style.update(marker="", linewidth=0.6)
        if y == "logprob":
            ax.plot(at, values[1:], **style)
            continue
        ax.plot(at, values, markerfacecolor="white", **style)
        flips = np.flatnonzero(np.asarray(
            arm.comparison.top1_flip, bool)[:len(values)])
        ax.plot(flips, values[flips], linestyle="", color=style["color"],
                marker=style["marker"] or ".", label="_flips")
    if log:
        ax.set_yscale("log")
    elif y == "kl":
        ax.set_ylim(bottom=0)
    _position_ticks(ax, length, tokens)
    ax.set_ylabel(LOGPROB if y == "logprob" else
                  KL.format(baseline=_figure.plain(baseline, 24)))
    _figure.set_title(ax, title)
    if legend:
        _figure.add_legend(ax)
    return ax


def _compared(data: Any, y: str, names: Sequence[str] | None
              ) -> tuple[list[Any], str]:
    """The arms to draw, and the baseline's name."""
    arms = _data.arms_of(data, names)
    there = [arm for arm in arms if arm.comparison is not None]
    if names is not None and len(there) < len(arms):
        missing = next(arm for arm in arms if arm.comparison is None)
        raise ValueError(f"arm {missing.name!r} was not compared: analyze with "
                         "compare=True")
    if names is None and y == "kl" and not _data.is_arm(data):
        there = [arm for arm in there if arm.comparison.baseline != arm.name]
    if not there:
        raise ValueError("no arm was compared with another: a comparison needs "
                         "two arms or more")
    return there, there[0].comparison.baseline


def _position_ticks(axes: Axes, length: int,
                    tokens: Sequence[str] | None) -> None:
    axes.set_xlim(-0.5, max(length, 1) - 0.5)
    if tokens is None:
        _figure.whole_numbers(axes.xaxis)
        axes.set_xlabel("position")
        return
    if len(tokens) != length:
        raise ValueError(f"tokens has {len(tokens)} texts for {length} "
                         "positions")
    places, labels = _figure.thinned(list(tokens), 64)
    axes.set_xticks(places, [_figure.plain(label.strip(), 16) or "\N{OPEN BOX}"
                             for label in labels], rotation=90)
    axes.set_xlabel("token")
