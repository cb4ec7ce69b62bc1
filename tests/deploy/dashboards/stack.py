"""Real processes: two servers, and a Prometheus that scrapes them each second.

Everything listens on loopback, and ends with the block that started it.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
os.environ.setdefault("QK_BIN_DIR", os.environ["QK_BIN"])
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import certificates
import processes
from processes import Server, wait_until

TINY = processes.TINY_MODEL
CERTIFICATE_DAYS = 20
BUFFERED_BYTES = 48 << 20
QUEUE = 16
KV_BYTES = 256 << 20
KEPT_RESULTS = 50
KEPT_BYTES = 64 << 20
# alias: (role, budget). What `eve` asks for is more than her budget; `cy` uses
# up a known part of his.
CY_BYTES, EVE_BYTES = 400_000, 10
USERS = {
    "ada": ("user", ""),
    "bob": ("user", ""),
    "cy": ("user", f"bytes_per_window: {CY_BYTES} window_s: 86400"),
    "eve": ("user", f"bytes_per_window: {EVE_BYTES} window_s: 86400"),
    "ops": ("operator", ""),
}


def poison(folder):
    """Puts a NaN into the first of a safetensors file's tensors that is a
    projection to V."""
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    length = struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8:8 + length])
    name = min(name for name in header if name.endswith("v_proj.weight"))
    at = 8 + length + header[name]["data_offsets"][0]
    struct.pack_into("<f", content, at, float("nan"))
    file.write_bytes(content)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MainServer:
    """A server with users, TLS, a spool and a large model, which can load
    "tiny", and "poisoned" with NaN in it. `tokens`: the users' tokens."""

    def __init__(self, folder, model, stack):
        self.tokens = {alias: secrets.token_hex(16) for alias in USERS}
        authority = certificates.Authority(folder, "ca")
        pair = authority.issue("server", "localhost",
                               "DNS:localhost,IP:127.0.0.1",
                               days=(-1, CERTIFICATE_DAYS))
        self.ca = authority.cert
        self.certificate = pair.cert
        for name in ("tiny", "poisoned"):
            shutil.copytree(TINY, folder / "models" / name)
        poison(folder / "models" / "poisoned")
        config = folder / "main.conf"
        config.write_text(self._config(folder, pair))
        token = folder / "ops.token"
        token.write_text(self.tokens["ops"])
        token.chmod(0o600)
        self.server = stack.enter_context(Server(
            {"smollm2": model}, "--config", config, client_flags=[
                *certificates.client_flags(authority), "--token-file", token]))

    def _config(self, folder, pair):
        users = ""
        for alias, (role, budget) in USERS.items():
            digest = hashlib.sha256(self.tokens[alias].encode()).hexdigest()
            users += (f'users {{ alias: "{alias}" role: "{role}" '
                      f'token_sha256: "{digest}" '
                      + (f"budget {{ {budget} }} " if budget else "") + "}\n")
        return f"""
            {users}
            tls {{ certificate_file: "{pair.cert}" key_file: "{pair.key}" }}
            spool {{ directory: "{folder}/spool" max_results: {KEPT_RESULTS}
                     max_bytes: {KEPT_BYTES} }}
            model_admin {{ enabled: true root: "{folder}/models" }}
            activation_sampling: 1
            baseline_dir: "{folder}/baselines"
            replica: "one"
            keepalive_s: 3600 keepalive_timeout_s: 3600
            limits {{ max_queued_requests: {QUEUE}
                      max_buffered_bytes: {BUFFERED_BYTES}
                      kv_cache_bytes: {KV_BYTES}
                      write_stall_timeout_ms: 3600000 }}
            """

    @property
    def instance(self):
        return self.server.metrics_address

    def lines(self):
        """The log's lines so far."""
        return [json.loads(line) for line in list(self.server.log)]

    def rpcs(self):
        """Those of calls that have ended."""
        return [line for line in self.lines() if line["event"] == "rpc"]


class SecondServer:
    """A small server without users, which can be started anew at the same
    addresses."""

    def __init__(self, folder):
        self.config = folder / "second.conf"
        self.config.write_text(processes.PATIENT + 'replica: "two"')
        self.listen = f"127.0.0.1:{free_port()}"
        self.instance = f"127.0.0.1:{free_port()}"
        self._start()

    def _start(self):
        def with_port(command):
            command[command.index("--metrics-listen") + 1] = self.instance
            return command

        self.server = Server({"tiny": TINY}, "--config", self.config,
                             listen=self.listen, wrap=with_port)

    def restart(self, while_down):
        self.server.stop()
        while_down()
        self._start()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.server.stop()


class Prometheus:
    """Scrapes the instances' two pages each second."""

    def __init__(self, folder, instances):
        self.address = f"127.0.0.1:{free_port()}"
        targets = json.dumps(instances)
        config = folder / "prometheus.yml"
        config.write_text(f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: qkscope
    static_configs: [{{targets: {targets}}}]
  - job_name: qkscope_activations
    metrics_path: /metrics/activations
    static_configs: [{{targets: {targets}}}]
""")
        self._log = open(folder / "prometheus.log", "w")
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={config}",
             f"--storage.tsdb.path={folder}/prometheus",
             f"--web.listen-address={self.address}", "--log.level=warn"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    def __enter__(self):
        wait_until(self._ready, "Prometheus's start")
        return self

    def __exit__(self, *unused):
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def _ready(self):
        if self._process.poll() is not None:
            raise RuntimeError("Prometheus has ended")
        try:
            self._get("/-/ready")
            return True
        except OSError:
            return False

    def _get(self, path, **arguments):
        url = f"http://{self.address}{path}"
        body = urllib.parse.urlencode(arguments, doseq=True).encode() or None
        with urllib.request.urlopen(url, body, timeout=60) as answer:
            return answer.read()

    def _api(self, path, **arguments):
        try:
            answer = self._get("/api/v1/" + path, **arguments)
        except urllib.error.HTTPError as error:
            answer = error.read()
        answer = json.loads(answer)
        if answer["status"] != "success":
            raise ValueError(f"{arguments}: {answer['error']}")
        return answer["data"]

    def query(self, expr, at):
        """Returns [(labels, value)] at a time, in seconds."""
        found = self._api("query", query=expr, time=f"{at:.3f}")
        return [(one["metric"], float(one["value"][1]))
                for one in found["result"]]

    def query_range(self, expr, start, end, step):
        """Returns [(labels, [(time, value)])]."""
        found = self._api("query_range", query=expr, start=f"{start:.3f}",
                          end=f"{end:.3f}", step=f"{step:.3f}")
        return [(one["metric"], [(at, float(value))
                                 for at, value in one["values"]])
                for one in found["result"]]

    def label_values(self, selector, label):
        found = self._api("series", **{"match[]": selector})
        return sorted({one[label] for one in found if label in one})

    def scrapes(self, job, instance):
        """The times of all scrapes of a target, and whether it was up."""
        found = self._api("query", query=f'up{{job="{job}", instance='
                                         f'"{instance}"}}[1d]')
        return [(at, value == "1") for one in found["result"]
                for at, value in one["values"]]

    def next_scrape(self, job, instance):
        """Waits for a scrape that began after this call; returns its time."""
        now = time.time()
        return wait_until(
            lambda: next((at for at, up in self.scrapes(job, instance)
                          if at > now and up), None),
            f"a scrape of {job} {instance}")


@contextlib.contextmanager
def start(folder, model):
    """Yields the main server, the second and Prometheus."""
    with contextlib.ExitStack() as stack:
        main = MainServer(folder, model, stack)
        second = stack.enter_context(SecondServer(folder))
        prometheus = stack.enter_context(
            Prometheus(folder, [main.instance, second.instance]))
        yield main, second, prometheus
