"""Runs the engine and its peers on one model, one after another, and prints
ratios.

    python tests/bench/compare_peers.py --bin build/release/bin \
        --gguf SmolLM2-135M-Instruct.Q4_1.gguf [--llama-bin FOLDER] \
        [--threads 2] [--types f32,bf16]

Peers: transformers with and without hooks that take the L2 norm over tokens of
q, k and v in every layer (last row's logits only), oneDNN alone
(onednn_limit.cc), and llama.cpp's llama-bench and llama-batched-bench if
--llama-bin has them. The script needs torch, transformers, accelerate and gguf
in its Python. Nothing else should run on the machine meanwhile.
"""

import argparse
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable

import torch
import transformers


def run_lines(command: list[str], threads: int) -> list[dict]:
    """Runs a program and returns its JSON lines."""
    env = dict(os.environ, OMP_NUM_THREADS=str(threads))
    out = subprocess.run(
        command, env=env, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in out.stdout.splitlines()
            if line.startswith(("{", "["))]


def best_of(times: int, measure: Callable[[], None]) -> float:
    """Returns the seconds of the fastest of some calls."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        measure()
        best = min(best, time.perf_counter() - start)
    return best


class TransformersPeer:
    """The model in transformers, with norm hooks on q, k and v."""

    def __init__(self, gguf: pathlib.Path, dtype: torch.dtype) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, dtype=dtype)
        self.model.eval()
        self.norms: list[torch.Tensor] = []

    def _hooks(self) -> list:
        def norm(_module, _args, output):
            heads = output.view(*output.shape[:2], -1,
                                self.model.config.hidden_size //
                                self.model.config.num_attention_heads)
            self.norms.append(heads[0].float().norm(dim=0))
        return [getattr(layer.self_attn, name).register_forward_hook(norm)
                for layer in self.model.model.layers
                for name in ("q_proj", "k_proj", "v_proj")]

    def prefill(self, tokens: int, hooks: bool) -> float:
        """Returns the seconds of one prompt's pass."""
        ids = torch.randint(0, self.model.config.vocab_size, (1, tokens))
        handles = self._hooks() if hooks else []

        def once():
            self.norms.clear()
            self.model(ids, logits_to_keep=1)

        once()
        seconds = best_of(3, once)
        for handle in handles:
            handle.remove()
        return seconds

    def decode(self, sequences: int, new_tokens: int) -> float:
        """Returns tokens a second over all sequences."""
        ids = torch.randint(0, self.model.config.vocab_size, (sequences, 16))

        def generate(count: int):
            self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False,
                min_new_tokens=count, max_new_tokens=count, pad_token_id=0)

        generate(2)
        return sequences * new_tokens / (
            best_of(2, lambda: generate(new_tokens + 1)) -
            best_of(2, lambda: generate(1)))


def llama_cpp(folder: pathlib.Path, gguf: pathlib.Path,
              threads: int) -> dict[str, float]:
    """Returns llama.cpp's tokens a second by test name."""
    rates = {}
    for row in json.loads(subprocess.run(
            [str(folder / "llama-bench"), "-m", str(gguf), "-t", str(threads),
             "-p", "512,2048", "-n", "32", "-r", "3", "-o", "json"],
            check=True, capture_output=True, text=True).stdout):
        name = (f"pp{row['n_prompt']}" if row["n_prompt"]
                else f"tg{row['n_gen']}")
        rates[name] = row["avg_ts"]
    batched = subprocess.run(
        [str(folder / "llama-batched-bench"), "-m", str(gguf), "-t",
         str(threads), "-npp", "16", "-ntg", "32", "-npl", "8",
         "--output-format", "jsonl"],
        check=True, capture_output=True, text=True).stdout
    for line in batched.splitlines():
        if line.startswith("{"):
            rates["batched8"] = json.loads(line)["speed_tg"]
    return rates


def compare(kind: str, args: argparse.Namespace,
            llama: dict[str, float]) -> None:
    """Prints one compute type's figures and ratios."""
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[kind]
    ours = run_lines([str(args.bin / "engine_bench"), str(args.gguf), kind,
                      str(args.threads)], args.threads)
    limit = {row.get("tokens"): row for row in run_lines(
        [str(args.bin / "onednn_limit"), kind, "512", "2048"], args.threads)}
    for row in ours:
        print(kind, json.dumps(row))
    for row in limit.values():
        print(kind, json.dumps(row))
    peer = TransformersPeer(args.gguf, dtype)
    for row in ours:
        if row["what"] == "prefill":
            tokens = row["tokens"]
            plain = peer.prefill(tokens, hooks=False)
            hooked = peer.prefill(tokens, hooks=True)
            print(f"{kind} prefill T={tokens}: {row['tokens_per_s']:.0f} "
                  f"tokens/s; transformers {tokens / plain:.0f} plain, "
                  f"{tokens / hooked:.0f} with hooks")
            print(f"{kind} prefill T={tokens}: "
                  f"{hooked / row['capture_on_s']:.2f}x transformers with "
                  "hooks; capture costs "
                  f"{100 * (row['capture_on_s'] / row['capture_off_s'] - 1):.1f} %")
            if "limit_s" in limit.get(tokens, {}):
                print(f"{kind} prefill T={tokens}: "
                      f"{row['capture_on_s'] / limit[tokens]['limit_s']:.2f}x "
                      "the limit's time")
            if f"pp{tokens}" in llama:
                print(f"{kind} prefill T={tokens}: "
                      f"{row['tokens_per_s'] / llama[f'pp{tokens}']:.2f}x "
                      f"llama.cpp ({llama[f'pp{tokens}']:.0f} tokens/s)")
        if row["what"] == "decode":
            rate = peer.decode(row["sequences"], 32)
            print(f"{kind} decode x{row['sequences']}: "
                  f"{row['tokens_per_s']:.1f} tokens/s; transformers "
                  f"{rate:.1f}, {row['tokens_per_s'] / rate:.2f}x")
    if "batched8" in llama:
        print(f"{kind}: llama.cpp decode alone {llama['tg32']:.1f}, 8 together "
              f"{llama['batched8']:.1f} tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--gguf", type=pathlib.Path, required=True)
    parser.add_argument("--llama-bin", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--types", default="f32,bf16")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    llama = (llama_cpp(args.llama_bin, args.gguf, args.threads)
             if args.llama_bin else {})
    for kind in args.types.split(","):
        compare(kind, args, llama)


if __name__ == "__main__":
    main()
