"""What a model is asked, and what is right.

A task makes items; the same options give the same items on every machine.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from qkscope.study.errors import StudyError, choices
from qkscope.study.tasks import (cities, facts, files, generated)
from qkscope.study.tasks.item import Item

__all__ = ["Item", "TASKS", "Task", "make_items"]


@dataclasses.dataclass(frozen=True)
class Task:
    """`kind` is how answers are scored (qkscope.study.scorers)."""
    name: str
    kind: str
    knowledge: str  # "contextual", "parametric", or "none"
    make: Callable[..., list[Item]]
    options: dict[str, type]  # what a study may set besides count and seed
    needs_data: bool = False
    chance: float | None = None  # what guessing gets right
    summary: str = ""


def _fact_task(name: str) -> Task:
    return Task(name, "yes_no", "parametric",
                lambda **options: facts.make(name, **options), {}, chance=0.5,
                summary=f"yes/no questions about {name}, half of them true")


_ALL = [
    Task("city", "yes_no", "parametric", cities.city, {"min_population": int},
         chance=0.5, summary="is this city in that country; half true"),
    *(_fact_task(name) for name in facts.NAMES),
    Task("aqua", "choice", "contextual", files.aqua, {}, needs_data=True,
         chance=0.2,
         summary="AQuA-RAT, questions of algebra with five options"),
    Task("gsm8k", "number", "contextual", files.gsm8k, {}, needs_data=True,
         summary="GSM8K, word problems whose answer is a number"),
    Task("imdb", "sentiment", "contextual", files.imdb, {"order": str},
         needs_data=True, chance=0.5,
         summary="IMDB, positive or negative reviews"),
    Task("passkey", "passkey", "contextual", generated.passkey,
         {"lengths": list, "positions": list},
         summary="a number hidden in filler; lengths are in words"),
    Task("knowledge_conflict", "yes_no", "contextual", cities.conflict,
         {"variant": str, "min_population": int}, chance=0.5,
         summary="city questions after a false statement in the context"),
    Task("texts", "none", "none", generated.texts, {},
         summary="short passages to look at; nothing is scored"),
]
TASKS = {task.name: task for task in _ALL}


def make_items(name: str, *, count: int, seed: int,
               data: pathlib.Path | None, **options: Any) -> list[Item]:
    """`count` items of a task. StudyError: an unknown task or option, too few
    items, a missing or broken data file."""
    task = TASKS.get(name)
    if task is None:
        raise StudyError(f"there is no task {name!r}; it must be "
                         f"{choices(sorted(TASKS))}")
    for key in options:
        if key not in task.options:
            allowed = choices(sorted(task.options)) or "nothing"
            raise StudyError(f"task {name}: unknown option {key!r}; besides "
                             f"its general keys it takes {allowed}")
    if task.needs_data:
        options["data"] = data
    items = task.make(count=count, seed=seed, **options)
    if len(items) < count:
        raise StudyError(f"task {name}: {count} items are asked for, and there "
                         f"are {len(items)}")
    return items
