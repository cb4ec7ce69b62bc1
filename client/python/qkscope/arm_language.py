"""The language of qkctl's --arm, read into Arms.

   ARM    := [NAME=]SPEC            NAME: letters, digits, '_', '-'
   SPEC   := clean | RULE[;RULE]... | preset:NAME    then [,KEY=VALUE]...
   RULE   := SELECT[,KEY=VALUE]...
   SELECT := top_k:K | bottom_k:K | random_k:K | threshold[:LAMBDA]
           | explicit:HEAD/DIM[+HEAD/DIM]...

Errors are InvalidRequest, and name the arm, the key and what is allowed.
"""

from __future__ import annotations

import math
import re
from typing import Any, Callable, Optional

from qkscope.arms import MAX_NAME_BYTES, SELECTS, Arm, Rule, Span
from qkscope.enums import did_you_mean
from qkscope.errors import InvalidRequest

_KINDS = ("clean", *SELECTS, "preset")
_MAX_LIST_ENTRIES = 65536
_NAME = re.compile(r"([A-Za-z0-9_-]+)=")
_INT = re.compile(r"[+-]?[0-9]+")


class _Bad(Exception):
    """What is wrong with a part of the text."""


def parse(text: str) -> Arm:
    """Reads one arm. InvalidRequest: "arm 'TEXT': what is wrong"."""
    try:
        return _arm(text)
    except _Bad as error:
        raise InvalidRequest(f"arm '{text}': {error}") from None
    except InvalidRequest as error:
        raise InvalidRequest(f"arm '{text}': {error.message}",
                             field=error.field) from None


def _arm(text: str) -> Arm:
    named = _NAME.match(text)
    spec = text[named.end():] if named else text
    name = named[1] if named else spec.replace("+", "_").replace(";", "_")
    parts = spec.split(";")
    rules: list[Rule] = []
    preset: tuple[str, Optional[int]] = ("", None)
    model: Optional[str] = None
    whole = False  # clean, or a preset
    for part in parts:
        try:
            values = _part(part)
        except (_Bad, InvalidRequest) as error:
            if named and named[1] in _KINDS:
                raise _Bad(f"{error}; did you mean {named[1]}:{spec}?"
                           ) from None
            raise
        if values.get("model") is not None:
            if model is not None:
                raise _Bad("'model' is given twice")
            model = values["model"]
        if isinstance(values.get("rule"), Rule):
            rules.append(values["rule"])
        else:
            whole = True
            preset = values["preset"]
    if whole and len(parts) > 1:
        raise _Bad("clean and presets cannot be joined with rules")
    if len(name) > MAX_NAME_BYTES:
        raise _Bad(f"its name is longer than {MAX_NAME_BYTES} characters; set a "
                   "shorter name with NAME=SPEC")
    return Arm(name, tuple(rules), model, preset_name=preset[0],
               preset_seed=preset[1])


def _part(text: str) -> dict[str, Any]:
    """One RULE, `clean` or preset, with its keys."""
    head, *pairs = text.split(",")
    keys: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise _Bad(f"'{pair}' is not KEY=VALUE")
        if key in keys:
            raise _Bad(f"'{key}' is given twice")
        keys[key] = value
    model = keys.pop("model", None)
    if head.startswith("preset:") or head == "clean":
        seed = None
        if head != "clean" and "seed" in keys:
            seed = _unsigned(keys.pop("seed"))
        for key in keys:
            raise _Bad(f"'{key}' has no meaning for '{head}'")
        return {"preset": (head[len("preset:"):], seed), "model": model}
    return {"rule": _rule(head, keys), "model": model}


def _rule(head: str, keys: dict[str, str]) -> Rule:
    kind, colon, argument = head.partition(":")
    values: dict[str, Any] = {}
    if kind == "clean":
        raise _Bad("clean takes no argument")
    if kind == "threshold":
        if colon:
            if "lambda" in keys:
                raise _Bad("'lambda' is given twice")
            keys = {"lambda": argument, **keys}
    elif kind == "explicit":
        values["entries"] = [_entry(part) for part in argument.split("+")]
    elif kind in SELECTS:
        try:
            values["k"] = _int(argument)
        except _Bad:
            raise _Bad(f"{kind} needs the number of dims, as in {kind}:1; got "
                       f"'{argument}'") from None
    else:
        raise _Bad(f"'{kind}' is not one of clean, top_k:K, bottom_k:K, "
                   "random_k:K, threshold:LAMBDA, explicit:HEAD/DIM, "
                   "preset:NAME" + did_you_mean(kind, _KINDS))
    for key, value in keys.items():
        if key not in _READERS:
            names = (*_READERS, "model")
            raise _Bad(f"'{key}' is not a key; keys are {', '.join(names)}"
                       + did_you_mean(key, names))
        if key == "seed" and kind != "random_k":
            raise _Bad("seed: only random_k has a seed")
        if key == "exclude_top" and kind != "random_k":
            raise _Bad("exclude_top: only random_k can exclude_top")
        if key == "lambda" and kind != "threshold":
            raise _Bad("lambda: only threshold has a lambda")
        try:
            values["lambda_" if key == "lambda" else key] = (
                _READERS[key](value))
        except _Bad as error:
            raise _Bad(f"{key}: {error}") from None
    rule = Rule(kind, **values)
    rule.to_proto()  # finds enum values that there are not
    return rule


def _entry(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match:
        raise _Bad(f"explicit: '{text}' is not HEAD/DIM, as in 0/12+3/40")
    return int(match[1]), int(match[2])


def _int(text: str) -> int:
    if not _INT.fullmatch(text) or not -2**31 <= int(text) < 2**31:
        raise _Bad(f"'{text}' is not a whole number")
    return int(text)


def _unsigned(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**64:
        raise _Bad(f"'{text}' is not a whole number >= 0")
    return int(text)


def _float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _Bad(f"'{text}' is not a finite number")
    return value


def _bool(text: str) -> bool:
    values = {"true": True, "t": True, "yes": True, "y": True, "1": True,
              "false": False, "f": False, "no": False, "n": False, "0": False}
    if text.lower() not in values:
        raise _Bad(f"'{text}' is not true or false")
    return values[text.lower()]


def int_list(text: str) -> list[int]:
    """Reads numbers and ranges: "0-3+7" or "0-3,7". _Bad otherwise."""
    numbers: list[int] = []
    for part in re.split(r"[,+]", text):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise _Bad(f"'{part}' is not a number or a range such as 0-3")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise _Bad(f"'{part}' is not a range: its end must be a number >= "
                       f"{first}")
        if len(numbers) + last - first + 1 > _MAX_LIST_ENTRIES:
            raise _Bad(f"more than {_MAX_LIST_ENTRIES} numbers")
        numbers.extend(range(first, last + 1))
    return numbers


def _span(text: str) -> Span:
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if not match:
        raise _Bad(f"'{text}' is not a span; write BEGIN:END, BEGIN: or :END "
                   "(positions from 0, END not included)")
    return (int(match[1]) if match[1] else None,
            int(match[2]) if match[2] else None)


def _tensors(text: str) -> list[str]:
    for part in text.split("+"):
        if part.lower() not in ("q", "k", "v"):
            raise _Bad(f"'{part}' is not one of q, k, v (joined by +, as in "
                       "q+k)")
    return text.lower().split("+")


_READERS: dict[str, Callable[[str], Any]] = {
    "tensors": _tensors, "point": str.lower, "axis": str.lower,
    "replace": str.lower, "factor": _float, "kv_grouping": str.lower,
    "phase": str.lower, "reselect": _bool, "kv_cache": str.lower,
    "stat_span": _span, "positions": _span, "layers": int_list,
    "heads": int_list, "tower": str.lower, "seed": _unsigned,
    "exclude_top": _int, "lambda": _float,
}
