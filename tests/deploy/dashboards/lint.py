"""Rules that every dashboard keeps: those of grafana/dashboard-linter, by its
names, and our own. Each yields sentences; none means that all is well."""

import re

import promql_parser as ql

import promql

# Rates of these are wrong: they go up and down.
OF_COUNTERS = {"rate", "increase", "irate"}
# Of dashboards, panels with these units (of Grafana's).
UNITS = {"none", "short", "percentunit", "bytes", "Bps", "s", "dtdurations",
         "reqps", "cps", "ops", "celsius", "watt", "bool_yes_no"}
TARGET_VARIABLES = {"job": '=~"$job"', "instance": '=~"$instance"',
                    "model": '="$model"', "layer": '=~"$layer"',
                    "tensor": '=~"$tensor"'}


class Lint:
    """A dashboard and what its rules need. `metrics`: those of a scrape;
    `elsewhere`: name -> Metric of those that no scrape here has;
    `alerts`: the runbook's sections."""

    def __init__(self, dashboard, metrics, elsewhere, alerts):
        self.dashboard = dashboard
        self.metrics = {**elsewhere, **metrics}
        self.alerts = alerts
        self.panels = [panel for panel in dashboard["panels"]
                       if panel["type"] != "row"]
        self.variables = {one["name"]: one
                          for one in dashboard["templating"]["list"]}
        # (panel, query, tree) of each query that is PromQL.
        self.trees = []
        self.broken = []
        for panel in self.panels:
            for target in panel.get("targets", []):
                try:
                    tree = promql.parse(target["expr"])
                except ValueError as error:
                    self.broken.append(f"{panel['title']}: {error}")
                    continue
                self.trees.append((panel, target, tree))

    def selectors(self):
        for panel, target, tree in self.trees:
            for node, parents in promql.walk(tree):
                if isinstance(node, ql.VectorSelector):
                    yield panel["title"], node, parents

    def run(self):
        """Returns (rule, sentence) of everything that is wrong."""
        return [(rule, sentence) for rule, check in RULES.items()
                for sentence in check(self)]


def _datasource(lint):
    found = lint.variables.get("datasource", {})
    if (found.get("type"), found.get("query"), found.get("label")) != (
            "datasource", "prometheus", "Data source"):
        yield "there is no variable `datasource`"


def _query_variable(name):
    def check(lint):
        found = lint.variables.get(name)
        if found is None:
            yield f"there is no variable `{name}`"
            return
        wanted = {"type": "query", "label": name.capitalize(), "multi": True,
                  "allValue": ".+", "includeAll": True,
                  "datasource": {"type": "prometheus", "uid": "${datasource}"}}
        for key, value in wanted.items():
            if found.get(key) != value:
                yield f"`{name}`: {key} is {found.get(key)!r}, not {value!r}"
    return check


def _label_queries(lint):
    for name, one in lint.variables.items():
        if one["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"])
        if not found:
            yield f"`{name}`: {one['query']}"
            continue
        try:
            tree = promql.parse(found[1])
        except ValueError as error:
            yield f"`{name}`: {error}"
            continue
        for metric in _metrics_named(tree):
            if metric not in lint.metrics:
                yield f"`{name}`: there is no metric {metric}"
            elif found[2] not in lint.metrics[metric].labels:
                yield f"`{name}`: {metric} has no label {found[2]}"


def _metrics_named(selector):
    if selector.name:
        return [selector.name]
    names = [value for label, _, value in promql.matchers(selector)
             if label == "__name__"]
    return names[0].split("|") if names else []


def _panel_datasource(lint):
    for panel in lint.panels:
        if panel.get("datasource", {}).get("uid") != "${datasource}":
            yield f"{panel['title']}: another data source"
        for target in panel.get("targets", []):
            if target.get("datasource", panel["datasource"]) != panel[
                    "datasource"]:
                yield f"{panel['title']}: a query has another data source"


def _titles(lint):
    seen = set()
    for panel in lint.panels:
        title, text = panel.get("title", ""), panel.get("description", "")
        if not title or title in seen:
            yield f"{title!r} is no title, or there are two of them"
        seen.add(title)
        if len(text) < 6 or not text.endswith("."):
            yield f"{title}: {text!r} is no description"


def _units(lint):
    for panel in lint.panels:
        defaults = panel["fieldConfig"]["defaults"]
        units = [defaults.get("unit", "")]
        units += [prop["value"]
                  for one in panel["fieldConfig"].get("overrides", [])
                  for prop in one["properties"] if prop["id"] == "unit"]
        for unit in units:
            if unit not in UNITS:
                yield f"{panel['title']}: {unit!r} is no unit"


def _promql(lint):
    yield from lint.broken
    for panel in lint.panels:
        if not panel.get("targets"):
            yield f"{panel['title']}: no query"


def _rate_interval(lint):
    for title, _, parents in lint.selectors():
        if not parents or not isinstance(parents[-1], ql.MatrixSelector):
            continue
        around = promql.calls(parents)
        length = promql.range_of(parents[-1])
        allowed = {"$__rate_interval"}
        if around[:1] and around[0] not in ("rate", "irate"):
            allowed.add("$__range")
        if around[:1] == ["last_over_time"]:
            continue
        if length not in allowed:
            yield f"{title}: {around[:1]} over {length}"


def _matcher(label):
    def check(lint):
        for title, node, _ in lint.selectors():
            has = [op + f'"{value}"' for name, op, value
                   in promql.matchers(node) if name == label]
            if TARGET_VARIABLES[label] not in has:
                yield f"{title}: {node.name} is not matched by ${label}"
    return check


def _exists(lint):
    for title, node, _ in lint.selectors():
        if node.name not in lint.metrics:
            yield f"{title}: there is no metric {node.name}"


def _labels(lint):
    """Labels that are matched, grouped by or shown exist."""
    for title, node, _ in lint.selectors():
        known = lint.metrics.get(node.name)
        for label, _, _ in promql.matchers(node):
            if known and label not in known.labels:
                yield f"{title}: {node.name} has no label {label}"
    for panel, target, tree in lint.trees:
        for node, _ in promql.walk(tree):
            if isinstance(node, ql.AggregateExpr) and node.modifier:
                inner = promql.labels_of(node.expr, lint.metrics)
                for label in set(node.modifier.labels) - inner:
                    yield f"{panel['title']}: no label {label} to group by"
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for label in shown - promql.labels_of(tree, lint.metrics):
            yield f"{panel['title']}: no label {label} to show"


def _kinds(lint):
    """Counters are read by rate or increase alone, and nothing else is."""
    for title, node, parents in lint.selectors():
        kind = getattr(lint.metrics.get(node.name), "type", None)
        around = promql.calls(parents)
        ranged = parents and isinstance(parents[-1], ql.MatrixSelector)
        counted = bool(ranged and around and around[0] in OF_COUNTERS)
        if kind in ("counter", "bucket") and not counted:
            yield f"{title}: the counter {node.name} without a rate"
        if kind == "gauge" and counted:
            yield f"{title}: {around[0]} of {node.name}, which is no counter"


def _rate_first(lint):
    for panel, _, tree in lint.trees:
        for node, _ in promql.walk(tree):
            if (isinstance(node, ql.Call) and node.func.name in OF_COUNTERS
                    and not isinstance(node.args[0], ql.MatrixSelector)):
                yield (f"{panel['title']}: {node.func.name} of "
                       f"{node.args[0]}, which is not a counter itself")


def _histograms(lint):
    for title, node, parents in lint.selectors():
        kind = getattr(lint.metrics.get(node.name), "type", None)
        quantile = "histogram_quantile" in promql.calls(parents)
        if quantile and kind not in ("bucket", None):
            yield f"{title}: {node.name} has no buckets"
        if kind != "bucket":
            continue
        for parent in parents:
            if isinstance(parent, ql.AggregateExpr):
                keeps = parent.modifier is not None and (
                    "le" in parent.modifier.labels) == (
                        parent.modifier.type == ql.AggModifierType.By)
                if not keeps:
                    yield f"{title}: the sum over {node.name} loses le"


def _fillers(lint):
    for panel, _, tree in lint.trees:
        for node, _ in promql.walk(tree):
            if isinstance(node, ql.Call) and node.func.name in (
                    "vector", "absent", "absent_over_time"):
                yield f"{panel['title']}: {node.func.name}() makes up values"


def _variables_used(lint):
    used = set()
    for _, target, _ in lint.trees:
        used |= set(re.findall(r"\$(\w+)", target["expr"]))
    for name, one in lint.variables.items():
        if one["type"] == "query" and name not in used:
            yield f"`{name}` changes nothing"
        if one["type"] == "query" and not one.get("description"):
            yield f"`{name}` has no description"
    for name in used:
        if not name.startswith("__") and name not in lint.variables:
            yield f"${name} is not defined"
    for title, node, _ in lint.selectors():
        known = lint.metrics.get(node.name)
        has = {label: op + f'"{value}"'
               for label, op, value in promql.matchers(node)}
        for label in ("model", "layer", "tensor"):
            if (known and label in known.labels and label in lint.variables
                    and label not in has):
                yield f"{title}: {node.name} is not matched by ${label}"


def _grid(lint):
    taken = {}
    ids = [panel["id"] for panel in lint.dashboard["panels"]]
    if len(ids) != len(set(ids)):
        yield "two panels have the same id"
    for panel in lint.dashboard["panels"]:
        at = panel["gridPos"]
        if at["x"] + at["w"] > 24:
            yield f"{panel['title']}: wider than the grid"
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                if (x, y) in taken:
                    yield f"{panel['title']} lies on {taken[x, y]}"
                    return
                taken[x, y] = panel["title"]


def _thresholds(lint):
    for panel in lint.panels:
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get(
            "steps", [])
        values = [step["value"] for step in steps[1:]]
        if steps and (steps[0]["value"] is not None or None in values
                      or values != sorted(values)):
            yield f"{panel['title']}: thresholds {values} do not rise"


def _runbook(lint):
    for panel in lint.panels:
        for name in re.findall(r"\bQkscope\w+", panel.get("description", "")):
            if name not in lint.alerts:
                yield f"{panel['title']}: the runbook has no section {name}"
    links = [link.get("url") for link in lint.dashboard.get("links", [])]
    if "${docs}/runbook.md" not in links or "docs" not in lint.variables:
        yield "there is no link to the runbook"


RULES = {
    # Those of grafana/dashboard-linter.
    "template-datasource-rule": _datasource,
    "template-job-rule": _query_variable("job"),
    "template-instance-rule": _query_variable("instance"),
    "template-label-promql-rule": _label_queries,
    "panel-datasource-rule": _panel_datasource,
    "panel-title-description-rule": _titles,
    "panel-units-rule": _units,
    "target-promql-rule": _promql,
    "target-rate-interval-rule": _rate_interval,
    "target-job-rule": _matcher("job"),
    "target-instance-rule": _matcher("instance"),
    # Our own.
    "metric-exists": _exists,
    "label-exists": _labels,
    "counters-have-rates": _kinds,
    "rate-before-sum": _rate_first,
    "quantiles-keep-le": _histograms,
    "no-made-up-values": _fillers,
    "variables-are-used": _variables_used,
    "panels-fit": _grid,
    "thresholds-rise": _thresholds,
    "runbook-exists": _runbook,
}
