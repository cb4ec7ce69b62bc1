"""Qwen2 and Qwen3."""

from .family import VOCAB, Family


def qwen2(**changes) -> dict:
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "max_position_embeddings": 256,
        "max_window_layers": 2,
        "model_type": "qwen2",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 8,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCAB,
    }
    return {**config, **changes}


def _qwen3(**changes) -> dict:
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": 12,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "max_position_embeddings": 256,
        "max_window_layers": 2,
        "model_type": "qwen3",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCAB,
    }
    return {**config, **changes}


FAMILIES = {
    "tiny_qwen2": Family(
        qwen2(),
        seed=21,
        covers="bias of Q, K and V, tied head, `sliding_window` that"
        " `use_sliding_window` switches off",
        matters=({"use_sliding_window": True, "max_window_layers": 0},),
    ),
    "tiny_qwen2_window": Family(
        qwen2(
            num_hidden_layers=3,
            max_window_layers=1,
            use_sliding_window=True,
            use_mrope=False,
            intermediate_size=29,
            hidden_size=24,
            num_attention_heads=3,
            num_key_value_heads=1,
            tie_word_embeddings=False,
        ),
        seed=22,
        covers="window of 8 keys from layer `max_window_layers` on, untied head",
        matters=({"use_sliding_window": False}, {"max_window_layers": 0}),
    ),
    "tiny_qwen3": Family(
        _qwen3(),
        seed=23,
        covers="norm of each head of Q and K before RoPE, head_dim x heads >"
        " hidden_size, no bias",
    ),
}
