"""RoPE frequencies of transformers, float32: rope/cases.json.

Each case is a config.json, a layer, the number of positions in a sequence after
the pass, and the state of the model's rotary embedding then. Run with
transformers:

    python tests/goldens/make_rope_goldens.py
"""

import copy
import json
import pathlib

import torch
import transformers
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import (
    GPTNeoXRotaryEmbedding,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VLRotaryEmbedding,
)

ROTARY = {
    "gemma3_text": Gemma3RotaryEmbedding,
    "gpt_neox": GPTNeoXRotaryEmbedding,
    "llama": LlamaRotaryEmbedding,
    "phi3": Phi3RotaryEmbedding,
    "qwen2": Qwen2RotaryEmbedding,
    "qwen2_vl_text": Qwen2VLRotaryEmbedding,
}

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 32,
}


def _config(model_type: str, **more) -> dict:
    config = {"model_type": model_type, **SIZES, **more}
    if model_type == "gpt_neox":
        del config["num_key_value_heads"]
    return config


def _llama(theta: float, scaling: dict | None, **more) -> dict:
    return _config("llama", rope_theta=theta, rope_scaling=scaling, **more)


def _phi3(factors: int, **more) -> dict:
    scaling = {
        "type": "longrope",
        "short_factor": [1.0 + 0.05 * i for i in range(factors)],
        "long_factor": [1.0 + 1.7 * i for i in range(factors)],
    }
    return _config(
        "phi3",
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        rope_theta=10000.0,
        rope_scaling=scaling,
        **more,
    )


_LLAMA31 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_YARN = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32768,
}

# Maps a name to a config and (layer, positions) pairs.
CASES = {
    "default": (_llama(10000.0, None), [(0, 1)]),
    "head_dim_128": (_llama(500000.0, None, head_dim=128), [(0, 1)]),
    "linear": (_llama(10000.0, {"type": "linear", "factor": 3.0}), [(0, 9)]),
    "dynamic": (
        _llama(
            10000.0,
            {"type": "dynamic", "factor": 2.5},
            max_position_embeddings=2048,
        ),
        [(0, 2048), (0, 2049), (0, 3000), (0, 5120)],
    ),
    "llama3": (
        _llama(
            500000.0, _LLAMA31, head_dim=128, max_position_embeddings=131072
        ),
        [(0, 9000)],
    ),
    "llama3_factor_32": (
        _llama(
            500000.0,
            {**_LLAMA31, "factor": 32.0},
            max_position_embeddings=131072,
        ),
        [(0, 9000)],
    ),
    "yarn": (
        _config(
            "qwen2",
            rope_theta=1000000.0,
            rope_scaling=_YARN,
            max_position_embeddings=131072,
        ),
        [(0, 40000)],
    ),
    "yarn_betas": (
        _llama(
            10000.0,
            {
                **_YARN,
                "beta_fast": 20.0,
                "beta_slow": 2.0,
                "attention_factor": 1.25,
            },
            max_position_embeddings=131072,
        ),
        [(0, 1)],
    ),
    "yarn_mscale": (
        _llama(
            10000.0,
            {**_YARN, "mscale": 0.707, "mscale_all_dim": 1.0},
            max_position_embeddings=131072,
        ),
        [(0, 1)],
    ),
    "yarn_not_truncated": (
        _llama(
            10000.0,
            {**_YARN, "truncate": False},
            max_position_embeddings=131072,
        ),
        [(0, 1)],
    ),
    "longrope": (_phi3(32), [(0, 4096), (0, 4097)]),
    "longrope_partial": (
        _phi3(24, partial_rotary_factor=0.75),
        [(0, 9), (0, 5000)],
    ),
    "partial": (
        _config("gpt_neox", rotary_pct=0.25, rotary_emb_base=10000),
        [(0, 1)],
    ),
    "two_thetas": (
        _config(
            "gemma3_text",
            head_dim=64,
            rope_theta=1000000,
            rope_local_base_freq=10000,
            rope_scaling={"rope_type": "linear", "factor": 8.0},
            sliding_window=16,
            sliding_window_pattern=2,
        ),
        [(0, 1), (1, 1)],
    ),
    "mrope": (
        _config(
            "qwen2_vl_text",
            rope_theta=1000000.0,
            rope_scaling={"type": "mrope", "mrope_section": [8, 12, 12]},
        ),
        [(0, 1)],
    ),
}


def _run(config: dict, layer: int, positions: int) -> dict:
    model_type = config["model_type"]
    fields = copy.deepcopy(
        {k: v for k, v in config.items() if k != "model_type"}
    )
    hf = transformers.AutoConfig.for_model(model_type, **fields)
    rotary = ROTARY[model_type](hf)
    ids = torch.arange(positions)[None]
    x = torch.zeros(1, positions, 1)
    kind = hf.layer_types[layer] if model_type == "gemma3_text" else None
    prefix = "" if kind is None else f"{kind}_"
    rotary(x, ids, **({} if kind is None else {"layer_type": kind}))
    frequencies = getattr(rotary, prefix + "inv_freq")
    assert frequencies.dtype == torch.float32
    return {
        "layer": layer,
        "positions": positions,
        "attention_factor": float(
            getattr(rotary, prefix + "attention_scaling")
        ),
        "frequencies": frequencies.tolist(),
    }


def main() -> None:
    cases = [
        {
            "name": name,
            "config": config,
            "passes": [_run(config, *run) for run in runs],
        }
        for name, (config, runs) in CASES.items()
    ]
    path = pathlib.Path(__file__).parent / "rope" / "cases.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
