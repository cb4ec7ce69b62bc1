"""Reads the rules of deploy/prometheus, their tests and their runbook, and runs
promtool over them."""

import json
import os
import pathlib
import re
import subprocess

import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
TESTS = ROOT / "tests" / "deploy" / "rules"
RUNBOOK = ROOT / "docs" / "runbook.md"

# Metrics that only a server with something that a check does not have can show.
NOT_ON_EVERY_MACHINE = {
    "qkscope_device_memory_used_bytes": "needs a GPU",
    "qkscope_device_memory_bytes": "needs a GPU",
}


def read_yaml(file):
    return yaml.load(file.read_text(), yaml.CSafeLoader)


def read_rules(folder=PROMETHEUS / "rules"):
    """Returns what the files of rules hold, by their names."""
    return {file.name: read_yaml(file) for file in sorted(folder.glob("*.yml"))}


def rules_of(files):
    """Returns all rules, recording rules first."""
    rules = [rule for file in files.values() for group in file["groups"]
             for rule in group["rules"]]
    return sorted(rules, key=lambda rule: "alert" in rule)


def alerts(files):
    """Returns the alerts of read_rules, by name."""
    return {rule["alert"]: rule for rule in rules_of(files) if "alert" in rule}


def records(files):
    """Returns the recording rules of read_rules, by name."""
    return {rule["record"]: rule for rule in rules_of(files)
            if "record" in rule}


def read_tests():
    """Returns the groups of tests of all files, by the files' names."""
    return {file.name: read_yaml(file)["tests"]
            for file in sorted(TESTS.glob("*.yml"))}


def metrics_in(expression):
    """Returns the names of the metrics that an expression reads."""
    names = set()

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            names.add(node.name)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return names


def metrics_of(files):
    """Returns the metrics that rules read, without those that rules make."""
    read = set().union(*(metrics_in(rule["expr"]) for rule in rules_of(files)))
    return read - records(files).keys()


def sections(text):
    """Returns the parts of a document by their headings of level 2."""
    parts = re.split(r"^## (.*)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def scaled(files, factor):
    """Returns rules whose `for:` and windows are shorter: each is multiplied by
    `factor` and is at least 1 s for a `for:` and 4 s for a window, which must
    hold a few samples. All else stays."""
    def seconds(duration, least):
        parsed = promql_parser.parse_duration(duration).total_seconds()
        return f"{max(least, round(parsed * factor))}s"

    def rule_of(rule):
        rule = dict(rule)
        # A duration in brackets is a window, and one after `offset` a window
        # ago; there are no others.
        rule["expr"] = re.sub(
            r"(\[|\boffset )(\w+)",
            lambda match: match[1] + seconds(match[2], 4), rule["expr"])
        if "for" in rule:
            rule["for"] = seconds(rule["for"], 1)
        return rule

    return {name: {"groups": [
        {**group, "rules": [rule_of(rule) for rule in group["rules"]]}
        for group in file["groups"]]} for name, file in files.items()}


def write_rules(files, folder):
    for name, content in files.items():
        # JSON is YAML.
        (folder / name).write_text(json.dumps(content, indent=1))


def promtool(*arguments):
    # It makes a database for each test and waits for the disk.
    memory = {"TMPDIR": "/dev/shm"} if os.path.isdir("/dev/shm") else {}
    return subprocess.run(["promtool", *map(str, arguments)], check=False,
                          capture_output=True, encoding="utf-8",
                          env={**os.environ, **memory})


def _needed(files, groups):
    """Returns one file of those rules that groups of tests look at."""
    names = {test["alertname"] for group in groups
             for test in group.get("alert_rule_test", ())}
    for group in groups:
        for test in group.get("promql_expr_test", ()):
            names |= metrics_in(test["expr"])
    # A rule may read only records that stand before it.
    rules = []
    for rule in reversed(rules_of(files)):
        if rule.get("alert", rule.get("record")) in names:
            rules.insert(0, rule)
            names |= metrics_in(rule["expr"])
    return {"groups": [{"name": "needed", "rules": rules}]}


def failed_tests(files, folder):
    """Runs all tests over other rules; `folder` is empty. Returns the alerts and
    the expressions whose tests fail."""
    failed = set()
    for name, groups in read_tests().items():
        write_rules({f"rules_{name}": _needed(files, groups)}, folder)
        tests = folder / f"tests_{name}"
        tests.write_text(json.dumps({"rule_files": [f"rules_{name}"],
                                     "evaluation_interval": "1m",
                                     "tests": groups}))
        result = promtool("test", "rules", tests)
        output = result.stdout + result.stderr
        found = set(re.findall(r"^ *alertname: (\w+),", output, re.M))
        found.update(json.loads(quoted) for quoted in
                     re.findall(r'^ *expr: (".*"), time', output, re.M))
        if (result.returncode == 0) == bool(found):
            raise AssertionError(output)
        failed |= found
    return failed
