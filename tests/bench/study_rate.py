"""Times contextual_vs_parametric on SmolLM2 against transformers with hooks, as
the published code runs it (a prompt at a time), and with 8 prompts at a time.

    python tests/bench/study_rate.py --bin build/release/bin \
        --gguf SmolLM2-135M-Instruct.Q4_1.gguf --peer-python VENV/bin/python \
        [--count 34] [--batches 1,8] [--rounds 3]

Runs with the package qkscope and its extra [study]; the peer's Python needs
torch, transformers, accelerate and gguf. Both sides get the same tokens and
generate greedily, in f32, with 2 threads. qkscope's time is that of the whole
study, from the plan to the last row of its file; the peer's is that of its
generate() calls. They take turns, a round with items of its own each, because a
machine's speed drifts: three rounds of 34 items are about 100 of each task.
Prints how many answers are equal, too.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import qkscope
from qkscope.study import load, run_study
from qkscope.study.store import Store


def prompts_of(file):
    """The tokens of each unit, once per arm, and the answers."""
    prompts, texts = [], []
    with Store.open(file) as store:
        answers = {}
        for key, answer in store.answers():
            answers.setdefault(key, {})[answer.arm] = answer
        for unit in store.units():
            manifest = store.manifest(unit.key)
            limit = manifest["expanded"]["generate"]["max_new_tokens"]
            for arm, answer in answers[unit.key].items():
                prompts.append({"ids": manifest["token_ids"], "arm": arm,
                                "limit": limit})
                texts.append(answer.text)
    return prompts, texts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--gguf", type=pathlib.Path, required=True)
    parser.add_argument("--peer-python", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=34)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default="1,8")
    arguments = parser.parse_args()
    os.environ["QK_BIN_DIR"] = str(arguments.bin.resolve())
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
    from processes import Server
    study = load("contextual_vs_parametric")
    ratios = {batch: [] for batch in map(int, arguments.batches.split(","))}
    with tempfile.TemporaryDirectory() as name:
        server = Server({"smollm2": arguments.gguf}, "--threads", "2")
        try:
            with qkscope.connect(server.address) as lab:
                lab.analyze("smollm2", "warm", capture=qkscope.Capture(off=True))
                for number in range(arguments.rounds):
                    tasks = tuple(
                        dataclasses.replace(task, count=arguments.count,
                                            seed=number)
                        for task in study.tasks)
                    one_round(arguments, lab, ratios,
                              dataclasses.replace(study, tasks=tasks),
                              pathlib.Path(name) / f"{number}.sqlite")
        finally:
            server.stop()
    for batch, found in ratios.items():
        print(f"batch {batch}: {statistics.median(found):.2f}x "
              f"({min(found):.2f} to {max(found):.2f})")


def one_round(arguments, lab, ratios, study, file):
    print(f"load before: {os.getloadavg()[0]:.2f}")
    start = time.perf_counter()
    run_study(lab, study, file)
    own = time.perf_counter() - start
    prompts, texts = prompts_of(file)
    tokens = sum(len(prompt["ids"]) for prompt in prompts)
    print(f"qkscope: {own:.1f} s for {len(prompts)} answers, "
          f"{tokens} prompt tokens", flush=True)
    for batch, found in ratios.items():
        done = subprocess.run(
            [arguments.peer_python, pathlib.Path(__file__).with_name(
                "study_peer.py"), arguments.gguf, "--batch", str(batch)],
            input=json.dumps({"eos": [2, 0], "prompts": prompts}),
            stdout=subprocess.PIPE, encoding="utf-8", check=True)
        answer = json.loads(done.stdout)
        found.append(answer["seconds"] / own)
        same = sum(a == b for a, b in zip(texts, answer["texts"]))
        print(f"transformers, batch {batch}: {answer['seconds']:.1f} s, "
              f"{found[-1]:.2f}x as long; {same} of {len(texts)} answers are "
              "equal", flush=True)


if __name__ == "__main__":
    main()
