"""Runs the engine and its peers on one model, in turns, and prints ratios.

    python tests/bench/compare_peers.py --bin build/release/bin \
        --gguf SmolLM2-135M-Instruct.Q4_1.gguf \
        [--transformers VENV/bin/python] [--openvino VENV/bin/python \
        --dense DENSE.gguf] [--llama-bin FOLDER] [--threads 2] \
        [--types f32,bf16] [--rounds 5]

Peers, of which those that are named take part: transformers with and without hooks that take the L2 norm over tokens of
q, k and v in every layer (transformers_peer.py), OpenVINO GenAI
(openvino_peer.py; dense_gguf.py makes its file), oneDNN alone
(onednn_limit.cc), and llama.cpp's llama-bench and llama-batched-bench if
--llama-bin has them. The Python of --transformers needs torch, transformers,
accelerate and gguf, that of --openvino openvino-genai. Everybody computes the
last row's logits only. A round asks each of them once, because a machine's
speed drifts; ratios are of one round, and their medians are printed with the
quartiles. Nothing else should run on the machine meanwhile.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
LENGTHS = (512, 2048)


class Asked:
    """A process that answers each line with a JSON value."""

    def __init__(self, command: list[str], threads: int) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
            env=dict(os.environ, OMP_NUM_THREADS=str(threads)))

    def ask(self, line: str):
        time.sleep(0.5)  # until the threads of others have gone to sleep
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        for answer in self._process.stdout:
            # A library may print lines of its own.
            if answer.startswith(('"', "{")) or answer[0].isdigit():
                return json.loads(answer)
        raise SystemExit(f"{self._process.args} ended with "
                         f"{self._process.wait()} at '{line}'")

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def run_lines(command: list[str], threads: int) -> list[dict]:
    """Runs a program and returns its JSON lines."""
    out = subprocess.run(
        command, env=dict(os.environ, OMP_NUM_THREADS=str(threads)),
        check=True, capture_output=True, text=True)
    return [json.loads(line) for line in out.stdout.splitlines()
            if line.startswith("{")]


def llama_cpp(folder: pathlib.Path, gguf: pathlib.Path,
              threads: int) -> dict[str, float]:
    """Returns llama.cpp's tokens a second by test name."""
    rates = {}
    for row in json.loads(subprocess.run(
            [str(folder / "llama-bench"), "-m", str(gguf), "-t", str(threads),
             "-p", "512,2048", "-n", "32", "-r", "3", "-o", "json"],
            check=True, capture_output=True, text=True).stdout):
        name = (f"pp{row['n_prompt']}" if row["n_prompt"]
                else f"tg{row['n_gen']}")
        rates[name] = row["avg_ts"]
    batched = subprocess.run(
        [str(folder / "llama-batched-bench"), "-m", str(gguf), "-t",
         str(threads), "-npp", "16", "-ntg", "32", "-npl", "8",
         "--output-format", "jsonl"],
        check=True, capture_output=True, text=True).stdout
    for line in batched.splitlines():
        if line.startswith("{"):
            rates["batched8"] = json.loads(line)["speed_tg"]
    return rates


def median_of(values: list[float], unit: str = "x") -> str:
    """The median, and the quartiles in brackets."""
    if len(values) < 2:
        return f"{values[0]:.2f}{unit}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f}{unit} ({low:.2f} to {high:.2f})"


def transformers(kind: str, args: argparse.Namespace) -> Asked:
    return Asked([args.transformers, str(HERE / "transformers_peer.py"),
                  str(args.gguf), kind, str(args.threads)], args.threads)


def prefill(kind: str, args: argparse.Namespace,
            llama: dict[str, float]) -> None:
    """Prints the ratios of prompts' passes, capture on."""
    threads = str(args.threads)
    own = Asked([str(args.bin / "engine_bench"), str(args.gguf), kind, threads,
                 "cpu", "ask"], args.threads)
    peers, ways = {}, {}
    if args.transformers:
        peers["transformers"] = transformers(kind, args)
        ways["transformers plain"] = "transformers", "plain"
        ways["transformers with hooks"] = "transformers", "hooks"
    if args.openvino:
        peers["openvino"] = Asked(
            [args.openvino, str(HERE / "openvino_peer.py"), str(args.dense),
             kind, threads], args.threads)
        ways["OpenVINO GenAI plain"] = "openvino", "plain"
    order = ["own", *ways]
    for tokens in LENGTHS:
        seconds = {name: [] for name in ("own", "limit", *ways)}
        for number in range(args.rounds + 1):  # the first is a warm-up
            asked = {}
            first = number % len(order)  # each begins a round in its turn
            for name in order[first:] + order[:first]:
                if name == "own":
                    asked[name] = own.ask(str(tokens))["seconds"]
                else:
                    peer, command = ways[name]
                    asked[name] = peers[peer].ask(f"{command} {tokens}")
            limit = run_lines([str(args.bin / "onednn_limit"), kind,
                               str(tokens)], args.threads)[0]
            if "limit_s" in limit:
                asked["limit"] = limit["limit_s"]
            for name, value in asked.items():
                if number > 0:
                    seconds[name].append(value)
        print_ratios(f"{kind} prefill T={tokens}", tokens, seconds)
        if f"pp{tokens}" in llama:
            rates = [tokens / s / llama[f"pp{tokens}"] for s in seconds["own"]]
            print(f"{kind} prefill T={tokens}: {median_of(rates)} llama.cpp "
                  f"({llama[f'pp{tokens}']:.0f} tokens/s)", flush=True)
    for process in (own, *peers.values()):
        process.end()


def print_ratios(title: str, tokens: int,
                 seconds: dict[str, list[float]]) -> None:
    own = seconds["own"]
    print(f"{title}: {tokens / statistics.median(own):.0f} tokens/s")
    for name, values in seconds.items():
        if name == "own" or not values:
            continue
        rate = tokens / statistics.median(values)
        if name == "limit":
            ratio = median_of([a / b for a, b in zip(own, values)])
            print(f"{title}: {ratio} the limit's time")
        else:
            ratio = median_of([b / a for a, b in zip(own, values)])
            print(f"{title}: {ratio} as fast as {name} ({rate:.0f} tokens/s)")
    print(end="", flush=True)


def rest(kind: str, args: argparse.Namespace,
         llama: dict[str, float]) -> None:
    """Prints arms, prompts together, and decoding beside its peers."""
    rows = run_lines([str(args.bin / "engine_bench"), str(args.gguf), kind,
                      str(args.threads), "cpu", "prefill512", "arms",
                      "together", "decode"], args.threads)
    # It loads its model now, and not beside the engine.
    peer = transformers(kind, args) if args.transformers else None
    for row in rows:
        print(kind, json.dumps(row))
        if row["what"] == "prefill":
            ratio = row["capture_on_s"] / row["capture_off_s"] - 1
            print(f"{kind}: capture costs {100 * ratio:.1f} %")
        if row["what"] == "decode" and peer:
            rate = peer.ask(f"decode {row['sequences']} 32")
            print(f"{kind} decode x{row['sequences']}: "
                  f"{row['tokens_per_s']:.1f} tokens/s; transformers "
                  f"{rate:.1f}, {row['tokens_per_s'] / rate:.2f}x")
    if peer:
        peer.end()
    if "batched8" in llama:
        print(f"{kind}: llama.cpp decode alone {llama['tg32']:.1f}, 8 together "
              f"{llama['batched8']:.1f} tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--gguf", type=pathlib.Path, required=True)
    parser.add_argument("--transformers", help="a Python that has it")
    parser.add_argument("--openvino", help="a Python that has OpenVINO GenAI")
    parser.add_argument("--dense", type=pathlib.Path,
                        help="the model as dense_gguf.py writes it")
    parser.add_argument("--llama-bin", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--types", default="f32,bf16")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.openvino and not args.dense:
        parser.error("--openvino needs --dense")
    llama = (llama_cpp(args.llama_bin, args.gguf, args.threads)
             if args.llama_bin else {})
    print(f"load: {os.getloadavg()[0]:.2f}")
    for kind in args.types.split(","):
        prefill(kind, args, llama)
        rest(kind, args, llama)


if __name__ == "__main__":
    main()
