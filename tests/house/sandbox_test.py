"""S11: what the image, docker-compose.yml and the systemd unit let the server
do. deploy/check.sh runs them; this reads them, so that nobody loosens them
unseen."""

import pathlib
import re
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Images whose containers run on their own user, and why nobody else's.
NOT_ROOT = re.compile(r"[1-9][0-9]*:[0-9]+")
MAX_FILES = 16384


def stages(text):
    """Returns {name: (base, [(instruction, arguments)])} of a Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    found, instructions = {}, []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, arguments = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = arguments.partition(" AS ")
            instructions = []
            found[name] = (base, instructions)
        elif word:
            instructions.append((word, arguments.strip()))
    return found


def last(dockerfile, stage, word):
    """The arguments of an instruction that hold in a stage, from its base if it
    has none."""
    base, instructions = dockerfile[stage]
    values = [arguments for name, arguments in instructions if name == word]
    if values:
        return values[-1]
    return last(dockerfile, base, word) if base in dockerfile else None


class DockerfileTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.text = (ROOT / "Dockerfile").read_text()
        cls.stages = stages(cls.text)

    def test_every_image(self):
        self.assertEqual(list(self.stages)[-1], "cpu")
        for stage in ("cpu", "cuda", "prebuilt"):
            with self.subTest(stage):
                def value(word, stage=stage):
                    return last(self.stages, stage, word)
                self.assertRegex(value("USER"), NOT_ROOT)
                self.assertIn('"/usr/bin/qkctl", "health"',
                              value("HEALTHCHECK"))
                self.assertEqual(value("STOPSIGNAL"), "SIGTERM")
                self.assertEqual(value("ENTRYPOINT"), '["/usr/bin/qkscoped"]')
                self.assertIn("org.opencontainers.image.version",
                              value("LABEL"))

    def test_images_for_the_cpu_are_made_of_nothing_else(self):
        self.assertEqual(self.stages["base"][0], "scratch")
        for stage in ("cpu", "prebuilt"):
            base, instructions = self.stages[stage]
            self.assertEqual(base, "base")
            self.assertEqual([word for word, _ in instructions], ["COPY"])

    def test_nothing_secret_can_get_in(self):
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        rules = [line for line in ignored if line and line[0] != "#"]
        self.assertEqual(rules[0], "*")
        for rule in rules[1:]:
            self.assertRegex(rule, r"^!(engine|proto|server|client)/$|"
                             r"^![\w./]+\.(txt|json|py|sh)$|^!docs/\*\.md$|"
                             r"^!LICENSE$")
        self.assertNotRegex(self.text, r"(?i)password|token|secret|--mount")

    def test_its_version_is_that_of_the_program(self):
        (version,) = re.findall(r"project\(qkscope VERSION (\S+)",
                                (ROOT / "CMakeLists.txt").read_text())
        self.assertEqual(set(re.findall(r"ARG VERSION=(\S+)", self.text)),
                         {version})
        compose = (ROOT / "docker-compose.yml").read_text()
        self.assertIn(f"qkscope:{version}}}", compose)

    def test_a_loose_file_is_seen(self):
        loose = stages("FROM a AS b\nUSER 1:1\nFROM b AS c\nRUN x\n"
                       "FROM d AS e\nUSER root\n")
        self.assertRegex(last(loose, "c", "USER"), NOT_ROOT)
        self.assertNotRegex(last(loose, "e", "USER"), NOT_ROOT)
        self.assertIsNone(last(loose, "e", "HEALTHCHECK"))


def loose(service):
    """What a service may do that it should not."""
    if not NOT_ROOT.fullmatch(service.get("user", "")):
        yield "user"
    if service.get("read_only") is not True:
        yield "read_only"
    if service.get("cap_drop") != ["ALL"] or "cap_add" in service:
        yield "capabilities"
    if service.get("security_opt") != ["no-new-privileges"]:
        yield "security_opt"
    if not 0 < service.get("ulimits", {}).get("nofile", 0) <= MAX_FILES:
        yield "nofile"
    for key in ("mem_limit", "pids_limit", "healthcheck", "logging", "restart"):
        if not service.get(key):
            yield key
    for key in ("privileged", "network_mode", "pid", "ipc", "devices"):
        if key in service:
            yield key
    for volume in service.get("volumes", ()):
        if isinstance(volume, str) or (volume["type"] == "bind" and
                                       volume.get("read_only") is not True):
            yield f"volume {volume}"
        elif "docker.sock" in volume["source"]:
            yield "Docker's socket"
    for port in service.get("ports", ()):
        if not re.match(r"\$\{\w+_ADDRESS:-127\.0\.0\.1\}:", port):
            yield f"port {port}"


class ComposeTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.text = (ROOT / "docker-compose.yml").read_text()
        cls.file = yaml.safe_load(cls.text)
        cls.services = cls.file["services"]

    def test_every_service(self):
        self.assertEqual(set(self.services), {
            "server", "edge", "prometheus", "alertmanager", "grafana"})
        for name, service in self.services.items():
            with self.subTest(name):
                self.assertEqual(list(loose(service)), [])

    def test_the_server_is_inside(self):
        server = self.services["server"]
        self.assertNotIn("ports", server)
        self.assertEqual(server["networks"], ["inside"])
        self.assertEqual(self.file["networks"]["inside"], {"internal": True})
        settings = (ROOT / "deploy/compose/qkscoped.conf").read_text()
        self.assertIn("behind_proxy: true", settings)
        self.assertIn("users_file:", settings)

    def test_the_server_has_time_to_end(self):
        settings = (ROOT / "deploy/compose/qkscoped.conf").read_text()
        (grace,) = re.findall(r"shutdown_grace_s: (\d+)", settings)
        stop = self.services["server"]["stop_grace_period"]
        self.assertGreater(int(stop.removesuffix("s")), int(grace))

    def test_there_is_no_default_password(self):
        for name, service in self.services.items():
            for key, value in (service.get("environment") or {}).items():
                with self.subTest(name, key=key):
                    if re.search("PASSWORD|TOKEN|SECRET", key):
                        self.assertTrue(key.endswith("__FILE"))
                        self.assertTrue(value.startswith("/run/secrets/"))
        examples = (ROOT / ".env.example").read_text()
        self.assertNotRegex(examples, r"(?im)^#?\w*(password|token)\w*=")

    def test_every_setting_is_explained(self):
        """.env.example has each variable, with the default in use."""
        used = {}
        for file in ("docker-compose.yml", "deploy/compose/gpu.yml"):
            for name, default in re.findall(
                    r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}",
                    (ROOT / file).read_text()):
                self.assertEqual(used.setdefault(name, default), default)
        shown = dict(re.findall(r"^#?([A-Z_]+)=(.*)$",
                                (ROOT / ".env.example").read_text(), re.M))
        self.assertEqual(shown, used)

    def test_a_loose_service_is_seen(self):
        service = dict(self.services["server"])
        for key, value in (("user", "0:0"), ("user", "root"),
                           ("read_only", False), ("cap_drop", ["NET_RAW"]),
                           ("cap_add", ["SYS_ADMIN"]), ("security_opt", []),
                           ("ulimits", {"nofile": 65536}), ("mem_limit", ""),
                           ("privileged", True), ("network_mode", "host"),
                           ("ports", ["7461:7461"]),
                           ("volumes", ["/:/host"])):
            with self.subTest(key=key, value=value):
                self.assertEqual(len(list(loose({**service, key: value}))), 1)


class PrometheusTest(unittest.TestCase):

    def test_compose_has_the_same_with_a_token(self):
        plain, ours = (yaml.safe_load((ROOT / file).read_text()) for file in (
            "deploy/prometheus/prometheus.yml",
            "deploy/compose/prometheus.yml"))
        for job in ours["scrape_configs"]:
            self.assertEqual(
                job.pop("authorization"),
                {"credentials_file": "/run/secrets/qkscope/metrics.token"})
        self.assertEqual(ours, plain)


class UnitTest(unittest.TestCase):

    def test_the_unit(self):
        text = (ROOT / "deploy/systemd/qkscoped.service").read_text()
        lines = dict(re.findall(r"^(\w+)=(.*)$", text, re.M))
        for key, value in {
                "DynamicUser": "yes", "NoNewPrivileges": "yes",
                "ProtectSystem": "strict", "ProtectHome": "yes",
                "PrivateTmp": "yes", "PrivateDevices": "yes",
                "CapabilityBoundingSet": "", "AmbientCapabilities": "",
                "LimitNOFILE": str(MAX_FILES), "UMask": "0077",
                "RestrictNamespaces": "yes", "LockPersonality": "yes"}.items():
            with self.subTest(key):
                self.assertEqual(lines.get(key), value)


if __name__ == "__main__":
    unittest.main()
