"""Makes tests/goldens/statistics: statistics, choices and comparisons.

    python tests/goldens/make_statistics_goldens.py --goldens tests/goldens

GOLDENS/statistics/cases.json:
    statistics   [{"name", "norms", "wavelengths", "lambda", "top_n",
                   "expected"}]: norms names a tensor (heads, head_dim);
                 wavelengths (tokens) by frequency index, empty without RoPE;
                 expected has the fields of the Statistics message, null where
                 absent. `largest` null: no head has a mean other than 0.
    selections   [{"name", "norms", "select", "expected"}]: per_head choices
                 from these norms: ascending dims of each head. Layer 0, tensor
                 Q, prefill for random_k.
    comparisons  [{"name", "base", "arm", "ids", "expected"}]: base and arm name
                 logits (T, vocab); expected has the fields of Comparison.
GOLDENS/statistics/inputs.safetensors: the named tensors, F32.
"""

import argparse
import json
import pathlib

import numpy as np
import safetensors.numpy

import disruption_oracle
import statistics_oracle

MIN_GAP = 1e-4


def _wavelengths(rotary_dims: int, theta: float = 10000.0) -> list[float]:
    index = np.arange(rotary_dims // 2)
    return (2 * np.pi * theta ** (2 * index / rotary_dims)).tolist()


def _norms(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Makes matrices (heads, head_dim) like attention's, and odd ones."""
    massive = random.gamma(4.0, 1.0, (9, 64))
    massive[:, 30] *= 14.0
    massive[2:7, 61] *= 11.0
    massive[4, 3] *= 12.0
    flat = random.gamma(50.0, 0.1, (3, 16))
    zero_head = random.gamma(4.0, 1.0, (4, 32))
    zero_head[1] = 0.0
    zero_head[:, 20] *= 25.0
    non_finite = random.gamma(4.0, 1.0, (4, 32))
    non_finite[0, 5] = np.nan
    non_finite[1, 6] = np.inf
    non_finite[3] = np.nan
    non_finite[:, 9] *= 25.0
    ties = np.ones((3, 64))
    ties[0, [40, 7]] = 100.0
    ties[1, [7, 40]] = 100.0
    ties[2, 50] = 9.0
    tied_choice = np.ones((3, 8))
    tied_choice[1] = [2, 3, 3, 1, 3, 2, 1, 1]
    tied_choice[2] = [0, 4, 0, 4, 0, 4, 0, 5]
    return {
        "massive": massive,
        "flat": flat,
        "zero_head": zero_head,
        "all_zero": np.zeros((2, 8)),
        "non_finite": non_finite,
        "all_nan": np.full((1, 4), np.nan),
        "ties": ties,
        "tied_choice": tied_choice,
        "huge": random.gamma(4.0, 1.0, (2, 16)) * 1e30,
        "single": np.array([[3.0]]),
    }


def _statistics_cases(norms: dict[str, np.ndarray]) -> list[dict]:
    plans = [
        # name, norms, wavelengths, lambda, top_n
        ("rope", "massive", _wavelengths(64), 5.0, 8),
        ("no_rope", "massive", [], 5.0, 8),
        ("partial_rope", "massive", _wavelengths(32), 5.0, 20),
        ("unrotated_only", "massive", _wavelengths(4), 6.0, 3),
        ("lambda2", "massive", _wavelengths(64), 2.0, 0),
        ("none_massive", "flat", _wavelengths(16), 5.0, 8),
        ("zero_head", "zero_head", _wavelengths(32), 5.0, 8),
        ("all_zero", "all_zero", _wavelengths(8), 5.0, 8),
        ("non_finite", "non_finite", _wavelengths(32), 5.0, 8),
        ("all_nan", "all_nan", [], 5.0, 8),
        ("ties", "ties", _wavelengths(64), 5.0, 8),
        ("huge", "huge", _wavelengths(16), 1.5, 4),
        ("one", "single", [], 0.5, 8),
    ]
    cases = []
    for name, source, wavelengths, massive_over, top_n in plans:
        expected = statistics_oracle.statistics(
            norms[source], wavelengths, massive_over, top_n
        )
        assert expected.pop("narrowest") > MIN_GAP, name
        cases.append(
            {
                "name": name,
                "norms": source,
                "wavelengths": wavelengths,
                "lambda": massive_over,
                "top_n": top_n,
                "expected": expected,
            }
        )
    return cases


def _selection_cases(norms: dict[str, np.ndarray]) -> list[dict]:
    plans = [
        ("massive", {"top_k": {"k": 3}}),
        ("massive", {"bottom_k": {"k": 2}}),
        ("massive", {"threshold": {"lambda": 5.0}}),
        ("massive", {"random_k": {"k": 5, "seed": 77}}),
        ("massive", {"random_k": {"k": 20, "seed": 2**40 + 3}}),
        ("tied_choice", {"top_k": {"k": 1}}),
        ("tied_choice", {"top_k": {"k": 2}}),
        ("tied_choice", {"bottom_k": {"k": 3}}),
        ("tied_choice", {"random_k": {"k": 3, "exclude_top": 2}}),
        ("tied_choice", {"top_k": {"k": 8}}),
        ("zero_head", {"threshold": {"lambda": 5.0}}),
        ("all_zero", {"top_k": {"k": 2}}),
        ("non_finite", {"top_k": {"k": 2}}),
        ("non_finite", {"bottom_k": {"k": 31}}),
        ("non_finite", {"bottom_k": {"k": 32}}),
        ("huge", {"top_k": {"k": 1}}),
    ]
    selector = disruption_oracle.Selector()
    cases = []
    for source, select in plans:
        matrix = norms[source].astype(np.float64)
        cases.append(
            {
                "name": f"{source}_{len(cases)}",
                "norms": source,
                "select": select,
                "expected": [
                    selector.choose(select, row, (0, 0, head, 0), head)
                    for head, row in enumerate(matrix)
                ],
            }
        )
    return cases


def _comparison_cases(
    random: np.random.Generator,
) -> tuple[list[dict], dict[str, np.ndarray]]:
    base = random.normal(0.0, 3.0, (7, 97)).astype(np.float32)
    near = base + random.normal(0.0, 0.01, base.shape)
    far = random.normal(0.0, 3.0, base.shape)
    far[0] = base[0]  # KL 0.
    steep = random.normal(0.0, 60.0, base.shape)
    steep[1] += 4e4  # exp overflows unless the maximum is subtracted.
    tied = base.copy()
    tied[2, [11, 5, 90]] = tied[2].max() + 1.0
    one = random.normal(0.0, 3.0, (1, 97))
    logits = {
        "base": base,
        "near": near,
        "far": far,
        "steep": steep,
        "tied": tied,
        "one": one,
    }
    logits = {k: v.astype(np.float32) for k, v in logits.items()}
    ids = random.integers(0, 97, 7).tolist()
    cases = []
    for first, second in [
        ("base", "base"),
        ("base", "near"),
        ("base", "far"),
        ("far", "base"),
        ("base", "steep"),
        ("steep", "base"),
        ("base", "tied"),
        ("one", "one"),
    ]:
        tokens = ids[: len(logits[first])]
        cases.append(
            {
                "name": f"{first}_{second}",
                "base": first,
                "arm": second,
                "ids": tokens,
                "expected": statistics_oracle.compare(
                    logits[first], logits[second], tokens
                ),
            }
        )
    return cases, logits


def make(goldens: pathlib.Path) -> None:
    """Writes GOLDENS/statistics."""
    random = np.random.default_rng(5)
    norms = {k: v.astype(np.float32) for k, v in _norms(random).items()}
    comparisons, logits = _comparison_cases(random)
    cases = {
        "statistics": _statistics_cases(norms),
        "selections": _selection_cases(norms),
        "comparisons": comparisons,
    }
    folder = goldens / "statistics"
    folder.mkdir(exist_ok=True)
    text = json.dumps(cases, separators=(",", ":"), allow_nan=False)
    (folder / "cases.json").write_text(text.replace('{"name"', '\n{"name"'))
    path = folder / "inputs.safetensors"
    safetensors.numpy.save_file(norms | logits, path)
    path.chmod(0o644)
    print({kind: len(listed) for kind, listed in cases.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--goldens", type=pathlib.Path, required=True)
    make(parser.parse_args().goldens)


if __name__ == "__main__":
    main()
