"""What the rows of deploy/check.sh that are in Python share."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Only a hang takes this long.
PATIENCE_S = 300


def not_run(reason):
    """Ends the row: it cannot be run here."""
    print(reason)
    sys.exit(77)


def need(*programs):
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        not_run(f"not installed: {', '.join(missing)}")


def need_root():
    if os.geteuid() != 0:
        not_run("needs root")


def build_folder():
    """Returns the CMake build that QK_BIN belongs to."""
    folder = pathlib.Path(os.environ["QK_BIN"]).resolve().parent
    for part in ("cmake_install.cmake", "deploy/man/qkctl.1"):
        if not (folder / part).is_file():
            not_run(f"QK_BIN is not in a build folder with the target "
                    f"`packaged`: there is no {part} beside it")
    return folder


def work_folder():
    return pathlib.Path(os.environ["QK_WORK"])


def run(*command, **more):
    """Runs a command, which must succeed, and returns its output.

    With check=False it may fail, and its result is returned.
    """
    check = more.pop("check", True)
    result = subprocess.run(
        [*map(str, command)],
        **{"check": False, "stdout": subprocess.PIPE, "encoding": "utf-8",
           "timeout": PATIENCE_S, "stdin": subprocess.DEVNULL, **more})
    if not check:
        return result
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit status "
                             f"{result.returncode}\n{result.stdout}")
    return result.stdout


class Server:
    """qkscoped on loopback with the demo model."""

    def __init__(self, program, log):
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [program, "--model",
                 f"smollm2={os.environ['QKSCOPE_DEMO_MODEL']}", "--listen",
                 "127.0.0.1:0", "--metrics-listen", ""],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            events = wait_until(lambda: self._events(log), "the server's start")
        except BaseException:
            self.stop()
            raise
        self.address = events["listening"]["listen"]

    def _events(self, log):
        assert self.process.poll() is None, log.read_text("utf-8")
        lines = [json.loads(line) for line in
                 log.read_text("utf-8").splitlines(keepends=True)
                 if line.endswith("\n")]
        events = {line["event"]: line for line in lines}
        return events if "model_ready" in events else None

    def stop(self):
        self.process.kill()
        self.process.wait()


def wait_until(condition, what):
    """Waits until condition() is true, and returns what it returned."""
    limit = time.monotonic() + PATIENCE_S
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise AssertionError(f"{what}: not within {PATIENCE_S} s")
        time.sleep(0.05)


def step(text, began=time.monotonic()):
    print(f"{time.monotonic() - began:5.1f} s  {text}", flush=True)


def exit_on_sigterm():
    """Lets cleanups run when the row is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
