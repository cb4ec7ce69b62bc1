"""GPT-NeoX and Pythia."""

import torch

from .family import VOCAB, Family, Tensors

_POSITIONS = 80


def _gpt_neox(**changes) -> dict:
    config = {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "gelu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": _POSITIONS,
        "model_type": "gpt_neox",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.24.0",
        "use_cache": True,
        "use_parallel_residual": True,
        "vocab_size": VOCAB,
    }
    return {**config, **changes}


def _named(tensors: Tensors) -> Tensors:
    """Renames the head to `embed_out`."""
    return {n.replace("lm_head.", "embed_out."): t for n, t in tensors.items()}


def _as_published(tensors: Tensors) -> Tensors:
    """Adds each layer's mask, the score of hidden keys, and frequencies."""
    mask = torch.ones(_POSITIONS, _POSITIONS, dtype=torch.uint8).tril()
    out = _named(tensors)
    for layer in range(2):
        attention = f"gpt_neox.layers.{layer}.attention"
        out[f"{attention}.bias"] = mask[None, None].clone()
        out[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        out[f"{attention}.rotary_emb.inv_freq"] = torch.tensor([1.0, 0.01])
    return out


FAMILIES = {
    "tiny_gpt_neox": Family(
        _gpt_neox(),
        seed=91,
        covers="parallel residual, RoPE of the first 4 of 16 dims, each head's Q,"
        " K and V together, bias by default, exact GELU, untied head embed_out;"
        " inert bias, masked_bias and inv_freq",
        matters=(
            {"use_parallel_residual": False},
            {"rotary_pct": 0.5},
            {"rotary_emb_base": 100},
        ),
        stored=_as_published,
    ),
    "tiny_gpt_neox_serial": Family(
        _gpt_neox(use_parallel_residual=False, rotary_pct=1.0),
        seed=92,
        covers="serial residual, RoPE of all dims",
        matters=({"use_parallel_residual": True}, {"rotary_pct": 0.25}),
        stored=_named,
    ),
}
