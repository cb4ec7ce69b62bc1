"""One unit of work, asked of the server. All calls of a study are here and in
plan.py."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import json_format

from qkscope import Arm, Capture, Prompt
from qkscope.spec import GenerateSpec, StatisticsSpec
from qkscope.study import prompts
from qkscope.study.records import (Answer, ComparisonRow, LayerRow, Outcome,
                                   Unit)
from qkscope.study.spec import Study, TaskEntry

# What the kinds of study that look at values capture.
POINTS = {
    "massive_values": ("hook_rot_q", "hook_rot_k", "hook_v"),
    "rope_origin": ("hook_q", "hook_rot_q", "hook_k", "hook_rot_k"),
}


class Asker:
    """Asks for the units of one study. Threads may share it."""

    def __init__(self, study: Study, models: dict[str, dict[str, Any]],
                 keeps_norms: Callable[[Unit], bool]) -> None:
        self._study, self._models = study, models
        self._tasks = {task.name: task for task in study.tasks}
        self._keeps_norms = keeps_norms

    def __call__(self, lab: Any, unit: Unit) -> Outcome:
        start = time.monotonic()
        if self._study.kind == "tasks":
            outcome = self._answers(lab, unit)
        else:
            outcome = self._values(lab, unit)
        return Outcome(time.monotonic() - start, *outcome)

    def arms(self, unit: Unit) -> list[Arm]:
        architecture = self._models[unit.model]["architecture"]
        return [prompts.make_arm(name, text, architecture, unit.seed)
                for name, text in self._study.arms.items()]

    def generation(self, unit: Unit) -> GenerateSpec:
        task, model = self._tasks[unit.task], self._models[unit.model]
        return GenerateSpec(
            max_new_tokens=prompts.limit(self._study, task,
                                         model["architecture"]),
            temperature=self._study.temperature, top_p=self._study.top_p,
            seed=unit.seed, stop=prompts.stops(task, model["chat_format"]))

    def _answers(self, lab: Any, unit: Unit) -> tuple[Any, ...]:
        arms = self.arms(unit)
        run = lab.analyze(
            unit.model, prompts.to_prompt(unit.prompt), arms=arms,
            capture=Capture(off=True), generate=self.generation(unit),
            compare=False, priority="batch")
        alone = self._alone(lab, unit, run, arms)
        answers = []
        for arm in arms:
            result = run[arm.name]
            answers.append(Answer(
                arm.name, result.text, len(result.tokens),
                result.stop_reason,
                _mean([token.logprob for token in result.tokens]),
                alone.get(arm.name), int(result.non_finite.logits)))
        return len(run.token_ids), manifest(run), answers

    def _alone(self, lab: Any, unit: Unit, run: Any, arms: list[Arm]
               ) -> dict[str, float | None]:
        """The mean log-probability of each answer's text as a prompt of its
        own, under its arm: what the published code calls its perplexity."""
        task: TaskEntry = self._tasks[unit.task]
        if not prompts.wants_perplexity(task):
            return {}
        clean = next(arm for arm in arms if arm.kind == "clean")
        out = {}
        for arm in arms:
            text = run[arm.name].text
            tokens = lab.tokenize(unit.model, Prompt(
                text, add_special_tokens=False)).ids if text else []
            if len(tokens) < 2:
                continue
            both = [clean] if arm is clean else [clean, arm]
            scored = lab.analyze(
                unit.model, [int(token) for token in tokens], arms=both,
                capture=Capture(off=True), compare=clean.name, priority="batch")
            out[arm.name] = _finite(
                scored[arm.name].comparison.mean_logprob)
        return out

    def _values(self, lab: Any, unit: Unit) -> tuple[Any, ...]:
        study, arms = self._study, self.arms(unit)
        run = lab.analyze(
            unit.model, prompts.to_prompt(unit.prompt), arms=arms,
            capture=Capture(points=POINTS[study.kind]),
            statistics=StatisticsSpec(lambda_=study.lambda_, top_n=1),
            compare=len(arms) > 1, priority="batch")
        kept = self._keeps_norms(unit)
        rows = [row for arm in arms for captured in run[arm.name].captured
                for row in _layer_rows(arm, captured, self._models[unit.model],
                                       kept)]
        comparisons = []
        for arm in arms if len(arms) > 1 else []:
            found = run[arm.name].comparison
            comparisons.append(ComparisonRow(
                arm.name, _finite(found.mean_kl), int(found.top1_flips),
                _finite(found.mean_logprob)))
        return len(run.token_ids), manifest(run), [], rows, comparisons


def manifest(run: Any) -> dict[str, Any]:
    """The manifest as JSON. What a norm weighs is in its digest."""
    values: dict[str, Any] = json_format.MessageToDict(
        run.manifest, preserving_proto_field_name=True)
    return values


def _layer_rows(arm: Arm, captured: Any, model: dict[str, Any], keep: bool
                ) -> list[LayerRow]:
    rows = []
    for found in captured.statistics:
        ratios = _over_mean(captured.layer(found.layer)) if keep else None
        rotated = "rot" not in captured.point or (
            model["layers"][found.layer]["rope"] is not None)
        rows.append(LayerRow(
            arm.name, captured.point, int(found.layer),
            int(found.massive_count), _finite(found.ratio), _finite(found.max),
            found.top_dim, _finite(found.top_dim_share),
            _finite(found.low_frequency_share), not rotated,
            None if ratios is None else (ratios.shape, ratios.tobytes())))
    return rows


def _over_mean(norms: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    """Each norm over the mean of its head, (heads, head_dim)."""
    norms = norms.astype(np.float64)
    mean = norms.mean(axis=1, keepdims=True)
    ratios = np.divide(norms, mean, out=np.zeros_like(norms), where=mean > 0)
    return np.asarray(ratios, "<f2")


def _finite(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(value)


def _mean(values: list[float]) -> float | None:
    return _finite(math.fsum(values) / len(values)) if values else None
