"""Llama."""

from .family import VOCAB, Family

_HUB_ROPE = {"rope_theta": 10000.0}
_V5_ROPE = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}


def llama(**changes) -> dict:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "dtype": "float32",
        "eos_token_id": 2,
        "head_dim": 8,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 53,
        "max_position_embeddings": 256,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": None,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "transformers_version": "5.23.0",
        "use_cache": True,
        "vocab_size": VOCAB,
    }
    return {**config, **changes}


def _v5(**changes) -> dict:
    """Returns the config as transformers 5 saves it: `rope_parameters`."""
    return dict(sorted(llama(**_V5_ROPE, **changes).items()))


FAMILIES = {
    "tiny_llama_gqa": Family(
        {**llama(), **_HUB_ROPE, "rope_scaling": None},
        seed=11,
        covers="GQA, RMS norm, gated SiLU MLP, RoPE",
    ),
    "tiny_llama3_rope": Family(
        # Wavelengths start at 6.3, 13.5, 29, 63: with 8 and 32 as limits, some
        # are kept, some blended and some divided, all well within 70 tokens.
        {
            **llama(
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=24,
                intermediate_size=21,
            ),
            **_HUB_ROPE,
            "rope_scaling": {
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 32,
                "rope_type": "llama3",
            },
        },
        seed=12,
        covers="RoPE scaling `llama3`, head_dim x heads > hidden_size",
        matters=({"rope_scaling": None},),
    ),
    "tiny_llama_tied": Family(
        _v5(
            num_hidden_layers=3, intermediate_size=23, tie_word_embeddings=True
        ),
        seed=13,
        covers="tied head, `rope_parameters`",
    ),
    "tiny_llama_headdim": Family(
        _v5(
            hidden_size=36,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=25,
        ),
        seed=14,
        covers="head_dim that is not hidden_size / heads, MQA",
    ),
}
