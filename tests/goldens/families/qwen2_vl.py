"""Qwen2-VL: text with M-RoPE, and images."""

import torch

from .family import VOCAB, Family

# The last ids of the vocabulary mark images.
VISION_START, VISION_END, VISION, IMAGE, VIDEO = range(VOCAB - 5, VOCAB)
PATCH_VALUES = 3 * 2 * 4 * 4  # channels, frames, rows, columns

_QWEN2_VL = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
    "vision_token_id": VISION,
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 21,
    "max_position_embeddings": 256,
    "max_window_layers": 2,
    "model_type": "qwen2_vl",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-06,
    "rope_theta": 100.0,
    "sliding_window": 256,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 2,
        "embed_dim": 16,
        "mlp_ratio": 4,
        "num_heads": 2,
        "in_chans": 3,
        "hidden_size": 32,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "spatial_patch_size": 4,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "vocab_size": VOCAB,
}

FAMILIES = {
    "tiny_qwen2_vl": Family(
        _QWEN2_VL,
        seed=121,
        covers="text alone: M-RoPE with three equal positions, bias of Q, K and"
        " V, tied head; the vision tower's weights are there",
        text_ids=VISION_START,
    ),
    "tiny_qwen2_vl_image": Family(
        {**_QWEN2_VL, "torch_dtype": "bfloat16"},
        seed=122,
        covers="one image (p0) and two (p1): vision tower with 2-D RoPE, fused"
        " qkv, quick GELU and merger of 2 x 2 patches; text with M-RoPE of"
        " sections 2, 3, 3; BF16 weights",
        matters=(
            {"rope_scaling": {"type": "mrope", "mrope_section": [6, 1, 1]}},
        ),
        dtype=torch.bfloat16,
        text_ids=VISION_START,
        prompt_lengths=(9, 20),
        images=(((1, 4, 6),), ((1, 4, 4), (1, 8, 4))),
    ),
}
