"""Programs that the rows of deploy/check.sh start, on free loopback ports. They
are ended by their process id, also if the row fails or gets SIGTERM."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ["QK_BIN"])
# The helpers of the end-to-end tests.
os.environ.setdefault("QK_BIN_DIR", str(BIN))
sys.path.append(str(ROOT / "tests" / "e2e"))

from processes import wait_until  # rows import it from here
TINY_MODEL = ROOT / "tests" / "goldens" / "tiny_llama_gqa"

# Longer than anything here takes: a test that reaches it hangs.
PATIENCE_S = 300


def end_on_sigterm():
    """SIGTERM ends the row as an exception does, so that cleanups run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fetch(url):
    """Returns the body of an answer, or None without one."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return answer.read().decode()
    except OSError:
        return None


class Program:
    """A process whose output goes to FOLDER/NAME.log."""

    def __init__(self, folder, name, *command, stdin=subprocess.DEVNULL,
                 environment=None):
        self.log = pathlib.Path(folder) / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*map(str, command)], stdin=stdin, stdout=log, stderr=log,
                env={**os.environ, **(environment or {})})

    def lines(self):
        """Returns the whole lines so far that are JSON objects."""
        out = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                out.append(json.loads(line))
            except ValueError:
                continue
        return out

    def stop(self, number=signal.SIGTERM):
        """Ends the process; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Server(Program):
    """A qkscoped that serves. `listen` and `metrics` are its addresses."""

    def __init__(self, folder, *flags, name="qkscoped", metrics_port=0,
                 client_flags=(), program=BIN / "qkscoped"):
        self.client_flags = client_flags
        super().__init__(folder, name, program,
                         "--listen", "127.0.0.1:0",
                         "--metrics-listen", f"127.0.0.1:{metrics_port}", *flags)
        try:
            wait_until(lambda: self._listening()
                       or self.process.poll() is not None, self.log.read_text)
            if self.process.poll() is not None:
                raise RuntimeError(self.log.read_text())
            line = self._listening()[0]
            self.listen, self.metrics = line["listen"], line["metrics"]
            health = self.qkctl("health", "--wait", PATIENCE_S)
            if health.returncode != 0:
                raise RuntimeError(health.stderr + self.log.read_text())
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    @property
    def metrics_address(self):
        """`metrics`, for the helpers of the end-to-end tests."""
        return self.metrics

    def _listening(self):
        return [line for line in self.lines()
                if line.get("event") == "listening"]

    def qkctl(self, *arguments):
        return subprocess.run(
            [BIN / "qkctl", "--server", self.listen,
             *map(str, [*self.client_flags, *arguments])],
            stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
            timeout=PATIENCE_S, check=False)


def work_folder(case):
    """Returns an empty folder, which is removed with the test class. check.sh
    gives the folder that it lies in."""
    folder = tempfile.mkdtemp(prefix=case.__name__,
                              dir=os.environ.get("QK_WORK"))
    case.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


class RealCase(unittest.TestCase):
    """Tests with programs that the class starts."""

    @classmethod
    def keep(cls, program):
        """Ends the program with the class."""
        cls.addClassCleanup(program.stop, signal.SIGKILL)
        return program
