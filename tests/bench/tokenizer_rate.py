#!/usr/bin/env python3
"""Measures how fast text becomes tokens, against the `tokenizers` package.

    python tests/bench/tokenizer_rate.py --bin build/release/bin \
        --vocabulary SmolLM2-135M-Instruct.Q4_1.gguf --text FILE...

The vocabulary and the merges are those of a GGUF file with a BPE of bytes; the
words are found by the patterns of several families. The texts are joined. Both
sides encode in turns, with one thread, and must give as many tokens. Prints the
medians for each family.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"

import gguf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

sys.path.append(str(pathlib.Path(__file__).parents[1] / "goldens" / "tokenizer"))
import corpus

FAMILIES = ["llama3", "tekken", "o200k", "qwen35", "deepseek3", "deepseek_coder",
            "words", "viking"]  # fmt: skip
TURNS = 7


def pre_tokenizer(family):
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    steps = corpus.SPLITS.get(family, [(corpus.LLAMA3, "isolated", False)])
    splits = [
        pre_tokenizers.Split(Regex(pattern), behavior, invert)
        for pattern, behavior, invert in steps
    ]
    return pre_tokenizers.Sequence([*splits, bytes_only])


def strings(reader, key):
    field = reader.get_field(key)
    return [bytes(field.parts[i]).decode() for i in field.data]


class Ours:
    def __init__(self, program, tokenizer, text):
        self.process = subprocess.Popen(
            [program, tokenizer, text], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip

    def encode(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds, tokens = self.process.stdout.readline().split()
        return float(seconds), int(tokens)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def theirs(tokenizer, text):
    start = time.perf_counter()
    tokens = len(tokenizer.encode(text).ids)
    return time.perf_counter() - start, tokens


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--vocabulary", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, nargs="+", required=True)
    args = parser.parse_args()

    reader = gguf.GGUFReader(args.vocabulary)
    tokens = strings(reader, "tokenizer.ggml.tokens")
    vocab = {text: id for id, text in enumerate(tokens)}
    merges = strings(reader, "tokenizer.ggml.merges")
    merges = [tuple(merge.split(" ")) for merge in merges]
    text = "".join(path.read_text("utf-8", "replace") for path in args.text)
    size = len(text.encode()) / 1e6
    print(f"{size:.1f} MB of text, {len(vocab)} tokens")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "text").write_text(text, "utf-8")
        for family in FAMILIES:
            tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
            tokenizer.pre_tokenizer = pre_tokenizer(family)
            tokenizer.save(str(folder / "tokenizer.json"))
            ours = Ours(args.bin / "tokenizer_bench", folder / "tokenizer.json",
                        folder / "text")  # fmt: skip
            ours.encode()
            pairs = []
            for _ in range(TURNS):
                (a, count), (b, want) = ours.encode(), theirs(tokenizer, text)
                if count != want:
                    sys.exit(f"{family}: {count} tokens, tokenizers has {want}")
                pairs.append((a, b))
            ours.close()
            rate, peer = (size / statistics.median(side) for side in zip(*pairs))
            ratio = statistics.median(b / a for a, b in pairs)
            print(f"{family:15} {rate:6.1f} MB/s, tokenizers {peer:5.1f} MB/s: "
                  f"{ratio:.1f} times as fast")  # fmt: skip


if __name__ == "__main__":
    main()
