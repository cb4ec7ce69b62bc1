"""Makes the models of the study `quantization` from one GGUF file.

    python docs/studies/quantized_smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf FOLDER

The file's own weights, dequantised, are the full model: what SmolLM2's makers
published in bf16 was rounded to Q4_1 before. From them, each rounded to the
nearest value that its format has, without calibration:

  full.gguf                      F16
  q8_0.gguf, q5_0.gguf, q4_0.gguf    GGUF types, embeddings and LM head included
  awq_4bit/, gptq_4bit/          layers of linear weights, groups of 64 inputs
  gptq_3bit/, gptq_2bit/         the same with 8 and 4 of the 16 values

Needs torch, transformers, gguf and safetensors.
"""

import json
import pathlib
import subprocess
import sys

import gguf
import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "goldens"), str(ROOT / "tests" / "bench")]

from quantize import (Quantized, groups_in_order, pack_awq,  # noqa: E402
                      pack_gptq)
from transformers_peer import load  # noqa: E402

GROUP = 64  # hidden sizes 576 and 1,536 are no multiples of 128


def rounded(weight, bits):
    """The weight (out, in) on 2 ** bits equidistant values per group."""
    group = groups_in_order(weight.shape[1], GROUP)
    levels = 2 ** bits - 1
    parts = weight.reshape(weight.shape[0], -1, GROUP)
    low, high = np.minimum(parts.min(2), 0).T, np.maximum(parts.max(2), 0).T
    scales = ((high - low) / levels).astype(np.float16)
    wide = np.where(scales == 0, 1, scales).astype(np.float32)
    zeros = np.clip(np.rint(-low / wide), 1, levels).astype(np.int64)
    q = np.rint(weight.T / wide[group]) + zeros[group]
    return Quantized(np.clip(q, 0, levels).astype(np.int64), zeros, scales,
                     group)


def write_checkpoint(model, tokenizer, folder, method, bits):
    """A folder as AutoAWQ or AutoGPTQ writes it."""
    folder.mkdir()
    tensors = {}
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        if not (name.startswith("model.layers.") and values.ndim == 2):
            tensors[name] = values.astype(np.float16)
            continue
        pack = pack_awq if method == "awq" else pack_gptq
        prefix = name.removesuffix("weight")
        for part, packed in pack(rounded(values, bits)).items():
            tensors[prefix + part] = np.ascontiguousarray(packed)
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {name: value for name, value in model.config.to_dict().items()
              if not name.startswith("_")}
    config["architectures"] = ["LlamaForCausalLM"]
    config["quantization_config"] = {
        "quant_method": method, "bits": 4, "group_size": GROUP,
        **({"zero_point": True, "version": "gemm"} if method == "awq"
           else {"sym": False, "desc_act": False})}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    tokenizer.save_pretrained(folder)


def write_gguf(source, target, kind):
    """The GGUF file with all of its matrices in one type."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(
        target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in (
                "general.architecture", "general.file_type"):
            continue
        value_type = field.types[0]
        writer.add_key_value(
            field.name, field.contents(), value_type,
            field.types[-1] if value_type == gguf.GGUFValueType.ARRAY
            else None)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values.astype(np.float32))
            continue
        writer.add_tensor(tensor.name, gguf.quantize(values, kind),
                          raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    source, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, ROOT / "tests/bench/dense_gguf.py", source,
                    folder / "full.gguf"], check=True)
    for kind in ("Q8_0", "Q5_0", "Q4_0"):
        write_gguf(folder / "full.gguf", folder / f"{kind.lower()}.gguf",
                   gguf.GGMLQuantizationType[kind])
    path = pathlib.Path(source)
    model = load(path, torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(path.parent), gguf_file=path.name)
    for method, bits in (("awq", 4), ("gptq", 4), ("gptq", 3), ("gptq", 2)):
        write_checkpoint(model, tokenizer, folder / f"{method}_{bits}bit",
                         method, bits)


if __name__ == "__main__":
    main()
