"""Makes added_tokens.json: which ids AutoTokenizer gives where a token stands in
one of the files beside the vocabulary.

Needs transformers and sentencepiece (made with transformers 5.24.0):

    python make_added_token_goldens.py

Every case has the files of a folder (tokenizer.model in Base64), and for some
texts the ids with special tokens parsed and none added.
"""

import base64
import json
import pathlib
import tempfile

import spm
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXTS = ["a <x> b<y>c", "<x><x> the <z>", "plain text, no token", "</s><s> <y> x",
         "e\u0301 12345 It'S  fine\n\n x"]
FLAGS = dict(single_word=False, lstrip=False, rstrip=False, normalized=False,
             special=True)  # fmt: skip


def token(content, **flags):
    return {"content": content, **FLAGS, **flags}


def byte_level(extra=()):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", *extra],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the plain text and other texts of the test"] * 9,
                                  trainer)  # fmt: skip
    return tokenizer


def from_json(extra, added):
    parts = json.loads(byte_level(extra).to_str())
    parts["added_tokens"] = [t for t in parts["added_tokens"] if added]
    return {"tokenizer.json": json.dumps(parts)}, "PreTrainedTokenizerFast"


def from_vocab(extra, added):
    parts = json.loads(byte_level(extra).to_str())["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in parts["merges"]]
    return {"vocab.json": json.dumps(parts["vocab"]),
            "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n"}, "GPT2Tokenizer"  # fmt: skip


def from_qwen(extra, added):
    contents, _ = from_vocab(extra, added)
    return contents, "Qwen2Tokenizer"


def from_model(extra, added):
    model = (pathlib.Path(__file__).parent / "mistral3.model").read_bytes()
    if extra:
        proto = spm.parse(model)
        for name in extra:
            piece = next(p for p in proto.pieces if p.piece == "[INST]")
            piece.piece = name
        model = proto.SerializeToString()
    return {"tokenizer.model": base64.b64encode(model).decode()}, "LlamaTokenizer"


def count_tokens(contents):
    if "tokenizer.model" in contents:
        return len(spm.parse(base64.b64decode(contents["tokenizer.model"])).pieces)
    if "vocab.json" in contents:
        return len(json.loads(contents["vocab.json"]))
    return len(json.loads(contents["tokenizer.json"])["model"]["vocab"])


# Where the tokens stand: the config's members, and other files.
def places(first, second):
    """ids: what an author would write for <x> and <y>."""
    x, y = token("<x>"), token("<y>", special=False, normalized=True)
    yield "decoder", {"added_tokens_decoder": {str(first): x, str(second): y}}, {}
    yield "decoder_swapped", {"added_tokens_decoder": {str(second): x, str(first): y}}, {}
    yield "decoder_strips", {"added_tokens_decoder": {
        str(first): token("<x>", lstrip=True, rstrip=True)}}, {}  # fmt: skip
    yield "decoder_and_names", {
        "added_tokens_decoder": {str(first): token("<x>", special=False)},
        "eos_token": "<x>", "pad_token": "<y>"}, {}  # fmt: skip
    yield "added_tokens", {}, {"added_tokens.json": {"<x>": first, "<y>": second}}
    yield "added_tokens_named", {"eos_token": "<y>"}, {
        "added_tokens.json": {"<x>": first, "<y>": second}}  # fmt: skip
    yield "added_tokens_beside_decoder", {"added_tokens_decoder": {str(first): x}}, {
        "added_tokens.json": {"<y>": second}}  # fmt: skip
    yield "map", {}, {"special_tokens_map.json": {"eos_token": "<x>", "mask_token": "<y>"}}
    yield "map_objects", {}, {"special_tokens_map.json": {
        "eos_token": token("<x>", lstrip=True), "pad_token": token("<y>")}}  # fmt: skip
    yield "map_beside_decoder", {"added_tokens_decoder": {str(first): x}}, {
        "special_tokens_map.json": {"eos_token": "<y>"}}  # fmt: skip
    yield "map_and_added_tokens", {}, {
        "special_tokens_map.json": {"eos_token": "<x>"},
        "added_tokens.json": {"<y>": first, "<x>": second}}  # fmt: skip
    yield "names", {"bos_token": "<y>", "eos_token": "<x>"}, {}
    yield "additional", {"additional_special_tokens": ["<y>", "<x>"]}, {}
    yield "extra", {"extra_special_tokens": ["<y>", "<x>", "<z>"]}, {}
    yield "extra_names", {"extra_special_tokens": {"one": "<y>", "two": "<x>"}}, {}
    yield "own_name", {"image_token": "<x>", "pad_token": "<y>"}, {}


def make_case(kind, maker, inside, name, config, files):
    extra = ["<x>"] if inside else []
    contents, class_name = maker(extra, added=False)
    contents = dict(contents)
    contents["tokenizer_config.json"] = json.dumps(
        {"tokenizer_class": class_name, **config})  # fmt: skip
    for file, value in files.items():
        contents[file] = json.dumps(value)
    with tempfile.TemporaryDirectory() as folder:
        for file, text in contents.items():
            path = pathlib.Path(folder) / file
            if file == "tokenizer.model":
                path.write_bytes(base64.b64decode(text))
            else:
                path.write_text(text)
        (pathlib.Path(folder) / "config.json").write_text('{"model_type": "llama"}')
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        texts = [{"text": t,
                  "ids": tokenizer(t, add_special_tokens=False)["input_ids"]}
                 for t in TEXTS]  # fmt: skip
        eos = tokenizer.eos_token_id
    return {"name": f"{kind}_{'inside' if inside else 'past'}_{name}",
            "files": contents, "eos": eos, "texts": texts}  # fmt: skip


def main():
    transformers.logging.set_verbosity_error()
    cases = []
    vocabularies = {}
    for kind, maker in [("json", from_json), ("vocab", from_vocab),
                        ("qwen", from_qwen), ("model", from_model)]:  # fmt: skip
        for inside in (True, False):
            contents, _ = maker(["<x>"] if inside else [], added=False)
            size = count_tokens(contents)
            for name, config, files in places(size, size + 1):
                cases.append(make_case(kind, maker, inside, name, config, files))
                for file in ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"):
                    text = cases[-1]["files"].pop(file, None)
                    if text is None:
                        continue
                    key = f"{kind}_{'inside' if inside else 'past'}"
                    vocabularies.setdefault(key, {})[file] = text
                cases[-1]["vocabulary"] = f"{kind}_{'inside' if inside else 'past'}"
    path = pathlib.Path(__file__).parent / "added_tokens.json"
    path.write_text(json.dumps({"vocabularies": vocabularies, "cases": cases},
                               indent=0, sort_keys=True) + "\n")  # fmt: skip


if __name__ == "__main__":
    main()
