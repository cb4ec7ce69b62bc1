#!/usr/bin/env python3
"""Measures what requests cost a server: device time, memory and bytes, with 1,
4 and 16 requests at a time. docs/capacity.md says how many devices follow.

    build/venv/bin/python tests/bench/request_cost.py --bin build/release/bin
    build/venv/bin/python tests/bench/request_cost.py --server HOST:PORT

Without --server it starts one with SmolLM2 (or --model FILE) on this machine,
and ends it. A server in use gives wrong figures; one with users needs a token
in QKSCOPE_TOKEN, and TLS is not spoken.
"""

import argparse
import concurrent.futures
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import grpc

PROMPT_TOKENS, SHORT_TOKENS, NEW_TOKENS = 500, 20, 60
CONCURRENT = (1, 4, 16)
REPEATS = 3


class Cost:
    """A server's account of this user."""

    def __init__(self, address):
        from stubs import analysis, analysis_grpc  # it needs QK_BIN_DIR
        self.api = analysis
        self._channel = grpc.insecure_channel(
            address, [("grpc.max_receive_message_length", -1)])
        self._stub = analysis_grpc.AnalysisStub(self._channel)
        token = os.environ.get("QKSCOPE_TOKEN")
        self._metadata = [("authorization", f"Bearer {token}")] * bool(token)
        (self.model,) = self.call("ListModels",
                                  analysis.ListModelsRequest()).models

    def call(self, method, request):
        return getattr(self._stub, method)(request, metadata=self._metadata)

    def stream(self, method, request):
        return sum(1 for _ in self.call(method, request))

    def usage(self):
        (user,) = self.call("GetUsage", self.api.GetUsageRequest()).users
        return user

    def tokens(self, count, seed):
        vocabulary = min(self.model.vocab_size, 40_000)
        return {"token_ids": {"ids": [
            (1000 + 37 * seed + 101 * i) % vocabulary for i in range(count)]}}

    def analyze(self, tokens, arms=("clean",), off=False, seed=0):
        request = self.api.AnalyzeRequest(
            model=self.model.name, input=self.tokens(tokens, seed),
            arms=[{"name": name, **({} if name == "clean" else
                                    {"disruptions": [{"top_k": {"k": 1}}]})}
                  for name in arms])
        request.capture.off = off
        return request

    def generate(self, seed=0):
        return self.api.GenerateRequest(
            model=self.model.name, input=self.tokens(SHORT_TOKENS, seed),
            generate={"max_new_tokens": NEW_TOKENS, "ignore_eos": True})

    def measure(self, method, make, at_once):
        """Returns device ms, wall ms and streamed bytes of one request."""
        count = max(4, at_once)
        before = self.usage()
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda i: self.stream(method, make(seed=i)),
                          range(count)))
        wall = (time.monotonic() - begin) * 1e3
        after = self.usage()
        return ((after.total_device_ms - before.total_device_ms) / count,
                wall / count,
                (after.total_streamed_bytes - before.total_streamed_bytes)
                / count)


def least(cost, *arguments):
    """The least of several runs: other work on the machine only adds to it."""
    return [min(column) for column in zip(
        *(cost.measure(*arguments) for _ in range(REPEATS)))]


def report(cost):
    backend = cost.call("GetServerInfo", cost.api.GetServerInfoRequest()
                        ).backends[0]
    print(f"{cost.model.name} on {backend.name} ({backend.device}, "
          f"{backend.threads} threads)")
    cost.measure("Analyze", lambda **k: cost.analyze(PROMPT_TOKENS, **k), 1)
    row = "{:>8} {:>18} {:>18} {:>18} {:>18} {:>16}".format
    print(row("at once", "prefill, ms/1,000", "with norms", "clean and top_k",
              "decode, ms/token", "wall, analyze"))
    for at_once in CONCURRENT:
        plain, _, _ = least(cost, "Analyze", lambda **k: cost.analyze(
            PROMPT_TOKENS, off=True, **k), at_once)
        norms, wall, norm_bytes = least(cost, "Analyze", lambda **k:
                                        cost.analyze(PROMPT_TOKENS, **k),
                                        at_once)
        arms, _, _ = least(cost, "Analyze", lambda **k: cost.analyze(
            PROMPT_TOKENS, ("clean", "top_k"), **k), at_once)
        tokens, _, token_bytes = least(cost, "Generate", cost.generate,
                                       at_once)
        scale = 1000 / PROMPT_TOKENS
        tokens = (tokens - plain * SHORT_TOKENS / PROMPT_TOKENS) / NEW_TOKENS
        print(row(at_once, f"{plain * scale:.0f}", f"{norms * scale:.0f}",
                  f"{arms * scale:.0f}", f"{tokens:.2f}", f"{wall:.0f} ms"))
    for name, request in (
            (f"analyze, {PROMPT_TOKENS} tokens", cost.analyze(PROMPT_TOKENS)),
            ("clean and top_k", cost.analyze(PROMPT_TOKENS,
                                             ("clean", "top_k")))):
        need = cost.call("Estimate", request).estimate
        print(f"memory, {name}: {need.peak_extra_bytes / 2**20:.1f} MiB at most")
    print(f"bytes, analyze: {norm_bytes:,.0f}; generate, {NEW_TOKENS} tokens: "
          f"{token_bytes:,.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--server")
    arguments = parser.parse_args()
    os.environ["QK_BIN_DIR"] = str(pathlib.Path(arguments.bin).resolve())
    if arguments.server:
        report(Cost(arguments.server))
        return
    from processes import Server, demo_model
    with Server({"model": arguments.model or demo_model()}) as server:
        report(Cost(server.address))


if __name__ == "__main__":
    main()
