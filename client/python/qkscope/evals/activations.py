"""Activations as TransformerLens's Inspect providers write them into an output's
metadata: {"<layer>:<kind>": {"data": base64, "dtype", "shape"}}, without the
batch's dimension."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from qkscope.errors import InvalidRequest
from qkscope.lens.names import POINTS, resolve
from qkscope.run import ArmResult
from qkscope.spec import Capture

FORMS = ("raw", "norm_over_tokens", "norm_per_token")


def parse_keys(keys: Union[str, Iterable[str]]) -> list[tuple[int, str]]:
    """(layer, point) of keys: "3:rot_q", or "blocks.3.attn.hook_rot_q".
    Text may hold several, with spaces between. InvalidRequest: it is no key."""
    places = []
    for key in keys.split() if isinstance(keys, str) else keys:
        layer, _, kind = str(key).partition(":")
        place = resolve(str(key)) or (
            (int(layer), f"hook_{kind}") if layer.isdigit() else None)
        if place is None or place[1] not in POINTS:
            kinds = ", ".join(point[len("hook_"):] for point in POINTS)
            raise InvalidRequest(
                f"activations: '{key}' is no hook of a qkscope server",
                field="activations",
                remedy=f"write LAYER:KIND, where KIND is one of {kinds}")
        places.append(place)
    return places


def capture(places: Iterable[tuple[int, str]], form: str, tokens: int,
            stage: str) -> Capture:
    """What to capture for these places, of a prompt of `tokens` tokens."""
    if form not in FORMS:
        raise InvalidRequest(f"activations_form: '{form}' is not one of "
                             + ", ".join(FORMS), field="activations_form")
    points = sorted({point for _, point in places})
    return Capture(layers=sorted({layer for layer, _ in places}),
                   points=points, form=form, stage=stage,
                   positions=range(tokens) if "hook_pattern" in points
                   else None)


def encode(result: ArmResult, places: Iterable[tuple[int, str]]
           ) -> dict[str, Any]:
    """The metadata's entry."""
    entries = {}
    for layer, point in places:
        values = result.point(point).layer(layer)
        if point == "hook_pattern":  # (heads, queries, keys), as there
            values = values.transpose(1, 0, 2)
        entries[f"{layer}:{point[len('hook_'):]}"] = {
            "data": base64.b64encode(np.ascontiguousarray(values).tobytes()
                                     ).decode(),
            "dtype": str(values.dtype), "shape": list(values.shape)}
    return entries


def decode(metadata: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an output's metadata, by key."""
    return {key: np.frombuffer(base64.b64decode(entry["data"]),
                               np.dtype(entry["dtype"])
                               ).reshape(entry["shape"])
            for key, entry in (metadata.get("activations") or {}).items()}
