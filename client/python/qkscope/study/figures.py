"""The figures of a file of results, as PNG and SVG, through qkscope.plot."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from qkscope import plot
from qkscope.study import results
from qkscope.study.errors import needs, replaced
from qkscope.study.store import Store
from qkscope.study.tasks import TASKS

POINTS = {"hook_rot_q": "Q", "hook_rot_k": "K", "hook_v": "V",
          "hook_q": "Q before RoPE", "hook_k": "K before RoPE"}
PNG_DPI = 110


def write_figures(store: Store, out: pathlib.Path) -> list[pathlib.Path]:
    """Draws what the results hold; returns the paths."""
    needs("matplotlib", "plot").use("Agg")
    written = []
    for name, draw in _figures(store).items():
        with plot.style():
            figure = draw()
            for ending in ("png", "svg"):
                written.append(out / f"{name}.{ending}")
                with replaced(written[-1]) as path:
                    # No date, so that equal results give equal files.
                    figure.savefig(path, format=ending, dpi=PNG_DPI,
                                   bbox_inches="tight",
                                   metadata={"Date": None} if ending == "svg"
                                   else {"Software": None})
            needs("matplotlib.pyplot", "plot").close(figure)
    return written


def _file_name(*parts: str) -> str:
    return re.sub(r"[^\w.-]", "_", "_".join(parts))


def _figures(store: Store) -> dict[str, Callable[[], Any]]:
    study = store.study
    out: dict[str, Callable[[], Any]] = {}
    scores = results.score_rows(store)
    for scorer in dict.fromkeys(row.scorer for row in scores):
        for model in dict.fromkeys(row.model for row in scores):
            rows = [row for row in scores
                    if (row.model, row.scorer) == (model, scorer)]
            if study.compare == "arms" and rows:
                out[_file_name("accuracy", model, scorer)] = (
                    lambda rows=rows: accuracy(rows, "arm").figure)
        if study.compare == "models":
            rows = [row for row in scores if row.scorer == scorer]
            out[_file_name("accuracy", scorer)] = (
                lambda rows=rows: accuracy(rows, "model").figure)
    means = results.layer_means(store)
    norms = results.mean_norms(store)
    for model in dict.fromkeys(row.model for row in means):
        rows = [row for row in means if row.model == model
                and study.arms.get(row.arm) == "clean"]
        out[_file_name("layers", model)] = (
            lambda rows=rows: by_layer(rows).figure)
        clean = {point: layers for (of, arm, point), layers in norms.items()
                 if of == model and study.arms.get(arm) == "clean"}
        if clean:
            out[_file_name("norms", model)] = (
                lambda clean=clean, rows=rows: heat(
                    clean, _layer_with_most(rows), study.lambda_))
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
        pyplot = needs("matplotlib.pyplot", "plot")
        ax = pyplot.figure(figsize=(plot.PAGE, 2.6)).add_subplot()
    for i, point in enumerate(dict.fromkeys(row.point for row in rows)):
        own = [row for row in rows if row.point == point]
        before = "before" in POINTS.get(point, "")
        ax.plot([row.layer for row in own], [row.massive_count for row in own],
                "--o" if before else "-o", markersize=3,
                color=plot.PALETTE[i % len(plot.PALETTE)],
                label=POINTS.get(point, point))
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


def heat(clean: dict[str, dict[int, np.ndarray]], layer: int, lambda_: float
         ) -> Any:
    """Heads x dims of one layer, one under the other."""
    pyplot = needs("matplotlib.pyplot", "plot")
    shown = {point: layers[layer] for point, layers in clean.items()
             if layer in layers}
    heads = [norms.shape[0] for norms in shown.values()]
    figure, axes = pyplot.subplots(
        len(shown), 1, figsize=(plot.PAGE, 0.9 * len(shown)
                                + 0.09 * sum(heads)),
        height_ratios=[h + 4 for h in heads], squeeze=False,
        layout="constrained")
    for ax, (point, norms) in zip(axes[:, 0], shown.items()):
        plot.heatmap(norms, relative=True, lambda_=lambda_, orient="h",
                     vmin=0, vmax=2 * lambda_, ax=ax,
                     title=f"{POINTS.get(point, point)}, layer {layer}: norm "
                     "over its head's mean")
    return figure
