"""The figures of a file of results, as PNG and SVG, through qkscope.plot."""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from qkscope import plot
from qkscope.extras import need
from qkscope.study import results
from qkscope.study.errors import replaced
from qkscope.study.store import Store
from qkscope.study.tasks import TASKS

POINTS = {"hook_q": "Q before RoPE", "hook_rot_q": "Q",
          "hook_k": "K before RoPE", "hook_rot_k": "K", "hook_v": "V"}
PNG_DPI = 110


def write_figures(store: Store, out: pathlib.Path) -> list[pathlib.Path]:
    """Draws what the results hold; returns the paths."""
    need("matplotlib", "plot").use("Agg")
    written = []
    for name, draw in _figures(store).items():
        with plot.style():
            figure = draw().figure
            for ending in ("png", "svg"):
                written.append(out / f"{name}.{ending}")
                with replaced(written[-1]) as path:
                    # No date, so that equal results give equal files.
                    figure.savefig(path, format=ending, dpi=PNG_DPI,
                                   bbox_inches="tight",
                                   metadata={"Date": None} if ending == "svg"
                                   else {"Software": None})
            need("matplotlib.pyplot", "plot").close(figure)
    return written


def _file_name(*parts: str) -> str:
    return re.sub(r"[^\w.-]", "_", "_".join(parts))


def _figures(store: Store) -> dict[str, Callable[[], Any]]:
    """Name -> what draws it and returns the figure."""
    study = store.study
    out: dict[str, Callable[[], Any]] = {}
    scores = results.score_rows(store)
    for scorer in study.scorers if scores else ():
        rows = [row for row in scores if row.scorer == scorer]
        if study.compare == "models":
            out[_file_name("accuracy", scorer)] = functools.partial(
                accuracy, rows, "model")
            continue
        for model in dict.fromkeys(row.model for row in rows):
            own = [row for row in rows if row.model == model]
            out[_file_name("accuracy", model, scorer)] = functools.partial(
                accuracy, own, "arm")
    norms = results.mean_norms(store)
    means = [row for row in results.layer_means(store)
             if study.arms.get(row.arm) == "clean"]
    for model in dict.fromkeys(row.model for row in means):
        layers = [row for row in means if row.model == model]
        out[_file_name("layers", model)] = functools.partial(by_layer, layers)
        clean = {point: found for (of, arm, point), found in norms.items()
                 if of == model and study.arms.get(arm) == "clean"}
        if clean:
            out[_file_name("norms", model)] = functools.partial(
                heat, clean, _layer_with_most(layers), study.lambda_)
    return out


def accuracy(rows: list[results.ScoreRow], hue: str) -> Any:
    """Bars by task, with Wilson's intervals."""
    tasks = [row.task for row in rows]
    yes_no = all(TASKS[task].kind in ("yes_no", "sentiment") for task in tasks)
    return plot.accuracy(
        [{"task": row.task, hue: getattr(row, hue),
          "accuracy": row.accuracy.share, "low": row.accuracy.low,
          "high": row.accuracy.high} for row in rows],
        hue=hue, chance=0.5 if yes_no else None,
        title=f"{rows[0].model}, scorer {rows[0].scorer}"
        if hue == "arm" else f"scorer {rows[0].scorer}")


def by_layer(rows: list[results.LayerMean], ax: Any = None) -> Any:
    """Massive entries of a prompt by layer, a line for each tensor."""
    if ax is None:
        pyplot = need("matplotlib.pyplot", "plot")
        ax = pyplot.figure(figsize=(plot.PAGE, 2.6)).add_subplot()
    there = {row.point for row in rows}
    for i, point in enumerate(point for point in POINTS if point in there):
        own = [row for row in rows if row.point == point]
        before = "before" in POINTS[point]
        ax.plot([row.layer for row in own], [row.massive_count for row in own],
                "--o" if before else "-o", markersize=3,
                color=plot.PALETTE[i % len(plot.PALETTE)],
                label=POINTS[point])
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("layer")
    ax.set_ylabel("massive entries per prompt")
    ax.set_ylim(bottom=0)
    ax.set_title(f"{rows[0].model}: mean of {rows[0].prompts} prompts")
    ax.legend()
    return ax


def _layer_with_most(rows: list[results.LayerMean]) -> int:
    counts: dict[int, float] = {}
    for row in rows:
        counts[row.layer] = counts.get(row.layer, 0) + row.massive_count
    return max(counts, key=lambda layer: (counts[layer], -layer))


def heat(clean: dict[str, dict[int, npt.NDArray[np.float64]]], layer: int,
         lambda_: float) -> Any:
    """Heads x dims of one layer, one under the other."""
    pyplot = need("matplotlib.pyplot", "plot")
    shown = {point: clean[point][layer] for point in POINTS
             if layer in clean.get(point, {})}
    heads = [norms.shape[0] for norms in shown.values()]
    figure, axes = pyplot.subplots(
        len(shown), 1, figsize=(plot.PAGE, 0.9 * len(shown)
                                + 0.09 * sum(heads)),
        height_ratios=[h + 4 for h in heads], squeeze=False,
        layout="constrained")
    for ax, (point, norms) in zip(axes[:, 0], shown.items()):
        plot.heatmap(norms, relative=True, lambda_=lambda_, orient="h",
                     vmin=0, vmax=2 * lambda_, ax=ax, cbar=False,
                     title=f"{POINTS[point]}, layer {layer}")
    figure.colorbar(axes[0, 0].images[0], ax=axes[:, 0].tolist(), extend="max",
                    label="norm / mean of its head")
    return axes[0, 0]
