"""A study as a TOML file says it, checked.

    name = "city_small"
    kind = "tasks"               # or "massive_values", "rope_origin"
    seeds = [0]
    temperature = 0.0
    scorers = ["paper_code", "strict"]
    compare = "arms"             # or "models": tests across variants of a model

    [arms]                       # in the language of qkctl's --arm, or "family"
    clean = "clean"
    disrupted = "family"
    control = "family"

    [[models]]
    name = "smollm2"             # as the server calls it
    chat_format = "auto"         # or a format of the server's, or "none"

    [[tasks]]
    name = "city"
    count = 100

The file is somebody else's: every key and value is checked, and an error is one
sentence that says where it is and what is allowed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
import math
import pathlib
from typing import Any

from qkscope.extras import toml
from qkscope.study.errors import StudyError, choices, excerpt
from qkscope.study.scorers import SCORERS
from qkscope.study.tasks import TASKS

KINDS = ("tasks", "massive_values", "rope_origin")
MAX_BYTES = 1 << 20
MAX_ITEMS = 1_000_000
_NAME_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                       "0123456789_-.")


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    name: str
    chat_format: str = "auto"


@dataclasses.dataclass(frozen=True)
class TaskEntry:
    name: str
    count: int = 100
    seed: int = 0
    max_new_tokens: int | None = None
    prompt: str | None = None  # replaces the family's; has {question}
    system: str | None = None
    perplexity: bool | None = None
    stop: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Study:
    name: str
    kind: str
    title: str
    models: tuple[ModelEntry, ...]
    tasks: tuple[TaskEntry, ...]
    arms: dict[str, str]
    seeds: tuple[int, ...] = (0,)
    temperature: float = 0.0
    top_p: float = 1.0
    scorers: tuple[str, ...] = ("paper_code", "strict")
    compare: str = "arms"
    limits: str = "own"
    lambda_: float = 5.0
    keep_norms: int = 4

    def to_json(self) -> str:
        """Equal studies give equal text."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()


class _Table:
    """A table of the file, whose keys are taken one after another; what is left
    over is an error."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise StudyError(f"{where} must be a table, got {excerpt(value)}")
        self._values, self._where = dict(value), where
        self._known: list[str] = []

    def place(self, key: str) -> str:
        return f"{self._where}: {key}"

    def take(self, key: str, kind: type, default: Any = None, *,
             least: float | None = None, most: float | None = None,
             among: tuple[str, ...] | None = None) -> Any:
        self._known.append(key)
        if key not in self._values:
            if default is ...:
                raise StudyError(f"{self.place(key)} is missing")
            return default
        value: Any = self._values.pop(key)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            names = {str: "a text", int: "a whole number", float: "a number",
                     bool: "true or false", list: "a list", dict: "a table"}
            raise StudyError(f"{self.place(key)} must be {names[kind]}, got "
                             f"{excerpt(value)}")
        if among is not None and value not in among:
            raise StudyError(f"{self.place(key)} must be {choices(among)}, got "
                             f"{excerpt(value)}")
        if kind in (int, float) and not _within(value, least, most):
            raise StudyError(f"{self.place(key)} must be from {least} to "
                             f"{most}, got {excerpt(value)}")
        return value

    def rest(self) -> dict[str, Any]:
        return self._values

    def end(self) -> None:
        for key in self._values:
            raise StudyError(f"{self._where}: unknown key {excerpt(key)}; it "
                             f"must be {choices(sorted(self._known))}")


def _within(value: Any, least: float | None, most: float | None) -> bool:
    return (math.isfinite(value) and (least is None or value >= least)
            and (most is None or value <= most))


def _name(value: object, where: str) -> str:
    if (not isinstance(value, str) or not 0 < len(value) <= 64
            or not set(value) <= _NAME_CHARACTERS):
        raise StudyError(f"{where} must be 1 to 64 letters, digits, '_', '-' "
                         f"or '.', got {excerpt(value)}")
    return value


def _list(table: _Table, key: str, kind: type, default: list[Any], *,
          empty: bool = False) -> list[Any]:
    values: list[Any] = table.take(key, list, default)
    if not values and not empty:
        raise StudyError(f"{table.place(key)} must not be empty")
    for value in values:
        if type(value) is not kind:
            raise StudyError(f"{table.place(key)} must be a list of "
                             f"{'texts' if kind is str else 'whole numbers'}, "
                             f"got {excerpt(value)}")
    if len(set(map(str, values))) != len(values):
        raise StudyError(f"{table.place(key)} names something twice")
    return values


def _model(value: object, where: str) -> ModelEntry:
    table = _Table(value, where)
    entry = ModelEntry(
        _name(table.take("name", str, ...), f"{where}: name"),
        _name(table.take("chat_format", str, "auto"), f"{where}: chat_format"))
    table.end()
    return entry


def _task(value: object, where: str, kind: str) -> TaskEntry:
    table = _Table(value, where)
    name = table.take("name", str, ..., among=tuple(sorted(TASKS)))
    prompt = table.take("prompt", str)
    if prompt is not None and prompt.count("{question}") != 1:
        raise StudyError(f"{where}: prompt must have {{question}} once")
    entry = TaskEntry(
        name=name,
        count=table.take("count", int, 100, least=1, most=MAX_ITEMS),
        seed=table.take("seed", int, 0, least=0, most=(1 << 63) - 1),
        max_new_tokens=table.take("max_new_tokens", int, least=1, most=1 << 20),
        prompt=prompt, system=table.take("system", str),
        perplexity=table.take("perplexity", bool),
        stop=tuple(_list(table, "stop", str, [], empty=True)))
    options = {key: table.take(key, kind_) for key, kind_
               in TASKS[name].options.items() if key in table.rest()}
    table.end()
    if kind == "tasks" and TASKS[name].kind == "none":
        raise StudyError(f"{where}: task {name} has nothing to score; it is "
                         "for studies of kind massive_values or rope_origin")
    return dataclasses.replace(entry, options=options)


def _arms(table: _Table, kind: str) -> dict[str, str]:
    default = {"clean": "clean"}
    if kind == "tasks":
        default |= {"disrupted": "family", "control": "family"}
    arms: dict[str, str] = table.take("arms", dict, default)
    for name, text in arms.items():
        _name(name, table.place("arms"))
        if not isinstance(text, str):
            raise StudyError(f"{table.place('arms')}.{name} must be a text as "
                             f"of qkctl's --arm, or \"family\", got "
                             f"{excerpt(text)}")
        if text == "family" and name not in ("disrupted", "control"):
            raise StudyError(f"{table.place('arms')}.{name}: \"family\" stands "
                             "for the arms named disrupted and control only")
    if "clean" not in arms.values():
        raise StudyError(f"{table.place('arms')} must have one that is "
                         "\"clean\", which the others are compared with")
    return arms


def _distinct(entries: list[Any], where: str) -> tuple[Any, ...]:
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"{where}: {excerpt(name)} stands there twice")
    return tuple(entries)


def models_of(values: list[Any], where: str) -> tuple[ModelEntry, ...]:
    """The models of a list of tables."""
    return _distinct([_model(value, f"{where}[{i}]")
                      for i, value in enumerate(values)], where)


def parse(text: str, where: str = "study") -> Study:
    """Reads a study's TOML."""
    try:
        value = toml().loads(text)
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{where} is not TOML: {error}") from error
    return from_values(value, where)


def from_values(value: object, where: str = "study") -> Study:
    table = _Table(value, where)
    kind = table.take("kind", str, ..., among=KINDS)
    models = models_of(table.take("models", list, []), f"{where}: models")
    tasks = [_task(entry, f"{where}: tasks[{i}]", kind) for i, entry
             in enumerate(table.take("tasks", list, ...))]
    if not tasks:
        raise StudyError(f"{where}: tasks must not be empty")
    scorers = _list(table, "scorers", str, ["paper_code", "strict"])
    for scorer in scorers:
        if scorer not in SCORERS:
            raise StudyError(f"{where}: scorers: there is no "
                             f"{excerpt(scorer)}; it must be {choices(SCORERS)}")
    seeds = _list(table, "seeds", int, [0])
    if min(seeds) < 0 or max(seeds) >= 1 << 63:
        raise StudyError(f"{where}: seeds must be from 0 to 2^63 - 1")
    study = Study(
        name=_name(table.take("name", str, ...), f"{where}: name"), kind=kind,
        title=table.take("title", str, ""),
        models=models,
        tasks=_distinct(tasks, f"{where}: tasks"), arms=_arms(table, kind),
        seeds=tuple(seeds),
        temperature=table.take("temperature", float, 0.0, least=0, most=100),
        top_p=table.take("top_p", float, 1.0, least=1e-6, most=1),
        scorers=tuple(scorers),
        compare=table.take("compare", str, "arms", among=("arms", "models")),
        limits=table.take("limits", str, "own", among=("own", "paper_code")),
        lambda_=table.take("lambda", float, 5.0, least=1e-6, most=1e6),
        keep_norms=table.take("keep_norms", int, 4, least=0, most=10_000))
    table.end()
    if len(seeds) > 1 and study.temperature == 0 and not any(
            "family" == arm or "random" in arm or "preset" in arm
            for arm in study.arms.values()):
        raise StudyError(f"{where}: several seeds need temperature > 0 or an "
                         "arm that is random: otherwise every round is the same")
    return study


def ready() -> dict[str, str]:
    """The studies that come with the package: name -> TOML."""
    folder = importlib.resources.files("qkscope.study") / "ready"
    return {file.name.removesuffix(".toml"): file.read_text("utf-8")
            for file in sorted(folder.iterdir(), key=lambda f: f.name)
            if file.name.endswith(".toml")}


def load(name: str) -> Study:
    """Reads a file, or a ready study by its name."""
    if name in ready():
        return parse(ready()[name], name)
    path = pathlib.Path(name)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StudyError(f"{name} is larger than 1 MiB, so it is no study")
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise StudyError(f"{name} is no file, and no ready study: those are "
                         f"{choices(ready())}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{name} cannot be read: {error}") from error
    return parse(text, name)
