#!/usr/bin/env python3
# row: Grafana dashboards: linter, every query on real work | run | quick | 45
"""Checks the dashboards of deploy/grafana.

The committed JSON is what the script makes. A linter of ours (dashboards/lint.py,
with a test of its own) finds nothing in it. Then two real servers do known work,
a real Prometheus scrapes them, and every panel's queries must return what follows
from that work (dashboards/expected_*.py).

--rounds N and --pause S make the work longer, and --answers FILE writes what
Prometheus answered, for docs/pictures/dashboards.py.
"""

import argparse
import os
import pathlib
import re
import sys
import tempfile
import traceback
import unittest

import yaml

from programs import ROOT, end_on_sigterm

sys.path[:0] = [str(ROOT / "tests" / "deploy" / "dashboards"),
                str(ROOT / "deploy" / "grafana")]

import ask
import scraped
import lint
import lint_test
import make_dashboards
import stack
from expected import EXPECTED, TOGETHER, See, check_together
import expected_activations
import expected_fleet
import expected_model
import expected_service
from facts import Facts

# Panels of what cannot be here: a GPU. The names of their metrics are those of
# the source.
NOT_HERE = {
    ("fleet", "Memory of GPUs in use"), ("fleet", "GPUs busy"),
    ("fleet", "Temperature of GPUs"), ("fleet", "Power of GPUs"),
}
GPU_SOURCE = ROOT / "server" / "observe" / "device_metrics.cc"


def gpu_metrics():
    names = set(re.findall(r"qkscope_device_\w+", GPU_SOURCE.read_text()))
    return {name: scraped.Metric("gauge",
                                    {"device"} | scraped.OF_TARGETS)
            for name in names}


def escaped(value):
    """What a reader chooses, as Grafana puts it into a regular expression in a
    string."""
    return re.escape(value).replace("\\", "\\\\")


def chosen(main):
    """dashboard -> the values of its variables, as a reader would choose them:
    the main server alone, but all on the dashboard of the fleet."""
    everything = {"job": ".+", "instance": ".+"}
    one = {"job": ".+", "instance": escaped(main.instance)}
    model = {**one, "model": "smollm2", "layer": ".+", "tensor": ".+"}
    return {"service": one, "activations": model, "model": model,
            "fleet": everything}


class Check:
    """Counts what fails, and goes on."""

    def __init__(self):
        self.failed = 0

    def run(self, name, function):
        try:
            function()
        except Exception as error:  # a check may fail in any way
            self.failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"FAILED {name}: {type(error).__name__}: {error} "
                  f"({pathlib.Path(where.filename).name}:{where.lineno})")


def same_as_made(dashboards):
    for name in dashboards:
        file = ask.FOLDER / f"{name}.json"
        assert file.read_text() == make_dashboards.text(name), (
            f"{file} is not what make_dashboards.py makes")
    found = {file.stem for file in ask.FOLDER.glob("*.json")}
    assert found == set(ask.NAMES), found


def provisioned():
    """The files of deploy/grafana/provisioning fit docker-compose.yml and the
    dashboards."""
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load(
        (folder / "datasources" / "qkscope.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load(
        (folder / "dashboards" / "qkscope.yml").read_text())["providers"]
    services = yaml.safe_load(
        (ROOT / "docker-compose.yml").read_text())["services"]
    assert source["type"] == "prometheus" and source["isDefault"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert host in services and port == "9090", source["url"]
    mounts = {one["target"]: one["source"]
              for one in services["grafana"]["volumes"]}
    assert mounts[provider["options"]["path"]] == (
        "./deploy/grafana/dashboards"), mounts
    assert mounts["/etc/grafana/provisioning"] == (
        "./deploy/grafana/provisioning"), mounts
    interval = yaml.safe_load(
        (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())[
            "global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval, interval


def lint_itself():
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(
        unittest.defaultTestLoader.loadTestsFromModule(lint_test))
    assert result.wasSuccessful()


def lint_all(check, dashboards, metrics):
    headings = set(re.findall(r"^#+ (Qkscope\w+)$",
                              (ROOT / "docs" / "runbook.md").read_text(),
                              re.MULTILINE))
    for name, dashboard in dashboards.items():
        found = lint.Lint(dashboard, metrics, gpu_metrics(), headings).run()
        for rule, sentence in found:
            check.failed += 1
            print(f"FAILED {name}: {rule}: {sentence}")


def check_variables(facts, dashboards):
    both = sorted([facts.main.instance, facts.second.instance])
    layers = sorted(map(str, range(30)))
    wanted = {
        "service": {"job": ["qkscope"], "instance": both},
        "fleet": {"job": ["qkscope"], "instance": both},
        "activations": {
            "job": ["qkscope_activations"], "instance": both,
            "model": ["poisoned", "smollm2", "tiny"], "layer": layers,
            "tensor": ["k", "q", "v"]},
        "model": {
            "job": ["qkscope", "qkscope_activations"], "instance": both,
            "model": ["broken", "poisoned", "smollm2", "tiny"],
            "layer": layers, "tensor": ["k", "q", "v"]},
    }
    for name, dashboard in dashboards.items():
        found = ask.variable_values(facts.prometheus, dashboard, {
            "job": ".+", "instance": ".+", "model": "smollm2"})
        assert found == wanted[name], f"{name}: {found}"


def check_panel(facts, panel, values, key):
    """The expectation holds, and for no query does it hold with wrong
    answers. Two servers together show what they should."""
    assert key in EXPECTED, "nobody says what it must show"
    EXPECTED[key](See(facts, panel, values))
    for number, target in enumerate(panel["targets"]):
        try:
            EXPECTED[key](See(facts, panel, values, wrong=number))
        except AssertionError:
            continue
        raise AssertionError(f"nobody looks at what this returns: "
                             f"{target['expr']}")
    if key in TOGETHER:
        def see(instance):
            return See(facts, panel, {**values, "instance": instance,
                                      "model": "tiny"})
        for number in range(len(panel["targets"])):
            check_together(TOGETHER[key], number, see(".+"), [
                see(escaped(server.instance))
                for server in (facts.main, facts.second)])


def check_panels(check, facts, dashboards):
    seen = set()
    for name, dashboard in dashboards.items():
        for panel in ask.panels(dashboard):
            key = name, panel["title"]
            seen.add(key)
            if key in NOT_HERE:
                continue
            check.run(" / ".join(key), lambda: check_panel(
                facts, panel, chosen(facts.main)[name], key))
    for key in (EXPECTED.keys() | NOT_HERE) - seen:
        check.failed += 1
        print(f"FAILED {key}: there is no such panel")
    print(f"{len(seen)} panels, {len(NOT_HERE)} of a GPU, which is not here")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0)
    parser.add_argument("--every", type=int, default=0,
                        help="rounds between two held answers")
    parser.add_argument("--answers", type=pathlib.Path)
    options = parser.parse_args()
    end_on_sigterm()
    check = Check()
    dashboards = ask.load()
    check.run("the committed JSON", lambda: same_as_made(dashboards))
    check.run("provisioning", provisioned)
    check.run("the linter's test", lint_itself)
    with tempfile.TemporaryDirectory(dir=os.environ.get("QK_WORK")) as folder:
        with stack.start(pathlib.Path(folder),
                         os.environ["QKSCOPE_DEMO_MODEL"]) as processes:
            facts = Facts(*processes)
            facts.gather(options.rounds, options.pause, options.every)
            lint_all(check, dashboards, facts.metrics)
            check.run("variables", lambda: check_variables(facts, dashboards))
            check_panels(check, facts, dashboards)
            if options.answers:
                ask.write_answers(facts.prometheus, dashboards,
                                  chosen(facts.main), facts.windows,
                                  options.answers)
    if check.failed:
        sys.exit(f"{check.failed} checks failed")


if __name__ == "__main__":
    main()
