"""One tiny model's golden: what it computes, and whether that is right."""

import json
import pathlib

import safetensors.torch
import torch
import transformers

import hf_oracle
from families import Family
from families.family import Tensors
from rope import RopeNotes

DECODE_STEPS = 3
MAX_FOLDER_BYTES = 300_000
HOOKS = ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_z")
PARTS = ["prefill"] + [f"decode.{step}" for step in range(DECODE_STEPS)]

Prompts = dict[str, dict[str, list[int]]]


def load(folder: pathlib.Path) -> transformers.PreTrainedModel:
    """Plain transformers: float32, the family's own eager attention."""
    config = transformers.AutoConfig.from_pretrained(folder)
    return (
        hf_oracle.model_class(config)
        .from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        .eval()
    )


def make_prompts(family: Family) -> Prompts:
    """Random ids; the first is 1."""
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


def golden(folder: pathlib.Path, prompts: Prompts, notes: RopeNotes) -> Tensors:
    """golden.safetensors' tensors, for the model in `folder`."""
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


def cached_logits(
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


def check_against_float32(
    folder: pathlib.Path, prompts: Prompts, tensors: Tensors, rope_type: str
) -> None:
    """Untouched transformers in float32 must say the same."""
    model = load(folder)
    for name, prompt in prompts.items():
        want = torch.cat([tensors[f"{name}/{part}/logits"] for part in PARTS])
        bounds = {"rtol": 1e-4, "atol": 2e-4}
        got = cached_logits(model, prompt)
        torch.testing.assert_close(got, want, **bounds)
        if rope_type == "dynamic":
            continue  # Without a cache, all keys turn as the last pass says.
        ids = prompt["ids"] + prompt["decode_ids"]
        with torch.no_grad():
            got = model(torch.tensor([ids]), use_cache=False).logits[0]
        torch.testing.assert_close(got, want, **bounds)


def write(
    folder: pathlib.Path, prompts: Prompts, tensors: Tensors, notes: dict
) -> None:
    """Writes golden.safetensors and golden.json, which has `notes` too."""
    safetensors.torch.save_file(tensors, folder / "golden.safetensors")
    golden = {
        "model": folder.name,
        "prompts": prompts,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        **notes,
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
    print(
        f"{folder.name}: {size} bytes, logits std {spread:.2f},"
        f" Q ratio {ratio:.1f}"
    )
