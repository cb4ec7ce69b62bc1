#!/usr/bin/env python3
"""Compares the engine's tokenizer with the `tokenizers` package.

  compare.py build/bin/tokenizer_driver [--count 100000] [--seed 1]
      [--gguf smollm=SmolLM2.gguf] [--gguf gpt2=ggml-vocab-gpt-2.gguf] ...
      [--gguf spm=gemma3.gguf] [--random-only]

Every tokenizer gets --count random strings and (unless --random-only) all code
points, with and without recognition of special tokens. Ids must be equal, and
so must offsets once widened to whole characters, as in `tokenizers`. Offsets
are not compared where their meanings differ: for text that a normal form changes
(the engine reports all characters that took part, `tokenizers` the first), after
bytes that the vocabulary lacks and after a character at the begin that
SentencePiece's rules drop (`tokenizers` miscounts those).

Without recognition of special tokens, a unigram model of `tokenizers` still takes
the text "</s>" for the piece; here it must not, so the reference has other names
for its special pieces then.

The SentencePiece kind is compared as tokenizer.json, as tokenizer.model and as
GGUF. The script also compares the text to which its tokens decode, and the
texts of random ids if they are UTF-8 (`tokenizers` puts U+FFFD for other
bytes).
"""

import argparse
import base64
import itertools
import json
import random
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tokenizers import Tokenizer, normalizers

import corpus
import spm
import unigram

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
            text, at = read_string(out, at)
            yield list(zip(numbers[::3], numbers[1::3], numbers[2::3])), text

    def decode(self, lists, keep_special):
        command = [*self.command[:2], "decode", str(int(keep_special))]
        stdin = b"".join(struct.pack(f"<{len(x) + 1}I", len(x), *x) for x in lists)
        out = subprocess.run(
            command, input=stdin, stdout=subprocess.PIPE, check=True
        ).stdout
        at = 0
        for _ in lists:
            text, at = read_string(out, at)
            yield text


def read_string(out, at):
    (size,) = struct.unpack_from("<I", out, at)
    return out[at + 4 : at + 4 + size], at + 4 + size


def same_offsets(text, tokens, expected):
    """Returns whether offsets agree once widened to the characters they touch.
    A token with only the space put before the text has the next character in
    `tokenizers`, and no bytes here; a token added after the text has offset 0
    there."""
    first, after = [], [0]
    for i, c in enumerate(text):
        size = len(c.encode())
        first += [i] * size
        after += [i + 1] * size
    first.append(len(text))
    return all(
        (first[b] == want_b
         and (after[e] == want_e if e > b else want_e - want_b <= 1))
        or (b == e == len(first) - 1 and want_b == want_e == 0)
        for (_, b, e), (want_b, want_e) in zip(tokens, expected)
    )


class OffsetsRule:
    """Says for which texts the engine's offsets mean what those of `tokenizers`
    do."""

    def __init__(self, tokenizer, missing):
        steps = json.loads(tokenizer.to_str())["normalizer"] or {}
        steps = steps.get("normalizers", [steps])
        self.missing = missing
        self.forms = [
            getattr(normalizers, s["type"])()
            for s in steps
            if s and s["type"] in ("NFC", "NFD", "NFKC", "NFKD")
        ]
        self.added = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
        self.dropped = set()
        for step in steps:
            if step and step["type"] == "Precompiled":
                rules = normalizers.Precompiled(
                    base64.b64decode(step["precompiled_charsmap"])
                )
                points = (chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
                self.dropped = {c for c in points if not rules.normalize_str(c)}

    def comparable(self, text):
        if self.missing & set(text.encode()):
            return False
        if any(form.normalize_str(text) != text for form in self.forms):
            return False
        # After a dropped character at the begin `tokenizers` is off by one.
        if not self.dropped or not self.dropped & set(text):
            return True
        return text[0] not in self.dropped and not any(
            name in text for name in self.added
        )


def compare(name, tokenizer, encoder, driver, texts, missing, is_spm):
    strings = offsets = different = 0
    rule = OffsetsRule(tokenizer, missing)
    texts = iter(texts)
    while batch := list(itertools.islice(texts, BATCH)):
        expected = encoder.encode_batch(
            batch, add_special_tokens=driver.command[3] == "1"
        )
        decoded = tokenizer.decode_batch([e.ids for e in expected])
        for text, want, want_text, (got, got_text) in zip(
            batch, expected, decoded, driver.encode(batch)
        ):
            strings += 1
            same = [t[0] for t in got] == want.ids
            if same and is_spm:
                # Unigram may take "<0xE3>" for the byte.
                utf8 = got_text.decode(errors="replace")
                same = utf8 == want_text or "\ufffd" in utf8
            if same and rule.comparable(text):
                offsets += 1
                same = same_offsets(text, got, want.offsets)
            if not same:
                different += 1
                if different <= 5:
                    print(f"  {text!r}\n    want {list(zip(want.ids, want.offsets))}"
                          f"\n    got  {got} {got_text}")  # fmt: skip
    print(f"{name}: {strings} strings, {offsets} with offsets, "
          f"{different} differ", flush=True)  # fmt: skip
    return different


def compare_decoding(name, tokenizer, driver, args):
    """Compares the texts of random ids."""
    random_ids = random.Random(args.seed)
    size = tokenizer.get_vocab_size()
    lists = [
        [random_ids.randrange(size) for _ in range(random_ids.randint(1, 8))]
        for _ in range(args.count)
    ]
    utf8 = different = 0
    for keep in (False, True):
        want = tokenizer.decode_batch(lists, skip_special_tokens=not keep)
        for ids, text, got in zip(lists, want, driver.decode(lists, keep)):
            try:
                got = got.decode()
            except UnicodeDecodeError:
                continue
            utf8 += 1
            if got != text:
                different += 1
                if different <= 5:
                    print(f"  {ids} want {text!r} got {got!r}")
    print(f"{name}: {2 * len(lists)} lists of ids, {utf8} UTF-8, "
          f"{different} differ", flush=True)  # fmt: skip
    return different


def check(name, tokenizer, files, args, specials=None):
    """`specials`: for tokenizers of characters, texts that mean something."""
    different = 0
    is_spm = specials is not None
    missing = set() if is_spm else corpus.missing_bytes(tokenizer)
    for parse_special, file in itertools.product((True, False), files):
        # With special tokens off, the ids of user text are compared too.
        tokenizer.encode_special_tokens = not parse_special
        encoder = tokenizer
        if not parse_special and '"type":"Unigram"' in tokenizer.to_str():
            encoder = unigram.hide_special(tokenizer)
        texts = corpus.Texts(args.seed + parse_special, specials)
        random_texts = (texts.next() for _ in range(args.count))
        points = []
        if parse_special and not args.random_only:
            points.append(corpus.every_code_point())
            if '"NF' in tokenizer.to_str():
                points.append(corpus.every_mark())
        driver = Driver(args.driver, file, parse_special, parse_special)
        label = f"{name} {Path(file).suffix}"
        different += compare(
            f"{label} parse_special={int(parse_special)}", tokenizer, encoder,
            driver, itertools.chain(random_texts, *points), missing, is_spm,
        )  # fmt: skip
        if is_spm and parse_special:
            different += compare_decoding(label, tokenizer, driver, args)
    return different


def check_spm(family, folder, args):
    model = spm.train_model(family, 4000, 60)
    tokenizer = spm.convert(family, model)
    file = f"{folder}/{family}.json"
    tokenizer.save(file)
    files = [file]
    if family in spm.MODELS:
        files.append(spm.write_model(family, model, folder))
        if family != "mistral3":
            files.append(spm.write_gguf(family, model, folder))
    return check(family, tokenizer, files, args, spm.SPECIALS)


def check_unigram(family, folder, args):
    model = unigram.train_model(family, 4000, 60, small=False)
    tokenizer = unigram.convert(family, model)
    if family in unigram.MODELS:
        file = unigram.write_model(family, model, folder)
        different = check(family, tokenizer, [file], args, unigram.SPECIALS)
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
    else:
        different = 0
    file = f"{folder}/{family}.json"
    tokenizer.save(file)
    return different + check(family, tokenizer, [file], args, unigram.SPECIALS)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gguf", action="append", default=[])
    parser.add_argument("--random-only", action="store_true")
    parser.add_argument(
        "--families", default=",".join(corpus.FAMILIES + spm.FAMILIES + unigram.FAMILIES)
    )
    args = parser.parse_args()
    different = 0
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        for family in filter(None, args.families.split(",")):
            if family in spm.FAMILIES:
                different += check_spm(family, folder, args)
                continue
            if family in unigram.FAMILIES:
                different += check_unigram(family, folder, args)
                continue
            tokenizer = corpus.train(family, 4000, 60)
            file = f"{folder}/{family}.json"
            tokenizer.save(file)
            different += check(family, tokenizer, [file], args)
        for argument in args.gguf:
            family, gguf = argument.split("=", 1)
            is_spm = family == "spm"
            tokenizer = (
                spm.from_gguf(gguf) if is_spm else corpus.from_gguf(family, gguf)
            )
            file = f"{folder}/gguf.json"
            tokenizer.save(file)
            different += check(
                Path(gguf).name, tokenizer, [file, gguf], args,
                spm.SPECIALS if is_spm else None,
            )
    print(f"{time.time() - start:.0f} s, {different} differ")
    sys.exit(different != 0)


if __name__ == "__main__":
    main()
