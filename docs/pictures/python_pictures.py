"""Draws the pictures of docs/python_pictures.md from one analysis and 240 short
generations, half a minute on two cores.

    pip install ./client/python[plot]
    qkscoped --model smollm2=$(bash deploy/fetch_model.sh) &
    python docs/pictures/python_pictures.py --model smollm2

The accuracies are of prompts made here: a passkey to be found in filler, which
is contextual knowledge, and capitals, which are parametric.
"""

import argparse
import pathlib
import random

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import qkscope
from qkscope import Arm, Capture, plot

PROMPT = ("The city of Paris lies on the river Seine, and the tower that "
          "everybody knows was built there for a great world fair.")
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. "
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Portugal": "Lisbon", "Austria": "Vienna", "Greece": "Athens",
    "Poland": "Warsaw", "Hungary": "Budapest", "Norway": "Oslo",
    "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Ireland": "Dublin", "Russia": "Moscow", "Turkey": "Ankara",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Japan": "Tokyo", "China": "Beijing",
    "India": "New Delhi", "Iran": "Tehran", "Iraq": "Baghdad",
    "Thailand": "Bangkok", "Cuba": "Havana", "Peru": "Lima",
    "Chile": "Santiago", "Argentina": "Buenos Aires", "Canada": "Ottawa",
    "Australia": "Canberra", "Belgium": "Brussels", "Romania": "Bucharest",
    "Bulgaria": "Sofia", "Ukraine": "Kyiv", "Vietnam": "Hanoi",
    "Indonesia": "Jakarta", "Nepal": "Kathmandu", "Syria": "Damascus",
    "Colombia": "Bogot", "Ecuador": "Quito"}
ARMS = {"clean": Arm.clean(), "top_k:1": Arm.top_k(1), "control": Arm.control()}


def tasks():
    """task -> [(prompt, answer)], 40 of each."""
    chosen = random.Random(0)
    keys = [str(chosen.randrange(10000, 100000)) for _ in range(40)]
    return {
        "passkey (contextual)": [
            (f"The passkey is {key}. Remember it. {FILLER}The passkey is", key)
            for key in keys],
        "capitals (parametric)": [
            (f"The capital of {country} is the city of", city)
            for country, city in CAPITALS.items()]}


def accuracies(lab, model):
    records = []
    for task, questions in tasks().items():
        for name, arm in ARMS.items():
            answers = lab.map(
                [prompt for prompt, _ in questions],
                lambda one, prompt, arm=arm: one.generate(
                    model, prompt, arm=arm, max_new_tokens=8).result().text)
            correct = sum(answer in result.value for result, (_, answer)
                          in zip(answers, questions))
            records.append({"task": task, "arm": name, "correct": correct,
                            "n": len(questions)})
            print(records[-1])
    return records


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--server", help="HOST:PORT; QKSCOPE_SERVER otherwise")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--layer", type=int, default=18)
    parser.add_argument("--out", type=pathlib.Path,
                        default=pathlib.Path(__file__).parent)
    arguments = parser.parse_args()
    layer = arguments.layer

    with qkscope.connect(arguments.server) as lab:
        model = arguments.model
        run = lab.analyze(
            model, PROMPT, arms=[Arm.clean(), Arm.top_k(1), Arm.control()],
            capture=Capture(points=["hook_q", "hook_k", "hook_v", "hook_rot_q",
                                    "hook_rot_k"], stage="before_and_after"))
        info = lab.model(model)
        wavelengths = info.rope[info.layers[layer].rope].wavelengths
        pieces = lab.tokenize(model, PROMPT).pieces
        records = accuracies(lab, model)

    def save(name, axes, dpi=110):
        figure = np.ravel(axes)[0].figure
        figure.savefig(arguments.out / f"python_{name}.png", dpi=dpi,
                       metadata={"Software": None})
        plt.close(figure)

    texts = [piece.decode(errors="replace") if isinstance(piece, bytes)
             else str(piece) for piece in pieces]
    save("qkv", plot.qkv(run, layer, kind="surface", suptitle=(
        f"{run.model}, layer {layer}, {len(run.token_ids)} tokens")), 150)
    save("heatmap", plot.heatmap(run, layer, lambda_=5))
    save("surface", plot.surface(run, layer, tensor="k"))
    save("layers", plot.layers(run, 3, lambda_=5))
    save("by_layer", plot.by_layer(run, arms=["clean"]))
    save("ratios", plot.ratio_distribution(run))
    save("rope", plot.rope(run, layer, wavelengths=wavelengths), 150)
    save("difference", plot.difference(run, layer=layer, stage="after",
                                       arms=("clean", "top_k:1")))
    save("by_position", plot.by_position(run, tokens=texts))
    save("accuracy", plot.accuracy(records))


if __name__ == "__main__":
    main()
