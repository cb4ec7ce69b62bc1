"""Axes, style and colours that all pictures share.

matplotlib is imported when a picture is drawn, so that `import qkscope.plot`
works without it.
"""

from __future__ import annotations

import contextlib
import functools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from qkscope.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

# Widths of a journal's column and page, in inches.
COLUMN = 3.5
PAGE = 7.2

# Okabe and Ito's palette, which colour-blind readers can tell apart, without
# the yellow, which is too light for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00",
           "#000000")
KINDS = {"clean": "#7f7f7f", "disrupted": "#D55E00", "control": "#0072B2"}
TENSORS = {"Q": "#0072B2", "K": "#D55E00", "V": "#009E73"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MASSIVE = "#56B4E9"
NOT_FINITE = "#9a9a9a"
HEAT = "inferno"
DIVERGING = "RdBu_r"

STYLE: dict[str, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],
    "figure.dpi": 110, "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8,
    "axes.titlelocation": "left", "axes.titleweight": "bold",
    "legend.fontsize": 7, "legend.frameon": False, "lines.linewidth": 1.2,
    "lines.markersize": 3.5, "axes.linewidth": 0.7, "savefig.dpi": 300,
    "axes.spines.top": False, "axes.spines.right": False,
    "pdf.fonttype": 42, "svg.fonttype": "none",
}


def pyplot() -> Any:
    """matplotlib.pyplot; MissingExtra, an ImportError, without matplotlib."""
    return need("matplotlib.pyplot", "plot")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The style of the pictures that have a figure of their own, for figures
    that you make yourself: `with plot.style(): plt.subplots(...)`."""
    # Only these are put back. rc_context() would also undo what a backend sets
    # when its first figure is made, such as `interactive` in notebooks.
    settings = pyplot().rcParams
    before = {key: settings[key] for key in STYLE}
    settings.update(STYLE)
    try:
        yield
    finally:
        settings.update(before)


def prepare(axes: Axes) -> None:
    """Sets on the axes what matplotlib would otherwise look up when it draws,
    after the style has gone."""
    axes.tick_params(labelsize=7, length=2.5, width=0.7)


def new_figure(width: float, height: float) -> Figure:
    figure: Figure = pyplot().figure(figsize=(width, height),
                                     layout="constrained")
    return figure


def draws(width: float, height: float, projection: str | None = None
          ) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Makes a function with `ax=None` draw on a new figure of this size, in
    inches and in our style, if it gets no axes. Axes that are given keep their
    own style."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:

        @functools.wraps(function)
        def draw(*arguments: P.args, **options: P.kwargs) -> T:
            if options.get("ax") is not None:
                return function(*arguments, **options)
            with style():
                figure = new_figure(width, height)
                axes = figure.add_subplot(projection=projection)
                prepare(axes)
                options["ax"] = axes
                try:
                    return function(*arguments, **options)
                except BaseException:
                    pyplot().close(figure)
                    raise

        return draw

    return decorate


def plain(text: str, most: int = 48) -> str:
    """A name out of the data as matplotlib's text: no formula, one line, not
    too long, and never left out of a legend."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}"
                    for c in text)
    if len(shown) > most:
        shown = shown[:most - 1] + "\N{HORIZONTAL ELLIPSIS}"
    shown = shown.replace("$", r"\$")
    return "\N{ZERO WIDTH SPACE}" + shown if shown.startswith("_") else shown


def set_title(axes: Axes, title: str | None, default: str = "") -> None:
    """The caller's title as it is, or ours, in lines that fit into a column."""
    axes.set_title(textwrap.fill(default, 44) if title is None else title)


def add_legend(axes: Axes) -> None:
    """Inside the axes, or right of them if it has more than four lines."""
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "best", "frameon": True,
                             "framealpha": 0.85, "edgecolor": "none"}
    if len(labels) > 4:
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    axes.legend(handles, labels, **place)


def whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True))


def thinned(labels: Sequence[Any], most: int) -> tuple[list[int], list[str]]:
    """At most `most` places and their labels, evenly spaced from the first."""
    step = next(step for size in (1, 10, 100, 1000, 10**4, 10**5, 10**6)
                for step in (size, 2 * size, 4 * size, 5 * size, 8 * size)
                if len(labels) <= step * most)
    places = list(range(0, len(labels), step))
    return places, [str(labels[place]) for place in places]


def colour_limits(values: np.ndarray, vmin: float | None, vmax: float | None
                  ) -> tuple[float, float]:
    """From 0 to the largest finite value, unless given."""
    finite = values[np.isfinite(values)]
    low = 0.0 if vmin is None else float(vmin)
    high = (float(finite.max()) if finite.size else low + 1.0
            ) if vmax is None else float(vmax)
    if high <= low and vmax is None:
        high = low + 1.0
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"vmin {low:g} and vmax {high:g} leave no range of "
                         "colours; vmin must be less than vmax")
    return low, high


def show_image(axes: Axes, values: np.ndarray, limits: tuple[float, float],
               cmap: str) -> Any:
    """Draws a matrix, a cell per value; what is not finite is grey."""
    import matplotlib

    colours = matplotlib.colormaps[cmap].with_extremes(bad=NOT_FINITE)
    return axes.imshow(np.ma.masked_invalid(values), cmap=colours,
                       vmin=limits[0], vmax=limits[1], aspect="auto",
                       interpolation="nearest")


def colour_bar(axes: Any, image: Any, values: np.ndarray, label: str,
               **options: Any) -> Any:
    """A colour bar beside the axes; says how many values are not finite."""
    bad = int(np.size(values) - np.isfinite(values).sum())
    if bad:
        label += f" (grey: {bad} not finite)"
    low, high = image.get_clim()
    finite = values[np.isfinite(values)]
    above = bool(finite.size) and finite.max() > high
    below = bool(finite.size) and finite.min() < low
    extend = {(0, 0): "neither", (0, 1): "max", (1, 0): "min",
              (1, 1): "both"}[int(below), int(above)]
    first = axes if hasattr(axes, "figure") else np.ravel(axes)[0]
    bar = first.figure.colorbar(image, ax=axes, extend=extend, **options)
    bar.set_label(label)
    bar.ax.tick_params(labelsize=7, length=2.5, width=0.7)
    bar.outline.set_linewidth(0.7)
    return bar


def arm_colours(arms: Sequence[Any]) -> dict[str, str]:
    """A colour per arm, no two alike: grey, vermilion and blue for the first of
    each kind, then the rest of the palette. More arms than that have shades
    from dark to light, in their order."""
    kinds = [getattr(arm, "kind", "") for arm in arms]
    taken = {KINDS[kind] for kind in kinds if kind in KINDS}
    rest = [colour for colour in PALETTE if colour not in KINDS.values()]
    rest += [colour for colour in PALETTE
             if colour in KINDS.values() and colour not in taken]
    if len(arms) - len(taken) > len(rest):
        shades = need("matplotlib", "plot").colormaps["viridis"](
            np.linspace(0, 0.95, len(arms)))
        to_hex = need("matplotlib.colors", "plot").to_hex
        return {arm.name: to_hex(shade)
                for arm, shade in zip(arms, shades)}
    colours: dict[str, str] = {}
    for arm, kind in zip(arms, kinds):
        wanted = KINDS.get(kind)
        if wanted is None or wanted in colours.values():
            wanted = rest.pop(0)
        colours[arm.name] = wanted
    return colours
