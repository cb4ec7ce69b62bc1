"""SentencePiece-kind tokenizers for compare.py and make_goldens.py: each family
with the steps that its models' tokenizer.json has."""

import io
import json
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers.convert_slow_tokenizer import generate_merges

import corpus

FAMILIES = ["llama2", "mistral3", "phi3", "gemma", "metaspace", "always",
            "no_bytes"]  # fmt: skip
# The families for which tokenizer.model alone defines the same tokenizer.
MODELS = ["llama2", "mistral3", "gemma"]

SPECIALS = ["<s>", "</s>", "<unk>", "<bos>", "<eos>", "[INST]", "[/INST]",
            "<start_of_turn>", "<end_of_turn>", "<table>", "<|end|>", "<|user|>",
            "<|end|>\n", "<added>", "<strip>", "[word]", "\u2581", "\u2581\u2581",
            "<0x41>", "<0x0A>", "\n\n", "\t\t\t"]  # fmt: skip
FIXED = ["<s>Hello", " Hello", "\u2581Hello", "a<s> b</s>c", "<|user|>\n\n Hi<|end|>\n",
         "[INST] a [/INST]", "<0x41>", "\n\n\n  \t\t", "a \u2581 b", "\u2581",
         "<table>x", "<bos><start_of_turn>user\nHi<end_of_turn>\n"]  # fmt: skip
RUNS = [c * n for c in ("\n", "\u2581", "\t") for n in range(2, 8)]


def train_model(family, vocab_size, source_files):
    """Returns the bytes of a tokenizer.model."""
    texts = list(corpus.LANGUAGES.values()) * 5
    for source in corpus.python_sources()[:source_files]:
        texts += source.splitlines()
    gemma = family == "gemma"
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=out,
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=0.995,
        byte_fallback=family != "no_bytes",
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=not gemma,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
        control_symbols=["<start_of_turn>", "<end_of_turn>"]
        if gemma
        else ["[INST]", "[/INST]"] if family == "mistral3" else [],
        user_defined_symbols=RUNS + ["<table>"] if gemma else [],
        **({"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3,
            "bos_piece": "<bos>", "eos_piece": "<eos>"} if gemma else {}),
    )  # fmt: skip
    return out.getvalue()


def parse(model):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return proto


def added_tokens(family, proto):
    names = [p.piece for p in proto.pieces if p.type in (2, 3)]
    tokens = [AddedToken(n, special=True, normalized=False) for n in names]
    if family == "phi3":
        tokens += [
            AddedToken(n, special=True, normalized=False, rstrip=True)
            for n in ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>",
                      "<|user|>")
        ]  # fmt: skip
    if family == "metaspace":
        tokens += [
            AddedToken("<added>", special=False, normalized=True),
            AddedToken("<strip>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("[word]", single_word=True, normalized=True),
        ]
    tokens += [
        AddedToken(p.piece, special=False, normalized=False)
        for p in proto.pieces
        if p.type == 4
    ]
    return tokens


def steps(family, tokenizer):
    replace = normalizers.Replace(" ", "\u2581")
    decode = [decoders.Replace("\u2581", " "), decoders.ByteFallback(),
              decoders.Fuse()]  # fmt: skip
    begin = "<bos>" if family == "gemma" else "<s>"
    if family == "gemma":
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif family in ("llama2", "phi3", "no_bytes"):
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), replace]
        )
        decode += [decoders.Strip(" ", 1, 0)]
    elif family == "mistral3":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme="first", split=False
        )
        decode += [decoders.Strip(" ", 1, 0)]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme="first" if family == "metaspace" else "always",
            split=True,
        )
    tokenizer.decoder = decoders.Sequence(decode)
    if family == "metaspace":
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    if family != "phi3" and tokenizer.token_to_id(begin) is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A",
            pair=f"{begin} $A {begin} $B",
            special_tokens=[(begin, tokenizer.token_to_id(begin))],
        )


def convert(family, model):
    """Converts a tokenizer.model like `transformers`; adds the steps."""
    proto = parse(model)
    vocab = {p.piece: i for i, p in enumerate(proto.pieces)}
    scores = {p.piece: p.score for p in proto.pieces}
    tokenizer = Tokenizer(
        models.BPE(
            vocab,
            generate_merges(vocab, scores),
            unk_token=proto.trainer_spec.unk_piece,
            fuse_unk=True,
            byte_fallback=family != "no_bytes",
        )
    )
    tokenizer.add_tokens(added_tokens(family, proto))
    steps(family, tokenizer)
    return tokenizer


def train(family, vocab_size, source_files):
    return convert(family, train_model(family, vocab_size, source_files))


def config(family):
    """Returns the tokenizer_config.json beside a tokenizer.model."""
    gemma = family == "gemma"
    return json.dumps({
        "bos_token": "<bos>" if gemma else "<s>",
        "eos_token": "<eos>" if gemma else "</s>",
        "legacy": family == "llama2",
        "add_bos_token": True,
    })  # fmt: skip


def write_model(family, model, folder):
    path = Path(folder) / f"{family}.model"
    path.write_bytes(model)
    Path(f"{path}.config.json").write_text(config(family))
    return path


def write_gguf(family, model, folder):
    """Writes the same vocabulary as llama.cpp's converter does."""
    from gguf import GGUFWriter

    proto = parse(model)
    path = Path(folder) / f"{family}.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([p.piece for p in proto.pieces])
    writer.add_token_scores([p.score for p in proto.pieces])
    writer.add_token_types([p.type for p in proto.pieces])
    trainer = proto.trainer_spec
    writer.add_bos_token_id(trainer.bos_id)
    writer.add_eos_token_id(trainer.eos_id)
    writer.add_unk_token_id(trainer.unk_id)
    # llama.cpp cannot put a space in front of only the first part.
    writer.add_add_space_prefix(family == "llama2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def from_gguf(path):
    """Loads the tokenizer of a GGUF file whose model is "llama"."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    scores = fields["tokenizer.ggml.scores"].contents()
    prefix = fields.get("tokenizer.ggml.add_space_prefix")
    prefix = prefix is None or prefix.contents()
    vocab = {t: i for i, t in enumerate(tokens)}
    ordinary = {t: s for t, s, k in zip(tokens, scores, types) if k in (1, 4)}
    tokenizer = Tokenizer(
        models.BPE(vocab, generate_merges(vocab, ordinary), fuse_unk=True,
                   byte_fallback=True)
    )  # fmt: skip
    tokenizer.add_tokens(
        [
            AddedToken(t, special=k in (2, 3), normalized=False)
            for t, k in zip(tokens, types)
            if k in (2, 3, 4)
        ]
    )
    steps("llama2" if prefix else "gemma", tokenizer)
    begin = tokens[fields["tokenizer.ggml.bos_token_id"].contents()]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, vocab[begin])]
    )
    return tokenizer
