"""Published data sets, read from a folder with their standard files."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from qkscope.study.errors import StudyError, choices, excerpt
from qkscope.study.tasks.item import Item, balanced, ordered, shuffled

MAX_BYTES = 1 << 30
_WHERE = {
    "aqua": ("AQuA/test.json", "github.com/google-deepmind/AQuA: test.json"),
    "gsm8k": ("gsm8k/test.jsonl", "github.com/openai/grade-school-math: "
              "grade_school_math/data/test.jsonl"),
    "imdb": ("aclImdb/train", "ai.stanford.edu/~amaas/data/sentiment: "
             "aclImdb_v1.tar.gz, unpacked"),
}


def _place(task: str, data: pathlib.Path | None) -> pathlib.Path:
    name, source = _WHERE[task]
    if data is None:
        raise StudyError(f"task {task}: --data FOLDER must name a folder with "
                         f"{name} (from {source})")
    place = data / name
    if not place.exists():
        raise StudyError(f"task {task}: {place} does not exist; it comes from "
                         f"{source}")
    return place


def _lines(task: str, file: pathlib.Path, keys: dict[str, type]
           ) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, each with these keys."""
    out = []
    try:
        if file.stat().st_size > MAX_BYTES:
            raise StudyError(f"task {task}: {file} is larger than 1 GiB")
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"task {task}: {file} cannot be read: {error}"
                         ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or not all(
                isinstance(entry.get(key), kind)
                for key, kind in keys.items()):
            raise StudyError(f"task {task}: {file}, line {number}, must be a "
                             f"JSON object with {choices(keys)}: "
                             f"{excerpt(line, 40)}")
        out.append(entry)
    return out


def aqua(*, count: int, seed: int, data: pathlib.Path | None) -> list[Item]:
    """The test file in its order. The answer is the letter; detail["options"]
    has the options as the file writes them ("A)21")."""
    del seed
    file = _place("aqua", data)
    items = []
    for i, entry in enumerate(_lines(
            "aqua", file, {"question": str, "options": list, "correct": str})
            [:count]):
        options = [str(option) for option in entry["options"]]
        letters = [option[:1] for option in options]
        if letters.count(entry["correct"]) != 1:
            raise StudyError(f"task aqua: {file}: the question "
                             f"{excerpt(entry['question'], 40)} has no option "
                             f"{excerpt(entry['correct'], 10)}")
        items.append(Item(
            f"aqua-{i}", f"{entry['question']} Choose the correct answer from "
            f"the options: {' '.join(options)}", entry["correct"],
            {"options": options}))
    return items


def gsm8k(*, count: int, seed: int, data: pathlib.Path | None) -> list[Item]:
    """The test file in its order. The answer is the number after ####."""
    del seed
    file = _place("gsm8k", data)
    items = []
    for i, entry in enumerate(_lines(
            "gsm8k", file, {"question": str, "answer": str})[:count]):
        _, found, answer = entry["answer"].rpartition("####")
        if not found:
            raise StudyError(f"task gsm8k: {file}: the answer of question "
                             f"{i + 1} has no ####")
        items.append(Item(f"gsm8k-{i}", entry["question"],
                          answer.strip().replace(",", "")))
    return items


def imdb(*, count: int, seed: int, data: pathlib.Path | None,
         order: str = "balanced") -> list[Item]:
    """order: balanced (half positive, chosen by the seed) or paper_code (the
    first ones of the training set, all of which are negative)."""
    if order not in ("balanced", "paper_code"):
        raise StudyError("task imdb: order must be balanced or paper_code, got "
                         f"{order!r}")
    folder = _place("imdb", data)
    kinds = {}
    for label, name in (("negative", "neg"), ("positive", "pos")):
        files = sorted((folder / name).glob("*.txt"), key=_review_number)
        kinds[label] = [(label, file) for file in files]
    generator = shuffled(seed, "imdb")
    if order == "paper_code":
        chosen = (kinds["negative"] + kinds["positive"])[:count]
    else:
        chosen = balanced(generator, ordered(generator, kinds["positive"]),
                          ordered(generator, kinds["negative"]), count)
    items = []
    for label, file in chosen:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StudyError(f"task imdb: {file} cannot be read: {error}"
                             ) from error
        items.append(Item(f"imdb-{file.parent.name}-{file.stem}",
                          text.replace("<br />", "\n"), label))
    return items


def _review_number(file: pathlib.Path) -> tuple[int, str]:
    """Files are called ID_RATING.txt; the data set has them in that order."""
    number = file.stem.partition("_")[0]
    return (int(number) if number.isdigit() else 1 << 60, file.name)
