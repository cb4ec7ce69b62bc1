#!/usr/bin/env python3
"""Measures how fast a large safetensors folder loads, compared with how fast it
can be read, and the peak memory.

    python tests/bench/load_rate.py --bin build/release/bin --folder FOLDER

If FOLDER is absent, the script makes it: Llama-2-7B's shapes (--layers for
fewer) in random bf16, 13.5 GB in shards. Everything is read once before, so
that the page cache holds what fits into memory.
"""

import argparse
import json
import os
import pathlib
import subprocess
import time

import numpy as np

HIDDEN, INNER, VOCAB, HEADS = 4096, 11008, 32000, 32
BLOCK = 1 << 24


def tensors(layers):
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for i in range(layers):
        at = f"model.layers.{i}."
        for name in "qkvo":
            yield f"{at}self_attn.{name}_proj.weight", (HIDDEN, HIDDEN)
        yield at + "mlp.gate_proj.weight", (INNER, HIDDEN)
        yield at + "mlp.up_proj.weight", (INNER, HIDDEN)
        yield at + "mlp.down_proj.weight", (HIDDEN, INNER)
        yield at + "input_layernorm.weight", (HIDDEN,)
        yield at + "post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB, HIDDEN)


def random_bf16():
    values = np.random.default_rng(0).normal(0, 0.02, BLOCK).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()


def write_shard(path, entries, block):
    header, at = {}, 0
    for name, shape in entries:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape),
                        "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        while at > 0:
            out.write(block[:at])
            at -= min(at, len(block))


def make(folder, layers):
    folder.mkdir(parents=True)
    block, shards, size = random_bf16(), [[]], 0
    for name, shape in tensors(layers):
        shards[-1].append((name, shape))
        size += 2 * int(np.prod(shape))
        if size > 4 << 30:
            shards.append([])
            size = 0
    names = {}
    for i, entries in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / file, entries, block)
        names.update({name: file for name, _ in entries})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": names}))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "vocab_size": VOCAB,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "tie_word_embeddings": False,
        "torch_dtype": "bfloat16"}))


def read_all(files):
    """Returns the size, and the bytes per second of large reads."""
    start, total = time.monotonic(), 0
    buffer = bytearray(1 << 24)
    for file in files:
        with open(file, "rb", buffering=0) as source:
            while got := source.readinto(buffer):
                total += got
    return total, total / (time.monotonic() - start)


def memory(pid):
    out = {}
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Rss"):
            name, value = line.split(":")
            out[name] = int(value.split()[0]) * 1024
    return out


def load(binaries, folder, compute):
    """Returns the seconds to serve, the log's load time, and memory peaks."""
    start = time.monotonic()
    server = subprocess.Popen(
        [binaries / "qkscoped", "--listen", "127.0.0.1:0", "--metrics-listen",
         "", "--model", f"m={folder},compute={compute}"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peaks = {"RssAnon": 0, "RssFile": 0, "sum": 0}
    os.set_blocking(server.stderr.fileno(), False)
    text, ready = "", None
    while ready is None and server.poll() is None:
        now = memory(server.pid)
        for name in ("RssAnon", "RssFile"):
            peaks[name] = max(peaks[name], now.get(name, 0))
        peaks["sum"] = max(peaks["sum"],
                           now.get("RssAnon", 0) + now.get("RssFile", 0))
        text += (server.stderr.read() or b"").decode()
        for line in text.splitlines(True):
            if line.endswith("\n") and '"model_ready"' in line:
                ready = time.monotonic() - start
        time.sleep(0.05)
    server.terminate()
    server.wait()
    if ready is None:
        raise RuntimeError(text)
    return ready, peaks


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--compute", default="bf16")
    args = parser.parse_args()
    if not args.folder.exists():
        make(args.folder, args.layers)
    files = sorted(args.folder.glob("*.safetensors"))
    read_all(files)
    size, rate = read_all(files)
    print(f"{size / 1e9:.1f} GB; read again: {rate / 1e9:.2f} GB/s")
    seconds, peaks = load(args.bin, args.folder, args.compute)
    print(f"loaded in {seconds:.1f} s: {size / seconds / 1e9:.2f} GB/s, "
          f"{100 * size / seconds / rate:.0f} % of that")
    print("at most resident: "
          + ", ".join(f"{name} {value / 1e9:.2f} GB"
                      for name, value in peaks.items())
          + f"; {peaks['sum'] / size:.2f} of the files")


if __name__ == "__main__":
    main()
