"""Llama with the other kinds of RoPE scaling."""

from .family import Family
from .llama import llama

_SMALL = {
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 29,
}


def _scaled(scaling: dict, theta: float = 10000.0, **changes) -> dict:
    config = {**llama(**(_SMALL | changes)), "rope_theta": theta}
    return {**config, "rope_scaling": scaling}


FAMILIES = {
    "tiny_llama_linear": Family(
        _scaled({"type": "linear", "factor": 4.0}),
        seed=101,
        covers="RoPE scaling `linear`",
        matters=({"rope_scaling": None},),
    ),
    "tiny_llama_dynamic": Family(
        _scaled({"type": "dynamic", "factor": 4.0}, max_position_embeddings=32),
        seed=102,
        covers="RoPE scaling `dynamic`: p0 stays under the 32 of"
        " `max_position_embeddings`, p1 is over it and its frequencies change at"
        " each decode step",
        matters=({"rope_scaling": None},),
    ),
    "tiny_llama_yarn": Family(
        # Pair 0 of 8 is kept, 1 and 2 are blended, the others are divided.
        _scaled(
            {
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "rope_type": "yarn",
            },
            theta=500.0,
        ),
        seed=103,
        covers="RoPE scaling `yarn` with its defaults: ramp with whole limits,"
        " attention factor from `factor`",
        matters=({"rope_scaling": None},),
    ),
    "tiny_llama_yarn_mscale": Family(
        _scaled(
            {
                "beta_fast": 8.0,
                "beta_slow": 0.5,
                "factor": 8.0,
                "mscale": 1.0,
                "mscale_all_dim": 0.4,
                "original_max_position_embeddings": 64,
                "rope_type": "yarn",
                "truncate": False,
            },
            theta=500.0,
        ),
        seed=104,
        covers="`yarn` with beta_fast, beta_slow, mscale, mscale_all_dim and"
        " `truncate` false",
        matters=({"rope_scaling": None},),
    ),
}
