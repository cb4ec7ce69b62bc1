"""All layers: the dims of one head, statistics by layer, distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qkscope.plot import _data, _figure
from qkscope.plot.heads import NORM, RATIO, frame_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATISTICS = {
    "massive_count": "massive values",
    "ratio": "largest norm / mean of its head",
    "max": "largest norm over tokens",
    "low_frequency_share": "share of massive values in slow dims",
    "non_finite_count": "norms that are not finite",
}
ALL = ("q", "k", "v")
LINES = ("-", "--", ":", "-.")


@_figure.draws(_figure.COLUMN, 3.0)
def layers(data: Any, head: int, *, tensor: str = "q", arm: str | None = None,
           stage: str = "before", relative: bool = True,
           lambda_: float | None = None, vmin: float | None = None,
           vmax: float | None = None, cmap: str = _figure.HEAT,
           cbar: bool = True, title: str | None = None,
           ax: Axes | None = None) -> Axes:
    """Draws the norms of one head in all captured layers, layers x dims.

    Shows that massive values keep to the same dims from the first layers on
    (the paper's sections on RoPE, arXiv:2502.01563). Colours are each norm over
    the mean of its head (no unit), so that layers can be compared, or with
    relative=False the L2 norm over tokens. Layers may differ in shape: what a
    layer does not have is hatched. The options are those of heatmap().
    """
    assert ax is not None
    capture = _data.captured(data, tensor=tensor, arm=arm, stage=stage)
    numbers = [int(number) for number in capture.layers]
    rows = [_row(capture, number, head) for number in numbers]
    if all(row is None for row in rows):
        heads = _data.norms(capture, numbers[0]).heads
        raise ValueError(f"{capture.point} has no head {head}; it has "
                         f"{len(heads)}, the last is {heads[-1]}")
    width = max(len(row) for row in rows if row is not None)
    values = np.full((len(rows), width), np.nan)
    there = np.zeros(values.shape, dtype=bool)
    for place, row in enumerate(rows):
        if row is not None:
            values[place, :len(row)] = row
            there[place, :len(row)] = True
    shown = _data.ratios(values) if relative else values
    image = _figure.show_image(
        ax, shown, _figure.colour_limits(shown, vmin, vmax), cmap)
    _hatch(ax, there)
    if lambda_ is not None:
        frame_cells(ax, np.argwhere(_data.massive(values, lambda_))[:, ::-1])
    ax.set_xticks(*_figure.thinned(range(width), 9))
    ax.set_yticks(*_figure.thinned(numbers, 16))
    ax.set_xlabel("dim")
    ax.set_ylabel("layer")
    label = _data.LABELS.get(capture.point, capture.point)
    _figure.set_title(ax, title, f"{label}, head {head}")
    if cbar:
        _figure.colour_bar(ax, image, shown[there], RATIO if relative else NORM)
    return ax


def _row(capture: Any, layer: int, head: int) -> np.ndarray | None:
    matrix = _data.norms(capture, layer)
    heads = list(matrix.heads)
    row: np.ndarray | None = None
    if head in heads:
        row = matrix.values[heads.index(head)]
    return row


def _hatch(axes: Axes, there: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    for row, mask in enumerate(there):
        count = int(mask.sum())
        if count < len(mask):
            axes.add_patch(Rectangle(
                (count - 0.5, row - 0.5), len(mask) - count, 1, hatch="////",
                facecolor="white", edgecolor="0.75", linewidth=0))


@_figure.draws(5.0, 2.8)
def by_layer(data: Any, y: str = "massive_count", *,
             arms: Sequence[str] | None = None,
             tensors: Sequence[str] | None = None, stage: str = "before",
             lambda_: float | None = None, title: str | None = None,
             legend: bool = True, ax: Axes | None = None) -> Axes:
    """Draws one statistic layer by layer, a line per tensor and arm.

    By default the number of massive values: the paper's claim that Q and K have
    them in every layer and V none (arXiv:2502.01563), in numbers.

    data: a run or one of its arms. arms: all by default. tensors: those of q, k
        and v that were captured by default.
    y: massive_count (entries), ratio (no unit), max (L2 norm over tokens),
        low_frequency_share (0 to 1; only as the server computed it), or
        non_finite_count (entries).
    lambda_: what massive means. By default the server's statistics are shown,
        which used the request's lambda, and 5 where there are none.

    A line has a gap where the statistic is not finite or does not exist.
    """
    assert ax is not None
    if y not in STATISTICS:
        raise ValueError(f"y is {y!r}; it must be one of "
                         f"{', '.join(STATISTICS)}")
    chosen = _data.arms_of(data, arms)
    names = tensors or [t for t in ALL
                        if any(_data.find(arm, t, stage) for arm in chosen)]
    if not names:
        _data.captured(chosen[0], tensor="q", arm=None, stage=stage)
    colours = {**_figure.TENSORS}
    for place, arm in enumerate(chosen):
        for name in names:
            if tensors is None and _data.find(arm, name, stage) is None:
                continue
            capture = _data.captured(arm, tensor=name, arm=None, stage=stage)
            label = _data.LABELS.get(capture.point, capture.point)
            colour = colours.setdefault(label, _figure.PALETTE[
                len(colours) % len(_figure.PALETTE)])
            ax.plot(capture.layers, _values(capture, y, lambda_),
                    LINES[place % len(LINES)], color=colour,
                    marker=_figure.MARKERS[place % len(_figure.MARKERS)],
                    markerfacecolor=colour if place == 0 else "white",
                    clip_on=False,  # a marker at 0 is seen whole
                    label=label if len(chosen) == 1
                    else f"{label}, {_figure.plain(arm.name)}")
    _figure.whole_numbers(ax.xaxis)
    ax.set_xlabel("layer")
    ax.set_ylabel(STATISTICS[y])
    if y.endswith("_count"):
        _figure.whole_numbers(ax.yaxis)
        ax.set_ylim(bottom=0)
    elif y == "low_frequency_share":
        ax.set_ylim(-0.03, 1.03)
    _figure.set_title(ax, title)
    if legend:
        _figure.add_legend(ax)
    return ax


def _values(capture: Any, name: str, lambda_: float | None) -> list[float]:
    known = {int(s.layer): s for s in getattr(capture, "statistics", None)
             or () if s is not None} if lambda_ is None else {}
    values = []
    for layer in capture.layers:
        if int(layer) in known:
            value = getattr(known[int(layer)], name, None)
            values.append(np.nan if value is None else float(value))
        elif name == "low_frequency_share":
            values.append(np.nan)
        else:
            values.append(_data.statistic(
                _data.reduced(capture, layer), name, lambda_ or 5.0))
    return values


@_figure.draws(_figure.COLUMN, 2.6)
def ratio_distribution(data: Any, layer: int | None = None, *,
                       arms: Sequence[str] | None = None,
                       tensors: Sequence[str] | None = None,
                       stage: str = "before", kind: str = "survival",
                       bins: int = 40, lambda_: float = 5.0,
                       title: str | None = None, legend: bool = True,
                       ax: Axes | None = None) -> Axes:
    """Draws how the norms of all (head, dim) entries, over the mean of their
    head, are distributed: Q and K have a long tail, V has none.

    Not in the paper (arXiv:2502.01563); it shows that its lambda of 5, the
    dashed line, cuts a tail off rather than a slope.

    kind: "survival" is the share of entries above x, both axes logarithmic;
        "hist" the number of entries per bin (`bins` equal bins over all
        tensors). x has no unit.
    layer: all captured ones by default. arms: the baseline by default.
    Entries that are not finite are left out; the legend says how many.
    """
    assert ax is not None
    if kind not in ("survival", "hist"):
        raise ValueError(f"kind is {kind!r}; it must be 'survival' or 'hist'")
    chosen = (_data.arms_of(data, arms) if arms is not None
              else [_data.one_arm(data, None)])
    series = _ratio_series(chosen, tensors, stage, layer)
    top = max([lambda_, *(values.max() for _, _, values, _ in series
                          if values.size)])
    for place, colour, values, label in series:
        style = LINES[place % len(LINES)]
        if kind == "hist":
            ax.hist(values, bins=bins, range=(0, top), histtype="step",
                    color=colour, linestyle=style, label=label)
        elif values.size:
            at, counts = np.unique(values[values > 0], return_counts=True)
            above = counts.sum() - np.cumsum(counts) + counts
            # The share of entries that are at least `at`.
            ax.plot(at, above / values.size, style, color=colour, label=label,
                    drawstyle="steps-pre")
    ax.axvline(lambda_, color="0.4", linestyle="--", linewidth=0.8,
               label=f"massive: over {lambda_:g}")
    ax.set_yscale("log")
    if kind == "survival":
        ax.set_xscale("log")
        _plain_log_ticks(ax.xaxis)
    ax.set_xlabel(RATIO)
    ax.set_ylabel("share of entries above" if kind == "survival"
                  else "entries")
    _figure.set_title(ax, title)
    if legend:
        _figure.add_legend(ax)
    return ax


def _plain_log_ticks(axis: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _ratio_series(arms: Sequence[Any], tensors: Sequence[str] | None,
                  stage: str, layer: int | None
                  ) -> list[tuple[int, str, np.ndarray, str]]:
    """(arm's place, colour, finite ratios, label) of each line."""
    series = []
    for place, arm in enumerate(arms):
        names = tensors or [t for t in ALL if _data.find(arm, t, stage)] or "q"
        for name in names:
            capture = _data.captured(arm, tensor=name, arm=None, stage=stage)
            numbers = (capture.layers if layer is None
                       else [_data.one_layer(capture, layer)])
            found = np.concatenate([_data.ratios(_data.reduced(
                capture, number)).ravel() for number in numbers])
            label = _data.LABELS.get(capture.point, capture.point)
            colour = _figure.TENSORS.get(label, _figure.PALETTE[3])
            if len(arms) > 1:
                label += f", {_figure.plain(arm.name)}"
            bad = int(np.isnan(found).sum())
            if bad:
                label += f" ({bad} not finite)"
            series.append((place, colour, found[~np.isnan(found)], label))
    return series
