"""Tests that the metrics say what happened: after a known load, every counter
equals it. The oracle counts what it sends and receives, and reads the log."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import time
import unittest

import grpc
from google.protobuf import text_format

import exposition
from certificates import Authority, client_flags
from processes import (PATIENCE_S, PATIENT_KEEPALIVE, PATIENT_LIMITS, TINY_MODEL, GatedServer, Server,
                       metrics, qkctl, scratch_folder, wait_until)
from stubs import admin, admin_grpc, analysis, analysis_grpc, spec

USERS = ("ada", "bob", "carl", "ops")


def ids(count):
    return spec.Input(token_ids=spec.TokenIds(
        ids=[1 + i % 90 for i in range(count)]))


def analyze(tokens, more="", model="tiny"):
    request = text_format.Parse(more, analysis.AnalyzeRequest())
    request.model = model
    request.input.CopyFrom(ids(tokens))
    return request


def generate(tokens, new, model="tiny"):
    return analysis.GenerateRequest(
        model=model, input=ids(tokens), generate=text_format.Parse(
            f"max_new_tokens: {new} ignore_eos: true", spec.GenerateSpec()))


class Oracle:
    """A user's client, which counts what it does."""

    def __init__(self, server, alias, token=None):
        self.alias = alias
        self._metadata = [("authorization",
                           f"Bearer {token or 'token-' + alias}")]
        self.channel = grpc.insecure_channel(server.address)
        self.stub = analysis_grpc.AnalysisStub(self.channel)
        self.admin = admin_grpc.ModelAdminStub(self.channel)
        self.calls = {}  # (method, code) -> number
        self.bytes = 0
        self.messages = 0

    def _ended(self, method, code):
        key = (method, code.name)
        self.calls[key] = self.calls.get(key, 0) + 1

    def call(self, method, request, code=grpc.StatusCode.OK, charged=True,
             stub=None):
        """Makes a call and returns its messages. `charged`: its bytes count
        as results."""
        answer, status = [], grpc.StatusCode.OK
        rpc = getattr(stub or self.stub, method)
        try:
            result = rpc(request, metadata=self._metadata, timeout=PATIENCE_S)
            if hasattr(result, "DESCRIPTOR"):
                answer.append(result)
            else:
                for message in result:
                    answer.append(message)
        except grpc.RpcError as error:
            status = error.code()
        self._ended(method, status)
        if status != code:
            raise AssertionError(f"{self.alias} {method}: {status}, not {code}")
        if charged:
            self.bytes += sum(message.ByteSize() for message in answer)
        return answer

    def start(self, method, request, timeout=PATIENCE_S):
        """Starts a stream, and returns it once it was accepted."""
        stream = getattr(self.stub, method)(request, metadata=self._metadata,
                                            timeout=timeout)
        first = next(stream)
        self.bytes += first.ByteSize()
        return stream

    def finish(self, method, stream):
        """Reads a started stream to its end."""
        try:
            for message in stream:
                self.bytes += message.ByteSize()
        except grpc.RpcError:
            pass
        self._ended(method, stream.code())
        return stream.code()


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
        return exposition.Scrape(exposition.fetch(server))

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
            {**{o.alias: sum(o.calls.values()) for o in oracles.values()},
             "other": 0})
        bytes_of = {o.alias: o.bytes for o in oracles.values()}
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
        self.assertEqual(exposition.problems(scrape, self.closed(), 2000), [])

    def closed(self):
        methods = {method.name for service in (
            analysis.DESCRIPTOR.services_by_name["Analysis"],
            admin.DESCRIPTOR.services_by_name["ModelAdmin"])
                   for method in service.methods}
        return closed_sets(methods, {"tiny", "m"}, set(USERS))

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
        self.assertEqual(ratio, told.streamed_bytes / 1500)
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


def closed_sets(methods, models, users):
    """The values that each label may have."""
    return {
        "method": methods,
        "code": {code.name for code in grpc.StatusCode},
        "reason": {"queue_full", "stream_buffers", "memory", "response_size",
                   "draining", "model_state", "kept_results", "user_budget",
                   "client", "deadline", "stalled", "shutdown"},
        "phase": {"queue", "prefill", "decode", "capture", "stream"},
        "model": models | {"other"},
        "user": users | {"other"},
        "memory": {"host", "device"},
        "backend": {"cpu"},
        "version": {"0.1.0"},
    }


if __name__ == "__main__":
    unittest.main()
