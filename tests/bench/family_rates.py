"""Prefill of real layer sizes of three families against oneDNN's rate.

    python tests/bench/family_rates.py --bin build/release/bin \\
        [--types f32] [--threads 2]

Makes checkpoints of 2 layers with random bf16 weights in a temporary folder
(1.2 GB), runs engine_bench's prefill (capture of Q, K and V norms on) on each,
and onednn_limit on the same GEMMs right after it. Prints the engine's whole
pass as a share of oneDNN's rate on the GEMMs alone. Needs numpy.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile

import numpy as np

LAYERS = 2
VOCAB = 512

COMMON = {
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCAB,
    "max_position_embeddings": 4096,
}


def qwen2() -> tuple[dict, dict, list]:
    """Qwen2-7B's layer."""
    hidden, inter, q, kv = 3584, 18944, 28 * 128, 4 * 128
    config = COMMON | {
        "model_type": "qwen2", "hidden_size": hidden,
        "intermediate_size": inter, "num_attention_heads": 28,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "rope_theta": 1000000.0, "tie_word_embeddings": True,
    }
    tensors = {"model.embed_tokens.weight": (VOCAB, hidden),
               "model.norm.weight": (hidden,)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        tensors |= {
            p + "input_layernorm.weight": (hidden,),
            p + "post_attention_layernorm.weight": (hidden,),
            p + "self_attn.q_proj.weight": (q, hidden),
            p + "self_attn.k_proj.weight": (kv, hidden),
            p + "self_attn.v_proj.weight": (kv, hidden),
            p + "self_attn.q_proj.bias": (q,),
            p + "self_attn.k_proj.bias": (kv,),
            p + "self_attn.v_proj.bias": (kv,),
            p + "self_attn.o_proj.weight": (hidden, q),
            p + "mlp.gate_proj.weight": (inter, hidden),
            p + "mlp.up_proj.weight": (inter, hidden),
            p + "mlp.down_proj.weight": (hidden, inter),
        }
    gemms = [(q, hidden), (kv, hidden), (kv, hidden), (hidden, q),
             (inter, hidden), (inter, hidden), (hidden, inter)]
    return config, tensors, gemms


def gemma2() -> tuple[dict, dict, list]:
    """Gemma-2-9B's layer."""
    hidden, inter, q, kv = 3584, 14336, 16 * 256, 8 * 256
    config = COMMON | {
        "model_type": "gemma2", "hidden_size": hidden,
        "intermediate_size": inter, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 256, "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4096,
        "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }
    tensors = {"model.embed_tokens.weight": (VOCAB, hidden),
               "model.norm.weight": (hidden,)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        tensors |= {
            p + f"{norm}_layernorm.weight": (hidden,)
            for norm in ("input", "post_attention", "pre_feedforward",
                         "post_feedforward")
        }
        tensors |= {
            p + "self_attn.q_proj.weight": (q, hidden),
            p + "self_attn.k_proj.weight": (kv, hidden),
            p + "self_attn.v_proj.weight": (kv, hidden),
            p + "self_attn.o_proj.weight": (hidden, q),
            p + "mlp.gate_proj.weight": (inter, hidden),
            p + "mlp.up_proj.weight": (inter, hidden),
            p + "mlp.down_proj.weight": (hidden, inter),
        }
    gemms = [(q, hidden), (kv, hidden), (kv, hidden), (hidden, q),
             (inter, hidden), (inter, hidden), (hidden, inter)]
    return config, tensors, gemms


def gpt_neox() -> tuple[dict, dict, list]:
    """Pythia-6.9B's layer."""
    hidden, inter = 4096, 16384
    config = COMMON | {
        "model_type": "gpt_neox", "hidden_size": hidden,
        "intermediate_size": inter, "num_attention_heads": 32,
        "rotary_pct": 0.25, "rotary_emb_base": 10000,
        "layer_norm_eps": 1e-5, "hidden_act": "gelu",
        "use_parallel_residual": True, "tie_word_embeddings": False,
    }
    tensors = {"gpt_neox.embed_in.weight": (VOCAB, hidden),
               "embed_out.weight": (VOCAB, hidden),
               "gpt_neox.final_layer_norm.weight": (hidden,),
               "gpt_neox.final_layer_norm.bias": (hidden,)}
    for i in range(LAYERS):
        p = f"gpt_neox.layers.{i}."
        for name, out, inputs in (
            ("attention.query_key_value", 3 * hidden, hidden),
            ("attention.dense", hidden, hidden),
            ("mlp.dense_h_to_4h", inter, hidden),
            ("mlp.dense_4h_to_h", hidden, inter),
        ):
            tensors[p + name + ".weight"] = (out, inputs)
            tensors[p + name + ".bias"] = (out,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[p + name + ".weight"] = (hidden,)
            tensors[p + name + ".bias"] = (hidden,)
    gemms = [(hidden, hidden)] * 4 + [(inter, hidden), (hidden, inter)]
    return config, tensors, gemms


def write_model(folder: pathlib.Path, config: dict, tensors: dict) -> None:
    """Writes config.json and bf16 weights in +-[2^-7, 2^-6) as safetensors."""
    random = np.random.default_rng(1)
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape,
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in tensors.values():
            bits = random.integers(0, 128, int(np.prod(shape)), np.uint16)
            sign = random.integers(0, 2, len(bits), np.uint16)
            file.write((0x3C00 | bits | sign << 15).tobytes())
    (folder / "config.json").write_text(json.dumps(config))


def run_lines(command: list[str], threads: int) -> list[dict]:
    """Runs a program and returns its JSON lines."""
    env = dict(os.environ, OMP_NUM_THREADS=str(threads))
    done = subprocess.run(
        command, env=env, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def measure(arguments: argparse.Namespace, family, kind: str) -> None:
    """Prints one row: the pass, the limit, and their ratio."""
    config, tensors, gemms = family()
    tokens = 512
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_model(folder, config, tensors)
        lines = run_lines(
            [str(arguments.bin / "engine_bench"), name, kind,
             str(arguments.threads), "cpu", "prefill512"], arguments.threads)
    passed = next(line for line in lines if line["what"] == "prefill")
    shapes = ",".join(f"{n}x{k}" for n, k in gemms)
    limit = run_lines(
        [str(arguments.bin / "onednn_limit"), kind, str(tokens),
         f"layers={LAYERS}", "attention=0", f"shapes={shapes}"],
        arguments.threads)[0]
    # The last layer's rows end after attention, all but the one with logits.
    sizes = [n * k for n, k in gemms]
    gflop = 2e-9 * tokens * ((LAYERS - 1) * sum(sizes) + sum(sizes[:3]))
    rate = gflop / passed["capture_on_s"]
    print(f"{config['model_type']:<10} {kind}  pass {rate:6.1f} GFLOP/s  "
          f"oneDNN {limit['gflop_per_s']:6.1f}  "
          f"{rate / limit['gflop_per_s']:.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--types", default="f32")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    for kind in arguments.types.split(","):
        for family in (gpt_neox, gemma2, qwen2):
            measure(arguments, family, kind)


if __name__ == "__main__":
    main()
