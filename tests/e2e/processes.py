"""Real processes for the end-to-end tests: qkscoped and qkctl.

Servers listen on free loopback ports and are ended by their process id.
"""

import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import tempfile
import threading
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ["QK_BIN_DIR"])
TINY_MODEL = ROOT / "tests" / "goldens" / "tiny_llama_gqa"

# Longer than anything here takes; a test that reaches it hangs.
PATIENCE_S = 300


class Server:
    """A qkscoped with the given models (name -> path), until stop().

    `client_flags`: what qkctl needs to reach it. `wrap` makes of the command
    another one that runs it, in the same process.
    """

    def __init__(self, models, *flags, client_flags=(), environment=None,
                 wrap=list):
        self.client_flags = list(client_flags)
        command = [BIN / "qkscoped", "--listen", "127.0.0.1:0",
                   "--metrics-listen", "127.0.0.1:0", *flags]
        for name, path in models.items():
            command += ["--model", f"{name}={path}"]
        self.process = subprocess.Popen(
            wrap(command), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=environment)
        self.log = []
        self._listening = threading.Event()
        self.address = self.metrics_address = None
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if not self._listening.wait(PATIENCE_S) or self.address is None:
            self.stop(signal.SIGKILL)
            raise RuntimeError("qkscoped did not start:\n" + self.log_text())
        result = qkctl(self, "health", "--wait", str(PATIENCE_S))
        if result.returncode != 0:
            self.stop(signal.SIGKILL)
            raise RuntimeError(f"qkscoped does not serve: {result.stderr}\n"
                               + self.log_text())

    def _read_log(self):
        for raw in self.process.stderr:
            line = raw.decode(errors="replace")
            self.log.append(line)
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("event") == "listening":
                self.metrics_address = entry["metrics"]
                self.address = entry["listen"]
                self._listening.set()
        self._listening.set()

    def log_text(self):
        return "".join(self.log)

    def send_signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        """The exit status."""
        return self.process.wait(PATIENCE_S)

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(PATIENCE_S)
        self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()


def _command(server, arguments):
    address, flags = ((server, []) if isinstance(server, str)
                      else (server.address, server.client_flags))
    return [BIN / "qkctl", "--server", address,
            *map(str, [*flags, *arguments])]


def qkctl(server, *arguments, text=None, token=None):
    """Runs qkctl to its end; `text` is its standard input."""
    environment = {**os.environ, **({"QKSCOPE_TOKEN": token} if token else {})}
    return subprocess.run(
        _command(server, arguments), input=text, capture_output=True,
        encoding="utf-8", timeout=PATIENCE_S, check=False, env=environment)


def qkctl_on_terminal(server, *arguments, environment=None):
    """Runs qkctl on a pseudo-terminal; its exit status and what it showed."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        _command(server, arguments), stdin=subprocess.DEVNULL, stdout=terminal,
        stderr=terminal, env={**os.environ, **(environment or {})})
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 65536)
        except OSError:  # How Linux says that the other side is closed.
            break
        if not part:
            break
        shown += part
    os.close(controller)
    return process.wait(PATIENCE_S), shown.decode()


class Stalled:
    """A qkctl in the middle of a stream of many megabytes.

    It prints JSON lines into a pipe that nobody reads past the first layer, so
    it blocks, flow control stops the server, and the stream stays unfinished
    for as long as the test likes.
    """

    def __init__(self, server, *flags, model="tiny"):
        arms = ["--arm", "clean"]
        for seed in range(60):
            arms += ["--arm", f"random_k:1,seed={seed}"]
        ids = ",".join(str(1 + i % 90) for i in range(250))
        self.process = subprocess.Popen(
            _command(server, ["analyze", "--model", model, "--token-ids", ids,
                              "--form", "raw", "--json", *arms, *flags]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, encoding="utf-8")
        self.events = []
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if "layer" in self.events[-1]:
                break

    def finish(self):
        """Reads on; the exit status, all events, and standard error."""
        self.events += [json.loads(line) for line in self.process.stdout]
        err = self.process.stderr.read()
        return self.process.wait(PATIENCE_S), self.events, err

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def scratch_folder():
    return tempfile.TemporaryDirectory(prefix="qkscope_e2e_")


def demo_model():
    """The path of SmolLM2-135M-Instruct, which is fetched if need be."""
    return pathlib.Path(subprocess.run(
        ["bash", ROOT / "deploy" / "fetch_model.sh"], check=True,
        stdout=subprocess.PIPE, encoding="utf-8").stdout.strip())


def metrics(server):
    """What /metrics shows: name -> labels -> value."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics",
                                timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    values = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)(\{.*\})? (\S+)", line)
        if match and not line.startswith("#"):
            values.setdefault(match[1], {})[match[2] or ""] = float(match[3])
    return values


def status_bytes(pid, key):
    """A size in /proc/PID/status."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no " + key)


def resident_bytes(pid):
    return status_bytes(pid, "VmRSS")


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))
