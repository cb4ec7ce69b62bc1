"""One question of a task."""

from __future__ import annotations

import dataclasses
import random
from typing import Any, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Item:
    """`answer` is what a scorer compares with: "yes" or "no", a number, a
    label, an option's letter. `detail` is more of it (the options, the length)
    and goes into the file of results."""
    id: str
    question: str
    answer: str
    detail: dict[str, Any] = dataclasses.field(default_factory=dict)


def shuffled(seed: int, purpose: str) -> random.Random:
    """Random numbers that depend on the seed and the purpose alone. Python
    promises that random() of a seeded generator does not change between
    versions; only `ordered` and `below` are used here, which build on it."""
    return random.Random(f"{purpose}:{seed}")


def below(generator: random.Random, n: int) -> int:
    return int(generator.random() * n)


def ordered(generator: random.Random, values: list[T]) -> list[T]:
    """A random order of the values."""
    return [value for _, _, value in sorted(
        (generator.random(), i, value) for i, value in enumerate(values))]


def balanced(generator: random.Random, true: list[T], false: list[T],
             count: int) -> list[T]:
    """Half true, half false (one more true if count is odd), in random
    order."""
    chosen = true[:(count + 1) // 2] + false[:count // 2]
    return ordered(generator, chosen)
