"""Logs that nobody reads, files that are rotated, disks that are full."""

import errno
import json
import os
import signal
import subprocess
import sys
import unicodedata
import unittest

from edges_test import EX_CONFIG, failing
from processes import BIN, PATIENCE_S, PATIENT, TINY_MODEL, metrics, qkctl
from processes import wait_until
from server_case import ServerCase

IDS = ["analyze", "--model", "tiny", "--token-ids", "3,1,41,59"]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class StuckTest(ServerCase):
    def pipe(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        return reader, writer

    def fill(self, writer):
        """Fills a pipe, as somebody who has stopped reading would leave it."""
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x")
        except BlockingIOError:
            os.set_blocking(writer, True)

    def stuck_server(self):
        """Returns a server whose stderr is a full pipe, and its address."""
        config = self.folder / "q.conf"
        config.write_text(
            PATIENT + "listen: '127.0.0.1:0' metrics_listen: ''")
        reader, writer = self.pipe()
        process = subprocess.Popen(
            [BIN / "qkscoped", "--config", config, "--model",
             f"tiny={TINY_MODEL}"], stdin=subprocess.DEVNULL, stderr=writer)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        text = b""
        while b'"event":"listening"' not in text or not text.endswith(b"\n"):
            text += os.read(reader, 65536)
        self.fill(writer)
        line = next(line for line in text.splitlines() if b"listening" in line)
        return process, json.loads(line)["listen"]

    def test_r30_nobody_waits_for_a_reader_of_stderr(self):
        process, address = self.stuck_server()
        health = qkctl(address, "health", "--wait", str(PATIENCE_S))
        self.assertEqual(health.returncode, 0, health.stderr)
        for _ in range(20):
            result = qkctl(address, *IDS)
            self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(qkctl(address, "health").returncode, 0)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE_S), 0)

    def test_r30_a_start_that_fails_ends_although_nobody_reads(self):
        for flags in (["--threads", "0"], ["--users-file", self.folder]):
            writer = self.pipe()[1]
            self.fill(writer)
            process = subprocess.Popen(
                [BIN / "qkscoped", "--listen", "127.0.0.1:0",
                 "--metrics-listen", "", *map(str, flags)],
                stdin=subprocess.DEVNULL, stderr=writer)
            self.assertEqual(process.wait(PATIENCE_S), EX_CONFIG)


class LogFileTest(ServerCase):
    def log_server(self, environment=None, config=""):
        self.log = self.folder / "qkscoped.log"
        self.config = self.folder / "q.conf"
        self.config.write_text(
            PATIENT + "listen: '127.0.0.1:0' metrics_listen: '127.0.0.1:0' "
            f"log_file: '{self.log}' " + config)
        process = subprocess.Popen(
            [BIN / "qkscoped", "--config", self.config, "--model",
             f"tiny={TINY_MODEL}"], stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, env=environment)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.await_event(self.log, "listening")
        listening = next(line for line in lines_of(self.log)
                         if line["event"] == "listening")
        self.address = listening["listen"]
        self.metrics_address = listening["metrics"]
        health = qkctl(self.address, "health", "--wait", str(PATIENCE_S))
        self.assertEqual(health.returncode, 0, health.stderr)
        return process

    def call(self):
        result = qkctl(self.address, *IDS)
        self.assertEqual(result.returncode, 0, result.stderr)

    def await_event(self, path, event, times=1):
        wait_until(lambda: path.exists() and sum(
            line["event"] == event for line in lines_of(path)) >= times,
            lambda: f"{event} in {path}:\n{path.read_text()}")

    def test_r30_logrotate(self):
        process = self.log_server()
        self.assertEqual(self.log.stat().st_mode & 0o137, 0)
        self.call()
        self.await_event(self.log, "rpc")
        old = self.folder / "qkscoped.log.1"
        self.log.rename(old)
        self.call()
        self.await_event(old, "rpc", 2)
        process.send_signal(signal.SIGHUP)
        wait_until(self.log.exists, "the new log")
        self.call()
        self.await_event(self.log, "rpc")
        size = old.stat().st_size
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE_S), 0)
        self.assertEqual(lines_of(self.log)[-1]["event"], "stopped")
        self.assertEqual(old.stat().st_size, size)
        self.assertEqual(process.stderr.read(), b"")

    def test_r30_a_full_disk_loses_lines_and_says_so(self):
        trigger = self.folder / "trigger"
        log = self.folder / "qkscoped.log"
        process = self.log_server(
            failing("write", log, errno.ENOSPC, trigger))
        self.call()
        self.await_event(self.log, "rpc")
        trigger.touch()
        server = type("Address", (), {"metrics_address": self.metrics_address})
        for calls in range(1, 4):
            self.call()
            wait_until(lambda: metrics(server)["qkscope_log_dropped_total"][""]
                       >= calls, "the lost line")
        trigger.unlink()
        self.call()
        self.await_event(self.log, "rpc", 2)
        events = [line["event"] for line in lines_of(self.log)]
        at = events.index("log_dropped")
        self.assertEqual(events[at + 1], "rpc")
        self.assertEqual(lines_of(self.log)[at]["lines"],
                         metrics(server)["qkscope_log_dropped_total"][""])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE_S), 0)

    def test_s15_a_prompt_cannot_act_on_who_reads_the_log(self):
        """A log line shows every control or format character of a prompt, as
        Python's own tables know them, escaped."""
        process = self.log_server(config="log_prompts: true")
        acting = [chr(c) for c in range(1, 0x110000)
                  if unicodedata.category(chr(c)) in ("Cc", "Cf", "Zl", "Zp")]
        self.assertGreater(len(acting), 200)
        prompt = "".join(acting) + "\u00fc\u4e2d\U0001f600"
        self.assertLess(len(prompt.encode()), 4096)
        for text in (prompt.encode(), b"\xff\xfe\xc2\x9b\xe2\x80"):
            # The tiny model takes no text; the line has it nevertheless.
            qkctl(self.address, "tokenize", "--model", "tiny",
                  "--prompt-file", self.write(text))
        wait_until(lambda: sum("prompt" in line for line in
                               lines_of(self.log)) >= 2, "the lines")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE_S), 0)
        text = self.log.read_bytes().decode()
        for c in acting:
            if c != "\n":
                self.assertNotIn(c, text, hex(ord(c)))
        prompts = [line["prompt"] for line in lines_of(self.log)
                   if "prompt" in line]
        self.assertEqual(prompts[0], prompt)
        self.assertEqual(prompts[1], "\ufffd\ufffd\x9b\ufffd\ufffd")
        self.assertIn("\u00fc\u4e2d\U0001f600", text)

    def write(self, content):
        path = self.folder / "prompt"
        path.write_bytes(content)
        return path

    def test_r30_what_keeps_it_from_starting_is_also_on_stderr(self):
        log = self.folder / "log"
        result = subprocess.run(
            [BIN / "qkscoped", "--listen", "127.0.0.1:0", "--metrics-listen",
             "", "--log-file", log, "--model", f"m={self.folder}/none"],
            capture_output=True, encoding="utf-8", timeout=PATIENCE_S,
            check=False)
        self.assertEqual(result.returncode, EX_CONFIG)
        self.assertRegex(result.stderr, r"^qkscoped: .*none: no such file")
        self.assertEqual(lines_of(log)[-1]["event"], "cannot_start")


if __name__ == "__main__":
    sys.exit(unittest.main())
