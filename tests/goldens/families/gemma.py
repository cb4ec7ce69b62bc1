"""Gemma 2 and Gemma 3, text only."""

from .family import VOCAB, Family, Tensors

# The fields are as published, without those that keep their defaults: a tied
# head, and alternating layers of which the first has the window.
_GEMMA2 = {
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 2.0,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": 1,
    "final_logit_softcapping": 6.0,
    "head_dim": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 29,
    "max_position_embeddings": 256,
    "model_type": "gemma2",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 24,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 8,
    "torch_dtype": "float32",
    "transformers_version": "4.42.4",
    "use_cache": True,
    "vocab_size": VOCAB,
}

_GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 90],
    "final_logit_softcapping": None,
    "head_dim": 12,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 24,
    "initializer_range": 0.02,
    "intermediate_size": 23,
    "max_position_embeddings": 256,
    "model_type": "gemma3_text",
    "num_attention_heads": 2,
    "num_hidden_layers": 4,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 24,
    "rms_norm_eps": 1e-06,
    "torch_dtype": "float32",
    "transformers_version": "4.50.0.dev0",
    "use_cache": True,
    "vocab_size": VOCAB,
    "sliding_window": 8,
}

_GEMMA3_HUB = {
    **_GEMMA3,
    "rope_local_base_freq": 10.0,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "rope_theta": 200.0,
    "sliding_window_pattern": 3,
}

_GEMMA3_V5 = {
    **_GEMMA3,
    "num_hidden_layers": 3,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 200.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
    },
    "tie_word_embeddings": True,
}

# The fields are as published; the rest are transformers' defaults, including 8
# heads and 4 KV heads.
_GEMMA3_VL_TEXT = {
    "head_dim": 4,
    "hidden_size": 24,
    "intermediate_size": 23,
    "model_type": "gemma3_text",
    "num_hidden_layers": 2,
    "query_pre_attn_scalar": 8,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 8,
    "sliding_window_pattern": 2,
    "vocab_size": VOCAB,
}

_GEMMA3_VL = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": VOCAB - 3,
    "eoi_token_index": VOCAB - 2,
    "eos_token_id": [1, 90],
    "image_token_index": VOCAB - 1,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 1,
    "model_type": "gemma3",
    "text_config": _GEMMA3_VL_TEXT,
    "torch_dtype": "float32",
    "transformers_version": "4.50.0.dev0",
    "vision_config": {
        "hidden_size": 8,
        "image_size": 8,
        "intermediate_size": 12,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "patch_size": 4,
        "vision_use_head": False,
    },
}


def _text(**change) -> dict:
    return {"text_config": _GEMMA3_VL_TEXT | change}


def _as_published(tensors: Tensors) -> Tensors:
    return {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for name, tensor in tensors.items()
    }


FAMILIES = {
    "tiny_gemma2": Family(
        _GEMMA2,
        seed=31,
        covers="soft caps of scores and logits, window of 8 keys in even layers,"
        " scale from `query_pre_attn_scalar`, sandwich norms of 1 + weight,"
        " scaled embedding, tanh GELU, head tied by default",
        matters=(
            {"attn_logit_softcapping": None},
            {"final_logit_softcapping": None},
            {"sliding_window": 256},
            {"query_pre_attn_scalar": 12},
        ),
    ),
    "tiny_gemma3": Family(
        _GEMMA3_HUB,
        seed=32,
        covers="norm of Q and K, `sliding_window_pattern` (layer 2 of 4 is"
        " global), another theta for local layers, linear scaling of global"
        " ones only, no soft caps",
        matters=(
            {"sliding_window_pattern": 2},
            {"rope_scaling": None},
            {"rope_local_base_freq": 200.0},
            {"rope_theta": 10.0},
            {"query_pre_attn_scalar": 12},
        ),
    ),
    "tiny_gemma3_layer_types": Family(
        _GEMMA3_V5,
        seed=33,
        covers="the same from `layer_types` and nested `rope_parameters`",
        matters=(
            {"layer_types": ["sliding_attention"] * 3},
            {"sliding_window": 7},
        ),
    ),
    "tiny_gemma3_vl": Family(
        _GEMMA3_VL,
        seed=34,
        covers="texts for the language model of a file with a vision tower,"
        " whose weights are there; sizes from `text_config`, its defaults where"
        " it says nothing; the image's id in a text is embedded as any other",
        matters=(
            _text(sliding_window_pattern=3),
            _text(sliding_window=7),
            _text(rope_scaling=None),
            _text(query_pre_attn_scalar=4),
        ),
        stored=_as_published,
    ),
}
