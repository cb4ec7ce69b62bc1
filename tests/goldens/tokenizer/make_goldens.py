#!/usr/bin/env python3
"""Writes FAMILY.json and FAMILY.cases.json beside this file, and FAMILY.model
with its .config.json where a tokenizer.model says the same.

FAMILY.json is a small tokenizer trained here; the cases are strings with the
ids and offsets that the `tokenizers` package gives, checked by
tests/engine/tokenizer_golden_test.cc. Offsets are bytes, widened to whole
characters as in `tokenizers`; null where the engine's differ on purpose
(compare.py says where).
"""

import json
from pathlib import Path

from tokenizers import normalizers

import corpus
import spm

CASES = 22
VOCAB_SIZE = 600
SPM_VOCAB_SIZE = 1400
FIXED = [
    "", " ", "  ", "\n", "a", "The city of Paris", "don't DON'T don'ſ", "1234567",
    " 12 345", "x  \n\n  y", "tabs\t\tand\r\n", "e\u0301 \u00e9 A\u030a \u212b",
    "<|im_start|>user<|im_end|>", "<|endoftext|>", "<|begin_of_text|>a",
    "a <strip> b", "x[word]y [word] z", "日本語 Ⅷ½", "👨‍👩‍👧‍👦", "'", "''s", " ^^a",
]  # fmt: skip


def byte_offsets(text, offsets):
    at = [0]
    for c in text:
        at.append(at[-1] + len(c.encode()))
    return [at[i] for pair in offsets for i in pair]


def make_cases(tokenizer, seed, missing):
    is_spm = "ByteLevel" not in tokenizer.to_str()
    texts = corpus.Texts(seed, spm.SPECIALS if is_spm else None)
    fixed = FIXED + (spm.FIXED if is_spm else [])
    nfc = normalizers.NFC() if '"NFC"' in tokenizer.to_str() else None
    for i, text in enumerate(fixed + [texts.next() for _ in range(CASES)]):
        parse_special = i % 3 != 2
        tokenizer.encode_special_tokens = not parse_special
        encoding = tokenizer.encode(text)
        comparable = not missing & set(text.encode()) and (
            not nfc or nfc.normalize_str(text) == text
        )
        case = {
            "text": text,
            "parse_special": parse_special,
            "ids": encoding.ids,
            "offsets": byte_offsets(text, encoding.offsets) if comparable else None,
        }
        if is_spm:
            case["decoded"] = tokenizer.decode(encoding.ids)
        yield case


def write(folder, name, tokenizer, seed, missing):
    tokenizer.save(str(folder / f"{name}.json"), pretty=False)
    lines = ",\n".join(
        json.dumps(c, separators=(",", ":"), ensure_ascii=False)
        for c in make_cases(tokenizer, seed, missing)
    )
    (folder / f"{name}.cases.json").write_text(
        f'{{"cases":[\n{lines}\n]}}\n', "utf-8"
    )


def main():
    folder = Path(__file__).parent
    for number, family in enumerate(corpus.FAMILIES):
        tokenizer = corpus.train(family, VOCAB_SIZE, 20)
        missing = corpus.missing_bytes(tokenizer)
        write(folder, family, tokenizer, number, missing)
    for number, family in enumerate(spm.FAMILIES):
        model = spm.train_model(family, SPM_VOCAB_SIZE, 20)
        if family in spm.MODELS:
            spm.write_model(family, model, folder)
        write(folder, family, spm.convert(family, model), 100 + number, set())


if __name__ == "__main__":
    main()
