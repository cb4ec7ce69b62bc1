"""Compares what two servers take of the processor for the same requests.

    python tests/bench/activation_cost.py --model FILE [--pairs N] \
        --a 'QKSCOPED [FLAGS]' --b 'QKSCOPED [FLAGS]' WORK...

WORK: score, generate, analyze. The servers take turns; a figure is the median
over the pairs of b / a - 1, of the CPU time of the server's threads. A server
may be some per cent slower than an equal one that started later (its memory is
another), so each round has servers of both orders of starting, and the cost is
the geometric mean of the two. Run it with the Python of build/venv.
"""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

import grpc
from google.protobuf import text_format

os.environ.setdefault("QK_BIN_DIR", "")  # the tests' modules want one
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from stubs import analysis, analysis_grpc

THREADS = "2"
PROMPT, CONTEXT, NEW = 512, 256, 32
PATIENCE_S = 500


def ids(count):
    return "token_ids {" + " ".join(f"ids: {1 + 7 * i % 900}"
                                    for i in range(count)) + "}"


REQUESTS = {
    "score": ("Score", analysis.ScoreRequest,
              f"model: 'm' pairs {{context {{{ids(CONTEXT)}}} continuation "
              f"{{{ids(PROMPT - CONTEXT)}}}}}"),
    "generate": ("Generate", analysis.GenerateRequest,
                 f"model: 'm' input {{{ids(PROMPT)}}} "
                 f"generate {{max_new_tokens: {NEW} ignore_eos: true}}"),
    "analyze": ("Analyze", analysis.AnalyzeRequest,
                f"model: 'm' input {{{ids(PROMPT)}}}")}


class Server:
    def __init__(self, command, model):
        self.process = subprocess.Popen(
            [*shlex.split(command), "--model", f"m={model}", "--listen",
             "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--threads",
             THREADS], stderr=subprocess.PIPE)
        for line in self.process.stderr:
            entry = json.loads(line)
            if entry["event"] == "listening":
                channel = grpc.insecure_channel(entry["listen"])
                self.stub = analysis_grpc.AnalysisStub(channel)
            if entry["event"] == "model_ready":
                break

    def cpu_seconds(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0])
                   for task in tasks.iterdir()) / 1e9

    def run(self, work):
        method, kind, text = REQUESTS[work]
        before = self.cpu_seconds()
        answer = getattr(self.stub, method)(text_format.Parse(text, kind()),
                                            timeout=PATIENCE_S)
        if method != "Score":
            list(answer)
        return self.cpu_seconds() - before


def ratios(servers, work, pairs):
    """(b / a - 1 of each pair, a's seconds)."""
    for server in servers:
        server.run(work)  # the first is slower
    found = []
    for i in range(pairs):
        order = servers if i % 2 == 0 else servers[::-1]
        taken = {server: server.run(work) for server in order}
        found.append((taken[servers[0]], taken[servers[1]]))
    return [b / a - 1 for a, b in found], [a for a, _ in found]


def measure(args, a_first):
    """work -> ratios and seconds, with servers that start in this order."""
    commands = {"a": args.a, "b": args.b}
    servers = {}
    try:
        for name in ("ab" if a_first else "ba"):
            servers[name] = Server(commands[name], args.model)
        return {work: ratios([servers["a"], servers["b"]], work, args.pairs)
                for work in args.work}
    finally:
        for server in servers.values():
            server.process.kill()
            server.process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--a", required=True)
    parser.add_argument("--b", required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("work", nargs="+", choices=REQUESTS)
    args = parser.parse_args()
    found = [(measure(args, True), measure(args, False))
             for _ in range(args.rounds)]
    for work in args.work:
        medians = [[statistics.median(one[work][0]) for one in both]
                   for both in found]
        costs = [statistics.geometric_mean([1 + one, 1 + other]) - 1
                 for one, other in medians]
        seconds = statistics.median(
            taken for both in found for one in both for taken in one[work][1])
        print(f"{work}: {100 * statistics.mean(costs):+.2f} % (by round "
              + ", ".join(f"{100 * cost:+.2f}" for cost in costs)
              + f"), a takes {seconds:.3f} s; by order of starting "
              + ", ".join(f"{100 * one:+.2f} and {100 * other:+.2f}"
                          for one, other in medians), flush=True)


if __name__ == "__main__":
    main()
