"""Mistral."""

from .family import VOCAB, Family

_MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 37,
    "max_position_embeddings": 256,
    "model_type": "mistral",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.34.0.dev0",
    "use_cache": True,
    "vocab_size": VOCAB,
}

FAMILIES = {
    "tiny_mistral": Family(
        _MISTRAL,
        seed=41,
        covers="window of 8 keys in every layer, no `head_dim`",
        matters=({"sliding_window": None}, {"sliding_window": 7}),
    ),
}
