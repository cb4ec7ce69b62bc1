"""One layer's norms: heads x dims, flat or as a surface; Q, K and V side by
side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qkscope.plot import _data, _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mpl_toolkits.mplot3d import Axes3D

NORM = "L2 norm over tokens"
RATIO = "norm / mean of its head"


def _shown(matrix: _data.Norms, relative: bool) -> np.ndarray:
    return _data.ratios(matrix.values) if relative else matrix.values


def _head_ticks(axis: Any, matrix: _data.Norms, most: int) -> None:
    axis.set_ticks(*_figure.thinned(list(matrix.heads), most))


def _dim_ticks(axis: Any, dims: int) -> None:
    axis.set_ticks(*_figure.thinned(range(dims), 9))


def frame_cells(axes: Axes, cells: np.ndarray) -> None:
    """Frames cells, given as (column, row)."""
    from matplotlib.patches import Rectangle

    for x, y in cells:
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False,
                                 edgecolor=_figure.MASSIVE, linewidth=1))


@_figure.draws(_figure.COLUMN, 3.0)
def heatmap(data: Any, layer: int | None = None, *, tensor: str = "q",
            arm: str | None = None, stage: str = "before",
            relative: bool = False, lambda_: float | None = None,
            orient: str = "v", vmin: float | None = None,
            vmax: float | None = None, cmap: str = _figure.HEAT,
            cbar: bool = True, title: str | None = None,
            ax: Axes | None = None) -> Axes:
    """Draws the norms of one layer as a heat map, a cell per (head, dim).

    The paper's figure of Q, K and V (arXiv:2502.01563; its "layer 10" is layer
    9 here, since layers count from 0), and those of its appendix: heads from
    left to right, dims from top to bottom, colours from 0.

    data: a run, an arm, a capture (norms over tokens, or raw values, which are
        summed here), or a (heads, dims) array of norms.
    layer: which one; needed unless there is one only.
    tensor, arm, stage: which capture of a run or an arm. tensor is q, k, v,
        q_pre, k_pre, z, or a hook point's name; arm is the baseline by
        default.
    relative: shows each norm over the mean of its head (no unit), instead of
        the L2 norm over tokens (the unit of the activations).
    lambda_: frames the massive entries: over lambda_ times the mean of their
        head. The paper's is 5.
    orient: "v" is the paper's; "h" has dims from left to right.
    vmin, vmax: limits of the colours; 0 and the largest norm by default.

    Norms that are not finite are grey, and the colour bar counts them.
    """
    if orient not in ("v", "h"):
        raise ValueError(f"orient is {orient!r}; it must be 'v' or 'h'")
    assert ax is not None
    matrix = _data.norms(data, layer, tensor=tensor, arm=arm, stage=stage)
    values = _shown(matrix, relative)
    limits = _figure.colour_limits(values, vmin, vmax)
    upright = orient == "v"
    image = _figure.show_image(ax, values.T if upright else values, limits,
                               cmap)
    if lambda_ is not None:
        cells = np.argwhere(_data.massive(matrix.values, lambda_))
        frame_cells(ax, cells if upright else cells[:, ::-1])
    heads, dims = (ax.xaxis, ax.yaxis) if upright else (ax.yaxis, ax.xaxis)
    _head_ticks(heads, matrix, 9)
    _dim_ticks(dims, values.shape[1])
    heads.set_label_text(matrix.head_word)
    dims.set_label_text("dim")
    _figure.set_title(ax, title, matrix.title)
    if cbar:
        _figure.colour_bar(ax, image, values, RATIO if relative else NORM)
    return ax


@_figure.draws(_figure.COLUMN, 3.0, projection="3d")
def surface(data: Any, layer: int | None = None, *, tensor: str = "q",
            arm: str | None = None, stage: str = "before",
            relative: bool = False, vmin: float | None = None,
            vmax: float | None = None, cmap: str = _figure.HEAT,
            elev: float = 28, azim: float = -58, title: str | None = None,
            ax: Axes | None = None) -> Axes:
    """Draws the norms of one layer as a surface over heads and dims.

    The same data as heatmap(), in the paper's three-dimensional form
    (arXiv:2502.01563, the figure that compares Q and K with V). Massive values
    stand as a ridge: the same dims in all heads. Height and colour are the L2
    norm over tokens, or with `relative` the norm over the mean of its head.
    vmin and vmax limit both. Norms that are not finite are holes.

    `ax` must have been made with projection="3d". The other options are those
    of heatmap(); elev and azim, in degrees, say where one looks from.
    """
    assert ax is not None
    if getattr(ax, "name", "") != "3d":
        raise ValueError("surface() needs axes made with projection='3d'")
    space: Axes3D = ax
    matrix = _data.norms(data, layer, tensor=tensor, arm=arm, stage=stage)
    values = _shown(matrix, relative)
    limits = _figure.colour_limits(values, vmin, vmax)
    _plateaus(space, values, limits, cmap)
    space.set_zlim(*limits)
    _head_ticks(space.xaxis, matrix, 6)
    space.yaxis.set_ticks(*_figure.thinned(range(values.shape[1]), 5))
    space.set_xlabel(matrix.head_word)
    space.set_ylabel("dim")
    space.set_zlabel(RATIO if relative else NORM)
    space.view_init(elev=elev, azim=azim)
    space.set_box_aspect(None, zoom=0.86)
    _figure.set_title(ax, title, matrix.title)
    return ax


def _plateaus(space: Axes3D, values: np.ndarray, limits: tuple[float, float],
              cmap: str) -> None:
    """A plateau per entry, and walls in the colour of what they lead up to."""
    import matplotlib

    heights = np.where(np.isfinite(values), np.clip(values, *limits), np.nan)
    heights = heights.repeat(2, axis=0).repeat(2, axis=1)
    x, y = (np.arange(count).repeat(2) + np.tile([-0.45, 0.45], count)
            for count in values.shape)
    head, dim = np.meshgrid(x, y, indexing="ij")
    top = np.max([heights[:-1, :-1], heights[1:, :-1], heights[:-1, 1:],
                  heights[1:, 1:]], axis=0)
    colours = matplotlib.colormaps[cmap](
        (top - limits[0]) / (limits[1] - limits[0]))
    space.plot_surface(head, dim, heights, facecolors=colours, shade=False,
                       rcount=len(x), ccount=len(y), linewidth=0,
                       antialiased=False)


def qkv(data: Any, layer: int | None = None, *, arm: str | None = None,
        tensors: Sequence[str] = ("q", "k", "v"), kind: str = "heatmap",
        stage: str = "before", relative: bool = False,
        vmax: float | None = None, cmap: str = _figure.HEAT,
        lambda_: float | None = None, suptitle: str | None = None,
        ax: Sequence[Axes] | None = None) -> np.ndarray:
    """Draws Q, K and V of one layer side by side on one scale.

    The paper's main figure (arXiv:2502.01563): massive values are in Q and K,
    and not in V. A figure-level function: without `ax` it makes a figure, with
    `ax` it takes one axes per tensor; it returns an array of them. kind is
    "heatmap" or "surface"; the other options are theirs. A tensor that was not
    captured leaves a sentence in its place; without any, ValueError.
    """
    if kind not in ("heatmap", "surface"):
        raise ValueError(f"kind is {kind!r}; it must be 'heatmap' or "
                         "'surface'")
    chosen = _data.one_arm(data, arm)
    matrices = {name: _data.norms(chosen, layer, tensor=name, stage=stage)
                for name in tensors if _data.find(chosen, name, stage)}
    if not matrices:
        _data.norms(chosen, layer, tensor=tensors[0], stage=stage)
    if ax is not None and len(ax) != len(tensors):
        raise ValueError(f"ax has {len(ax)} axes for {len(tensors)} tensors")
    # One layer for all that are there, and one scale.
    number = next(iter(matrices.values())).layer
    limits = _figure.colour_limits(np.concatenate(
        [_shown(matrix, relative).ravel() for matrix in matrices.values()]),
        None, vmax)

    def draw(axes: np.ndarray) -> np.ndarray:
        for name, one in zip(tensors, axes):
            if name not in matrices:
                _absent(one, name)
                continue
            options: dict[str, Any] = dict(
                tensor=name, stage=stage, relative=relative, cmap=cmap,
                vmax=limits[1], ax=one, title=matrices[name].tensor)
            if kind == "surface":
                surface(chosen, number, **options)
                one.set_zlabel("")
            else:
                heatmap(chosen, number, lambda_=lambda_, cbar=False, **options)
        _shared_bar(axes, matrices, relative, limits, cmap)
        return axes

    if ax is not None:
        return draw(np.array(list(ax), dtype=object))
    with _figure.style():
        figure = _figure.new_figure(_figure.PAGE, 2.8)
        three_d = {"projection": "3d"} if kind == "surface" else {}
        axes = figure.subplots(1, len(tensors), squeeze=False,
                               subplot_kw=three_d)[0]
        for one in axes:
            _figure.prepare(one)
        figure.suptitle(f"layer {number}, {chosen.name}" if suptitle is None
                        else suptitle, x=0.01, ha="left", fontsize=9,
                        fontweight="bold")
        return draw(axes)


def _absent(axes: Axes, tensor: str) -> None:
    text = f"{_data.point_name(tensor)} was not captured"
    axes.set_axis_off()
    if getattr(axes, "name", "") == "3d":
        axes.text2D(0.5, 0.5, text, ha="center",  # type: ignore[attr-defined]
                    transform=axes.transAxes)
    else:
        axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes)


def _shared_bar(axes: np.ndarray, matrices: dict[str, _data.Norms],
                relative: bool, limits: tuple[float, float],
                cmap: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = np.concatenate([_shown(matrix, relative).ravel()
                             for matrix in matrices.values()])
    _figure.colour_bar(
        list(axes), ScalarMappable(Normalize(*limits), cmap), values,
        RATIO if relative else NORM, pad=0.02, fraction=0.03)
