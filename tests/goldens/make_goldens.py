"""Makes tiny random models and what they compute, in float64 by transformers.

    python tests/goldens/make_goldens.py --out tests/goldens tiny_llama_gqa ...
    python tests/goldens/make_goldens.py --out tests/goldens all

Layout of each folder OUT/NAME/:

config.json, model.safetensors
    A Hugging Face model folder; all weights F32. RoPE is Hugging Face's
    half-rotation: dim i turns with dim i + head_dim / 2.

golden.json
    model     the folder's name
    prompts   {"p0": {"ids": [13 ids], "decode_ids": [3 ids]},
               "p1": {"ids": [70 ids], "decode_ids": [3 ids]}}
              decode_ids are forced: decode step S appends decode_ids[S] at
              position len(ids) + S, whatever the logits say.
    versions  of the libraries that made it

golden.safetensors
    F32, rounded once from the float64 run. P is p0 or p1, T its tokens, N the
    layer from 0, H query heads, G KV heads (never expanded), D head_dim; heads
    in the model's order.

    P/prefill/logits                          (T, vocab)
    P/prefill/layer.N.hook_q                  (T, H, D)  q_proj's output
    P/prefill/layer.N.hook_k                  (T, G, D)  k_proj's output
    P/prefill/layer.N.hook_v                  (T, G, D)  v_proj's output
    P/prefill/layer.N.hook_rot_q              (T, H, D)  after RoPE
    P/prefill/layer.N.hook_rot_k              (T, G, D)  after RoPE
    P/prefill/layer.N.hook_z                  (T, H, D)  before o_proj
    p0/prefill/layer.N.hook_pattern           (T, H, T)  p0 only
    P/decode.S/logits                         (1, vocab) S = 0, 1, 2
    P/decode.S/layer.N.hook_*                 (1, ...)   the same six
    P/decode.2/layer.N.hook_pattern           (1, H, T + 3) the last step only

    Row t of logits is the distribution after token t.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable

import safetensors.torch
import torch
import transformers

import hf_oracle

VOCAB = 97
PROMPT_LENGTHS = {"p0": 13, "p1": 70}  # p1 crosses a 64-position tile.
DECODE_STEPS = 3
MAX_FOLDER_BYTES = 300_000
HOOKS = ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_z")


def _llama(**changes) -> transformers.LlamaConfig:
    fields = dict(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=53,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    fields.update(changes)
    return transformers.LlamaConfig(**fields)


def _fill_llama(
    model: transformers.PreTrainedModel, generator: torch.Generator
) -> None:
    """Random weights with massive values in Q and K.

    The embeddings share a component, so that Q and K have means that are not 0;
    two dims of each head, in the low-frequency half of the RoPE pairs, are
    scaled up, the same in all heads, as the paper found (section 3).
    """

    def normal(shape: torch.Size, scale: float) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    config = model.config
    head_dim = config.head_dim
    gains = torch.ones(head_dim)
    gains[head_dim // 2 - 1] = 4.0
    gains[head_dim - 2] = 2.5
    for name, weight in model.named_parameters():
        if "norm" in name:
            value = 1.0 + normal(weight.shape, 0.2)
        elif name.endswith("embed_tokens.weight"):
            value = normal(weight.shape, 0.7)
            value += normal(weight.shape[1:], 0.7)
            value *= 0.5 if config.tie_word_embeddings else 1.0
        elif name.endswith("lm_head.weight"):
            value = normal(weight.shape, 0.4)
        else:
            value = normal(weight.shape, weight.shape[1] ** -0.5)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            value *= gains.repeat(weight.shape[0] // head_dim)[:, None] * 0.6
        weight.data = value


def _hub_rope_style(config: dict) -> None:
    """Writes RoPE as published Llama checkpoints have it."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope


def _transformers5_style(config: dict) -> None:
    """Leaves `rope_parameters`, as transformers 5 saves it."""


@dataclasses.dataclass(frozen=True)
class Family:
    """How to make one tiny model.

    config: makes the configuration. fill: sets every weight. edit: last changes
    to config.json's fields, applied before the golden run reads the folder.
    """

    config: Callable[[], transformers.PretrainedConfig]
    fill: Callable[[transformers.PreTrainedModel, torch.Generator], None]
    edit: Callable[[dict], None]
    seed: int


FAMILIES = {
    "tiny_llama_gqa": Family(_llama, _fill_llama, _hub_rope_style, seed=11),
    "tiny_llama3_rope": Family(
        # Wavelengths start 6.3, 13.5, 29, 63: with 8 and 32 as limits some are
        # kept, some blended and some divided, all well inside 70 tokens.
        lambda: _llama(
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=24,
            intermediate_size=21,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
        _fill_llama,
        _hub_rope_style,
        seed=12,
    ),
    "tiny_llama_tied": Family(
        lambda: _llama(
            num_hidden_layers=3, intermediate_size=23, tie_word_embeddings=True
        ),
        _fill_llama,
        _transformers5_style,
        seed=13,
    ),
    "tiny_llama_headdim": Family(
        lambda: _llama(
            hidden_size=36,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=25,
        ),
        _fill_llama,
        _transformers5_style,
        seed=14,
    ),
}


def _write_model(family: Family, folder: pathlib.Path) -> None:
    model = transformers.AutoModelForCausalLM.from_config(family.config())
    family.fill(model, torch.Generator().manual_seed(family.seed))
    model.tie_weights()
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    family.edit(config)
    path.write_text(json.dumps(config, indent=2) + "\n")


def _prompts(seed: int) -> dict[str, dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(seed + 1000)

    def ids(count: int) -> list[int]:
        return torch.randint(3, VOCAB, (count,), generator=generator).tolist()

    return {
        name: {"ids": [1] + ids(length - 1), "decode_ids": ids(DECODE_STEPS)}
        for name, length in PROMPT_LENGTHS.items()
    }


def _tensors_of_pass(
    record: hf_oracle.PassRecord, prefix: str, pattern: bool
) -> dict[str, torch.Tensor]:
    out = {f"{prefix}/logits": record.logits}
    hooks = HOOKS + (("hook_pattern",) if pattern else ())
    for index, layer in enumerate(record.layers):
        for hook in hooks:
            out[f"{prefix}/layer.{index}.{hook}"] = layer[hook]
    return out


def _golden(
    folder: pathlib.Path, prompts: dict[str, dict[str, list[int]]]
) -> dict[str, torch.Tensor]:
    model = hf_oracle.load_float64(folder, hf_oracle.RECORDING_ATTENTION)
    recorder = hf_oracle.Recorder(model)
    tensors: dict[str, torch.Tensor] = {}
    for name, prompt in prompts.items():
        cache = transformers.DynamicCache(config=model.config)
        record = recorder.run(prompt["ids"], cache)
        tensors |= _tensors_of_pass(record, f"{name}/prefill", name == "p0")
        for step, token in enumerate(prompt["decode_ids"]):
            record = recorder.run([token], cache)
            tensors |= _tensors_of_pass(
                record, f"{name}/decode.{step}", step == DECODE_STEPS - 1
            )
    assert all(t.isfinite().all() for t in tensors.values())
    return {k: t.to(torch.float32).contiguous() for k, t in tensors.items()}


def _check_against_float32(
    folder: pathlib.Path,
    prompts: dict[str, dict[str, list[int]]],
    tensors: dict[str, torch.Tensor],
) -> None:
    """Untouched transformers in float32, without a cache, must say the same."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for name, prompt in prompts.items():
        ids = prompt["ids"] + prompt["decode_ids"]
        with torch.no_grad():
            got = model(torch.tensor([ids]), use_cache=False).logits[0]
        parts = ["prefill"] + [f"decode.{s}" for s in range(DECODE_STEPS)]
        want = torch.cat([tensors[f"{name}/{part}/logits"] for part in parts])
        torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-4)


def make(name: str, out: pathlib.Path) -> None:
    """Writes OUT/NAME."""
    family = FAMILIES[name]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    _write_model(family, folder)
    prompts = _prompts(family.seed)
    tensors = _golden(folder, prompts)
    _check_against_float32(folder, prompts, tensors)
    safetensors.torch.save_file(tensors, folder / "golden.safetensors")
    notes = {
        "model": name,
        "prompts": prompts,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    (folder / "golden.json").write_text(json.dumps(notes) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size <= MAX_FOLDER_BYTES, f"{folder} has {size} bytes"
    spread = tensors["p1/prefill/logits"].std(dim=-1).mean().item()
    norms = tensors["p1/prefill/layer.1.hook_rot_q"].norm(dim=0)
    ratio = (norms / norms.mean(dim=-1, keepdim=True)).max().item()
    print(f"{name}: {size} bytes, logits std {spread:.2f}, Q ratio {ratio:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("families", nargs="+", choices=[*FAMILIES, "all"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    names = arguments.families
    for name in FAMILIES if "all" in names else names:
        make(name, arguments.out)


if __name__ == "__main__":
    main()
