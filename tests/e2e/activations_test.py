"""Compares /metrics/activations with numpy.

The oracle takes the norms that Analyze streams, and computes every gauge and
every histogram from them by the comments in proto/qkscope/v1/analysis.proto
(Statistics) and docs/operating.md. Nothing of the server's is used for that but
the norms and the wavelengths of its RoPE (ModelInfo).
"""

import collections
import math
import re
import shutil
import unittest
import urllib.request

import grpc
import numpy as np
from google.protobuf import text_format
from safetensors.numpy import load_file, save_file

from processes import (PATIENCE_S, ROOT, Server, demo_model, scratch_folder,
                       wait_until)
from stubs import analysis, analysis_grpc, spec

GOLDENS = ROOT / "tests" / "goldens"
# Sliding and global layers; layers without positions and without attention; no
# RoPE at all; query heads that share K and V.
MODELS = {name: GOLDENS / name for name in
          ("tiny_llama_gqa", "tiny_gemma3", "tiny_jamba", "tiny_gpt2")}
ARMS = ("arms {name: 'clean'} arms {name: 'top' disruptions {top_k {k: 2}}} "
        "arms {name: 'low' disruptions {bottom_k {k: 1}}} ")
KINDS = {"clean": "clean", "top": "disrupted", "low": "control"}
POINTS = {spec.HOOK_Q: ("q", "before"), spec.HOOK_K: ("k", "before"),
          spec.HOOK_V: ("v", "none"), spec.HOOK_ROT_Q: ("q", "after"),
          spec.HOOK_ROT_K: ("k", "after")}
ALL_POINTS = ("capture {points: [HOOK_Q, HOOK_K, HOOK_V, HOOK_ROT_Q, "
              "HOOK_ROT_K]} ")
PREFIX = "qkscope_activation_"
GAUGES = ("massive_entries", "max_mean_ratio", "max_norm",
          "low_frequency_ratio", "top_dim_ratio", "non_finite_values")


def ids(values):
    return "token_ids {" + " ".join(f"ids: {i}" for i in values) + "}"


def tokens(count, first=1):
    return [1 + (first + 7 * i) % 90 for i in range(count)]


def scrape(server, page="/metrics/activations"):
    """Returns name -> frozenset of labels -> value, of series about
    activations."""
    with urllib.request.urlopen(f"http://{server.metrics_address}{page}",
                                timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    out = collections.defaultdict(dict)
    for line in text.splitlines():
        match = re.fullmatch(r"qkscope_activation_(\w+?)(\{.*\})? (\S+)", line)
        if match:
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            if labels in out[match[1]]:
                raise AssertionError(f"twice: {line}")
            out[match[1]][labels] = float(match[3])
    return dict(out)


def labels_of(**labels):
    return frozenset((key, str(value)) for key, value in labels.items())


def matrix_of(layer):
    return np.frombuffer(layer.data, "<f4").astype(np.float64).reshape(
        layer.shape)


def gauges_of(norms, frequencies):
    """Returns the gauges of a matrix (heads, head_dim) that are defined.
    `frequencies`: how many RoPE has; 0: none."""
    finite = np.isfinite(norms)
    out = {"massive_entries": 0.0, "non_finite_values": float((~finite).sum())}
    if not finite.any():
        return out
    kept = np.where(finite, norms, 0.0)
    mean = kept.sum(1) / np.maximum(finite.sum(1), 1)
    ratios = kept / np.where(mean > 0, mean, np.inf)[:, None]
    massive = (kept > 5 * mean[:, None]) & (mean > 0)[:, None]
    out["massive_entries"] = float(massive.sum())
    out["max_mean_ratio"] = ratios.max()
    out["max_norm"] = kept.max()
    if massive.any():
        out["top_dim_ratio"] = massive.sum(0).max() / massive.sum()
        rotated = massive[:, :2 * frequencies]
        if rotated.any():
            dims = np.nonzero(rotated)[1] % frequencies
            out["low_frequency_ratio"] = float((2 * dims >= frequencies).mean())
    return out


class Oracle:
    """What the page must show after the analyses it was told of."""

    def __init__(self):
        self.gauges = {}  # labels -> name -> value
        self.matrices = collections.defaultdict(list)  # labels -> gauges
        self.samples = collections.Counter()
        self.non_finite = collections.Counter()

    def add(self, model, info, layers, source="analyze"):
        self.samples[labels_of(model=model, source=source)] += 1
        for layer in layers:
            tensor, rope = POINTS[layer.point]
            index = info.layers[layer.layer]
            frequencies = (len(info.rope[index.rope].wavelengths)
                           if tensor != "v" and index.HasField("rope") else 0)
            gauges = gauges_of(matrix_of(layer), frequencies)
            series = {"model": model, "tensor": tensor, "rope": rope,
                      "arm": KINDS[layer.arm]}
            self.gauges[labels_of(layer=layer.layer, **series)] = gauges
            self.matrices[labels_of(**series)].append(gauges)
            self.non_finite[model] += gauges["non_finite_values"]

    def histogram(self, labels, key):
        return [gauges[key] for gauges in self.matrices[labels]
                if "max_mean_ratio" in gauges]


class ActivationsCase(unittest.TestCase):
    def start(self, models, *flags):
        server = Server(models, *flags)
        self.addCleanup(server.stop)
        channel = grpc.insecure_channel(server.address)
        self.addCleanup(channel.close)
        self.stub = analysis_grpc.AnalysisStub(channel)
        self.infos = {name: self.stub.GetModel(
            analysis.GetModelRequest(model=name), timeout=PATIENCE_S)
                      for name in models}
        return server

    def analyze(self, model, tokens, more=ARMS + ALL_POINTS):
        """Returns the Layer events; a layer is one chunk here."""
        request = text_format.Parse(
            f"model: '{model}' input {{{ids(tokens)}}} {more}",
            analysis.AnalyzeRequest())
        events = list(self.stub.Analyze(request, timeout=PATIENCE_S))
        self.assertTrue(events[-1].HasField("finished"))
        return [event.layer for event in events if event.HasField("layer")]

    def close(self, got, want, what):
        """Floats of the server's float32 statistics; fails on NaN."""
        self.assertTrue(abs(got - want) <= 1e-5 * max(1.0, abs(want)),
                        f"{what}: got {got}, want {want}")

    def check_gauges(self, page, want):
        """`want`: labels -> gauges; all that the page may show."""
        for name in GAUGES:
            expected = {labels: gauges[name] for labels, gauges in want.items()
                        if name in gauges}
            got = page.get(name, {})
            self.assertEqual(set(got), set(expected), name)
            for labels, value in expected.items():
                self.close(got[labels], value, (name, sorted(labels)))

    def check_histograms(self, page, oracle):
        for name, key in (("matrix_massive_entries", "massive_entries"),
                          ("matrix_max_mean_ratio", "max_mean_ratio")):
            self.assertEqual(set(page[name + "_count"]), set(oracle.matrices))
            for labels in oracle.matrices:
                values = np.array(oracle.histogram(labels, key))
                what = (name, sorted(labels))
                self.assertEqual(page[name + "_count"][labels], len(values),
                                 what)
                self.close(page[name + "_sum"][labels], values.sum(), what)
                buckets = {labels_le: value for labels_le, value
                           in page[name + "_bucket"].items()
                           if labels < labels_le}
                self.assertGreater(len(buckets), 5)
                for labels_le, count in buckets.items():
                    (_, limit), = labels_le - labels
                    # A float32 may lie on the other side of a bound.
                    near = np.isclose(values, float(limit), rtol=1e-6,
                                      atol=0).sum()
                    self.assertLessEqual(
                        abs(count - (values <= float(limit)).sum()), near,
                        (what, limit))

    def check_page(self, server, oracle):
        page = scrape(server)
        self.check_gauges(page, oracle.gauges)
        self.check_histograms(page, oracle)
        for labels, value in page["samples_total"].items():
            self.assertEqual(value, oracle.samples[labels], sorted(labels))
        for labels, value in scrape(
                server, "/metrics")["non_finite_total"].items():
            self.assertEqual(value, oracle.non_finite[dict(labels)["model"]])
        self.assertEqual(page["left_out_series"][frozenset()], 0)
        for labels, value in page["age_seconds"].items():
            self.assertTrue(0 <= value < PATIENCE_S, sorted(labels))


class ActivationsTest(ActivationsCase):
    def changed(self, name, tensor, change):
        """A copy of the golden model with a tensor that `change` has changed."""
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        copy = shutil.copytree(GOLDENS / name, f"{folder.name}/{name}")
        weights = dict(load_file(f"{copy}/model.safetensors"))
        weights[tensor] = weights[tensor].copy()
        change(weights[tensor])
        save_file(weights, f"{copy}/model.safetensors")
        return copy

    def loud(self):
        """A model with massive entries in fast and slow RoPE pairs, in both of
        their halves."""
        def change(weight):  # (heads x head_dim, hidden)
            heads = weight.reshape(4, -1, weight.shape[1])
            half = heads.shape[1] // 2
            heads[0, half + 1] *= 30
            heads[1, half - 1] *= 30
            heads[2, 1] *= 30
        return self.changed("tiny_llama_gqa",
                            "model.layers.0.self_attn.q_proj.weight", change)

    def test_every_gauge_and_histogram(self):
        models = {**MODELS, "loud": self.loud()}
        server = self.start(models)
        oracle = Oracle()
        for count, first in ((20, 1), (33, 5)):
            for model in models:
                oracle.add(model, self.infos[model],
                           self.analyze(model, tokens(count, first)))
        self.assertEqual({gauges["low_frequency_ratio"]
                          for labels, gauges in oracle.gauges.items()
                          if ("model", "loud") in labels
                          and "low_frequency_ratio" in gauges} - {0, 1},
                         {1 / 3})
        # Four models are shown by layer, those that were used last.
        oracle.gauges = {labels: gauges
                         for labels, gauges in oracle.gauges.items()
                         if ("model", list(models)[0]) not in labels}
        self.check_page(server, oracle)

    def test_a_real_model(self):
        server = self.start({"smollm2": demo_model()})
        oracle = Oracle()
        for count, first in ((40, 17), (25, 3)):
            oracle.add("smollm2", self.infos["smollm2"],
                       self.analyze("smollm2", tokens(count, first)))
        # Some are close to the limit.
        self.assertTrue(any(4.9 < gauges["max_mean_ratio"] < 5
                            for gauges in oracle.gauges.values()))
        self.check_page(server, oracle)

    def test_many_prompts_and_a_detached_one(self):
        folder = scratch_folder()
        self.addCleanup(folder.cleanup)
        server = self.start({"tiny_llama_gqa": MODELS["tiny_llama_gqa"]},
                            "--spool", folder.name)
        oracle = Oracle()
        model, info = "tiny_llama_gqa", self.infos["tiny_llama_gqa"]
        prompts = [tokens(10 + i, i) for i in range(5)]
        for prompt in prompts:
            oracle.add(model, info, self.analyze(model, prompt))

        def messages():
            yield text_format.Parse(
                f"spec {{request {{model: '{model}' {ARMS} {ALL_POINTS}}} "
                "aggregate: true}", analysis.AnalyzeManyRequest())
            for i, prompt in enumerate(prompts):
                yield text_format.Parse(
                    f"prompt {{id: '{i}' input {{{ids(prompt)}}}}}",
                    analysis.AnalyzeManyRequest())
        finished = list(self.stub.AnalyzeMany(messages(), timeout=PATIENCE_S))
        self.assertEqual(finished[-1].finished.prompts, 5)
        self.assertEqual(finished[-1].finished.failed, 0)
        for prompt in prompts:  # the same matrices again
            oracle.add(model, info, self.analyze(model, prompt,
                                                 ARMS + ALL_POINTS
                                                 + "resumable: true"))
        for labels in oracle.matrices:
            n = len(oracle.matrices[labels]) // 2
            oracle.matrices[labels] += oracle.matrices[labels][:n]
        oracle.samples[labels_of(model=model, source="analyze")] += 5
        self.check_page(server, oracle)

    def poisoned(self, name, tensor, value):
        """A copy of the golden model with a weight that is not finite."""
        def change(weight):
            weight.reshape(-1)[0] = value
        return self.changed(name, tensor, change)

    def test_weights_that_are_not_finite(self):
        name = "model.layers.1.self_attn.q_proj.weight"
        server = self.start({
            "nan": self.poisoned("tiny_llama_gqa", name, math.nan),
            # Every entry of Q, K and V has a part in this one.
            "inf": self.poisoned("tiny_llama_gqa",
                                 "model.layers.0.input_layernorm.weight",
                                 math.inf)})
        oracle = Oracle()
        for model in ("nan", "inf"):
            oracle.add(model, self.infos[model],
                       self.analyze(model, tokens(20)))
        self.assertGreater(oracle.non_finite["nan"], 0)
        self.assertTrue(any(
            "max_mean_ratio" not in gauges
            for gauges in oracle.gauges.values()))
        self.check_page(server, oracle)
        for values in scrape(server).values():
            for value in values.values():
                self.assertTrue(math.isfinite(value))


class SamplingTest(ActivationsCase):
    ARM = "arm {name: 'top' disruptions {top_k {k: 2}}}"

    def await_samples(self, server, source, count):
        return wait_until(
            lambda: (page := scrape(server)) and sum(
                value for labels, value in page["samples_total"].items()
                if ("source", source) in labels) == count and page,
            f"{count} samples of {source}")

    def generate(self, model, prompt, arm=""):
        request = text_format.Parse(
            f"model: '{model}' input {{{ids(prompt)}}} {arm} "
            "generate {max_new_tokens: 5}", analysis.GenerateRequest())
        return list(self.stub.Generate(request, timeout=PATIENCE_S))

    def score(self, model, pairs, arm=""):
        pairs = " ".join(f"pairs {{context {{{ids(a)}}} continuation "
                         f"{{{ids(b)}}}}}" for a, b in pairs)
        return self.stub.Score(text_format.Parse(
            f"model: '{model}' {pairs} {arm}", analysis.ScoreRequest()),
            timeout=PATIENCE_S)

    def test_fills_the_gauges_that_an_analysis_fills(self):
        prompt = tokens(24)
        for model in MODELS:
            server = self.start({model: MODELS[model]},
                                "--activation-sampling", "1")
            for arm, name, kept in (("", "clean", prompt),
                                    (self.ARM, "top", prompt[:9])):
                with self.subTest(model=model, arm=name):
                    oracle = Oracle()
                    oracle.add(model, self.infos[model], self.analyze(
                        model, prompt, f"arms {{name: '{name}'}}"
                        if name == "clean" else self.ARM.replace(
                            "arm {", "arms {")))
                    of_arm = ("arm", KINDS[name])
                    # Something else lies between them.
                    self.analyze(model, tokens(7, 3), ARMS)
                    before = scrape(server)["samples_total"]
                    def count(source):
                        return before[labels_of(model=model, source=source)]
                    self.generate(model, prompt, arm)
                    page = self.await_samples(server, "generate",
                                              count("generate") + 1)
                    self.check_arm(page, oracle, of_arm)
                    self.analyze(model, tokens(7, 3), ARMS)
                    # An undisrupted pair is one pass over both of its parts, a
                    # disrupted one has its context as the prompt.
                    oracle = Oracle()
                    oracle.add(model, self.infos[model], self.analyze(
                        model, kept, ("arms {name: 'clean'}" if not arm else
                                      arm.replace("arm {", "arms {"))))
                    self.analyze(model, tokens(7, 3), ARMS)
                    self.score(model, [(prompt[:9], prompt[9:])], arm)
                    page = self.await_samples(server, "score",
                                              count("score") + 1)
                    self.check_arm(page, oracle, of_arm)
            server.stop()

    def check_arm(self, page, oracle, of_arm):
        shown = {name: {labels: value for labels, value in values.items()
                        if of_arm in labels}
                 for name, values in page.items()}
        self.assertTrue(oracle.gauges)
        self.check_gauges(shown, oracle.gauges)

    def test_O6_changes_nothing_that_a_client_sees(self):
        answers = {}
        for share in ("0", "1"):
            server = self.start(MODELS, "--activation-sampling", share)
            answers[share] = self.everything(server)
            count = sum(scrape(server)["samples_total"].get(labels_of(
                model=model, source=source), 0)
                        for model in MODELS for source in ("generate", "score"))
            if share == "0":
                self.assertEqual(count, 0)
            else:
                self.await_samples(server, "generate", 2 * len(MODELS))
                self.await_samples(server, "score", 4 * len(MODELS))
            server.stop()
        self.assertEqual(answers["0"], answers["1"])

    def everything(self, server):
        """What clients get, as bytes, without times."""
        out = []
        for model in MODELS:
            for arm in ("", self.ARM):
                for event in self.generate(model, tokens(24), arm):
                    if event.HasField("finished"):
                        self.assertEqual(event.finished.times.capture_ms, 0)
                        event.finished.ClearField("times")
                    out.append(event.SerializeToString(deterministic=True))
                answer = self.score(model, [(tokens(5), tokens(9, 3)),
                                            (tokens(8, 2), tokens(1))], arm)
                out.append(answer.SerializeToString(deterministic=True))
            request = text_format.Parse(
                f"model: '{model}' input {{{ids(tokens(24))}}} {ARMS} "
                f"{ALL_POINTS}", analysis.AnalyzeRequest())
            for event in self.stub.Analyze(request, timeout=PATIENCE_S):
                if event.HasField("accepted"):
                    continue
                if event.HasField("finished"):
                    event.finished.ClearField("times")
                if event.HasField("started"):
                    event.started.estimate.ClearField("expected_wait_ms")
                out.append(event.SerializeToString(deterministic=True))
        usage = self.stub.GetUsage(analysis.GetUsageRequest(),
                                   timeout=PATIENCE_S).users[0]
        out.append(str(usage.total_streamed_bytes))
        return out

    def test_measures_the_share_that_was_asked_for(self):
        model = "tiny_llama_gqa"
        server = self.start({model: MODELS[model]},
                            "--activation-sampling", "0.3")
        # A pair of Score is a prompt: 60 + 40 prompts.
        for _ in range(6):
            self.score(model, [(tokens(3), tokens(2))] * 10)
        for i in range(40):
            self.generate(model, tokens(3, i))
        wait_until(lambda: sum(scrape(server)["samples_total"].values()) == 30,
                   "30 samples")
        page = scrape(server)
        self.assertEqual(page["samples_total"][labels_of(
            model=model, source="score")], 18)
        self.assertEqual(page["dropped_samples_total"][frozenset()], 0)


if __name__ == "__main__":
    unittest.main()
