"""TransformerLens's names of hook points, and this package's.

TransformerLens has two generations of names. HookedTransformer's stand first;
TransformerBridge has both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional

# A hook point of qkscope -> its names in a block.
POINTS: dict[str, tuple[str, ...]] = {
    "hook_q": ("attn.hook_q", "attn.q.hook_out"),
    "hook_k": ("attn.hook_k", "attn.k.hook_out"),
    "hook_v": ("attn.hook_v", "attn.v.hook_out"),
    "hook_rot_q": ("attn.hook_rot_q",),
    "hook_rot_k": ("attn.hook_rot_k",),
    "hook_z": ("attn.hook_z", "attn.o.hook_in"),
    "hook_pattern": ("attn.hook_pattern",),
}
ROTATED = ("hook_rot_q", "hook_rot_k")
# What TransformerLens has, and qkscope does not give.
_ELSEWHERE = (
    "hook_embed", "hook_pos_embed", "embed.hook_out", "pos_embed.hook_out",
    "ln_final.hook_scale", "ln_final.hook_normalized", "unembed.hook_out")
_ELSEWHERE_IN_BLOCKS = (
    "hook_in", "hook_out", "hook_resid_pre", "hook_resid_mid",
    "hook_resid_post", "hook_attn_in", "hook_attn_out", "hook_mlp_in",
    "hook_mlp_out", "ln1.hook_scale", "ln1.hook_normalized", "ln2.hook_scale",
    "ln2.hook_normalized", "ln2.hook_in", "attn.hook_in", "attn.hook_out",
    "attn.hook_attn_scores", "attn.hook_result", "mlp.hook_in", "mlp.hook_out",
    "mlp.hook_pre", "mlp.hook_post")
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_POINT_OF = {name: point for point, names in POINTS.items() for name in names}


def hook_name(layer: int, point: str) -> str:
    """TransformerLens's name: "blocks.3.attn.hook_rot_q"."""
    return f"blocks.{layer}.{POINTS[point][0]}"


def resolve(name: str) -> Optional[tuple[int, str]]:
    """The layer and the point of a name in either form; None: it is neither."""
    match = _BLOCK.fullmatch(name)
    point = _POINT_OF.get(match[2]) if match else None
    return (int(match[1]), point) if match and point else None


def served(layers: Iterable[int], rotary: bool) -> frozenset[str]:
    """The names that a server fires, in both forms. layers: those with
    attention. rotary: the model has RoPE."""
    points = [point for point in POINTS if rotary or point not in ROTATED]
    return frozenset(f"blocks.{layer}.{name}" for layer in layers
                     for point in points for name in POINTS[point])


def not_served(num_layers: int) -> frozenset[str]:
    """Names of TransformerLens that no server fires."""
    return frozenset(_ELSEWHERE) | frozenset(
        f"blocks.{layer}.{name}" for layer in range(num_layers)
        for name in _ELSEWHERE_IN_BLOCKS)
