"""GPT-2."""

import torch

from .family import VOCAB, Family, Tensors

_POSITIONS = 76


def _gpt2(**changes) -> dict:
    config = {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 1,
        "embd_pdrop": 0.1,
        "eos_token_id": 1,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": _POSITIONS,
        "n_embd": 24,
        "n_head": 3,
        "n_layer": 2,
        "n_positions": _POSITIONS,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {
            "text-generation": {"do_sample": True, "max_length": 50}
        },
        "vocab_size": VOCAB,
    }
    return {**config, **changes}


def _as_published(tensors: Tensors) -> Tensors:
    """Removes `transformer.` and adds each layer's mask as attn.bias."""
    mask = torch.ones(_POSITIONS, _POSITIONS).tril()[None, None]
    out = {n.removeprefix("transformer."): t for n, t in tensors.items()}
    for layer in range(2):
        out[f"h.{layer}.attn.bias"] = mask.clone()
    return out


FAMILIES = {
    "tiny_gpt2": Family(
        _gpt2(),
        seed=61,
        covers="learned positions (all but three used), layer norms, Conv1D"
        " weights (in, out), fused c_attn with bias, tanh GELU, MLP of 4 x"
        " hidden_size, tied head; names without prefix, inert attn.bias",
        stored=_as_published,
    ),
    "tiny_gpt2_layer_scale": Family(
        _gpt2(
            n_layer=3,
            n_inner=40,
            reorder_and_upcast_attn=True,
            scale_attn_by_inverse_layer_idx=True,
        ),
        seed=62,
        covers="scores divided by the layer's number from 1, `n_inner`; names"
        " with `transformer.`",
        matters=({"scale_attn_by_inverse_layer_idx": False},),
    ),
}
