"""Asks Prometheus what the panels ask, with values in place of variables."""

import json
import pathlib
import re

import promql_parser as ql

import promql
import stack

FOLDER = stack.ROOT / "deploy" / "grafana" / "dashboards"
NAMES = ("service", "activations", "model", "fleet")
# Metrics of /metrics whose names begin like those of /metrics/activations.
OF_THE_SERVICE = {"qkscope_activation_non_finite_total"}


def load():
    """Returns name -> dashboard, as committed."""
    return {name: json.loads((FOLDER / f"{name}.json").read_text())
            for name in NAMES}


def panels(dashboard):
    return [one for one in dashboard["panels"] if one["type"] != "row"]


def job_of(panel):
    """The job whose scrapes a panel shows."""
    names = {node.name for target in panel["targets"]
             for node, _ in promql.walk(promql.parse(target["expr"]))
             if isinstance(node, ql.VectorSelector)}
    later = {name for name in names if name.startswith("qkscope_activation_")}
    return "qkscope_activations" if later - OF_THE_SERVICE else "qkscope"


def variable_values(prometheus, dashboard, chosen):
    """name -> the values that Grafana would offer. `chosen`: name -> value, as
    the queries of the variables need."""
    found = {}
    for one in dashboard["templating"]["list"]:
        if one["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)",
                                           one["query"]).groups()
            found[one["name"]] = prometheus.label_values(
                promql.substitute(selector, chosen), label)
    return found


class Window:
    """From one scrape of a job to another: times in seconds. Between them,
    rate() counts exactly what the counters of that target grew."""

    def __init__(self, start, end):
        self.start, self.end = start, end

    @property
    def seconds(self):
        return self.end - self.start


def instant(prometheus, expr, chosen, window, at):
    """[(labels, value)] of a query at a time, with the whole window in place
    of Grafana's intervals."""
    length = f"{round(window.seconds * 1000)}ms"
    return prometheus.query(promql.substitute(expr, {
        **chosen, "__rate_interval": length, "__range": length}), at)


def over_time(prometheus, target, chosen, window, step):
    """[(labels, [(time, value)])], with rates over a minute: as Grafana has
    them for scrapes each 15 s."""
    expr = promql.substitute(target["expr"], {
        **chosen, "__rate_interval": "60s",
        "__range": f"{round(window.seconds)}s"})
    if target.get("instant"):
        return [(labels, [(window.end, value)])
                for labels, value in prometheus.query(expr, window.end)]
    return prometheus.query_range(expr, window.start, window.end, step)


def write_answers(prometheus, dashboards, chosen, windows, file):
    """Writes the answers of all panels, for pictures of them: the variables of
    each dashboard, and what its panels show from the second minute on."""
    answers = {"variables": chosen}
    for name, dashboard in dashboards.items():
        for panel in panels(dashboard):
            whole = windows[job_of(panel)]
            window = Window(min(whole.start + 60, whole.end - 1), whole.end)
            answers[f"{name}/{panel['title']}"] = [
                over_time(prometheus, target, chosen[name], window,
                          max(1, window.seconds / 240))
                for target in panel["targets"]]
    pathlib.Path(file).write_text(json.dumps(answers))
