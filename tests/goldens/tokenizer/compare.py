#!/usr/bin/env python3
"""Compares the engine's tokenizer with the `tokenizers` package.

  compare.py build/bin/tokenizer_driver [--count 100000] [--seed 1]
      [--gguf smollm=SmolLM2.gguf] [--gguf gpt2=ggml-vocab-gpt-2.gguf] ...

Every tokenizer gets --count random strings and all code points, with and
without recognition of special tokens. Ids must be equal, and offsets once
widened to whole characters, which is how `tokenizers` gives them. Offsets are
not compared where the meanings differ: for text that NFC changes (we give all
characters that took part, `tokenizers` the first) and after bytes the
vocabulary lacks (`tokenizers` miscounts those).
"""

import argparse
import itertools
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpus

BATCH = 5000


class Driver:
    def __init__(self, binary, tokenizer_file, parse_special, add_special):
        command = [binary, str(tokenizer_file), str(int(parse_special)),
                   str(int(add_special))]  # fmt: skip
        self.command = command

    def encode(self, texts):
        data = [t.encode() for t in texts]
        stdin = b"".join(struct.pack("<I", len(d)) + d for d in data)
        out = subprocess.run(
            self.command, input=stdin, stdout=subprocess.PIPE, check=True
        ).stdout
        at = 0
        for _ in texts:
            (count,) = struct.unpack_from("<I", out, at)
            if count == 0xFFFFFFFF:
                (size,) = struct.unpack_from("<I", out, at + 4)
                raise RuntimeError(out[at + 8 : at + 8 + size].decode())
            numbers = struct.unpack_from(f"<{3 * count}I", out, at + 4)
            at += 4 + 12 * count
            yield list(zip(numbers[::3], numbers[1::3], numbers[2::3]))


def same_offsets(text, tokens, expected):
    """Whether offsets agree once widened to the characters they touch. A token
    of nothing but the space put before the text has the character after it in
    `tokenizers`, no bytes here."""
    first, after = [], [0]
    for i, c in enumerate(text):
        size = len(c.encode())
        first += [i] * size
        after += [i + 1] * size
    first.append(len(text))
    return all(
        first[b] == want_b
        and (after[e] == want_e if e > b else want_e - want_b <= 1)
        for (_, b, e), (want_b, want_e) in zip(tokens, expected)
    )


def compare(name, tokenizer, driver, texts, missing, normalizer):
    strings = offsets = different = 0
    texts = iter(texts)
    while batch := list(itertools.islice(texts, BATCH)):
        expected = tokenizer.encode_batch(
            batch, add_special_tokens=driver.command[3] == "1"
        )
        for text, want, got in zip(batch, expected, driver.encode(batch)):
            strings += 1
            same = [t[0] for t in got] == want.ids
            unchanged = not normalizer or normalizer.normalize_str(text) == text
            if same and unchanged and not missing & set(text.encode()):
                offsets += 1
                same = same_offsets(text, got, want.offsets)
            if not same:
                different += 1
                if different <= 5:
                    print(f"  {text!r}\n    want {list(zip(want.ids, want.offsets))}"
                          f"\n    got  {got}")  # fmt: skip
    print(f"{name}: {strings} strings, {offsets} with offsets, "
          f"{different} differ", flush=True)  # fmt: skip
    return different


def check(name, tokenizer, files, args):
    different = 0
    missing = corpus.missing_bytes(tokenizer)
    for parse_special, file in itertools.product((True, False), files):
        # Compares ids of user text with special tokens off, too.
        tokenizer.encode_special_tokens = not parse_special
        texts = corpus.Texts(args.seed + parse_special)
        random_texts = (texts.next() for _ in range(args.count))
        points = []
        if parse_special:
            points.append(corpus.every_code_point())
            if tokenizer.normalizer:
                points.append(corpus.every_mark())
        driver = Driver(args.driver, file, parse_special, parse_special)
        different += compare(
            f"{name} {Path(file).suffix} parse_special={int(parse_special)}",
            tokenizer, driver, itertools.chain(random_texts, *points),
            missing, tokenizer.normalizer,
        )  # fmt: skip
    return different


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gguf", action="append", default=[])
    parser.add_argument("--families", default=",".join(corpus.FAMILIES))
    args = parser.parse_args()
    different = 0
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        for family in filter(None, args.families.split(",")):
            tokenizer = corpus.train(family, 4000, 60)
            file = f"{folder}/{family}.json"
            tokenizer.save(file)
            different += check(family, tokenizer, [file], args)
        for argument in args.gguf:
            family, gguf = argument.split("=", 1)
            tokenizer = corpus.from_gguf(family, gguf)
            file = f"{folder}/gguf.json"
            tokenizer.save(file)
            different += check(Path(gguf).name, tokenizer, [file, gguf], args)
    print(f"{time.time() - start:.0f} s, {different} differ")
    sys.exit(different != 0)


if __name__ == "__main__":
    main()
