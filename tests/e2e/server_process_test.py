"""Tests qkscoped as a process: flags, configuration, signals, logs."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import unittest
import urllib.request

from processes import BIN, PATIENCE_S, PATIENT, TINY_MODEL, Server, Stalled
from processes import qkctl, scratch_folder

EX_CONFIG = 78
IDS = ["--model", "tiny", "--token-ids", "3,1,41,59"]


def qkscoped(*arguments, environment=None):
    return subprocess.run(
        [BIN / "qkscoped", *map(str, arguments)], capture_output=True,
        encoding="utf-8", timeout=PATIENCE_S, check=False, env=environment)


class FlagsTest(unittest.TestCase):
    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def config(self, text):
        path = self.folder / "q.conf"
        path.write_text(text)
        return path

    def refused(self, *arguments):
        """Returns the standard error of a start that must fail."""
        result = qkscoped(*arguments)
        self.assertEqual(result.returncode, EX_CONFIG, result.stderr)
        return result.stderr

    def test_help_and_version(self):
        self.assertRegex(qkscoped("--version").stdout, r"^qkscoped \d+\.\d+\.\d+\n$")
        text = qkscoped("--help").stdout
        for flag in ("--model", "--config", "--listen", "--metrics-listen",
                     "--threads", "--log-level", "--check-config", "Examples:"):
            self.assertIn(flag, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_bad_flags(self):
        self.assertEqual(
            self.refused("--modle", "a=b"),
            "qkscoped: unknown flag '--modle'; did you mean '--model'?\n")
        self.assertEqual(
            self.refused("--listen", "127.0.0.1:0", "--listen=127.0.0.1:0"),
            "qkscoped: --listen is given twice\n")
        for threads in ("0", "-1"):
            self.assertEqual(self.refused("--threads", threads),
                             "qkscoped: flags: threads: must be in [1, 1024], "
                             f"got {threads}\n")
        for memory in ("0", "1.5", "2GB", "-1", "", "nan", "9999999GiB"):
            self.assertEqual(self.refused(f"--device-memory={memory}"),
                             "qkscoped: flags: device_memory: must be a part "
                             "in (0, 1], as 0.5, or bytes, as 40GiB; got "
                             f"'{memory}'\n")
        self.assertEqual(self.refused("--matmul=fast"),
                         "qkscoped: flags: matmul: must be one of own, "
                         "cublaslt, auto; got 'fast'\n")
        self.assertEqual(self.refused("--backend=gpu"),
                         "qkscoped: flags: backend: must be one of auto, cpu, "
                         "cuda; got 'gpu'\n")
        self.assertIn("models[1].name: 'a' is already used by models[0]",
                      self.refused("--model", f"a={TINY_MODEL}",
                                   "--model", f"a={TINY_MODEL}"))

    def test_bad_config_names_file_key_and_value(self):
        path = self.config("listen: 'x'\n")
        self.assertEqual(
            self.refused("--config", path, "--check-config"),
            f"qkscoped: {path}: listen: no host or port, got 'x' (expected "
            "HOST:PORT)\n")
        path = self.config("\nlimits { max_arm: 3 }\n")
        self.assertEqual(
            self.refused("--config", path),
            f"qkscoped: {path}:2: unknown key 'max_arm'; did you mean "
            "'max_arms'?\n")
        path = self.config("backend: 'gpu'\n")
        self.assertEqual(
            self.refused("--config", path, "--check-config"),
            f"qkscoped: {path}: backend: must be one of auto, cpu, cuda; got "
            "'gpu'\n")
        self.assertEqual(self.refused("--config", self.folder / "none"),
                         f"qkscoped: --config: {self.folder / 'none'}: cannot "
                         "be read: No such file or directory\n")

    def test_check_config_looks_at_the_models(self):
        good = qkscoped("--check-config", "--backend", "auto",
                        "--model", f"a={TINY_MODEL}")
        self.assertEqual(good.returncode, 0, good.stderr)
        self.assertEqual(good.stdout, "configuration is valid: 1 model\n")
        bad = self.folder / "bad.gguf"
        bad.write_bytes(b"not a model at all, but long enough to be read")
        text = self.refused("--check-config", "--model", f"a={TINY_MODEL}",
                            "--model", f"b={bad}",
                            "--model", f"c={self.folder / 'none.gguf'}")
        lines = text.splitlines()
        self.assertEqual(len(lines), 2, text)
        self.assertTrue(lines[0].startswith("qkscoped: model 'b': "), text)
        self.assertIn("bad.gguf", lines[0])
        self.assertTrue(lines[1].startswith("qkscoped: model 'c': "), text)

    def test_a_model_that_cannot_load_stops_the_start(self):
        bad = self.folder / "bad.gguf"
        bad.write_bytes(b"GGUF" + b"\0" * 60)
        text = self.refused("--listen", "127.0.0.1:0", "--metrics-listen", "",
                            "--model", f"b={bad}")
        lines = [json.loads(line) for line in text.splitlines()]
        self.assertEqual([line["event"] for line in lines], ["cannot_start"])
        self.assertIn("bad.gguf: ", lines[0]["reason"])

    def test_a_wrong_checksum_stops_the_start(self):
        text = self.refused("--listen", "127.0.0.1:0", "--metrics-listen", "",
                            "--model", f"a={TINY_MODEL},sha256={'0' * 64}")
        last = json.loads(text.splitlines()[-1])
        self.assertEqual(last["event"], "cannot_start")
        self.assertIn("sha256", last["reason"].lower())

    def test_a_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            for flags in (["--listen", address, "--metrics-listen", ""],
                          ["--listen", "127.0.0.1:0", "--metrics-listen",
                           address]):
                text = self.refused(*flags, "--model", f"a={TINY_MODEL}")
                reason = json.loads(text.splitlines()[-1])["reason"]
                self.assertIn(address, reason)
                self.assertIn("in use", reason)

    def test_flags_override_the_file(self):
        path = self.config(
            "listen: '127.0.0.1:1' metrics_listen: '127.0.0.1:2' "
            f"models {{ name: 'tiny' path: '{TINY_MODEL}' }}")
        with Server({}, "--config", path) as server:
            self.assertEqual(
                qkctl(server, "health", "--model", "tiny").returncode, 0)


@unittest.skipIf(os.path.exists("/dev/nvidiactl"),
                 "this machine has an NVIDIA driver")
class WithoutADriverTest(unittest.TestCase):
    def test_cuda_says_why_it_cannot_run(self):
        result = qkscoped("--backend", "cuda", "--listen", "127.0.0.1:0",
                          "--metrics-listen=", "--model", f"a={TINY_MODEL}")
        self.assertEqual(result.returncode, EX_CONFIG, result.stderr)
        if "is not in this build" in result.stderr:
            return
        line = json.loads(result.stderr.splitlines()[-1])
        self.assertEqual(line["event"], "cannot_start")
        self.assertRegex(line["reason"],
                         r"^cuda: .*NVIDIA.*; this build needs a driver for "
                         r"CUDA \d+\.\d+ or newer$")

    def test_auto_serves_on_the_cpu_and_says_so(self):
        server = Server({"tiny": TINY_MODEL})
        self.addCleanup(server.stop)
        result = qkctl(server, "models")
        self.assertEqual(result.returncode, 0, result.stderr)
        line = result.stdout.splitlines()[-1]
        self.assertRegex(line, r"^runs on cpu: .+")
        has_cuda = qkscoped("--backend", "cuda", "--check-config", "--model",
                            f"a={TINY_MODEL}").returncode == 0
        self.assertEqual("; not on cuda: there is no NVIDIA driver; " in line,
                         has_cuda)


class SignalsTest(unittest.TestCase):
    def server(self, grace_s):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name) / "q.conf"
        path.write_text(PATIENT + f"shutdown_grace_s: {grace_s}")
        return Server({"tiny": TINY_MODEL}, "--config", path)

    def test_r17_sigterm_lets_calls_finish(self):
        with self.server(grace_s=3600) as server, Stalled(server) as stream:
            server.send_signal(signal.SIGTERM)
            server.await_log("draining")
            late = qkctl(server, "analyze", *IDS)
            self.assertNotEqual(late.returncode, 0)
            self.assertIn("server is shutting down", late.stderr)
            stream.release()
            code, events, err = stream.finish()
            self.assertEqual(code, 0, err)
            self.assertIn("finished", events[-1])
            self.assertEqual(server.wait(), 0)

    def test_r17_hard_stop_at_the_end_of_the_grace_period(self):
        with self.server(grace_s=1) as server, Stalled(server) as stream:
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(), 0)
            stream.release()
            code, events, _ = stream.finish()
            self.assertNotEqual(code, 0)
            self.assertNotIn("finished", events[-1])

    def test_r17_a_second_signal_is_now(self):
        with self.server(grace_s=3600) as server, Stalled(server) as stream:
            server.send_signal(signal.SIGTERM)
            server.await_log("draining")
            server.send_signal(signal.SIGTERM)
            # Neither the stream nor the grace period would have ended by then.
            self.assertEqual(server.wait(), 0)
            stream.release()
            self.assertNotEqual(stream.finish()[0], 0)

    def test_r17_sigterm_when_idle(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with Server({"tiny": TINY_MODEL}) as server:
                server.send_signal(number)
                self.assertEqual(server.wait(), 0)


class LogsTest(unittest.TestCase):
    def test_s10_json_lines_without_prompts_or_paths(self):
        with Server({"tiny": TINY_MODEL}) as server:
            self.assertEqual(qkctl(server, "analyze", *IDS).returncode, 0)
            seen = len(server.rpcs(1))
            secret = "a-secret-prompt-%d" % os.getpid()
            answer = qkctl(server, "analyze", "--model", "tiny", "--prompt",
                           secret)
            self.assertNotEqual(answer.returncode, 0)
            self.assertNotIn(str(TINY_MODEL), answer.stderr)
            server.rpcs(seen + 1)  # Lines come after their answers.
            qkctl(server, "analyze", "--model", secret, "--token-ids", "1")
            server.stop()
            entries = [json.loads(line) for line in server.log]
        self.assertNotIn(secret, server.log_text())
        rpcs = [e for e in entries if e["event"] == "rpc"
                and e["method"] == "Analyze"]
        self.assertEqual([e["code"] for e in rpcs],
                         ["OK", "FAILED_PRECONDITION", "NOT_FOUND"])
        done = rpcs[0]
        self.assertRegex(done["id"], r"^[0-9a-f]{16}$")
        self.assertEqual(done["model"], "tiny")
        self.assertEqual(done["prompt_tokens"], 4)
        self.assertEqual(done["arms"], 1)
        self.assertGreater(done["bytes"], 0)
        self.assertGreaterEqual(done["total_ms"], done["queue_ms"])

    def test_metrics_are_served(self):
        with Server({"tiny": TINY_MODEL}) as server:
            listening = next(e for e in map(json.loads, server.log)
                             if e["event"] == "listening")
            text = urllib.request.urlopen(
                f"http://{listening['metrics']}/metrics",
                timeout=PATIENCE_S).read().decode()
        self.assertIn('qkscope_build_info{', text)
        self.assertIn('qkscope_model_ready{model="tiny"} 1', text)
        samples = [line for line in text.splitlines()
                   if not line.startswith("#")]
        self.assertLessEqual(len(samples), 2000)
        checked = subprocess.run(["promtool", "check", "metrics"], input=text,
                                 capture_output=True, encoding="utf-8",
                                 timeout=PATIENCE_S, check=False)
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr),
                         (0, "", ""))


if __name__ == "__main__":
    sys.exit(unittest.main())
