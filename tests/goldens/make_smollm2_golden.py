"""Makes tests/goldens/smollm2 from SmolLM2-135M-Instruct, in float64.

    python tests/goldens/make_smollm2_golden.py --gguf FILE.gguf \
        --out tests/goldens/smollm2

Weights are the file's, which transformers dequantises to F32; all arithmetic is
in float64.

OUT/golden.json:
    gguf_sha256
    prompts  by name (one, demo, long):
        text, ids
        top1_id   [T] after each token
        margin    [T] logit of top1_id less that of the runner-up
        arms      by name (clean; top_k:1 and bottom_k:1, both with pooled_mean,
                  Q and K after RoPE, prefill, persist):
            q_dims, k_dims  [layer][head], the one chosen dim; not for clean
            q_gaps, k_gaps  [layer][head], relative distance to the norm of the
                            next candidate: where it is small, another choice
                            may be honest rounding
            kl              [T] KL(P_clean || P_arm), nats
            token_logprob   [T] of token t; entry 0 is 0
            mean_kl, mean_logprob, top1_flips
OUT/PROMPT.safetensors: F32
    layer.N.hook_rot_q (9, 64), layer.N.hook_rot_k and layer.N.hook_v (3, 64):
    L2 norms over all tokens of the clean prefill.
"""

import argparse
import hashlib
import json
import pathlib

import numpy as np
import safetensors.torch
import torch
import transformers

import disruption_oracle
import hf_oracle
import statistics_oracle

PROMPTS = {
    "one": "The",
    "demo": (
        "The city of Paris lies on the river Seine, and the tower that "
        "everybody knows was built there for a great world fair."
    ),
    "long": (
        "Question: A farmer has 17 sheep and buys 25 more at 12.50 dollars "
        "each. He then sells 9 of them. How many are left, and what did he "
        "pay?\n\nAnswer: He had 17 and bought 25, which makes 42; after the "
        "sale 33 are left. He paid 25 * 12.50 = 312.50 dollars.\n\n"
        "```python\ndef left(have: int, bought: int, sold: int) -> int:\n"
        "    return have + bought - sold\n```\n"
        "Die Würde des Menschen ist unantastbar."
    ),
}
ARMS = {
    "clean": [],
    "top_k:1": [{"select": {"top_k": {"k": 1}}}],
    "bottom_k:1": [{"select": {"bottom_k": {"k": 1}}}],
}
POINTS = ("hook_rot_q", "hook_rot_k", "hook_v")


def _gap(norms: np.ndarray, largest: bool) -> float:
    """Returns the relative gap of the first two candidates of norms (D,)."""
    first, second = np.sort(-norms if largest else norms)[:2]
    return float(abs(first - second) / max(abs(first), abs(second)))


def _arm(
    name: str,
    result: tuple[np.ndarray, np.ndarray, disruption_oracle.ArmRun],
    clean: np.ndarray,
    ids: list[int],
) -> dict:
    logits, _, arm = result
    compared = statistics_oracle.compare(clean, logits, ids)
    out = {
        key: np.round(compared[key], 8).tolist()
        for key in ("kl", "token_logprob", "mean_kl", "mean_logprob")
    }
    out["top1_flips"] = compared["top1_flips"]
    for tensor in ("q", "k") if ARMS[name] else ():
        entries = [e for e in arm.applied if e["tensor"] == tensor]
        out[f"{tensor}_dims"] = [
            [c.dims[0] for c in e["chosen"].values()] for e in entries
        ]
        out[f"{tensor}_gaps"] = [
            [
                float(f"{_gap(c.norms, name == 'top_k:1'):.3g}")
                for c in e["chosen"].values()
            ]
            for e in entries
        ]
    return out


def make(gguf: pathlib.Path, out: pathlib.Path) -> None:
    """Writes OUT."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name
    )
    model = hf_oracle.load_float64(
        str(gguf.parent), hf_oracle.RECORDING_ATTENTION, gguf.name
    )
    recorder = hf_oracle.Recorder(model)
    ids = {name: tokenizer(text)["input_ids"] for name, text in PROMPTS.items()}
    records = {
        name: recorder.run(tokens, transformers.DynamicCache())
        for name, tokens in ids.items()
    }
    # The model's attention is the oracle's from here on.
    disrupted = disruption_oracle.DisruptedLlama(model)

    out.mkdir(exist_ok=True)
    prompts = {}
    for name, text in PROMPTS.items():
        record = records[name]
        norms = {
            f"layer.{index}.{point}": layer[point].norm(dim=0).float()
            for index, layer in enumerate(record.layers)
            for point in POINTS
        }
        path = out / f"{name}.safetensors"
        safetensors.torch.save_file(norms, path)
        path.chmod(0o644)
        results = {
            arm: disrupted.run(rules, ids[name], [])
            for arm, rules in ARMS.items()
        }
        clean = results["clean"][0]
        np.testing.assert_allclose(clean, record.logits.numpy(), atol=1e-9)
        best = np.sort(clean, axis=-1)
        prompts[name] = {
            "text": text,
            "ids": ids[name],
            "top1_id": clean.argmax(axis=-1).tolist(),
            "margin": np.round(best[:, -1] - best[:, -2], 6).tolist(),
            "arms": {
                arm: _arm(arm, result, clean, ids[name])
                for arm, result in results.items()
            },
        }
        arms = prompts[name]["arms"]
        print(
            name,
            len(ids[name]),
            {arm: round(a["mean_logprob"], 3) for arm, a in arms.items()},
        )
    golden = {
        "gguf_sha256": hashlib.sha256(gguf.read_bytes()).hexdigest(),
        "prompts": prompts,
    }
    text = json.dumps(golden, separators=(",", ":"), allow_nan=False)
    (out / "golden.json").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gguf", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    make(arguments.gguf, arguments.out)


if __name__ == "__main__":
    main()
