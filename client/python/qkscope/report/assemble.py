"""Puts the report of a run together."""

from __future__ import annotations

import base64
import importlib.resources
import io
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from qkscope.atomic import write_atomically
from qkscope.plot import _data, _figure
from qkscope.report import maps, tables
from qkscope.report.page import (Html, data_block, element, join, page,
                                 picture)

MOST_POSITIONS = 4000  # of an arm
MOST_POINTS = 60_000  # of all arms


def write(run: Any, path: str | os.PathLike[str], *,
          title: str | None = None) -> None:
    """Writes the report of a run to a file, whole or not at all.

    BadFile if it cannot be written; MissingExtra without matplotlib.
    """
    page = build(run, title=title)
    write_atomically(path, [page.encode("utf-8", "replace")])


def build(run: Any, *, title: str | None = None) -> str:
    """Returns the report of a run as HTML.

    It holds static pictures and tables, an explorer for browsers with
    JavaScript, and the manifest. Its size is bounded: see qkscope.report.maps
    for the matrices; tables and lists say what they leave out.
    """
    series, notes = maps.collect(run)
    lambda_ = tables.lambda_of(run)
    title = title or f"{maps.short(run.model)}: {len(run.token_ids)} tokens"
    comparisons, positions_note = _comparisons(run)
    if positions_note:
        notes.append(positions_note)
    body = join([
        element("header", join([
            element("h1", title), tables.summary(run)])),
        element("main", join([
            _notes(notes),
            _section("What the arms do", tables.arms(run)),
            _section("At a glance", _pictures(run)),
            _explorer(series, comparisons),
            _section("Statistics by layer", tables.statistics(run)),
            _section("Comparison by position", tables.positions(run)),
            _section("Manifest", tables.manifest(run)),
        ])),
        data_block("data", {
            "lambda": lambda_, "colours": _colour_table(),
            "series": [one.to_json(lambda_) for one in series],
            "comparisons": comparisons}) if series or comparisons else "",
    ])
    return page(title, body, style=_resource("report.css"),
                script=_script())


def _resource(name: str) -> str:
    return (importlib.resources.files("qkscope.report") / name).read_text(
        encoding="utf-8")


def _script() -> str:
    parts = map(_resource, ("report_drawing.js", "report.js"))
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def _section(title: str, content: Html) -> Html:
    if not content:
        return Html()
    return element("section", join([element("h2", title), content]))


def _notes(notes: list[str]) -> Html:
    if not notes:
        return Html()
    return element("ul", join(element("li", note) for note in notes),
                   class_="notes")


def _colour_table() -> str:
    """256 colours, red, green and blue a byte each."""
    import matplotlib

    colours = matplotlib.colormaps[_figure.HEAT](np.arange(256), bytes=True)
    return base64.b64encode(colours[:, :3].tobytes()).decode("ascii")


def _comparisons(run: Any) -> tuple[list[dict[str, Any]], str]:
    """Per arm what the explorer draws by position."""
    shown, note = [], ""
    compared = [(name, arm) for name, arm in maps.shown_arms(run)
                if arm.comparison is not None]
    names = {arm.name: name for name, arm in maps.shown_arms(run)}
    colours = _figure.arm_colours([arm for _, arm in compared])
    most = min(MOST_POSITIONS, MOST_POINTS // max(len(compared), 1))
    for name, arm in compared:
        values = arm.comparison
        length = len(values.kl)
        if length > most:
            note = (f"There is much: lines by position show the first {most} "
                    f"of {length} positions.")
        shown.append({
            "arm": name, "baseline": names.get(
                values.baseline, maps.short(values.baseline)),
            "colour": colours[arm.name],
            "kl": _numbers(values.kl[:most]),
            "logprob": _numbers(values.token_logprob[:most]),
            "flip": [int(flip) for flip in values.top1_flip[:most]]})
    return shown, note


def _numbers(values: Any) -> list[float | None]:
    return [float(f"{value:.5g}") if np.isfinite(value) else None
            for value in np.asarray(values, float)]


def _pictures(run: Any) -> Html:
    """Static pictures, for readers without JavaScript and for print."""
    from qkscope import plot

    arm = _data.one_arm(run, None)
    layer = _liveliest(arm)
    # More lines than colours help nobody.
    compared = [one.name for one in run if one.comparison is not None][:8]
    name = maps.short(arm.name)
    wanted: list[tuple[str, str, Callable[[], Any]]] = [
        (f"Q, K and V of layer {layer} in arm {name}, heads by dims: the "
         "L2 norm of each over the prompt's tokens",
         f"Q, K and V, layer {layer}, {name}",
         lambda: plot.qkv(arm, layer)),
        ("Number of massive values by layer", f"Massive values, {name}",
         lambda: plot.by_layer(arm)),
        ("KL divergence from the baseline by position",
         "What the arms change, by position",
         lambda: plot.by_position(run, arms=compared)),
        ("Log-probability of the prompt's tokens by position",
         "Log-probabilities by position",
         lambda: plot.by_position(run, "logprob", arms=compared))]
    shown = []
    for alt, caption, draw in wanted:
        png = _png(draw)
        if png:
            shown.append(element("figure", join([
                picture(png, alt), element("figcaption", caption)])))
    return element("div", join(shown), class_="pictures") if shown else Html()


def _png(draw: Callable[[], Any]) -> bytes:
    """A picture; nothing if there is nothing that it could show."""
    pyplot = _figure.pyplot()
    with warnings.catch_warnings():
        # Tokens and names may have letters that the font lacks.
        warnings.simplefilter("ignore")
        try:
            axes = draw()
        except ValueError:
            return b""
        figure = np.ravel(axes)[0].figure
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
        pyplot.close(figure)
    return file.getvalue()


def _liveliest(arm: Any) -> int | None:
    """The layer of Q, or else K or V, with the largest ratio."""
    for name in ("q", "k", "v"):
        capture = _data.find(arm, name)
        if capture is None or maps.unshown(capture):
            continue
        ratios = [_data.statistic(_data.reduced(capture, layer), "ratio", 5.0)
                  for layer in capture.layers]
        if np.isfinite(ratios).any():
            return int(capture.layers[int(np.nanargmax(ratios))])
        return int(capture.layers[0])
    return None


def _explorer(series: list[maps.Series],
              comparisons: list[dict[str, Any]]) -> Html:
    """What the script fills; hidden until it runs."""
    def select(identifier: str, label: str) -> Html:
        return element("label", join([label, " ", element(
            "select", id=identifier)]))

    parts: list[Html] = []
    if series:
        parts += [
            element("div", join([
                select("arm", "Arm"), select("tensor", "Tensor"),
                element("label", join(["Layer ", Html(
                    '<input id="layer" type="range" min="0" value="0">'),
                    element("output", id="layer-name")])),
                select("head", "Head"),
                element("label", join([Html(
                    '<input id="relative" type="checkbox" checked> '),
                    "relative to the head's mean"]))]), class_="controls"),
            element("h3", id="layer-title"),
            Html('<canvas id="layer-map" tabindex="0" role="img"></canvas>'),
            element("p", id="scale", class_="soft"),
            element("h3", id="head-title"),
            Html('<canvas id="head-map" tabindex="0" role="img"></canvas>'),
            element("h3", join([element("span", "By layer: "), element(
                "select", join([
                    element("option", "massive values", value="massive"),
                    element("option", "largest norm / mean", value="ratio"),
                    element("option", "largest norm", value="max")]),
                id="statistic", aria_label="Statistic")])),
            element("div", id="layer-lines", class_="chart")]
    if comparisons:
        parts += [
            element("h3", join([element("span", "By position: "), element(
                "select", join([
                    element("option", "KL from the baseline, nats",
                            value="kl"),
                    element("option", "log-probability of the token, nats",
                            value="logprob")]),
                id="measure", aria_label="Measure")])),
            element("div", id="position-lines", class_="chart")]
    if not parts:
        return Html()
    return element("section", join([
        element("h2", "Look around"),
        element("p", "Move over a map or a line to read it; click a row to "
                "choose that head or layer, or use the arrow keys.",
                class_="soft"),
        *parts, element("p", id="reading", role="status", aria_live="polite"),
    ]), id="explorer", hidden=True)

