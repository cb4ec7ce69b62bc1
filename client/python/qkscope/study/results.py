"""Tables of a file of results: what the report, the figures and the command
line show."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from qkscope.study import scorers, statistics
from qkscope.study.errors import StudyError
from qkscope.study.records import Answer, LayerRow
from qkscope.study.store import Store
from qkscope.study.tasks import TASKS


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """How one arm of a model does in one task. `world` is the share of answers
    that say what is true outside the context (knowledge_conflict only)."""
    model: str
    task: str
    arm: str
    scorer: str
    accuracy: statistics.Accuracy
    unread: float  # share of answers that the scorer finds no verdict in
    perplexity: float | None  # given the prompt; geometric mean over answers
    perplexity_alone: float | None
    distinct_2: float | None
    tokens: float  # mean of an answer
    world: float | None = None


@dataclasses.dataclass(frozen=True)
class TestRow:
    """Two arms of a model, or one arm of two models, on the same items."""
    model: str
    task: str
    scorer: str
    first: str
    second: str
    test: statistics.McNemar


@dataclasses.dataclass(frozen=True)
class AnswerRow:
    model: str
    task: str
    item: str
    seed: int
    arm: str
    text: str
    verdicts: dict[str, scorers.Verdict]


@dataclasses.dataclass(frozen=True)
class LayerMean:
    """Means over the prompts, of one layer."""
    model: str
    arm: str
    point: str
    layer: int
    prompts: int
    massive_count: float
    ratio: float | None
    low_frequency_share: float | None  # of all massive entries of the prompts
    no_rope: bool
    top_dims: dict[int, int]  # top dim -> number of prompts


def answer_rows(store: Store) -> list[AnswerRow]:
    """All answers, read by the study's scorers."""
    units = {unit.key: unit for unit in store.units()}
    rows = []
    for key, answer in store.answers():
        unit = units[key]
        kind = TASKS[unit.task].kind
        try:
            verdicts = {name: scorers.score(name, kind, unit.item, answer.text)
                        for name in store.study.scorers}
        except (KeyError, TypeError, AttributeError) as error:
            raise StudyError(f"{store.path}: item {unit.item.id!r} has not "
                             f"what task {unit.task} needs") from error
        rows.append(AnswerRow(unit.model, unit.task, unit.item.id, unit.seed,
                              answer.arm, answer.text, verdicts))
    return rows


def _grouped(rows: list[AnswerRow]) -> dict[tuple[str, ...], list[AnswerRow]]:
    groups: dict[tuple[str, ...], list[AnswerRow]] = {}
    for row in rows:
        groups.setdefault((row.model, row.task, row.arm), []).append(row)
    return groups


def _rights(rows: list[AnswerRow], scorer: str) -> dict[str, list[bool]]:
    out: dict[str, list[bool]] = {}
    for row in rows:
        out.setdefault(row.item, []).append(row.verdicts[scorer].right)
    return out


def score_rows(store: Store) -> list[ScoreRow]:
    """By model, task, arm and scorer, in the study's order."""
    units = {unit.key: unit for unit in store.units()}
    worlds = {unit.item.id: unit.item.detail.get("world")
              for unit in units.values()}
    answers: dict[tuple[str, ...], list[Answer]] = {}
    for key, answer in store.answers():
        answers.setdefault((units[key].model, units[key].task, answer.arm),
                           []).append(answer)
    groups = _grouped(answer_rows(store))
    out = []
    for model, task, arm in _order(store, groups):
        found, texts = groups[model, task, arm], answers[model, task, arm]
        shared: dict[str, Any] = {
            "perplexity": _perplexity(a.mean_logprob for a in texts),
            "perplexity_alone": _perplexity(a.alone_mean_logprob
                                            for a in texts),
            "distinct_2": statistics.mean(scorers.distinct_2(a.text)
                                          for a in texts),
            "tokens": float(np.mean([a.tokens for a in texts]))}
        for scorer in store.study.scorers:
            read = [row.verdicts[scorer].read_as for row in found]
            says = [value == worlds[row.item] for value, row
                    in zip(read, found) if worlds[row.item] is not None]
            out.append(ScoreRow(
                model, task, arm, scorer,
                statistics.accuracy(_rights(found, scorer)),
                sum(value is None for value in read) / len(read),
                world=sum(says) / len(says) if says else None, **shared))
    return out


def _perplexity(logprobs: Any) -> float | None:
    return statistics.geometric_mean(map(statistics.perplexity, logprobs))


def _order(store: Store, groups: dict[tuple[str, ...], Any]
           ) -> list[tuple[str, ...]]:
    study = store.study
    wanted = itertools.product([m.name for m in study.models],
                               [t.name for t in study.tasks], study.arms)
    return [key for key in wanted if key in groups]


def test_rows(store: Store) -> list[TestRow]:
    """McNemar's tests of all pairs of arms or, if the study compares models, of
    the first model with each other one."""
    groups, study = _grouped(answer_rows(store)), store.study
    rows: list[tuple[tuple[str, str, str, str, str], statistics.McNemar]] = []
    for scorer in study.scorers:
        rights = {key: _rights(groups[key], scorer)
                  for key in _order(store, groups)}
        for (model, task, arm), (model2, task2, arm2) in (
                itertools.combinations(rights, 2)):
            arms = model == model2 and task == task2
            models = (task == task2 and arm == arm2
                      and model == study.models[0].name)
            if arms if study.compare == "arms" else models:
                test = statistics.mcnemar(rights[model, task, arm],
                                          rights[model2, task2, arm2])
                rows.append(((model if arms else arm, task, scorer,
                              arm if arms else model,
                              arm2 if arms else model2), test))
    corrected = statistics.holm([test for _, test in rows])
    return [TestRow(*names, test) for (names, _), test
            in zip(rows, corrected)]


def layer_means(store: Store) -> list[LayerMean]:
    """By model, arm, point and layer."""
    units = {unit.key: unit for unit in store.units()}
    groups: dict[tuple[str, str, str, int], list[LayerRow]] = {}
    for key, row in store.layers():
        groups.setdefault((units[key].model, row.arm, row.point, row.layer),
                          []).append(row)
    out = []
    for (model, arm, point, layer), rows in sorted(groups.items()):
        massive = sum(row.massive_count for row in rows)
        low = sum((row.low_frequency_share or 0.0) * row.massive_count
                  for row in rows)
        known = any(row.low_frequency_share is not None for row in rows)
        tops: dict[int, int] = {}
        for row in rows:
            if row.massive_count and row.top_dim is not None:
                tops[row.top_dim] = tops.get(row.top_dim, 0) + 1
        out.append(LayerMean(
            model, arm, point, layer, len(rows), massive / len(rows),
            statistics.mean(row.ratio for row in rows),
            low / massive if massive and known else None, rows[0].no_rope,
            tops))
    return out


def mean_norms(store: Store) -> dict[tuple[str, str, str],
                                     dict[int, npt.NDArray[np.float64]]]:
    """(model, arm, point) -> layer -> mean over the kept prompts of each norm
    over its head's mean, (heads, head_dim)."""
    units = {unit.key: unit for unit in store.units()}
    sums: dict[tuple[str, str, str, int], tuple[int, Any]] = {}
    for key, row in store.layers():
        if row.norms is None:
            continue
        shape, data = row.norms
        if len(shape) != 2 or len(data) != 2 * shape[0] * shape[1]:
            raise StudyError(f"{store.path}: norms of layer {row.layer} do not "
                             "have their shape")
        ratio = np.frombuffer(data, "<f2").reshape(shape).astype(np.float64)
        place = (units[key].model, row.arm, row.point, row.layer)
        count, total = sums.get(place, (0, np.zeros_like(ratio)))
        if total.shape != ratio.shape:
            raise StudyError(f"{store.path}: norms of layer {row.layer} have "
                             "several shapes")
        sums[place] = (count + 1, total + ratio)
    out: dict[tuple[str, str, str], dict[int, npt.NDArray[np.float64]]] = {}
    for (model, arm, point, layer), (count, total) in sorted(sums.items()):
        out.setdefault((model, arm, point), {})[layer] = total / count
    return out


@dataclasses.dataclass(frozen=True)
class Totals:
    """Massive entries of a model at one point, over all layers: the mean per
    prompt, and the share of them in dims that RoPE turns slowly."""
    model: str
    arm: str
    point: str
    massive_count: float
    low_frequency_share: float | None
    layers_with: int  # layers where a prompt has one
    layers: int


def totals(means: list[LayerMean]) -> list[Totals]:
    groups: dict[tuple[str, str, str], list[LayerMean]] = {}
    for row in means:
        groups.setdefault((row.model, row.arm, row.point), []).append(row)
    out = []
    for (model, arm, point), rows in groups.items():
        massive = sum(row.massive_count for row in rows)
        low = sum((row.low_frequency_share or 0) * row.massive_count
                  for row in rows)
        known = any(row.low_frequency_share is not None for row in rows)
        out.append(Totals(
            model, arm, point, massive, low / massive if massive and known
            else None, sum(row.massive_count > 0 for row in rows), len(rows)))
    return out


def comparison_means(store: Store
                     ) -> list[tuple[str, str, float | None, float]]:
    """(model, arm, mean KL from clean in nats, mean share of next tokens that
    change)."""
    units = {unit.key: unit for unit in store.units()}
    tokens = {key: count for key, _, count in store.results()}
    groups: dict[tuple[str, str], list[tuple[float | None, float]]] = {}
    for key, row in store.comparisons():
        groups.setdefault((units[key].model, row.arm), []).append(
            (row.mean_kl, row.top1_flips / max(1, tokens[key])))
    return [(model, arm, statistics.mean(kl for kl, _ in rows),
             float(np.mean([flips for _, flips in rows])))
            for (model, arm), rows in groups.items()]
