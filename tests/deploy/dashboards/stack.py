"""Real processes: two servers, and a Prometheus that scrapes them each second.

Everything listens on loopback, and ends with the block that started it.
"""

import contextlib
import hashlib
import json
import secrets
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

from programs import (ROOT, TINY_MODEL, Program, Server, fetch, free_port,
                      wait_until)

import certificates  # of the end-to-end tests
from poisoned_model import poison

CERTIFICATE_DAYS = 20
BUFFERED_BYTES = 48 << 20
QUEUE = 16
KV_BYTES = 256 << 20
KEPT_RESULTS = 1000
KEPT_BYTES = 256 << 20
# alias: (role, budget). What `eve` asks for is more than her budget; `cy` uses
# up a known part of his.
CY_BYTES, EVE_BYTES = 2_000_000, 10
USERS = {
    "ada": ("user", ""),
    "bob": ("user", ""),
    "cy": ("user", f"bytes_per_window: {CY_BYTES} window_s: 86400"),
    "eve": ("user", f"bytes_per_window: {EVE_BYTES} window_s: 86400"),
    "ops": ("operator", ""),
}


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
            shutil.copytree(TINY_MODEL, folder / "models" / name)
        poison(folder / "models" / "poisoned",
               "model.layers.0.self_attn.v_proj.weight")
        config = folder / "main.conf"
        config.write_text(self._config(folder, pair))
        token = self.operator_token = folder / "ops.token"
        token.write_text(self.tokens["ops"])
        token.chmod(0o600)
        self.server = Server(
            folder, "--config", config, "--model", f"smollm2={model}",
            name="main", client_flags=[
                *certificates.client_flags(authority), "--token-file", token])
        stack.callback(self.server.stop)

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
        return self.server.metrics

    def rpcs(self):
        """The log's lines of calls that have ended."""
        return [line for line in self.server.lines() if line["event"] == "rpc"]


class SecondServer:
    """A small server without users, which can be started anew; its metrics
    stay where they are."""

    def __init__(self, folder):
        self._folder = folder
        self._port = free_port()
        self.instance = f"127.0.0.1:{self._port}"
        self._config = folder / "second.conf"
        self._config.write_text('replica: "two"')
        self.start()

    def start(self):
        self.server = Server(
            self._folder, "--config", self._config, "--model",
            f"tiny={TINY_MODEL}", name="second", metrics_port=self._port)

    def stop(self):
        self.server.stop()


def scrape_config(instances, token):
    """That of deploy/prometheus, which scrapes these instances each second,
    with the token in a file: without one, it would see no users."""
    shipped = yaml.safe_load(
        (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    jobs = []
    for job in shipped["scrape_configs"]:
        job = {key: value for key, value in job.items()
               if key not in ("file_sd_configs", "scrape_interval")}
        jobs.append({**job, "static_configs": [{"targets": instances}],
                     "authorization": {"credentials_file": str(token)}})
    return yaml.safe_dump({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": jobs})


class Prometheus:
    """Scrapes the instances' pages each second."""

    def __init__(self, folder, instances, token):
        self.address = f"127.0.0.1:{free_port()}"
        config = folder / "prometheus.yml"
        config.write_text(scrape_config(instances, token))
        self._program = Program(
            folder, "prometheus", "prometheus", f"--config.file={config}",
            f"--storage.tsdb.path={folder}/prometheus",
            f"--web.listen-address={self.address}", "--log.level=warn")

    def start(self):
        wait_until(lambda: self._program.process.poll() is not None
                   or fetch(f"http://{self.address}/-/ready"),
                   self._program.log.read_text)
        if self._program.process.poll() is not None:
            raise RuntimeError(self._program.log.read_text())

    def stop(self):
        self._program.stop()

    def _get(self, path, **arguments):
        body = urllib.parse.urlencode(arguments, doseq=True).encode()
        with urllib.request.urlopen(f"http://{self.address}{path}", body,
                                    timeout=60) as answer:
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
        second = SecondServer(folder)
        stack.callback(second.stop)
        prometheus = Prometheus(folder, [main.instance, second.instance],
                                main.operator_token)
        stack.callback(prometheus.stop)
        prometheus.start()
        yield main, second, prometheus
