"""Writes the seeds of the corpora of the tokenizer fuzzers.

    python make_tokenizer_seeds.py
"""

import base64
import json
import pathlib
import struct

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


def spm(bytes_too, pre_tokenizer, normalizer, decoder):
    vocab = {f"<0x{i:02X}>": i for i in range(256)} if bytes_too else {"x": 0}
    for token in ("\u2581", "a", "b", "\u2581a", "ab"):
        vocab[token] = len(vocab)
    return json.dumps({
        "added_tokens": [{"id": len(vocab), "content": "<s>", "special": True}],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "decoder": {"type": "Sequence", "decoders": decoder},
        "model": {"type": "BPE", "vocab": vocab, "unk_token": None if bytes_too
                  else "x", "byte_fallback": bytes_too, "fuse_unk": True,
                  "merges": ["\u2581 a", "a b"]},
    }, separators=(",", ":"), ensure_ascii=False).encode()  # fmt: skip


def spm_seeds():
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    fuse = {"type": "Fuse"}
    bytes_ = {"type": "ByteFallback"}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    metaspace = {"type": "Metaspace", "replacement": "\u2581",
                 "prepend_scheme": "first", "split": True}  # fmt: skip
    split = {"type": "Split", "pattern": {"String": " "},
             "behavior": "MergedWithPrevious"}  # fmt: skip
    both = {"type": "Sequence", "normalizers": [prepend, replace]}
    return {
        "tokenizer_json/seed_llama2": spm(True, None, both,
                                          [back, bytes_, fuse, strip]),
        "tokenizer_json/seed_gemma": spm(False, split, replace, [back, fuse]),
        "tokenizer_json/seed_metaspace": spm(False, metaspace, {"type": "NFC"},
                                             [metaspace]),
    }  # fmt: skip


def charsmap():
    """SentencePiece's rules: "A" becomes "ab", "\u3000" goes nowhere."""
    units = [0] * 256
    units[ord("A")] = 1 << 10 | 1 << 8 | ord("A")
    units[ord("A") ^ 1] = 1 << 31
    return struct.pack("<I256I", 1024, *units) + b"ab\0"


def unigram(members, **settings):
    pieces = [("<unk>", 0), ("<s>", 0), ("\u2581", -3.5), ("a", -2.25), ("b", -4),
              ("ab", -5.125), ("\u2581a", -4.5), ("c", -9), ("<0x41>", 0)]  # fmt: skip
    return json.dumps({
        "added_tokens": [{"id": 1, "content": "<s>", "special": True}],
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, **settings},
        **members,
    }, separators=(",", ":"), ensure_ascii=False).encode()  # fmt: skip


def unigram_seeds():
    metaspace = {"type": "Metaspace", "replacement": "\u2581",
                 "prepend_scheme": "always", "split": True}  # fmt: skip
    rules = {"type": "Precompiled",
             "precompiled_charsmap": base64.b64encode(charsmap()).decode()}  # fmt: skip
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}
    strip = {"type": "Strip", "strip_left": False, "strip_right": True}
    plain = [{"type": name} for name in ("Nmt", "NFKD", "StripAccents", "Lowercase")]
    t5 = {
        "normalizer": rules,
        "pre_tokenizer": sequence({"type": "WhitespaceSplit"}, metaspace),
        "decoder": metaspace,
    }
    steps = {
        "normalizer": {"type": "Sequence",
                       "normalizers": [*plain, rules, strip, spaces]},
        "pre_tokenizer": sequence(metaspace, {"type": "Digits"}),
        "decoder": {"type": "Sequence",
                    "decoders": [{"type": "ByteFallback"}, metaspace,
                                 {"type": "Fuse"}]},
    }  # fmt: skip
    return {
        "tokenizer_json/seed_t5": unigram(t5),
        "tokenizer_json/seed_unigram": unigram(steps, byte_fallback=True),
        "tokenizer_json/seed_unigram_old": unigram(t5, unk_id=None).replace(
            b'"type":"Unigram",', b""
        ),
    }


def varint(n):
    out = b""
    while n >= 0x80:
        out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
    return out + bytes([n])


# A token that only a file beside the vocabulary names, in each way there is.
SETTINGS = {
    "decoder": ({"added_tokens_decoder": {
        "300": {"content": "<s>", "special": True, "lstrip": True},
        "2": {"content": "12", "special": False, "normalized": True}}}, {}, {}),
    "names": ({"bos_token": "<s>", "pad_token": None, "legacy": False,
               "eos_token": {"__type": "AddedToken", "content": "ab",
                             "rstrip": True}}, {}, {}),
    "lists": ({"additional_special_tokens": ["<s>", {"content": "it"}],
               "model_max_length": 1000000000000000019884624838656},
              {"additional_special_tokens": ["12"]}, {}),
    "extra": ({"extra_special_tokens": {"image_token": "<s>"}}, {}, {}),
    "map": ({}, {"bos_token": "<s>", "unk_token": {"content": "ab"}}, {}),
    "added": ({"add_bos_token": True, "bos_token": "<s>"}, {},
              {"<s>": 300, "12": 2}),
}  # fmt: skip


def settings_files(name):
    files = [json.dumps(file).encode() for file in SETTINGS[name]]
    return b"\xff".join(files)


def model(bytes_too, model_type=2, normalizer=b"\x20\x00"):
    """A tokenizer.model."""
    pieces = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("\u2581", -9, 1),
              ("a", -8, 1), ("b", -7, 1), ("ab", -1, 1), ("\u2581a", -1, 1),
              ("xy", -2, 1), ("\n\n", 0, 4)]  # fmt: skip
    if bytes_too:
        pieces += [(f"<0x{i:02X}>", 0, 6) for i in range(256)]
    out = b""
    for text, score, kind in pieces:
        piece = text.encode()
        piece = b"\x0a" + varint(len(piece)) + piece
        piece += b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind)
        out += b"\x0a" + varint(len(piece)) + piece
    out += b"\x12\x02\x18" + varint(model_type)
    return out + b"\x1a" + varint(len(normalizer)) + normalizer


# The files beside a tokenizer.model, by the names of the seeds.
SPM_CONFIGS = {
    "none": {},
    "not_legacy": {"legacy": False},
    "no_prefix": {"add_prefix_space": False},
    "rstrip": {"added_tokens_decoder": {"1": {"content": "<s>", "rstrip": True}}},
    "t5": {"tokenizer_class": "T5Tokenizer", "extra_ids": 3},
}


def spm_model_seeds():
    rules = charsmap()
    normalizer = b"\x12" + varint(len(rules)) + rules
    bpe, unigrams = model(False), model(False, 1, normalizer)
    seeds = {}
    for name, config in SPM_CONFIGS.items():
        files = json.dumps(config).encode() + b"\xff\xff\xff"
        seeds[f"tokenizer_sentencepiece/seed_{name}"] = files + bpe
        seeds[f"tokenizer_sentencepiece/seed_unigram_{name}"] = files + unigrams
    seeds["tokenizer_sentencepiece/seed_bytes"] = b"\xff\xff\xff" + model(True)
    for name in SETTINGS:
        files = settings_files(name) + b"\xff"
        seeds[f"tokenizer_sentencepiece/seed_files_{name}"] = files + bpe
    return seeds


def settings_seeds():
    vocab = json.dumps({"a": 0, "b": 1, "\u0120": 2, "ab": 3, "<s>": 4}).encode()
    merges = b"#version: 0.2\na b\n"
    seeds = {}
    for name in SETTINGS:
        files = b"\xff" + settings_files(name)
        seeds[f"tokenizer_json/seed_files_{name}"] = (
            tokenizer(added_tokens=[]) + files
        )
        config, *others = SETTINGS[name]
        config = {"tokenizer_class": "Qwen2Tokenizer", **config}
        parts = [vocab, merges] + [json.dumps(f).encode() for f in (config, *others)]
        seeds[f"tokenizer_vocab_merges/seed_files_{name}"] = b"\xff".join(parts)
    return seeds


def pattern_seeds():
    """Words by patterns that are no known ones."""
    bytes_only = {**BYTE_LEVEL, "use_regex": False}

    def split(pattern, behavior="Isolated", invert=False):
        return {"type": "Split", "pattern": pattern, "behavior": behavior,
                "invert": invert}  # fmt: skip

    steps = {
        "lookahead": [split({"Regex": r"\s+(?!\S)|\w+|[^\w\s]"})],
        "removed": [split({"Regex": r"(?i:'s)|\p{L}+|\S"}, "Removed", True)],
        "classes": [split({"Regex": r"[\p{Lu}\p{M}]*[^\r\n\d]+|\p{N}{1,3}"}),
                    split({"Regex": "[\u4e00-\u9fa5]+"}, "MergedWithNext")],
        "literal": [split({"String": "ab"}, "Contiguous"),
                    split({"Regex": "$"}, "MergedWithPrevious")],
        "punctuation": [{"type": "Punctuation", "behavior": "Isolated"},
                        {"type": "Whitespace"}],
        "nothing": [split({"Regex": "a*"}), split({"Regex": "(ab|[^c])+"})],
    }  # fmt: skip
    return {
        f"tokenizer_json/seed_words_{name}": tokenizer(sequence(*each, bytes_only))
        for name, each in steps.items()
    }


def gguf(model_name, pre):
    """The metadata of a GGUF file."""
    def string(s):
        return struct.pack("<Q", len(s.encode())) + s.encode()

    def array(kind, items):
        return struct.pack("<IIQ", 9, kind, len(items)) + b"".join(items)

    tokens = ["<unk>", "<s>", "\u2581", "a", "b", "ab", "\u0120", "\u0120a", "<u>"]
    keys = {
        "model": struct.pack("<I", 8) + string(model_name),
        "pre": struct.pack("<I", 8) + string(pre),
        "tokens": array(8, [string(t) for t in tokens]),
        "token_type": array(5, [struct.pack("<i", k)
                                for k in (2, 3, 1, 1, 1, 1, 1, 1, 4)]),
        "scores": array(6, [struct.pack("<f", -i) for i in range(len(tokens))]),
        "merges": array(8, [string("a b"), string("\u0120 a")]),
        "bos_token_id": struct.pack("<II", 4, 1),
        "unknown_token_id": struct.pack("<II", 4, 0),
        "add_bos_token": struct.pack("<IB", 7, 1),
    }  # fmt: skip
    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys))
    for key, value in keys.items():
        out += string("tokenizer.ggml." + key) + value
    return out


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
    seeds.update(spm_seeds())
    seeds.update(unigram_seeds())
    seeds.update(spm_model_seeds())
    seeds.update(settings_seeds())
    seeds.update(pattern_seeds())
    seeds["tokenizer_gguf/seed_gpt2"] = gguf("gpt2", "gpt-2")
    seeds["tokenizer_gguf/seed_qwen2"] = gguf("gpt2", "qwen2")
    seeds["tokenizer_gguf/seed_llama"] = gguf("llama", "default")
    for pre in ("default", "llama-bpe", "tekken", "deepseek-v3", "gpt-4o", "xyz"):
        seeds[f"tokenizer_gguf/seed_pre_{pre}"] = gguf("gpt2", pre)
    seeds["tokenizer_gguf/seed_none"] = gguf("none", "default")
    texts = {
        "english": "It's 12,345 o'clock\n\n  said Él.",
        "marks": "e\u0345\u0323\u0301 \u1100\u1161\u11a8 \u0915\u093c",
        "special": "<|im_start|>user\n<|im_end|> <strip>  [word] x[word]",
        "spaces": " \t \r\n\u2003\u3000 a  ",
        "pieces": " \u2581a<s> [INST] <0x41>\n\n\n  <start_of_turn>user\n",
        "emoji": "👩‍👩‍👧 ½Ⅷ٣ 日本語",
    }
    for name, text in texts.items():
        for family in range(24):
            path = f"tokenizer_text/seed_{name}_{family}"
            seeds[path] = bytes([family]) + text.encode()
    for path, content in seeds.items():
        target = CORPUS / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


if __name__ == "__main__":
    main()
