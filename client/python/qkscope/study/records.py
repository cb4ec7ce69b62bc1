"""What the file of results holds, as plain data."""

from __future__ import annotations

import dataclasses
from typing import Any

from qkscope.study.tasks.item import Item


@dataclasses.dataclass(frozen=True)
class Unit:
    """One prompt of a model, under all arms. `prompt` is what is sent, as plain
    data (qkscope.study.prompts)."""
    key: str
    model: str
    task: str
    seed: int
    item: Item
    prompt: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Answer:
    arm: str
    text: str
    tokens: int
    stop_reason: str
    mean_logprob: float | None  # of the answer's tokens, given the prompt
    alone_mean_logprob: float | None  # of the answer's text without the prompt
    non_finite: int


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """`norms` is (shape, little-endian float16), each norm over its head's
    mean, if they are kept."""
    arm: str
    point: str
    layer: int
    massive_count: int
    ratio: float | None
    max: float | None
    top_dim: int | None
    top_dim_share: float | None
    low_frequency_share: float | None
    no_rope: bool
    norms: tuple[tuple[int, ...], bytes] | None


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
    arm: str
    mean_kl: float | None
    top1_flips: int
    mean_logprob: float | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a unit came to."""
    seconds: float
    prompt_tokens: int
    manifest: dict[str, Any]
    answers: list[Answer] = dataclasses.field(default_factory=list)
    layers: list[LayerRow] = dataclasses.field(default_factory=list)
    comparisons: list[ComparisonRow] = dataclasses.field(default_factory=list)
