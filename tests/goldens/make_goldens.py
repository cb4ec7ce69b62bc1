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
"""

import argparse
import json
import pathlib
import tempfile

import safetensors.torch
import torch
import transformers

import families_table
import hf_oracle
from families import FAMILIES, Family
from families.family import Tensors
from golden_weights import fill
from rope import RopeNotes

GOLDENS = pathlib.Path(__file__).parent
DECODE_STEPS = 3
MAX_FOLDER_BYTES = 300_000
HOOKS = ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_z")
PARTS = ["prefill"] + [f"decode.{step}" for step in range(DECODE_STEPS)]

Prompts = dict[str, dict[str, list[int]]]


def _model_class(config: transformers.PretrainedConfig) -> type:
    """The class that config.json names."""
    return getattr(transformers, config.architectures[0])


def _load(folder: pathlib.Path) -> transformers.PreTrainedModel:
    """Plain transformers: float32, the family's own eager attention."""
    config = transformers.AutoConfig.from_pretrained(folder)
    return (
        _model_class(config)
        .from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        .eval()
    )


def _write_model(family: Family, folder: pathlib.Path) -> None:
    config_path = folder / "config.json"
    config_path.write_text(json.dumps(family.config, indent=2) + "\n")
    config = transformers.AutoConfig.from_pretrained(folder)
    model = _model_class(config)._from_config(config, dtype=torch.float32)
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


def _prompts(family: Family) -> Prompts:
    generator = torch.Generator().manual_seed(family.seed + 1000)
    vocab = family.config["vocab_size"]

    def ids(count: int) -> list[int]:
        return torch.randint(3, vocab, (count,), generator=generator).tolist()

    return {
        f"p{i}": {"ids": [1] + ids(length - 1), "decode_ids": ids(DECODE_STEPS)}
        for i, length in enumerate(family.prompt_lengths)
    }


def _passes(prompt: dict[str, list[int]]) -> list[tuple[str, list[int]]]:
    return list(
        zip(PARTS, [prompt["ids"]] + [[t] for t in prompt["decode_ids"]])
    )


def _tensors_of_pass(
    record: hf_oracle.PassRecord, prefix: str, keys: int, pattern: bool
) -> Tensors:
    """`keys`: how many keys the sequence has."""
    out = {f"{prefix}/logits": record.logits}
    for index, layer in enumerate(record.layers):
        for hook in HOOKS if layer else ():
            out[f"{prefix}/layer.{index}.{hook}"] = layer[hook]
        if layer and pattern:
            # A sliding cache has dropped the keys that are out of sight.
            probabilities = layer["hook_pattern"]
            dropped = keys - probabilities.shape[-1]
            out[f"{prefix}/layer.{index}.hook_pattern"] = (
                torch.nn.functional.pad(probabilities, (dropped, 0))
            )
    return out


def _golden(
    folder: pathlib.Path, prompts: Prompts, notes: RopeNotes
) -> Tensors:
    model = hf_oracle.load_float64(folder, hf_oracle.RECORDING_ATTENTION)
    recorder = hf_oracle.Recorder(model)
    tensors: Tensors = {}
    for name, prompt in prompts.items():
        cache = transformers.DynamicCache(config=model.config)
        keys = 0
        for part, ids in _passes(prompt):
            record = recorder.run(ids, cache)
            keys += len(ids)
            pattern = part == PARTS[-1] or (name, part) == ("p0", "prefill")
            tensors |= _tensors_of_pass(record, f"{name}/{part}", keys, pattern)
            notes.add(name, part, model)
    assert all(t.isfinite().all() for t in tensors.values())
    return {k: t.to(torch.float32).contiguous() for k, t in tensors.items()}


def _cached_logits(
    model: transformers.PreTrainedModel, prompt: dict[str, list[int]]
) -> torch.Tensor:
    cache = transformers.DynamicCache(config=model.config)
    rows = []
    for _, ids in _passes(prompt):
        with torch.no_grad():
            out = model(
                torch.tensor([ids]), past_key_values=cache, use_cache=True
            )
        rows.append(out.logits[0])
    return torch.cat(rows)


def _check_against_float32(
    family: Family, folder: pathlib.Path, prompts: Prompts, tensors: Tensors
) -> None:
    """Untouched transformers in float32 must say the same."""
    model = _load(folder)
    for name, prompt in prompts.items():
        want = torch.cat([tensors[f"{name}/{part}/logits"] for part in PARTS])
        bounds = {"rtol": 1e-4, "atol": 2e-4}
        got = _cached_logits(model, prompt)
        torch.testing.assert_close(got, want, **bounds)
        if family.rope_type == "dynamic":
            continue  # Without a cache, all keys turn as the last pass says.
        ids = prompt["ids"] + prompt["decode_ids"]
        with torch.no_grad():
            got = model(torch.tensor([ids]), use_cache=False).logits[0]
        torch.testing.assert_close(got, want, **bounds)


def _check_what_matters(
    family: Family, folder: pathlib.Path, prompts: Prompts, tensors: Tensors
) -> None:
    """A golden whose feature changes nothing would test nothing."""
    want = torch.cat([tensors[f"p1/{part}/logits"] for part in PARTS])
    for change in family.matters:
        with tempfile.TemporaryDirectory() as scratch:
            other = pathlib.Path(scratch)
            config = json.dumps(family.config | change)
            (other / "config.json").write_text(config)
            weights = (folder / "model.safetensors").read_bytes()
            (other / "model.safetensors").write_bytes(weights)
            got = _cached_logits(_load(other), prompts["p1"])
        nmse = ((got - want).square().sum() / want.square().sum()).item()
        print(f"  without {change}: NMSE {nmse:.1e}")
        assert nmse > 1e-4, change


def make(name: str, out: pathlib.Path) -> None:
    """Writes OUT/NAME."""
    family = FAMILIES[name]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    _write_model(family, folder)
    prompts = _prompts(family)
    notes = RopeNotes(family.rope_type)
    tensors = _golden(folder, prompts, notes)
    _check_against_float32(family, folder, prompts, tensors)
    _check_what_matters(family, folder, prompts, tensors)
    safetensors.torch.save_file(tensors, folder / "golden.safetensors")
    golden = {
        "model": name,
        "prompts": prompts,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        **notes.json(),
    }
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size <= MAX_FOLDER_BYTES, f"{folder} has {size} bytes"
    spread = tensors["p1/prefill/logits"].std(dim=-1).mean().item()
    last = [k for k in tensors if k.startswith("p1/pre") and "rot_q" in k][-1]
    norms = tensors[last].norm(dim=0)
    ratio = (norms / norms.mean(dim=-1, keepdim=True)).max().item()
    print(f"{name}: {size} bytes, logits std {spread:.2f}, Q ratio {ratio:.1f}")


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
    families_table.write(arguments.out / "FAMILIES.md", FAMILIES)


if __name__ == "__main__":
    main()
