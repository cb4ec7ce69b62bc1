"""Phi-3 and Phi-4-mini."""

from .family import VOCAB, Family


def _phi3(**changes) -> dict:
    config = {
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "embd_pdrop": 0.0,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 29,
        "max_position_embeddings": 256,
        "model_type": "phi3",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "original_max_position_embeddings": 256,
        "pad_token_id": 2,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": 9,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.43.3",
        "use_cache": True,
        "vocab_size": VOCAB,
    }
    return {**config, **changes}


_SHORT = [1.0, 1.02, 1.05, 1.1, 1.3, 1.4, 1.7, 2.0]
_LONG = [1.05, 1.3, 2.0, 3.5, 6.0, 8.0, 11.0, 15.0]

FAMILIES = {
    "tiny_phi3": Family(
        _phi3(),
        seed=51,
        covers="fused qkv_proj and gate_up_proj, window of 9 keys",
        matters=({"sliding_window": None}, {"sliding_window": 8}),
    ),
    "tiny_phi3_longrope": Family(
        _phi3(
            original_max_position_embeddings=32,
            sliding_window=256,
            rope_scaling={
                "long_factor": _LONG,
                "short_factor": _SHORT,
                "type": "longrope",
            },
        ),
        seed=52,
        covers="RoPE scaling `longrope`: p0 stays under the original context"
        " of 32, p1 is over it",
        matters=(
            {"rope_scaling": None},
            {"original_max_position_embeddings": 128},
        ),
    ),
    "tiny_phi3_partial": Family(
        _phi3(
            original_max_position_embeddings=32,
            sliding_window=256,
            partial_rotary_factor=0.75,
            rope_scaling={
                "long_factor": _LONG[:6],
                "short_factor": _SHORT[:6],
                "type": "longrope",
            },
            tie_word_embeddings=True,
        ),
        seed=53,
        covers="`longrope` of the first 12 of 16 dims, tied head",
        matters=({"original_max_position_embeddings": 128},),
    ),
}
