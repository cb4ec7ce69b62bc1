"""Numbers over items: accuracies with intervals, and tests of pairs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from qkscope import plot
from qkscope.extras import need


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """`right` of `items` items, with Wilson's interval at 95 %. With several
    seeds an item counts as the mean of its rounds, so that asking the same
    question again does not make the interval narrower."""
    right: float
    items: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.right / self.items if self.items else math.nan


@dataclasses.dataclass(frozen=True)
class McNemar:
    """The exact test that two arms are right equally often on the same items:
    `lost` are right in the first one only, `won` in the second one only. With
    several seeds, an item is right if it is right in more than half of them.
    `p_holm` is corrected for all tests of a study (Holm)."""
    both: int
    lost: int
    won: int
    neither: int
    p: float
    p_holm: float = math.nan


def wilson(right: float, items: int) -> tuple[float, float]:
    """Wilson's score interval at 95 %; (nan, nan) without items."""
    return plot.wilson(right, items) if items else (math.nan, math.nan)


def accuracy(rights: Mapping[str, Sequence[bool]]) -> Accuracy:
    """`rights`: for each item, whether each round was right."""
    right = sum(sum(rounds) / len(rounds) for rounds in rights.values())
    return Accuracy(right, len(rights), *wilson(right, len(rights)))


def mcnemar(first: Mapping[str, Sequence[bool]],
            second: Mapping[str, Sequence[bool]]) -> McNemar:
    """Compares the items that both have."""
    table = [[0, 0], [0, 0]]
    for item in sorted(first.keys() & second.keys()):
        one, two = (2 * sum(rounds[item]) > len(rounds[item])
                    for rounds in (first, second))
        table[not one][not two] += 1
    tests = need("statsmodels.stats.contingency_tables", "study")
    p = float(tests.mcnemar(table, exact=True).pvalue)
    return McNemar(table[0][0], table[0][1], table[1][0], table[1][1],
                   min(p, 1.0))


def holm(tests: Iterable[McNemar]) -> list[McNemar]:
    """The same tests with p_holm."""
    found = list(tests)
    if not found:
        return []
    corrected = need("statsmodels.stats.multitest", "study").multipletests(
        [test.p for test in found], method="holm")[1]
    return [dataclasses.replace(test, p_holm=float(p))
            for test, p in zip(found, corrected)]


def perplexity(mean_logprob: float | None) -> float | None:
    """exp of minus the mean log-probability, in nats."""
    if mean_logprob is None or not math.isfinite(mean_logprob):
        return None
    return math.exp(min(-mean_logprob, 700.0))


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the finite values; None without any."""
    finite = [value for value in values
              if value is not None and math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else None


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """exp of the mean of logs: what perplexities are averaged by, because one
    of 10^9 would hide all others."""
    logs = mean(math.log(value) for value in values
                if value is not None and value > 0)
    return None if logs is None else math.exp(logs)
