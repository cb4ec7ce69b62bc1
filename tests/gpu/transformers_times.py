"""Times transformers on the sizes of tests/bench/cuda_bench, with random
weights in bf16, sdpa, and hooks that take the L2 norm over tokens of q, k and v
in every layer.

    python3 tests/gpu/transformers_times.py [--ours LOG] [--device cuda] [--small]

LOG: what `cuda_bench passes` printed; the table then has how many times faster
that was. Needs torch and transformers.
"""

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable

import torch
import transformers

# As RealShapes in tests/engine/random_model.cc: layers, hidden, intermediate,
# heads, KV heads, vocabulary, tied.
SHAPES = {
    "SmolLM2-135M": (30, 576, 1536, 9, 3, 49152, True),
    "Llama-1B": (16, 2048, 8192, 32, 8, 128256, True),
    "Llama-7B": (32, 4096, 11008, 32, 32, 32000, False),
}
SMALL = {"tiny": (2, 64, 160, 4, 2, 97, False)}


class Peer:
    """A model on a device."""

    def __init__(self, shape: tuple, device: str) -> None:
        layers, hidden, intermediate, heads, kv_heads, vocab, tied = shape
        config = transformers.LlamaConfig(
            num_hidden_layers=layers, hidden_size=hidden,
            intermediate_size=intermediate, num_attention_heads=heads,
            num_key_value_heads=kv_heads, vocab_size=vocab,
            tie_word_embeddings=tied, max_position_embeddings=8192,
            attn_implementation="sdpa")
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            self.model = transformers.LlamaForCausalLM(config).eval()
        self.device = device
        self.head_dim = hidden // heads
        self.norms: list[torch.Tensor] = []

    def hook(self) -> list:
        """Adds the hooks; returns their handles."""
        def norm(_module, _args, output):
            heads = output.view(*output.shape[:2], -1, self.head_dim)
            self.norms.append(heads[0].float().norm(dim=0))
        return [getattr(layer.self_attn, name).register_forward_hook(norm)
                for layer in self.model.model.layers
                for name in ("q_proj", "k_proj", "v_proj")]

    def seconds(self, work: Callable[[], None], times: int) -> float:
        """Returns the median of some calls, after two that do not count."""
        all_seconds = []
        for i in range(times + 2):
            if self.device == "cuda":
                begin = torch.cuda.Event(enable_timing=True)
                end = torch.cuda.Event(enable_timing=True)
                begin.record()
                work()
                end.record()
                end.synchronize()
                seconds = begin.elapsed_time(end) / 1e3
            else:
                start = time.perf_counter()
                work()
                seconds = time.perf_counter() - start
            if i >= 2:
                all_seconds.append(seconds)
        return statistics.median(all_seconds)

    def prefill(self, tokens: int, hooks: bool) -> float:
        ids = torch.randint(0, self.model.config.vocab_size, (1, tokens),
                            device=self.device)
        handles = self.hook() if hooks else []

        def once():
            self.norms.clear()
            self.model(ids, logits_to_keep=1)
            if hooks:  # they come to the host, as ours do
                torch.cat([n.flatten() for n in self.norms]).cpu()

        seconds = self.seconds(once, 5)
        for handle in handles:
            handle.remove()
        return seconds

    def decode(self, sequences: int, context: int) -> float:
        vocab = self.model.config.vocab_size
        ids = torch.randint(0, vocab, (1, context), device=self.device)
        cache = self.model(ids, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(sequences)
        token = torch.randint(0, vocab, (sequences, 1), device=self.device)
        return self.seconds(
            lambda: self.model(token, past_key_values=cache), 16)


def ours_of(log: pathlib.Path | None) -> dict:
    """Returns {(model, what): (ms, ms capturing or None)} of cuda_bench."""
    ours = {}
    for line in log.read_text().splitlines() if log else ():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[1].startswith(("prefill", "decode")):
            ours[cells[0], cells[1]] = (
                float(cells[2]), float(cells[4]) if cells[4] else None)
    return ours


def print_row(ours: dict, name: str, what: str, seconds: float,
              hooked: float | None) -> None:
    plain, capturing = ours.get((name, what), (None, None))
    cells = [name, what, f"{seconds * 1e3:.2f}",
             f"{hooked * 1e3:.2f}" if hooked else ""]
    cells.append(f"{seconds * 1e3 / plain:.2f}x" if plain else "")
    cells.append(f"{hooked * 1e3 / capturing:.2f}x"
                 if hooked and capturing else "")
    print("| " + " | ".join(cells) + " |", flush=True)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    ours = ours_of(args.ours)
    print(f"transformers {transformers.__version__}, torch "
          f"{torch.__version__}, bf16, sdpa.\n\n"
          "| model | what | ms | ms with norm hooks | ours is faster | "
          "capturing (target >= 1.5x) |\n|---|---|---|---|---|---|")
    context = 20 if args.small else 2048
    for name, shape in (SMALL if args.small else SHAPES).items():
        peer = Peer(shape, args.device)
        for tokens in (20,) if args.small else (512, 2048):
            print_row(ours, name, f"prefill, {tokens} tokens",
                      peer.prefill(tokens, False), peer.prefill(tokens, True))
        for sequences in (1, 3) if args.small else (1, 8, 64):
            print_row(ours, name, f"decode, {sequences} at {context} tokens",
                      peer.decode(sequences, context), None)
        del peer
        if args.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
