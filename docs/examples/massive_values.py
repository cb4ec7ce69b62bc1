"""Where the largest value of Q stands in each layer, and what breaking it does.

    python3 massive_values.py HOST:PORT MODEL
"""

import sys

import numpy as np
import qkscope
from qkscope import Arm


def analyze(server, model):
    with qkscope.connect(server) as lab:
        return lab.analyze(
            model,
            "The city of Paris lies on the river",
            arms=[Arm.clean(), Arm.top_k(1, name="disrupted"), Arm.control()],
        )


def print_largest(q):
    # norms: (layers, heads, head_dim), over the prompt's tokens
    ratios = q.norms / q.mean_of_heads[..., np.newaxis]
    for layer, ratio in zip(q.layers, ratios):
        head, dim = np.unravel_index(ratio.argmax(), ratio.shape)
        print(f"layer {layer}: head {head}, dim {dim}, "
              f"{ratio[head, dim]:.1f} times its head's mean")


def main():
    try:
        run = analyze(*sys.argv[1:])
    except qkscope.QkscopeError as error:
        sys.exit(str(error))
    print_largest(run["clean"].q)
    for arm in run:
        print(f"{arm.name}: KL {arm.comparison.mean_kl:.4f}, "
              f"{arm.comparison.top1_flips} next tokens changed")


if __name__ == "__main__":
    main()
