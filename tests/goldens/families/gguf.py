"""Models that GGUF can fully describe, unlike others of their families.

llama.cpp's format has no field for some of what config.json says:

gemma2, gemma3: `query_pre_attn_scalar`; it is head_dim (but in the 27B models).
gemma3: which layers see a window; all but every sixth one do.
gpt_neox: the activation; llama.cpp computes the tanh form of GELU. The base of
    RoPE; it is 10000.
gpt2: `scale_attn_by_inverse_layer_idx`; there is none.
llama (for Mistral): the window; there is none.
"""

import dataclasses

import torch

from . import gemma, gpt_neox, llama, qwen
from .family import Family, Tensors


def _changed(family: Family, seed: int, **fields) -> Family:
    return Family(
        family.config | fields,
        seed=seed,
        covers="",
        stored=family.stored,
    )


def round_to_q8_0(tensors: Tensors) -> Tensors:
    """Rounds the matrices to blocks of 32 with one F16 scale each."""

    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        blocks = tensor.reshape(-1, 32)
        scale = blocks.abs().amax(dim=-1, keepdim=True) / 127
        quants = (blocks / scale).round()
        return (quants * scale.half().float()).reshape(tensor.shape)

    return {k: rounded(t) if t.dim() == 2 else t for k, t in tensors.items()}


_LLAMA = llama.FAMILIES["tiny_llama_gqa"]

# Folder name to model, and the converter's --outtype.
GGUF_FAMILIES: dict[str, tuple[Family, str]] = {
    "gemma2": (
        _changed(
            gemma.FAMILIES["tiny_gemma2"], 301, query_pre_attn_scalar=12
        ),
        "f32",
    ),
    "gemma3": (
        dataclasses.replace(
            _changed(
                gemma.FAMILIES["tiny_gemma3"],
                302,
                query_pre_attn_scalar=12,
                num_hidden_layers=7,
                sliding_window_pattern=6,
            ),
            prompt_lengths=(11, 23),
        ),
        "f32",
    ),
    "gpt_neox": (
        _changed(
            gpt_neox.FAMILIES["tiny_gpt_neox"], 303, hidden_act="gelu_new"
        ),
        "f32",
    ),
    "gpt_neox_serial": (
        _changed(
            gpt_neox.FAMILIES["tiny_gpt_neox_serial"],
            304,
            hidden_act="gelu_new",
        ),
        "f32",
    ),
    "llama_q8_0": (
        dataclasses.replace(
            _changed(_LLAMA, 305, hidden_size=32, intermediate_size=64),
            stored=round_to_q8_0,
        ),
        "q8_0",
    ),
    "qwen2_f16": (
        dataclasses.replace(
            _changed(qwen.FAMILIES["tiny_qwen2"], 306), dtype=torch.float16
        ),
        "f16",
    ),
}
