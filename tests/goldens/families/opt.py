"""OPT."""

from .family import VOCAB, Family


def _opt(**changes) -> dict:
    config = {
        "_remove_final_layer_norm": False,
        "activation_dropout": 0.0,
        "activation_function": "relu",
        "architectures": ["OPTForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 2,
        "do_layer_norm_before": True,
        "dropout": 0.1,
        "eos_token_id": 2,
        "ffn_dim": 56,
        "hidden_size": 32,
        "init_std": 0.02,
        "layerdrop": 0.0,
        "max_position_embeddings": 76,
        "model_type": "opt",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pad_token_id": 1,
        "prefix": "</s>",
        "torch_dtype": "float32",
        "transformers_version": "4.21.0.dev0",
        "use_cache": True,
        "vocab_size": VOCAB,
        "word_embed_proj_dim": 32,
    }
    return {**config, **changes}


FAMILIES = {
    "tiny_opt": Family(
        _opt(),
        seed=71,
        covers="learned positions from row 2 on, norms before, final norm, bias"
        " everywhere, ReLU, head tied by default",
    ),
    "tiny_opt_post_norm": Family(
        _opt(
            do_layer_norm_before=False,
            hidden_size=24,
            num_attention_heads=3,
            word_embed_proj_dim=16,
        ),
        seed=72,
        covers="norms after the residual, no final norm, embedding of 16"
        " projected to 24 and back (opt-350m)",
    ),
}
