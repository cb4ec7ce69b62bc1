#!/usr/bin/env python3
# row: Grafana dashboards: linter, every query against real servers | run | quick | 60
"""Checks the dashboards of deploy/grafana.

The committed JSON is what the script makes. A linter of ours (dashboards/lint.py,
which has a test of its own) finds nothing in it. Then two real servers do known
work, a real Prometheus scrapes them, and every panel's queries must return what
follows from that work (dashboards/expected_*.py).

--rounds N and --pause S make the work longer, and --answers FILE writes what
Prometheus answered, for docs/pictures/dashboards.py.
"""

import argparse
import os
import pathlib
import re
import signal
import sys
import tempfile
import traceback
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "deploy" / "dashboards"),
                str(ROOT / "deploy" / "grafana")]

import ask
import exposition
import lint
import lint_test
import make_dashboards
import stack
from expected import EXPECTED, See
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
    return {name: exposition.Metric("gauge",
                                    {"device"} | exposition.OF_TARGETS)
            for name in names}


def chosen(main):
    """dashboard -> the values of its variables, as a reader would choose them:
    the main server alone, but all on the dashboard of the fleet."""
    everything = {"job": ".+", "instance": ".+"}
    # Grafana escapes what a reader chooses: a regular expression in a string.
    one = {"job": ".+",
           "instance": re.escape(main.instance).replace("\\", "\\\\")}
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
            print(f"FAILED {name}: {error}")
            if not isinstance(error, AssertionError):
                traceback.print_exc(file=sys.stdout)


def same_as_made(dashboards):
    for name in dashboards:
        file = ask.FOLDER / f"{name}.json"
        assert file.read_text() == make_dashboards.text(name), (
            f"{file} is not what make_dashboards.py makes")
    found = {file.stem for file in ask.FOLDER.glob("*.json")}
    assert found == set(ask.NAMES), found


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
            "model": ["poisoned", "smollm2", "tiny"], "layer": layers,
            "tensor": ["k", "q", "v"]},
    }
    for name, dashboard in dashboards.items():
        found = ask.variable_values(facts.prometheus, dashboard, {
            "job": ".+", "instance": ".+", "model": "smollm2"})
        assert found == wanted[name], f"{name}: {found}"


def check_panels(check, facts, dashboards):
    seen = set()
    for name, dashboard in dashboards.items():
        for panel in ask.panels(dashboard):
            key = name, panel["title"]
            seen.add(key)
            if key in NOT_HERE:
                continue
            see = See(facts, panel, chosen(facts.main)[name])

            def expectation():
                assert key in EXPECTED, "nobody says what it must show"
                EXPECTED[key](see)
            check.run(" / ".join(key), expectation)
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    check = Check()
    dashboards = ask.load()
    check.run("the committed JSON", lambda: same_as_made(dashboards))
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
