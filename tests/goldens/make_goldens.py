"""Makes tiny random models and what they compute, in float64 by transformers.

    python tests/goldens/make_goldens.py tiny_llama_gqa tiny_qwen2 ...
    python tests/goldens/make_goldens.py --all
    python tests/goldens/make_goldens.py --table      (FAMILIES.md alone)

The models are described in families/. Layout of each folder OUT/NAME/:

config.json, model.safetensors
    A Hugging Face model folder, fields and tensor names as published
    checkpoints have them. RoPE is Hugging Face's half-rotation: of the R
    rotated dims, dim i turns with dim i + R / 2.

golden.json
    model     the folder's name
    prompts   {"p0": {"ids": [13 ids], "decode_ids": [3 ids]},
               "p1": {"ids": [70 ids], "decode_ids": [3 ids]}}
              decode_ids are forced: decode step S appends decode_ids[S] at
              position len(ids) + S, whatever the logits say.
    versions  of the libraries that made it
    notes     if RoPE's frequencies depend on the sequence: which ones each pass
              used (rope.py)

golden.safetensors
    F32, rounded once from the float64 run. P is p0 or p1, T its tokens, N the
    layer from 0 (those without attention have no tensors), H query heads, G KV
    heads (never expanded), D head_dim; heads in the model's order.

    P/prefill/logits                          (T, vocab)
    P/prefill/layer.N.hook_q                  (T, H, D)  the projection's output,
    P/prefill/layer.N.hook_k                  (T, G, D)    bias included, before
    P/prefill/layer.N.hook_v                  (T, G, D)    any norm and RoPE
    P/prefill/layer.N.hook_rot_q              (T, H, D)  as QK^T has them, after
    P/prefill/layer.N.hook_rot_k              (T, G, D)    norm and RoPE, not yet
                                                           scaled
    P/prefill/layer.N.hook_z                  (T, H, D)  before o_proj
    p0/prefill/layer.N.hook_pattern           (T, H, T)  p0 only
    P/decode.S/logits                         (1, vocab) S = 0, 1, 2
    P/decode.S/layer.N.hook_*                 (1, ...)   the same six
    P/decode.2/layer.N.hook_pattern           (1, H, T + 3) the last step only

    Row t of logits is the distribution after token t.

    If prompts have images, hf_vision.py describes the additional tensors.
"""

import argparse
import json
import pathlib
import shutil
import tempfile

import safetensors.torch
import torch
import transformers

import families_table
import golden_run
import hf_oracle
from families import FAMILIES, Family
from families.family import Tensors
from golden_weights import fill
from rope import RopeNotes

GOLDENS = pathlib.Path(__file__).parent


def write_model(family: Family, folder: pathlib.Path) -> None:
    config_path = folder / "config.json"
    config_path.write_text(json.dumps(family.config, indent=2) + "\n")
    config = transformers.AutoConfig.from_pretrained(folder)
    model = hf_oracle.model_class(config)._from_config(
        config, dtype=torch.float32
    )
    fill(model, torch.Generator().manual_seed(family.seed))
    model.tie_weights()
    path = folder / "model.safetensors"
    with tempfile.TemporaryDirectory() as scratch:
        model.to(family.dtype).save_pretrained(scratch)
        saved = pathlib.Path(scratch) / path.name
        if family.stored is None:
            path.write_bytes(saved.read_bytes())
        else:
            tensors = family.stored(safetensors.torch.load_file(saved))
            tensors = {k: t.contiguous() for k, t in tensors.items()}
            safetensors.torch.save_file(tensors, path, {"format": "pt"})


def _check_what_matters(
    family: Family,
    folder: pathlib.Path,
    prompts: golden_run.Prompts,
    tensors: Tensors,
) -> None:
    """Checks that each feature matters; else its golden tests nothing."""
    want = torch.cat(
        [tensors[f"p1/{part}/logits"] for part in golden_run.PARTS]
    )
    for change in family.matters:
        with tempfile.TemporaryDirectory() as scratch:
            other = pathlib.Path(scratch)
            config = json.dumps(family.config | change)
            (other / "config.json").write_text(config)
            weights = (folder / "model.safetensors").read_bytes()
            (other / "model.safetensors").write_bytes(weights)
            got = golden_run.cached_logits(
                golden_run.load(other), prompts["p1"]
            )
        nmse = ((got - want).square().sum() / want.square().sum()).item()
        print(f"  without {change}: NMSE {nmse:.1e}")
        assert nmse > 1e-4, change


def make(name: str, out: pathlib.Path) -> None:
    """Writes OUT/NAME once all checks have passed."""
    family = FAMILIES[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / name
        folder.mkdir()
        write_model(family, folder)
        prompts = golden_run.make_prompts(family)
        notes = RopeNotes(family.rope_type)
        tensors = golden_run.golden(folder, prompts, notes)
        golden_run.check_against_float32(
            folder, prompts, tensors, family.rope_type
        )
        _check_what_matters(family, folder, prompts, tensors)
        golden_run.write(folder, prompts, tensors, notes.json())
        shutil.copytree(folder, out / name, dirs_exist_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=GOLDENS)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=", ".join(FAMILIES)
    )
    arguments = parser.parse_args()
    names = list(FAMILIES) if arguments.all else arguments.names
    if unknown := set(names) - set(FAMILIES):
        parser.error(f"no golden {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for name in names:
        make(name, arguments.out)
    families_table.write(arguments.out / "FAMILIES.md")


if __name__ == "__main__":
    main()
