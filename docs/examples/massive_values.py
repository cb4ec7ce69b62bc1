"""Where the largest value of Q stands in each layer, and what breaking it does.

    python3 massive_values.py HOST:PORT MODEL
"""

import sys

import grpc
import numpy as np
from qkscope.v1 import analysis_pb2, analysis_pb2_grpc, spec_pb2


def request(model):
    return analysis_pb2.AnalyzeRequest(
        model=model,
        input={"text": b"The city of Paris lies on the river"},
        arms=[
            {"name": "clean"},
            {"name": "disrupted", "disruptions": [{"top_k": {"k": 1}}]},
            {"name": "control", "disruptions": [{"bottom_k": {"k": 1}}]},
        ],
        capture={"points": [spec_pb2.HOOK_ROT_Q]},
        compare={"baseline": "clean"},
    )


def print_largest(layer):
    # Norms over tokens fit into one chunk; larger data come in several events.
    assert layer.offset == 0 and len(layer.data) == layer.total_bytes
    norms = np.frombuffer(layer.data, "<f4").reshape(layer.shape)
    ratios = norms / norms.mean(axis=1, keepdims=True)
    head, dim = np.unravel_index(ratios.argmax(), ratios.shape)
    print(f"layer {layer.layer}: head {head}, dim {dim}, "
          f"{ratios[head, dim]:.1f} times its head's mean")


def main():
    server, model = sys.argv[1:]
    finished = False
    with grpc.insecure_channel(server) as channel:
        stub = analysis_pb2_grpc.AnalysisStub(channel)
        for event in stub.Analyze(request(model)):
            kind = event.WhichOneof("event")
            if kind == "layer" and event.layer.arm == "clean":
                print_largest(event.layer)
            elif kind == "comparison":
                arm = event.comparison
                print(f"{arm.arm}: KL {arm.mean_kl:.4f}, "
                      f"{arm.top1_flips} next tokens changed")
            elif kind == "finished":
                finished = True
    if not finished:
        sys.exit("the stream is incomplete")


if __name__ == "__main__":
    main()
