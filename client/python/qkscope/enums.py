"""Names of the API's enums, as this package writes them: "hook_rot_q"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from qkscope.errors import InvalidRequest
from qkscope.v1 import spec_pb2


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """"; did you mean NAME?", or "" if no name is near."""
    near = difflib.get_close_matches(word.lower(), list(names), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _names(enum: Any) -> list[str]:
    return [value.name.lower() for value in enum.values if value.number != 0]


def _number(enum: Any, field: str, text: str) -> int:
    value = enum.values_by_name.get(str(text).upper())
    if value is not None and value.number != 0:
        return int(value.number)
    names = _names(enum)
    raise InvalidRequest(
        f"{field}: '{text}' is not one of {', '.join(names)}"
        + did_you_mean(str(text), names), field=field)


def number(message: Any, field: str, text: str) -> Any:
    """The number of a value of the message's enum field. InvalidRequest names
    the values that there are."""
    return _number(message.DESCRIPTOR.fields_by_name[field].enum_type, field,
                   text)


def tensor(letter: str) -> Any:
    """The number of tensor "q", "k" or "v"."""
    if letter.lower() not in ("q", "k", "v"):
        raise InvalidRequest(f"tensors: '{letter}' is not one of q, k, v")
    return spec_pb2.QkvTensor.Value(f"QKV_TENSOR_{letter.upper()}")


def name(enum: Any, value: int) -> str:
    """The name of a value, lower case; its number, if a newer server sent a
    value that this client does not know."""
    found = enum.DESCRIPTOR.values_by_number.get(value)
    return found.name.lower() if found is not None else str(value)
