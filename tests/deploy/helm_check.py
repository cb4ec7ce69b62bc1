"""Tests the Helm chart without a cluster: it is linted, rendered for two
versions of Kubernetes, and validated; bad values are refused."""
# row: Helm chart: lint, render, Kubernetes 1.25 and 1.37 schemas | schema | quick | 25

import copy
import os
import pathlib
import subprocess
import tempfile
import unittest

import kubernetes_tools
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/qkscope"
VALUES = ROOT / "tests/deploy/helm"
BIN = pathlib.Path(os.environ["QK_BIN"])
VERSIONS = ("1.25.0", "1.37.0")
MONITOR = "monitoring.coreos.com/v1"
KEDA = "keda.sh/v1alpha1"
HELM, _ = kubernetes_tools.fetch()


def helm(*arguments):
    return subprocess.run([HELM, *arguments], capture_output=True, text=True,
                          check=False)


def template(values, version=VERSIONS[1], apis=(MONITOR, KEDA),
             changes=()):
    command = ["template", "rel", CHART, "--namespace", "lab",
               "--kube-version", version, "--values", VALUES / values]
    for api in apis:
        command += ["--api-versions", api]
    for change in changes:
        command += ["--set-json", change]
    return helm(*command)


def render(values, **kw):
    done = template(values, **kw)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def of_kind(objects, kind):
    return {one["metadata"]["name"]: one for one in objects
            if one["kind"] == kind}


def pod_of(deployment):
    return deployment["spec"]["template"]


# What each object must be, and kubernetes-validate does not look at.
def faults(objects):
    found = []
    deployments = of_kind(objects, "Deployment")
    pods = {name: pod_of(one)["metadata"]["labels"]
            for name, one in deployments.items()}

    def selects(selector, labels):
        return selector and selector.items() <= labels.items()

    for name, one in deployments.items():
        if not selects(one["spec"]["selector"]["matchLabels"], pods[name]):
            found.append(f"Deployment {name}: its selector misses its pods")
        for container in pod_of(one)["spec"]["containers"]:
            for port in container["ports"]:
                if not 0 < port["containerPort"] < 65536:
                    found.append(f"Deployment {name}: {port}")
    for kind, read in {
            "Service": lambda o: o["spec"]["selector"],
            "PodDisruptionBudget":
                lambda o: o["spec"]["selector"]["matchLabels"],
            "NetworkPolicy":
                lambda o: o["spec"]["podSelector"]["matchLabels"]}.items():
        for name, one in of_kind(objects, kind).items():
            hit = [pod for pod, labels in pods.items()
                   if selects(read(one), labels)]
            if hit != [name]:
                found.append(f"{kind} {name}: selects {hit}")
    for name, one in of_kind(objects, "ScaledObject").items():
        target = one["spec"]["scaleTargetRef"]["name"]
        if target not in deployments:
            found.append(f"ScaledObject {name}: no Deployment {target}")
        elif "replicas" in deployments[target]["spec"]:
            found.append(f"Deployment {target}: replicas fight the scaler")
    services = of_kind(objects, "Service")
    for name, one in of_kind(objects, "ServiceMonitor").items():
        for service in services.values():
            if not selects(one["spec"]["selector"]["matchLabels"],
                           service["metadata"]["labels"]):
                found.append(f"ServiceMonitor {name}: misses a Service")
            names = [port["name"] for port in service["spec"]["ports"]]
            for endpoint in one["spec"]["endpoints"]:
                if endpoint["port"] not in names:
                    found.append(f"ServiceMonitor {name}: {endpoint}")
    return found


class RenderTest(unittest.TestCase):
    def test_lint(self):
        for values in ("small.yaml", "everything.yaml"):
            done = helm("lint", "--strict", CHART, "--values", VALUES / values)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_objects_are_valid(self):
        for version in VERSIONS:
            for values in ("small.yaml", "everything.yaml"):
                objects = render(values, version=version)
                self.assertGreater(len(objects), 5)
                self.assertEqual(faults(objects), [])
                for one in objects:
                    if one["apiVersion"] in (MONITOR, KEDA):
                        continue  # no schema of these is to be had
                    kubernetes_validate.validate(one, version, strict=True)

    def test_the_checks_find_faults(self):
        objects = render("small.yaml")
        for kind, path, value in (
                ("Deployment", ("spec", "selector", "matchLabels"), {"a": "b"}),
                ("Service", ("spec", "selector"), {"a": "b"}),
                ("NetworkPolicy", ("spec", "podSelector", "matchLabels"), {})):
            bad = copy.deepcopy(objects)
            part = next(iter(of_kind(bad, kind).values()))
            for key in path[:-1]:
                part = part[key]
            part[path[-1]] = value
            self.assertNotEqual(faults(bad), [], kind)
        bad = copy.deepcopy(objects)
        container = pod_of(of_kind(bad, "Deployment")["rel-small"])["spec"][
            "containers"][0]
        container["ports"][0]["containerPort"] = 99999
        self.assertNotEqual(faults(bad), [])
        container["livenes"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(of_kind(bad, "Deployment")[
                "rel-small"], VERSIONS[0], strict=True)

    def test_kinds_that_a_cluster_lacks_are_left_out(self):
        kinds = {one["kind"] for one in render("everything.yaml", apis=())}
        # helm template itself always has policy/v1.
        self.assertEqual(kinds, {"ConfigMap", "Deployment", "NetworkPolicy",
                                 "Service", "PodDisruptionBudget"})
        everything = {one["kind"] for one in render("everything.yaml")}
        self.assertEqual(everything - kinds, {"ServiceMonitor", "ScaledObject"})


class PodTest(unittest.TestCase):
    def setUp(self):
        self.objects = render("everything.yaml")

    def test_pods_are_confined(self):
        for one in of_kind(self.objects, "Deployment").values():
            pod = pod_of(one)["spec"]
            self.assertIs(pod["automountServiceAccountToken"], False)
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
            self.assertGreater(pod["securityContext"]["runAsUser"], 0)
            (container,) = pod["containers"]
            self.assertEqual(container["securityContext"], {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]}})
            self.assertIn("memory", container["resources"]["limits"])

    def test_probes_ask_by_rpc(self):
        for one in of_kind(self.objects, "Deployment").values():
            (container,) = pod_of(one)["spec"]["containers"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                command = container[probe]["exec"]["command"]
                self.assertEqual(command[:2], ["qkctl", "health"])
                # qkctl knows the flags: there is no server (3) or, with TLS,
                # no certificate (13) here.
                done = subprocess.run([BIN / "qkctl", *command[1:]],
                                      capture_output=True, text=True,
                                      check=False)
                self.assertIn(done.returncode, (3, 13), done.stderr)

    def test_draining_has_time(self):
        for one in of_kind(self.objects, "Deployment").values():
            self.assertGreater(
                pod_of(one)["spec"]["terminationGracePeriodSeconds"], 30)

    def test_a_gpu_class(self):
        large = of_kind(self.objects, "Deployment")["rel-large"]
        pod = pod_of(large)["spec"]
        self.assertEqual(large["spec"]["replicas"], 0)
        self.assertEqual(pod["runtimeClassName"], "nvidia")
        (container,) = pod["containers"]
        self.assertTrue(container["image"].endswith(":0.1.0-cuda"))
        self.assertEqual(container["resources"]["limits"]["nvidia.com/gpu"],
                         "1")
        self.assertEqual(large["spec"]["strategy"]["rollingUpdate"],
                         {"maxSurge": 0, "maxUnavailable": 1})

    def test_qkscoped_takes_the_configuration(self):
        """The real server checks what the chart writes, with the pod's folders
        moved to one of ours."""
        for values in ("small.yaml", "everything.yaml"):
            for name, one in of_kind(render(values), "ConfigMap").items():
                with tempfile.TemporaryDirectory() as folder:
                    self.check_config(pathlib.Path(folder), name,
                                      one["data"]["qkscoped.conf"])

    def check_config(self, folder, name, text):
        model = folder / "models/model.gguf"
        model.parent.mkdir()
        model.symlink_to(os.environ["QKSCOPE_DEMO_MODEL"])
        lines = []
        for line in text.splitlines():
            if line.startswith(("tls {", "users_file:", "  certificate_file:",
                                "  key_file:", "backend:")):
                continue  # secrets and devices are not here
            if line.startswith("  path: "):
                self.assertTrue(line.startswith('  path: "/models/'))
                line = f'  path: "{model}"'
            if line.startswith("  sha256:") or line == "}" and (
                    lines[-1] != f'  path: "{model}"'
                    and not lines[-1].startswith("  compute:")):
                continue
            lines.append(line.replace('"/spool/', f'"{folder}/')
                         .replace("0.0.0.0:7461", "127.0.0.1:0")
                         .replace("0.0.0.0:9461", "127.0.0.1:0"))
        config = folder / "qkscoped.conf"
        config.write_text("\n".join(lines))
        done = subprocess.run(
            [BIN / "qkscoped", "--config", config, "--check-config"],
            capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0,
                         f"{name}: {done.stdout}{done.stderr}\n{text}")


class BadValuesTest(unittest.TestCase):
    def test_each_is_refused_by_name(self):
        small = "classes.small."
        for change, word in (
                ('classes={}', "classes"),
                ('classes={"Big_One":{}}', "classes"),
                (small + "models=[]", "models"),
                (small + 'models=[{"name":"a b","path":"x"}]', "name"),
                (small + 'models=[{"name":"a","path":"../x"}]', "path"),
                (small + 'models=[{"name":"a","path":"/etc"}]', "path"),
                (small + 'models=[{"name":"a","path":"x","sha256":"1"}]',
                 "sha256"),
                (small + 'models=[{"name":"a","path":"x","dtype":"f32"}]',
                 "dtype"),
                (small + 'modelsVolume={"hostPath":"relative"}', "hostPath"),
                (small + "modelsVolume={}", "modelsVolume"),
                (small + "replicas=-1", "replicas"),
                (small + 'replicas="two"', "replicas"),
                (small + "gpu.count=2", "count"),
                (small + "replica=3", "replica"),
                (small + 'resources={"requests":{"cpu":"2"},"limits":'
                         '{"memory":"4 GB"}}', "memory"),
                (small + 'resources={"requests":{}}', "limits"),
                (small + "autoscaling.maxReplicas=0", "maxReplicas"),
                (small + "autoscaling.enabled=true", "prometheusAddress"),
                ("service.grpcPort=99999", "grpcPort"),
                ("service.metricsPort=0", "metricsPort"),
                ('exposure="everybody"', "exposure"),
                ('image.pullPolicy="Sometimes"', "pullPolicy"),
                ('image.repository=""', "repository"),
                ("shutdownGraceSeconds=0", "shutdownGraceSeconds"),
                ('usersSecret="Not A Name"', "usersSecret"),
                ('tls.secret="cert"', "serverName"),
                ("podDisruptionBudget.maxUnavailable=0", "maxUnavailable"),
                ('serviceMonitor.interval="15"', "interval"),
                ("persistence=true", "persistence")):
            done = template("small.yaml", changes=[change])
            self.assertNotEqual(done.returncode, 0, change)
            self.assertIn(word, done.stderr, change)
            self.assertEqual(done.stdout, "", change)


if __name__ == "__main__":
    unittest.main()
