"""Tests many clients of all kinds at once: every answer equals the one that the
same request gets alone, and nothing is left of clients that have gone.

SOAK_SECONDS (default 10) is the duration. SOAK_MODEL, if set, replaces the tiny
model, and then a prompt of 8,000 tokens is always in flight. SOAK_CLIENTS
defaults to 64. SOAK_NICE (default 5) exists because real clients have machines
of their own; here they take what the server and the timed probe leave. With
SOAK_APART=1 the server has one core and one thread, and the clients have
another core.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import processes
from processes import metrics, open_files, resident_bytes, threads

KINDS = ["good", "flood", "stalled", "killed", "long", "probe"]
SECONDS = int(os.environ.get("SOAK_SECONDS", "10"))
CLIENTS = int(os.environ.get("SOAK_CLIENTS", "64"))
NICE = os.environ.get("SOAK_NICE", "5")
APART = os.environ.get("SOAK_APART") == "1"


def on_core(core, command):
    return ["taskset", "-c", str(core), *command] if APART else command


class SoakTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        users = self.folder / "users.conf"
        for kind in KINDS:
            made = processes.qkctl("127.0.0.1:1", "user", "add", kind,
                                   "--users-file", users)
            self.assertEqual(made.returncode, 0, made.stderr)
            (self.folder / f"{kind}.token").write_text(made.stdout)
        real = os.environ.get("SOAK_MODEL")
        self.long_tokens = 8000 if real else 250
        self.server = processes.Server(
            {"m": real or processes.TINY_MODEL}, "--users-file", users,
            *(["--threads", "1"] if APART else []),
            wrap=lambda command: on_core(0, command))
        self.addCleanup(self.server.stop)

    def soak(self, seconds, clients):
        driven = subprocess.run(
            on_core(1, [
                processes.BIN / "soak", "--nice", NICE,
                "--server", self.server.address, "--model", "m",
                "--seconds", str(seconds), "--tokens", self.folder,
                "--clients", str(clients),
                "--long-tokens", str(self.long_tokens),
                "--qkctl", processes.BIN / "qkctl"]),
            capture_output=True, encoding="utf-8", check=False,
            timeout=seconds + processes.PATIENCE_S)
        self.assertEqual(driven.returncode, 0, driven.stderr + driven.stdout)
        return json.loads(driven.stdout)

    def await_idle(self):
        """Waits until no call and no run is left; returns the metrics then."""
        def idle():
            values = metrics(self.server)
            started = sum(values["qkscope_rpc_started_total"].values())
            handled = sum(values["qkscope_rpc_handled_total"].values())
            gauges = [values[gauge][""] for gauge in [
                "qkscope_queued_requests", "qkscope_running_requests",
                "qkscope_stream_buffered_bytes",
                "qkscope_stream_reserved_bytes"]]
            return values if started == handled and not any(gauges) else None
        return processes.wait_until(idle, "calls")

    def test_every_answer_is_the_one_alone_and_nothing_is_left(self):
        pid = self.server.process.pid
        self.soak(max(2, SECONDS // 5), CLIENTS)  # warm-up
        self.await_idle()
        before = resident_bytes(pid), open_files(pid), threads(pid)
        report = self.soak(SECONDS, CLIENTS)
        print("soak:", json.dumps(report))
        self.assertEqual(report["wrong"], 0)
        for kind in ["good", "flooded", "stalled", "killed", "long"]:
            self.assertGreater(report[kind], 0, kind)
        self.assertGreater(report["probe_ms"]["count"], 0)
        values = self.await_idle()
        # Sooner or later some requests are cancelled before they end.
        while values["qkscope_cancel_to_idle_seconds_count"][""] == 0:
            self.soak(SECONDS, CLIENTS)
            values = self.await_idle()
        print("cancel to idle, mean s:",
              values["qkscope_cancel_to_idle_seconds_sum"][""]
              / values["qkscope_cancel_to_idle_seconds_count"][""])
        # The descriptors of clients that have gone are closed soon, and the
        # threads of gRPC's pollers come and go.
        processes.wait_until(lambda: open_files(pid) <= before[1] + 16,
                             "open files")
        processes.wait_until(lambda: threads(pid) <= before[2] + 16,
                             "threads")
        after = resident_bytes(pid), open_files(pid), threads(pid)
        requests = report["good"] + report["flooded"]
        print("resident MiB before, after:", before[0] >> 20, after[0] >> 20,
              "in", requests, "requests")
        # A model's pool of KV pages keeps its high-water mark.
        if "SOAK_MODEL" not in os.environ:
            self.assertLess(after[0] - before[0], 32 << 20)


if __name__ == "__main__":
    unittest.main()
