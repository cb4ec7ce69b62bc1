"""Fires two alerts for real: a real server, Prometheus and Alertmanager with the
committed configuration. A killed server and a model whose weights are NaN are
told of by Alertmanager. Also: every metric that a rule reads is scraped, a
healthy server under work fires nothing, and the rules' own tests
(alert_rules_test.py).

What differs from the committed files: the addresses, a scrape each second
instead of each 15 or 30, and durations in rules 60 times shorter
(alert_rules.scaled). Thresholds, labels, annotations and Alertmanager's routes
are as committed."""
# row: Alerts: rules and their tests; two fired for real | run | quick | 45

import datetime
import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request

import alert_rules
import programs
import yaml
from programs import fetch, free_port, wait_until
from poisoned_model import poison

HERE = pathlib.Path(__file__).resolve().parent
TOKEN = "a-token-that-the-check-has-made"
DOCS = "https://docs.example/qkscope"
SCALE = 1 / 60
TOKEN_IDS = "3,1,41,59,26,53,58"


def certificate(folder):
    """Makes a self-signed certificate for loopback; returns it and its key."""
    cert, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90", "-subj",
         "/CN=qkscope", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout",
         key, "-out", cert], check=True, capture_output=True)
    return cert, key


def prometheus_copy(folder, metrics_port, alertmanager_port):
    """Writes a copy of deploy/prometheus that scrapes each second."""
    folder.mkdir()
    (folder / "rules").mkdir()
    (folder / "targets").mkdir()
    (folder / "token").write_text(TOKEN)
    config = alert_rules.read_yaml(alert_rules.PROMETHEUS / "prometheus.yml")
    config["global"].update(scrape_interval="1s", scrape_timeout="1s",
                            evaluation_interval="1s")
    config["global"]["external_labels"]["qkscope_docs"] = DOCS
    for job in config["scrape_configs"]:
        job.pop("scrape_interval", None)
        job["authorization"] = {"credentials_file": "token"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    alert_rules.write_rules(
        alert_rules.scaled(alert_rules.read_rules(), SCALE), folder / "rules")
    for name, port in (("qkscope", metrics_port),
                       ("alertmanager", alertmanager_port)):
        (folder / "targets" / f"{name}.yml").write_text(
            json.dumps([{"targets": [f"127.0.0.1:{port}"]}]))


class AlertsCheck(programs.RealCase):

    @classmethod
    def setUpClass(cls):
        cls.folder = programs.work_folder(cls)
        cert, key = certificate(cls.folder)
        poisoned = cls.folder / "poisoned"
        shutil.copytree(programs.TINY_MODEL, poisoned)
        poison(poisoned, "model.layers.1.self_attn.q_proj.weight")
        users = cls.folder / "users.conf"
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        users.write_text(
            f'users {{ alias: "ops" token_sha256: "{digest}" role: "operator" '
            "budget { device_ms_per_window: 3600000 } }\n"
            f'users {{ alias: "ada" token_sha256: "{"0" * 64}" '
            'allowed_models: "tiny" }\n')
        token = cls.folder / "ops.token"
        token.write_text(TOKEN)
        cls.flags = ["--model", f"tiny={programs.TINY_MODEL}",
                     "--model", f"poisoned={poisoned}",
                     "--users-file", users, "--tls-cert", cert, "--tls-key",
                     key, "--spool", cls.folder / "spool"]
        cls.client_flags = ["--tls-ca", cert, "--token-file", token]
        cls.metrics_port = free_port()
        cls.server = cls.start_server("first")

        alertmanager, prometheus = free_port(), free_port()
        cls.alertmanager = f"http://127.0.0.1:{alertmanager}"
        cls.prometheus = f"http://127.0.0.1:{prometheus}"
        cls.keep(programs.Program(
            cls.folder, "alertmanager", "prometheus-alertmanager",
            f"--config.file={alert_rules.PROMETHEUS / 'alertmanager.yml'}",
            f"--storage.path={cls.folder / 'am'}",
            "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{alertmanager}"))
        prometheus_copy(cls.folder / "prometheus", cls.metrics_port,
                        alertmanager)
        cls.keep(programs.Program(
            cls.folder, "prometheus", "prometheus",
            f"--config.file={cls.folder / 'prometheus' / 'prometheus.yml'}",
            f"--storage.tsdb.path={cls.folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{prometheus}"))
        wait_until(lambda: fetch(f"{cls.alertmanager}/-/ready"),
                   "Alertmanager")
        wait_until(lambda: fetch(f"{cls.prometheus}/-/ready"), "Prometheus")
        wait_until(lambda: len(cls.query("up == 1")) == 2,
                   lambda: fetch(f"{cls.prometheus}/api/v1/targets"))

    @classmethod
    def start_server(cls, name):
        return cls.keep(programs.Server(
            cls.folder, *cls.flags, name=name, metrics_port=cls.metrics_port,
            client_flags=cls.client_flags))

    @classmethod
    def api(cls, path):
        answer = json.loads(fetch(f"{cls.prometheus}/api/v1/{path}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    @classmethod
    def query(cls, expression):
        return cls.api("query?" + urllib.parse.urlencode(
            {"query": expression}))["result"]

    def alerts(self, *names):
        """Returns the alerts that Alertmanager has, of some names or all."""
        shown = json.loads(fetch(f"{self.alertmanager}/api/v2/alerts"))
        return [alert for alert in shown
                if not names or alert["labels"]["alertname"] in names]

    def analyze(self, model, *flags, expect=0):
        result = self.server.qkctl("analyze", "--model", model, "--token-ids",
                                   TOKEN_IDS, "--arm", "clean", *flags)
        self.assertEqual(result.returncode, expect, result.stderr)

    def generate(self, model):
        result = self.server.qkctl("generate", "--model", model, "--token-ids",
                                   TOKEN_IDS, "--max-new-tokens", 8)
        self.assertEqual(result.returncode, 0, result.stderr)

    def await_alert(self, name):
        (alert,) = wait_until(
            lambda: self.alerts(name),
            lambda: f"{name}: " + json.dumps(self.api("rules?type=alert")))
        self.assertEqual(alert["labels"]["instance"],
                         f"127.0.0.1:{self.metrics_port}")
        self.assertEqual(alert["annotations"]["runbook_url"],
                         f"{DOCS}/runbook.md#{name.lower()}")
        self.assertNotIn("qkscope_docs", alert["labels"])
        self.assertEqual([to["name"] for to in alert["receivers"]],
                         ["on_call"])
        return alert

    def await_resolved(self, name):
        wait_until(lambda: not self.alerts(name), f"{name} does not end")

    def test_1_rules_work_and_a_healthy_server_fires_nothing(self):
        """Also: what rules read is there."""
        self.analyze("tiny")
        saved = self.server.qkctl("baseline", "save", "tiny")
        self.assertEqual(saved.returncode, 0, saved.stderr)
        for _ in range(3):
            self.analyze("tiny")
            self.generate("tiny")
        read = alert_rules.metrics_of(alert_rules.read_rules())
        expected = read - alert_rules.NOT_ON_EVERY_MACHINE.keys()

        def missing():
            return expected - set(self.api("label/__name__/values"))

        wait_until(lambda: not missing(), lambda: f"not scraped: {missing()}")
        self.assertLessEqual(alert_rules.NOT_ON_EVERY_MACHINE.keys(), read)
        # Longer than the longest scaled `for:` and window.
        began = self.query("time()")[1]
        wait_until(lambda: float(self.query("time()")[1]) > float(began) + 16,
                   "Prometheus's clock")
        groups = self.api("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.assertEqual(len(rules),
                         len(alert_rules.rules_of(alert_rules.read_rules())))
        for rule in rules:
            self.assertEqual(rule["health"], "ok", rule)
            self.assertEqual(rule.get("state", "inactive"), "inactive", rule)
        self.assertEqual(self.alerts(), [])

    def test_2_a_model_with_a_weight_that_is_nan(self):
        self.analyze("poisoned")
        alert = self.await_alert("QkscopeNonFiniteActivations")
        self.assertEqual(alert["labels"]["model"], "poisoned")
        self.assertEqual(alert["labels"]["severity"], "critical")
        self.assertIn("poisoned", alert["annotations"]["summary"])

    def test_3_a_killed_server_is_down_until_it_is_back(self):
        self.assertEqual(self.alerts("QkscopeDown"), [])
        self.server.stop(signal.SIGKILL)
        self.await_alert("QkscopeDown")
        type(self).server = self.start_server("second")
        self.await_resolved("QkscopeDown")
        # It began in test 2, and nobody has asked that model since.
        self.await_resolved("QkscopeNonFiniteActivations")

    def test_4_what_follows_from_an_alert_is_not_told(self):
        """Alertmanager is given alerts; Prometheus is not asked."""
        def alert(name, instance, severity):
            return {"labels": {"alertname": name, "instance": instance,
                               "severity": severity}}
        soon = (datetime.datetime.now(datetime.timezone.utc)
                + datetime.timedelta(hours=1)).isoformat()
        given = [alert("QkscopeDown", "x:1", "critical"),
                 alert("QkscopeLogDropped", "x:1", "warning"),
                 alert("QkscopeLogDropped", "y:1", "warning")]
        for one in given:
            one["endsAt"] = soon
        request = urllib.request.Request(
            f"{self.alertmanager}/api/v2/alerts", json.dumps(given).encode(),
            {"Content-Type": "application/json"}, method="POST")
        urllib.request.urlopen(request, timeout=programs.PATIENCE_S).close()

        def states():
            return {(one["labels"]["alertname"], one["labels"]["instance"]):
                    one["status"]["state"]
                    for one in self.alerts("QkscopeDown", "QkscopeLogDropped")
                    if one["labels"]["instance"] in ("x:1", "y:1")}

        expected = {("QkscopeDown", "x:1"): "active",
                    ("QkscopeLogDropped", "x:1"): "suppressed",
                    ("QkscopeLogDropped", "y:1"): "active"}
        # An alert has no state before its group is first looked at.
        wait_until(lambda: states() == expected, lambda: str(states()))


def main():
    programs.end_on_sigterm()
    # The tests of the rules use the processor while the others wait.
    rules = subprocess.Popen(
        [sys.executable, "-B", HERE / "alert_rules_test.py"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        program = programs.unittest.main(exit=False)
        output, _ = rules.communicate(timeout=1200)  # only a hang is longer
    finally:
        rules.kill()
        rules.wait()
    print(output.decode())
    return 0 if program.result.wasSuccessful() and not rules.returncode else 1


if __name__ == "__main__":
    sys.exit(main())
