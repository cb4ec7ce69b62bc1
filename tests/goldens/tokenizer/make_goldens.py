#!/usr/bin/env python3
"""Writes FAMILY.json and FAMILY.cases.json beside this file.

FAMILY.json is a small tokenizer trained here; the cases are strings with the
ids and offsets that the `tokenizers` package gives, checked by
tests/engine/tokenizer_golden_test.cc. Offsets are bytes, widened to whole
characters as in `tokenizers`; null where the engine's differ on purpose
(compare.py says where).
"""

import json
from pathlib import Path

import corpus

CASES = 22
VOCAB_SIZE = 600
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


def main():
    folder = Path(__file__).parent
    for number, family in enumerate(corpus.FAMILIES):
        tokenizer = corpus.train(family, VOCAB_SIZE, 20)
        tokenizer.save(str(folder / f"{family}.json"), pretty=False)
        missing = corpus.missing_bytes(tokenizer)
        texts = corpus.Texts(number)
        cases = []
        for i, text in enumerate(FIXED + [texts.next() for _ in range(CASES)]):
            parse_special = i % 3 != 2
            tokenizer.encode_special_tokens = not parse_special
            encoding = tokenizer.encode(text)
            normalizer = tokenizer.normalizer
            comparable = not missing & set(text.encode()) and (
                not normalizer or normalizer.normalize_str(text) == text
            )
            cases.append(
                {
                    "text": text,
                    "parse_special": parse_special,
                    "ids": encoding.ids,
                    "offsets": byte_offsets(text, encoding.offsets)
                    if comparable
                    else None,
                }
            )
        lines = ",\n".join(
            json.dumps(c, separators=(",", ":"), ensure_ascii=False)
            for c in cases
        )
        (folder / f"{family}.cases.json").write_text(
            f'{{"cases":[\n{lines}\n]}}\n', "utf-8"
        )


if __name__ == "__main__":
    main()
