"""Counts where bf16 compute differs from f32: massive entries and chosen dims.

    python tests/bench/bf16_differences.py --bin build/release/bin \
        NAME=MODEL.gguf [NAME=MODEL.gguf ...]

Serves each model in f32 and in bf16 and analyses the same texts with the arms
clean and top_k:1. Prints the entries of rotated Q and K that are massive (above
5 times the mean of their head) in one type only, the (layer, head) whose
largest dim differs, the rules' choices that differ, and the largest relative
difference of a norm among massive entries. Run it with the Python of
build/venv; another --bin counts for another build.
"""

import argparse
import os
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = (
    "The city of Paris lies on the river Seine, and its tower is tall. " * 8,
    "There is an important piece of information hidden in this text. The pass "
    "key is 48213. Remember it. " + "The grass is green. The sky is blue. " * 12,
    "A train leaves at nine and arrives at noon. It stops twice, for ten "
    "minutes each time. How long does it move? Let us think step by step.",
    "Once upon a time there was a king who had three daughters, and each of "
    "them had a garden of her own, with a well in the middle of it.",
)
POINTS = ("hook_rot_q", "hook_rot_k")


def chosen(run):
    """{(rule, layer, tensor, head): dims} of the arm top_k."""
    return {(applied.rule, applied.layer, applied.tensor, choice.index):
            tuple(choice.dims)
            for applied in run.parts.applied if applied.arm != "clean"
            for choice in applied.chosen}


def compare(lab, name):
    entries = massive = differ = heads = largest_differ = 0
    choices = choices_differ = 0
    worst = 0.0
    for text in TEXTS:
        f32, bf16 = (lab.analyze(f"{name}-{kind}", text,
                                 arms=["clean", "top_k:1"])
                     for kind in ("f32", "bf16"))
        for point in POINTS:
            one, other = (run["clean"].point(point) for run in (f32, bf16))
            a, b = one.massive(), other.massive()
            entries += a.size
            massive += int(a.sum())
            differ += int((a != b).sum())
            x, y = (np.asarray(c.norms, np.float64) for c in (one, other))
            top, other_top = x.argmax(-1), y.argmax(-1)
            heads += top.size
            largest_differ += int((top != other_top).sum())
            both = a & b
            worst = max(worst, float(np.abs(y[both] / x[both] - 1).max()))
        wanted, got = chosen(f32), chosen(bf16)
        if wanted.keys() != got.keys() or not wanted:
            raise SystemExit(f"{name}: the rules did not choose alike")
        choices += len(wanted)
        choices_differ += sum(wanted[key] != got[key] for key in wanted)
    print(f"{name}: of {entries} entries {massive} are massive in f32; "
          f"{differ} in one type only; {largest_differ} of {heads} heads have "
          f"another largest dim; {choices_differ} of {choices} choices differ; "
          f"norms of massive entries within {100 * worst:.2f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("models", nargs="+", metavar="NAME=PATH")
    arguments = parser.parse_args()
    os.environ["QK_BIN_DIR"] = str(arguments.bin.resolve())
    sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "client/python")]
    import qkscope
    from processes import Server
    pairs = [model.split("=", 1) for model in arguments.models]
    server = Server({f"{name}-{kind}": f"{path},compute={kind}"
                     for name, path in pairs for kind in ("f32", "bf16")})
    try:
        with qkscope.connect(server.address) as lab:
            info = lab.server_info()
            print(", ".join(info.backends[0].kernel_ids))
            for name, _ in pairs:
                compare(lab, name)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
