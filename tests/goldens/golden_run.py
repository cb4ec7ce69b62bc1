"""One tiny model's golden: what the model computes, and whether it is right."""

import dataclasses
import json
import pathlib

import safetensors.torch
import torch
import transformers

import hf_oracle
import hf_vision
from families import Family
from families.family import Tensors
from rope import RopeNotes

DECODE_STEPS = 3
MAX_FOLDER_BYTES = 300_000
HOOKS = ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_z")
PARTS = ["prefill"] + [f"decode.{step}" for step in range(DECODE_STEPS)]


@dataclasses.dataclass
class Prompt:
    """A prompt; decode_ids are forced, one per step."""

    ids: list[int]
    decode_ids: list[int]
    images: hf_vision.Images | None = None

    def passes(self) -> list[tuple[str, list[int], dict[str, torch.Tensor]]]:
        """Returns the name, ids and other inputs of each pass."""
        steps = [[token] for token in self.decode_ids]
        return list(
            zip(
                PARTS,
                [self.ids] + steps,
                [self.inputs(self.ids)] + [{}] * len(steps),
            )
        )

    def inputs(self, ids: list[int]) -> dict[str, torch.Tensor]:
        return self.images.inputs(ids) if self.images else {}


Prompts = dict[str, Prompt]


def load(folder: pathlib.Path) -> transformers.PreTrainedModel:
    """Loads plain transformers: float32, the family's own eager attention."""
    config = transformers.AutoConfig.from_pretrained(folder)
    return (
        hf_oracle.model_class(config)
        .from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        .eval()
    )


def make_prompts(family: Family) -> Prompts:
    """Makes random ids; the first is 1."""
    generator = torch.Generator().manual_seed(family.seed + 1000)

    def random_ids(count: int) -> list[int]:
        shape = (count,)
        return torch.randint(
            3, family.text_ids, shape, generator=generator
        ).tolist()

    prompts = {}
    for index, length in enumerate(family.prompt_lengths):
        ids = [1] + random_ids(length - 1)
        decode_ids = random_ids(DECODE_STEPS)
        ids, images = hf_vision.make_images(family, index, ids, generator)
        prompts[f"p{index}"] = Prompt(ids, decode_ids, images)
    return prompts


def _tensors_of_pass(
    record: hf_oracle.PassRecord, prefix: str, keys: int, pattern: bool
) -> Tensors:
    """`keys`: how many keys the sequence has."""
    out = {f"{prefix}/logits": record.logits}
    for index, layer in enumerate(record.layers):
        for hook in HOOKS if layer else ():
            out[f"{prefix}/layer.{index}.{hook}"] = layer[hook]
        if layer and pattern:
            # A sliding cache has dropped the keys outside the window.
            probabilities = layer["hook_pattern"]
            dropped = keys - probabilities.shape[-1]
            out[f"{prefix}/layer.{index}.hook_pattern"] = (
                torch.nn.functional.pad(probabilities, (dropped, 0))
            )
    return out


def _inputs_of_images(name: str, prompt: Prompt) -> Tensors:
    return {
        f"{name}/pixel_values": prompt.images.pixel_values,
        f"{name}/image_grid_thw": prompt.images.image_grid_thw,
    }


def golden(folder: pathlib.Path, prompts: Prompts, notes: RopeNotes) -> Tensors:
    """Returns golden.safetensors' tensors for the model in `folder`."""
    model = hf_oracle.load_float64(folder, hf_oracle.RECORDING_ATTENTION)
    recorder = hf_oracle.Recorder(model)
    vision = None
    if any(prompt.images for prompt in prompts.values()):
        vision = hf_vision.VisionRecorder(model)
    tensors: Tensors = {}
    for name, prompt in prompts.items():
        cache = transformers.DynamicCache(config=model.config)
        keys = 0
        for part, ids, inputs in prompt.passes():
            record = recorder.run(ids, cache, **inputs)
            keys += len(ids)
            pattern = part == PARTS[-1] or (name, part) == ("p0", "prefill")
            tensors |= _tensors_of_pass(record, f"{name}/{part}", keys, pattern)
            notes.add(name, part, model)
            if vision:
                tensors |= vision.take(f"{name}/{part}")
    if vision:
        vision.close()
    assert all(t.isfinite().all() for t in tensors.values())
    tensors = {
        k: t.to(torch.float32) if t.is_floating_point() else t
        for k, t in tensors.items()
    }
    for name, prompt in prompts.items():
        tensors |= _inputs_of_images(name, prompt) if prompt.images else {}
    return {k: t.contiguous() for k, t in tensors.items()}


def cached_logits(
    model: transformers.PreTrainedModel, prompt: Prompt
) -> torch.Tensor:
    cache = transformers.DynamicCache(config=model.config)
    rows = []
    for _, ids, inputs in prompt.passes():
        with torch.no_grad():
            out = model(
                torch.tensor([ids]),
                past_key_values=cache,
                use_cache=True,
                **inputs,
            )
        rows.append(out.logits[0])
    return torch.cat(rows)


def check_against_float32(
    folder: pathlib.Path, prompts: Prompts, tensors: Tensors, rope_type: str
) -> None:
    """Checks that unpatched transformers in float32 gives the same."""
    model = load(folder)
    for name, prompt in prompts.items():
        want = torch.cat([tensors[f"{name}/{part}/logits"] for part in PARTS])
        bounds = {"rtol": 1e-4, "atol": 2e-4}
        got = cached_logits(model, prompt)
        torch.testing.assert_close(got, want, **bounds)
        if rope_type == "dynamic":
            continue  # Without a cache, all keys turn as the last pass says.
        ids = prompt.ids + prompt.decode_ids
        with torch.no_grad():
            got = model(
                torch.tensor([ids]), use_cache=False, **prompt.inputs(ids)
            ).logits[0]
        torch.testing.assert_close(got, want, **bounds)


def write(
    folder: pathlib.Path, prompts: Prompts, tensors: Tensors, notes: dict
) -> None:
    """Writes golden.safetensors and golden.json, which has `notes` too."""
    safetensors.torch.save_file(tensors, folder / "golden.safetensors")
    golden = {
        "model": folder.name,
        "prompts": {
            name: {"ids": prompt.ids, "decode_ids": prompt.decode_ids}
            for name, prompt in prompts.items()
        },
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
    layers = [k for k in tensors if k.startswith("p1/prefill/layer")]
    last = [k for k in layers if k.endswith("hook_rot_q")][-1]
    norms = tensors[last].norm(dim=0)
    ratio = (norms / norms.mean(dim=-1, keepdim=True)).max().item()
    print(
        f"{folder.name}: {size} bytes, logits std {spread:.2f},"
        f" Q ratio {ratio:.1f}"
    )
