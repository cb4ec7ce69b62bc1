"""Accuracies of tasks and arms, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qkscope.plot import _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Z95 = 1.959963984540054  # the normal distribution's 97.5th percentile


def wilson(correct: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's interval of a share, both ends in 0 to 1; (0, 1) if n is 0."""
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} are correct; it must be 0 to n")
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(
        share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


@_figure.draws(_figure.PAGE, 2.6)
def accuracy(records: Any, *, x: str = "task", hue: str = "arm",
             order: Sequence[str] | None = None,
             hue_order: Sequence[str] | None = None,
             palette: Mapping[str, str] | Sequence[str] | None = None,
             chance: float | None = None, annotate: bool = True,
             title: str | None = None, legend: bool = True,
             ax: Axes | None = None) -> Axes:
    """Draws accuracies as bars, a group per task and a bar per arm.

    The paper's tables of contextual against parametric knowledge
    (arXiv:2502.01563), as bars: 0 to 100 per cent, with 95 % intervals.

    records: mappings or objects, one per bar, or a data frame. Each has the
        fields that x and hue name, and either `correct` and `n` (counts; the
        interval is Wilson's) or `accuracy`, `low` and `high` (0 to 1).
    order, hue_order: of groups and bars; as they come by default.
    palette: a colour per bar; arms named clean and control, and those whose
        names begin with top_k or bottom_k, have colours of their own.
    chance: a dashed line at the accuracy (0 to 1) of guessing.
    annotate: writes the percentage above each bar.

    An accuracy that is NaN leaves its bar out, and says "no data" there.
    """
    assert ax is not None
    cells = _cells(records, x, hue)
    groups = _order("order", order, [group for group, _ in cells])
    names = _order("hue_order", hue_order, [name for _, name in cells])
    colours = _colours(names, palette)
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        at = [group - 0.4 + width * (place + 0.5)
              for group, key in enumerate(groups) if (key, name) in cells]
        found = [cells[key, name] for key in groups if (key, name) in cells]
        shown = [0.0 if math.isnan(value) else 100 * value
                 for value, _, _ in found]
        ax.bar(at, shown, width * 0.94, color=colours[name],
               label=_figure.plain(name))
        for left, (value, low, high) in zip(at, found):
            _whisker(ax, left, value, low, high, annotate)
    if chance is not None:
        ax.axhline(100 * chance, color="0.4", linestyle="--", linewidth=0.8,
                   label="chance")
    ax.set_ylim(0, 112 if annotate else 105)
    ax.set_yticks(range(0, 101, 20))
    ax.set_ylabel("accuracy, %")
    ax.set_xticks(range(len(groups)), [_figure.plain(group, 24)
                                     for group in groups])
    ax.set_xlim(-0.6, len(groups) - 0.4)
    _figure.set_title(ax, title)
    if legend:
        handles, labels = ax.get_legend_handles_labels()
        dashed = 0 if chance is None else 1  # lines come first; it goes last
        ax.legend(handles[dashed:] + handles[:dashed],
                  labels[dashed:] + labels[:dashed], loc="upper center",
                  ncols=min(5, len(labels)), bbox_to_anchor=(0.5, -0.12))
    return ax


def _whisker(axes: Axes, at: float, value: float, low: float, high: float,
             annotate: bool) -> None:
    if math.isnan(value):
        axes.annotate("no data", (at, 1), ha="center", rotation=90, fontsize=6)
        return
    top = value
    if not (math.isnan(low) or math.isnan(high)):
        top = max(value, high)
        axes.errorbar(at, 100 * value, yerr=[[100 * max(0.0, value - low)],
                                             [100 * max(0.0, high - value)]],
                      color="black", linewidth=0.8, capsize=2)
    if annotate:
        axes.annotate(f"{100 * value:.0f}", (at, 100 * top), xytext=(0, 2),
                      textcoords="offset points", ha="center", fontsize=6)


def _cells(records: Any, x: str, hue: str
           ) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(group, bar) -> accuracy, low, high; all 0 to 1 or NaN."""
    if hasattr(records, "to_dicts"):  # polars
        records = records.to_dicts()
    elif hasattr(records, "to_dict") and hasattr(records, "columns"):
        records = records.to_dict("records")
    cells: dict[tuple[str, str], tuple[float, float, float]] = {}
    for record in _iterable(records):
        key = (str(_field(record, x)), str(_field(record, hue)))
        if key in cells:
            raise ValueError(f"there are two records with {x} {key[0]!r} and "
                             f"{hue} {key[1]!r}")
        cells[key] = _interval(record)
    if not cells:
        raise ValueError("there are no records to draw")
    return cells


def _iterable(records: Any) -> Iterable[Any]:
    try:
        found: Iterable[Any] = iter(records)
    except TypeError:
        raise ValueError("records must be a sequence, one record per bar, not "
                         f"{type(records).__name__}") from None
    return found


def _field(record: Any, name: str, default: Any = ...) -> Any:
    value = (record.get(name, default) if isinstance(record, Mapping)
             else getattr(record, name, default))
    if value is ...:
        raise ValueError(f"a record has no field {name!r}: {record!r}")
    return value


def _interval(record: Any) -> tuple[float, float, float]:
    correct, n = (_field(record, name, None) for name in ("correct", "n"))
    if correct is not None and n is not None:
        return ((correct / n if n else math.nan), *wilson(int(correct), int(n)))
    values = [_field(record, name, math.nan) for name in ("low", "high")]
    value, low, high = (math.nan if v is None else float(v) for v in
                        (_field(record, "accuracy"), *values))
    for name, number in (("accuracy", value), ("low", low), ("high", high)):
        if not math.isnan(number) and not 0 <= number <= 1:
            raise ValueError(f"{name} is {number:g}; it must be 0 to 1")
    return value, low, high


def _order(name: str, order: Sequence[str] | None, found: list[str]
           ) -> list[str]:
    there = list(dict.fromkeys(found))
    for one in order or ():
        if one not in there:
            raise ValueError(f"{name} names {one!r}, which no record has; "
                             f"there are {', '.join(there)}")
    return list(order or there)


def _colours(names: list[str], palette: Any) -> dict[str, str]:
    if isinstance(palette, Mapping):
        missing = [name for name in names if name not in palette]
        if missing:
            raise ValueError(f"palette has no colour for {missing[0]!r}")
        return {name: palette[name] for name in names}
    if palette is not None:
        if len(palette) < len(names):
            raise ValueError(f"palette has {len(palette)} colours for "
                             f"{len(names)} bars")
        return dict(zip(names, palette))
    kinds = {name: kind for name in names for kind, starts in (
        ("clean", ("clean",)), ("disrupted", ("disrupted", "top_k")),
        ("control", ("control", "bottom_k"))) if name.startswith(starts)}
    return _figure.arm_colours(
        [_Arm(name, kinds.get(name, "")) for name in names])


class _Arm:
    """What arm_colours() reads of an arm."""

    def __init__(self, name: str, kind: str):
        self.name = name
        self.kind = kind
