"""The report of a file of results: one HTML page that needs nothing else, the
figures as PNG and SVG, and the tables as CSV."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import importlib.resources
import io
import json
import math
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt

from qkscope.study import figures, results
from qkscope.study.errors import replaced
from qkscope.study.store import Store
from qkscope.study.tasks import TASKS

SCRIPTS = ("basics.js", "scores.js", "values.js", "answers.js", "start.js")
MAX_ANSWERS = 20_000  # items of all models and seeds; a page must stay usable


def write_report(file: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes report.html, the tables and the figures into the folder `out`;
    returns the paths. Files that are there are replaced once each is whole."""
    with Store.open(file) as store, store.understood():
        written = [out / "report.html"]
        with replaced(written[0]) as path:
            path.write_text(page(store), "utf-8")
        for name, text in tables(store).items():
            written.append(out / f"{name}.csv")
            with replaced(written[-1]) as path:
                path.write_text(text, "utf-8")
        return written + figures.write_figures(store, out)


def page(store: Store) -> str:
    """The page's HTML."""
    folder = importlib.resources.files("qkscope.study") / "page"

    def read(name: str) -> str:
        return (folder / name).read_text("utf-8")

    # "<" would let a text of the results end the element that holds it.
    data = json.dumps(_clean(page_data(store)), separators=(",", ":"),
                      allow_nan=False).replace("<", "\\u003c")
    parts = {"TITLE": html.escape(_title(store)), "STYLE": read("page.css"),
             "SCRIPT": "".join(map(read, SCRIPTS)), "DATA": data}
    pieces = read("page.html").split("@")
    # Pieces at odd places are names; what they stand for is not split again.
    return "".join(parts[piece] if i % 2 else piece
                   for i, piece in enumerate(pieces))


def _title(store: Store) -> str:
    return store.study.title or store.study.name


def page_data(store: Store) -> dict[str, Any]:
    study = store.study
    means = results.layer_means(store)
    done, planned = store.counts()
    lead = (f"{done} of {planned} prompts, "
            f"{', '.join(model.name for model in study.models)}.")
    if done < planned:
        lead += " The study is not finished: all figures are preliminary."
    return {
        "title": _title(store), "lead": lead, "kind": study.kind,
        "compare": study.compare, "lambda": study.lambda_, "arms": study.arms,
        "scorers": list(study.scorers), "about": _about(store),
        "models": {name: {"layers": info["layers"], "rope": info["rope"]}
                   for name, info in store.models().items()},
        "scores": [_score(row) for row in results.score_rows(store)],
        "tests": [{**_plain(row, "test"), **dataclasses.asdict(row.test)}
                  for row in results.test_rows(store)],
        "layers": [{**dataclasses.asdict(row), "top_dims": sorted(
            row.top_dims.items(), key=lambda top: -top[1])[:3]}
            for row in means],
        "totals": [dataclasses.asdict(row) for row in results.totals(means)],
        "comparisons": [{"model": model, "arm": arm, "kl": kl, "flips": flips}
                        for model, arm, kl, flips
                        in results.comparison_means(store)],
        "norms": {json.dumps(key, separators=(",", ":")): {
            layer: _packed(norms) for layer, norms in layers.items()}
            for key, layers in results.mean_norms(store).items()},
        **_answers(store)}


def _plain(row: Any, *without: str) -> dict[str, Any]:
    return {field.name: getattr(row, field.name)
            for field in dataclasses.fields(row) if field.name not in without}


def _score(row: results.ScoreRow) -> dict[str, Any]:
    chance = TASKS[row.task].chance
    guessed = (chance is not None
               and row.accuracy.low <= chance <= row.accuracy.high)
    return {**_plain(row, "accuracy"), "like_guessing": guessed,
            "share": row.accuracy.share, "items": row.accuracy.items, "low": row.accuracy.low,
            "high": row.accuracy.high}


def _packed(norms: npt.NDArray[np.float64]) -> dict[str, Any]:
    """(heads, dims) as 16-bit numbers times a scale: 10^-5 of the largest."""
    finite = np.where(np.isfinite(norms), norms, 0.0)
    scale = max(float(finite.max(initial=0.0)), 1e-30) / 65535
    numbers = np.rint(finite / scale).astype("<u2")
    return {"shape": list(norms.shape), "scale": scale,
            "data": base64.b64encode(numbers.tobytes()).decode()}


def _answers(store: Store) -> dict[str, Any]:
    """Items with the answers of all arms; questions once for all models."""
    scorers = store.study.scorers
    items: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for row in results.answer_rows(store):
        key = (row.model, row.task, row.item, row.seed)
        if key not in items and len(items) >= MAX_ANSWERS:
            continue
        entry = items.setdefault(key, {
            "model": row.model, "task": row.task, "item": row.item,
            "seed": row.seed, "arms": {}})
        entry["arms"][row.arm] = {
            "text": row.text,
            "right": [row.verdicts[name].right for name in scorers]}
    missing = {"text": "", "right": [False] * len(scorers)}
    questions, wanted = {}, {}
    for unit in store.units():
        questions[unit.item.id] = unit.item.question
        wanted[unit.item.id] = unit.item.answer
    if not items:
        questions = {}
    return {"questions": questions, "answers": [
        {**entry, "answer": wanted[entry["item"]],
         "arms": [entry["arms"].get(arm, missing)
                  for arm in store.study.arms]}
        for entry in items.values()]}


def _about(store: Store) -> list[tuple[str, str]]:
    rows = [("study", store.study.name)]
    for name, info in store.models().items():
        rows.append((name, f"{info['architecture']}, {info['parameters']:,} "
                     f"parameters, {info['weights_dtype']}, computed in "
                     f"{info['compute_type']} on {info['backend']}; chat "
                     f"format {info['chat_format']}; weights "
                     f"{info['weights_sha256']}"))
    for name, text in store.study.arms.items():
        rows.append((f"arm {name}", text if text != "family" else
                     "as the published code does to the model's family"))
    rows += [("sampling", "greedy" if store.study.temperature == 0 else
              f"temperature {store.study.temperature:g}, seeds "
              f"{', '.join(map(str, store.study.seeds))}")]
    return rows + [(f"version of {name}", version)
                   for name, version in store.about().items()]


def _clean(value: Any) -> Any:
    """Numbers that are not finite become null, which JSON has."""
    if isinstance(value, dict):
        return {key: _clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def tables(store: Store) -> dict[str, str]:
    """The final tables as CSV. They hold nothing that differs between two runs
    of the same study on the same kernels, such as times."""
    scores = [_score(row) for row in results.score_rows(store)]
    tests = [{**_plain(row, "test"), **dataclasses.asdict(row.test)}
             for row in results.test_rows(store)]
    layers = [{**_plain(row, "top_dims"), "top_dims": " ".join(
        str(dim) for dim, _ in sorted(row.top_dims.items(),
                                      key=lambda top: (-top[1], top[0]))[:3])}
        for row in results.layer_means(store)]
    out = {"scores": scores, "tests": tests, "layers": layers}
    return {name: _csv(rows) for name, rows in out.items() if rows}


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float)
                         else value for key, value in row.items()})
    return text.getvalue()
