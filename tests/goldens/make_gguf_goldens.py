"""GGUF files of tiny models, made by llama.cpp's own converter.

    python tests/goldens/make_gguf_goldens.py LLAMA_CPP [NAME ...]

LLAMA_CPP is a checkout of llama.cpp (its `conversion` and `gguf-py`). Writes
gguf/NAME/model.gguf, without a vocabulary:

NAME of families/gguf.py
    with golden.json and golden.safetensors beside it, as make_goldens.py's
    folders have them, of the Hugging Face model that was converted

other NAMEs
    of the model in the folder NAME, whose golden is the file's too
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile

import safetensors.torch
import torch
import transformers

import golden_run
import make_goldens
from families.gguf import GGUF_FAMILIES
from rope import RopeNotes

GOLDENS = pathlib.Path(__file__).parent
OUT = GOLDENS / "gguf"
MAX_BYTES = 300_000
# The folders whose config.json GGUF can describe fully.
CONVERTED = (
    "tiny_llama_gqa",
    "tiny_llama3_rope",
    "tiny_llama_headdim",
    "tiny_llama_linear",
    "tiny_llama_tied",
    "tiny_llama_yarn",
    "tiny_qwen2",
    "tiny_qwen3",
    "tiny_phi3",
    "tiny_phi3_longrope",
    "tiny_phi3_partial",
    "tiny_gpt2",
)


def convert(folder: pathlib.Path, out: pathlib.Path, kind: str) -> None:
    """Does what convert_hf_to_gguf.py does, except for the vocabulary."""
    import gguf
    from conversion import ModelBase, ModelType
    from conversion import get_model_architecture, get_model_class

    # Some classes read names that transformers 5 has renamed.
    hparams = json.loads((folder / "config.json").read_text())
    hparams |= ModelBase.load_hparams(folder, False)
    base = get_model_class(get_model_architecture(hparams, ModelType.TEXT))

    class WithoutVocabulary(base):
        model_arch = base.model_arch

        def set_vocab(self):
            pass

    types = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    with torch.inference_mode():
        WithoutVocabulary(
            folder,
            types[kind],
            out,
            hparams=hparams,
            model_name=out.parent.name,
        ).write()
    out.chmod(0o644)
    assert out.stat().st_size < MAX_BYTES, out


def converted_copy(folder: pathlib.Path, out: pathlib.Path, kind: str) -> None:
    """Converts a copy that the converter can read.

    GPT-2's class tries to leave out the masks but fails on them; Gemma 3's
    class counts the tokens of tokenizer.json.
    """
    config = json.loads((folder / "config.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        copy = pathlib.Path(scratch)
        shutil.copy(folder / "config.json", copy)
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        masks = (".attn.bias", ".attn.masked_bias")
        tensors = {k: t for k, t in tensors.items() if not k.endswith(masks)}
        safetensors.torch.save_file(tensors, copy / "model.safetensors")
        vocab = {str(i): i for i in range(config["vocab_size"])}
        tokenizer = {"model": {"vocab": vocab}, "added_tokens": []}
        (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
        out.parent.mkdir(parents=True, exist_ok=True)
        convert(copy, out, kind)


def make(name: str) -> None:
    out = OUT / name / "model.gguf"
    if name in CONVERTED:
        converted_copy(GOLDENS / name, out, "f32")
        return
    family, kind = GGUF_FAMILIES[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        make_goldens.write_model(family, folder)
        prompts = golden_run.make_prompts(family)
        notes = RopeNotes(family.rope_type)
        tensors = golden_run.golden(folder, prompts, notes)
        golden_run.check_against_float32(
            folder, prompts, tensors, family.rope_type
        )
        converted_copy(folder, out, kind)
    golden_run.write(out.parent, prompts, tensors, notes.json())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("llama_cpp", type=pathlib.Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    for path in (arguments.llama_cpp / "gguf-py", arguments.llama_cpp):
        sys.path.insert(0, str(path))
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for name in arguments.names or [*CONVERTED, *GGUF_FAMILIES]:
        make(name)


if __name__ == "__main__":
    main()
