"""Unigram tokenizers for compare.py and make_goldens.py: each family with the
steps that its models' tokenizer.json has."""

import io
import json
import tempfile
import unicodedata
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

import corpus

FAMILIES = ["t5", "unigram_bytes", "unigram_spm", "albert", "unigram_steps",
            "unigram_forms", "graphemes", "spm_unigram", "spm_first"]  # fmt: skip
# The families that a tokenizer.model defines, as `transformers` reads it.
MODELS = ["t5", "spm_unigram", "spm_first"]

SPECIALS = ["<s>", "</s>", "<unk>", "<pad>", "<extra_id_0>", "<extra_id_1>",
            "<sep>", "<table>", "<added>", "\u2581", "\u2581\u2581", "<0x41>",
            "<0xE3>", "``", "''", "\uff1c/s\uff1e", "<pad", "İI", "ﷺ", "\x01",
            "\x00", "e\u0301", "A\u030a", "\u0600a", "\u1100\u1161\u11a8",
            "\ud55c\u0301", "©\ufe0f", "©\u200d©", "क\u094d", "क\u094dष",
            "ष\u0301", "\U0001f1e6\U0001f1e7\u0301", "\u0e01\u0e33"]  # fmt: skip
FIXED = ["</s>Hello", " Hello  ", "\u2581Hello", "a</s> b</s>c", "<0x41>",
         "\n\n\n  \t\t", "a \u2581 b", "\u2581", "<table>x<sep> y", "\uff1c/s\uff1e",
         "e\u0301e\u0301 A\u030a ﬁ", "a\u200db\x01c \x01", "☃☃ ☃\u2603x",
         "`` quoted ''", "<extra_id_0> is", "ﷺ ｶﾞ ㍍ ①"]  # fmt: skip


def small_rules():
    """Rules like nmt_nfkc, for some hundred characters."""
    rules = {chr(c): "" for c in [*range(1, 9), 0xB, *range(0xE, 0x20), 0x7F]}
    rules.update({c: " " for c in "\t\n\f\r\u1680\u200b\u200d\u2028\ufeff\u2581"})
    points = [*range(0xA0, 0x180), *range(0x1EA0, 0x1EC0), *range(0x2000, 0x2070),
              *range(0x2100, 0x2120), *range(0x2460, 0x2470), *range(0xFF01, 0xFF5F),
              *range(0xFB00, 0xFB07), 0xFDFA, *range(0x3334, 0x3350)]  # fmt: skip
    for c in map(chr, points):
        for source in (c, unicodedata.normalize("NFD", c)):
            target = unicodedata.normalize("NFKC", source)
            if source != target:
                rules[source] = target
    return rules


def grapheme_rules():
    """Rules that show where a grapheme cluster begins: first characters,
    marks and pairs of them each become something else."""
    rules = {c: "abcdefghijklmnopqrstuvwxyz"[i] for i, c in enumerate(
        "\r\n\u0301\u200d©\u0600\u1100\u1161\u11a8\ud55c\uac00\u0915\u094d\u0937\u093f"
    )}  # fmt: skip
    rules["e\u0301"] = "E"
    rules["x"] = "XYZ"
    rules["q"] = ""
    rules["é"] = "12"
    rules["\U0001f1e6"] = "R"
    rules["\u0e33"] = "M"
    return rules


def write_rules(rules, path):
    def points(text):
        return " ".join(f"{ord(c):X}" for c in text)

    lines = [f"{points(a)}\t{points(b)}" for a, b in sorted(rules.items())]
    Path(path).write_text("\n".join(lines) + "\n")


def train_model(family, vocab_size, source_files, small):
    """Returns the bytes of a tokenizer.model. `small`: with few rules."""
    texts = list(corpus.LANGUAGES.values()) * 5
    for source in corpus.python_sources()[:source_files]:
        texts += source.splitlines()
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        rules = {"normalization_rule_name": "nmt_nfkc"}
        if family in ("unigram_bytes", "unigram_steps", "unigram_forms"):
            rules = {"normalization_rule_name": "identity"}
        elif family == "graphemes" or small:
            made = grapheme_rules() if family == "graphemes" else small_rules()
            rules = {"normalization_rule_tsv": f"{folder}/rules.tsv"}
            write_rules(made, rules["normalization_rule_tsv"])
        ids = {}
        if family == "t5":
            ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
        more = {}
        if family.startswith("spm"):
            more = {"control_symbols": ["<sep>"],
                    "user_defined_symbols": ["<table>", "\u2581\u2581", "++"],
                    "remove_extra_whitespaces": family == "spm_unigram"}  # fmt: skip
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=out,
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=0.98,
            byte_fallback="bytes" in family or family == "spm_first",
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
            **rules, **ids, **more,
        )  # fmt: skip
    return out.getvalue()


def parse(model):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return proto


def config(family):
    """Returns the tokenizer_config.json beside a tokenizer.model."""
    if family == "t5":
        return {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>",
                "extra_ids": 5}  # fmt: skip
    return {"tokenizer_class": "PreTrainedTokenizerFast",
            "legacy": family != "spm_first", "add_bos_token": True}  # fmt: skip


def write_model(family, model, folder):
    path = Path(folder) / f"{family}.model"
    path.write_bytes(model)
    Path(f"{path}.config.json").write_text(json.dumps(config(family)))
    return path


def from_transformers(family, model):
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.model").write_bytes(model)
        (Path(folder) / "tokenizer_config.json").write_text(
            json.dumps(config(family))
        )
        return AutoTokenizer.from_pretrained(folder).backend_tokenizer


def steps(family, proto, tokenizer):
    rules = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap or b"\0\0\0\0")
    spaces = normalizers.Replace(Regex(" {2,}"), "\u2581")
    metaspace = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.pre_tokenizer = metaspace
    if family == "unigram_bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme="first", split=False
        )
        tokenizer.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")]
        )
    elif family == "unigram_spm":
        tokenizer.normalizer = normalizers.Sequence(
            [rules, normalizers.Strip(left=False, right=True), spaces]
        )
    elif family == "albert":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'),
             normalizers.NFKD(), normalizers.StripAccents(),
             normalizers.Lowercase(), rules,
             normalizers.Replace(Regex(" {2,}"), " ")])  # fmt: skip
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), metaspace]
        )
    elif family == "unigram_steps":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Nmt(), normalizers.Strip(), normalizers.Lowercase(),
             normalizers.Replace(Regex(r"\s+"), " "), normalizers.Replace("+", ""),
             normalizers.Prepend("\u2581")])  # fmt: skip
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(prepend_scheme="first"),
             pre_tokenizers.Digits(individual_digits=True)]
        )  # fmt: skip
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.Fuse(),
             decoders.Strip(" ", 2, 0), decoders.Replace("  ", "_")]
        )  # fmt: skip
    elif family == "unigram_forms":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFD(), normalizers.NFKC()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Whitespace(), metaspace]
        )
    elif family == "graphemes":
        tokenizer.normalizer = rules


def convert(family, model):
    """Converts a tokenizer.model; adds the steps."""
    if family in MODELS:
        tokenizer = from_transformers(family, model)
    else:
        proto = parse(model)
        tokenizer = Tokenizer(
            models.Unigram(
                [(p.piece, p.score) for p in proto.pieces],
                unk_id=proto.trainer_spec.unk_id,
                byte_fallback=proto.trainer_spec.byte_fallback,
            )
        )
        tokenizer.add_tokens(
            [AddedToken(p.piece, special=True, normalized=False)
             for p in proto.pieces if p.type in (2, 3)]
            + [AddedToken("<added>", special=False, normalized=True)]
        )  # fmt: skip
        steps(family, proto, tokenizer)
        if family == "albert":
            tokenizer.post_processor = processors.TemplateProcessing(
                single="<s> $A </s>", pair="<s> $A </s> $B </s>",
                special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("<s>", "</s>")],
            )  # fmt: skip
    # `tokenizers` reads other scores from a file than it has written: by one
    # unit in the last place, which decides between equal scores.
    return tokenizer if family in MODELS else Tokenizer.from_str(tokenizer.to_str())


def hide_special(tokenizer):
    """Returns the tokenizer without names for its special tokens, which text
    could spell otherwise, even where they are not looked for."""
    content = json.loads(tokenizer.to_str())
    hidden = {t["content"] for t in content["added_tokens"] if t["special"]}
    in_model = set()
    for i, entry in enumerate(content["model"]["vocab"]):
        if entry[0] in hidden:
            in_model.add(entry[0])
            entry[0] = f"\U0010fffe{i}\U0010fffe"
    content["added_tokens"] = [
        t for t in content["added_tokens"] if t["content"] not in in_model
    ]
    return Tokenizer.from_str(json.dumps(content))
