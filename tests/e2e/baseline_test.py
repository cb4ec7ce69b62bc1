"""Compares baselines and drifts with numpy, on a real server and by qkctl.

The oracle takes the norms that Analyze streams; a pattern is norm / mean of its
head, a baseline the mean of patterns, a drift 1 - cosine.
"""

import collections
import hashlib
import json
import pathlib
import shutil
import signal
import unittest

import grpc
import numpy as np

from activations_test import (ALL_POINTS, ARMS, POINTS, ActivationsCase,
                              labels_of, matrix_of, scrape, tokens)
from byte_tokenizer import byte_tokenizer
from processes import (PATIENCE_S, PATIENT, ROOT, Server, qkctl,
                       scratch_folder)
from stubs import admin, admin_grpc, analysis, analysis_grpc

GOLDENS = ROOT / "tests" / "goldens"
CLEAN = "arms {name: 'clean'} " + ALL_POINTS
LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]


def pattern_of(layer):
    norms = matrix_of(layer)
    return norms / norms.mean(1, keepdims=True)


def patterns_of(layers):
    """(layer, tensor, rope) -> pattern of the undisrupted arm."""
    return {(layer.layer, *POINTS[layer.point]): pattern_of(layer)
            for layer in layers if layer.arm == "clean"}


def mean_of(prompts):
    sums = collections.defaultdict(list)
    for layers in prompts:
        for place, pattern in patterns_of(layers).items():
            sums[place].append(pattern)
    return {place: np.mean(found, axis=0) for place, found in sums.items()}


def drift_between(a, b):
    a, b = a.reshape(-1), b.reshape(-1)
    return 1 - a @ b / np.sqrt((a @ a) * (b @ b))


def drift_labels(model, place):
    layer, tensor, rope = place
    return labels_of(model=model, layer=layer, tensor=tensor, rope=rope)


class BaselineTest(ActivationsCase):
    def setUp(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.models = {}
        for model, golden in (("m", "tiny_gemma3"), ("n", "tiny_llama_gqa")):
            copy = shutil.copytree(GOLDENS / golden, self.folder / model)
            (copy / "tokenizer.json").write_text(
                json.dumps(byte_tokenizer(LETTERS, [])))
            self.models[model] = copy
        self.config = self.folder / "q.conf"
        self.config.write_text(PATIENT + "".join(
            f"users {{ alias: '{alias}' role: '{role}' token_sha256: "
            f"'{hashlib.sha256(alias.encode()).hexdigest()}' }}\n"
            for alias, role in (("ada", "user"), ("ops", "operator"))))

    def start(self, models=None, *flags, user="ops"):
        server = Server(models or self.models, "--config", self.config, *flags)
        self.addCleanup(server.stop)
        channel = grpc.insecure_channel(server.address)
        self.addCleanup(channel.close)
        call = [("authorization", f"Bearer {user}")]
        stub = analysis_grpc.AnalysisStub(channel)

        class Stub:
            """The stub's calls, as the user."""
            def __getattr__(self, name):
                return lambda request, **more: getattr(stub, name)(
                    request, metadata=call, **more)
        self.stub = Stub()
        self.admin = admin_grpc.ModelAdminStub(channel)
        self.call = call
        self.server = server
        return server

    def run_as(self, user, *arguments, code=0):
        result = qkctl(self.server, "baseline", *arguments, token=user)
        self.assertEqual(result.returncode, code,
                         result.stdout + result.stderr)
        return result.stdout + result.stderr

    def list(self, model=""):
        return list(self.admin.ListBaselines(
            admin.ListBaselinesRequest(model=model), metadata=self.call,
            timeout=PATIENCE_S).baselines)

    def scrape(self):
        return scrape(self.server)

    def check_drift(self, model, layers, baseline):
        """`layers`: of the last prompt."""
        got = {labels: value
               for labels, value in self.scrape()["drift_ratio"].items()
               if ("model", model) in labels}
        want = {drift_labels(model, place): drift_between(pattern,
                                                          baseline[place])
                for place, pattern in patterns_of(layers).items()
                if place in baseline}
        self.assertEqual(set(got), set(want))
        self.assertTrue(want)
        listed, = self.list(model)
        told = {drift_labels(model, (drift.layer, *POINTS[drift.point])):
                drift.drift for drift in listed.drifts}
        self.assertEqual(set(told), set(want))
        for labels, value in want.items():
            for shown in (got[labels], told[labels]):
                # Norms and patterns are float32.
                self.assertTrue(abs(shown - value) < 1e-6,
                                f"{sorted(labels)}: {shown}, {value}")
        return want

    def test_the_drift_from_what_the_model_has_shown(self):
        self.start()
        text = self.run_as("ops", "save", "m", code=4)
        self.assertIn("run one (qkctl analyze)", text)
        shown = [self.analyze("m", tokens(20, 1), ARMS + ALL_POINTS),
                 self.analyze("m", tokens(31, 4), ARMS + ALL_POINTS)]
        self.assertNotIn("drift_ratio", self.scrape())
        text = self.run_as("ops", "save", "m")
        self.assertIn("m: 2 prompts", text)
        page = self.scrape()
        self.assertEqual(page["baseline_prompts"],
                         {labels_of(model="m"): 2.0})
        self.assertNotIn("drift_ratio", page)  # from the next prompt on
        last = self.analyze("m", tokens(17, 2), ARMS + ALL_POINTS)
        drifts = self.check_drift("m", last, mean_of(shown))
        self.assertGreater(max(drifts.values()), 1e-4)
        # Disrupted prompts are not compared. Matrices that a prompt does not
        # capture keep the drift of the last one that did.
        self.analyze("m", tokens(5), ARMS.replace("arms {name: 'clean'} ", "")
                     + ALL_POINTS)
        self.check_drift("m", last, mean_of(shown))
        self.assertIn("hook_rot_q", self.run_as("ops", "show", "m"))
        self.assertIn("m: 2 prompts", self.run_as("ops", "show"))
        # What has been shown since counts for the next baseline.
        self.run_as("ops", "save", "m")
        self.check_drift("m", self.analyze("m", tokens(9), CLEAN),
                         mean_of([*shown, last]))
        self.run_as("ops", "remove", "m")
        self.assertNotIn("drift_ratio", self.scrape())
        self.assertEqual(self.list(), [])
        self.run_as("ops", "remove", "m", code=5)
        self.run_as("ops", "show", "m", code=5)
        self.run_as("ops", "save", "nothing", code=5)

    def test_a_baseline_of_chosen_prompts(self):
        self.start()
        self.analyze("m", tokens(40, 3), CLEAN)  # other people's
        prompts = ["abcdefgh", "the quick brown fox".replace(" ", ""), "zyx"]
        file = self.folder / "prompts.txt"
        file.write_text(prompts[0] + "\n\n" + prompts[1] + "\r\n" + prompts[2])
        text = self.run_as("ops", "save", "m", "--file", file)
        self.assertIn("m: 3 prompts", text)
        self.assertEqual(self.scrape()["baseline_prompts"],
                         {labels_of(model="m"): 3.0})
        of_prompts = mean_of([
            self.analyze("m", [LETTERS.index(c) for c in prompt], CLEAN)
            for prompt in prompts])
        last = self.analyze("m", tokens(12, 5), CLEAN)
        self.check_drift("m", last, of_prompts)
        before, = self.list("m")
        # One bad line, and nothing has changed.
        file.write_text("abc\nABC\n")
        text = self.run_as("ops", "save", "m", "--file", file, code=4)
        self.assertIn("line 2", text)
        self.assertIn("1 of 2 prompts failed", text)
        after, = self.list("m")
        self.assertEqual(before.created_unix_ms, after.created_unix_ms)
        file.write_text("\n\n")
        self.run_as("ops", "save", "m", "--file", file, code=2)
        self.run_as("ops", "save", "m", "--file", self.folder / "no", code=13)

    def test_only_operators(self):
        self.start(user="ada")
        self.analyze("m", tokens(9), CLEAN)
        file = self.folder / "prompts.txt"
        file.write_text("abc\n")
        for words in (["save", "m"], ["save", "m", "--file", file], ["show"],
                      ["remove", "m"]):
            self.run_as("ada", *words, code=12)
        self.assertNotIn("baseline_prompts", self.scrape())

    def test_save_baseline_needs_whole_undisrupted_prompts(self):
        self.start()
        def status(spec):
            def messages():
                yield analysis.AnalyzeManyRequest(spec=spec)
            with self.assertRaises(grpc.RpcError) as caught:
                list(self.stub.AnalyzeMany(messages(), timeout=PATIENCE_S))
            return caught.exception
        for more in ({"arms": [{"name": "a"}, {"name": "b"}]},
                     {"arms": [{"name": "a", "model": "n"}]},
                     {"arms": [{"name": "a", "disruptions": [{}]}]},
                     {"generate": {"max_new_tokens": 1}},
                     {"capture": {"heads": [0]}},
                     {"capture": {"positions": [0]}},
                     {"capture": {"off": True}},
                     {"capture": {"stage": "AFTER"}},
                     {"capture": {"form": "NORM_PER_TOKEN"}}):
            with self.subTest(more):
                error = status(analysis.AnalyzeManySpec(
                    request=analysis.AnalyzeRequest(model="m", **more),
                    save_baseline=True))
                self.assertEqual(error.code(),
                                 grpc.StatusCode.INVALID_ARGUMENT)
                self.assertIn("spec.save_baseline", error.details())

    def test_files_survive_the_server(self):
        kept = self.folder / "baselines"
        self.start(None, "--baseline-dir", kept)
        shown = [self.analyze("m", tokens(20, 1), CLEAN)]
        self.assertIn("kept in a file", self.run_as("ops", "save", "m"))
        self.analyze("n", tokens(20, 1), CLEAN)
        self.run_as("ops", "save", "n")
        self.server.stop(signal.SIGKILL)
        self.assertEqual(sorted(path.name for path in kept.iterdir()),
                         ["m.baseline", "n.baseline"])

        # A file that is no baseline costs a line in the log, and nothing else.
        (kept / "n.baseline").write_bytes(
            (kept / "n.baseline").read_bytes()[:-3])
        self.start(None, "--baseline-dir", kept)
        self.server.await_log('"event":"baseline_not_used","model":"n"')
        self.assertEqual(self.scrape()["baseline_prompts"],
                         {labels_of(model="m"): 1.0})
        self.check_drift("m", self.analyze("m", tokens(11), CLEAN),
                         mean_of(shown))
        self.analyze("n", tokens(8), CLEAN)
        self.server.stop()

        # Other weights of the same name.
        self.start({"m": self.models["n"]}, "--baseline-dir", kept)
        self.server.await_log('"event":"baseline_not_used","model":"m"')
        self.assertIn("other weights", self.server.log_text())
        self.assertNotIn("baseline_prompts", self.scrape())
        self.analyze("m", tokens(11), CLEAN)
        self.assertNotIn("drift_ratio", self.scrape())
        self.run_as("ops", "remove", "m")
        self.run_as("ops", "remove", "n")  # not loaded
        self.assertEqual(list(kept.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
