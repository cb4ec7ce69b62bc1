"""Tests the server with everybody at once for some time: people who work,
people with small budgets, people who flood, stop reading or break off, an
operator who loads, replaces and unloads a model, and connections without
credentials. Every answer is the one that the same request gets alone, and
nothing is left of anybody.

SOAK_SECONDS (default 8) is the duration.
"""

import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import unittest

import grpc

import processes
from mixed_requests import TOKENIZER, User, asked, error_line
from processes import ROOT, metrics, open_files, resident_bytes, threads
from server_case import MIB, ServerCase
from stubs import admin, admin_grpc, analysis

SECONDS = float(os.environ.get("SOAK_SECONDS", "8"))
WARM_UP_S = max(3, SECONDS / 5)
ROLES = ["probe", "checked", "hostile", "floods"]

# Users: alias -> what the users' file says of them.
USERS = {
    "good": "", "heavy": "weight: 4", "light": "weight: 0.25", "talker": "",
    "scorer": "", "many": "", "planner": "", "speller": "", "probe": "",
    "keeper": "budget { max_kept_results: 4 }", "cut": "",
    "looker": 'allowed_models: "m"', "guest": "", "root": 'role: "operator"',
    "poor": "budget { device_ms_per_window: 30 window_s: 2 }",
    "thrifty": "budget { bytes_per_window: 150000 window_s: 2 }",
    "single": "budget { max_in_flight: 1 }",
    "fickle": "", "killed": "", "stalled": "", "flood": "", "refused": "",
    "typist": "budget { max_in_flight: 2 }",
}
# Small enough for the crowd to reach.
BUFFERED = 64 * MIB
LIMITS = f"""
    limits {{ max_queued_requests: 48 max_buffered_bytes: {BUFFERED} }}
    keepalive_timeout_s: 120
    """
# What calls may end with.
CODES = {"OK", "CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED",
         "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNAUTHENTICATED",
         "OUT_OF_RANGE"}


class Sampler(threading.Thread):
    """What the server holds, each second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid = pid
        self.samples = []
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(1):
            self.samples.append((resident_bytes(self.pid) // MIB,
                                 open_files(self.pid), threads(self.pid)))

    def stop(self):
        self.done.set()
        self.join()
        return self.samples


class MixedSoakTest(ServerCase):

    def setUp(self):
        super().setUp()
        models = self.folder / "models"
        for name in ("tiny_llama_gqa", "tiny_llama_tied"):
            (models / name).mkdir(parents=True)
            for file in ("config.json", "model.safetensors"):
                shutil.copy(ROOT / "tests" / "goldens" / name / file,
                            models / name / file)
            (models / name / "tokenizer.json").write_text(
                json.dumps(TOKENIZER))
        self.tokens = {alias: f"token-of-{alias}" for alias in USERS}

        def digest(alias):
            return hashlib.sha256(self.tokens[alias].encode()).hexdigest()

        self.tokens["newcomer"] = "token-of-newcomer"
        users = self.folder / "users.conf"
        users.write_text("".join(
            f'users {{ alias: "{alias}" token_sha256: "{digest(alias)}" '
            f"{more} }}\n" for alias, more in USERS.items()))
        for alias in USERS:
            (self.folder / f"{alias}.token").write_text(self.tokens[alias])
        self.tokens["new sha256"] = digest("newcomer")
        self.tokens["wrong"] = "token-of-wrong"
        self.spool = self.folder / "spool"
        self.server = self.start(LIMITS + f"""
            users_file: "{users}"
            spool {{ directory: "{self.spool}" max_results: 100 }}
            model_admin {{ enabled: true root: "{models}" }}
            """, {"m": models / "tiny_llama_gqa"},
            # A leak shows best in a single heap.
            environment={**os.environ, "MALLOC_ARENA_MAX": "1"})
        self.pid = self.server.process.pid

    # ------------------------------------------------------------- alone

    def ask_alone(self, model, alone):
        """Asks everything once, and adds the answers: kind -> request -> the
        answers that are right."""
        users = {kind: User(self.server.address, self.tokens["good"])
                 for kind in ("good", "strangers", "models")}
        users["strangers"] = User(self.server.address, None)
        users["models"] = User(self.server.address, self.tokens["looker"])
        name = "" if model == "m" else "second "
        for kind, requests in asked(model).items():
            if name and kind not in ("small", "generate"):
                continue
            answers = alone.setdefault(name + kind, [[] for _ in requests])
            for method, request in requests:
                try:
                    got = users.get(kind, users["good"]).answer(method,
                                                                request)
                except grpc.RpcError as failure:
                    got = [error_line(failure)]
                answers[requests.index((method, request))].append(got)
        for user in users.values():
            user.close()

    def everything_alone(self):
        alone = {}
        self.ask_alone("m", alone)
        root = User(self.server.address, self.tokens["root"])
        operator = admin_grpc.ModelAdminStub(root.channel)
        for path in ("tiny_llama_gqa", "tiny_llama_tied"):
            list(operator.LoadModel(admin.LoadModelRequest(
                name="b", path=path), metadata=root.metadata))
            self.ask_alone("b", alone)
            operator.UnloadModel(admin.UnloadModelRequest(name="b"),
                                 metadata=root.metadata)
        root.close()
        return alone

    # ------------------------------------------------------------- the crowd

    def start_crowd(self, alone):
        settings = json.dumps({
            "address": self.server.address,
            "metrics": self.server.metrics_address, "pid": self.pid,
            "tokens": self.tokens, "folder": str(self.folder),
            "qkctl": str(processes.BIN / "qkctl"), "alone": alone})
        self.crowd = {}
        for role in ROLES:
            process = self.crowd[role] = subprocess.Popen(
                [sys.executable, pathlib.Path(__file__).with_name(
                    "mixed_crowd.py"), role], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, encoding="utf-8")
            self.addCleanup(self.end, process)
        for process in self.crowd.values():
            process.stdin.write(settings + "\n")

    def end(self, process):
        process.kill()
        process.communicate()

    def let(self, roles, seconds):
        """Lets these roles work; returns their reports."""
        for role in roles:
            self.crowd[role].stdin.write(f"{seconds}\n")
            self.crowd[role].stdin.flush()
        lines = {}

        def read(role):
            lines[role] = self.crowd[role].stdout.readline()

        readers = {role: threading.Thread(target=read, args=(role,),
                                          daemon=True) for role in roles}
        for reader in readers.values():
            reader.start()
        for reader in readers.values():
            reader.join(seconds + processes.PATIENCE_S)
        hangs = [role for role in roles if not lines.get(role)]
        self.assertEqual(hangs, [], "hang, or have died; the log ends with\n"
                         + "".join(self.server.log[-30:]))
        reports = {role: json.loads(line) for role, line in lines.items()}
        problems = {what: count for report in reports.values()
                    for what, count in report["problems"].items()}
        self.assertEqual(problems, {})
        return reports

    def assert_quiet(self):
        """Nothing is left; returns what the server holds."""
        values = self.await_idle(self.server)
        self.assertLessEqual(values["qkscope_kept_results"][""], 100)
        root = User(self.server.address, self.tokens["root"])
        usage = root.stub.GetUsage(analysis.GetUsageRequest(all_users=True),
                                   metadata=root.metadata)
        for user in usage.users:
            self.assertEqual((user.requests_in_flight, user.requests_queued),
                             (0, 0), user)
        root.close()
        return (resident_bytes(self.pid), open_files(self.pid),
                threads(self.pid))

    def assert_nothing_kept(self):
        """Everybody has deleted what was kept; so has the server."""
        values = metrics(self.server)
        self.assertEqual(values["qkscope_kept_results"][""], 0)
        self.assertEqual(values["qkscope_kept_bytes"][""], 0)
        self.assertEqual([path.name for path in self.spool.iterdir()
                          if len(path.stem) == 16], [])

    def test_r15_r16_everybody_at_once(self):
        at_start = self.assert_quiet()
        alone = self.everything_alone()
        self.start_crowd(alone)
        quiet = self.let(["probe"], max(2, SECONDS / 10))
        self.let(ROLES, WARM_UP_S)
        before = self.assert_quiet()
        sampler = Sampler(self.pid)
        sampler.start()
        reports = self.let(ROLES, SECONDS)
        samples = sampler.stop()
        after = self.assert_quiet()
        self.assert_nothing_kept()
        self.print_all(reports, quiet, samples)
        print("resident MiB, descriptors, threads: at the start, after the "
              "warm-up, at the end:", *((held[0] // MIB, *held[1:]) for held
                                        in (at_start, before, after)))
        self.assert_flat(before, after, [sample[0] for sample in samples])
        self.assert_codes()
        self.server.send_signal(15)
        self.assertEqual(self.server.wait(), 0, self.server.log_text()[-2000:])

    def assert_flat(self, before, after, resident):
        """Nothing grows. The heap keeps its high-water mark, to which what
        streams may buffer at once contributes. In a long run the mark is
        reached early."""
        self.assertLess(after[0] - before[0], BUFFERED)
        if SECONDS >= 120:
            third = len(resident) // 3
            first, last = (statistics.median(part) for part
                           in (resident[:third], resident[-third:]))
            self.assertLess(last - first, 16)
        # The descriptors of clients that have gone are closed soon, and the
        # threads of gRPC's pollers come and go.
        processes.wait_until(
            lambda: open_files(self.pid) <= before[1] + 8, "open files")
        processes.wait_until(
            lambda: threads(self.pid) <= before[2] + 16, "threads")

    def assert_codes(self):
        """No call ended as if the server were to blame."""
        codes = {}
        for labels, count in metrics(self.server)[
                "qkscope_rpc_handled_total"].items():
            code = labels.partition('code="')[2].partition('"')[0]
            if count > 0:
                codes[code] = codes.get(code, 0) + int(count)
        print("calls by code:", codes)
        self.assertEqual(set(codes) - CODES, set())

    def print_all(self, reports, quiet, samples):
        counts = {}
        for report in reports.values():
            counts.update(report["counts"])
        for what in sorted(counts):
            print(f"{counts[what]:9} {what}")

        def times(report):
            ms = sorted(1e3 * t for t in report["times"])
            return ", ".join(
                f"{name} {ms[min(len(ms) - 1, int(len(ms) * part))]:.1f}"
                for name, part in (("p50", .5), ("p99", .99), ("max", 1))
                ) + f" of {len(ms)}"
        print("small request, ms: alone", times(quiet["probe"]), "; in the "
              "crowd", times(reports["probe"]))
        print("resident MiB, descriptors, threads:",
              samples[::max(1, len(samples) // 12)])


if __name__ == "__main__":
    unittest.main()
