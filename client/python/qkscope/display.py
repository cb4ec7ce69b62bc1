"""How runs look in notebooks: a small table with sparklines, without script."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qkscope.run import ArmResult, Run

_WIDTH, _HEIGHT = 90, 18


def sparkline(values: Sequence[float], label: str = "") -> str:
    """An inline SVG of the values as a line, from 0 to their maximum. Gaps
    where they are not finite."""
    finite = [value for value in values if math.isfinite(value)]
    top = max([1e-9, *finite])
    step = (_WIDTH - 4) / max(1, len(values) - 1)
    path, pen = "", "M"
    for i, value in enumerate(values):
        if not math.isfinite(value):
            pen = "M"
            continue
        y = _HEIGHT - 2 - (_HEIGHT - 4) * max(0.0, value) / top
        path += f"{pen}{2 + i * step:.1f} {y:.1f}"
        pen = "L"
    if len(finite) == 1:
        path += "h1"
    return (f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" '
            f'aria-label="{html.escape(label)}" '
            'style="vertical-align:middle">'
            f'<title>{html.escape(label)}</title><path d="{path}" fill="none" '
            'stroke="#0072b2" stroke-width="1.5"/></svg>')


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
        cells.append(f"{sparkline(counts.tolist(), label)} {counts.sum()}")
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
