"""How runs look in notebooks: a small table with sparklines, without script."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qkscope.run import ArmResult, Run

def _spark(values: Sequence[float], label: str) -> str:
    from qkscope.plot.sparkline import sparkline  # only notebooks need it
    return (f'<span title="{html.escape(label)}">'
            f"{sparkline(values, width=90, height=18, low=0)}</span>")


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "nan"


def _cells(arm: ArmResult) -> list[str]:
    cells = [html.escape(arm.name), arm.kind]
    for captured in arm.captured:
        if captured.phase != "prefill" or captured.image is not None:
            continue
        counts = captured.massive_count
        if not len(counts):
            continue
        label = (f"{captured.label}: massive values by layer, "
                 f"{counts.sum()} in all, at most {counts.max()}")
        cells.append(f"{_spark(counts.tolist(), label)} {counts.sum()}")
    return cells


def _comparison_cells(arm: ArmResult) -> list[str]:
    comparison = arm.comparison
    if comparison is None:
        return []
    return [_number(comparison.mean_logprob), _number(comparison.mean_kl),
            f"{comparison.top1_flips}/{len(comparison.kl)}"]


def _row(cells: Sequence[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + (
        "</tr>")


def run_html(run: Run) -> str:
    """A table with a row for each arm: massive values by layer, and what the
    arm changes."""
    arms: list[Any] = list(run)
    heads = ["arm", "kind"]
    rows = [_cells(arm) for arm in arms]
    widest = max(range(len(rows)), key=lambda i: len(rows[i]), default=None)
    if widest is not None:
        heads += [f"massive, {html.escape(captured.label)}"
                  for captured in arms[widest].captured
                  if captured.phase == "prefill" and captured.image is None
                  and len(captured.massive_count)]
    compared = any(arm.comparison is not None for arm in arms)
    for arm, row in zip(arms, rows):
        row += [""] * (len(heads) - len(row))
        row += _comparison_cells(arm) or ([""] * 3 if compared else [])
    if compared:
        heads += ["log-prob", "KL", "flips"]
    return (f"<div><b>{html.escape(run.model)}</b>: "
            f"{len(run.manifest.token_ids)} tokens, {len(run.tensors)} tensors"
            f"<table><thead>{_row(heads, 'th')}</thead><tbody>"
            + "".join(map(_row, rows)) + "</tbody></table></div>")
