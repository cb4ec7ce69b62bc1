"""Measures the Python client against a bare gRPC stub that throws all away.

    python tests/bench/python_client.py --bin build/release/bin --model FILE \
        [--numpy]

busy: the share of the time that the server's device is in use, by the account
of its users and by the time of its passes, while Lab.map sends 500 short prompts. overhead: the wall time of an analysis with default
captures over that of the stub, in pairs. raw: bytes per second of a kept result
of raw tensors, with all checks, and the stub's. Run it with the Python of
build/venv.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAIRS = 15
WORDS = "The city of Paris lies on the river Seine and its tower is tall. "


def drain(stub, request):
    """Reads a stream; returns its bytes."""
    return sum(len(message) for message in stub(request))


def bare(channel, method):
    return channel.unary_stream(
        f"/qkscope.v1.Analysis/{method}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=bytes)


def seconds(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def busy(lab, server):
    from processes import metrics

    def spent():
        found = metrics(server)
        return [sum(found[name].values())
                for name in ("qkscope_user_device_seconds_total",
                             "qkscope_pass_seconds_total")]

    prompts = [f"The number {i} comes after the number" for i in range(500)]
    before = spent()
    took = seconds(lambda: [result.value.arms for result in
                            lab.map(prompts, model="smollm2",
                                    concurrency=16)])
    device, passes = (100 * (after - earlier) / took
                      for earlier, after in zip(before, spent()))
    print(f"busy: {device:.1f} % of {took:.1f} s by the users' account, "
          f"{passes:.1f} % in passes")


def overhead(lab, stub, arms):
    from qkscope.spec import analyze_request
    request = analyze_request("smollm2", WORDS * 10, arms=arms)
    ratios = []
    for pair in range(PAIRS + 1):
        turns = [lambda: lab.analyze("smollm2", WORDS * 10, arms=arms),
                 lambda: drain(stub, request)]
        times = {}
        for which in ((0, 1), (1, 0))[pair % 2]:
            times[which] = seconds(turns[which])
        if pair:
            ratios.append(times[0] / times[1] - 1)
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"overhead: {len(arms)} arms, {100 * middle:+.1f} % "
          f"({100 * low:+.1f} to {100 * high:+.1f})")


def raw(lab, stub):
    import qkscope
    from qkscope.v1 import analysis_pb2
    request_id = lab.detach("smollm2", WORDS * 140,
                            capture=qkscope.Capture(form="raw"))
    size = lab.result(request_id).parts.finished.streamed_bytes
    request = analysis_pb2.GetResultRequest(request_id=request_id)
    for name, read in (("checked", lambda: lab.result(request_id)),
                       ("bare", lambda: drain(stub, request))):
        rates = sorted(size / seconds(read) / 1e9 for _ in range(7))
        print(f"raw: {size / 1e6:.0f} MB, {name}: {rates[3]:.2f} GB/s "
              f"({rates[0]:.2f} to {rates[-1]:.2f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--numpy", action="store_true",
                        help="checksums without the package crc32c")
    arguments = parser.parse_args()
    if arguments.numpy:
        sys.modules["crc32c"] = None  # as if it were not installed
    os.environ["QK_BIN_DIR"] = str(arguments.bin.resolve())
    sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "client/python")]
    import qkscope
    from processes import Server, scratch_folder
    from qkscope import crc32c
    print(f"checksums: {crc32c.crc32c.__module__}, load {os.getloadavg()[0]}")
    with scratch_folder() as folder:
        server = Server({"smollm2": arguments.model}, "--spool", folder)
        try:
            options = [("grpc.max_receive_message_length", -1)]
            with (qkscope.connect(server.address) as lab,
                  grpc.insecure_channel(server.address, options) as channel):
                lab.analyze("smollm2", WORDS)
                busy(lab, server)
                for arms in (["clean"], ["clean", "top_k:1", "bottom_k:1"]):
                    overhead(lab, bare(channel, "Analyze"), arms)
                raw(lab, bare(channel, "GetResult"))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
