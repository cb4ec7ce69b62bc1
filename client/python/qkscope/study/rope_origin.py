"""Prints the massive values of Q and K before and after RoPE, layer by layer.

The paper's fourth claim (arXiv:2502.01563): RoPE causes the massive values;
they sit in the dims that it turns slowest, and models without RoPE have none. A
massive value is a (head, dim) whose L2 norm over the prompt is over 5 times its
head's mean. A rotation keeps the norm of a pair of dims at every position, so
what may differ between before and after is how the norm is shared within a
pair. The ready study `rope_origin` does the same for many prompts.
"""

from __future__ import annotations

from typing import Any

from qkscope import Arm, Capture

PROMPT = (
    "The passkey is 71432. Remember it. The grass is green. The sky is blue. "
    "The sun is yellow. Here we go. There and back again. What is the passkey?"
)
POINTS = {"hook_q": "Q before", "hook_rot_q": "Q after", "hook_k": "K before",
          "hook_rot_k": "K after"}


def table(lab: Any, model: str, prompt: str = PROMPT) -> str:
    """One row per layer: massive entries, and their share in the half of the
    dims that RoPE turns slowly; the totals below."""
    run = lab.analyze(model, prompt, arms=[Arm.clean()],
                      capture=Capture(points=list(POINTS)), compare=False)
    captured = [run["clean"].point(point) for point in POINTS]
    rope = {i: layer.HasField("rope") for i, layer
            in enumerate(lab.model(model).layers)}
    lines = ["massive values (and their share in low-frequency dims)",
             "layer" + "".join(f"{name:>16}" for name in POINTS.values())]
    counts, low = [0] * len(POINTS), [0.0] * len(POINTS)
    known = False
    for rows in zip(*(point.statistics for point in captured)):
        cells = []
        for i, row in enumerate(rows):
            share = row.low_frequency_share
            counts[i] += row.massive_count
            low[i] += row.massive_count * (share or 0.0)
            known = known or share is not None
            cells.append(_cell(row.massive_count, share))
        layer = rows[0].layer
        lines.append(f"{layer:>5}" + "".join(cells)
                     + ("" if rope[layer] else "  no RoPE"))
    lines.append("  all" + "".join(
        _cell(count, slow / count if count and known else None)
        for count, slow in zip(counts, low)))
    return "\n".join(lines)


def _cell(count: int, share: float | None) -> str:
    return f"{count:>10} {'' if share is None else f'{share:.0%}':>5}"
