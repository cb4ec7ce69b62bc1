#!/usr/bin/env python3
"""Writes FAMILY.json and FAMILY.cases.json beside this file; FAMILY.model with
its .config.json if a tokenizer.model can define the same; and opt_files, the
tokenizer of opt.json as OPT's published vocab.json and merges.txt.

FAMILY.json is a small tokenizer trained here; the cases are strings with the
ids and offsets of the `tokenizers` package, which
tests/engine/tokenizer/tokenizer_golden_test.cc checks. Offsets are bytes,
widened to whole characters as in `tokenizers`; null if the engine's differ on
purpose (compare.py says where).
"""

import json
from pathlib import Path

from tokenizers import normalizers

import corpus
import spm
import unigram
from compare import OffsetsRule

CASES = 22
VOCAB_SIZE = 600
SPM_VOCAB_SIZE = 1400
UNIGRAM_VOCAB_SIZE = 1000
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


def make_cases(tokenizer, seed, missing, more=None):
    """`more`: the module of the family, if tokens are characters."""
    texts = corpus.Texts(seed, more and more.SPECIALS)
    fixed = FIXED + (more.FIXED if more else [])
    rule = OffsetsRule(tokenizer, missing)
    for i, text in enumerate(fixed + [texts.next() for _ in range(CASES)]):
        parse_special = i % 3 != 2
        tokenizer.encode_special_tokens = not parse_special
        encoder = tokenizer
        if more is unigram and not parse_special:
            encoder = unigram.hide_special(tokenizer)
        encoding = encoder.encode(text)
        case = {
            "text": text,
            "parse_special": parse_special,
            "ids": encoding.ids,
            "offsets": byte_offsets(text, encoding.offsets)
            if rule.comparable(text)
            else None,
        }
        if more:
            case["decoded"] = tokenizer.decode(encoding.ids)
        yield case


def write(folder, name, tokenizer, seed, missing, more=None):
    tokenizer.save(str(folder / f"{name}.json"), pretty=False)
    write_cases(folder, name, tokenizer, seed, missing, more)


def write_cases(folder, name, tokenizer, seed, missing, more=None):
    lines = ",\n".join(
        json.dumps(c, separators=(",", ":"), ensure_ascii=False)
        for c in make_cases(tokenizer, seed, missing, more)
    )
    (folder / f"{name}.cases.json").write_text(
        f'{{"cases":[\n{lines}\n]}}\n', "utf-8"
    )


def write_opt_files(folder):
    """The ids come from `transformers`, which reads the files."""
    from transformers import AutoTokenizer

    model = json.loads((folder / "opt.json").read_text("utf-8"))["model"]
    vocab = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    vocab.update({text: id + 4 for text, id in model["vocab"].items()})
    files = folder / "opt_files"
    files.mkdir(exist_ok=True)
    (files / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    merges = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (files / "merges.txt").write_text("\n".join(merges) + "\n", "utf-8")

    def token(content):
        return {"content": content, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": True, "__type": "AddedToken"}  # fmt: skip

    config = {
        "errors": "replace", "unk_token": token("</s>"),
        "bos_token": token("</s>"), "eos_token": token("</s>"),
        "pad_token": token("<pad>"), "add_prefix_space": False,
        "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer",
    }  # fmt: skip
    (files / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    tokenizer = AutoTokenizer.from_pretrained(str(files)).backend_tokenizer
    write_cases(folder, "opt_files", tokenizer, 200,
                corpus.missing_bytes(tokenizer))  # fmt: skip


def write_unigram(folder):
    for number, family in enumerate(unigram.FAMILIES):
        model = unigram.train_model(family, UNIGRAM_VOCAB_SIZE, 20, small=True)
        if family in unigram.MODELS:
            unigram.write_model(family, model, folder)
        tokenizer = unigram.convert(family, model)
        write(folder, family, tokenizer, 300 + number, set(), unigram)


def main():
    folder = Path(__file__).parent
    for number, family in enumerate(corpus.FAMILIES):
        if family in corpus.ONLY_COMPARED:
            continue
        tokenizer = corpus.train(family, VOCAB_SIZE, 20)
        missing = corpus.missing_bytes(tokenizer)
        write(folder, family, tokenizer, number, missing)
    write_opt_files(folder)
    for number, family in enumerate(spm.FAMILIES):
        model = spm.train_model(family, SPM_VOCAB_SIZE, 20)
        if family in spm.MODELS:
            spm.write_model(family, model, folder)
        write(folder, family, spm.convert(family, model), 100 + number, set(), spm)
    write_unigram(folder)


if __name__ == "__main__":
    main()
