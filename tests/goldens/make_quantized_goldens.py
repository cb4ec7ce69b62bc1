"""Makes tiny AWQ and GPTQ checkpoints and what they compute.

    python tests/goldens/make_quantized_goldens.py tiny_awq_g32 ...
    python tests/goldens/make_quantized_goldens.py --all

Each folder is laid out as make_goldens.py says, except:

model.safetensors
    The linear layers of the blocks as quantize.py describes; everything else
    F16.

golden.safetensors
    What transformers computes in float64 with the dequantised weights.

dequantized.safetensors
    MODULE.weight (out, in) F32, exact. Where they are too many bytes: only
    those of k_proj and v_proj.

golden.json
    notes.dequantized_crc32c  {MODULE: CRC-32C of its F32 weights' bytes}, for
                              every quantised module
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np
import safetensors.torch
import torch
import transformers

import golden_run
import quantize
from families import Family
from families.quantized import QUANTIZED, Case
from golden_weights import fill
from rope import RopeNotes

GOLDENS = pathlib.Path(__file__).parent
# A model with more bytes than this stores only some dequantised weights.
MAX_DEQUANTIZED_BYTES = 150_000


def _quantize(
    case: Case, weight: np.ndarray, random: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the stored tensors of one linear layer and its weights (O, I)."""
    size = case.quantization["group_size"]
    inputs = weight.shape[1]
    group = quantize.groups_in_order(inputs, size)
    if case.quantization.get("desc_act"):
        group = quantize.groups_by_activation(inputs, size, random)
    symmetric = case.quantization.get("sym", False)
    linear = quantize.quantize(weight, group, symmetric)
    awq = case.quantization["quant_method"] == "awq"
    pack = quantize.pack_awq if awq else quantize.pack_gptq
    stored = pack(linear)
    if case.zero_biases:
        stored["bias"] = np.zeros(weight.shape[0], dtype=np.float16)
    return stored, linear.weight()


def _write_model(case: Case, folder: pathlib.Path, plain: pathlib.Path) -> dict:
    """Writes the checkpoint, and the same model dequantised to `plain`.

    Returns the dequantised weights by name.
    """
    config_json = json.dumps(case.config, indent=2)
    (plain / "config.json").write_text(config_json)
    config = transformers.AutoConfig.from_pretrained(plain)
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32
    )
    fill(model, torch.Generator().manual_seed(case.seed))
    model.tie_weights()
    model.save_pretrained(plain)
    (plain / "config.json").write_text(config_json)
    weights = safetensors.torch.load_file(plain / "model.safetensors")
    random = np.random.default_rng(case.seed)
    stored, dequantized = {}, {}
    for name, weight in weights.items():
        if name.endswith("_proj.weight"):
            module = name.removesuffix(".weight")
            parts, values = _quantize(case, weight.numpy(), random)
            for part, tensor in parts.items():
                stored[f"{module}.{part}"] = torch.from_numpy(tensor)
            dequantized[name] = torch.from_numpy(values)
        else:
            stored[name] = weight.half()
    exact = {n: t.float() for n, t in stored.items() if n in weights}
    safetensors.torch.save_file(
        exact | dequantized, plain / "model.safetensors", {"format": "pt"}
    )
    safetensors.torch.save_file(
        {n: t.contiguous() for n, t in stored.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    quantized = case.config | {"quantization_config": case.quantization}
    (folder / "config.json").write_text(json.dumps(quantized, indent=2) + "\n")
    return dequantized


def make(name: str, out: pathlib.Path) -> None:
    """Writes OUT/NAME."""
    case = QUANTIZED[name]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    family = Family(
        case.config, case.seed, covers="", prompt_lengths=case.prompt_lengths
    )
    prompts = golden_run.make_prompts(family)
    with tempfile.TemporaryDirectory() as scratch:
        plain = pathlib.Path(scratch)
        dequantized = _write_model(case, folder, plain)
        tensors = golden_run.golden(plain, prompts, RopeNotes("default"))
        golden_run.check_against_float32(plain, prompts, tensors, "default")
    checksums = {
        module.removesuffix(".weight"): quantize.crc32c(t.numpy().tobytes())
        for module, t in dequantized.items()
    }
    if sum(t.nbytes for t in dequantized.values()) > MAX_DEQUANTIZED_BYTES:
        kept = ("k_proj.weight", "v_proj.weight")
        dequantized = {n: t for n, t in dequantized.items() if n.endswith(kept)}
    safetensors.torch.save_file(dequantized, folder / "dequantized.safetensors")
    notes = {"notes": {"dequantized_crc32c": checksums}}
    golden_run.write(folder, prompts, tensors, notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=GOLDENS)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    names = list(QUANTIZED) if arguments.all else arguments.names
    if unknown := set(names) - set(QUANTIZED):
        parser.error(f"no golden {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for name in names:
        make(name, arguments.out)


if __name__ == "__main__":
    main()
