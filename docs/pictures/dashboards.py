"""Draws the Grafana dashboards as pictures, from Prometheus's answers.

    pip install -r docs/pictures/requirements.txt
    python -B tests/deploy/dashboards_check.py --rounds 78 --every 13 \
        --pause 2.5 --answers a.json
    python docs/pictures/dashboards.py a.json docs/pictures

(docs/dashboards.md says what the first command needs.) It reads the JSON of
deploy/grafana/dashboards: the grid, the kinds of panels, units, thresholds and
colours. It is no Grafana: lines and colours are ours, numbers and places are
the dashboards'.
"""

import argparse
import json
import pathlib

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch
from PIL import Image

import dashboard_panels

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "grafana"
COLUMN, ROW, GAP = 60, 36, 8  # pixels
DPI = 100
HEAD = 76


def draw_head(figure, dashboard, values, height):
    figure.text(GAP * 2 / (24 * COLUMN), 1 - 16 / height, dashboard["title"],
                fontsize=14, fontweight="bold", va="top",
                color=dashboard_panels.INK)
    chosen = "     ".join(
        f"{one['label']}: {values[one['name']]}"
        for one in dashboard["templating"]["list"] if one["name"] in values)
    figure.text(GAP * 2 / (24 * COLUMN), 1 - 48 / height, chosen, fontsize=9,
                va="top", color=dashboard_panels.GREY)


def draw(name, answers, file):
    dashboard = json.loads(
        (FOLDER / "dashboards" / f"{name}.json").read_text())
    rows = max(one["gridPos"]["y"] + one["gridPos"]["h"]
               for one in dashboard["panels"])
    width, height = 24 * COLUMN + GAP, rows * ROW + HEAD + GAP
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI,
                        facecolor=dashboard_panels.PAGE)
    values = {
        variable: "All" if value == ".+" else value.replace("\\", "")
        for variable, value in answers["variables"][name].items()}
    draw_head(figure, dashboard, {"datasource": "Prometheus", **values}, height)
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        left, top = GAP + at["x"] * COLUMN, HEAD + at["y"] * ROW
        box = (left, top, at["w"] * COLUMN - GAP, at["h"] * ROW - GAP)
        if panel["type"] == "row":
            figure.text(left / width, 1 - (top + ROW / 2) / height,
                        "▾ " + panel["title"], fontsize=11, va="center",
                        color=dashboard_panels.INK)
            continue
        figure.add_artist(FancyBboxPatch(
            (box[0] / width, 1 - (box[1] + box[3]) / height), box[2] / width,
            box[3] / height, boxstyle="square,pad=0", linewidth=0.8,
            facecolor="white", edgecolor=dashboard_panels.EDGE, zorder=-1))
        dashboard_panels.draw(
            dashboard_panels.Place(figure, box, width, height), panel,
            answers[f"{name}/{panel['title']}"])
    figure.savefig(file, dpi=DPI, facecolor=figure.get_facecolor())
    plt.close(figure)
    # So many colours are enough, and make a small file.
    Image.open(file).convert("RGB").quantize(256).save(file, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("answers", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    answers = json.loads(options.answers.read_text())
    for name in ("service", "activations", "model", "fleet"):
        draw(name, answers, options.folder / f"dashboard_{name}.png")


if __name__ == "__main__":
    main()
