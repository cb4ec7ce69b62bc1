"""Finds attention in transformers' families, and knows its layout.

Shapes: T tokens, H query heads, G KV heads, D head_dim.
"""

import re
from collections.abc import Callable

import torch
from torch import nn

# A module with one of these is a layer's attention.
_PROJECTIONS = ("q_proj", "qkv_proj", "c_attn", "query_key_value")


def attention_by_layer(model: nn.Module) -> dict[int, nn.Module]:
    """Returns the text model's attention modules by layer; some have none."""
    found = {}
    for name, module in model.named_modules():
        match = re.search(r"(?:^|\.)(?:layers|h)\.(\d+)\.", name)
        children = dict(module.named_children())
        if "vision_tower" in name:
            continue
        if match and any(p in children for p in _PROJECTIONS):
            found[int(match[1])] = module
    return found


def head_dim(attention: nn.Module) -> int:
    return getattr(attention, "head_dim", None) or attention.head_size


def watch_projections(
    attention: nn.Module, keep: Callable[[str, torch.Tensor], None]
) -> None:
    """Calls keep("hook_q", (T, H, D)) and keep("hook_k", (T, G, D)).

    These are the projections' outputs, bias included, before any norm or RoPE.
    """
    dim = head_dim(attention)
    config = attention.config
    q_rows = config.num_attention_heads * dim

    def on_output(module: nn.Module, split) -> None:
        def hook(_module, _inputs, output):
            for name, part in split(output[0]).items():
                keep(name, part.reshape(part.shape[0], -1, dim))

        module.register_forward_hook(hook)

    if hasattr(attention, "q_proj"):
        on_output(attention.q_proj, lambda out: {"hook_q": out})
        on_output(attention.k_proj, lambda out: {"hook_k": out})
    elif hasattr(attention, "qkv_proj"):  # All of Q, all of K, all of V.
        kv_rows = config.num_key_value_heads * dim
        on_output(
            attention.qkv_proj,
            lambda out: {
                "hook_q": out[:, :q_rows],
                "hook_k": out[:, q_rows : q_rows + kv_rows],
            },
        )
    elif hasattr(attention, "c_attn"):  # The same, as many K as Q.
        on_output(
            attention.c_attn,
            lambda out: {
                "hook_q": out[:, :q_rows],
                "hook_k": out[:, q_rows : 2 * q_rows],
            },
        )
    else:  # Each head's Q, K and V together.

        def by_head(out: torch.Tensor) -> dict[str, torch.Tensor]:
            heads = out.view(out.shape[0], -1, 3, dim)
            return {"hook_q": heads[:, :, 0], "hook_k": heads[:, :, 1]}

        on_output(attention.query_key_value, by_head)
