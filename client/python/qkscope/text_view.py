"""Models and analyses as plain tables, as qkctl shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qkscope.arms import is_undisrupted
from qkscope.captured import Captured
from qkscope.run import ArmResult, Run
from qkscope.v1 import analysis_pb2

# The columns' points, in the table's order.
_COLUMNS = ("hook_q", "hook_rot_q", "hook_k", "hook_rot_k", "hook_v", "hook_z")
_COUNT, _RATIO, _TOP, _WAVELENGTH = 8, 7, 10, 11
_QUERY_OR_KEY = ("hook_q", "hook_rot_q", "hook_k", "hook_rot_k")


def printable(text: str) -> str:
    """The text without what could move a terminal's cursor."""
    return "".join(c if c.isprintable() or c == "\n" else
                   f"\\x{ord(c):02x}" for c in text)


def _heads(model: analysis_pb2.ModelInfo) -> str:
    if not model.layers:
        return "-"
    layer = model.layers[0]
    return f"{layer.num_heads}/{layer.num_kv_heads} x {layer.head_dim}"


def _problem(model: analysis_pb2.ModelInfo) -> str:
    if model.failure:
        return f"  {model.failure}"
    if model.text_problem:
        return "  takes token ids only"
    if model.HasField("non_finite_weights"):
        return f"  {model.non_finite_weights.count} weights are not finite"
    return ""


def models_text(models: Sequence[analysis_pb2.ModelInfo],
                info: analysis_pb2.ServerInfo) -> str:
    """A line for each model, and what they run on."""
    width = max([4, *(len(model.name) for model in models)])
    lines = [f"{'name':<{width}}  {'state':<9}  {'family':<8}  {'layers':>6}  "
             f"{'heads/kv x dim':<12}  {'context':>8}  {'compute':>7}  "
             f"{'backend':<7}  memory"]
    for model in models:
        state = analysis_pb2.ModelInfo.State.Name(model.state)
        # A GPU's memory is its own.
        memory = model.host_bytes + (
            model.device_bytes if model.backend != "cpu" else 0)
        lines.append(
            f"{model.name:<{width}}  {state:<9}  {model.architecture:<8}  "
            f"{model.num_layers:>6}  {_heads(model):<14}  "
            f"{model.context_length:>8}  {model.compute_type:>7}  "
            f"{model.backend:<7}  {memory / 2**20:.0f} MiB{_problem(model)}")
    for backend in info.backends:
        line = f"runs on {backend.name}: {backend.device}"
        if backend.passed_over:
            line += f"; not on {backend.passed_over}"
        lines.append(line)
    if info.replica:
        lines.append(f"replica {info.replica}")
    return printable("\n".join(lines)) + "\n"


def _block_width(point: str) -> int:
    return _COUNT + _RATIO + (
        _TOP + _WAVELENGTH if point in _QUERY_OR_KEY else 0)


def _title(point: str) -> str:
    return f"{point[-1].upper()} ({point})"


def _cells(captured: Captured, layer: int) -> str:
    width = _block_width(captured.point)
    found = [s for s in captured.statistics if s.layer == layer]
    if not found:
        return f"{'-':>{width}}"
    statistics = found[0]
    if statistics.non_finite_count > 0:
        # The largest of norms is not known if one of them is not finite.
        return f"{'nan':>{_COUNT}}{'nan':>{_RATIO}}".ljust(width)
    cells = f"{statistics.massive_count:>{_COUNT}}{statistics.ratio:>{_RATIO}.1f}"
    if captured.point in _QUERY_OR_KEY:
        top = statistics.largest
        wavelength = "-" if top.wavelength is None else (
            f"{top.wavelength:.{1 if top.wavelength < 100 else 0}f}")
        place = f"{top.head},{top.dim}"
        cells += f"{place:>{_TOP}}{wavelength:>{_WAVELENGTH}}"
    return cells


def _shown(arm: ArmResult, phase: str) -> list[Captured]:
    """One Captured with statistics for each column: values from before the
    disruption, if there are both."""
    chosen = []
    for point in _COLUMNS:
        found = [c for c in arm.captured
                 if c.point == point and c.phase == phase and c.image is None
                 and c.step is None and c.form == "norm_over_tokens"]
        found.sort(key=lambda c: c.stage != "before")
        chosen += found[:1]
    return chosen


def _headings(shown: Sequence[Captured], indent: int) -> list[str]:
    first = " " * (indent + 5)
    second = f"{'arm' if indent else '':<{indent}}{'layer':>5}"
    for captured in shown:
        width = _block_width(captured.point)
        first += f"  {_title(captured.point):>{width}}"
        second += f"  {'massive':>{_COUNT}}{'ratio':>{_RATIO}}"
        if captured.point in _QUERY_OR_KEY:
            second += f"{'head,dim':>{_TOP}}{'wavelength':>{_WAVELENGTH}}"
    return [first, second]


def _layers_text(arms: Sequence[ArmResult], phase: str,
                 width: int) -> list[str]:
    """A line for each layer and arm. `width`: of arms' names; 0: no names."""
    rows: list[tuple[int, int, str]] = []
    widest: list[Captured] = []
    for number, arm in enumerate(arms):
        shown = _shown(arm, phase)
        widest = max(widest, shown, key=len)
        name = f"{arm.name:<{width}}  " if width else ""
        for layer in sorted({layer for c in shown for layer in c.layers}):
            rows.append((layer, number, f"{name}{layer:>5}" + "".join(
                f"  {_cells(captured, layer)}" for captured in shown)))
    if not rows:
        return []
    return [*(["generated tokens:"] if phase == "decode" else []),
            *_headings(widest, width + 2 if width else 0),
            *(text for _, _, text in sorted(rows))]


def _values_text(run: Run, arms: Sequence[ArmResult]) -> list[str]:
    """A line for each tensor without statistics, in order of arrival."""
    names = {arm.name for arm in arms}
    lines = []
    for tensor in run.tensors:
        if tensor.arm not in names or tensor.statistics is not None:
            continue
        values = np.abs(tensor.values.astype(np.float64))
        if not values.size:
            continue
        bad = int((~np.isfinite(values)).sum())
        mean, top = (math.nan, math.nan) if bad else (values.mean(),
                                                      values.max())
        shape = ", ".join(map(str, tensor.shape))
        lines.append(f"{tensor.name:<36} ({shape})  mean |x| {mean:.4g}  "
                     f"max |x| {top:.4g}"
                     + (f"  {bad} not finite" if bad else ""))
    return lines


def _arm_line(run: Run, arm: ArmResult, width: int) -> str:
    comparison = arm.comparison
    clean = is_undisrupted(arm.spec)
    logprob, kl, flips = "- ", "-", "-"
    if comparison is None:
        logprob = "-"
    else:
        if len(comparison.token_logprob) > 1:
            logprob = f"{comparison.mean_logprob:.4f}{' ' if clean else '*'}"
        # A baseline's own numbers say that it is the one.
        if comparison.baseline != arm.name or (
                clean and len(run.parts.comparisons) > 1):
            kl = f"{comparison.mean_kl:.4f}"
            flips = (f"{comparison.top1_flips}/"
                     f"{len(comparison.kl) - comparison.non_finite}")
    return (f"{arm.name:<{width}}  {logprob:>10}  {kl:>9}  {flips:>9}  "
            f"{arm.replaced:>9}")


def _notes(run: Run) -> list[str]:
    """What the columns of the arms' table mean."""
    comparisons = run.parts.comparisons
    disrupted = any(not is_undisrupted(arm.spec) for arm in run)
    lines = []
    if len(comparisons) == 1:
        lines += ["log-prob: mean over the prompt's tokens, nats. replaced: "
                  "values written.", "KL and flips need another arm"
                  + (", such as --arm clean" if disrupted else "") + "."]
    elif comparisons:
        baseline = comparisons[0].baseline
        lines += ["log-prob: mean over the prompt's tokens, nats. KL: mean "
                  f"over positions, nats, from {baseline}.",
                  "flips: positions whose most likely next token is not "
                  f"{baseline}'s. replaced: values written."]
    for arm in run:
        counts = arm.non_finite
        found = [f"{count} {what}" for count, what in (
            (counts.captured, "captured values"),
            (counts.logits, "positions of logits"),
            (counts.kl, "positions of KL")) if count]
        if found:
            lines.append(f"arm {arm.name}: not finite (NaN or infinite): "
                         + ", ".join(found))
    if comparisons and disrupted:
        lines.append("* not causal: a disruption uses statistics of the whole "
                     "prompt, so these values depend on later tokens.")
    return lines


def run_text(run: Run, all_arms: bool = False) -> str:
    """The analysis as qkctl's tables: layers of the first arm, or of all, and a
    line for each arm."""
    arms = list(run)
    width = max(3, *(len(arm.name) for arm in arms))
    shown = arms if all_arms else arms[:1]
    tokens = len(run.manifest.token_ids)
    names = (f"arms {', '.join(run.arms)}" if all_arms
             else f"arm {arms[0].name}")
    lines = [f"{run.model}: {tokens} token{'s' if tokens != 1 else ''}; "
             f"{names}"]
    for phase in ("prefill", "decode"):
        lines += _layers_text(shown, phase, width if all_arms else 0)
    lines += _values_text(run, shown)
    if run.parts.comparisons or run.parts.applied:
        lines += ["", f"{'arm':<{width}}  {'log-prob ':>10}  {'KL':>9}  "
                  f"{'flips':>9}  {'replaced':>9}"]
        lines += [_arm_line(run, arm, width) for arm in arms]
        lines += _notes(run)
    for arm in arms:
        if arm.tokens:
            lines += ["", f"{arm.name}, {len(arm.tokens)} tokens: {arm.text}"]
    return printable("\n".join(lines)) + "\n"
