"""Tasks that are made up: the passkey in its filler, and passages to read."""

from __future__ import annotations

import importlib.resources
import random

from qkscope.study.errors import StudyError
from qkscope.study.tasks.item import Item, below

FILLER = ("The grass is green. The sky is blue. The sun is yellow. Here we go. "
          "There and back again.")
HINT = ("There is a passkey hidden in this text. Find it and remember it.")
MAX_WORDS = 1_000_000


def _numbers(name: str, values: object, low: float, high: float
             ) -> list[float]:
    if not isinstance(values, list) or not values or not all(
            isinstance(v, (int, float)) and not isinstance(v, bool)
            and low <= v <= high for v in values):
        raise StudyError(f"task passkey: {name} must be a list of numbers from "
                         f"{low:g} to {high:g}")
    return values


def _filler(words: int) -> list[str]:
    """Whole rounds of the filler, then as much of one as is missing."""
    one = FILLER.split()
    return (one * (words // len(one) + 1))[:words]


def passkey(*, count: int, seed: int, lengths: list[float] | None = None,
            positions: list[float] | None = None) -> list[Item]:
    """A key of five digits, told once in `length` words of filler, at
    `position` of them (0: the beginning, 1: the end). Lengths and positions are
    taken in turn. The key depends on the seed, the length and the position."""
    lengths = _numbers("lengths", lengths if lengths is not None else [200],
                       0, MAX_WORDS)
    positions = _numbers("positions", positions if positions is not None
                         else [0.1, 0.3, 0.5, 0.7, 0.9], 0, 1)
    items = []
    for i in range(count):
        length = int(lengths[i % len(lengths)])
        position = positions[(i // len(lengths)) % len(positions)]
        at = round(length * position)
        again = i // (len(lengths) * len(positions))
        generator = random.Random(f"passkey:{seed}:{length + at}:{again}")
        key = str(10_000 + below(generator, 90_000))
        words = _filler(length)
        told = (f"The passkey is {key}. Remember it. {key} is the passkey.")
        text = " ".join([HINT, *words[:at], told, *words[at:]])
        items.append(Item(f"passkey-{i}", text, key,
                          {"length": length, "position": position}))
    return items


def texts(*, count: int, seed: int) -> list[Item]:
    """The passages of data/texts.txt, one a line, in their order."""
    del seed  # there is nothing to choose
    text = (importlib.resources.files("qkscope.study") / "data"
            / "texts.txt").read_text("utf-8")
    lines = [line for line in text.splitlines()
             if line and not line.startswith("#")]
    return [Item(f"texts-{i}", line, "")
            for i, line in enumerate(lines[:count])]
