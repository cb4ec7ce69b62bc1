"""Writes the seeds of the corpora of the tokenizer fuzzers.

    python make_tokenizer_seeds.py
"""

import json
import pathlib

CORPUS = pathlib.Path(__file__).parent / "corpus"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


def tokenizer(pre_tokenizer=None, **members):
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": 6, "content": "<s>", "special": True, "normalized": False,
             "lstrip": False, "rstrip": True, "single_word": False},
        ],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer or BYTE_LEVEL,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [6]}},
        },
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "unk_token": None,
            "fuse_unk": False,
            "ignore_merges": False,
            "vocab": {"a": 0, "b": 1, "c": 2, "\u0120": 3, "ab": 4, "abc": 5},
            "merges": ["a b", ["ab", "c"]],
        },
    }  # fmt: skip
    content.update(members)
    return json.dumps(content, separators=(",", ":")).encode()


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def main():
    split = {"type": "Split", "pattern": {"Regex": QWEN2},
             "behavior": "Isolated", "invert": False}  # fmt: skip
    digits = {"type": "Digits", "individual_digits": True}
    prefix = {**BYTE_LEVEL, "add_prefix_space": True}
    seeds = {
        "tokenizer_json/seed_gpt2": tokenizer(),
        "tokenizer_json/seed_digits": tokenizer(sequence(digits, prefix)),
        "tokenizer_json/seed_qwen2": tokenizer(
            sequence(split, {**BYTE_LEVEL, "use_regex": False}),
            normalizer={"type": "NFC"},
            post_processor={"type": "ByteLevel"},
        ),
        "tokenizer_json/seed_old": tokenizer(
            truncation={"max_length": 8, "stride": 1, "strategy": "LongestFirst"},
            padding={"strategy": {"Fixed": 8}, "pad_id": 0},
            model={"vocab": {"a": 0, "b": 1, "\u0120": 2, "ab": 3, "ba": 4, "x": 5},
                   "merges": ["a b", "b a"], "unk_token": "x", "fuse_unk": True},
        ),
    }  # fmt: skip
    texts = {
        "english": "It's 12,345 o'clock\n\n  said Él.",
        "marks": "e\u0345\u0323\u0301 \u1100\u1161\u11a8 \u0915\u093c",
        "special": "<|im_start|>user\n<|im_end|> <strip>  [word] x[word]",
        "spaces": " \t \r\n\u2003\u3000 a  ",
        "emoji": "👩‍👩‍👧 ½Ⅷ٣ 日本語",
    }
    for name, text in texts.items():
        for family in range(7):
            path = f"tokenizer_text/seed_{name}_{family}"
            seeds[path] = bytes([family]) + text.encode()
    for path, content in seeds.items():
        target = CORPUS / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


if __name__ == "__main__":
    main()
