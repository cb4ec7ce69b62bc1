"""Makes tests/goldens/disruption: what every kind of rule does, in float64.

    python tests/goldens/make_disruption_goldens.py --goldens tests/goldens

Reads the tiny models that make_goldens.py wrote and writes GOLDENS/disruption/:

cases.json
    prompts  {MODEL: {PROMPT: {"ids": [...], "decode_ids": [...]}}}; decode ids
             are forced.
    cases    a list of
        name    unique; the key into outputs.safetensors
        model   a folder of GOLDENS
        prompt  a key into prompts[model]
        rules   DisruptionRules; fields that are absent have their defaults
                (disruption_oracle.RULE_DEFAULTS lists all, and the spellings).
                `select` holds the chosen member of the oneof; spans are
                [begin, end).
        preset  {"name", "seed"}, only where the case is a preset: `rules` is
                then what it must expand to, and the outputs are
                preset_reference.py's, which knows no rules.
        rows    prompt positions whose logits are given
        applied what was chosen, a list of
            rule, layer, tensor   index into rules; "q", "k" or "v"
            step                  null in prefill, else the decode step. Given
                                  where something was chosen anew: in prefill,
                                  with reselect and with per_token.
            chosen  [{"index", "dims", "values"}]: index is the head (query
                    heads under query_head) or, for per_token, the absolute
                    position; dims ascend; values are one (pooled_mean, zero),
                    one a dim (per_dim_mean) or none (scale, or no dims).

outputs.safetensors
    F32, rounded once from float64.
    NAME/prefill  (len(rows), vocab)
    NAME/decode   (3, vocab) after each forced decode id

Every choice of a dim is decided by at least MIN_GAP (relative), so a float32
engine must choose the same; cases that must differ are checked to differ.
"""

import argparse
import json
import pathlib

import numpy as np
import safetensors.numpy
import torch
import transformers

import disruption_oracle
import hf_oracle
import philox
import preset_reference

MIN_GAP = 5e-5
MAX_BYTES = 300_000
ROWS = {"p0": [0, 1, 6, 12], "p1": [0, 63, 64, 69]}
GQA = "tiny_llama_gqa"
TIED = "tiny_llama_tied"
HEADDIM = "tiny_llama_headdim"
LLAMA3 = "tiny_llama3_rope"
MODELS = (GQA, TIED, HEADDIM, LLAMA3)


def _top(k: int) -> dict:
    return {"top_k": {"k": k}}


def _bottom(k: int) -> dict:
    return {"bottom_k": {"k": k}}


def _random(k: int, **options) -> dict:
    return {"random_k": {"k": k, **options}}


def _threshold(value: float) -> dict:
    return {"threshold": {"lambda": value}}


def _explicit(*entries: tuple[int, int]) -> dict:
    return {
        "explicit": {"entries": [{"head": h, "dim": d} for h, d in entries]}
    }


def _rule(select: dict, **fields) -> dict:
    return {"select": select, **fields}


def _case(
    name: str, *rules: dict, model: str = GQA, prompt: str = "p0"
) -> dict:
    return {
        "name": name,
        "model": model,
        "prompt": prompt,
        "rules": list(rules),
    }


def _rule_cases() -> list[dict]:
    query = {"kv_grouping": "query_head"}
    passing = {"kv_cache": "attention_only"}
    token = {"axis": "per_token"}
    both = {"phase": "both"}
    return [
        _case("clean"),
        _case("clean_p1", prompt="p1"),
        # Selection, per head.
        _case("top1", _rule(_top(1))),
        _case("top1_p1", _rule(_top(1)), prompt="p1"),
        _case("top3", _rule(_top(3)), model=HEADDIM),
        _case("bottom1", _rule(_bottom(1))),
        _case("bottom2_p1", _rule(_bottom(2)), model=TIED, prompt="p1"),
        _case("k0", _rule(_top(0))),
        _case("all_dims_pooled", _rule(_top(8))),
        _case("random1", _rule(_random(1))),
        _case("random2_seed", _rule(_random(2, seed=7))),
        _case("random2_seed64", _rule(_random(2, seed=(5 << 32) + 7))),
        _case("random_exclude0", _rule(_random(8, exclude_top=0))),
        _case(
            "random4_exclude1",
            _rule(_random(4, seed=3, exclude_top=1)),
            model=HEADDIM,
            prompt="p1",
        ),
        _case("threshold", _rule(_threshold(2.0))),
        _case("threshold_low", _rule(_threshold(0.8)), model=LLAMA3),
        _case("threshold_none", _rule(_threshold(50.0))),
        _case(
            "explicit",
            _rule(_explicit((0, 3), (3, 1), (3, 6)), tensors=["q"]),
            _rule(_explicit((1, 3)), tensors=["k"]),
        ),
        # Replacement.
        _case("top3_per_dim", _rule(_top(3), replace="per_dim_mean")),
        _case("top1_zero", _rule(_top(1), replace="zero")),
        _case("all_dims_per_dim", _rule(_top(8), replace="per_dim_mean")),
        _case("scale", _rule(_top(2), replace="scale", factor=0.25)),
        _case("scale_sign", _rule(_top(1), replace="scale", factor=-2.0)),
        # Tensors, points, layers, heads.
        _case("only_q", _rule(_top(1), tensors=["q"])),
        _case("only_k", _rule(_top(1), tensors=["k"])),
        _case("only_v", _rule(_top(2), tensors=["v"], replace="zero")),
        _case(
            "v_pre_rope",
            _rule(_top(2), tensors=["v"], replace="zero", point="pre_rope"),
        ),
        _case("pre_rope", _rule(_top(2), point="pre_rope")),
        _case("pre_rope_p1", _rule(_top(1), point="pre_rope"), prompt="p1"),
        _case("layer1", _rule(_top(1), layers=[1])),
        _case("layers02", _rule(_top(1), layers=[0, 2]), model=TIED),
        _case("heads", _rule(_top(2), heads=[1])),
        _case(
            "two_rules",
            _rule(_top(1), heads=[0]),
            _rule(_bottom(2), heads=[1], replace="zero"),
            _rule(_random(2), heads=[2, 3], tensors=["q"], point="pre_rope"),
        ),
        # BOS is left out of the statistics, of the changes, or of both.
        _case("stat_no_bos", _rule(_top(1), stat_span=[1, 13])),
        _case("positions_no_bos", _rule(_top(1), positions=[1, 13])),
        _case(
            "stat_no_bos_all_changed",
            _rule(_top(1), stat_span=[1, 13], positions=[0, 13]),
        ),
        _case(
            "spans_apart",
            _rule(_top(2), stat_span=[0, 60], positions=[60, 70]),
            prompt="p1",
        ),
        # Cache and grouping.
        _case("top1_attention_only", _rule(_top(1), **passing)),
        _case("v_attention_only", _rule(_top(1), tensors=["v"], **passing)),
        _case(
            "pre_rope_attention_only",
            _rule(_top(2), point="pre_rope", **passing),
        ),
        _case("top1_query_head", _rule(_top(1), **query)),
        _case("top1_query_head_passing", _rule(_top(1), **query, **passing)),
        _case(
            "threshold_query_head_v",
            _rule(_threshold(1.2), tensors=["v"], **query),
        ),
        _case(
            "random_query_head",
            _rule(_random(2, seed=9), **query, **passing),
        ),
        _case(
            "random_query_head_p1",
            _rule(_random(3, seed=1, exclude_top=1), **query, **passing),
            model=HEADDIM,
            prompt="p1",
        ),
        _case(
            "random_query_head_v",
            _rule(
                _random(2), tensors=["v"], replace="zero", **query, **passing
            ),
        ),
        _case(
            "explicit_query_head",
            _rule(
                _explicit((0, 3), (1, 3), (2, 5)),
                tensors=["k"],
                replace="per_dim_mean",
                **query,
                **passing,
            ),
        ),
        _case(
            "heads_query_head",
            _rule(_top(1), heads=[1, 2], **query, **passing),
        ),
        _case(
            "random_query_head_both",
            _rule(_random(2, seed=4), **query, **passing, **both),
        ),
        # Decode.
        _case("both", _rule(_top(1), **both)),
        _case("both_p1", _rule(_top(2), **both), model=TIED, prompt="p1"),
        _case("both_attention_only", _rule(_top(1), **both, **passing)),
        _case("decode", _rule(_top(2), phase="decode")),
        _case(
            "decode_scale",
            _rule(_top(1), phase="decode", replace="scale", factor=3.0),
        ),
        _case("both_per_dim", _rule(_top(2), replace="per_dim_mean", **both)),
        _case(
            "both_pre_rope_zero",
            _rule(_top(1), point="pre_rope", replace="zero", **both),
        ),
        _case("reselect", _rule(_top(2), reselect=True, **both)),
        _case("reselect_decode", _rule(_top(2), reselect=True, phase="decode")),
        _case("reselect_prefill_is_prefill", _rule(_top(1), reselect=True)),
        _case(
            "reselect_span",
            _rule(
                _bottom(2),
                reselect=True,
                stat_span=[1, 13],
                replace="per_dim_mean",
                **both,
            ),
            model=TIED,
        ),
        _case(
            "reselect_random",
            _rule(_random(2, seed=2), reselect=True, **both),
        ),
        _case(
            "reselect_threshold_p1",
            _rule(_threshold(1.5), reselect=True, **both),
            prompt="p1",
        ),
        # Per token.
        _case("token_top2", _rule(_top(2), **token)),
        _case("token_top2_zero", _rule(_top(2), replace="zero", **token)),
        _case("token_bottom3", _rule(_bottom(3), **token), model=HEADDIM),
        _case("token_heads", _rule(_top(2), heads=[0], **token)),
        _case("token_threshold", _rule(_threshold(1.6), **token)),
        _case("token_random", _rule(_random(2, seed=5), **token), model=LLAMA3),
        _case(
            "token_scale_positions",
            _rule(
                _top(1), replace="scale", factor=0.5, positions=[3, 9], **token
            ),
        ),
        _case("token_stat_span", _rule(_top(1), stat_span=[1, 13], **token)),
        _case("token_all_dims", _rule(_top(8), **token)),
        _case("token_both", _rule(_top(1), **token, **both)),
        _case(
            "token_decode_random",
            _rule(_random(2), phase="decode", **token),
        ),
        _case(
            "token_attention_only",
            _rule(_top(2), point="pre_rope", **token, **passing),
        ),
    ]


def _preset_cases() -> list[dict]:
    """Returns the presets and their rules if no layer is sliding."""
    expanded = {"kv_grouping": "query_head", "kv_cache": "attention_only"}
    token = {"axis": "per_token"}
    rules = {
        "llama": _rule(_top(1)),
        "llama/control": _rule(_bottom(1)),
        "qwen2": _rule(_top(3), **expanded),
        "qwen2/control": _rule(_bottom(3), **expanded),
        "mistral": _rule(_top(1), **expanded),
        "mistral/control": None,
        "gemma2": _rule(_top(22), replace="zero", **token),
        "gemma2/control": _rule(_bottom(22), **token),
    }
    places = {
        "llama": [(GQA, "p0", 0), (TIED, "p1", 0)],
        "qwen2": [(GQA, "p0", 0), (HEADDIM, "p0", 0)],
        "mistral": [(GQA, "p0", 0), (HEADDIM, "p1", 21)],
        "gemma2": [(LLAMA3, "p0", 0)],  # Its head_dim is over 22.
    }
    cases = []
    for name, rule in rules.items():
        for number, (model, prompt, seed) in enumerate(
            places[name.partition("/")[0]]
        ):
            if name == "mistral/control":
                select = _random(1, seed=seed, exclude_top=1)
                rule = _rule(select, **expanded)
            case = _case(
                f"preset_{name.replace('/', '_')}_{number}",
                rule,
                model=model,
                prompt=prompt,
            )
            case["preset"] = {"name": f"rope_with_llm/{name}", "seed": seed}
            cases.append(case)
    return cases


# Cases whose outputs must equal another case's; all others must differ. If K's
# chosen dim is a constant at all positions, Q's value in it adds the same to
# all scores, and softmax does not see it: top1 equals only_k, because Q and K
# choose the same dims. `applied` and only_q test Q there.
SAME_OUTPUTS = {
    "top1": "only_k",
    "k0": "clean",
    "threshold_none": "clean",
    "v_pre_rope": "only_v",
    "reselect_prefill_is_prefill": "only_k",
    "top1_query_head": "only_k",
    "top1_query_head_passing": "top1_attention_only",
    "random_exclude0": "all_dims_pooled",
    "preset_llama_0": "only_k",
    "preset_llama_control_0": "bottom1",
    "preset_mistral_0": "top1_attention_only",
}


def _check_against_transformers(
    folder: pathlib.Path,
    prompts: dict[str, dict[str, list[int]]],
    disrupted: disruption_oracle.DisruptedLlama,
) -> None:
    """Checks that the patched attention without rules is transformers' own."""
    model = hf_oracle.load_float64(str(folder), "eager")
    for prompt in prompts.values():
        ids = prompt["ids"] + prompt["decode_ids"]
        with torch.no_grad(), hf_oracle.float64_everywhere():
            want = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
        prefill, decode, _ = disrupted.run(
            [], prompt["ids"], prompt["decode_ids"]
        )
        got = np.concatenate([prefill, decode])
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def _check_distinct(cases: list[dict], outputs: dict[str, np.ndarray]) -> None:
    """Checks that cases of one model and prompt differ, except those listed."""
    by_place: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        by_place.setdefault((case["model"], case["prompt"]), []).append(
            case["name"]
        )

    def whole(name: str) -> np.ndarray:
        return np.concatenate(
            [outputs[f"{name}/{p}"] for p in ("prefill", "decode")]
        )

    for names in by_place.values():
        for i, a in enumerate(names):
            for b in names[:i]:
                distance = np.abs(whole(a) - whole(b)).max()
                same = SAME_OUTPUTS.get(a, a) == SAME_OUTPUTS.get(b, b)
                assert (distance < 1e-9) == same, (a, b, distance)
                assert same or distance > 1e-3, (a, b, distance)


def _listed(applied: list[dict]) -> list[dict]:
    """Returns the list in cases.json's form."""
    return [
        entry
        | {
            "chosen": [
                {
                    "index": index,
                    "dims": chosen.dims,
                    "values": [float(f"{v:.7g}") for v in chosen.values],
                }
                for index, chosen in entry["chosen"].items()
            ]
        }
        for entry in applied
    ]


def make(goldens: pathlib.Path) -> None:
    """Writes GOLDENS/disruption."""
    prompts, disrupted, presets = {}, {}, {}
    for name in MODELS:
        folder = goldens / name
        notes = json.loads((folder / "golden.json").read_text())
        prompts[name] = notes["prompts"]
        disrupted[name] = disruption_oracle.DisruptedLlama(
            hf_oracle.load_float64(str(folder), "eager")
        )
        presets[name] = preset_reference.PresetLlama(
            hf_oracle.load_float64(str(folder), "eager")
        )
        _check_against_transformers(folder, prompts[name], disrupted[name])

    cases = _rule_cases() + _preset_cases()
    outputs: dict[str, np.ndarray] = {}
    narrowest = (np.inf, "")
    for case in cases:
        model, name = case["model"], case["name"]
        prompt = prompts[model][case["prompt"]]
        ids, decode_ids = prompt["ids"], prompt["decode_ids"]
        prefill, decode, arm = disrupted[model].run(
            case["rules"], ids, decode_ids
        )
        if "preset" in case:
            preset = case["preset"]
            want_prefill, want_decode = presets[model].run(
                preset["name"], preset["seed"], ids, decode_ids
            )
            np.testing.assert_allclose(prefill, want_prefill, atol=1e-10)
            np.testing.assert_allclose(decode, want_decode, atol=1e-10)
            prefill, decode = want_prefill.numpy(), want_decode.numpy()
        narrowest = min(narrowest, (arm.selector.narrowest, name))
        case["rows"] = ROWS[case["prompt"]]
        case["applied"] = _listed(arm.applied)
        outputs[f"{name}/prefill"] = prefill[case["rows"]]
        outputs[f"{name}/decode"] = decode
    _check_distinct(cases, outputs)
    assert narrowest[0] >= MIN_GAP, narrowest

    folder = goldens / "disruption"
    folder.mkdir(exist_ok=True)
    whole = {"prompts": prompts, "cases": cases}
    text = json.dumps(whole, separators=(",", ":"))
    text = text.replace('{"name"', '\n{"name"')
    (folder / "cases.json").write_text(text + "\n")
    path = folder / "outputs.safetensors"
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v, np.float32) for k, v in outputs.items()},
        path,
    )
    path.chmod(0o644)
    for path in folder.iterdir():
        size = path.stat().st_size
        assert size <= MAX_BYTES, f"{path} has {size} bytes"
        print(f"{path.name}: {size} bytes")
    print(
        f"{len(cases)} cases; narrowest choice: {narrowest[1]} by "
        f"{narrowest[0]:.2g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--goldens", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    philox.check_known_answers()
    make(arguments.goldens)


if __name__ == "__main__":
    main()
