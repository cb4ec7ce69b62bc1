"""Tests the configurations of deploy/prometheus: what promtool and amtool say,
that alerts, their tests and the runbook's sections are the same, and that the
tests of rules can fail.

    build/deploy-venv/bin/python tests/deploy/alert_rules_test.py
"""

import copy
import pathlib
import re
import subprocess
import tempfile
import unittest

import alert_rules

RULES = alert_rules.read_rules()
ALERTS = alert_rules.alerts(RULES)
RECORDS = alert_rules.records(RULES)
RUNBOOK_URL = ('{{{{ or $externalLabels.qkscope_docs "docs" }}}}'
               "/runbook.md#{}")


def with_alerts(change):
    """Returns the rules after `change` of each alert."""
    files = copy.deepcopy(RULES)
    for rule in alert_rules.alerts(files).values():
        change(rule)
    return files


class ConfigurationTest(unittest.TestCase):

    def check(self, *command):
        result = subprocess.run(
            [*map(str, command)], check=False, capture_output=True,
            encoding="utf-8")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout

    def test_promtool_accepts_the_configuration(self):
        out = self.check("promtool", "check", "config", "--lint=all",
                         "--lint-fatal",
                         alert_rules.PROMETHEUS / "prometheus.yml")
        self.assertEqual(out.count("rules found"), len(RULES))

    def test_promtool_accepts_the_shown_token(self):
        text = (alert_rules.PROMETHEUS / "prometheus.yml").read_text()
        (shown,) = re.findall(r"((?:^#    .*\n)+)", text, re.M)
        lines = [line.removeprefix("#") for line in shown.splitlines()]
        with tempfile.TemporaryDirectory() as folder:
            token = pathlib.Path(folder) / "token"
            token.write_text("secret")
            block = "\n".join(lines).replace("/etc/prometheus/qkscope.token",
                                             str(token))
            config = pathlib.Path(folder) / "prometheus.yml"
            changed = re.sub(r"^  - job_name: \w+$",
                             lambda match: match[0] + "\n" + block, text,
                             flags=re.M)
            self.assertEqual(changed.count("credentials_file"), 3)
            config.write_text(changed)
            self.check("promtool", "check", "config", config)
            token.unlink()
            self.assertNotEqual(
                alert_rules.promtool("check", "config", config).returncode, 0)

    def test_amtool_accepts_alertmanager(self):
        config = alert_rules.PROMETHEUS / "alertmanager.yml"
        self.check("amtool", "check-config", config)
        for severity, receiver in (("critical", "on_call"),
                                   ("warning", "operators"),
                                   ("info", "record")):
            self.assertEqual(
                self.check("amtool", "config", "routes", "test",
                           f"--config.file={config}",
                           f"severity={severity}").strip(), receiver)

    def test_inhibitions_name_alerts(self):
        config = alert_rules.read_yaml(
            alert_rules.PROMETHEUS / "alertmanager.yml")
        named = set()
        for rule in config["inhibit_rules"]:
            for matcher in rule["source_matchers"] + rule["target_matchers"]:
                named.update(re.findall(r"Qkscope\w+", matcher))
        self.assertLessEqual(named, ALERTS.keys())

    def test_rules_read_what_the_jobs_scrape(self):
        config = alert_rules.read_yaml(
            alert_rules.PROMETHEUS / "prometheus.yml")
        jobs = {job["job_name"] for job in config["scrape_configs"]}
        for rule in alert_rules.rules_of(RULES):
            for job in re.findall(r'job="(\w+)"', rule["expr"]):
                self.assertIn(job, jobs)


class AlertsTest(unittest.TestCase):

    def test_there_are_alerts(self):
        self.assertGreaterEqual(len(ALERTS), 12)
        count = sum("alert" in rule for rule in alert_rules.rules_of(RULES))
        self.assertEqual(count, len(ALERTS), "two alerts of one name")

    def test_each_alert_says_what_it_must(self):
        for name, rule in ALERTS.items():
            with self.subTest(name):
                self.assertRegex(name, r"^Qkscope[A-Z]\w+$")
                self.assertEqual(rule["labels"].keys(), {"severity"})
                self.assertIn(rule["labels"]["severity"],
                              {"critical", "warning", "info"})
                notes = rule["annotations"]
                self.assertEqual(notes.keys(),
                                 {"summary", "description", "runbook_url"})
                self.assertEqual(notes["runbook_url"],
                                 RUNBOOK_URL.format(name.lower()))
                if "absent(" not in rule["expr"]:
                    for key in ("summary", "description"):
                        self.assertIn("$labels.", notes[key])

    def test_each_alert_has_a_firing_and_a_quiet_test(self):
        firing, quiet = set(), set()
        for groups in alert_rules.read_tests().values():
            for group in groups:
                for test in group.get("alert_rule_test", ()):
                    (firing if test.get("exp_alerts") else quiet).add(
                        test["alertname"])
        self.assertEqual(firing, ALERTS.keys())
        self.assertEqual(quiet, ALERTS.keys())

    def test_each_alert_has_a_section_in_the_runbook(self):
        text = alert_rules.RUNBOOK.read_text()
        sections = alert_rules.sections(text)
        self.assertEqual([name for name in sections if name in ALERTS],
                         list(ALERTS), "the same alerts in the same order")
        self.assertEqual(
            [name for name in sections if name.startswith("Qkscope")],
            list(ALERTS))
        for name in ALERTS:
            with self.subTest(name):
                parts = re.findall(r"^\*\*(\w+)\.\*\* \S", sections[name], re.M)
                self.assertEqual(parts, ["Meaning", "Impact", "Diagnosis",
                                         "Mitigation"])
                self.assertIn("```sh\n", sections[name])

    def test_the_runbook_tells_thresholds_and_durations(self):
        sections = alert_rules.sections(alert_rules.RUNBOOK.read_text())
        for name, rule in ALERTS.items():
            with self.subTest(name):
                told = re.search(
                    r"^`(\w+)`, (?:for (\w+)|at once)\.$", sections[name], re.M)
                self.assertIsNotNone(told)
                self.assertEqual(told[1], rule["labels"]["severity"])
                self.assertEqual(told[2], rule.get("for"))


class RulesCanFailTest(unittest.TestCase):
    """Runs the tests over the rules, and over rules with a bug in each."""

    def failed(self, files):
        with tempfile.TemporaryDirectory() as folder:
            return alert_rules.failed_tests(files, pathlib.Path(folder))

    def test_all_pass(self):
        for test in sorted(alert_rules.TESTS.glob("*.yml")):
            result = alert_rules.promtool("test", "rules", test)
            self.assertEqual(result.returncode, 0,
                             result.stdout + result.stderr)
        self.assertEqual(self.failed(RULES), set())

    def test_alerts_that_never_fire_are_seen(self):
        files = with_alerts(lambda rule: rule.update(expr="vector(0) > 1"))
        self.assertEqual(self.failed(files) & ALERTS.keys(), ALERTS.keys())

    def test_alerts_that_always_fire_are_seen(self):
        files = with_alerts(
            lambda rule: rule.update(expr="vector(1)", **{"for": "0s"}))
        self.assertEqual(self.failed(files) & ALERTS.keys(), ALERTS.keys())

    def test_alerts_that_fire_too_early_are_seen(self):
        early = {name for name, rule in ALERTS.items() if "for" in rule}
        files = with_alerts(lambda rule: rule.pop("for", None))
        self.assertEqual(self.failed(files) & ALERTS.keys(), early)

    def test_alerts_with_another_threshold_are_seen(self):
        """Each comparison with a number gets a tenth of it, then ten times."""
        with_threshold = set()

        def change(factor):
            def one(rule):
                changed = re.sub(
                    r"(>=|>|<) ([1-9][\d.]*|0\.\d+)",
                    lambda m: f"{m[1]} {float(m[2]) * factor}", rule["expr"])
                if changed != rule["expr"]:
                    with_threshold.add(rule["alert"])
                rule["expr"] = changed
            return one

        low = self.failed(with_alerts(change(0.1)))
        high = self.failed(with_alerts(change(10)))
        self.assertGreaterEqual(len(with_threshold), 12)
        self.assertLessEqual(with_threshold, low | high)

    def test_recording_rules_that_record_nothing_are_seen(self):
        files = copy.deepcopy(RULES)
        for rule in alert_rules.records(files).values():
            rule["expr"] = "vector(0) > 1"
        seen = set()
        for expression in self.failed(files) - ALERTS.keys():
            seen |= alert_rules.metrics_in(expression)
        self.assertEqual(seen, RECORDS.keys())


class HelpersTest(unittest.TestCase):

    def test_names_of_recording_rules(self):
        for name, rule in RECORDS.items():
            with self.subTest(name):
                level, metric, operations = name.split(":")
                self.assertRegex(level, r"^(instance|model|user)(_[a-z]+)?$")
                self.assertRegex(operations, r"^[a-z0-9_]+$")
                read = alert_rules.metrics_in(rule["expr"])
                known = metric.replace("rpc_failed", "rpc_handled")
                self.assertTrue(
                    any(known in other for other in read), read)

    def test_metrics_of_an_expression(self):
        self.assertEqual(
            alert_rules.metrics_in(
                'sum(rate(a_total{x="b_total"}[5m])) / c > 1 unless d offset '
                "5m"), {"a_total", "c", "d"})

    def test_scaled_rules_differ_in_durations_only(self):
        scaled = alert_rules.scaled(RULES, 1 / 60)
        self.assertEqual(alert_rules.alerts(scaled).keys(), ALERTS.keys())
        down = alert_rules.alerts(scaled)["QkscopeDown"]
        self.assertEqual(down, {**ALERTS["QkscopeDown"], "for": "1s"})
        infinite = alert_rules.alerts(scaled)["QkscopeNonFiniteActivations"]
        self.assertEqual(
            infinite["expr"],
            ALERTS["QkscopeNonFiniteActivations"]["expr"].replace("15m", "15s"))
        same = alert_rules.rules_of(alert_rules.scaled(RULES, 1))
        durations = re.compile(r"\d+[smhd]")
        for before, after in zip(alert_rules.rules_of(RULES), same):
            self.assertEqual(durations.sub("", before["expr"]),
                             durations.sub("", after["expr"]))
        self.assertEqual(
            alert_rules.alerts(same_files(same))["QkscopeQueueAge"]["for"],
            "300s")


def same_files(rules):
    return {"all.yml": {"groups": [{"name": "all", "rules": rules}]}}


if __name__ == "__main__":
    unittest.main()
