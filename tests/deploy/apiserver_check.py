"""Installs, upgrades and uninstalls the Helm chart on a real Kubernetes API
server (1.20, the newest that can be built here) with a real etcd. There are no
controllers and no nodes, so no pod runs."""
# row: Helm chart: install, upgrade, uninstall on a real API server 1.20 | run | full | 60

import json
import os
import ssl
import subprocess
import unittest
import urllib.request

import kubernetes_tools
from programs import (PATIENCE_S, ROOT, Program, RealCase, end_on_sigterm,
                      free_port, wait_until, work_folder)

CHART = ROOT / "deploy/helm/qkscope"
VALUES = ROOT / "tests/deploy/helm/everything.yaml"
SERVER = ROOT / "build/deploy/kube-apiserver"


class ApiServerTest(RealCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run(["bash", ROOT / "tests/deploy/make_apiserver.sh",
                        SERVER], check=True)
        cls.helm, cls.kubectl = kubernetes_tools.fetch()
        cls.folder = work_folder(cls)
        etcd, peer, cls.port = free_port(), free_port(), free_port()
        cls.start(
            "etcd", "etcd", "--data-dir", cls.folder / "etcd",
            "--listen-client-urls", f"http://127.0.0.1:{etcd}",
            "--advertise-client-urls", f"http://127.0.0.1:{etcd}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"default=http://127.0.0.1:{peer}")
        key = cls.folder / "sa.key"
        for command in (["genrsa", "-out", key, "2048"],
                        ["rsa", "-in", key, "-pubout", "-out",
                         cls.folder / "sa.pub"]):
            subprocess.run(["openssl", *command], check=True,
                           capture_output=True)
        (cls.folder / "tokens.csv").write_text(
            'trial,admin,admin,"system:masters"\n')
        api_server = cls.start(
            "kube-apiserver", SERVER, f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1", f"--secure-port={cls.port}",
            f"--cert-dir={cls.folder}/certs",
            "--service-cluster-ip-range=10.0.0.0/24",
            f"--token-auth-file={cls.folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={cls.folder}/sa.pub",
            "--disable-admission-plugins=ServiceAccount")
        cls.environment = dict(
            os.environ, HOME=str(cls.folder), HELM_KUBETOKEN="trial",
            HELM_KUBEAPISERVER=f"https://127.0.0.1:{cls.port}",
            HELM_KUBEINSECURE_SKIP_TLS_VERIFY="true")
        wait_until(cls.is_ready, api_server.log.read_text)
        cls.kube("create", "namespace", "lab")

    @classmethod
    def start(cls, name, *command):
        return cls.keep(Program(cls.folder, name, *command))

    @classmethod
    def is_ready(cls):
        request = urllib.request.Request(
            f"https://127.0.0.1:{cls.port}/readyz",
            headers={"Authorization": "Bearer trial"})
        try:
            with urllib.request.urlopen(
                    request, context=ssl._create_unverified_context(),
                    timeout=PATIENCE_S) as answer:
                return answer.read() == b"ok"
        except OSError:
            return False

    @classmethod
    def run_tool(cls, tool, arguments):
        return subprocess.run([tool, *arguments], capture_output=True,
                              text=True, check=False, env=cls.environment)

    @classmethod
    def kube(cls, *arguments):
        done = cls.run_tool(cls.kubectl, [
            f"--server=https://127.0.0.1:{cls.port}", "--token=trial",
            "--insecure-skip-tls-verify=true", *arguments])
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        return done.stdout

    def run_helm(self, *arguments):
        done = self.run_tool(self.helm, ["--namespace", "lab", *arguments])
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def objects(self):
        found = json.loads(self.kube(
            "get", "--namespace", "lab", "--output", "json",
            "--selector", "app.kubernetes.io/instance=rel",
            "deployments,services,configmaps,networkpolicies"))["items"]
        return {(one["kind"], one["metadata"]["name"]): one for one in found}

    def test_install_upgrade_uninstall(self):
        installed = self.run_helm("install", "rel", CHART, "--values", VALUES)
        # 1.20 has no policy/v1, no Prometheus operator and no KEDA.
        for words in ("No PodDisruptionBudget", "No ServiceMonitor",
                      "small is not scaled"):
            self.assertIn(words, installed)
        self.assertEqual(set(self.objects()), {
            (kind, f"rel-{name}") for name in ("small", "large")
            for kind in ("Deployment", "Service", "ConfigMap",
                         "NetworkPolicy")})
        before = self.objects()["Deployment", "rel-large"]
        self.assertEqual(before["spec"]["replicas"], 0)

        # A changed configuration rolls the pods of its class, and no others.
        small = self.objects()["Deployment", "rel-small"]["spec"]["template"]
        self.run_helm("upgrade", "rel", CHART, "--values", VALUES, "--set",
                      "classes.large.replicas=2,"
                      "classes.large.config=log_prompts: true")
        after = self.objects()
        large = after["Deployment", "rel-large"]
        self.assertEqual(large["spec"]["replicas"], 2)
        self.assertIn("log_prompts: true", after["ConfigMap", "rel-large"][
            "data"]["qkscoped.conf"])
        self.assertNotEqual(large["spec"]["template"],
                            before["spec"]["template"])
        self.assertEqual(after["Deployment", "rel-small"]["spec"]["template"],
                         small)

        # What the chart refuses changes nothing.
        refused = self.run_tool(self.helm, [
            "--namespace", "lab", "upgrade", "rel", CHART, "--values", VALUES,
            "--set", "classes.large.gpu.count=2"])
        self.assertNotEqual(refused.returncode, 0)
        self.assertEqual(self.objects(), after)

        self.run_helm("uninstall", "rel")
        self.assertEqual(self.objects(), {})

    def test_the_api_server_refuses_what_the_schemas_miss(self):
        """Shows that this server looks at more than the schemas."""
        text = subprocess.run(
            [self.helm, "template", "bad", CHART, "--values", VALUES],
            capture_output=True, text=True, check=True).stdout
        bad = self.folder / "bad.yaml"
        bad.write_text(text.replace("containerPort: 7461",
                                    "containerPort: 99999"))
        with self.assertRaisesRegex(AssertionError, "99999"):
            self.kube("create", "--namespace", "lab", "--dry-run=server",
                      "--filename", str(bad))


if __name__ == "__main__":
    end_on_sigterm()
    unittest.main()
