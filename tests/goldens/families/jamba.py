"""Jamba."""

from .family import VOCAB, Family


def _jamba(**changes) -> dict:
    config = {
        "architectures": ["JambaForCausalLM"],
        "attention_dropout": 0.0,
        "attn_layer_offset": 1,
        "attn_layer_period": 3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "hidden_act": "silu",
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 16,
        "mamba_conv_bias": True,
        "mamba_d_conv": 4,
        "mamba_d_state": 5,
        "mamba_dt_rank": 3,
        "mamba_expand": 2,
        "mamba_proj_bias": False,
        "max_position_embeddings": 256,
        "model_type": "jamba",
        "num_attention_heads": 3,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 4,
        "num_key_value_heads": 1,
        "num_logits_to_keep": 1,
        "output_router_logits": False,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "router_aux_loss_coef": 0.001,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "use_mamba_kernels": False,
        "vocab_size": VOCAB,
    }
    return {**config, **changes}


# With seed 171, bf16 changes no choice of experts (closest: 0.02 in logits).
FAMILIES = {
    "tiny_jamba": Family(
        _jamba(),
        seed=171,
        covers="layer 1 of 4 is attention without positions, the others Mamba"
        " with norms of dt, B and C; 4 experts in layers 1 and 3, the best 2"
        " with their softmax weights as they are",
    ),
    "tiny_jamba_dense": Family(
        _jamba(
            attn_layer_offset=0,
            attn_layer_period=2,
            mamba_conv_bias=False,
            mamba_d_conv=3,
            mamba_dt_rank="auto",
            mamba_proj_bias=True,
            num_experts=1,
            num_experts_per_tok=1,
            num_hidden_layers=3,
            num_key_value_heads=3,
        ),
        seed=112,
        covers="layers 0 and 2 attention, layer 1 Mamba; bias of Mamba's"
        " projections, none of its convolution, `mamba_dt_rank` auto, no"
        " experts",
    ),
}
