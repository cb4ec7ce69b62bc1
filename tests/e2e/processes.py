"""Real processes for the end-to-end tests: qkscoped and qkctl.

Servers listen on free loopback ports; the tests end them by process id.
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
import time
import types
import unittest
import urllib.request

from holding_proxy import HoldingProxy

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ["QK_BIN_DIR"])
TINY_MODEL = ROOT / "tests" / "goldens" / "tiny_llama_gqa"

# This is longer than anything here takes; a test that reaches it hangs.
PATIENCE_S = 1200

# The configuration of a server whose clients may stall or be slow for as long
# as they like.
PATIENT_LIMITS = "write_stall_timeout_ms: 3600000 max_deadline_ms: 7200000 "
PATIENT_KEEPALIVE = "keepalive_s: 3600 keepalive_timeout_s: 3600 "
PATIENT = PATIENT_KEEPALIVE + f"limits {{{PATIENT_LIMITS}}} "


class Server:
    """A qkscoped with the given models (name -> path), until stop().

    Without a --config it uses PATIENT. `client_flags`: what qkctl needs to
    reach it. `wrap` turns the command into another one that runs it in the same
    process.
    """

    PROGRAM = "qkscoped"
    STDIN = subprocess.DEVNULL

    def __init__(self, models, *flags, client_flags=(), environment=None,
                 wrap=list, listen="127.0.0.1:0"):
        self.client_flags = list(client_flags)
        self._folder = scratch_folder()
        if "--config" not in flags:
            config = pathlib.Path(self._folder.name) / "q.conf"
            config.write_text(PATIENT)
            flags = ["--config", config, *flags]
        command = [BIN / self.PROGRAM, "--listen", listen,
                   "--metrics-listen", "127.0.0.1:0", *flags]
        for name, path in models.items():
            command += ["--model", f"{name}={path}"]
        self.process = subprocess.Popen(
            wrap(command), stdin=self.STDIN, stderr=subprocess.PIPE,
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

    def await_log(self, text, times=1):
        """Waits until the log contains the text `times` times."""
        wait_until(lambda: self.log_text().count(text) >= times,
                   lambda: f"{text} in the log:\n" + self.log_text())

    def rpcs(self, count=0):
        """Waits until the log has `count` lines of ended calls; returns all."""
        def lines():
            return [entry for entry in map(json.loads, list(self.log))
                    if entry["event"] == "rpc"]
        wait_until(lambda: len(lines()) >= count, self.log_text)
        return lines()

    def send_signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        """Waits for the process; returns its exit status."""
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
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()


class GatedServer(Server):
    """A server whose device a test can hold, so that a request is certainly in
    progress: gated_server.cc."""

    PROGRAM = "gated_server"
    STDIN = subprocess.PIPE

    def _gate(self, command):
        done = self._commands_done()
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()
        wait_until(lambda: self._commands_done() > done,
                   lambda: f"the gate's {command}:\n" + self.log_text())

    def _commands_done(self):
        return sum('"event":"gate"' in line for line in list(self.log))

    def shut(self):
        """Makes every pass wait before its next step."""
        self._gate("shut")

    def let(self, passes):
        """Lets this many more passes through."""
        self._gate(f"let {passes}")

    def await_held(self):
        """Waits until a pass is held."""
        self._gate("await")

    def open(self):
        self._gate("open")

    def lose_device(self):
        self._gate("lose")


def wait_until(done, what):
    """Waits until `done` returns something true, and returns that. `what`, a
    text or a call that makes one, says what hangs otherwise."""
    until = time.monotonic() + PATIENCE_S
    while not (result := done()):
        if time.monotonic() > until:
            raise AssertionError(
                "hangs: " + (what if isinstance(what, str) else what()))
        time.sleep(0.01)
    return result


def write_whole(path, text):
    """Writes a file so that no reader ever sees a part of it."""
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.replace(path)


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
    """Runs qkctl on a pseudo-terminal; returns its exit status and output."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        _command(server, arguments), stdin=subprocess.DEVNULL, stdout=terminal,
        stderr=terminal, env={**os.environ, **(environment or {})})
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 65536)
        except OSError:  # Linux reports a closed terminal so.
            break
        if not part:
            break
        shown += part
    os.close(controller)
    return process.wait(PATIENCE_S), shown.decode()


class Client:
    """A qkctl whose standard output the test reads, line by line."""

    def __init__(self, server, *arguments):
        self.process = subprocess.Popen(
            _command(server, arguments), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        self.events = []

    def read_until(self, key):
        """Reads JSON lines up to the first with the key; true if found."""
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if key in self.events[-1]:
                return True
        return False

    def finish(self):
        """Reads the rest; returns exit status, events and standard error."""
        self.events += [json.loads(line) for line in self.process.stdout]
        err = self.process.stderr.read()
        return self.process.wait(PATIENCE_S), self.events, err

    def stop(self):
        """Sends SIGSTOP, and waits until the process has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: _state(self.process.pid) in "TZ", "SIGSTOP")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


# Megabytes of values.
_ids = ",".join(str(1 + i % 90) for i in range(250))
MUCH = ["--token-ids", _ids, "--form", "raw", "--json", "--arm", "clean",
        *(word for seed in range(60)
          for word in ("--arm", f"random_k:1,seed={seed}"))]


class Stalled(Client):
    """A qkctl in the middle of a stream of many megabytes.

    The client has the first layer; a proxy holds back everything but the
    beginning of the stream. Flow control stops the server, because the client
    asks for more only when data arrives, so the stream stays unfinished for as
    long as the test likes.
    """

    # This part contains the first layer.
    BEGINNING = 256 * 1024

    def __init__(self, server, *flags, model="tiny"):
        self.proxy = HoldingProxy(server.address, [self.BEGINNING])
        super().__init__(
            types.SimpleNamespace(address=self.proxy.address,
                                  client_flags=server.client_flags),
            "analyze", "--model", model, *MUCH, *flags)
        self.read_until("layer")

    def release(self):
        """Lets the client have everything from here on."""
        self.proxy.release()

    def __exit__(self, *unused):
        super().__exit__()
        self.proxy.close()


def scratch_folder():
    return tempfile.TemporaryDirectory(prefix="qkscope_e2e_")


class QkctlCase(unittest.TestCase):
    """Tests with a folder of their own that run qkctl on `server`."""

    server = None  # the class sets it

    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def qkctl(self, *arguments, expect=0, text=None):
        result = qkctl(self.server, *arguments, text=text)
        self.assertEqual(result.returncode, expect,
                         f"{arguments}\n{result.stdout}\n{result.stderr}")
        return result


def demo_model():
    """Returns the path of SmolLM2-135M-Instruct; fetches it if necessary."""
    return pathlib.Path(subprocess.run(
        ["bash", ROOT / "deploy" / "fetch_model.sh"], check=True,
        stdout=subprocess.PIPE, encoding="utf-8").stdout.strip())


def metrics(server):
    """Returns what /metrics shows: name -> labels -> value."""
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
    """Returns a size in /proc/PID/status, in bytes."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no " + key)


def resident_bytes(pid):
    return status_bytes(pid, "VmRSS")


def _state(pid):
    """Returns the state in /proc/PID/stat: T is stopped, Z has ended."""
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2]


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))
