"""The linter's own test: a good dashboard passes, and for each rule bad ones
that it must refuse."""

import copy
import unittest

import scraped
import lint

SCRAPE = """
# TYPE calls_total counter
calls_total{method="A",code="OK"} 3
# TYPE waiting gauge
waiting 2
# TYPE seconds histogram
seconds_bucket{method="A",le="1"} 3
seconds_bucket{method="A",le="+Inf"} 3
seconds_sum{method="A"} 2
seconds_count{method="A"} 3
# TYPE size gauge
size{model="m"} 2
"""
SERVER = 'job=~"$job", instance=~"$instance"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def variable(name, metric):
    return {"name": name, "type": "query", "label": name.capitalize(),
            "multi": True, "includeAll": True, "allValue": ".+",
            "description": "What is chosen.", "datasource": SOURCE,
            "query": f"label_values({metric}, {name})"}


def panel(number, title, expr, legend=""):
    return {
        "id": number, "type": "timeseries", "title": title,
        "description": "What it means.", "datasource": SOURCE,
        "gridPos": {"x": 0, "y": 8 * number, "w": 24, "h": 8},
        "targets": [{"expr": expr.replace("@", SERVER),
                     "legendFormat": legend}],
        "fieldConfig": {"defaults": {
            "unit": "short",
            "thresholds": {"steps": [{"value": None}, {"value": 1},
                                     {"value": 2}]}}}}


CALLS = "sum by (method) (rate(calls_total{@}[$__rate_interval]))"
QUANTILE = ("histogram_quantile(0.9, sum by (le) "
            "(rate(seconds_bucket{@}[$__rate_interval])))")
GOOD = {
    "title": "good",
    "links": [{"url": "${docs}/runbook.md"}],
    "templating": {"list": [
        {"name": "datasource", "type": "datasource", "query": "prometheus",
         "label": "Data source"},
        variable("job", 'waiting{}'), variable("instance", "waiting"),
        {"name": "docs", "type": "constant", "query": "docs"},
    ]},
    "panels": [
        panel(1, "Calls", CALLS, "{{method}}"),
        panel(2, "Waiting", "max(waiting{@})"),
        panel(3, "Quantile", QUANTILE),
        panel(4, "Grown", "sum(increase(calls_total{@}[$__range]))"),
        panel(5, "Mean", "sum(rate(seconds_sum{@}[$__rate_interval])) / "
              "sum(rate(seconds_count{@}[$__rate_interval]))"),
    ],
}


def expr(text, legend=""):
    """A change: the first panel has another query."""
    def change(dashboard):
        dashboard["panels"][0] = panel(1, "Calls", text, legend)
    return change


def at(*path, value):
    """A change: another value at a place of the dashboard."""
    def change(dashboard):
        place = dashboard
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return change


def remove(*path):
    def change(dashboard):
        place = dashboard
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
    return change


def _of(index):
    return ("templating", "list", index)


def _add_variable(dashboard):
    dashboard["templating"]["list"].append(variable("model", "size"))


BAD = {
    "template-datasource-rule": [
        remove(*_of(0)), at(*_of(0), "query", value="loki")],
    "template-job-rule": [
        remove(*_of(1)), at(*_of(1), "allValue", value=".*"),
        at(*_of(1), "multi", value=False),
        at(*_of(1), "datasource", value={"uid": "x"})],
    "template-instance-rule": [
        remove(*_of(2)), at(*_of(2), "label", value="Server")],
    "template-label-promql-rule": [
        at(*_of(1), "query", value="label_values(waiting{, job)"),
        at(*_of(1), "query", value="label_values(no_such, job)"),
        at(*_of(1), "query", value="label_values(waiting, colour)"),
        at(*_of(1), "query", value="waiting")],
    "panel-datasource-rule": [
        at("panels", 0, "datasource", value={"uid": "fixed"}),
        at("panels", 0, "targets", 0, "datasource", value={"uid": "fixed"})],
    "panel-title-description-rule": [
        at("panels", 0, "title", value=""),
        at("panels", 0, "title", value="Waiting"),
        remove("panels", 0, "description")],
    "panel-units-rule": [
        remove("panels", 0, "fieldConfig", "defaults", "unit"),
        at("panels", 0, "fieldConfig", "defaults", "unit", value="parsec")],
    "target-promql-rule": [
        expr("sum(rate(calls_total{@}[$__rate_interval])"),
        at("panels", 0, "targets", value=[])],
    "target-rate-interval-rule": [
        expr("sum(rate(calls_total{@}[5m]))"),
        expr("sum(rate(calls_total{@}[$__range]))"),
        expr("sum(increase(calls_total{@}[$__interval]))")],
    "target-job-rule": [
        expr('max(waiting{instance=~"$instance"})'),
        expr('max(waiting{job="qkscope", instance=~"$instance"})')],
    "target-instance-rule": [
        expr('max(waiting{job=~"$job"})'),
        expr('max(waiting{@} / waiting{job=~"$job"})')],
    "metric-exists": [expr("max(waiting_requests{@})")],
    "label-exists": [
        expr('sum(rate(calls_total{@, model="x"}[$__rate_interval]))'),
        expr("sum by (model) (rate(calls_total{@}[$__rate_interval]))"),
        expr(CALLS, "{{code}}"), expr("max(waiting{@})", "{{instance}}")],
    "counters-have-rates": [
        expr("sum(calls_total{@})"), expr("sum(seconds_count{@})"),
        expr("max(rate(waiting{@}[$__rate_interval]))"),
        expr("sum(increase(waiting{@}[$__range]))"),
        expr("max(max_over_time(calls_total{@}[$__range]))")],
    "rate-before-sum": [
        expr("rate(sum(calls_total{@})[$__rate_interval:])")],
    "quantiles-keep-le": [
        expr(QUANTILE.replace("by (le)", "by (method)")),
        expr(QUANTILE.replace("by (le)", "")),
        expr(QUANTILE.replace("by (le)", "without (le)")),
        expr(QUANTILE.replace("seconds_bucket", "seconds_count"))],
    "no-made-up-values": [
        expr("max(waiting{@}) or vector(0)"), expr("absent(waiting{@})")],
    "variables-are-used": [
        _add_variable,
        lambda dashboard: (_add_variable(dashboard),
                           expr("max(size{@})")(dashboard)),
        expr('max(size{@, model="$model"})')],
    "panels-fit": [
        at("panels", 0, "gridPos", "y", value=15),
        at("panels", 0, "gridPos", "x", value=1),
        at("panels", 0, "id", value=2)],
    "thresholds-rise": [
        at("panels", 0, "fieldConfig", "defaults", "thresholds", "steps", 2,
           "value", value=0)],
    "runbook-exists": [
        at("panels", 0, "description", value="See QkscopeNoSuchAlert."),
        at("links", value=[])],
}


def run(dashboard):
    return lint.Lint(dashboard, scraped.parse(SCRAPE), {},
                     {"QkscopeDown"}).run()


class LintTest(unittest.TestCase):
    def test_a_good_dashboard_passes(self):
        self.assertEqual(run(GOOD), [])

    def test_each_rule_refuses_what_is_bad(self):
        self.assertEqual(BAD.keys(), lint.RULES.keys())
        for rule, changes in BAD.items():
            for number, change in enumerate(changes):
                bad = copy.deepcopy(GOOD)
                change(bad)
                with self.subTest(rule=rule, number=number):
                    self.assertIn(rule, {found for found, _ in run(bad)})


if __name__ == "__main__":
    unittest.main()
