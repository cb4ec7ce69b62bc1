#!/usr/bin/env python3
"""Makes the Grafana dashboards of this folder.

    bash tests/deploy/make_venv.sh
    build/deploy-venv/bin/python -B deploy/grafana/make_dashboards.py

writes dashboards/*.json. --out FOLDER writes them elsewhere; --docs URL is
where docs/ can be read, for the links to the runbook.
"""

import argparse
import json
import pathlib

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as d

import activations
import fleet
import model
import service

DASHBOARDS = {"service": service, "activations": activations, "model": model,
              "fleet": fleet}
FOLDER = pathlib.Path(__file__).resolve().parent / "dashboards"


def _links():
    yield (board.DashboardLink("Dashboards")
           .type(d.DashboardLinkType.DASHBOARDS).tags(["qkscope"])
           .as_dropdown(True).include_vars(True).keep_time(True))
    yield (board.DashboardLink("Runbook").type(d.DashboardLinkType.LINK)
           .url("${docs}/runbook.md").icon("doc").target_blank(True)
           .tooltip("What each alert means and what to do"))


def build(name, docs="docs"):
    """Returns the dashboard as JSON's data."""
    source = DASHBOARDS[name]
    out = (board.Dashboard(source.TITLE).uid(f"qkscope-{name}")
           .description(source.TEXT).tags(["qkscope"]).readonly()
           .tooltip(d.DashboardCursorSync.CROSSHAIR).refresh("30s")
           .time("now-1h", "now").timezone("browser"))
    for link in _links():
        out = out.link(link)
    for variable in source.VARIABLES:
        out = out.with_variable(variable)
    out = out.with_variable(
        board.ConstantVariable("docs").value(docs).label("Docs")
        .description("Where docs/ can be read, for links to the runbook."))
    number = 0
    for title, panels in source.rows():
        number += 1
        out = out.with_row(board.Row(title).id(number))
        for panel in panels:
            number += 1
            out = out.with_panel(panel.id(number))
    return json.loads(json.dumps(out.build(), cls=JSONEncoder))


def text(name, docs="docs"):
    return json.dumps(build(name, docs), indent=1, sort_keys=True) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER)
    parser.add_argument("--docs", default="docs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in DASHBOARDS:
        (options.out / f"{name}.json").write_text(text(name, options.docs))


if __name__ == "__main__":
    main()
