"""Models for the tests of the bridges: tiny_llama_gqa with a tokenizer, as both
qkscoped and transformers load it."""

import json
import pathlib
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from byte_tokenizer import byte_tokenizer  # pylint: disable=wrong-import-position

BARE = ROOT / "tests" / "goldens" / "tiny_llama_gqa"
BOS, EOS = "<s>", "</s>"
# GPT-2's alphabet writes the space and the line feed so.
PIECES = ["<pad>", BOS, EOS, "Ġ", "Ċ", *"abcdefghijklmnopqrstuvwxyz",
          *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"0123456789.,:?!'\"-+",
          "th", "Ġa", "in", "Ġth", "an", "Ġthe", *"()[]{}<>=/\\;_*&"]
MERGES = ["t h", "Ġ a", "i n", "Ġ th", "a n", "Ġth e"]
TEMPLATE = ("{% for m in messages %}<s>{{ m.role }}: {{ m.content | trim }}"
            "</s>{% endfor %}{% if add_generation_prompt %}<s>bot: {% endif %}")


def make_text_model(folder, bos=True, context=256, named_bos=True,
                    template=True):
    """Makes a model's folder. bos: its tokenizer puts BOS before a text.
    named_bos: tokenizer_config.json names it."""
    folder.mkdir(parents=True)
    shutil.copy(BARE / "model.safetensors", folder)
    config = json.loads((BARE / "config.json").read_text())
    config["max_position_embeddings"] = context
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = byte_tokenizer(PIECES, MERGES)
    tokenizer["added_tokens"] = [
        {"id": PIECES.index(text), "content": text, "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": False,
         "special": True} for text in ("<pad>", BOS, EOS)]
    # What the package tokenizers asks for.
    tokenizer["decoder"].update(add_prefix_space=True, trim_offsets=True,
                                use_regex=True)
    if bos:
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BOS, "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BOS: {"id": BOS, "ids": [1], "tokens": [BOS]}}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS,
             "clean_up_tokenization_spaces": False}
    if named_bos:
        words["bos_token"] = BOS
    if template:
        words["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    return folder
