"""Yes/no questions from the package's own sets of facts."""

from __future__ import annotations

import importlib.resources

from qkscope.study.errors import StudyError
from qkscope.study.tasks.item import Item, balanced, ordered, shuffled

NAMES = ("sports", "art", "tech", "celebrity")


def read(name: str) -> list[tuple[str, str, str]]:
    """(question with {}, true value, false value) of each line."""
    text = (importlib.resources.files("qkscope.study") / "data"
            / f"{name}.txt").read_text("utf-8")
    facts = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 3 or parts[0].count("{}") != 1 or not all(parts):
            raise StudyError(f"{name}.txt, line {number}: must be 'question "
                             "with {} | true | false'")
        facts.append((parts[0], parts[1], parts[2]))
    return facts


def make(name: str, *, count: int, seed: int) -> list[Item]:
    facts = list(enumerate(read(name)))
    true = [Item(f"{name}-{i}-true", question.replace("{}", value), "yes")
            for i, (question, value, _) in facts]
    false = [Item(f"{name}-{i}-false", question.replace("{}", value), "no")
             for i, (question, _, value) in facts]
    generator = shuffled(seed, name)
    return balanced(generator, ordered(generator, true),
                    ordered(generator, false), count)
