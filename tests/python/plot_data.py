"""Saved analyses with numbers of the test's own, written here byte by byte, and
plain loops that compute what pictures must show."""

import json
import math
import pathlib
import struct
import tempfile

import numpy as np
import support  # noqa: F401  (finds qkscope)

DIMS = 8
LAYERS = (0, 1, 5)
LAMBDA = 3.0


def made_up(seed, shape):
    """Norms of which some are massive in the first heads."""
    values = np.random.default_rng(seed).uniform(0.5, 1.5, shape)
    values[0, seed % shape[1]] = 30.0
    if shape[0] > 1:
        values[1, (seed + 1) % shape[1]] = 20.0
    return values.astype("<f4")


def layer_name(arm, layer, point, stage="BEFORE"):
    return (f"{arm}/layer.{layer}.{point.lower()}"
            + (".after" if stage == "AFTER" else ""))


class Analysis:
    """Collects tensors, comparisons and a manifest; writes the file."""

    def __init__(self, arms=("clean",), tokens=(3, 1, 4, 1, 5), model="tiny"):
        self.manifest = {
            "server_version": "0.1.0", "model": model, "compute_type": "f32",
            "backend": "cpu", "weights_sha256": "ab" * 32,
            "token_ids": list(tokens),
            "expanded": {"model": model, "arms": [self.arm(a) for a in arms],
                         "statistics": {"lambda": LAMBDA, "top_n": 8},
                         "compare": {"baseline": arms[0]} if arms else {}}}
        self.tensors, self.layers, self.axes = {}, {}, {}
        self.comparisons = []

    @staticmethod
    def arm(name):
        if name.startswith("top_k"):
            return {"name": name, "disruptions": [{"top_k": {"k": 1}}]}
        if name.startswith("bottom_k"):
            return {"name": name, "disruptions": [{"bottom_k": {"k": 1}}]}
        return {"name": name}

    def add(self, arm, layer, point, values, *, stage="BEFORE",
            form="NORM_OVER_TOKENS", group_size=1, statistics=None, heads=None):
        values = np.ascontiguousarray(values, "<f4")
        name = layer_name(arm, layer, point, stage)
        self.tensors[name] = values
        self.layers[name] = {
            "arm": arm, "layer": layer, "point": point, "stage": stage,
            "phase": "PREFILL", "shape": list(values.shape), "dtype": "F32",
            "form": form, "total_bytes": str(values.nbytes),
            "group_size": group_size,
            **({"heads": heads} if heads else {}),
            **({"statistics": statistics} if statistics else {})}
        self.axes[name] = {
            "NORM_OVER_TOKENS": ["head", "dim"],
            "NORM_PER_TOKEN": ["position", "head"],
            "RAW": ["position", "head", "dim"]}[form]
        return values

    def compare(self, arm, kl, flips, logprob, baseline="clean"):
        numbers = [v if math.isfinite(v) else "NaN" for v in kl]
        self.comparisons.append({
            "arm": arm, "baseline": baseline, "kl": numbers,
            "top1_flip": list(flips), "token_logprob": list(logprob),
            "mean_kl": float(np.mean(kl)) if all(map(math.isfinite, kl))
            else "NaN",
            "top1_flips": sum(flips),
            "mean_logprob": float(np.mean(logprob[1:] or [0])),
            "top1_id": [7] * len(kl)})

    def write(self, path):
        metadata = {"format": "qkscope", **{
            key: json.dumps(value) for key, value in (
                ("manifest", self.manifest), ("axes", self.axes),
                ("layers", self.layers), ("comparisons", self.comparisons))}}
        header, data = {"__metadata__": metadata}, b""
        for name, values in self.tensors.items():
            header[name] = {"dtype": "F32", "shape": list(values.shape),
                            "data_offsets": [len(data),
                                             len(data) + values.nbytes]}
            data += values.tobytes()
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        pathlib.Path(path).write_bytes(
            struct.pack("<Q", len(text)) + text + data)
        return path

    def run(self):
        import qkscope

        with tempfile.TemporaryDirectory(prefix="qkscope_plot_") as folder:
            return qkscope.Run.from_safetensors(
                self.write(pathlib.Path(folder) / "a.safetensors"))


SHAPES = {"HOOK_ROT_Q": (4, DIMS), "HOOK_ROT_K": (2, DIMS),
          "HOOK_V": (2, DIMS)}


def three_arms():
    """An analysis with three arms, Q, K and V of three layers, two query heads
    per KV head, and a comparison; the values by (arm, layer, point)."""
    analysis = Analysis(("clean", "top_k:1", "bottom_k:1"))
    values = {}
    for a, arm in enumerate(("clean", "top_k:1", "bottom_k:1")):
        for layer in LAYERS:
            for p, (point, shape) in enumerate(SHAPES.items()):
                norms = made_up(100 * a + 10 * layer + p, shape)
                if point == "HOOK_V":
                    norms = np.ones(shape, "<f4")
                values[arm, layer, point] = analysis.add(
                    arm, layer, point, norms,
                    group_size=1 if point == "HOOK_ROT_Q" else 2)
    analysis.compare("clean", [0] * 5, [False] * 5, [0, -1, -2, -3, -4])
    analysis.compare("top_k:1", [0, .5, 1.5, .25, 2],
                     [False, True, True, False, True], [0, -2, -4, -6, -8])
    analysis.compare("bottom_k:1", [0, .01, .02, .03, .04], [False] * 5,
                     [0, -1, -2, -3, -5])
    return analysis, values


def ratios(norms):
    """Each norm over its head's mean, by plain loops; NaN if not finite."""
    rows = []
    for head in np.asarray(norms, float).tolist():
        finite = [v for v in head if math.isfinite(v)]
        mean = sum(finite) / len(finite) if finite else 0.0
        rows.append([math.nan if not math.isfinite(v) else
                     v / mean if mean > 0 else 0.0 for v in head])
    return np.array(rows)


def massive(norms, lambda_):
    """The (head, dim) of massive norms, by plain loops."""
    return {(h, d) for h, row in enumerate(ratios(norms).tolist())
            for d, value in enumerate(row) if value > lambda_}
