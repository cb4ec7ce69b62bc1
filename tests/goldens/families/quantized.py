"""Models with 4-bit weights, AWQ and GPTQ."""

import dataclasses

from .llama import llama
from .qwen import qwen2

_FOUR_HEADS = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "torch_dtype": "float16",
}


def _llama(**changes) -> dict:
    config = llama(**_FOUR_HEADS, rope_theta=10000.0)
    del config["dtype"]
    config["head_dim"] = 16
    return {**config, **changes}


def _wide() -> dict:
    """Gives groups of 128 inputs: two, but one in o_proj and down_proj."""
    return _llama(
        hidden_size=256,
        intermediate_size=128,
        tie_word_embeddings=True,
        num_attention_heads=8,
        num_key_value_heads=1,
    )


def _awq(group_size: int) -> dict:
    """Returns the quantization_config that AutoAWQ writes."""
    return {
        "bits": 4,
        "group_size": group_size,
        "modules_to_not_convert": None,
        "quant_method": "awq",
        "version": "gemm",
        "zero_point": True,
    }


def _gptq(group_size: int, desc_act: bool, sym: bool) -> dict:
    """Returns the quantization_config that AutoGPTQ writes."""
    return {
        "bits": 4,
        "damp_percent": 0.1,
        "desc_act": desc_act,
        "group_size": group_size,
        "model_file_base_name": "model",
        "model_name_or_path": "",
        "quant_method": "gptq",
        "static_groups": False,
        "sym": sym,
        "true_sequential": True,
    }


def _gptqmodel(group_size: int, desc_act: bool, sym: bool) -> dict:
    """Returns the quantization_config that GPTQModel writes."""
    return {
        "bits": 4,
        "checkpoint_format": "gptq",
        "desc_act": desc_act,
        "group_size": group_size,
        "lm_head": False,
        "meta": {
            "damp_auto_increment": 0.0025,
            "damp_percent": 0.01,
            "mse": 0.0,
            "quantizer": ["gptqmodel:2.2.0"],
            "static_groups": False,
            "true_sequential": True,
            "uri": "https://github.com/modelcloud/gptqmodel",
        },
        "pack_dtype": "int32",
        "quant_method": "gptq",
        "sym": sym,
    }


@dataclasses.dataclass(frozen=True)
class Case:
    """config: without its quantization_config. zero_biases: every quantised
    module has a `bias` of zeros, as early AutoGPTQ checkpoints of Llama have.
    """

    config: dict
    quantization: dict
    seed: int
    covers: str
    prompt_lengths: tuple[int, int] = (13, 70)
    zero_biases: bool = False


_QWEN2 = qwen2(**(_FOUR_HEADS | {"max_window_layers": 1}))

QUANTIZED = {
    "tiny_awq_g32": Case(_llama(), _awq(32), 201, "AWQ, groups of 32"),
    "tiny_awq_g64": Case(
        _llama(), _awq(64), 202, "AWQ, groups of 64, which is all inputs"
    ),
    "tiny_awq_g128": Case(
        _wide(), _awq(128), 203, "AWQ, groups of 128, tied F16 head", (13, 20)
    ),
    "tiny_awq_channel": Case(_llama(), _awq(-1), 204, "AWQ, `group_size` -1"),
    "tiny_awq_qwen2": Case(
        _QWEN2, _awq(32), 205, "AWQ, F16 bias of Q, K and V, tied F16 head"
    ),
    "tiny_gptq_g32_sym": Case(
        _llama(), _gptq(32, False, True), 211, "GPTQ, groups of 32, `sym`"
    ),
    "tiny_gptq_g32_asym": Case(
        _llama(),
        _gptqmodel(32, False, False),
        212,
        "GPTQ, groups of 32, zeros; GPTQModel's fields",
    ),
    "tiny_gptq_g32_sym_desc": Case(
        _llama(),
        _gptqmodel(32, True, True),
        213,
        "GPTQ, groups of 32, `sym`, `desc_act` (g_idx out of order)",
    ),
    "tiny_gptq_g64_sym": Case(
        _llama(), _gptqmodel(64, False, True), 214, "GPTQ, groups of 64, `sym`"
    ),
    "tiny_gptq_g128_asym_desc": Case(
        _wide(),
        _gptq(128, True, False),
        215,
        "GPTQ, groups of 128, zeros, `desc_act`, tied F16 head",
        (13, 20),
    ),
    "tiny_gptq_channel_sym": Case(
        _llama(),
        _gptq(-1, False, True),
        216,
        "GPTQ, `group_size` -1, `sym`; inert zero biases",
        zero_biases=True,
    ),
    "tiny_gptq_channel_asym_desc": Case(
        _llama(),
        _gptq(-1, True, False),
        217,
        "GPTQ, `group_size` -1, zeros, `desc_act` (g_idx all 0)",
    ),
}
