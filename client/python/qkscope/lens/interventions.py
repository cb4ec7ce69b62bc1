"""TransformerLens's intervention specs as rules of an arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from qkscope.arms import Arm, Rule
from qkscope.lens.names import resolve

# Point -> the tensor and where it is changed.
_PLACES = {"hook_q": ("q", "pre_rope"), "hook_k": ("k", "pre_rope"),
           "hook_v": ("v", None), "hook_rot_q": ("q", "post_rope"),
           "hook_rot_k": ("k", "post_rope")}
_CAN = ("a qkscope server can suppress and scale q, k, v, rot_q and rot_k, and "
        "runs arms (arm='top_k:1')")


def arm_of(intervene: Mapping[str, Any], head_dims: Mapping[int, int]) -> Arm:
    """The arm that does {hook name: {"op": "suppress" | "scale", ...}}. `pos`:
    a position or adjacent ones. head_dims: of each layer.
    NotImplementedError: a server cannot do it."""
    return Arm("intervention", [_rule(name, spec, head_dims)
                                for name, spec in intervene.items()])


def _rule(name: str, spec: Any, head_dims: Mapping[int, int]) -> Rule:
    place = resolve(name)
    if place is None or place[0] not in head_dims or place[1] not in _PLACES:
        raise NotImplementedError(f"cannot intervene on {name!r}: {_CAN}")
    operation = spec.get("op") if isinstance(spec, Mapping) else None
    if operation not in ("suppress", "scale"):
        what = ("a function" if callable(spec) else
                f"operation {operation!r}")
        raise NotImplementedError(f"cannot run {what} on {name!r}: {_CAN}")
    factor = spec.get("factor") if operation == "scale" else None
    if operation == "scale" and not isinstance(factor, (int, float)):
        raise ValueError(f"intervention on {name!r}: 'scale' needs a number as "
                         "'factor'")
    layer, point = place
    tensor, where = _PLACES[point]
    return Rule("top_k", head_dims[layer], tensors=tensor, point=where,
                replace="zero" if factor is None else "scale",
                factor=None if factor is None else float(factor),
                layers=[layer], positions=_span(name, spec.get("pos")))


def _span(name: str, pos: Any) -> Optional[tuple[int, int]]:
    if pos is None:
        return None
    places = sorted(pos) if isinstance(pos, Sequence) else [pos]
    if not places or places[0] < 0 or places != list(
            range(places[0], places[-1] + 1)):
        raise NotImplementedError(
            f"cannot intervene on {name!r} at positions {pos!r}: a rule acts on "
            "adjacent positions, counted from 0")
    return places[0], places[-1] + 1
