"""From an item to a prompt and arms for one model: families.toml, and what a
study overrides of it."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from typing import Any

from qkscope import Arm, Prompt
from qkscope.extras import toml
from qkscope.study.errors import StudyError, choices
from qkscope.study.spec import Study, TaskEntry
from qkscope.study.tasks import TASKS
from qkscope.study.tasks.item import Item


@functools.cache
def families() -> dict[str, Any]:
    """The contents of families.toml."""
    values: dict[str, Any] = toml().loads(
        (importlib.resources.files("qkscope.study")
         / "families.toml").read_text("utf-8"))
    return values


def of_family(table: dict[str, Any], architecture: str) -> Any:
    return table.get(architecture, table["default"])


def detect_format(lab: Any, model: str, architecture: str) -> str:
    """The chat format whose special token the model's vocabulary has, or
    "none"."""
    for entry in families()["formats"]:
        if architecture not in entry.get("families", [architecture]):
            continue
        tokens = lab.tokenize(model, Prompt(
            entry["token"], add_special_tokens=False, parse_special=True))
        if len(tokens.ids) == 1:
            return str(entry["format"])
    return "none"


def check_format(name: str, known: list[str], model: str) -> None:
    if name != "none" and name not in known:
        raise StudyError(f"model {model}: the server has no chat format "
                         f"{name!r}; it must be auto, none or {choices(known)}")


def make_prompt(study: Study, task: TaskEntry, item: Item, chat_format: str
                ) -> dict[str, Any]:
    """What is sent, as plain data for the file of results: {"text"} or {"chat",
    "chat_format"}. to_prompt makes the client's prompt of it."""
    own = families()["tasks"].get(task.name, {})
    raw = study.kind != "tasks" and TASKS[task.name].kind == "none"
    if chat_format == "none" or raw:
        template = task.prompt or own.get("text", "{question}")
        return {"text": template.replace("{question}", item.question)}
    template = task.prompt or own.get("user", "{question}")
    question = template.replace("{question}", item.question)
    system = task.system if task.system is not None else own.get("system", "")
    messages = [{"role": "user", "content": question}]
    if system and chat_format in families()["no_system"]["formats"]:
        messages[0]["content"] = f"{system}\n{question}"
    elif system:
        messages.insert(0, {"role": "system", "content": system})
    return {"chat": messages, "chat_format": chat_format}


def to_prompt(values: dict[str, Any]) -> Prompt:
    if "text" in values:
        return Prompt(values["text"])
    return Prompt(chat=values["chat"], chat_format=values["chat_format"])


def limit(study: Study, task: TaskEntry, architecture: str) -> int:
    """The most new tokens."""
    if task.max_new_tokens is not None:
        return task.max_new_tokens
    if study.limits == "paper_code":
        return int(of_family(families()["paper_code"], architecture)[task.name])
    return int(families()["tasks"][task.name]["max_new_tokens"])


def wants_perplexity(task: TaskEntry) -> bool:
    """Whether the perplexity of the answer alone is asked for: as published,
    for the tasks with long answers only."""
    if task.perplexity is not None:
        return task.perplexity
    return bool(families()["tasks"][task.name].get("perplexity"))


def stops(task: TaskEntry, chat_format: str) -> tuple[str, ...]:
    """A model without a chat format does not know when to stop: its answer ends
    with the line."""
    return task.stop or (("\n",) if chat_format == "none" else ())


def make_arm(name: str, text: str, architecture: str, seed: int) -> Arm:
    """An arm of a study for one family. Random choices that have no seed of
    their own get the round's."""
    if text == "family":
        text = of_family(families()["arms"], architecture)[name]
    arm = dataclasses.replace(Arm.parse(text), name=name)
    if arm.preset_name and arm.preset_seed is None and seed:
        return dataclasses.replace(arm, preset_seed=seed)
    return dataclasses.replace(arm, rules=[
        dataclasses.replace(rule, seed=seed) if seed
        and rule.select == "random_k" and rule.seed is None else rule
        for rule in arm.rules])
