"""Prints, per layer, the massive values of Q and K before and after RoPE, and
their share in the low-frequency half of the dims.

    python docs/rope_claim.py --server HOST:PORT --model NAME \
        [--qkctl build/release/bin/qkctl] [--prompt TEXT | --prompt-file FILE]

The paper's fourth claim (arXiv:2502.01563): RoPE causes the massive values; they
sit in the dims that it turns slowest, and models without RoPE have none. A
massive value is a (head, dim) whose L2 norm over the prompt is over 5 times its
head's mean. A rotation keeps the norm of a pair of dims at every position, so
what may differ between the two columns is how the norm is shared within a pair.
"""

import argparse
import json
import pathlib
import subprocess
import sys

PROMPT = (
    "The passkey is 71432. Remember it. The grass is green. The sky is blue. "
    "The sun is yellow. Here we go. There and back again. What is the passkey?"
)
POINTS = ("HOOK_Q", "HOOK_ROT_Q", "HOOK_K", "HOOK_ROT_K")


def analyze(arguments: argparse.Namespace) -> list[dict]:
    """The events of one clean pass."""
    command = [
        str(arguments.qkctl), "--server", arguments.server, "analyze",
        "--model", arguments.model, "--json",
        "--points", ",".join(POINTS).lower(),
    ]
    if arguments.prompt_file:
        command += ["--prompt-file", str(arguments.prompt_file)]
    else:
        command += ["--prompt", arguments.prompt]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def print_table(events: list[dict]) -> None:
    """One row per layer; the totals below it."""
    layers: dict[int, dict[str, dict]] = {}
    no_rope = set()
    for event in events:
        frame = event.get("layer")
        if frame and "statistics" in frame:
            layers.setdefault(frame["layer"], {})[frame["point"]] = frame[
                "statistics"]
            if frame.get("no_rope"):
                no_rope.add(frame["layer"])
    print("massive values (and their share in low-frequency dims)")
    heading = ("Q before", "Q after", "K before", "K after")
    print("layer" + "".join(f"{name:>16}" for name in heading))
    totals = {point: [0, 0.0] for point in POINTS}
    for layer, points in sorted(layers.items()):
        line = f"{layer:>5}"
        for point in POINTS:
            statistics = points[point]
            count = statistics["massive_count"]
            share = statistics.get("low_frequency_share")
            totals[point][0] += count
            totals[point][1] += count * (share or 0.0)
            shown = "" if share is None else f"{share:.0%}"
            line += f"{count:>10} {shown:>5}"
        print(line + ("  no RoPE" if layer in no_rope else ""))
    line = "  all"
    for point in POINTS:
        count, low = totals[point]
        has_rope = count > 0 and len(no_rope) < len(layers)
        share = f"{low / count:.0%}" if has_rope else ""
        line += f"{count:>10} {share:>5}"
    print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--qkctl", type=pathlib.Path,
                        default=pathlib.Path("build/release/bin/qkctl"))
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--prompt-file", type=pathlib.Path)
    print_table(analyze(parser.parse_args()))


if __name__ == "__main__":
    main()
