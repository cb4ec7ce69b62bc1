"""Tests that the metrics say what happened: after a known load, every counter
equals it. The oracle counts what it sends and receives, and reads the log."""

import datetime
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import unittest

import grpc

import exposition
from certificates import Authority, client_flags
from metrics_oracle import Oracle, analyze, closed_sets, generate, ids
from processes import (PATIENT_KEEPALIVE, PATIENT_LIMITS,
                       TINY_MODEL, GatedServer, Server, open_files, qkctl,
                       resident_bytes, scratch_folder, threads, wait_until)
from stubs import admin, analysis, spec

USERS = ("ada", "bob", "carl", "ops")


class MetricsCase(unittest.TestCase):

    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "models").mkdir()
        shutil.copytree(TINY_MODEL, self.folder / "models" / "m")

    def start(self, server_class=Server, limits="", budget=""):
        users = "".join(
            f"users {{ alias: '{alias}' role: "
            f"'{'operator' if alias == 'ops' else 'user'}' token_sha256: "
            f"'{hashlib.sha256(f'token-{alias}'.encode()).hexdigest()}' "
            f"{budget if alias == 'carl' else ''} }}\n" for alias in USERS)
        config = self.folder / "q.conf"
        config.write_text(
            PATIENT_KEEPALIVE + users +
            f"limits {{ {PATIENT_LIMITS} {limits} }}\n"
            f"model_admin {{ enabled: true root: '{self.folder}/models' "
            "max_models: 4 eviction: LRU }\n")
        server = server_class({"tiny": TINY_MODEL}, "--config", config,
                              "--spool", self.folder / "spool")
        self.addCleanup(server.stop)
        return server

    def oracles(self, server):
        out = {alias: Oracle(server, alias) for alias in USERS}
        for oracle in out.values():
            self.addCleanup(oracle.channel.close)
        return out

    def scrape(self, server):
        return exposition.Scrape(exposition.fetch(server, token="token-ops"))

    def scrape_idle(self, server):
        """Waits until nothing is left of any call."""
        def idle():
            scrape = self.scrape(server)
            left = [scrape.value("qkscope_queued_requests"),
                    scrape.value("qkscope_running_requests"),
                    scrape.value("qkscope_stream_reserved_bytes"),
                    scrape.total("qkscope_user_in_flight_requests"),
                    scrape.total("qkscope_rpc_started_total")
                    - scrape.total("qkscope_rpc_handled_total")]
            return scrape if not any(left) else None
        return wait_until(idle, "idle")

    def assert_calls(self, scrape, oracles, others=()):
        """`others`: calls of nobody, as Oracle.calls."""
        calls = {}
        for counted in [*(o.calls for o in oracles.values()), *others]:
            for key, number in counted.items():
                calls[key] = calls.get(key, 0) + number
        handled = {key: number for key, number in
                   scrape.by("qkscope_rpc_handled_total", "method",
                             "code").items() if number}
        self.assertEqual(handled, calls)
        by_method = {}
        for (method, _), number in calls.items():
            by_method[method] = by_method.get(method, 0) + number
        for sample in ("qkscope_rpc_started_total",
                       "qkscope_rpc_duration_seconds_count"):
            self.assertEqual({key: number for key, number in
                              scrape.by(sample, "method").items() if number},
                             by_method, sample)
        self.assertEqual(
            scrape.by("qkscope_user_requests_total", "user"),
            {**{o.alias: sum(o.calls.values()) for o in oracles.values()
                if o.calls}, "other": 0})
        bytes_of = {o.alias: o.bytes for o in oracles.values() if o.calls}
        self.assertEqual(
            scrape.by("qkscope_user_streamed_bytes_total", "user"),
            {**bytes_of, "other": 0})
        self.assertEqual(scrape.value("qkscope_streamed_bytes_total"),
                         sum(bytes_of.values()))


class LoadTest(MetricsCase):
    """Work of every kind."""

    def every_kind(self, oracles):
        """Returns what the load must lead to."""
        ada, bob, carl, ops = oracles.values()
        status = grpc.StatusCode
        finished = []  # of Analyze
        for _ in range(5):
            finished.append(ada.call("Analyze", analyze(7))[-1].finished)
        two_arms = ("arms {name: 'a'} arms {name: 'b' "
                    "disruptions {top_k {k: 1}}} compare {baseline: 'a'}")
        for _ in range(3):
            finished.append(bob.call("Analyze",
                                     analyze(9, two_arms))[-1].finished)
        for _ in range(2):
            ada.call("Generate", generate(4, 6))
        pairs = [analysis.ScorePair(context=ids(3), continuation=ids(2)),
                 analysis.ScorePair(context=ids(5), continuation=ids(1))]
        for _ in range(3):
            ada.call("Score", analysis.ScoreRequest(model="tiny", pairs=pairs))
        many = [analysis.AnalyzeManyRequest(spec=analysis.AnalyzeManySpec(
            request=analysis.AnalyzeRequest(model="tiny")))]
        for name, tokens in [("a", 5), ("b", 6), ("bad", 0), ("c", 7)]:
            many.append(analysis.AnalyzeManyRequest(
                prompt=analysis.AnalyzeManyPrompt(id=name, input=ids(tokens))))
        answer = bob.call("AnalyzeMany", iter(many))
        self.assertEqual(answer[-1].finished.failed, 1)
        # It writes nothing to its stream but where it is kept.
        kept = bob.call("Analyze", analyze(11, "detach: true"))
        name = kept[0].accepted.request_id
        bob.call("GetResult", analysis.GetResultRequest(request_id=name))
        bob.call("Cancel", analysis.CancelRequest(request_id=name),
                 charged=False)
        bob.call("GetResult", analysis.GetResultRequest(request_id=name),
                 status.NOT_FOUND)

        # What runs nothing.
        for oracle in (ada, bob):
            for method, request in [
                    ("GetServerInfo", analysis.GetServerInfoRequest()),
                    ("ListModels", analysis.ListModelsRequest()),
                    ("GetModel", analysis.GetModelRequest(model="tiny")),
                    ("GetUsage", analysis.GetUsageRequest()),
                    ("ListRequests", analysis.ListRequestsRequest()),
                    ("Estimate", analyze(7))]:
                oracle.call(method, request, charged=False)
        for method, request in [
                ("Tokenize", analysis.TokenizeRequest(
                    model="tiny", input=spec.Input(text=b"x"))),
                ("Detokenize", analysis.DetokenizeRequest(
                    model="tiny", token_ids=[3]))]:
            ada.call(method, request, status.FAILED_PRECONDITION)

        # Errors and refusals.
        ada.call("Analyze", analyze(0), status.INVALID_ARGUMENT)
        ada.call("Analyze", analyze(3, model="no"), status.NOT_FOUND)
        ada.call("Score", analysis.ScoreRequest(model="tiny"),
                 status.INVALID_ARGUMENT)
        bob.call("LoadModel", admin.LoadModelRequest(name="m", path="m"),
                 status.PERMISSION_DENIED, stub=bob.admin)
        large = "capture {form: RAW} " + " ".join(
            f"arms {{name: 'a{i}'}}" for i in range(60))
        for _ in range(2):
            ada.call("Analyze", analyze(250, large), status.RESOURCE_EXHAUSTED)
        carl.call("Analyze", analyze(7))
        for _ in range(3):
            carl.call("Analyze", analyze(7), status.RESOURCE_EXHAUSTED)

        # A model that comes and goes; a pass warms it up.
        ops.call("LoadModel", admin.LoadModelRequest(name="m", path="m"),
                 charged=False, stub=ops.admin)
        ops.call("Analyze", analyze(13, model="m"))
        ops.call("UnloadModel", admin.UnloadModelRequest(name="m"),
                 charged=False, stub=ops.admin)
        ops.call("ReloadConfig", admin.ReloadConfigRequest(), charged=False,
                 stub=ops.admin)
        return finished

    def test_every_counter_equals_the_load(self):
        server = self.start(
            limits="max_response_bytes: 1000000",
            budget="budget { device_ms_per_window: 1000 bytes_per_window: 1500 "
                   "window_s: 86400 }")
        oracles = self.oracles(server)
        finished = self.every_kind(oracles)
        nobody = Oracle(server, "nobody", token="wrong")
        self.addCleanup(nobody.channel.close)
        for _ in range(2):
            nobody.call("Analyze", analyze(3), grpc.StatusCode.UNAUTHENTICATED)
        scrape = self.scrape_idle(server)

        # Calls, users and bytes.
        self.assert_calls(scrape, oracles, [nobody.calls])
        self.assertEqual(
            {k: v for k, v in scrape.by("qkscope_refused_total",
                                        "reason").items() if v},
            {"response_size": 2, "user_budget": 3})
        self.assertEqual(scrape.total("qkscope_cancelled_total"), 0)
        # Tokens and rows: two arms make two sequences of a prompt, and the
        # last token that is generated makes no row.
        prompts = 5 * 7 + 3 * 9 + 2 * 4 + 3 * (5 + 6) + (5 + 6 + 7) + 11 + 7
        self.assertEqual(scrape.by("qkscope_prompt_tokens_total", "model"),
                         {"tiny": prompts, "m": 13})
        self.assertEqual(scrape.by("qkscope_generated_tokens_total", "model"),
                         {"tiny": 12, "m": 0})
        rows = prompts + 3 * 9 + 2 * 5
        self.assertEqual(scrape.by("qkscope_pass_rows_total", "model"),
                         {"tiny": rows, "m": 13})
        # The pass that warms a model up is one of the device's.
        self.assertEqual(scrape.value("qkscope_pass_rows_sum"), rows + 13 + 1)
        passes = scrape.by("qkscope_passes_total", "model")
        self.assertEqual(passes["m"], 1)
        for histogram in ("rows", "sequences", "duration_seconds",
                          "fill_ratio"):
            self.assertEqual(scrape.value(f"qkscope_pass_{histogram}_count"),
                             passes["tiny"] + 2)
        self.assertEqual(scrape.total("qkscope_failed_passes_total"), 0)
        self.assert_phases(scrape, server, finished)
        self.assert_usage(scrape, oracles["ops"])
        self.assert_state(scrape)

        # O1.
        self.assertEqual(exposition.promtool(scrape.text), "")
        self.assertEqual(exposition.problems(
            scrape, closed_sets({"tiny", "m"}, set(USERS)), 2000), [])

    def assert_phases(self, scrape, server, finished):
        """The phases of the requests that ran, against the log and against
        what clients were told."""
        lines = [line for line in map(json.loads, list(server.log))
                 if "prefill_ms" in line]
        ran = 5 + 3 + 2 + 3 + 1 + 1 + 1 + 1  # the last: kept, carl's, m's
        self.assertEqual(len(lines), ran)
        name = "qkscope_request_phase_duration_seconds"
        counts = scrape.by(name + "_count", "phase")
        # Score streams nothing; Generate and Score capture nothing.
        self.assertEqual(counts, {"queue": ran, "prefill": ran, "decode": 2,
                                  "capture": ran - 5, "stream": ran - 3})
        sums = scrape.by(name + "_sum", "phase")
        for phase, seconds in sums.items():
            logged = sum(line[f"{phase}_ms"] for line in lines) / 1e3
            self.assertGreater(logged, 0)
            self.assertLess(abs(seconds - logged), 1e-4 * logged, phase)
        # The log has six digits.
        for times in (f.times for f in finished):
            for phase in ("prefill", "decode", "capture", "compare", "stream"):
                told = getattr(times, f"{phase}_ms")
                self.assertTrue(any(abs(line[f"{phase}_ms"] - told)
                                    <= 1e-5 * told + 1e-9 for line in lines),
                                f"{phase} {told}: {lines}")

    def assert_usage(self, scrape, operator):
        """Device time, against what GetUsage says."""
        usage = operator.call(
            "GetUsage", analysis.GetUsageRequest(all_users=True),
            charged=False)[0]
        device = scrape.by("qkscope_user_device_seconds_total", "user")
        self.assertEqual(set(device), {*USERS, "other"})
        for user in usage.users:
            told = (user.total_device_ms - user.total_host_ms) / 1e3
            self.assertLess(abs(device[user.user] - told), 1e-6, user)
            self.assertGreater(told, 0)
        # The passes' time is the users', and sampling and comparing come on
        # top.
        self.assertGreaterEqual(
            sum(device.values()),
            0.999 * scrape.total("qkscope_pass_seconds_total"))
        # Carl is the only one with a budget, and has used more than it.
        self.assertEqual(set(scrape.by("qkscope_user_budget_used_ratio",
                                       "user")), {"carl"})
        ratio = scrape.value("qkscope_user_budget_used_ratio", user="carl")
        told = next(u for u in usage.users if u.user == "carl")
        self.assertAlmostEqual(ratio, told.streamed_bytes / 1500, places=12)
        self.assertGreaterEqual(ratio, 1)

    def assert_state(self, scrape):
        self.assertEqual(scrape.value("qkscope_serving"), 1)
        self.assertEqual(scrape.value("qkscope_draining"), 0)
        self.assertEqual(scrape.by("qkscope_model_ready", "model"),
                         {"tiny": 1, "m": 0})
        self.assertEqual(scrape.total("qkscope_kv_cache_used_bytes"), 0)
        self.assertEqual(scrape.total("qkscope_user_memory_bytes"), 0)
        self.assertEqual(scrape.value("qkscope_queue_oldest_age_seconds"), 0)
        self.assertEqual(scrape.value("qkscope_kept_results"), 0)
        self.assertEqual(scrape.value("qkscope_kept_results_limit"), 10_000)
        self.assertEqual(scrape.value("qkscope_kept_limit_bytes"), 4 << 30)
        self.assertEqual(scrape.value("qkscope_spool_errors_total"), 0)
        self.assertNotIn("qkscope_tls_certificate_expiry_timestamp_seconds",
                         scrape.type)
        self.assertEqual(
            scrape.value("qkscope_build_info", backend="cpu",
                         version=subprocess.run(
                             [os.environ["QK_BIN_DIR"] + "/qkscoped",
                              "--version"], capture_output=True, check=True,
                             encoding="utf-8").stdout.split()[1]), 1)


class StateTest(MetricsCase):
    """Gauges of what goes on, while the device is held."""

    def phase_count(self, scrape, phase):
        return scrape.value("qkscope_request_phase_duration_seconds_count",
                            phase=phase)

    def test_held_requests(self):
        server = self.start(GatedServer)
        oracles = self.oracles(server)
        ada, bob, carl, _ = oracles.values()
        estimates = {
            tokens: ada.call("Estimate", analyze(tokens),
                             charged=False)[0].estimate
            for tokens in (20, 30)}
        self.assertEqual(self.scrape(server).value("qkscope_connections"), 1)
        server.shut()
        first = ada.start("Analyze", analyze(20))
        server.await_held()
        # While a pass is held, these wait.
        waiting = [bob.start("Analyze", analyze(30)),
                   carl.start("Analyze", analyze(3))]
        began = time.monotonic()
        scrape = self.scrape(server)
        self.assertEqual(scrape.value("qkscope_queued_requests"), 2)
        self.assertEqual(scrape.value("qkscope_running_requests"), 1)
        self.assertEqual(scrape.value("qkscope_queue_limit_requests"), 256)
        self.assertEqual(scrape.by("qkscope_user_in_flight_requests", "user"),
                         {"ada": 1, "bob": 1, "carl": 1, "other": 0})
        self.assertEqual(scrape.by("qkscope_user_memory_bytes", "user"),
                         {"ada": estimates[20].peak_extra_bytes, "bob": 0,
                          "carl": 0, "other": 0})
        # A page holds at least as many positions as the prompt has tokens:
        # each has keys and values of 2 layers, 2 heads and 16 dims, in f32.
        used = scrape.value("qkscope_kv_cache_used_bytes", model="tiny")
        self.assertGreaterEqual(used, 20 * 2 * 2 * 2 * 16 * 4)
        self.assertEqual(scrape.value("qkscope_kv_cache_limit_bytes",
                                      model="tiny"), 1 << 30)
        self.assertGreater(
            scrape.value("qkscope_stream_reserved_bytes"), 0)
        self.assertEqual(scrape.value("qkscope_connections"), 3)
        # The age of the queue's head grows with the clock.
        age = scrape.value("qkscope_queue_oldest_age_seconds")
        later = wait_until(
            lambda: next((value for value in [self.scrape(server).value(
                "qkscope_queue_oldest_age_seconds")] if value > age + 0.2),
                         None), "the age")
        self.assertLess(later - age, time.monotonic() - began + 0.001)
        self.assertEqual(scrape.total("qkscope_passes_total"), 0)
        self.assertEqual(self.phase_count(scrape, "queue"), 0)

        # One is cancelled while it waits, and has no phases.
        waiting[1].cancel()
        self.assertEqual(carl.finish("Analyze", waiting[1]),
                         grpc.StatusCode.CANCELLED)
        wait_until(lambda: self.scrape(server).value(
            "qkscope_cancelled_total", reason="client") == 1, "the cancel")
        server.open()
        for oracle, stream in ((ada, first), (bob, waiting[0])):
            self.assertEqual(oracle.finish("Analyze", stream),
                             grpc.StatusCode.OK)
        scrape = self.scrape_idle(server)
        self.assert_calls(scrape, oracles)
        self.assertEqual(self.phase_count(scrape, "queue"), 2)
        self.assertEqual(self.phase_count(scrape, "prefill"), 2)
        self.assertEqual(scrape.total("qkscope_user_memory_bytes"), 0)
        self.assertEqual(scrape.total("qkscope_kv_cache_used_bytes"), 0)
        self.assertEqual(scrape.value("qkscope_queue_oldest_age_seconds"), 0)
        self.assertEqual(
            scrape.value("qkscope_cancel_to_idle_seconds_count"), 1)
        self.assertEqual(scrape.total("qkscope_prompt_tokens_total"), 50)

    def test_a_request_that_is_cancelled_as_it_runs_has_phases(self):
        server = self.start(GatedServer)
        oracles = self.oracles(server)
        ada = oracles["ada"]
        server.shut()
        stream = ada.start("Generate", generate(20, 100))
        server.await_held()
        server.let(5)  # The prefill and some steps of decode.
        wait_until(lambda: self.scrape(server).total(
            "qkscope_passes_total") >= 3, "passes")
        stream.cancel()
        ada.finish("Generate", stream)
        server.open()
        scrape = self.scrape_idle(server)
        self.assertEqual(scrape.total("qkscope_cancelled_total",
                                      reason="client"), 1)
        for phase in ("queue", "prefill", "decode", "stream"):
            self.assertEqual(self.phase_count(scrape, phase), 1, phase)
        line, = server.rpcs(1)
        self.assertGreater(line["prefill_ms"], 0)
        self.assertGreater(line["decode_ms"], 0)
        self.assertEqual(scrape.total("qkscope_prompt_tokens_total"), 20)

    def test_draining(self):
        server = self.start(GatedServer)
        oracles = self.oracles(server)
        server.shut()
        stream = oracles["ada"].start("Analyze", analyze(5))
        server.await_held()
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: self.scrape(server).value("qkscope_draining") == 1,
                   "the drain")
        scrape = self.scrape(server)
        self.assertEqual(scrape.value("qkscope_serving"), 0)
        self.assertEqual(exposition.promtool(scrape.text), "")
        server.open()
        self.assertEqual(oracles["ada"].finish("Analyze", stream),
                         grpc.StatusCode.OK)
        self.assertEqual(server.wait(), 0)

    def test_who_sees_which_users(self):
        server = self.start()
        oracles = self.oracles(server)
        for oracle in oracles.values():
            oracle.call("ListModels", analysis.ListModelsRequest())

        def seen(token):
            scrape = exposition.Scrape(exposition.fetch(server, token=token))
            return {user for (_, label), users in scrape.label_values().items()
                    if label == "user" for user in users}

        self.assertEqual(seen("token-ops"), {*USERS, "other"})
        self.assertEqual(seen("token-ada"), {"ada"})
        self.assertEqual(seen(None), set())


class ProcessTest(unittest.TestCase):

    def test_the_process(self):
        before = time.time()
        with Server({"tiny": TINY_MODEL}) as server:
            after = time.time()
            scrape = exposition.Scrape(exposition.fetch(server))
            started = scrape.value("process_start_time_seconds")
            # The kernel counts in ticks of 10 ms.
            self.assertLess(before - 0.02, started)
            self.assertLess(started, after)
            self.assertEqual(scrape.value("process_threads"),
                             threads(server.process.pid))
            # The scrape's own connection is open as it counts.
            self.assertLessEqual(abs(scrape.value("process_open_fds")
                                     - open_files(server.process.pid)), 2)
            resident = scrape.value("process_resident_memory_bytes")
            self.assertLess(abs(resident - resident_bytes(server.process.pid)),
                            0.2 * resident)
            # Without users, everybody is anonymous, and seen by everybody.
            qkctl(server, "analyze", "--model", "tiny", "--token-ids", "3,4")
            scrape = exposition.Scrape(exposition.fetch(server))
            self.assertGreater(
                scrape.value("qkscope_user_device_seconds_total",
                             user="anonymous"), 0)
            self.assertEqual(scrape.value("qkscope_user_requests_total",
                                          user="anonymous"), 1)
            self.assertNotIn("qkscope_kept_results", scrape.type)
            self.assertNotIn("qkscope_spool_errors_total", scrape.type)


class CertificateTest(unittest.TestCase):

    def test_the_expiry_is_that_of_the_certificate_in_use(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name)
        authority = Authority(path, "ours")
        pair = authority.issue("server", "qkscoped",
                               "DNS:localhost,IP:127.0.0.1", days=(-1, 7))
        server = Server({"tiny": TINY_MODEL}, "--tls-cert", pair.cert,
                        "--tls-key", pair.key,
                        client_flags=client_flags(authority))
        self.addCleanup(server.stop)

        def shown():
            return exposition.Scrape(exposition.fetch(server)).value(
                "qkscope_tls_certificate_expiry_timestamp_seconds")

        def said(certificate):
            text = subprocess.run(
                ["openssl", "x509", "-noout", "-enddate", "-dateopt",
                 "iso_8601", "-in", certificate], capture_output=True,
                check=True, encoding="utf-8").stdout.strip()
            return datetime.datetime.strptime(
                text, "notAfter=%Y-%m-%d %H:%M:%SZ").replace(
                    tzinfo=datetime.timezone.utc).timestamp()

        before = shown()
        self.assertEqual(before, said(pair.cert))
        self.assertLess(abs(before - time.time() - 7 * 86400), 3600)
        other = authority.issue("later", "qkscoped",
                                "DNS:localhost,IP:127.0.0.1", days=(-1, 90))
        # A certificate without its key is not in use.
        shutil.copy(other.cert, pair.cert)
        server.await_log("tls_not_reloaded")
        self.assertEqual(shown(), before)
        shutil.copy(other.key, pair.key)
        wait_until(lambda: shown() != before, "the new certificate")
        self.assertEqual(shown(), said(other.cert))


if __name__ == "__main__":
    unittest.main()
