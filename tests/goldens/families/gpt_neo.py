"""GPT-Neo."""

import torch

from .family import VOCAB, Family, Tensors

_POSITIONS = 76
_WINDOW = 8

_GPT_NEO = {
    "activation_function": "gelu_new",
    "architectures": ["GPTNeoForCausalLM"],
    "attention_dropout": 0,
    "attention_layers": ["global", "local"],
    "attention_types": [[["global", "local"], 1]],
    "bos_token_id": 1,
    "embed_dropout": 0,
    "eos_token_id": 1,
    "gradient_checkpointing": False,
    "hidden_size": 24,
    "initializer_range": 0.02,
    "intermediate_size": None,
    "layer_norm_epsilon": 1e-05,
    "max_position_embeddings": _POSITIONS,
    "model_type": "gpt_neo",
    "num_heads": 3,
    "num_layers": 2,
    "resid_dropout": 0,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "transformers_version": "4.9.0.dev0",
    "use_cache": True,
    "vocab_size": VOCAB,
    "window_size": _WINDOW,
}


def _as_published(tensors: Tensors) -> Tensors:
    """Adds each layer's mask and the score that it gives to hidden keys."""
    mask = torch.ones(_POSITIONS, _POSITIONS, dtype=torch.uint8).tril()
    local = mask - mask.tril(-_WINDOW)
    out = dict(tensors)
    for layer, bias in enumerate((mask, local)):
        attention = f"transformer.h.{layer}.attn.attention"
        out[f"{attention}.bias"] = bias[None, None].clone()
        out[f"{attention}.masked_bias"] = torch.tensor(-1e9)
    return out


FAMILIES = {
    "tiny_gpt_neo": Family(
        _GPT_NEO,
        seed=81,
        covers="scores not scaled, layer 0 global and layer 1 local (8 keys), no"
        " bias of Q, K and V, learned positions, tied head; inert bias and"
        " masked_bias",
        matters=(
            {"window_size": 7},
            {"attention_layers": ["global", "global"]},
        ),
        stored=_as_published,
    ),
}
