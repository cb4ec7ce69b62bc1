r"""Draws massive_values.png from a saved analysis with three arms.

    pip install -r docs/pictures/requirements.txt
    qkctl analyze --arm clean --arm top_k:1 --arm bottom_k:1 --prompt "The \
city of Paris lies on the river Seine, and the tower that everybody knows was \
built there for a great world fair." --out a.safetensors
    python docs/pictures/massive_values.py a.safetensors

Upper half: one layer's norms of Q, K and V over the prompt's tokens in the
clean arm, heads x dims, as multiples of their head's mean. Entries above
lambda times the mean are massive. Lower half: what each arm does to the
model's predictions.
"""

import argparse
import json
import pathlib

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from safetensors import safe_open

TENSORS = (("Q", "hook_rot_q"), ("K", "hook_rot_k"), ("V", "hook_v"))
# Okabe and Ito's palette, which colour-blind readers can tell apart.
ARMS = (
    ("clean", "clean", "#7f7f7f"),
    ("top_k:1", "disrupted: largest dim\n(top_k:1)", "#D55E00"),
    ("bottom_k:1", "control: smallest dim\n(bottom_k:1)", "#0072B2"),
)
MASSIVE = "#56B4E9"


def draw_norms(axes, name, norms, massive_above):
    ratio = norms / norms.mean(axis=1, keepdims=True)
    image = axes.imshow(ratio, cmap="inferno", vmin=0, vmax=2 * massive_above,
                        aspect="auto", interpolation="nearest")
    massive = np.argwhere(ratio > massive_above)
    for head, dim in massive:
        axes.add_patch(Rectangle((dim - 0.5, head - 0.5), 1, 1, fill=False,
                                 edgecolor=MASSIVE, linewidth=1.6))
    heads, dims = norms.shape
    axes.set_yticks(range(heads))
    axes.set_ylabel(f"{name} head")
    axes.set_xticks(sorted({*range(0, dims, 8), dims - 1}))
    entries = "entry" if len(massive) == 1 else "entries"
    axes.set_title(f"{name}: {len(massive) or 'no'} massive {entries}, "
                   f"largest {ratio.max():.1f} x its head's mean",
                   loc="left", fontsize=10)
    return image


def draw_slow_half(axes, dims):
    """Which dims RoPE turns slowly: pairs (i, i + dims / 2), slower as i grows.
    """
    quarter = dims // 4
    for begin in (quarter, 3 * quarter):
        axes.barh(0, quarter, left=begin - 0.5, color="#009E73", height=1)
        axes.text(begin + (quarter - 1) / 2, 0, "RoPE turns these slowly",
                  ha="center", va="center", color="white", fontsize=8.5)
    axes.set_xlim(-0.5, dims - 0.5)
    axes.axis("off")


def draw_bars(axes, title, values, labels, show_arms):
    places = np.arange(len(ARMS))[::-1]
    for place, value, label, (_, _, color) in zip(places, values, labels, ARMS):
        axes.barh(place, value, color=color, height=0.66)
        axes.annotate(label, (value, place), xytext=(5, 0), va="center",
                      textcoords="offset points", fontsize=10)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_yticks(places, [name for _, name, _ in ARMS] if show_arms
                    else [""] * len(ARMS))
    axes.set_xlim(0, max(values) * 1.15)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=max(values) > 5))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("analysis", type=pathlib.Path)
    parser.add_argument("--layer", type=int, default=18)
    parser.add_argument("--out", type=pathlib.Path,
                        default=pathlib.Path(__file__).parent
                        / "massive_values.png")
    arguments = parser.parse_args()

    with safe_open(arguments.analysis, "numpy") as file:
        metadata = file.metadata()
        norms = {name: file.get_tensor(
            f"clean/layer.{arguments.layer}.{point}")
            for name, point in TENSORS}
    manifest = json.loads(metadata["manifest"])
    massive_above = manifest["expanded"]["statistics"]["lambda"]
    comparisons = {entry["arm"]: entry
                   for entry in json.loads(metadata["comparisons"])}
    tokens = len(manifest["token_ids"])

    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9,
                         "axes.titleweight": "bold"})
    figure = plt.figure(figsize=(10, 8.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(5.6, 2.0))

    rows = upper.subplots(
        len(TENSORS) + 1, 1, height_ratios=[
            *(norms[name].shape[0] + 1 for name, _ in TENSORS), 0.9])
    for axes, (name, _) in zip(rows, TENSORS):
        image = draw_norms(axes, name, norms[name], massive_above)
    rows[-2].set_xlabel("dim of the head")
    draw_slow_half(rows[-1], norms["Q"].shape[1])
    bar = upper.colorbar(image, ax=rows[:-1], extend="max", pad=0.01,
                         fraction=0.04)
    bar.set_label("norm over the prompt's tokens / mean of its head",
                  labelpad=8)
    bar.ax.axhline(massive_above, color=MASSIVE, linewidth=2)
    bar.ax.set_yticks([0, massive_above, 2 * massive_above],
                      ["0", f"massive: > {massive_above:g}",
                       f"{2 * massive_above:g}"], rotation=90, va="center")
    upper.suptitle(f"Where: {manifest['model']}, layer {arguments.layer}, "
                   f"{tokens} tokens", fontsize=12, fontweight="bold", x=0.01,
                   ha="left")

    kl = [comparisons[arm].get("mean_kl", 0.0) for arm, _, _ in ARMS]
    flips = [comparisons[arm].get("top1_flips", 0) for arm, _, _ in ARMS]
    left, right = lower.subplots(1, 2)
    draw_bars(left, "mean KL divergence from clean, nats", kl,
              [f"{value:.2f}" for value in kl], show_arms=True)
    draw_bars(right, f"next tokens that change, of {tokens}", flips,
              [str(value) for value in flips], show_arms=False)
    lower.suptitle("What breaking them does: one dim of every head of Q and K, "
                   "in all layers, becomes its own mean", fontsize=12,
                   fontweight="bold", x=0.01, ha="left")
    figure.savefig(arguments.out, dpi=160, facecolor="white")


if __name__ == "__main__":
    main()
